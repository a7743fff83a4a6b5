"""The report of one run, and the index of all runs: single HTML files that need no network and run nothing foreign."""

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from handclip_lib.errors import RunError
from handclip_lib.files import write_text
from handclip_lib.report.facts import (
    INTERACTIVE,
    answer_of,
    duration,
    index_row,
    moment,
    nested_rows,
    text,
    tone_of,
    write_thumbnail,
)
from handclip_lib.runs.listing import all_records
from handclip_lib.runs.record import DAMAGED, read_record, record_of
from handclip_lib.terminal import one_line

if TYPE_CHECKING:
    from handclip_lib.report.live_panels import LivePanel

FOLDER = Path(__file__).parent / "page"
RECORDED = ("started", "finished", "command", "process", "git", "split", "seed", "read", "inputs", "weights", "left")


def render_report(run_folder: Path, *, interactive: bool = False) -> Path:
    """Write `report.html` and the run's thumbnail from `executed.ipynb`, `run.json` and `figures/`.

    Without a notebook (the run ended too early) the report says so. An interactive one is written instead as
    `report_interactive.html`, in which the controls of `live_panels` answer; one older than the notebook is removed.

    Raises:
        RunError: `run.json` or the notebook is missing or damaged, the report cannot be written, or it should be
            interactive and no panel can be.
    """
    from handclip_lib.report.cells import Cells, notebook_cells  # nbconvert: a second to import

    run_folder = Path(run_folder)
    run = record_of(run_folder)
    if run["status"] == DAMAGED:
        raise RunError(f"{one_line(run_folder)}: {run['error']}; run the notebook again")
    notebook = run_folder / "executed.ipynb"
    panels = _live_panels(run_folder, run) if interactive else []
    cells = notebook_cells(notebook, panels) if notebook.is_file() else Cells("", "", "", [], {}, "")
    parameters = _parameter_rows(run, cells.comments)
    tables = {
        "Parameters": parameters,
        "Metrics": nested_rows(run.get("metrics")),
        "Software": nested_rows(run.get("versions")),
        "Record": nested_rows({name: run.get(name) for name in RECORDED}),
    }
    rendered = _page(
        "page.html.j2", str(run["id"]), script="live.js" if interactive else "", style=cells.style, run=run,
        title=cells.title or str(run.get("notebook") or run["id"]), tone=tone_of(run),
        answer=answer_of(run_folder, run), facts=_facts(run, parameters), cells=Markup(cells.html),
        contents=[*cells.contents, (2, "about-run", "About this run")], failure=_failure(run, cells.error),
        failed_cell=bool(cells.error), tables=[(heading, rows) for heading, rows in tables.items() if rows],
    )  # fmt: skip
    live = run_folder / INTERACTIVE
    path = live if interactive else run_folder / "report.html"
    write_text(path, rendered)
    if not interactive:
        write_thumbnail(run_folder, cells.html)
        if live.is_file() and notebook.is_file() and live.stat().st_mtime < notebook.stat().st_mtime:
            live.unlink()  # of what the run was before it ran again: it would contradict the new one
    return path


def keep_report(run_folder: Path) -> None:
    """Refuse to replace the report of a run that succeeded by one without its cells, where the notebook has gone."""
    report, record = run_folder / "report.html", run_folder / "run.json"
    run = read_record(run_folder) or {}
    newer = report.is_file() and record.is_file() and report.stat().st_mtime >= record.stat().st_mtime
    if run.get("status") == "succeeded" and newer and not (run_folder / "executed.ipynb").is_file():
        raise RunError(
            f"{run_folder / 'executed.ipynb'} is not there, so report.html, which may hold its figures, is kept; "
            "run it again with --force, or delete report.html for a report of the record alone"
        )


def write_index(runs_folder: Path) -> Path:
    """Write `index.html`, every run with its figures, newest first, beside the folder of runs, which need not exist."""
    runs_folder = Path(runs_folder)
    rows = [index_row(runs_folder / run["id"], run) for run in all_records(runs_folder)]
    rows.sort(key=lambda row: (row["started"], row["id"]), reverse=True)
    path = runs_folder.parent / "index.html"
    write_text(path, _page("runs.html.j2", "Runs · HandCLIP", script="runs.js", rows=rows))
    return path


def _live_panels(run_folder: Path, run: Mapping[str, Any]) -> "list[LivePanel]":
    from handclip_lib.report.live_panels import live_panels

    panels = live_panels(run_folder, run)
    if not any(panel.frames for panel in panels):
        why = " ".join(panel.note for panel in panels) or "report.html shows all there is."
        raise RunError(f"{run['id']} has no panel that can be drawn ahead. {why}")
    return panels


def _page(template: str, printed: str, *, script: str = "", style: str = "", **values: Any) -> str:
    """A page with its style and its one script inlined, and the title that is printed at the foot of each sheet."""
    # as code points, so that no title can end the text or the style
    escaped = "".join(f"\\{ord(character):x} " for character in printed)
    style = (FOLDER / "report.css").read_text("utf-8") + style
    style += f'@page {{ @bottom-left {{ content: "{escaped}"; }} }}'
    code = (FOLDER / script).read_text("utf-8") if script else ""
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()  # what its policy knows the script by
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(FOLDER), autoescape=True)
    page = environment.get_template(template)
    return page.render(style=Markup(style), script=Markup(code), digest=digest, **values)


def _facts(run: Mapping[str, Any], parameters: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """What was measured on what: data set, aspect, model and weights, what differs from the defaults, and when."""
    given, models = run.get("parameters") or {}, run.get("weights")
    weights = [
        f"{name}: {about.get('fingerprint')}, {about.get('source')}; {_stated(about.get('properties'))}".rstrip("; ")
        for name, about in (models.items() if isinstance(models, Mapping) else ())
        if isinstance(about, Mapping)
    ]
    facts = {
        "Data set": given.get("dataset"),
        "Aspect": given.get("aspect"),
        "Model": (run.get("metrics") or {}).get("model") or given.get("backbone"),
        "Weights": "; ".join(weights) or given.get("weights"),
        "Changed from default": ", ".join(f"{row['name']} = {row['value']}" for row in parameters if row["changed"]),
        "Started": moment(run.get("started")),
        "Took": duration(run.get("seconds")),
    }
    return [(name, str(value)) for name, value in facts.items() if value]


def _stated(properties: Any) -> str:
    """What the tensors of a model do not say, each with who said it."""
    shown = properties.items() if isinstance(properties, Mapping) else ()
    return "; ".join(f"{name} {said}" for name, said in shown)


def _failure(run: Mapping[str, Any], error: str) -> str:
    if run["status"] == "succeeded" or (run["status"] == "running" and not error):
        return ""
    return str(run.get("error") or error or f"It ended as {run['status']!r}, without a message from the notebook.")


def _parameter_rows(run: Mapping[str, Any], comments: Mapping[str, str]) -> list[dict[str, Any]]:
    values, defaults = run.get("parameters") or {}, run.get("defaults") or {}
    return [
        {
            "name": name, "value": text(value), "default": text(defaults.get(name, value)),
            "changed": defaults.get(name, value) != value, "help": comments.get(name, ""),
        }
        for name, value in values.items()
    ]  # fmt: skip
