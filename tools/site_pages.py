"""`python -m tools.site_pages FOLDER [--reports REPORTS]`: lay out the pages of the documentation for Sphinx.

The pages are the repository's own, in its own folders, so that their links hold; what has no page yet (parameters,
commands, the library) is written from the code. The notebooks are those executed under REPORTS, or as they stand.
"""

import argparse
import json
import os
import re
import shutil
from collections.abc import Iterator
from itertools import compress
from pathlib import Path
from typing import Any, Literal, get_args, get_origin
from unittest.mock import patch

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from handclip_lib.cli import _parser
from handclip_lib.parameters.notebooks import NOTEBOOKS
from handclip_lib.parameters.parts import Parameters
from handclip_lib.places import cache_folder
from handclip_lib.report.private import WIDGET_VIEW
from tools.docstrings import escaped, library_pages

ROOT = Path(__file__).parents[1]
SECTIONS = {
    "Tutorials": [f"notebooks/{name}" for name in NOTEBOOKS],
    "How-to": ["notebooks/README", "notebooks/colab", "docs/data", "docs/weights", "docs/cluster", "docs/report",
               "docs/exchange", "docs/from_clipfh"],
    "Reference": ["docs/parameters", "reference/commands", "docs/files", "reference/library"],
    "Explanation": ["docs/definitions", "docs/architecture", "handclip_lib/backbone/tiny", "CONTRIBUTING", "CHANGELOG"],
    "Findings": ["findings/README"],
}  # fmt: skip
"""Pages by section, without their ending; one of docs/ that stands nowhere is a how-to."""
LIBRARY_PAGE = """# The library

What the docstrings say, a page a room; [Contributing](../CONTRIBUTING.md) says which rests on which.
"""
LINK = re.compile(r"(!?)\[((?:[^\[\]]|`[^`]*`)*)\]\(([^)#\s:]+)(#[^)\s]*)?\)")
MERMAID = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ARROW = re.compile(r"(\w+) -- \"(.+?)\" --> (\w+)")
KINDS: dict[Any, str] = {bool: "truth", int: "whole number", float: "number", str: "text"}
"""As docs/parameters.md calls them."""
SIGNS = {Ge: "≥", Gt: ">", Le: "≤", Lt: "<"}


def lay_out(folder: Path, reports: Path | None = None) -> None:
    """Write everything that Sphinx reads, conf.py too, into a folder that is made anew."""
    if folder.exists() and not (folder / "conf.py").is_file():
        raise SystemExit(f"{folder} holds something else; name a new folder")
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "extra").mkdir(parents=True)
    (folder / "static").mkdir()
    shutil.copy(ROOT / "docs" / "conf.py", folder)
    shutil.copy(ROOT / "docs" / "site.css", folder / "static")
    sections = {title: [*names] for title, names in SECTIONS.items()}
    placed = {name for names in sections.values() for name in names}
    sections["How-to"] += sorted({f"docs/{page.stem}" for page in (ROOT / "docs").glob("*.md")} - placed)
    made = {f"reference/parameters/{name}": parameters_page(model) for name, model in NOTEBOOKS.items()}
    rooms = {f"reference/library/{room}": text for room, text in library_pages()}
    pages = {name: "" for names in sections.values() for name in names if name not in SECTIONS["Tutorials"]}
    pages |= made | rooms | {"reference/commands": commands_page(), "reference/library": LIBRARY_PAGE}
    pages |= {name: linked(ROOT / f"{name}.md", folder) for name, text in pages.items() if not text}
    pages["docs/parameters"] += contents([*made])
    pages["reference/library"] += contents([*rooms])
    lists = [contents(names, f":caption: {title}\n") for title, names in sections.items()]
    pages["index"] = "".join([linked(ROOT / "README.md", folder), *lists])
    notebooks = {f"{name}.ipynb": json.dumps(tutorial(name, folder, reports)) for name in SECTIONS["Tutorials"]}
    for name, text in ({f"{name}.md": text for name, text in pages.items()} | notebooks).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def contents(names: list[str], options: str = "") -> str:
    """What leads from a page to others, in the margin alone."""
    return f"\n```{{toctree}}\n:hidden:\n{options}\n" + "\n".join(f"/{name}" for name in names) + "\n```\n"


def linked(page: Path, folder: Path) -> str:
    """A page's text for the site: the files it links to beside it, folders as plain text, its flowchart as a table."""

    def placed(match: re.Match[str]) -> str:
        picture, text, name, anchor = match.groups()
        target = (page.parent / name).resolve()
        if target.is_dir():
            return text
        if target == ROOT / "README.md":
            name = name.replace("README.md", "index.md")
        elif target.is_file() and target.suffix not in (".md", ".ipynb"):
            copy = folder / target.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(target, copy)
        return f"{picture}[{text}]({name}{anchor or ''})"

    text = MERMAID.sub(_arrows, page.read_text(encoding="utf-8"))
    return LINK.sub(placed, text)


def _arrows(match: re.Match[str]) -> str:
    rows = [f"| `{start}` | {what} | `{end}` |" for start, what, end in ARROW.findall(match[1])]
    return "\n".join(["| from | what | to |", "|---|---|---|", *rows])


def tutorial(page: str, folder: Path, reports: Path | None) -> dict[str, Any]:
    """A notebook as it ran last under `reports`, without what its start printed, and with a line that says so."""
    name = Path(page).name
    runs = sorted((reports or folder).glob(f"runs/{name}*/report.html"), key=lambda path: path.stat().st_mtime)
    if reports and not runs:
        raise SystemExit(f"{reports} holds no run of {name}; make docs runs all six")
    said = f"Its parameters: [reference](../reference/parameters/{name}.md)."
    if runs:
        (folder / "extra" / "reports").mkdir(exist_ok=True)
        report = unplaced(runs[-1].read_text(encoding="utf-8"), reports)
        (folder / "extra" / "reports" / f"{name}.html").write_text(report, encoding="utf-8")
        said = f'Executed on a few drawn hands: synthetic. <a href="../reports/{name}.html">Its report</a>. {said}'
    ran = runs[-1].with_name("executed.ipynb") if runs else ROOT / f"{page}.ipynb"
    notebook = json.loads(unplaced(ran.read_text(encoding="utf-8"), reports))
    notebook["metadata"].pop("widgets", None)
    for cell in notebook["cells"]:
        outputs = [] if "setup" in cell["metadata"].get("tags", []) else cell.get("outputs", [])
        data = [output.get("data", {}) for output in outputs]
        shown = [WIDGET_VIEW not in kinds or bool({"image/png", "text/html"} & kinds.keys()) for kinds in data]
        if "outputs" in cell:  # a control alone says nothing without a kernel
            cell["outputs"] = list(compress(outputs, shown))
        told = [
            output["metadata"]["image/png"]["alt"] for output in outputs if "image/png" in output.get("metadata", {})
        ]
        cell["metadata"]["mystnb"] = {"image": {"alt": " ".join(told)}} if told else {}
    notebook["cells"].insert(1, {"cell_type": "markdown", "id": "site", "metadata": {}, "source": said})
    return notebook


def unplaced(text: str, reports: Path | None) -> str:
    """A text without the folders of who built the site."""
    places = {reports or ROOT: "reports", cache_folder(): "cache", ROOT: "handclip"}
    for place, word in places.items():
        text = text.replace(str(place.absolute()), word)
    return text


def parameters_page(model: type[Parameters]) -> str:
    """Each parameter of a notebook under a heading of its own, so that it can be linked and found: help, kind, default."""
    parts = [f"# {model.notebook}", f"The parameters of [the notebook](../../notebooks/{model.notebook}.ipynb)."]
    for name, field in model.model_fields.items():
        default = "empty" if field.default == "" else f"`{field.default}`"
        default = default.lower() if field.annotation is bool else default
        parts.append(f"## {name}\n\n{escaped(field.description or '')}\n\nDefault: {default}. Takes: {_takes(field)}.")
    return "\n\n".join(parts) + "\n"


def _takes(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{value}`" if value else "empty" for value in get_args(field.annotation))
    bounds = [bound for bound in field.metadata if type(bound) in SIGNS]
    limits = [f"{SIGNS[type(bound)]} {getattr(bound, type(bound).__name__.lower())}" for bound in bounds]
    return ", ".join([KINDS[field.annotation], *limits])


def commands_page() -> str:
    """What `--help` says, of every command."""
    with patch.dict(os.environ, {"COLUMNS": "100", "NO_COLOR": "1"}):
        parts = [f"## {name}\n\n```text\n{text}\n```" for name, text in _helps(_parser())]
    return "\n\n".join(["# Commands", *parts]) + "\n"


def _helps(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    yield parser.prog, parser.format_help()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in dict.fromkeys(action.choices.values()):
                yield from _helps(inner)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Lay out the pages of the documentation for Sphinx.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--reports", type=Path)
    options = parser.parse_args()
    lay_out(options.folder, options.reports)
