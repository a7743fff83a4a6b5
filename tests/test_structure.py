"""The library's floors: a module imports only from floors below it, and start-up stays light."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "handclip_lib"
TREES = {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}
FLOORS = {
    "version": -1, "terminal": -1, "errors": 0, "files": 1, "machine": 0, "places": 1, "finite": 1, "parameters": 2,
    "drawn": 2, "data": 3, "losses": 3, "backbone": 4, "models": 5, "evaluation": 6, "training": 7, "runs": 8,
    "analysis": 9, "plots": 10, "widgets": 11, "report": 12, "launch": 13, "study": 13, "doctor": 14,
    "file_commands": 14, "cli": 15,
}  # fmt: skip


def _imports(path: Path) -> set[str]:
    """Packages of handclip_lib that a module imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(TREES[path]):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "the run id follows whole names"
            names = (
                [node.module or ""] if node.module != "handclip_lib" else [f"handclip_lib.{a.name}" for a in node.names]
            )
        found |= {name.split(".")[1] for name in names if name.startswith("handclip_lib.")}
    return found - {"__version__"}


def test_a_module_imports_only_from_its_own_package_and_the_floors_below():
    for path in TREES:
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if own == "__init__":
            assert _imports(path) == {"version"}
            continue
        assert own in FLOORS, f"{own} has no floor"
        too_high = {name for name in _imports(path) if name != own and FLOORS[name] >= FLOORS[own]}
        assert not too_high, f"{path.relative_to(PACKAGE)} reaches up or across to {too_high}"


def test_no_module_hides_in_a_drawer():
    drawers = {"utils", "helpers", "common", "misc", "registry"}
    assert not [path for path in PACKAGE.rglob("*.py") if path.stem in drawers]


def test_light_modules_import_neither_torch_nor_pandas():
    light = "handclip_lib.parameters.notebooks, handclip_lib.parameters.guard, handclip_lib.cli, handclip_lib.runs"
    heavy = "{'torch', 'torchvision', 'pandas', 'matplotlib', 'IPython', 'papermill'}"
    code = f"import sys, {light}; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert done.stdout.split() == []


def test_no_module_imports_at_its_top_what_takes_a_second_and_few_need():
    slow = {"scipy.stats", "sklearn", "seaborn", "torchvision", "transformers", "open_clip", "timm", "numba"}
    for path, tree in TREES.items():
        for node in tree.body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
            reached = {".".join(name.split(".")[:n]) for name in names for n in (1, 2)}
            assert not reached & slow, f"{path}: {reached & slow}"


ROOMS = {"ranking": 1, "verification": 2, "studies": 3, "exchange": 3}
"""Of `evaluation`, in the order of their imports; the modules beside them stand below, or do not use them."""


def _evaluation_unit(module: str) -> str:
    """The room of a module of `evaluation`, or the module itself where it stands beside the rooms."""
    return module.removeprefix("handclip_lib.evaluation.").split(".")[0]


def test_rooms_of_evaluation_import_one_way():
    graph: dict[str, set[str]] = {}
    for path in (path for path in TREES if path.is_relative_to(PACKAGE / "evaluation")):
        unit = path.relative_to(PACKAGE / "evaluation").parts[0].removesuffix(".py")
        imported = {
            _evaluation_unit(node.module)
            for node in ast.walk(TREES[path])
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("handclip_lib.evaluation.")
        }
        graph.setdefault(unit, set()).update(imported - {unit})
    assert list(TopologicalSorter(graph).static_order()), "no circle"
    upward = {(room, used) for room in ROOMS for used in graph[room] if ROOMS.get(used, 0) > ROOMS[room]}
    assert not upward


# What reads a file may not run what the file says: call, and why or where it may stand all the same.
RUNS_WHAT_IT_READS = {
    "eval", "exec", "pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load", "dill.load", "cloudpickle.loads",
    "torch.jit.load", "yaml.unsafe_load", "yaml.full_load", "np.lib.format.read_array", "broadcast_object_list",
    "all_gather_object", "gather_object", "shelve.open", "pd.read_pickle", "Image.open",
}  # fmt: skip


@cache
def _calls() -> list[tuple[str, str, dict[str, str]]]:
    """Of every call its module, its function and its arguments, by name or place."""
    calls = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                options = {given.arg or "**": ast.unparse(given.value) for given in node.keywords}
                options |= {str(place): ast.unparse(given) for place, given in enumerate(node.args)}
                calls.append((str(path.relative_to(PACKAGE)), ast.unparse(node.func), options))
    return calls


def test_nothing_that_is_read_is_run():
    calls = _calls()
    assert [(path, name) for path, name, _ in calls if name in RUNS_WHAT_IT_READS] == [
        ("data/decoder.py", "Image.open")
    ]
    assert all(given.get("weights_only") == "True" for _, name, given in calls if name == "torch.load")
    assert all(given.get("allow_pickle", "False") == "False" for _, name, given in calls if name == "np.load")
    assert all(given["1"] == "_Loader" for _, name, given in calls if name == "yaml.load")
    assert any(name == "torch.load" for _, name, _ in calls), "the names are those that the library uses"


def test_folders_and_locks_are_made_by_the_one_rule_of_who_may_read_them():
    makes = {(path, name.rsplit(".", 1)[-1]) for path, name, _ in _calls()}
    assert {path for path, name in makes if name in ("mkdir", "makedirs", "FileLock", "umask", "chmod", "touch")} == {
        "files.py",
        "drawn/dataset.py",  # a folder inside the one that it has made
        "launch/launcher.py",  # umask(), which it hands to the notebook's process
        "launch/worker.py",
    }


def test_modules_functions_and_rooms_stay_small_enough_to_be_read():
    lines = {path: path.read_text().splitlines() for path in TREES}
    assert {str(path): len(of) for path, of in lines.items() if len(of) > 350} == {}
    long = {}
    for path, of in lines.items():
        for node in ast.walk(TREES[path]):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                written = of[body[0].lineno - 1 : node.end_lineno] if body else []
                code = [line for line in written if line.strip() and not line.strip().startswith("#")]
                if len(code) > 60:
                    long[f"{path}: {node.name}"] = len(code)
    assert long == {}
    rooms = [path.parent for path in lines if path.name != "__init__.py"]
    assert {str(room): rooms.count(room) for room in rooms if rooms.count(room) > 14} == {}
