"""The runs there are, as `handclip runs` lists them: chosen, ordered, and a line each."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from handclip_lib.errors import ConfigError, RunError
from handclip_lib.evaluation.tables import in_percent
from handclip_lib.parameters.commands import changed as differing
from handclip_lib.parameters.notebooks import NOTEBOOKS, no_parameter, notebook_of
from handclip_lib.runs.record import DAMAGED, not_learnt, record_of
from handclip_lib.terminal import one_line

COLUMNS = ("id", "status", "rank1", "map", "seconds", "started")
ORDERS = ("started", "rank1", "map", "seconds", "id")
WIDEST = 120  # characters of a cell
IN_ID = ("backbone", "dataset", "aspect")
Record = Mapping[str, Any]


def all_records(runs: Path) -> list[dict[str, Any]]:
    """`record_of` every folder of runs; names that begin with a dot are locks, and what is half-written.

    Raises:
        RunError: The folder cannot be read.
    """
    try:
        folders = sorted(path for path in runs.iterdir() if path.is_dir()) if runs.is_dir() else []
    except OSError as error:
        raise RunError(f"{runs} cannot be read ({error.strerror}); make it readable") from error
    return [record_of(folder) for folder in folders if not folder.name.startswith(".")]


def chosen(
    records: Sequence[Record],
    notebook: str = "",
    dataset: str = "",
    aspect: str = "",
    status: str = "",
    since: str = "",
    changed: Sequence[str] = (),
) -> list[Record]:
    """Records of the runs that are asked for; what is empty asks for nothing.

    Args:
        records: Of `all_records`.
        notebook: Number or name.
        dataset, aspect, status: As the record has them.
        since: ISO 8601 date or time, UTC where it names no zone; runs that started then or later.
        changed: Each NAME, a parameter that is not its default, or NAME=VALUE, one that is VALUE.

    Raises:
        ConfigError: No such notebook or parameter, or no date.
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
    has = [_value(record, by) is not None and _value(record, by) == _value(record, by) for record in records]  # no NaN
    found = [record for record, there in zip(records, has, strict=True) if there]
    others = [record for record, there in zip(records, has, strict=True) if not there]
    return sorted(found, key=lambda record: _value(record, by), reverse=True) + others


def as_lines(records: Sequence[Record]) -> list[str]:
    """A table as text: `COLUMNS`, the parameters that are not their default and not in the id, and what was not learnt.

    Of a run that is damaged, lost or running elsewhere, what is known of it is there too.
    """
    rows = [[*COLUMNS, "changed"]]
    for record in records:
        differs = [f"{name}={value}" for name, value in changed_of(record).items() if name not in IN_ID]
        if record["status"] in (DAMAGED, "lost", "running") and record.get("error"):
            differs.append(f"({record['error']})")
        differs += [f"({unlearnt})"] if (unlearnt := not_learnt(record)) else []
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
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value).lower() == text.lower() if isinstance(value, bool) else value == text
    try:
        return value == float(text)  # 1e-3 is 0.001
    except ValueError:
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
    return record.get(column, (record.get("metrics") or {}).get(column))


def _shown(record: Record, column: str) -> str:
    value = _value(record, column)
    return "" if value is None else f"{in_percent(value)} %" if column in ("rank1", "map") else str(value)
