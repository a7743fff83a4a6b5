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
from handclip_lib.parameters.notebooks import NOTEBOOKS
from handclip_lib.report.facts import (
    INTERACTIVE,
    PRIVATE,
    answer_of,
    duration,
    index_row,
    is_synthetic,
    model_of,
    moment,
    nested_rows,
    text,
    tone_of,
    write_thumbnail,
)
from handclip_lib.runs.listing import all_records, changed_of
from handclip_lib.runs.record import DAMAGED, read_record, record_of
from handclip_lib.terminal import one_line

if TYPE_CHECKING:
    from handclip_lib.report.live_panels import LivePanel

FOLDER = Path(__file__).parent / "page"
RECORDED = ("started", "finished", "command", "process", "git", "study", "split", "seed", "read", "inputs", "left")


def render_report(run_folder: Path, *, interactive: bool = False, private: bool = False) -> Path:
    """Write `report.html` and the run's thumbnail from `executed.ipynb`, `run.json` and `figures/`.

    Without a notebook (the run ended too early, or its cells were not kept) the report says so. An interactive one is
    written instead as `report_interactive.html`, in which the controls of `live_panels` answer; one older than the
    notebook is removed. A private one, of a run that was not made with `private`, is `report_private.html`.

    Raises:
        RunError: `run.json` or the notebook is missing or damaged, the report cannot be written, or it should be
            interactive and no panel can be, or private too.
    """
    from handclip_lib.report.cells import Cells, notebook_cells  # nbconvert: a second to import
    from handclip_lib.report.private import NOTE, redaction_of

    run_folder = Path(run_folder)
    run = record_of(run_folder)
    if run["status"] == DAMAGED:
        raise RunError(f"{one_line(run_folder)}: {run['error']}; run the notebook again")
    by_itself = bool((run.get("parameters") or {}).get("private"))
    redaction = redaction_of(run_folder, run) if private or by_itself else None
    if redaction and interactive:
        raise RunError(f"{run['id']}: a private report has no live panels, for they show photographs")
    notebook, synthetic = run_folder / "executed.ipynb", is_synthetic(run)
    panels = _live_panels(run_folder, run) if interactive else []
    note = "Synthetic: drawn hands." if synthetic else ""
    cells, answer = Cells("", "", "", [], ""), answer_of(run_folder, run)
    if redaction:
        run, answer = redaction.record(run), answer.redacted(redaction)
    if notebook.is_file():
        cells = notebook_cells(notebook, panels, note=note, said=answer.sentence, redaction=redaction)
    about = {"Parameters": _parameter_rows(run), "Metrics": nested_rows(run.get("metrics")),
             "Weights": nested_rows(run.get("weights")), "Software": nested_rows(run.get("versions")),
             "Record": nested_rows({name: run.get(name) for name in RECORDED})}  # fmt: skip
    rendered = _page(
        "page.html.j2", str(run["id"]), script="live.js" if interactive else "", style=cells.style, run=run,
        title=cells.title or str(run.get("notebook") or run["id"]), tone=tone_of(run), synthetic=synthetic,
        answer=answer, facts=_facts(run), cells=Markup(cells.html), private=NOTE if redaction else "",
        contents=[*cells.contents, (2, "about-run", "About this run")], failure=_failure(run, cells.error),
        failed_cell=bool(cells.error), unkept="" if notebook.is_file() else _unkept(run),
        tables=[(heading, rows) for heading, rows in about.items() if rows],
    )  # fmt: skip
    live = run_folder / INTERACTIVE
    path = run_folder / "report.html"
    if interactive or (private and not by_itself):
        path = live if interactive else run_folder / PRIVATE
    write_text(path, rendered)
    if path.name == "report.html":
        write_thumbnail(run_folder, "" if redaction else cells.html, shown=not redaction)
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
            f"{run_folder / 'executed.ipynb'} is not there, of which reports are made: report.html, which may hold its "
            "figures, is kept, and none is written; run it again with --force, or delete report.html for a report of "
            "the record alone"
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


def _facts(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was measured on what: data set, aspect, model and weights, what differs from the defaults, and when."""
    given, models, split = run.get("parameters") or {}, run.get("weights"), run.get("split")
    split = split if isinstance(split, Mapping) else {}
    weights = [
        f"{name}: {about.get('fingerprint')}, {about.get('source')}"
        for name, about in (models.items() if isinstance(models, Mapping) else ())
        if isinstance(about, Mapping)
    ]
    facts = {
        # a split says what was done: of a data set without aspects none, whichever was asked for
        "Data set": split.get("dataset") or given.get("dataset"),
        "Aspect": split.get("aspect") or given.get("aspect"),
        "Model": (run.get("metrics") or {}).get("model") or model_of(run),
        "Weights": "; ".join(weights) or given.get("weights"),
        "Changed from default": ", ".join(f"{name} = {text(value)}" for name, value in changed_of(run).items()),
        "Started": moment(run.get("started")),
        "Took": duration(run.get("seconds")),
    }
    return [(name, str(value)) for name, value in facts.items() if value]


def _failure(run: Mapping[str, Any], error: str) -> str:
    if run["status"] == "succeeded" or (run["status"] == "running" and not error):
        return ""
    return str(run.get("error") or error or f"It ended as {run['status']!r}, without a message from the notebook.")


def _unkept(run: Mapping[str, Any]) -> str:
    """Why a report has no cells, and what to do about it; "" of a run that has begun and may still keep them."""
    if run["status"] == "running":
        return ""
    again = f"handclip run {str(run.get('notebook') or '')[:2]}".rstrip()
    return (
        "The notebook's text, tables and figures are not here: executed.ipynb is not in the run's folder. The kernel "
        "ended before the cells were kept, they were run as a plain script, or by an earlier version. Tables and "
        f"figures lie beside this report as files; for a whole report run it again: {again}"
    )


def _parameter_rows(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    values, changed, known = run.get("parameters") or {}, changed_of(run), NOTEBOOKS.get(str(run.get("notebook")))
    fields, defaults = known.model_fields if known else {}, run.get("defaults") or {}
    return [
        {
            "name": name, "value": text(value), "default": text(defaults.get(name, value)), "changed": name in changed,
            "help": fields[name].description if name in fields else "",
        }
        for name, value in values.items()
    ]  # fmt: skip
