"""The library's docstrings as pages of Markdown, read as text: nothing is imported."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "handclip_lib"
SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Yields):$")


def library_pages() -> Iterator[tuple[str, str]]:
    """Each room and its page."""
    for room in sorted({path.relative_to(LIBRARY).parts[0] for path in LIBRARY.rglob("*.py")} - {"__init__.py"}):
        modules = sorted((LIBRARY / room).rglob("*.py")) if (LIBRARY / room).is_dir() else [LIBRARY / room]
        name = room.removesuffix(".py")
        parts = [part for path in modules for part in _module(path, alone=len(modules) == 1)]
        yield name, "\n\n".join([f"# handclip_lib.{name}", *parts]) + "\n"


def _module(path: Path, alone: bool) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    if text := ast.get_docstring(tree):
        yield told(text) if alone else f"## {name}\n\n{told(text)}"
    yield from _members(tree.body, "", "##" if alone else "###")


def _members(body: list[ast.stmt], owner: str, level: str) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            if text := ast.get_docstring(node):
                head = f"```python\n{owner}{_signature(node)}\n```"
                yield f"{level} {owner}{node.name}\n\n{head}\n\n{told(text)}"
            if isinstance(node, ast.ClassDef):
                yield from _members(node.body, f"{node.name}.", level + "#")


def _signature(node: ast.FunctionDef | ast.ClassDef) -> str:
    if isinstance(node, ast.ClassDef):
        return f"{node.name}({', '.join(map(ast.unparse, node.bases))})"
    return f"{node.name}({ast.unparse(node.args)})" + (f" -> {ast.unparse(node.returns)}" if node.returns else "")


def told(docstring: str) -> str:
    """A docstring as Markdown: its sections' entries as lists, everything else as it is read."""
    lines = list[str]()
    listed = False
    for line in docstring.splitlines():
        if match := SECTION.match(line):
            lines, listed = [*lines, "", f"**{match[1]}**", ""], True
        elif listed and re.match(r"    \S", line):
            lines.append(f"- {escaped(line.strip())}")
        else:
            listed = listed and (not line or line.startswith(" "))
            lines.append(("  " if listed else "") + escaped(line.strip() if listed else line))
    return "\n".join(lines)


def escaped(text: str) -> str:
    """Text in which only `code` is markup."""
    parts = re.split(r"(`+[^`]*`+)", text)
    return "".join(part if i % 2 else re.sub(r"([\[\]<>*_$|\\])", r"\\\1", part) for i, part in enumerate(parts))
