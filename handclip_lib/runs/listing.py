"""The runs there are, as `handclip runs` lists them; and what may go: old runs, unused cache, half-written files."""

import re
import stat
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import Timeout

from handclip_lib.errors import ConfigError, RunError
from handclip_lib.evaluation.tables import in_percent
from handclip_lib.files import file_lock
from handclip_lib.parameters.guard import changed as differing
from handclip_lib.parameters.notebooks import NOTEBOOKS, no_parameter, notebook_of
from handclip_lib.places import cache_folder, reports_folder
from handclip_lib.runs.record import DAMAGED, lock_of, not_learnt, record_of
from handclip_lib.terminal import in_units, one_line

COLUMNS = ("id", "status", "rank1", "map", "seconds", "started")
ORDERS = ("started", "rank1", "map", "seconds", "id")
WIDEST = 120  # characters of a cell
IN_ID = ("backbone", "dataset", "aspect")
Record = Mapping[str, Any]
DAY = 86_400.0
IN_PROGRESS = 1.0  # days after which nobody still writes a private file
STOPPED = ("failed", "interrupted", "died", "lost")
PRIVATE = re.compile(r"\.(.+\.[0-9a-f]{8}(\.\w+)?|executing\.ipynb)")
"""Names of `whole_file`'s private files, and of a notebook that is being executed."""


def all_records(runs: Path) -> list[dict[str, Any]]:
    """`record_of` every folder of runs; names that begin with a dot are locks, and what is half-written."""
    try:
        folders = sorted(path for path in runs.iterdir() if path.is_dir()) if runs.is_dir() else []
    except OSError as error:
        raise RunError(f"{runs} cannot be read ({error.strerror}); make it readable") from error
    return [record_of(folder) for folder in folders if not folder.name.startswith(".")]


def chosen(
    records: Sequence[Record], notebook: str = "", dataset: str = "", aspect: str = "", status: str = "",
    since: str = "", changed: Sequence[str] = (),
) -> list[Record]:  # fmt: skip
    """Records of the runs that are asked for; what is empty asks for nothing.

    Args:
        since: ISO 8601 date or time, UTC where it names no zone; runs that started then or later.
        changed: Each NAME, a parameter that is not its default, or NAME=VALUE, one that is VALUE.
    """
    stem, moment = notebook and notebook_of(notebook), _moment(since) if since else None
    if stem is None:
        raise ConfigError(f"--notebook {notebook}: choose from {', '.join(NOTEBOOKS)} or their numbers")
    tests = [_changed(text) for text in changed]
    return [
        record
        for record in records
        if str(record["id"]).startswith(stem)
        and dataset in ("", _given(record).get("dataset"))
        and aspect in ("", _given(record).get("aspect"))
        and status in ("", record["status"])
        and (moment is None or (record.get("started") and _moment(record["started"]) >= moment))
        and all(test(record) for test in tests)
    ]


def ordered(records: Sequence[Record], by: str = "started") -> list[Record]:
    """The newest, or the highest `by` first; by id in the alphabet's order. Runs without the value come last."""
    if by == "id":
        return sorted(records, key=lambda record: str(record["id"]))
    found = [record for record in records if _value(record, by) is not None]
    others = [record for record in records if _value(record, by) is None]
    return sorted(found, key=lambda record: _value(record, by), reverse=True) + others


def as_lines(records: Sequence[Record]) -> list[str]:
    """A table as text: `COLUMNS`, parameters that are not their default nor in the id, and what is known beside."""
    rows = [[*COLUMNS, "changed"]]
    for record in records:
        differs = [f"{name}={value}" for name, value in changed_of(record).items() if name not in IN_ID]
        if record["status"] in (DAMAGED, "lost", "running") and record.get("error"):
            differs.append(f"({record['error']})")
        if unlearnt := not_learnt(record):
            differs.insert(0, f"({unlearnt})")  # a long cell is cut at its end
        rows.append([*(_shown(record, name) for name in COLUMNS), " ".join(differs)])
    return columns_of([[one_line(cell, WIDEST) for cell in row] for row in rows])


def columns_of(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines of columns, each as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def changed_of(record: Record) -> dict[str, Any]:
    """Parameters of a run that are not their default."""
    return differing(_given(record), record.get("defaults"))


def _changed(text: str) -> Callable[[Record], bool]:
    name, equals, value = text.partition("=")
    if fault := no_parameter(name):
        raise ConfigError(f"--changed {text}: {fault}")
    if not equals:
        return lambda record: name in changed_of(record)
    return lambda record: name in _given(record) and _same(_given(record)[name], value)


def _same(value: Any, text: str) -> bool:
    if isinstance(value, bool):
        return str(value).lower() == text.lower()
    with suppress(ValueError):
        return value == (float(text) if isinstance(value, int | float) else text)  # 1e-3 is 0.001
    return False


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"--since {text}: give a date such as 2026-11-20, or 2026-11-20T14:00") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _given(record: Record) -> Mapping[str, Any]:
    return record.get("parameters") or {}


def _value(record: Record, column: str) -> Any:
    """None where there is none, or it could not be measured: NaN."""
    value = record.get(column, (record.get("metrics") or {}).get(column))
    return value if value == value else None


def _shown(record: Record, column: str) -> str:
    value = _value(record, column)
    return "" if value is None else f"{in_percent(value)} %" if column in ("rank1", "map") else str(value)


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
    """What may go: runs that did not succeed, cache entries not used for some days, files half-written for a day.

    Runs under way, runs that succeeded, downloaded weights and drawn hands are never among it. "Used" is the later
    of a file's access and modification times; a file system that keeps no access times says when it was written.
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
    """Runs asked for by id, whatever their status and age, with a note where another used them; none is under way."""
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
    """Days since a run ended, or began where it could not say that it ended; one of unknown age stays."""
    with suppress(ValueError):
        moment = datetime.fromisoformat(str(record.get("finished") or record.get("started")))
        return (time.time() - moment.timestamp()) / DAY
    return 0.0


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
