"""The contract every notebook keeps, read from its source without running it."""

import ast
import inspect
import re
import textwrap
from contextlib import nullcontext, suppress
from pathlib import Path
from statistics import median

import nbformat
import pytest

from handclip_lib.parameters import notebooks as config
from handclip_lib.parameters.guard import parameters_cell
from tools import parameter_cells

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("[0-9][0-9]_*.ipynb"))
MODELS = config.NOTEBOOKS
HANDED_ON = {"config", "options", "self", "decides"}
"""What the library calls a notebook's parameters, and what it makes of them."""
OF_THE_REPORT = {"private"}
"""Parameters that no cell reads: tests/report/test_private.py holds the report to them."""
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def _code(path: Path) -> list:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def _parameters(path: Path):
    (cell,) = [cell for cell in _code(path) if "parameters" in cell.metadata.get("tags", [])]
    return cell


@each_notebook
def test_is_valid_and_committed_without_outputs(path: Path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.outputs and cell.execution_count is None for cell in _code(path))
    assert notebook.metadata.kernelspec.name == "python3"


@each_notebook
def test_the_parameters_cell_is_what_the_model_says(path: Path):
    """Annotated literals, the defaults, each with its description for papermill's help: `make cells` writes them."""
    source = _parameters(path).source
    assert source == parameters_cell(MODELS[path.stem])
    written = {one.target.id: ast.literal_eval(one.value) for one in ast.parse(source).body}
    assert written == {name: field.default for name, field in MODELS[path.stem].model_fields.items()}


def test_a_cell_that_differs_is_written_and_no_other(tmp_path: Path, capsys):
    for notebook in NOTEBOOKS:
        (tmp_path / notebook.name).write_text(notebook.read_text())
    changed = tmp_path / NOTEBOOKS[0].name
    changed.write_text(changed.read_text().replace("seed: int = 0", "seed: int = 1"))
    parameter_cells.main(tmp_path)
    assert capsys.readouterr().out == f"{changed.name}: written\n"
    assert [(tmp_path / notebook.name).read_text() for notebook in NOTEBOOKS] == [n.read_text() for n in NOTEBOOKS]


def _words(model: type, source: str, names: dict) -> set[str]:
    """Attributes and strings in some code, in the model's methods that it uses, and in what it hands parameters to."""
    found: set[str] = set()
    waiting, seen = [(source, names)], set()
    while waiting:
        source, names = waiting.pop()
        words = set(re.findall(r"""[.'"](\w+)""", source))
        used = [vars(base)[word] for base in model.__mro__ for word in words - found if word in vars(base)]
        used = [getattr(method, "fget", method) for method in used]
        for node in ast.walk(ast.parse(textwrap.dedent(source))):
            given = [*node.args, *(k.value for k in node.keywords)] if isinstance(node, ast.Call) else []
            if any(isinstance(value, ast.Name) and value.id in HANDED_ON for value in given):
                with suppress(NameError, AttributeError, RuntimeError):  # of a name inside a function
                    used.append(eval(ast.unparse(node.func), names))
        for one in (part for each in used for part in getattr(each, "__mro__", [each])):
            if str(getattr(one, "__module__", "")).startswith("handclip_lib") and one not in seen:
                seen.add(one)
                waiting.append((inspect.getsource(one), vars(inspect.getmodule(one))))
        found |= words
    return found


@each_notebook
def test_every_parameter_is_read(path: Path):
    model, names = MODELS[path.stem], {}
    cells = [cell.source for cell in _code(path) if "parameters" not in cell.metadata.get("tags", [])]
    exec("\n".join(cell for cell in cells if cell.startswith("from ")), names)
    source = "\n".join(cell for cell in cells if "parameter_panel(config)" not in cell)
    # `loss_weights` has them all, which a test of the losses shows
    weights = {name for name in model.model_fields if hasattr(model, "loss_weights") and name.endswith("_weight")}
    read = _words(model, source, names) | weights
    assert set(model.model_fields) - read - OF_THE_REPORT == set()


@each_notebook
def test_the_guard_follows_the_parameters(path: Path):
    cells = _code(path)
    guard = cells[cells.index(_parameters(path)) + 1].source
    assert f"start({MODELS[path.stem].__name__}, globals())" in guard


@each_notebook
def test_cells_are_short_and_only_tell_the_story(path: Path):
    forbidden = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Try, ast.For, ast.While, ast.Lambda)
    for cell in _code(path):
        if "parameters" in cell.metadata.get("tags", []):
            continue
        body = ast.parse(cell.source).body
        only_imports = all(isinstance(statement, ast.Import | ast.ImportFrom) for statement in body)
        assert only_imports or len(cell.source.splitlines()) <= 12, cell.source
        assert not [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, forbidden)], cell.source


def test_the_longest_notebook_is_light():
    (longest,) = [path for path in NOTEBOOKS if path.stem == "05_evaluation"]
    cells = [cell.source for cell in _code(longest)]
    assert sum(len(_names(source)[0]) for source in cells) <= 25
    assert median(len(source.splitlines()) for source in cells) <= 3


@each_notebook
def test_headings_explain_each_step(path: Path):
    first = nbformat.read(path, as_version=4).cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith(f"# {path.stem[:2]}")
    assert all(word in first.source for word in ("**Question.**", "**Needs.**", "**Writes.**", "**Time.**"))


def _names(source: str) -> tuple[set[str], set[str], set[str]]:
    """What a cell imports, what it assigns, and what it reads that it has not assigned above."""
    imported: set[str] = set()
    assigned: set[str] = set()
    read: set[str] = set()
    for statement in ast.parse(source).body:
        nodes = list(ast.walk(statement))
        own = {node.id for node in nodes if isinstance(node, ast.comprehension) for node in ast.walk(node.target)
               if isinstance(node, ast.Name)}  # fmt: skip
        names = [node for node in nodes if isinstance(node, ast.Name) and node.id not in own]
        if isinstance(statement, ast.Import | ast.ImportFrom):
            imported |= {alias.asname or alias.name.split(".")[0] for alias in statement.names}
        # of a branch the order of its lines is not followed: what it assigns anywhere in it, it may read there
        inside = statement.body + statement.orelse if isinstance(statement, ast.If) else []
        known = assigned | {n.id for s in inside for n in ast.walk(s) if isinstance(n, ast.Name) and _stores(n)}
        read |= {node.id for node in names if not _stores(node) and node.id not in known}
        assigned |= {node.id for node in names if _stores(node)}
    return imported, assigned, read


def _stores(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Store)


@each_notebook
def test_any_cell_can_be_run_again(path: Path):
    """What a cell takes from others is assigned in one cell alone, and no cell hides an import or a parameter."""
    cells = [_names(cell.source) for cell in _code(path)]
    imports = set().union(*(imported for imported, _, _ in cells))
    parameters = set(MODELS[path.stem].model_fields)
    wrong = [f"a parameter hides {name}" for name in sorted(imports & parameters)]
    for number, (_, assigned, read) in enumerate(cells):
        if assigned != parameters:
            wrong += [f"cell {number} hides {name}" for name in sorted(assigned & (imports | parameters))]
        for name in sorted(read):
            by = [other for other, (_, names, _) in enumerate(cells) if name in names]
            if by and (len(by) > 1 or by[0] >= number):
                wrong.append(f"cell {number} reads {name} of cells {by}")
    assert wrong == []


@pytest.mark.parametrize(
    ("cells", "fault"),
    [
        (["from a import told", "told(1)", "told = 2"], "hides told"),
        (["from a import seed"], "a parameter hides seed"),
        (["images = 1", "images = images + 1"], "reads images"),
        (["table = 1", "print(table)", "table = 2"], "reads table"),
        (["caption = 1\nprint(caption)", "caption = 2\nprint(caption)", "[k for k in (1, 2)]", "k = 1"], None),
        (["if 1:\n    a = 1\n    print(a)"], None),
    ],
)
def test_what_cannot_be_run_again_is_found(cells, fault, tmp_path: Path):
    """The rule itself, on notebooks that break and keep it."""
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    nbformat.write(made, tmp_path / NOTEBOOKS[0].name)
    with nullcontext() if fault is None else pytest.raises(AssertionError, match=fault):
        test_any_cell_can_be_run_again(tmp_path / NOTEBOOKS[0].name)
