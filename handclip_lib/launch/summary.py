"""What a sweep leaves: `summary.csv` and `summary.md`, whole after each run that ends, and figures of the effects."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from handclip_lib.evaluation.tables import in_percent
from handclip_lib.files import whole_file, write_text
from handclip_lib.launch.points import Point
from handclip_lib.runs.record import record_of
from handclip_lib.terminal import one_line

MEASURES = (
    {"rank1": "rank-1", "map": "mAP"},
    {"val_image_to_text@1": "validation image→text@1", "val_text_to_image@1": "validation text→image@1"},
    {"image_to_text@1": "training image→text@1", "text_to_image@1": "training text→image@1"},
)  # what a notebook's runs are compared by: the first pair that they have
HEADLINE = ("rank1", "rank1_low", "rank1_high", "map")
DPI = 144


def row_of(point: Point, status: str = "", error: str | None = None) -> dict[str, Any]:
    """A point's row: what it varies, the figures of its run's record, seconds, status, error, id.

    `status` is how it ended in this sweep, as `run_point` answers; "" for what the record says.
    """
    record: dict[str, Any] = record_of(point.folder) if point.folder.is_dir() else {"status": "not run"}
    status = "succeeded" if status == "skipped" else status or record["status"]
    metrics = {name: value for name, value in (record.get("metrics") or {}).items() if isinstance(value, int | float)}
    if "rank1" in metrics:
        metrics = {name: metrics[name] for name in HEADLINE if name in metrics}
    ended = {"seconds": record.get("seconds"), "status": status, "error": error or record.get("error")}
    return {**point.varied, **(metrics if status == "succeeded" else {}), **ended, "run": point.folder.name}


def write_summary(
    folder: Path, title: str, rows: Sequence[Mapping[str, Any]], figures: Mapping[str, str] | None = None
) -> None:
    """Write the table as `summary.csv`, in full precision, and `summary.md`, each whole or not at all.

    Args:
        rows: Of `row_of`, in the order of the sweep.
        figures: What each figure on the page shows, by its file's name.

    Raises:
        RunError: The folder cannot be written.
    """
    last = ("seconds", "status", "error", "run")
    columns = [*dict.fromkeys(name for row in rows for name in row if name not in last), *last]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "summary.csv", text.getvalue())
    lines = [columns, ["---"] * len(columns), *([_shown(row.get(name)) for name in columns] for row in rows)]
    done = sum(row["status"] == "succeeded" for row in rows)
    page = [f"# {title}", "", f"{done} of {len(rows)} runs succeeded. Shares are in 0..1.", ""]
    page += [f"| {' | '.join(cells)} |" for cells in lines]
    page += [line for name, alt in (figures or {}).items() for line in ("", f"![{alt}]({name})")]
    write_text(folder / "summary.md", "\n".join(page) + "\n")


def draw_effects(folder: Path, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, str]:
    """Draw the effect of each parameter that the sweep varies, over all values of the others, as `effect_NAME.png`.

    Returns:
        What each shows by its file's name; empty where fewer than two runs succeeded, or their notebook measures
        nothing to compare.

    Raises:
        RunError: The folder cannot be written.
    """
    done = [row for row in rows if row["status"] == "succeeded"]
    measures = next((pair for pair in MEASURES if done and all(set(pair) <= set(row) for row in done)), None)
    if measures is None or len(done) < 2:
        return {}
    import pandas as pd

    from handclip_lib.plots.comparison import sweep_effect

    files = {}
    for name in names:
        table = pd.DataFrame([{"value": row[name], **{measure: row[measure] for measure in measures}} for row in done])
        path = folder / f"effect_{name}.png"
        with whole_file(path) as private:
            sweep_effect(table, name, measures).savefig(private, dpi=DPI)
        files[path.name] = f"{' and '.join(measures.values())} over {name}: lines are means, dots single runs"
    return files


def line_of(row: Mapping[str, Any], label: str) -> str:
    """One line for a run that ended: its point, what it reached, its seconds or what is wrong."""
    if row["status"] != "succeeded":
        first = str(row["error"] or "").strip().splitlines()[:1]
        return one_line(f"{label}: {row['status']}" + (f": {first[0]}" if first else ""))
    measures = next((pair for pair in MEASURES if set(pair) <= set(row)), {})
    parts = [f"{text} {in_percent(row[name])} %" for name, text in measures.items()]
    if "rank1_low" in row:
        parts[0] += f" ({in_percent(row['rank1_low'])}–{in_percent(row['rank1_high'])})"
    return one_line(f"{label}: " + ", ".join([*parts, f"{row['seconds']} s"]))


def _shown(value: Any) -> str:
    """A cell of Markdown: four digits, one line, and no sign that would end it."""
    text = "" if value is None else f"{value:.4g}" if isinstance(value, float) else " ".join(str(value).split())
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
