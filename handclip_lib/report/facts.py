"""What a report and the index say of a run, as text: answer, row, picture; whatever is missing or odd is empty text."""

import base64
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, get_args
from urllib.parse import quote

from PIL import Image

from handclip_lib.data.decoder import open_image
from handclip_lib.evaluation.tables import claimed, in_percent, readable, result_table
from handclip_lib.files import whole_file
from handclip_lib.parameters.backbones import BackboneName, of_library
from handclip_lib.runs.listing import IN_ID, changed_of
from handclip_lib.runs.record import not_learnt

if TYPE_CHECKING:
    from handclip_lib.report.private import Redaction

INTERACTIVE, PRIVATE, THUMBNAIL = "report_interactive.html", "report_private.html", "thumbnail.png"
TONES = {"succeeded": "good", "running": "wait", "unknown": "wait"}
HEADLINES = {
    "results": ("model", "rank1", "rank5", "map", "n_identities"),
    "overview": ("model", "rank1", "map", "rank1_gain", "rank1_p_holm", "n_identities"),
    "compared": (),
}
"""By table, the first that a run has being its headline: the columns of it that a reader sees; all of the last."""
THUMBNAIL_SIZE, THUMBNAIL_COLOURS = (288, 144), 64  # pixels: twice what the index shows, for dense screens
PLACES = ("data_root", "extra_data", "weights", "download_root", "embeddings")
"""Parameters that name a place on somebody's machine."""
TELLING = ("forest", "cmc", "curves", "learning_curves", "transform")
"""Names of the figures that say most of a run, the first that is there being taken."""
INLINED = re.compile(r'src="data:image/(?:png|jpeg);base64,([^"]+)"')


@dataclass(frozen=True)
class Answer:
    """What a run found."""

    sentence: str  # its figures, as its notebook concluded; without one, how it ended
    table: list[list[str]]  # the headline beside the baselines as text, the heading first; empty without one
    warnings: list[str]  # what a reader should doubt, a sentence each
    claims: list[bool]  # whether each row of the table is a claim; the others are grey

    @property
    def numbers(self) -> list[bool]:
        """Whether each column of the table holds figures; the first holds names."""
        _, *columns = zip(*self.table[1:], strict=True)
        return [False, *(any(map(str.isdigit, "".join(column))) for column in columns)]

    def redacted(self, redaction: "Redaction") -> "Answer":
        """The same without names."""
        table = [[redaction.cell(row[0]), *map(redaction.text, row[1:])] for row in self.table]
        warnings = [redaction.text(warning) for warning in self.warnings]
        return Answer(redaction.text(self.sentence), table, warnings, self.claims)


def answer_of(run_folder: Path, run: Mapping[str, Any]) -> Answer:
    """What a run found, as its notebook concluded."""
    concluded, cautions, unlearnt = run.get("answer"), run.get("cautions"), not_learnt(run)
    if run["status"] != "succeeded" or not isinstance(concluded, str):
        took = f" after {duration(run['seconds'])}" if is_number(run.get("seconds")) else ""
        concluded = f"This run {run['status']}{took}." if run["status"] != "running" else "This run goes on."
        cautions = [f"The training did not learn as it should ({unlearnt})."] if unlearnt else []
    table, claims = _headline(run_folder, run.get("metrics") or {}) if run["status"] == "succeeded" else ([], [])
    warnings = [str(caution) for caution in cautions] if isinstance(cautions, list) else []
    return Answer(concluded, table, warnings, claims)


def _headline(run_folder: Path, metrics: Mapping[str, Any]) -> tuple[list[list[str]], list[bool]]:
    """The table as text, its heading first, and whether each row is a claim."""
    import pandas as pd  # half a second, which the index does without

    name = next((name for name in HEADLINES if (run_folder / f"{name}.csv").is_file()), "")
    try:
        found = pd.read_csv(run_folder / f"{name}.csv")
        if "gallery" in found:
            found = found[found["gallery"] == metrics.get("gallery")]
        if "n_identities" not in found and "n_identities" in metrics:
            found = found.assign(n_identities=metrics["n_identities"])
        of_the_run = result_table(found, HEADLINES[name])
        some, claims = readable(of_the_run), claimed(of_the_run) or [True] * len(found)
    except (OSError, ValueError, KeyError):
        return [], []
    rows = [[name, *map(whole_interval, figures)] for name, *figures in some.to_numpy().tolist()]
    return ([[*map(unbroken, some.columns)], *rows], claims) if len(some) else ([], [])


def whole_interval(figure: str) -> str:
    """A figure that a line may end before its interval, and not within it."""
    return figure.replace(", ", ",\u00a0")


def unbroken(heading: str) -> str:
    """A column's heading that no line ends within "Rank-1" and "95 % CI", but one may after the arrow of "a→b"."""
    return heading.replace("-", "\u2011").replace("95 % CI", "95\u00a0%\u00a0CI").replace("→", "→\u200b")


def model_of(run: Mapping[str, Any]) -> str:
    """What a run's model is called: by the run, else its backbone; "" where a file's has no name yet."""
    given, known = run.get("parameters") or {}, (run.get("metrics") or {}).get("model")
    of_a_file = any(given.get(name) for name in ("weights", "embeddings", "trained_run"))
    return str((known if of_a_file else given.get("backbone")) or "")


def is_synthetic(run: Mapping[str, Any]) -> bool:
    """Whether a run looked at drawn hands."""
    split = run.get("split")
    named = (run.get("parameters") or {}).get("dataset") or (split.get("dataset") if isinstance(split, dict) else "")
    return bool(named == "drawn")


def tone_of(run: Mapping[str, Any]) -> str:
    """Which of the style's tones a status has."""
    return TONES.get(run["status"], "bad")


def index_row(folder: Path, run: Mapping[str, Any]) -> dict[str, Any]:
    """A run's row of the index, as text by name; addresses are relative to the index, beside the folder of runs."""
    parameters, metrics = run.get("parameters") or {}, run.get("metrics") or {}
    share = {name: in_percent(value) if is_number(value) else "" for name, value in metrics.items()}
    interval = [share.get(name) for name in ("rank1_low", "rank1_high")]
    hidden = {*IN_ID, *(PLACES if parameters.get("private") else ())}
    changed = [f"{name} = {text(value)}" for name, value in changed_of(run).items() if name not in hidden]
    figure = None if (folder / THUMBNAIL).is_file() or parameters.get("private") else most_telling(folder)
    picture = figure.relative_to(folder).as_posix() if figure else THUMBNAIL
    split = run["split"] if isinstance(run.get("split"), dict) else {}
    seconds, started, backbone = run.get("seconds"), run.get("started"), model_of(run)
    if parameters.get("private") and backbone not in get_args(BackboneName):
        backbone = backbone.partition(":")[0] if of_library(backbone) else ""
    return {
        "id": run["id"], "status": run["status"], "tone": tone_of(run), "error": str(run.get("error") or ""),
        "stage": str(run.get("notebook") or "").replace("_", " "),
        "changed": ", ".join(filter(None, [*changed, not_learnt(run)])),
        **{name: str(split.get(name) or parameters.get(name) or "") for name in ("dataset", "aspect")},
        "backbone": backbone,
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


def most_telling(run_folder: Path) -> Path | None:
    """The figure a run is known by: one of `TELLING`, else the first that was drawn; None without figures."""
    figures = [run_folder / "figures" / f"{name}.png" for name in TELLING]
    drawn = sorted((run_folder / "figures").glob("[!.]*.png"), key=lambda path: (path.stat().st_mtime, path.name))
    return next((path for path in (*figures, *drawn) if path.is_file()), None)


def write_thumbnail(run_folder: Path, cells: str, *, shown: bool = True) -> None:
    """Write `thumbnail.png` of a figure, else of the first picture in the HTML of the cells; none where none is sound.

    The index shows hundreds of them, which must load faster than one figure. A private run has none to be `shown`.
    """
    figure, inlined = most_telling(run_folder) if shown else None, INLINED.search(cells)
    path, buffer = run_folder / THUMBNAIL, io.BytesIO()
    try:
        source = figure.read_bytes() if figure else base64.b64decode(inlined[1]) if inlined else b""
        with open_image(io.BytesIO(source)) as opened:
            flat = Image.new("RGBA", opened.size, "white")
            flat.alpha_composite(opened.convert("RGBA"))
    except (OSError, ValueError, SyntaxError):  # no picture, or a damaged one: a report needs none
        path.unlink(missing_ok=True)
        return
    flat.thumbnail(THUMBNAIL_SIZE)
    small = flat.convert("RGB").quantize(THUMBNAIL_COLOURS, Image.Quantize.MAXCOVERAGE)
    small.save(buffer, "png", optimize=True)
    with whole_file(path) as private:
        private.write_bytes(buffer.getvalue())
