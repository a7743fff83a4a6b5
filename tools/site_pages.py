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
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin
from unittest.mock import patch

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from handclip_lib.cli import _parser
from handclip_lib.parameters.notebooks import NOTEBOOKS
from handclip_lib.parameters.parts import Parameters
from tools.docstrings import escaped, library_pages
from tools.tutorials import tutorial

ROOT = Path(__file__).parents[1]
SECTIONS = {
    "Tutorials": [f"notebooks/{name}" for name in NOTEBOOKS],
    "How-to": ["notebooks/README", "notebooks/colab", "docs/study", "docs/data", "docs/weights", "docs/training",
               "docs/cluster", "docs/report", "docs/exchange", "docs/from_clipfh"],
    "Reference": ["docs/parameters", "reference/commands", "docs/files", "reference/library"],
    "Explanation": ["docs/definitions", "docs/performance", "docs/architecture", "handclip_lib/backbone/tiny",
                    "CONTRIBUTING", "CHANGELOG"],
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


def parameters_page(model: type[Parameters]) -> str:
    """Each parameter of a notebook under a heading of its own, so that it can be linked and found."""
    parts = [f"# {model.notebook}", f"The parameters of [the notebook](../../notebooks/{model.notebook}.ipynb)."]
    for name, field in model.model_fields.items():
        default = "empty" if field.default == "" else f"`{field.default}`"
        default = default.lower() if field.annotation is bool else default
        parts.append(f"## {name}\n\n{escaped(field.description or '')}\n\nDefault: {default}. Takes: {_takes(field)}.")
    return "\n\n".join(parts) + "\n"


def _takes(field: FieldInfo) -> str:
    own = get_args(field.annotation) if get_origin(field.annotation) is Union else (field.annotation,)
    bounds = [bound for bound in field.metadata if type(bound) in SIGNS]
    limits = [f"{SIGNS[type(bound)]} {getattr(bound, type(bound).__name__.lower())}" for bound in bounds]
    return ", ".join([*map(_kind, own), *limits])


def _kind(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" if value else "empty" for value in get_args(annotation))
    return KINDS[annotation]


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
