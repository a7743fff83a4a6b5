"""Run a notebook to a report: parameters checked before a kernel starts, an honest status, a whole report."""

import json
import os
import select
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import yaml

from handclip_lib.errors import ConfigError, HandClipError, RunError
from handclip_lib.files import begin_file, umask, write_text, writing
from handclip_lib.launch.papermill_child import KERNEL_DIED
from handclip_lib.launch.plan import Plan, plan
from handclip_lib.parameters.files import is_name, read_mapping
from handclip_lib.parameters.guard import as_papermill, resolve
from handclip_lib.parameters.notebooks import NOTEBOOKS, notebook_of
from handclip_lib.parameters.study import study_parameters
from handclip_lib.places import find_file, project, project_root
from handclip_lib.runs.record import Claim, now, read_record, remove_results, write_record
from handclip_lib.runs.run import RUN_FOLDER, new_record

T = TypeVar("T")
GRACE = 20.0  # seconds a notebook has to end after it was asked to
AGAIN = 7.0  # seconds after which it is asked again: a signal may be lost, and nbclient gives a kernel 5 to end
TIME_OUT = "time-out"
LOG = "papermill.log"
"""File in a run's folder: what papermill, the kernel and its processes said, of every start."""


@dataclass(frozen=True)
class Launched:
    """How a launch ended: its folder, its status ("skipped" when it had succeeded before) and the report."""

    folder: Path
    status: str
    error: str | None
    report: Path | None

    @property
    def exit_code(self) -> int:
        """What the command line ends with: as a shell, `timeout` and a killed process would say it."""
        if self.status == "interrupted":
            return 124 if TIME_OUT in (self.error or "") else 143 if "SIGTERM" in (self.error or "") else 130
        return {"succeeded": 0, "skipped": 0, "died": 137}.get(self.status, 1)


def find_notebook(name: str) -> Path:
    """A notebook by number ("05"), name or path; a ConfigError lists those there are."""
    folder, stem = project_root() / "notebooks", name if not name.endswith(".ipynb") else Path(name).stem
    found = notebook_of(stem)
    path = Path(name) if name != stem and Path(name).is_file() else folder / f"{found or stem}.ipynb"
    if not folder.is_dir() and not path.is_file():
        raise ConfigError(f"{folder} is not there: handclip init --update brings the notebooks of a study")
    if found and not path.is_file():
        remedy = "copy it from a new study: handclip init FOLDER" if project() else "install HandCLIP again"
        raise ConfigError(f"{path} is not there: {remedy}")
    if not found:
        raise ConfigError(f"no notebook {name!r} in {folder}; choose from {', '.join(NOTEBOOKS)} or their numbers")
    return path


def gather(files: Sequence[str], typed: Sequence[tuple[str, str]], raw: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Merge parameters: files in their order, then `-p` (typed as papermill types them), then `-r` (text).

    A file is sought from the working folder or else from the project's.

    Raises:
        ConfigError: As `read_mapping`, or a name is none.
    """
    merged: dict[str, Any] = {}
    for file in files:
        merged |= read_mapping(find_file(file))
    if wrong := [name for name, _ in (*typed, *raw) if not is_name(name)]:
        raise ConfigError(f"{wrong[0]!r} is no name of a parameter")
    return merged | {name: as_papermill(value) for name, value in typed} | dict(raw)


class Papermill:
    """Papermill and a kernel in a process of its own, so that whatever ends it leaves us to tell the truth.

    One serves notebooks that run one after the other; where it has ended, the next begins another.
    """

    def __init__(self) -> None:
        self._child: subprocess.Popen[str] | None = None

    def __enter__(self) -> "Papermill":
        return self

    def __exit__(self, *_: object) -> None:
        """Let it end, with its kernel, in time or by force."""
        if self._child is None:
            return
        with suppress(OSError):
            self._child.stdin.close()  # type: ignore[union-attr]
        try:
            self._child.wait(GRACE)
        except subprocess.TimeoutExpired:
            os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()

    def run(self, task: Mapping[str, Any], timeout: float | None) -> tuple[int, str | None]:
        """Run a notebook; as `waited_for`. What papermill and the kernel say goes into the `log` of the task."""
        if self._child is None or self._child.poll() is not None:
            command = [sys.executable, "-m", "handclip_lib.launch.papermill_child", str(os.getpid()), task["log"]]
            self._child = subprocess.Popen(
                [*command, task["notebook"]], env={**os.environ, **task["environment"]}, start_new_session=True,
                umask=umask(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
        with suppress(BrokenPipeError):  # it has ended: its code says how
            print(json.dumps(task), file=self._child.stdin, flush=True)
        return waited_for(self._child, timeout)


def parameters_of(
    notebooks: Sequence[Path], files: Sequence[str], typed: Sequence[tuple[str, str]], raw: Sequence[tuple[str, str]]
) -> list[dict[str, Any]]:
    """What each of several notebooks is given, beside the study's: `gather` of what is meant for it.

    `03.epochs` is meant for notebook 03 alone; a name without a number for all that have such a parameter, and where
    none has, for all, which refuse it.

    Raises:
        ConfigError: As `gather`; a number that is none of the notebooks'; of several all faults of their parameters.
    """
    together, given, faults = [path.stem for path in notebooks], [], list[str]()
    of_files = gather(files, [], [])
    for stem in together:
        kept = dict(_meant(of_files.items(), stem, together))
        given.append(study_parameters(stem) | kept | gather([], *(_meant(p, stem, together) for p in (typed, raw))))
        try:
            if len(together) > 1:  # before hours pass; what they name is looked at as each begins
                resolve(NOTEBOOKS[stem], given[-1])
        except ConfigError as error:
            faults.append(f"{stem}: {error}")
    if faults:
        raise ConfigError("\n".join(faults))
    return given


def _meant(pairs: Iterable[tuple[str, T]], stem: str, together: Sequence[str]) -> list[tuple[str, T]]:
    """Of names and values those that are meant for one of several notebooks, without its number."""
    found = []
    for name, value in pairs:
        number, dot, own = name.partition(".")
        if dot and notebook_of(number) not in together:
            raise ConfigError(f"{name}: {number} is none of the notebooks that are run: {', '.join(together)}")
        having = (
            [notebook_of(number)] if dot else [other for other in together if name in NOTEBOOKS[other].model_fields]
        )
        if stem in (having or together):
            found.append((own if dot else name, value))
    return found


def launch(
    notebook: Path, parameters: Mapping[str, Any], *, force: bool = False, timeout: float | None = None,
    papermill: Papermill | None = None, last: bool = True,
) -> Launched:  # fmt: skip
    """Run a notebook in its own folder, and write the report and the index.

    The same run, if it succeeded, is not run again, and goes on from its checkpoint if it was stopped, unless forced:
    then it starts anew. It is interrupted after `timeout` seconds. `papermill` is one that serves others, too, of
    which this is the `last` or not.

    Raises:
        ConfigError: All faults at once, before anything is started; see `plan`.
        RunError, WriteError: The same run is under way, or the reports folder cannot be written.
    """
    if timeout is not None and not timeout > 0:
        raise ConfigError(f"timeout={timeout:g}: give the seconds the run may take, more than 0")
    planned = plan(notebook, parameters)
    folder = planned.folder
    with Claim(folder), writing(folder):
        if (read_record(folder) or {}).get("status") == "succeeded" and not force:
            return Launched(folder, "skipped", None, _reported(folder, "succeeded before"))
        with nullcontext(papermill) if papermill else Papermill() as runner:
            return _run(notebook, planned, force, timeout, runner, last)


def _run(
    notebook: Path, planned: Plan, anew: bool, timeout: float | None, papermill: Papermill, last: bool
) -> Launched:
    config, folder = planned.config, planned.folder
    record = new_record(folder, config, planned.read) | {"command": shlex.join(["handclip", *sys.argv[1:]])}
    write_record(folder, record)
    remove_results(folder, and_checkpoints=anew)  # now that the record no longer says that they are a success
    write_text(folder / "parameters.yml", yaml.safe_dump(config.model_dump(), sort_keys=False))
    began = time.monotonic()
    private = folder / ".executing.ipynb"
    begin_file(folder / LOG)
    readied = threading.Thread(target=_ready_for_a_report, daemon=True)  # a second's work, needed when the run ends
    readied.start()
    task = {
        "notebook": str(notebook), "output": str(private), "parameters": str(folder / "parameters.yml"),
        "log": str(folder / LOG), "environment": {RUN_FOLDER: str(folder)}, "last": last,
    }  # fmt: skip
    code, stopped_by = papermill.run(task, timeout)
    record = read_record(folder) or record
    if private.exists():
        os.replace(private, folder / "executed.ipynb")
    status, error = _outcome(code, stopped_by, record, folder / "executed.ipynb")
    record |= {"status": status, "error": error, "finished": now(), "seconds": round(time.monotonic() - began, 1)}
    write_record(folder, record)
    readied.join()
    return Launched(folder, status, error, _reported(folder, status, anew=True))


def _ready_for_a_report() -> None:
    from handclip_lib.report.cells import get_ready

    get_ready()


def _reported(folder: Path, status: str, *, anew: bool = False) -> Path:
    """The report of a run, written where it is missing, and the index."""
    from handclip_lib.report.pages import render_report, write_index

    report = folder / "report.html"
    if report.is_file() and not anew:
        return report
    try:
        render_report(folder)
        write_index(folder.parent)
    except KeyboardInterrupt:
        print(f"handclip: {folder.name} {status}, but its report is not written: handclip report {folder.name}",
              file=sys.stderr)  # fmt: skip
        raise
    except HandClipError as error:
        raise RunError(f"{folder.name} {status}, but: {error}; then: handclip report {folder.name}") from error
    return report


def waited_for(child: "subprocess.Popen[str]", timeout: float | None) -> tuple[int, str | None]:
    """Wait for a line of a process or for its end, and end it where a signal or the time says so.

    Its exit code, 0 of one that goes on, and what stopped it before: a signal's name, a time-out, or None.
    """
    began, answers = time.monotonic(), cast(IO[str], child.stdout)
    with asked_to_stop() as asked:
        while True:
            if select.select([answers], [], [], 0.2)[0]:
                return (0 if answers.readline() else child.wait()), asked[0] if asked else None
            if timeout is not None and time.monotonic() - began > timeout:
                asked.append(f"a {TIME_OUT} after {timeout:g} s")
            if asked:
                break
        deadline = time.monotonic() + GRACE
        while (left := deadline - time.monotonic()) > 0:
            child.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                return child.wait(min(AGAIN, left)), asked[0]
        os.killpg(child.pid, signal.SIGKILL)
        return child.wait(), asked[0]


@contextmanager
def asked_to_stop() -> Iterator[list[str]]:
    """Collect the names of SIGINT and SIGTERM instead of dying of them."""
    asked: list[str] = []

    def note(number: int, _: object) -> None:
        asked.append(signal.Signals(number).name)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _outcome(code: int, stopped_by: str | None, record: Mapping[str, Any], executed: Path) -> tuple[str, str | None]:
    if code == 0 and record.get("reached_the_end"):
        return "succeeded", None
    if stopped_by is not None:
        return "interrupted", f"stopped by {stopped_by}"
    if code == KERNEL_DIED or code < 0:
        who = "the kernel was" if code > 0 else "papermill was"
        lower = [name for name in ("batch_size", "encoded_at_once", "n_identities") if name in record["parameters"]]
        remedy = f"; lower {' or '.join(lower)}, or run it again as it is" if lower else ""
        return "died", f"{who} killed (out of memory?){remedy}"
    if code == 0:
        return "failed", "the notebook ended without run.finish(...)"
    return "failed", _error_of(executed) or f"papermill ended with code {code}"


def _error_of(executed: Path) -> str | None:
    """The error a cell of an executed notebook ended with."""
    try:
        cells = json.loads(executed.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError):
        return None
    outputs = [output for cell in cells for output in cell.get("outputs", []) if output["output_type"] == "error"]
    return f"{outputs[-1]['ename']}: {outputs[-1]['evalue']}" if outputs else None
