"""What may go from the reports and the cache: old runs without a result, unused cache entries, half-written files."""

import re
import stat
import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import Timeout

from handclip_lib.errors import ConfigError, RunError
from handclip_lib.files import file_lock
from handclip_lib.places import cache_folder, reports_folder
from handclip_lib.runs.claim import lock_of
from handclip_lib.runs.listing import all_records
from handclip_lib.terminal import in_units, one_line

DAY = 86_400.0
IN_PROGRESS = 1.0  # days after which nobody still writes a private file
STOPPED = ("failed", "interrupted", "died", "lost")
PRIVATE = re.compile(r"\.(.+\.[0-9a-f]{8}(\.\w+)?|executing\.ipynb)")
"""Names of `whole_file`'s private files, and of a notebook that is being executed."""


@dataclass(frozen=True)
class Item:
    """Files and folders that may go together, the bytes that this frees, and the lock of who uses them, if any."""

    paths: tuple[Path, ...]
    why: str
    size: int
    lock: Path | None = None

    def __str__(self) -> str:
        """A line for a person."""
        return one_line(f"{in_units(self.size):>9}  {self.paths[0]}  ({self.why})")


def removable(days: float = 30.0) -> list[Item]:
    """What may go: runs that did not succeed, cache entries not used for some days, half-written files.

    Runs under way, runs that succeeded, downloaded weights and drawn hands are never among it. "Used" is the later
    of a file's access and modification times; a file system that keeps no access times says when it was written.
    `days` is the age from which a run or a cache entry goes; half-written files go from a day on.

    Raises:
        ConfigError: `days` is negative.
    """
    if not days >= 0:
        raise ConfigError(f"--days {days:g}: give 0 or more")
    runs, cache = reports_folder() / "runs", cache_folder()
    records = all_records(runs)
    items = [
        _run_item(runs / record["id"], f"{record['status']} {age:.0f} days ago")
        for record in records
        if record["status"] in STOPPED and (age := _days_since(record)) >= days
    ]
    for facts in _children(cache / "images"):  # pixels, facts and lock of an entry go together
        entry = tuple(path for path in (facts.with_suffix(".npy"), facts) if path.exists())
        if facts.suffix == ".json" and not facts.name.startswith(".") and (age := _unused(entry)) >= days:
            why = f"decoded images, not used for {age:.0f} days"
            items.append(Item(entry, why, _size(entry), facts.with_suffix(".lock")))
    items += [
        Item((folder,), f"features, not used for {age:.0f} days", _size([folder]))
        for folder in _children(cache / "features")
        if folder.is_dir() and (age := _unused(folder.rglob("*"))) >= days
    ]
    stays = [runs / record["id"] for record in records if record["status"] == "running"]
    stays += [path for item in items for path in item.paths]
    items += [
        Item((path,), "half-written", _size([path]))
        for folder in (reports_folder(), cache / "images", cache / "features")
        for path in folder.rglob(".*")
        if PRIVATE.fullmatch(path.name)
        and path.is_file()
        and _unused([path]) >= IN_PROGRESS
        and not any(path.is_relative_to(place) for place in stays)
    ]
    return sorted(items, key=lambda item: -item.size)


def named_runs(ids: Sequence[str]) -> list[Item]:
    """Runs asked for by id, whatever their status and age, with a note where another run used them.

    Raises:
        RunError: An id is of no run, or of one under way.
    """
    runs = reports_folder() / "runs"
    records = {record["id"]: record for record in all_records(runs)}
    items = []
    for name in ids:
        if name not in records:
            raise RunError(f"{name!r} is no run in {runs}; `handclip runs` lists them")
        if records[name]["status"] == "running":
            where = records[name].get("error") or "now"
            raise RunError(f"{name} is running {where}; stop it first")
        users = [id_ for id_, record in records.items() if name in (record.get("inputs") or {}).values()]
        note = f"; used by {', '.join(users)}" if users else ""
        items.append(_run_item(runs / name, f"{records[name]['status']}{note}"))
    return items


def remove(items: Iterable[Item]) -> tuple[int, list[str]]:
    """Remove items, but for what is in use or cannot be removed; the bytes freed, and a line on each that stays."""
    freed, stays = 0, []
    for item in items:
        try:
            with nullcontext() if item.lock is None else file_lock(item.lock, timeout=0):
                _remove(item.paths if item.lock is None else (*item.paths, item.lock))
            freed += item.size
        except Timeout:
            stays.append(f"{item.paths[0]} is in use: {item.lock} is locked")
        except OSError as error:
            left = _size([path for path in item.paths if path.exists()])
            freed += max(0, item.size - left)
            stays.append(f"{item.paths[0]} could not be removed ({error.strerror or error})")
    return freed, stays


def _run_item(folder: Path, why: str) -> Item:
    return Item((folder,), why, _size([folder]), lock_of(folder))


def _children(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.is_symlink()) if folder.is_dir() else []


def _days_since(record: dict[str, Any]) -> float:
    """Days since a run ended, or began where it could not say that it ended."""
    try:
        moment = datetime.fromisoformat(str(record.get("finished") or record.get("started")))
    except ValueError:
        return 0.0  # of unknown age: it stays
    return (time.time() - moment.timestamp()) / DAY


def _unused(paths: Iterable[Path]) -> float:
    """Days since any of the files was read or written; those of an empty folder count from 1970."""
    times = [moment for path in paths if path.is_file() for moment in (path.stat().st_atime, path.stat().st_mtime)]
    return (time.time() - max(times, default=0.0)) / DAY


def _size(paths: Sequence[Path]) -> int:
    """Bytes that removing frees: blocks on the disk, of files that have no other name. Links are not followed."""
    files = [file for path in paths for file in (path, *(path.rglob("*") if path.is_dir() else ()))]
    facts = [file.lstat() for file in files if file.is_symlink() or file.exists()]
    return sum(fact.st_blocks * 512 for fact in facts if fact.st_nlink == 1 or stat.S_ISDIR(fact.st_mode))


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
            continue
        record = path / "run.json"  # last, so that a removal cut short is told of as what it was
        _remove([child for child in path.iterdir() if child != record])
        _remove([record])
        path.rmdir()
