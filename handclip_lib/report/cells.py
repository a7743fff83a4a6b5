"""An executed notebook as a fragment of inert HTML: cleaned, captioned, with anchors for a table of contents."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
from bleach import clean
from bleach.css_sanitizer import CSSSanitizer
from bs4 import BeautifulSoup, Tag
from nbconvert import HTMLExporter, TemplateExporter
from nbconvert.filters import Highlight2HTML
from nbconvert.preprocessors import CoalesceStreamsPreprocessor, TagRemovePreprocessor
from nbformat import NotebookNode, v4
from pygments.formatters import HtmlFormatter
from traitlets.config import Config

from handclip_lib.errors import RunError
from handclip_lib.report.facts import unbroken, whole_interval
from handclip_lib.report.private import WIDGET_VIEW, Redaction

if TYPE_CHECKING:
    from handclip_lib.report.live_panels import LivePanel

TEMPLATES = Path(__file__).parent
DISPLAY_PRIORITY = (
    "image/png", "image/jpeg", "image/svg+xml", "text/html", "text/markdown", "text/latex", "text/plain",
)  # fmt: skip
TAGS = frozenset({
    "a", "abbr", "b", "blockquote", "br", "caption", "code", "col", "colgroup", "dd", "del", "details", "div", "dl",
    "dt", "em", "figcaption", "figure", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "img", "kbd", "li", "mark",
    "ol", "p", "pre", "s", "small", "span", "strong", "sub", "summary", "sup", "table", "tbody", "td", "tfoot", "th",
    "thead", "tr", "u", "ul",
})  # fmt: skip
SWALLOWED = ["script", "style", "iframe", "object", "embed", "template", "noscript", "svg", "math", "link", "meta"]
MAY_GO = re.compile("|".join(["<img", *(f"<{name}" for name in SWALLOWED)]), re.IGNORECASE)
ATTRIBUTES = frozenset({"alt", "class", "colspan", "height", "open", "rowspan", "scope", "start", "title", "width"})
STYLES = ["background-color", "color", "font-style", "font-weight", "text-align"]
PICTURE = re.compile(r"data:image/(png|jpeg|gif|webp);base64,")
SETUP = "setup"  # tag of cells that start a run: what they print is for who sits before the notebook
OF_THE_NOTEBOOK = ("Needs.", "Writes.", "Time.", "Next.")
"""What paragraphs begin with that say how to use a notebook, and nothing of what a run of it found."""
LONG, WIDE = 15, 9  # rows of a table from which it scrolls, and columns from which its print is smaller
PROGRESS = re.compile(r"\d+%\||\d+it \[|(it/s|s/it)[\],]")
LONG_WORD, BREAKS = re.compile(r"[^\s-]{24}"), re.compile(r"(?<=[_/=])(?=\w)")
"""A name that would widen its column, and where a line may end in it; hyphens are such places by themselves."""
ENDED = re.compile(r"(finished(, but [^:]+)?: .*|its report: handclip report )\d\d_[a-z_]+-\S+$")
"""What a run prints at its end, for who sits before the notebook: a report has the id at its head."""
NUMBER = re.compile(r"[<>≤≥~≈]?\s*[-−+]?\d[\d\s.,%±+\-−–—()\[\]/e×]*|[-–—]|nan|NaN|<NA>|None|")


@dataclass(frozen=True)
class Cells:
    """What a report shows of a notebook."""

    html: str  # cleaned: nothing in it runs or is fetched
    style: str  # CSS of the highlighted code
    title: str  # text of the first heading, "" without one
    contents: list[tuple[int, str, str]]  # level (2 or 3), anchor and text of each heading
    error: str  # name and message of the first error, "" without one


def notebook_cells(
    path: Path, panels: "Sequence[LivePanel]" = (), *, note: str = "", said: str = "",
    redaction: Redaction | None = None,
) -> Cells:  # fmt: skip
    """Convert an executed notebook; a panel takes the place of the picture whose alternative text begins with its own.

    The caption of every figure ends with the note; a redaction takes out what names or shows people before all else.
    An output that begins with what the page has `said` on its first screen is not shown again.

    Raises:
        RunError: The file cannot be read, is no notebook, or has no picture for one of the panels.
    """
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except (OSError, ValueError, nbformat.ValidationError) as error:
        reason = str(error).partition("\n")[0]
        raise RunError(f"{path} is no readable notebook ({reason}); run it again") from error
    notebook, _ = CoalesceStreamsPreprocessor().preprocess(notebook, {})
    # papermill puts its own boxes around an error; the report has a better one
    notebook, _ = TagRemovePreprocessor(remove_cell_tags={"papermill-error-cell-tag"}).preprocess(notebook, {})
    if redaction:
        redaction.redact_notebook(notebook)
    _end_with_the_failure(notebook)
    errors, placed = [], set()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            errors += [f"{out.ename}: {out.evalue}" for out in cell.outputs if out.output_type == "error"]
            setup = SETUP in cell.metadata.get("tags", [])
            shown = [out for out in cell.outputs if not setup or out.output_type == "error"]
            first_lines = ((out, str(out.get("data", {}).get("text/plain", "")).partition("\n")[0]) for out in shown)
            cell.outputs = [out for out, line in first_lines if _is_worth_showing(out) and not (said and line == said)]
            placed |= {_enliven(output, panels) for output in cell.outputs}
    missing = [panel.alt for panel in panels if panel.alt not in placed]
    if missing:
        raise RunError(f"{path} has no picture described as {missing[0]!r}…; run it again with this version")
    soup = BeautifulSoup(_as_html(notebook), "html.parser")
    for picture in soup.find_all("img", alt=False):
        picture["alt"] = "No description has been provided for this image"
    for paragraph in soup.select(".prose > p"):
        if paragraph.strong and paragraph.strong.get_text() in OF_THE_NOTEBOOK:
            paragraph.decompose()
    title, contents = _anchored(soup)
    _caption(soup, title, note)
    for number, table in enumerate(soup.find_all("table"), start=1):
        _make_legible(soup, table, number)
    for cell in soup.select("section.cell"):
        if all(part.get("class") == ["code"] for part in cell.find_all(True, recursive=False)):
            cell["class"] = "cell quiet"
    style = HtmlFormatter(style="default").get_style_defs(".highlight")
    return Cells(str(soup), style, title, contents, errors[0] if errors else "")


def get_ready() -> None:
    """Do what only the first notebook of a process takes: compile the templates, import what colours code."""
    output = v4.new_output("display_data", {"text/html": "<p>"})
    _as_html(v4.new_notebook(cells=[v4.new_markdown_cell("#"), v4.new_code_cell("1", outputs=[output])]))


def _as_html(notebook: NotebookNode) -> str:
    # its parent's: its own parses the page once more, for classes of other templates and for pictures without words
    return TemplateExporter.from_notebook_node(_exporter(), notebook)[0]


@cache
def _exporter() -> HTMLExporter:
    config = Config({"NbConvertBase": {"display_data_priority": list(DISPLAY_PRIORITY)}})
    exporter = HTMLExporter(config=config, template_name="page", extra_template_basedirs=[str(TEMPLATES)])
    exporter.exclude_anchor_links = True
    exporter.register_filter("clean_html", cleaned)
    exporter.register_filter("highlight_code", Highlight2HTML(pygments_lexer="ipython3", parent=exporter))
    return exporter


def _end_with_the_failure(notebook: NotebookNode) -> None:
    """Of a notebook that failed, drop the sections after it that nothing was computed for."""
    ran = [number for number, cell in enumerate(notebook.cells) if cell.get("outputs")]
    if any(output.output_type == "error" for number in ran for output in notebook.cells[number].outputs):
        notebook.cells = notebook.cells[: ran[-1] + 1]


def _enliven(output: NotebookNode, panels: "Sequence[LivePanel]") -> str | None:
    """Give the picture of a panel what the template makes controls of; what a notebook itself says of it is dropped."""
    about = output.get("metadata", {}).get("image/png")
    if isinstance(about, dict):
        about.pop("live", None)
        for panel in panels:
            if str(about.get("alt", "")).startswith(panel.alt):
                about.update(panel.as_metadata())
                return panel.alt
    return None


def cleaned(text: str) -> str:
    """Keep the markup of prose and tables; drop whatever could run, be fetched, or reach outside its place.

    nbconvert's `SanitizeHTML` cleans the source of prose, not what becomes of it, so that its links and pictures come
    through; and it keeps the text of scripts and drops inlined pictures.
    """
    if MAY_GO.search(text):
        soup = BeautifulSoup(text, "html.parser")
        for element in soup.find_all(SWALLOWED):
            element.decompose()
        for picture in soup.find_all("img", src=lambda source: source is None or not PICTURE.match(source)):
            picture.decompose()
        text = str(soup)
    protocols, css = ["http", "https", "mailto", "data"], CSSSanitizer(allowed_css_properties=STYLES)
    return clean(text, TAGS, _is_allowed, protocols, strip=True, css_sanitizer=css)


def _is_allowed(tag: str, name: str, value: str) -> bool:
    if name == "src":
        return tag == "img" and PICTURE.match(value) is not None
    if name == "href":
        return tag == "a" and re.match(r"https?://|mailto:|#", value) is not None
    if name == "style":
        return tag in {"td", "th", "tr", "span"}
    return name in ATTRIBUTES


def _is_worth_showing(output: NotebookNode) -> bool:
    """Take progress bars out of an output; say whether something is left for a reader without a kernel."""
    if output.output_type == "stream":
        lines = output.text.rstrip("\r\n").replace("\r\n", "\n").split("\n")
        if output.name == "stderr":
            lines = [line for line in lines if line.strip() and not PROGRESS.search(line)]
        output.text = "\n".join(line for line in lines if not ENDED.match(line))
        return bool(output.text.strip())
    if output.output_type == "error":
        return True
    has_view = output.data.pop(WIDGET_VIEW, None) is not None
    if has_view and not set(output.data) & {"image/png", "image/jpeg", "text/html"}:
        return False  # a control or a progress bar alone says nothing on paper
    return any(kind in output.data for kind in DISPLAY_PRIORITY)


def _anchored(soup: BeautifulSoup) -> tuple[str, list[tuple[int, str, str]]]:
    """Take the title out, give every other heading of the prose an anchor, and list them."""
    title, contents = "", list[tuple[int, str, str]]()
    for number, heading in enumerate(soup.select(".prose h1, .prose h2, .prose h3")):
        text = heading.get_text(" ", strip=True)
        is_title = heading.name == "h1" and not title
        title = text if is_title else title
        if is_title or not text:  # cleaning may leave nothing of a heading, and an empty one leads nowhere
            heading.decompose()
            continue
        heading.name = "h3" if heading.name == "h3" else "h2"
        heading["id"] = anchor = f"section-{number}"
        contents.append((int(heading.name[1]), anchor, text))
    return title, contents


def _caption(soup: BeautifulSoup, title: str, note: str) -> None:
    """Number the figures, end captions with a note, and let each be opened large, which needs no script.

    Where alternative text is missing, the heading above stands in.
    """
    for number, figure in enumerate(soup.select(".cell figure"), start=1):
        picture, *_ = figure.select("img")
        described = str(figure.get("aria-label") or picture["alt"])
        if not described:
            heading = figure.find_previous(["h2", "h3"])
            picture["alt"] = heading.get_text(" ", strip=True) if heading else title or f"Figure {number}"
        caption = figure.figcaption
        if caption is None:
            caption = soup.new_tag("figcaption", string=described)
            figure.append(caption)
        caption.insert(0, soup.new_tag("b", string=f"Figure {number}. "))
        if note:
            ended = caption.get_text().rstrip().endswith((".", "!", "?"))
            caption.append(f"{'' if ended else '.'} {note}")
        figure["id"], place = f"figure-{number}", f"at-figure-{number}"
        figure.insert_before(soup.new_tag("span", attrs={"id": place, "class": "place"}))
        if figure.select(":scope > :is(.frame, input)"):  # whose pictures are told by what stands beside them
            opened = {"href": f"#{figure['id']}", "class": "open"}
            figure.append(soup.new_tag("a", attrs=opened, string=f"Open figure {number} large"))
        else:
            picture.wrap(soup.new_tag("a", attrs={"href": f"#{figure['id']}", "title": "Open large"}))
        closed = {"href": f"#{place}", "class": "close"}
        figure.append(soup.new_tag("a", attrs=closed, string=f"Close figure {number}"))


def _make_legible(soup: BeautifulSoup, table: Tag, number: int) -> None:
    """Number a table, let a wide or long one scroll by itself (by keyboard too), and align numbers to the right."""
    rows = [row.find_all(["td", "th"], recursive=False) for row in table.select("tbody > tr")]
    caption = table.caption.extract() if table.caption else soup.new_tag("caption")
    caption.name = "p"  # beside what scrolls, not in it: a caption is as wide as its table, which may be cut
    caption.attrs = {"class": "caption", "id": f"table-{number}"}
    caption.insert(0, soup.new_tag("b", string=f"Table {number}. "))
    if not table.find("td"):  # a row of headings alone looks like a fault; the caption says that there is none
        table.replace_with(caption)
        return
    if len(rows) > LONG:
        cue = f" ({len(rows)} rows; scroll for all of them)"
        caption.append(soup.new_tag("span", attrs={"class": "rows"}, string=cue))
    kind = "table" + " long" * (len(rows) > LONG) + " wide" * (max(map(len, rows), default=0) > WIDE)
    place = {"class": kind, "tabindex": "0", "role": "region", "aria-labelledby": f"table-{number}"}
    table.wrap(soup.new_tag("div", attrs=place)).insert_before(caption)
    for name in table.select("thead th"):
        name.string = unbroken(name.get_text())
    if not rows or table.find(["td", "th"], attrs={"colspan": True}) or len({len(row) for row in rows}) > 1:
        return
    headings = [row.find_all("th", recursive=False) for row in table.select("thead > tr")]
    for column, cells in enumerate(zip(*rows, strict=True)):
        texts = [cell.get_text(" ", strip=True) for cell in cells]
        is_number = any(re.search(r"\d", text) for text in texts) and all(NUMBER.fullmatch(text) for text in texts)
        if is_number and cells[0].name == "td":
            kind = "number interval" if any("[" in text for text in texts) else "number"
            for cell in (*cells, *(row[column] for row in headings if len(row) == len(rows[0]))):
                cell["class"] = kind
            for cell, text in zip(cells, texts, strict=True):
                cell.string = whole_interval(text)
    for word in table.find_all(string=LONG_WORD):
        first, *others = BREAKS.split(word)
        word.replace_with(first, *(new for part in others for new in (soup.new_tag("wbr"), part)))
