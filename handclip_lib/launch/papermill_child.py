"""Papermill for a launcher, in a process of its own: what it and the kernel say goes into a log, one line is shown.

Notebooks come as lines of JSON and run one after the other in one kernel, each in a namespace of its own, as long as
they succeed. It ends when the launcher is gone, so that no two train in one folder.
"""

import importlib
import json
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
START = 600.0  # seconds a kernel may take to be ready, which imports what its notebook will


def main(launcher: int, log: str, notebook: str) -> None:
    """Execute the notebooks that come, the first of which is named here; `launcher` is the process to end with."""
    threading.Thread(target=_end_with, args=(launcher,), daemon=True).start()
    shown = os.fdopen(os.dup(2), "w") if os.isatty(2) else None
    tasks, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    _say_in(log)
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # a warning of frozen modules, as papermill does
    logging.basicConfig(level="INFO", format="%(message)s")
    from jupyter_core.utils import run_sync

    code, kernel = 0, _kernel(notebook)
    try:
        run_sync(kernel.start_kernel)(extra_arguments=["--HistoryManager.hist_file=:memory:"])
        for module in (
            "handclip_lib.report",
            "papermill.execute",
        ):  # while the kernel imports; the first spares a second
            importlib.import_module(module)
        for line in tasks:
            task = json.loads(line)
            _say_in(task["log"])
            _begin(kernel, task["log"], task["environment"])
            _execute(kernel, task, shown)
            print("done", file=answers, flush=True)
            if task["last"]:
                break
    except KeyboardInterrupt:
        code = 1
    except BaseException as error:
        traceback.print_exc()
        code = KERNEL_DIED if type(error).__name__ == "DeadKernelError" else 1
    finally:
        run_sync(kernel.shutdown_kernel)()
    sys.stderr.flush()
    os._exit(code)  # nothing is left to tidy


def _kernel(notebook: str) -> Any:
    """A kernel of this environment, whatever the user's "python3" is."""
    from jupyter_client.manager import AsyncKernelManager
    from traitlets.config import Config

    kernel = AsyncKernelManager(kernel_name="python3", config=Config(ENCRYPTED))
    command = [sys.executable, "-m", "handclip_lib.launch.kernel", notebook, "-f", "{connection_file}"]
    kernel.kernel_spec.argv = command  # type: ignore[union-attr]
    return kernel


def _begin(kernel: Any, log: str, environment: dict[str, str]) -> None:
    """Let the kernel begin anew."""
    client = kernel.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=START)
        call = f"__import__('handclip_lib.launch.kernel', fromlist=['begin']).begin({log!r}, {environment!r})"
        answer = client.execute(call, silent=True, store_history=False, reply=True, timeout=START)["content"]
    finally:
        client.stop_channels()
    if answer["status"] != "ok":
        raise RuntimeError(f"the kernel cannot begin: {answer.get('ename')}: {answer.get('evalue')}")


def _execute(kernel: Any, task: dict[str, Any], shown: Any) -> None:
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import Engine, papermill_engines
    from papermill.execute import execute_notebook
    from papermill.iorw import read_yaml_file

    class InOurKernel(Engine):
        """Papermill's own but for the kernel; its line goes on counting seconds while a cell computes."""

        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **_: object) -> None:
            if bar := nb_man.pbar:
                threading.Thread(target=_refresh, args=(bar,), daemon=True).start()
            client = PapermillNotebookClient(nb_man, km=kernel, kernel_name=kernel_name, startup_timeout=START)
            try:
                client.execute()
            finally:
                if client.kc is not None:
                    client.kc.stop_channels()

    papermill_engines.register("handclip", InOurKernel)
    line = {"file": shown, "desc": Path(task["notebook"]).stem, "bar_format": BAR}
    execute_notebook(
        task["notebook"], task["output"], read_yaml_file(task["parameters"]), "handclip",
        progress_bar=line if shown else False, cwd=str(Path.cwd()), request_save_on_cell_execute=False,
        autosave_cell_every=5,
    )  # fmt: skip


def _say_in(log: str) -> None:
    """Let the standard output and errors of this process go to the end of a log."""
    opened = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(opened, stream)
    os.close(opened)


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
