"""The library's floors: a module imports only from floors below it, and start-up stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "handclip_lib"
FLOORS = {
    "errors": 0, "files": 0, "machine": 0, "config": 1, "guard": 1,
    "data": 2, "losses": 2, "backbone": 3, "models": 4, "evaluation": 5,
    "training": 6, "plots": 7, "widgets": 8, "workbench": 9,
}  # fmt: skip


def _imports(path: Path) -> set[str]:
    """Packages of handclip_lib that a module imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = (
                [node.module or ""] if node.module != "handclip_lib" else [f"handclip_lib.{a.name}" for a in node.names]
            )
        found |= {name.split(".")[1] for name in names if name.startswith("handclip_lib.")}
    return found - {"__version__"}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_from_its_own_package_and_the_floors_below(path: Path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        assert not _imports(path)
        return
    assert own in FLOORS, f"{own} has no floor"
    too_high = {name for name in _imports(path) if name != own and FLOORS[name] >= FLOORS[own]}
    assert not too_high, f"{path.name} reaches up or across to {too_high}"


def test_no_module_hides_in_a_drawer():
    drawers = {"utils", "helpers", "common", "misc", "registry"}
    assert not [path for path in PACKAGE.rglob("*.py") if path.stem in drawers]


@pytest.mark.parametrize(
    "module", ["handclip_lib.config", "handclip_lib.guard", "handclip_lib.workbench.cli", "handclip_lib.workbench"]
)
def test_light_modules_import_neither_torch_nor_pandas(module: str):
    heavy = "{'torch', 'torchvision', 'pandas', 'matplotlib', 'IPython', 'papermill'}"
    code = f"import sys, {module}; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert done.stdout.split() == []
