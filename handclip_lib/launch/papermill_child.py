"""Papermill for a launcher, in a process of its own: what it and the kernel say goes into a log, one line is shown.

It ends when the launcher is gone, so that no two train in one folder.
"""

import logging
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

KERNEL_DIED = 138
ENCRYPTED = {"KernelManager": {"transport_encryption": "auto"}}
"""What a kernel shows may be photographs, and others on this machine could listen to a port."""
BAR = "{desc}: {n_fmt} of {total_fmt} cells, {elapsed}"


def main(launcher: int, log: str, notebook: str, output: str, parameters: str, folder: str) -> None:
    """Execute a notebook with a file of parameters, in a working folder; `launcher` is the process to end with."""
    threading.Thread(target=_end_with, args=(launcher,), daemon=True).start()
    shown = os.fdopen(os.dup(2), "w") if os.isatty(2) else None
    log_file = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log_file, stream)
    logging.basicConfig(level="INFO", format="%(message)s")
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # a warning of frozen modules, as papermill does
    from nbclient.exceptions import DeadKernelError
    from papermill.engines import NBClientEngine, papermill_engines
    from papermill.execute import execute_notebook
    from papermill.iorw import read_yaml_file
    from traitlets.config import Config

    class Engine(NBClientEngine):
        """Papermill's own, whose line goes on counting seconds while a cell computes."""

        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> None:
            if bar := nb_man.pbar:
                threading.Thread(target=_refresh, args=(bar,), daemon=True).start()
            super().execute_managed_notebook(nb_man, kernel_name, **options)

    papermill_engines.register("handclip", Engine)
    line = {"file": shown, "desc": Path(notebook).stem, "bar_format": BAR}
    try:
        execute_notebook(
            notebook, output, read_yaml_file(parameters), "handclip", progress_bar=line if shown else False,
            cwd=folder, request_save_on_cell_execute=False, autosave_cell_every=5, config=Config(ENCRYPTED),
        )  # fmt: skip
    except DeadKernelError:
        traceback.print_exc()
        sys.exit(KERNEL_DIED)
    except KeyboardInterrupt:
        sys.exit(1)


def _refresh(bar: Any) -> None:
    while not bar.disable:  # closed
        bar.refresh()
        time.sleep(1)


def _end_with(launcher: int) -> None:
    """When another process takes the launcher's place as parent: end the kernel, in time or by force."""
    while os.getppid() == launcher:
        time.sleep(0.5)
    for _ in range(3):  # one may be lost
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(7)
    os._exit(1)  # the kernel ends when it finds its parent gone


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
