"""`run.json`: the one record of what a run is and how it ended, written atomically."""

import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from handclip_lib.errors import RunError
from handclip_lib.files import whole_file

STATUSES = ("running", "succeeded", "failed", "interrupted", "died")
PROMPTS_OF, TRAININGS = ("02_prompt_learning",), ("03_image_finetune", "04_joint_training")
"""Notebooks whose runs later ones take: prompts, and trained image towers."""
TRAINING_CHECKPOINTS = ("image.safetensors", "prompts.safetensors")
"""What trainings go on from, the later one of a run first."""


RESULTS = (
    "metrics.json", "split.json", "*.csv", "*.md", "*.tex", "*.bib", "figures/*.png", "*.safetensors", "executed.ipynb",
    "report*.html", "thumbnail.png",
)  # fmt: skip
"""What a run writes beside its record and its parameters."""


def now() -> str:
    """The time, ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        RunError: The folder is read-only, full or absent.
    """
    try:
        with whole_file(path) as private:
            private.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(
            f"{path} cannot be written ({error.strerror or error}); free space there, or name another folder for "
            "runs and reports in the environment variable HANDCLIP_REPORTS"
        ) from error


def remove_results(folder: Path, *, and_checkpoints: bool = False) -> None:
    """Remove what an earlier attempt of a run left, so that nothing of it stands beside what comes.

    Args:
        folder: The run's, or one that is not there.
        and_checkpoints: What a training would go on from, too.

    Raises:
        RunError: A file cannot be removed.
    """
    kept = () if and_checkpoints else TRAINING_CHECKPOINTS
    for pattern in RESULTS:
        for file in folder.glob(pattern):
            try:
                if file.name not in kept:
                    file.unlink()
            except OSError as error:
                raise RunError(f"{file} cannot be removed ({error.strerror}): remove it, or make it yours") from error


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write `run.json`."""
    write_text(folder / "run.json", json.dumps(record, indent=1, default=str) + "\n")


def read_record(folder: Path) -> dict[str, Any] | None:
    """Read `run.json`, or None where there is none that can be read.

    A run whose record says "running" although its process is gone is "died".
    """
    try:
        record = json.loads((folder / "run.json").read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict) or "id" not in record:
        return None
    process = record.get("process")
    if record.get("status") == "running" and not _alive(process if isinstance(process, dict) else {}):
        record["status"] = "died"
    return record


def sound_record(folder: Path) -> dict[str, Any] | None:
    """As `read_record`, its id being the folder's name; None too where a part is of another kind than a run writes.

    The folder's name is what tells runs apart: a copied or renamed folder holds the record of another one.
    """
    record = read_record(folder)
    if record is None or not isinstance(record.get("status"), str):
        return None
    texts = {name: record.get(name) for name in ("notebook", "started", "finished")}
    metrics = record.get("metrics") or {}
    if not all(isinstance(record.get(name) or {}, dict) for name in ("parameters", "defaults", "metrics", "inputs")):
        return None
    figures = (record.get("seconds"), metrics.get("rank1"), metrics.get("map"))
    if not all(value is None or isinstance(value, str) for value in texts.values()):
        return None
    if not all(value is None or isinstance(value, int | float) for value in figures):
        return None
    try:
        for name in ("started", "finished"):
            datetime.fromisoformat(texts[name] or now())
    except ValueError:
        return None
    return record | {"id": folder.name}


def this_process() -> dict[str, Any]:
    """What tells this process from another of the same number."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "began": _began(os.getpid())}


def _alive(process: dict[str, Any]) -> bool:
    if process.get("host") != socket.gethostname():
        return True  # another machine's process cannot be seen from here
    try:
        os.kill(int(process["pid"]), 0)
    except PermissionError:
        pass
    except (OSError, KeyError, ValueError, TypeError, OverflowError):
        return False
    return _began(int(process["pid"])) == process.get("began")


def _began(pid: int) -> str | None:
    """When a process began, in clock ticks since boot; None where the system does not say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def held_by(folder: Path) -> int | None:
    """The process of this machine, and not this one, that a run is under way in; None where there is none."""
    record = read_record(folder) or {}
    process = record.get("process")
    if (
        record.get("status") != "running"
        or not isinstance(process, dict)
        or process.get("host") != socket.gethostname()
    ):
        return None
    return None if process.get("pid") == os.getpid() else process.get("pid")


def find_run(runs: Path, name: str, *notebooks: str) -> Path:
    """The folder of a run that succeeded.

    Args:
        runs: Folder that holds a folder for each run.
        name: Id of the run, "latest" for the newest of these notebooks, or a folder.
        notebooks: Which notebooks' may be taken.

    Raises:
        RunError: There is none, or it is of another notebook or did not succeed.
    """
    wanted = " or ".join(notebooks)
    if name == "latest":
        records = [(sound_record(folder), folder) for stem in notebooks for folder in runs.glob(f"{stem}-*")]
        done = [
            (r["started"], folder) for r, folder in records if r and r["status"] == "succeeded" and r.get("started")
        ]
        if not done:
            raise RunError(f"no run of {wanted} succeeded in {runs}; run it first: handclip run {notebooks[0][:2]}")
        return max(done)[1]
    folder = Path(name) if Path(name).is_dir() else runs / name
    record = sound_record(folder)
    if record is None:
        raise RunError(f"{name!r} is no run in {runs}; `handclip runs` lists them, and latest takes the newest")
    if record.get("notebook") not in notebooks or record["status"] != "succeeded":
        raise RunError(
            f"{name} is a run of {record.get('notebook')} that {record['status']}; one of {wanted} is needed"
        )
    return folder
