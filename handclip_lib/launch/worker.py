"""Where a run of a sweep happens: in a process, since only a main thread may take the signals that end it.

It reads its point as a line of JSON, answers with another, and ends, interrupting its run, when its parent is gone.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from handclip_lib.errors import HandClipError, RunError
from handclip_lib.files import begin_file, umask
from handclip_lib.launch.launcher import GRACE, asked_to_stop, launch
from handclip_lib.launch.plan import run_folder
from handclip_lib.parameters.guard import resolve
from handclip_lib.parameters.notebooks import NOTEBOOKS
from handclip_lib.runs.record import UnderWayError

PATIENCE = GRACE + 15  # seconds a run is given to end
ELSEWHERE = "running elsewhere"
NOT_RUN = "not run"
_processes: dict[str, set[subprocess.Popen]] = defaultdict(set)  # by sweep


def run_point(task: Mapping[str, Any]) -> dict[str, Any]:
    """Run one point of `sweep.sweep` here, in a process of its own, and wait for it.

    Its status is "skipped" when it had succeeded before, "lost" when the process died, `NOT_RUN` when it was stopped
    before it began, `ELSEWHERE` when another process has the run and does not end it soon.
    """
    log = Path(task["log"])
    if not log.parent.is_dir():
        where = f"{log} cannot be reached from {os.uname().nodename}"
        return {"status": "failed", "error": f"{where}: workers need the file system that the sweep was started on"}
    begin_file(log)
    with log.open("ab") as messages:
        process = subprocess.Popen(
            [sys.executable, "-m", "handclip_lib.launch.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=messages, text=True, cwd=task["cwd"], env={**os.environ, **task["environment"]}, umask=umask(),
            start_new_session=True,  # Ctrl-C at the terminal is the sweep's to handle
        )  # fmt: skip
    _processes[task["sweep"]].add(process)
    try:
        process.stdin.write(json.dumps(task) + "\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
        answer = process.stdout.readline()  # type: ignore[union-attr]
    except OSError:
        answer = ""
    code = process.wait()
    _processes[task["sweep"]].discard(process)
    if answer:
        return json.loads(answer)
    if code == -signal.SIGTERM:  # it would have taken the signal, had it begun
        return {"status": NOT_RUN, "error": None}
    return {"status": "lost", "error": f"the process of the run ended with code {code}; see {log}"}


def stop_runs(sweep: str) -> None:
    """Interrupt what a sweep runs here."""
    for process in list(_processes[sweep]):
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)


def end_runs(sweep: str) -> None:
    """Interrupt what a sweep runs here, until it has ended or by force."""
    deadline = time.monotonic() + PATIENCE
    while alive := [process for process in list(_processes[sweep]) if process.poll() is None]:
        for process in alive:
            process.send_signal(signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL)
        time.sleep(0.5)


def _main() -> None:
    """Launch the point of standard input."""
    with asked_to_stop() as asked:
        points, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)  # what a run prints is no answer
        task = json.loads(points.readline())
        threading.Thread(target=_end_with, args=(points,), daemon=True).start()
        answer = {"status": NOT_RUN, "error": None} if asked else _launched(task)
        print(json.dumps(answer), file=answers, flush=True)
        os._exit(0)  # nothing is left to tidy, and tidying what nbconvert imported takes a while


def _end_with(points: Any) -> None:
    points.read()
    while True:  # who started this is gone: a signal may fall between two handlers, so not once
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5)


def _launched(task: Mapping[str, Any]) -> dict[str, Any]:
    """Launch a point, once a lost worker's run of it has ended."""
    notebook, parameters = Path(task["notebook"]), task["parameters"]
    typed = [("-r" if isinstance(value, str) else "-p", name, str(value)) for name, value in parameters.items()]
    sys.argv = ["handclip", "run", notebook.stem, *chain(*typed)]  # what the record says of its command
    began = time.monotonic()
    while True:
        try:
            name = run_folder(notebook, resolve(NOTEBOOKS[notebook.stem], parameters)).name
            if name != task["run"]:
                changed = "the library, the notebook, the data or the latest run is another here and now"
                raise RunError(f"{task['run']} would be {name}: {changed}; start the sweep again")
            done = launch(notebook, parameters, force=task["force"])
            return {"status": done.status, "error": done.error}
        except UnderWayError as error:
            if time.monotonic() - began > max(PATIENCE, error.wait):
                return {"status": ELSEWHERE, "error": str(error)}
            time.sleep(0.5)
        except Exception as error:
            kind = "" if isinstance(error, HandClipError) else f"{type(error).__name__}: "
            return {"status": "failed", "error": f"{kind}{error}"}


if __name__ == "__main__":
    _main()
