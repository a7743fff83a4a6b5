"""Papermill for a launcher, given its process id: it ends when that is gone, so that no two train in one folder."""

import os
import signal
import sys
import threading
import time


def _end_with(launcher: int) -> None:
    """When another process takes the launcher's place as parent: end the kernel, in time or by force."""
    while os.getppid() == launcher:
        time.sleep(0.5)
    for _ in range(3):  # one may be lost
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(7)
    os._exit(1)  # the kernel ends when it finds its parent gone


if __name__ == "__main__":
    threading.Thread(target=_end_with, args=(int(sys.argv.pop(1)),), daemon=True).start()
    from papermill.__main__ import papermill

    papermill()
