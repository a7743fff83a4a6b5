"""What a run's record holds, as text for reports; whatever is missing or odd is empty text."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard
from urllib.parse import quote

from handclip_lib.evaluation.tables import in_percent
from handclip_lib.report.thumbnail import THUMBNAIL, most_telling
from handclip_lib.runs.listing import IN_ID, changed_of
from handclip_lib.runs.record import not_learnt

INTERACTIVE = "report_interactive.html"
TONES = {"succeeded": "good", "running": "wait", "unknown": "wait"}


def tone_of(run: Mapping[str, Any]) -> str:
    """Which of the style's tones a status has."""
    return TONES.get(run["status"], "bad")


def index_row(folder: Path, run: Mapping[str, Any]) -> dict[str, Any]:
    """A run's row of the index, as text by name.

    Args:
        folder: The run's folder; addresses are relative to the index, which lies beside its parent.
        run: Its record, with id and status.
    """
    parameters, metrics = run.get("parameters") or {}, run.get("metrics") or {}
    share = {name: in_percent(value) if is_number(value) else "" for name, value in metrics.items()}
    interval = [share.get(name) for name in ("rank1_low", "rank1_high")]
    changed = [f"{name} = {text(value)}" for name, value in changed_of(run).items() if name not in IN_ID]
    figure = None if (folder / THUMBNAIL).is_file() else most_telling(folder)
    picture = figure.relative_to(folder).as_posix() if figure else THUMBNAIL
    seconds, started = run.get("seconds"), run.get("started")
    return {
        "id": run["id"], "status": run["status"], "tone": tone_of(run), "error": str(run.get("error") or ""),
        "stage": str(run.get("notebook") or "").replace("_", " "),
        "changed": ", ".join(filter(None, [*changed, not_learnt(run)])),
        **{name: str(parameters.get(name) or "") for name in ("backbone", "dataset", "aspect")},
        "rank1": share.get("rank1", ""), "interval": "–".join(interval) if all(interval) else "",  # type: ignore[arg-type]
        "baseline": share.get("best_floor_rank1", ""), "map": share.get("map", ""),
        "took": duration(seconds), "seconds_taken": f"{seconds:.0f}" if is_number(seconds) else "",
        "started": str(started or ""), "date": moment(started), "picture": _address(folder, picture),
        "report": _address(folder, "report.html"), "interactive": _address(folder, INTERACTIVE),
    }  # fmt: skip


def _address(folder: Path, file: str) -> str:
    """Of a file of a run, as the index links to it; empty where there is none."""
    return quote(f"{folder.parent.name}/{folder.name}/{file}") if (folder / file).is_file() else ""


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether it is a number that can be shown: true and NaN are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def moment(value: object) -> str:
    """An ISO 8601 time to the minute; runs record UTC."""
    zone = " UTC" if str(value).endswith("+00:00") else ""
    return str(value)[:16].replace("T", " ") + zone if value else ""


def duration(seconds: object) -> str:
    """Seconds as seconds, or minutes from two on."""
    if not is_number(seconds):
        return ""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def nested_rows(values: object, prefix: str = "") -> list[dict[str, Any]]:
    """Nested values as rows with dotted names; what is missing is left out."""
    if not isinstance(values, Mapping):
        return [] if values is None or not prefix else [{"name": prefix, "value": text(values)}]
    return [
        row for name, value in values.items() for row in nested_rows(value, f"{prefix}.{name}" if prefix else str(name))
    ]


def text(value: object) -> str:
    """A value of a record to read."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
