"""Where the runs of a sweep happen: a process that is kept warm and launches one point after another.

A Dask worker runs its tasks in threads, and only a main thread may take the signals that end a run honestly, so each
thread has a process of its own. It reads points as lines of JSON and ends, interrupting its run, when the worker that
feeds it is gone.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from handclip_lib.errors import HandClipError, RunError
from handclip_lib.files import begin_file, umask
from handclip_lib.launch.launcher import GRACE, launch, run_folder
from handclip_lib.parameters.guard import resolve
from handclip_lib.parameters.notebooks import NOTEBOOKS
from handclip_lib.runs.claim import UnderWayError

PATIENCE = GRACE + 15  # seconds the run of a lost worker is given to end
ELSEWHERE = "running elsewhere"
IDLE = 600.0  # seconds a process waits for a point of a sweep that may have been killed
_processes: dict[tuple[str, int], subprocess.Popen] = {}  # by sweep and thread


def run_point(task: Mapping[str, Any]) -> dict[str, Any]:
    """Run one point here, in this thread's process; called on a Dask worker.

    Args:
        task: Of `sweeps.sweep`.

    Returns:
        Its status ("skipped" when it had succeeded before, "lost" when the process died, `ELSEWHERE` when another
        process has the run and does not end it soon) and error.
    """
    if not Path(task["log"]).parent.is_dir():
        where = f"{task['log']} cannot be reached from {os.uname().nodename}"
        return {"status": "failed", "error": f"{where}: workers need the file system that the sweep was started on"}
    process = _process(task)
    try:
        process.stdin.write(json.dumps(task) + "\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
        answer = process.stdout.readline()  # type: ignore[union-attr]
    except OSError:
        answer = ""
    if answer:
        return json.loads(answer)
    return {"status": "lost", "error": f"the process of the run ended with code {process.wait()}; see {task['log']}"}


def run_in_job(task: Mapping[str, Any]) -> dict[str, Any]:
    """Run one point in a job that ends with it; as `run_point`."""
    try:
        return run_point(task)
    finally:
        end_processes(task["sweep"])


def stop_runs(sweep: str) -> None:
    """Interrupt what a sweep runs on this worker."""
    for (owner, _), process in list(_processes.items()):
        if owner == sweep and process.poll() is None:
            process.send_signal(signal.SIGTERM)


def end_processes(sweep: str) -> None:
    """End a sweep's processes on this worker."""
    own = [_processes.pop(key) for key in list(_processes) if key[0] == sweep]
    for process in own:
        with suppress(OSError):
            process.stdin.close()  # type: ignore[union-attr]
    for process in own:  # a run that goes on is being interrupted
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()


def _process(task: Mapping[str, Any]) -> subprocess.Popen:
    key = (task["sweep"], threading.get_ident())
    if key not in _processes or _processes[key].poll() is not None:
        gpus = {"CUDA_VISIBLE_DEVICES": _own(task["gpus"])} if task["gpus"] else {}
        begin_file(Path(task["log"]))
        with Path(task["log"]).open("ab") as log:
            _processes[key] = subprocess.Popen(
                [sys.executable, "-m", "handclip_lib.launch.worker"], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=log, text=True, cwd=task["cwd"],
                env={**os.environ, **task["environment"], **gpus},
                umask=umask(), start_new_session=True,  # Ctrl-C at the terminal is the sweep's to handle
            )  # fmt: skip
    return _processes[key]


def _own(gpus: list[str]) -> str:
    """The GPUs of this worker of a local cluster, whose workers have numbers for names."""
    from distributed import get_worker

    return gpus[int(get_worker().name) % len(gpus)]


def _main() -> None:
    """Launch the points of standard input until it is closed."""
    points, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what a run prints is no answer
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(points, lines), daemon=True).start()
    while (line := _next(lines)) is not None:
        answer = {"status": "not run", "error": None} if stopped.is_set() else _launched(line)
        print(json.dumps(answer), file=answers, flush=True)
    os._exit(0)  # nothing is left to tidy, and tidying what nbconvert imported takes a while


def _next(lines: "queue.SimpleQueue[str | None]") -> str | None:
    try:
        return lines.get(timeout=IDLE)
    except queue.Empty:
        return None


def _listen(points: TextIO, lines: "queue.SimpleQueue[str | None]") -> None:
    for line in points:
        lines.put(line)
    lines.put(None)
    while True:  # the worker is gone: a signal may fall between two handlers, so not once
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5)


def _launched(line: str) -> dict[str, Any]:
    """Launch a point, once a lost worker's run of it has ended."""
    task = json.loads(line)
    notebook, parameters = Path(task["notebook"]), task["parameters"]
    sys.argv = ["handclip", "run", notebook.stem, *_as_typed(parameters)]  # what the record says of its command
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
        except HandClipError as error:
            return {"status": "failed", "error": str(error)}
        except Exception as error:
            return {"status": "failed", "error": f"{type(error).__name__}: {error}"}


def _as_typed(parameters: Mapping[str, Any]) -> list[str]:
    words = []
    for name, value in parameters.items():
        words += ["-r" if isinstance(value, str) else "-p", name, str(value)]
    return words


if __name__ == "__main__":
    _main()
