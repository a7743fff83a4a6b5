"""Papermill for a launcher: it ends when the launcher is gone, so that no two kernels train in one folder.

`python -m handclip_lib.launch.papermill_child LAUNCHER …`, the launcher's process id and what papermill takes.
"""

import os
import signal
import sys
import threading
import time


def main() -> None:
    """Run papermill with the rest of the arguments."""
    launcher = int(sys.argv.pop(1))
    threading.Thread(target=_end_with, args=(launcher,), daemon=True).start()
    from papermill.__main__ import papermill

    papermill()


def _end_with(launcher: int, grace: float = 20.0) -> None:
    """When another process takes the launcher's place as parent: end the kernel, in time or by force."""
    while os.getppid() == launcher:
        time.sleep(0.5)
    for _ in range(3):  # one may be lost
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(grace / 3)
    os._exit(1)  # the kernel ends when it finds its parent gone


if __name__ == "__main__":
    main()
