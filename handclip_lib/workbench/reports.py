"""The report of one run, and the index of all runs: single HTML files that need no network and run nothing foreign."""

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from handclip_lib.errors import RunError
from handclip_lib.workbench.record import read_record, write_text

FOLDER = Path(__file__).parent / "report"
TONES = {"succeeded": "good", "running": "wait", "unknown": "wait"}


def render_report(run_folder: Path) -> Path:
    """Write `report.html` from a run's `executed.ipynb` and `run.json`.

    Args:
        run_folder: The run. Without a notebook (the run ended too early) the report says so.

    Returns:
        Path of the report.

    Raises:
        RunError: `run.json` or the notebook is missing or damaged, or the report cannot be written.
    """
    from handclip_lib.workbench.report_cells import Cells, notebook_cells  # nbconvert: a second to import

    run_folder = Path(run_folder)
    run = _record(run_folder)
    notebook = run_folder / "executed.ipynb"
    cells = notebook_cells(notebook) if notebook.is_file() else Cells("", "", "", [], {}, "")
    parameters = _parameter_rows(run, cells.comments)
    tables = {
        "Parameters": parameters,
        "Metrics": _rows(run.get("metrics")),
        "Software": _rows(run.get("versions")),
        "Record": _rows({name: run.get(name) for name in ("command", "process", "git", "split", "seed")}),
    }
    contents = [*cells.contents, (2, "about-run", "About this run")]
    page = _environment().get_template("page.html.j2")
    text = page.render(
        run=run,
        title=cells.title or str(run.get("notebook") or run["id"]),
        tone=TONES.get(run["status"], "bad"),
        facts=_facts(run, parameters),
        contents=contents,
        failure=_failure(run, cells.error),
        failed_cell=bool(cells.error),
        cells=Markup(cells.html),
        style=Markup((FOLDER / "report.css").read_text("utf-8") + cells.style),
        tables=[(heading, rows) for heading, rows in tables.items() if rows],
    )
    path = run_folder / "report.html"
    write_text(path, text)
    return path


def write_index(runs_folder: Path) -> Path:
    """Write `index.html` beside the runs' folder: every run, newest first, with its figures of merit.

    Args:
        runs_folder: Holds a folder per run; it need not exist yet.

    Returns:
        Path of the index.

    Raises:
        RunError: The index cannot be written.
    """
    runs_folder = Path(runs_folder)
    found = []
    for folder in runs_folder.iterdir() if runs_folder.is_dir() else []:
        if folder.is_dir() and not folder.name.startswith("."):
            try:
                run = _record(folder)
            except RunError as error:
                run = {"id": folder.name, "status": "damaged", "error": str(error)}
            found.append(_index_row(folder, run))
    found.sort(key=lambda row: (row["started"], row["id"]), reverse=True)
    script = (FOLDER / "runs.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = _environment().get_template("runs.html.j2").render(
        rows=found,
        style=Markup((FOLDER / "report.css").read_text("utf-8")),
        script=Markup(script),
        digest=digest,
    )  # fmt: skip
    path = runs_folder.parent / "index.html"
    write_text(path, text)
    return path


def _record(run_folder: Path) -> dict[str, Any]:
    """Read `run.json`; `id` and `status` are always there afterwards, as text."""
    run = read_record(run_folder)
    if run is None:
        raise RunError(f"{run_folder / 'run.json'} is absent or damaged; run the notebook again")
    return run | {"id": str(run["id"]), "status": str(run.get("status") or "unknown")}


def _facts(run: Mapping[str, Any], parameters: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """The line under the title: when, how long, which code, which split, what differs from the defaults."""
    changed = ", ".join(f"{row['name']} = {row['value']}" for row in parameters if row["changed"])
    git, split = run.get("git"), run.get("split")
    facts = {
        "Started": _moment(run.get("started")),
        "Finished": _moment(run.get("finished")),
        "Took": _duration(run.get("seconds")),
        "Commit": _identifier(git, "commit"),
        "Split": _identifier(split, "checksum"),
        "Changed from default": changed,
    }
    return [(name, value) for name, value in facts.items() if value]


def _identifier(value: object, key: str) -> str:
    """A commit or checksum, short enough to read; a working tree with changes is named so."""
    if isinstance(value, Mapping):
        return _identifier(value.get(key), key) + (" with local changes" if value.get("changed") else "")
    return str(value)[:12] if value else ""


def _moment(value: object) -> str:
    """An ISO 8601 time to the minute; runs record UTC."""
    zone = " UTC" if str(value).endswith("+00:00") else ""
    return str(value)[:16].replace("T", " ") + zone if value else ""


def _duration(seconds: object) -> str:
    if not isinstance(seconds, int | float):
        return ""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _failure(run: Mapping[str, Any], error: str) -> str:
    if run["status"] == "succeeded":
        return ""
    if run["status"] == "running" and not error:
        return ""
    return str(run.get("error") or error or f"It ended as {run['status']!r}, without a message from the notebook.")


def _parameter_rows(run: Mapping[str, Any], comments: Mapping[str, str]) -> list[dict[str, Any]]:
    """A row a parameter, with its default and whether the run differs from it."""
    values, defaults = _mapping(run.get("parameters")), _mapping(run.get("defaults"))
    return [
        {
            "name": name, "value": _text(value), "default": _text(defaults.get(name, value)),
            "changed": defaults.get(name, value) != value, "help": comments.get(name, ""),
        }
        for name, value in values.items()
    ]  # fmt: skip


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _rows(values: object, prefix: str = "") -> list[dict[str, Any]]:
    """Nested values as rows with dotted names; what is missing is left out."""
    if not isinstance(values, Mapping):
        return [] if values is None or not prefix else [{"name": prefix, "value": _text(values)}]
    return [row for name, value in values.items() for row in _rows(value, f"{prefix}.{name}" if prefix else str(name))]


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _index_row(folder: Path, run: Mapping[str, Any]) -> dict[str, Any]:
    parameters, metrics = _mapping(run.get("parameters")), _mapping(run.get("metrics"))
    pictures = sorted((folder / "figures").glob("*.png"), key=lambda path: (path.stat().st_mtime, path.name))
    place = folder.parent.name
    seconds = run.get("seconds")
    return {
        "id": run["id"],
        "status": run["status"],
        "tone": TONES.get(run["status"], "bad"),
        "notebook": str(run.get("notebook") or ""),
        "backbone": str(parameters.get("backbone") or ""),
        "dataset": str(parameters.get("dataset") or ""),
        "aspect": str(parameters.get("aspect") or ""),
        "rank1": _percent(metrics.get("rank1")),
        "map": _percent(metrics.get("map")),
        "seconds": f"{seconds:.0f}" if isinstance(seconds, int | float) else "",
        "started": _moment(run.get("started")),
        "error": str(run.get("error") or ""),
        "report": quote(f"{place}/{folder.name}/report.html") if (folder / "report.html").is_file() else "",
        "picture": quote(f"{place}/{folder.name}/figures/{pictures[0].name}") if pictures else "",
    }


def _percent(fraction: object) -> str:
    return f"{100 * fraction:.1f}" if isinstance(fraction, int | float) else ""


def _environment() -> jinja2.Environment:
    return jinja2.Environment(loader=jinja2.FileSystemLoader(FOLDER), autoescape=True)
