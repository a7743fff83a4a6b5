"""The run id: a hash of parameters, notebook, the code its result depends on, and all that is read."""

import ast
import hashlib
import importlib.metadata
import itertools
import json
import platform
import re
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from handclip_lib.errors import ConfigError
from handclip_lib.parameters.parts import Parameters
from handclip_lib.places import project_root
from handclip_lib.runs.inputs import what_is_read

PACKAGES = ("handclip", "torch", "openai-clip", "numpy", "pandas", "pillow", "papermill", "matplotlib")
LIBRARY = Path(__file__).parents[1]
SHOWS_AND_KEEPS = {"plots", "widgets", "runs", "report", "launch", "cli", "doctor"}
"""Rooms and modules that draw, show, keep and start what others compute: no figure of a result depends on them."""
WEIGHTS = "tiny.safetensors"  # shipped, and read by backbone tiny alone
BLOCKS = (ast.stmt, ast.excepthandler, ast.match_case)
DOCUMENTED = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def code_of(notebook: Path) -> str:
    """The code cells of a notebook: prose may change without making another run.

    Raises:
        ConfigError: The file is no notebook.
    """
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        return "\0".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{notebook} is not a notebook ({error})") from error


def run_id(config: Parameters, code: str | None, read: Mapping[str, str] | None = None) -> str:
    """`<notebook>-<backbone>-<dataset>-<aspect>-<hash>`; the same for the same work on the same content.

    A part that the notebook has not (06 has no backbone) is left out.

    Args:
        config: Checked parameters.
        code: Of `code_of`; None of a run by hand, whose cells are its own and whose imports are the notebook's.
        read: Of `what_is_read` where it is known already.
    """
    file = project_root() / "notebooks" / f"{config.notebook}.ipynb"
    imports = code if code is not None else code_of(file) if file.is_file() else None
    backbone = str(getattr(config, "backbone", ""))
    digest = hashlib.sha256()
    for part in (
        json.dumps(config.model_dump(), sort_keys=True),
        "by hand" if code is None else code,
        _library_stamp(imports, tiny=backbone == "tiny"),
        json.dumps(what_is_read(config) if read is None else dict(read), sort_keys=True),
    ):
        digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    parts = (backbone, *(str(getattr(config, name, "")) for name in ("dataset", "aspect")))
    return "-".join(word for word in (config.notebook, *parts, digest.hexdigest()[:8]) if word)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on, read without importing them."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_state() -> dict[str, Any] | None:
    """The commit of the project and whether files differ from it, or None outside a checkout."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(LIBRARY.parent), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return None


def _library_stamp(code: str | None, tiny: bool) -> str:
    """A digest of the library's modules that some code imports, that those import, and of the data files they name.

    Args:
        code: Of `code_of`; None, and what cannot be parsed, stands for code that imports everything.
        tiny: The shipped weights are read.
    """
    modules = _modules()
    try:
        cells = () if code is None else code.encode("utf-8", "surrogatepass").split(b"\0")
        waiting = {name for cell in cells for name in _as_parsed(cell)[1]} if cells else {*modules}
    except SyntaxError:  # a line that only IPython understands
        waiting = {*modules}
    parsed: dict[str, str] = {}
    while waiting:
        name = waiting.pop()
        for module in itertools.accumulate(name.split("."), "{}.{}".format):  # importing a.b runs a too
            if module in modules and module not in parsed:
                parsed[module], names = _as_parsed(modules[module].read_bytes())
                waiting |= names
    digest = hashlib.sha256()
    for module, dump in sorted(parsed.items()):
        digest.update(f"{module}\0{dump}\0".encode())
        for data in sorted(modules[module].parent.glob("*.*")):
            if data.suffix != ".py" and repr(data.name) in dump and (tiny or data.name != WEIGHTS):
                digest.update(data.name.encode() + data.read_bytes())
    return digest.hexdigest()


def _modules() -> dict[str, Path]:
    """File of each module of the library that a result may depend on, by its dotted name."""
    found = {}
    for file in LIBRARY.rglob("*.py"):
        words = file.relative_to(LIBRARY.parent).with_suffix("").parts
        if words[1] not in SHOWS_AND_KEEPS:
            found[".".join(words).removesuffix(".__init__")] = file
    return found


@cache
def _as_parsed(source: bytes) -> tuple[str, frozenset[str]]:
    """Code as it is parsed, without docstrings, so that words make no other run; and dotted names it may import.

    A name of the library in quotes is that of a package for another process: `python -m handclip_lib.training`.
    """
    tree = ast.parse(source)
    names: set[str] = set()
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse
        else:
            waiting += (child for child in ast.iter_child_nodes(node) if isinstance(child, BLOCKS))
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    dump = ast.dump(tree)
    names |= {f"{name}.__main__" for name in re.findall(r"value='(handclip_lib\.[\w.]+)'", dump)}
    return dump, frozenset(names)
