"""The run id: a hash of parameters, notebook, the code its result depends on, and all that is read."""

import ast
import importlib.metadata
import itertools
import json
import platform
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from handclip_lib.backbone.properties import PLAIN_STEMS
from handclip_lib.errors import ConfigError, WriteError
from handclip_lib.files import write_text
from handclip_lib.parameters.backbones import folder_of
from handclip_lib.parameters.parts import Parameters
from handclip_lib.places import cache_folder, project_root
from handclip_lib.runs.inputs import model_parameters, what_is_read
from handclip_lib.version import __version__

COMPUTE = ("torch", "torchvision", "openai-clip", "numpy", "pandas", "pillow")
"""Packages that figures depend on. A run's record has their versions and its id has not: an update shall neither end
the resume of a training nor repeat each run; where two compared runs differ in them, the comparison says so."""
PACKAGES = ("handclip", *COMPUTE, "papermill", "matplotlib")
TOWERS = ("open-clip-torch", "timm", "transformers")
"""Of extras: a record has the version of each that is there."""
LIBRARY = Path(__file__).parents[1]
SHOWS_AND_KEEPS = {"plots", "widgets", "runs", "report", "launch", "cli", "doctor", "version", "study"}
"""Rooms and modules that draw, show, keep and start what others compute: no figure of a result depends on them."""
WEIGHTS = "tiny.safetensors"  # shipped, and read by backbone tiny alone
BLOCKS = (ast.stmt, ast.excepthandler, ast.match_case)
DOCUMENTED = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
MOST_KNOWN = 2000  # pieces of code
MOST_LETTERS = 40  # of a file's name in an id
WAY_OF_PARSING = f"{sys.version}\0".encode() + Path(__file__).read_bytes() + b"\0"
Parsed = tuple[str, list[str], list[str]]
"""Of code: a digest, the dotted names it may import, and the names of files in it."""


def code_of(notebook: Path) -> str:
    """The code cells of a notebook, for prose may change without making another run; a ConfigError where it is none."""
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        return "\0".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{notebook} is not a notebook ({error})") from error


def run_id(config: Parameters, code: str | None, read: Mapping[str, str] | None = None) -> str:
    """`<notebook>-<backbone>-<dataset>-<aspect>-<hash>`; the same for the same work on the same content.

    A part that the notebook has not (06 has no backbone) is left out. A file of weights or embeddings stands in the
    backbone's place, and that of a trained run is its training's.

    Args:
        code: Of `code_of`; None of a run by hand, whose cells are its own and whose imports are the notebook's.
        read: Of `what_is_read` where it is known already.
    """
    file = project_root() / "notebooks" / f"{config.notebook}.ipynb"
    imports = code if code is not None else code_of(file) if file.is_file() else None
    backbone = str(getattr(config, "backbone", ""))
    digest = sha256()
    for part in (
        json.dumps(config.model_dump(), sort_keys=True),
        "by hand" if code is None else code,
        _library_stamp(imports, tiny=backbone == "tiny"),
        json.dumps(what_is_read(config) if read is None else dict(read), sort_keys=True),
    ):
        digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    given = model_parameters(config)
    called = weights_in_id(given) or _of_letters(str(given.get("backbone", "")))
    parts = (called, *(str(getattr(config, name, "")) for name in ("dataset", "aspect")))
    return "-".join(word for word in (config.notebook, *parts, digest.hexdigest()[:8]) if word)


def weights_in_id(parameters: Mapping[str, Any]) -> str:
    """How an id names the file or folder of weights or embeddings that parameters name; "" where they name none."""
    typed = parameters.get("embeddings") or parameters.get("weights") or folder_of(str(parameters.get("backbone")))
    place = Path(str(typed))
    return _of_letters(place.parent.name if place.stem in PLAIN_STEMS and place.suffix else place.stem)


def _of_letters(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.]+", "_", name)[:MOST_LETTERS]


def versions() -> dict[str, str]:
    """Versions of Python, of `PACKAGES` and of those of `TOWERS` that are there, read without importing them."""
    found = {"python": platform.python_version(), "handclip": __version__}
    for package in (*PACKAGES[1:], *TOWERS):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            if package not in TOWERS:
                found[package] = "not installed"
    return found


def _library_stamp(code: str | None, tiny: bool) -> str:
    """A digest of the library's modules that some code imports, that those import, and of the data files they name.

    None, and what cannot be parsed, stands for code that imports everything. `tiny`: the shipped weights are read.
    """
    files = {file.relative_to(LIBRARY.parent).with_suffix("").parts: file for file in LIBRARY.rglob("*.py")}
    counted = {words: file for words, file in files.items() if words[1] not in SHOWS_AND_KEEPS}
    modules = {".".join(words).removesuffix(".__init__"): file for words, file in counted.items()}
    file = cache_folder() / "content" / "code.json"
    known = _known(file)
    before = len(known)
    try:
        cells = () if code is None else code.encode("utf-8", "surrogatepass").split(b"\0")
        waiting = {name for cell in cells for name in _as_parsed(cell, known)[1]} if cells else {*modules}
    except SyntaxError:  # a line that only IPython understands
        waiting = {*modules}
    parsed: dict[str, Parsed] = {}
    while waiting:
        name = waiting.pop()
        for module in itertools.accumulate(name.split("."), "{}.{}".format):  # importing a.b runs a too
            if module in modules and module not in parsed:
                parsed[module] = _as_parsed(modules[module].read_bytes(), known)
                waiting.update(parsed[module][1])
    if len(known) > before:
        with suppress(WriteError):
            write_text(file, json.dumps(dict([*known.items()][-MOST_KNOWN:])))
    digest = sha256()
    for module, (stamp, _, named) in sorted(parsed.items()):
        digest.update(f"{module}\0{stamp}\0".encode())
        for data in sorted(modules[module].parent.glob("*.*")):
            if data.suffix != ".py" and data.name in named and (tiny or data.name != WEIGHTS):
                digest.update(data.name.encode() + data.read_bytes())
    return digest.hexdigest()


@cache
def _known(file: Path) -> dict[str, Parsed]:
    """Code that was parsed before, by a digest of it: parsing and dumping a notebook's share takes 0.3 s."""
    try:
        known = json.loads(file.read_bytes())
        return {key: (str(digest), [*names], [*files]) for key, (digest, names, files) in known.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _as_parsed(source: bytes, known: dict[str, Parsed]) -> Parsed:
    """Code as it is parsed, without docstrings, so that words make no other run; kept in `known`.

    A name of the library in quotes is that of a package for another process: `python -m handclip_lib.training`.
    """
    key = sha256(WAY_OF_PARSING + source).hexdigest()
    if key in known:
        return known[key]
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
    files = sorted(set(re.findall(r"value='([^'/\s]+\.\w+)'", dump)))
    known[key] = sha256(dump.encode("utf-8", "surrogatepass")).hexdigest(), sorted(names), files
    return known[key]
