"""`run.json`: what a run is, how it ended, and whose it is: one process's, by a lock here, by a heartbeat elsewhere."""

import json
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from typing import Any
from uuid import uuid4

from filelock import Timeout

from handclip_lib.errors import RunError
from handclip_lib.files import begin_file, file_lock, make_folder, read_regular, write_text, writing
from handclip_lib.places import TRAINED_ON
from handclip_lib.terminal import one_line

STATUSES = ("running", "succeeded", "failed", "interrupted", "died", "lost")
DAMAGED = "damaged"
PROMPTS_OF, TRAININGS = ("02_prompt_learning",), ("03_image_finetune", "04_joint_training")
"""Notebooks whose runs later ones take: prompts, and trained image towers."""
CHECKPOINTS = dict.fromkeys(PROMPTS_OF, "text_features.safetensors") | dict.fromkeys(TRAININGS, "best.safetensors")
"""What a later notebook takes from a run."""
TRAINING_CHECKPOINTS = ("image.safetensors", "prompts.safetensors")
"""What trainings go on from, the later one of a run first."""
RESULTS = (
    "metrics.json", "split.json", "*.csv", "*.md", "*.tex", "*.bib", "figures/*.png", "*.safetensors", "executed.ipynb",
    "report*.html", "thumbnail.png", "folds.json", "folds/*/*.safetensors", f"{TRAINED_ON}/*/*",
)  # fmt: skip
"""What a run writes beside its record and its parameters."""
MOST = 1_000_000  # bytes of a record; those of a long sweep's runs have some thousands
DEEPEST = 12  # levels of a record
LONGEST_NUMBER = 18  # digits
KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("notebook", "started", "finished", "error", "command"), str),
    **dict.fromkeys(("parameters", "defaults", "metrics", "inputs", "split", "process", "versions", "study"), dict),
    "seconds": (int, float),
}
"""What parts of a record are, where they are there and not null; of others, any."""
HEARTBEAT = "heartbeat"
"""File in a run's folder that is touched while the run goes on."""
LOST_AFTER = 300.0  # seconds without a heartbeat; a file server may show a touch a minute late
BEAT = 15.0  # seconds between touches of the heartbeat


def now() -> str:
    """The time, ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write `run.json` whole or not at all."""
    write_text(folder / "run.json", json.dumps(record, indent=1, default=str) + "\n")


def read_record(folder: Path) -> dict[str, Any] | None:
    """`run.json`, as `record_of` reads it, or None where there is none that can be used."""
    record = record_of(folder)
    return None if record["status"] == DAMAGED else record


def record_of(folder: Path) -> dict[str, Any]:
    """`run.json`; of one that cannot be used, its id, the status "damaged" and the reason as error.

    The id is the folder's name: a copied or renamed folder holds the record of another run. One that says "running"
    has "died" where its process is gone, or is "lost" where that was on a machine that gives no sign of life.
    """
    try:
        record = json.loads(read_regular(folder / "run.json", MOST), parse_int=_whole)
        _check(record)
    except FileNotFoundError:
        return {"id": folder.name, "status": DAMAGED, "error": "run.json is not there"}
    except (OSError, ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else getattr(error, "strerror", None) or error
        return {"id": folder.name, "status": DAMAGED, "error": f"run.json cannot be read: {reason}"}
    record["id"] = folder.name
    if record["status"] == "running":
        status, known = state_of(folder, record.get("process") or {})
        record |= {"status": status, "error": known}
    return record


def not_learnt(record: Mapping[str, Any]) -> str:
    """What a training's record says where it did not do as it should, such as "learnt no: epoch 0 was best"."""
    metrics = record.get("metrics") or {}
    learnt, unhelped = metrics.get("learnt", "yes"), metrics.get("unhelped", "")
    said = [f"learnt {learnt}"] if learnt != "yes" else []
    return "; ".join([*said, *([f"training did not help strangers: {unhelped}"] if unhelped else [])])


def find_run(runs: Path, name: str, *notebooks: str) -> Path:
    """The folder of a run of one of these notebooks that succeeded: by its id in `runs`, "latest", or its folder."""
    wanted = " or ".join(notebooks)
    if name == "latest":
        records = [(read_record(folder) or {}, folder) for stem in notebooks for folder in runs.glob(f"{stem}-*")]
        done = [(r["started"], at) for r, at in records if r.get("status") == "succeeded" and r.get("started")]
        if not done:
            raise RunError(f"no run of {wanted} succeeded in {runs}; run it first: handclip run {notebooks[0][:2]}")
        return max(done)[1]
    folder = Path(name) if Path(name).is_dir() else runs / name
    record = read_record(folder)
    if record is None:
        raise RunError(f"{name!r} is no run in {runs}; `handclip runs` lists them, and latest takes the newest")
    notebook, status = record.get("notebook"), record["status"]
    if notebook not in notebooks or status != "succeeded":
        raise RunError(f"{name} is a run of {notebook} that {status}; one of {wanted} is needed")
    return folder


def remove_results(folder: Path, *, and_checkpoints: bool = False) -> None:
    """Remove what an earlier attempt of a run left, but what a training goes on from; a RunError where it cannot."""
    for file in (file for pattern in RESULTS for file in folder.glob(pattern)):
        try:
            if and_checkpoints or file.name not in TRAINING_CHECKPOINTS:
                file.unlink()
        except OSError as error:
            raise RunError(f"{file} cannot be removed ({error.strerror}): remove it, or make it yours") from error


def _check(record: Any) -> None:
    """Raise ValueError for what no run writes."""
    if not isinstance(record, dict) or not all(isinstance(record.get(name), str) for name in ("id", "status")):
        raise ValueError("it names no id and status")
    _check_depth(record, 0)
    metrics = record.get("metrics")
    parts = [(name, value, KINDS.get(name, object)) for name, value in record.items() if value is not None]
    if isinstance(metrics, dict):
        parts += [(f"metrics: {name}", metrics.get(name, 0.0), (int, float)) for name in ("rank1", "map")]
    for name, value, kind in parts:
        if not isinstance(value, kind):
            raise ValueError(f"{name} is a {type(value).__name__}")
    if record.get("split") and not isinstance(record["split"].get("checksum"), str):
        raise ValueError("split has no checksum")
    for name in ("started", "finished"):
        if record.get(name) and not 1970 <= (year := datetime.fromisoformat(record[name]).year) < 9000:
            raise ValueError(f"{name} in the year {year}")


def _check_depth(value: Any, level: int) -> None:
    if level > DEEPEST:
        raise ValueError("nested too deep")
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(one, level + 1)


def _whole(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise ValueError(f"a whole number of {len(text)} digits")
    return int(text)


def this_process() -> dict[str, Any]:
    """What tells this process from another of the same number, here or elsewhere."""
    return {"host": socket.gethostname(), "machine": _machine(), "pid": os.getpid(), "began": _began(os.getpid())}


def is_here(process: dict[str, Any]) -> bool:
    """Whether a process is one of those that can be seen from here: a container of the same name has its own."""
    return process.get("host") == socket.gethostname() and process.get("machine", _machine()) == _machine()


def state_of(folder: Path, process: dict[str, Any]) -> tuple[str, str | None]:
    """What has become of a run whose record says "running": that, "died" or "lost", and what is known of it."""
    if is_here(process):
        return ("running" if _alive(process) else "died"), None
    host = one_line(process.get("host") or "another machine", 60)
    silence = _silence(folder)
    if silence > LOST_AFTER:
        return "lost", f"running on {host}, no sign of life for {_in_words(silence)}"
    return "running", f"on {host}, last sign of life {_in_words(silence)} ago"


def _silence(folder: Path) -> float:
    """Seconds since the last sign of life, by its file system's clock; without a heartbeat, since the newest file."""
    beat, newest = folder / HEARTBEAT, 0.0
    for path in [beat] if beat.exists() else folder.rglob("*"):
        with suppress(OSError):  # it went meanwhile
            newest = max(newest, path.lstat().st_mtime)
    return abs(_clock(folder) - newest)  # a time to come is no sign of life either: it was copied, or the clock was set


def _clock(folder: Path) -> float:
    """The time by the file system of a folder, in seconds since 1970; ours where nothing can be written there."""
    probe = folder / f".clock.{uuid4().hex[:8]}"
    try:
        begin_file(probe)
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)


def _in_words(seconds: float) -> str:
    for size, unit in ((172_800, "days"), (7_200, "h"), (120, "min")):
        if seconds >= size:
            return f"{seconds / (size / 2):.0f} {unit}"
    return f"{seconds:.0f} s"


def _alive(process: dict[str, Any]) -> bool:
    try:
        os.kill(int(process["pid"]), 0)
    except PermissionError:
        pass
    except (OSError, KeyError, ValueError, TypeError, OverflowError):
        return False
    return _began(int(process["pid"])) == process.get("began")


def _began(pid: int) -> str | None:
    """When a process began, in clock ticks since boot; None where the system does not say, or it has ended."""
    try:
        facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if facts[0] in "ZX" else facts[19]  # a zombie that nobody waits for


def _machine() -> str:
    """The boot and the processes' namespace that numbers of processes belong to; "" where the system does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


class UnderWayError(RunError):
    """The run is another process's; `wait` is the seconds after which it is known whether that process is gone."""

    wait = 0.0


class Claim:
    """A run that is this process's until `release`; the system takes the lock back from a process that is killed.

    A file server may keep the lock of a machine that crashed, or know no locks of others: so the record counts too.
    Meanwhile a thread, which ends with the process, touches the run's heartbeat.
    """

    def __init__(self, folder: Path):
        """Take the run; an UnderWayError where it is another's, a WriteError where its folder cannot be written."""
        with writing(folder):
            make_folder(folder)
            self._lock = file_lock(lock_of(folder), timeout=0)
            try:
                self._lock.acquire()
            except Timeout as error:
                raise _refusal(folder) from error
        record = read_record(folder) or {}
        process = record.get("process") or {}
        if record.get("status") == "running" and not (is_here(process) and process.get("pid") == os.getpid()):
            self._lock.release()
            raise _refusal(folder)
        self._file, self._ended = folder / HEARTBEAT, Event()
        self._thread = Thread(target=self._beat, daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Let others have it."""
        self._ended.set()
        self._thread.join(BEAT)  # a file server that hangs is not waited for
        with suppress(OSError):
            self._file.unlink(missing_ok=True)
            self._file.parent.rmdir()  # only an empty one goes: of a run that a full disk kept from being recorded
        self._lock.release()

    def __enter__(self) -> "Claim":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _beat(self) -> None:
        while not self._ended.is_set():
            with suppress(OSError):  # a full disk is told of by what the run writes
                begin_file(self._file)
            self._ended.wait(BEAT)


def lock_of(folder: Path) -> Path:
    """The file that the process of a run holds a lock on."""
    return folder.parent / f".{folder.name}.lock"


def _refusal(folder: Path) -> UnderWayError:
    record = read_record(folder) or {}
    status, known, process = record.get("status"), record.get("error"), record.get("process") or {}
    remedy, wait = "wait for it, {}, or change a parameter", 0.0
    if status in ("running", "lost") and not is_here(process):
        if status == "running":
            known, wait = f"running {known}", LOST_AFTER + 60
            remedy = f"{remedy.format('stop it there')}; silent for {LOST_AFTER / 60:.0f} min it is lost"
        else:
            remedy = f"and yet {lock_of(folder)} is locked: if that machine is gone, delete this file"
    else:
        number = f", {process.get('pid')}" if status == "running" else ""
        known = f"being run by another process{number}, perhaps a notebook that is open"
        remedy = remedy.format("shut its kernel down")
    error = UnderWayError(f"{folder.name} is {known}: {remedy}")
    error.wait = wait
    return error
