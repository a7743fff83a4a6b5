import json
import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import nbformat
import pytest
import yaml
from IPython.core.interactiveshell import InteractiveShell
from pydantic import BaseModel, ConfigDict, Field

from handclip_lib.errors import ConfigError
from handclip_lib.launch.launcher import gather
from handclip_lib.launch.plan import read_points
from handclip_lib.parameters.files import read_mapping
from handclip_lib.parameters.guard import as_papermill, resolve
from handclip_lib.parameters.notebooks import NOTEBOOKS, Evaluation, ImageFinetune

ROOT = Path(__file__).parents[2]


class Training(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    notebook: ClassVar[str] = "99_test"
    n_ctx: int = Field(4, ge=1, le=16, description="context tokens")
    lr: float = Field(1e-3, gt=0, le=10, description="learning rate")
    name: str = Field("x", description="a name")
    flip: bool = Field(False, description="flip")


CELL = "n_ctx: int = 4  # tokens\nlr: float = 1e-3\nname: str = 'x'\nflip: bool = False"


class Notebook:
    """Cells run in a shell of their own, and what the guard makes of them."""

    def __init__(self) -> None:
        self.shell = InteractiveShell()

    def run(self, *cells: str) -> Training:
        for cell in cells:
            self.shell.run_cell(cell, store_history=True).raise_error()
        return resolve(Training, self.shell.user_ns)


@pytest.fixture
def notebook() -> Notebook:
    return Notebook()


def test_a_corrected_misspelling_is_right_without_a_new_kernel(notebook: Notebook):
    with pytest.raises(ConfigError, match=r"n_cxt: no such parameter; did you mean n_ctx\?"):
        notebook.run("import math", CELL + "\nn_cxt: int = 8")
    assert notebook.run(CELL + "\nn_ctx: int = 8") == Training(n_ctx=8)


def test_a_cell_that_is_timed_is_the_same_cell(notebook: Notebook):
    with pytest.raises(ConfigError, match="n_cxt: no such parameter"):
        notebook.run(CELL, "%%time\n" + CELL + "\nn_cxt = 8")
    assert notebook.run("%%time\n" + CELL.replace("1e-3", "1e-2")) == Training(lr=0.01)


def test_a_line_that_was_taken_away_is_the_default_again(notebook: Notebook):
    assert notebook.run(CELL, CELL.replace("1e-3", "1e-2")) == Training(lr=0.01)
    assert notebook.run("\n".join(CELL.splitlines()[2:]).replace("'x'", "'y'")) == Training(name="y")


@pytest.mark.parametrize(
    "line",
    [
        "n_cxt: int = 8", "n_cxt = 8", "n_cxt, lr = 8, 1e-3", "[n_cxt, *rest] = 8, 9", "lr = n_cxt = 1", "n_cxt: int",
        "if True:\n    n_cxt = 8", "for n_cxt in (8,):\n    pass", "print(n_cxt := 8)",
        "with open('/dev/null') as n_cxt: pass",
        "import math\nn_cxt = 8", "%pwd\nn_cxt = 8", "n_cxt = 1\nn_cxt += 8", "_n_ctx = 8",
    ],
)  # fmt: skip
def test_every_assignment_of_the_parameters_cell_is_held_to_the_model(notebook: Notebook, line: str):
    with pytest.raises(ConfigError, match=r"n_c\w+: no such parameter; did you mean n_ctx\?"):
        notebook.run(f"{CELL}\n{line}")


@pytest.mark.parametrize(
    "line", ["import math", "from math import pi as tau", "# n_cxt = 8", "n_ctx = max([n for n in (1, 8)])",
             "n_ctx, lr = 8, 1e-3", "n_ctx += 4", "def f(n_cxt=3):\n    k = 2\n    return k", "print('n_cxt')"],
)  # fmt: skip
def test_what_else_stands_in_the_parameters_cell_assigns_no_parameter(notebook: Notebook, line: str):
    found = notebook.run(f"{CELL}\n{line}")
    assert found == Training(n_ctx=8 if line.startswith("n_ctx") else 4)


@pytest.mark.parametrize("cell", ["x: int = 3", "k = 3", "x: int = 3\ny: str = 'n'", "seeds = [1]\nname2 = 'b'"])
def test_a_scratch_cell_is_nobodys_business(notebook: Notebook, cell: str):
    assert notebook.run(CELL, cell) == Training()
    assert notebook.run("n_ctx = 8", cell) == Training(n_ctx=8), "set in a cell of its own below"


def test_papermills_cell_is_held_to_the_model_until_the_parameters_cell_is_run_again(notebook: Notebook):
    assert notebook.run(CELL, "# Parameters\nn_ctx = 8\nPAPERMILL_INPUT_PATH = 'a'\nPAPERMILL_OUTPUT_PATH = 'b'\n") == (
        Training(n_ctx=8)
    )
    with pytest.raises(ConfigError, match="n_cxt"):
        notebook.run("# Parameters\nn_cxt = 8\n")
    assert notebook.run("# Parameters\nn_ctx = 9\n") == Training(n_ctx=9), "corrected where it stands"
    with pytest.raises(ConfigError, match="n_cxt"):
        notebook.run("# Parameters\nn_cxt = 8\n")
    assert notebook.run(CELL) == Training(), "as if papermill's cell were taken out"


def test_an_edited_notebook_is_held_to_the_model_below_papermills_cell_of_all_parameters(notebook: Notebook):
    with pytest.raises(ConfigError, match="n_cxt"):
        notebook.run(f"{CELL}\nn_cxt = 8", f"# Parameters\n{CELL}")


def test_parameters_in_several_cells_all_count(notebook: Notebook):
    assert notebook.run("n_ctx = 8\nlr = 1", "name = 'y'\nflip = True") == Training(n_ctx=8, lr=1, name="y", flip=True)


def test_parameters_that_no_cell_spells_out_count_and_a_misspelling_among_them_is_refused(notebook: Notebook):
    assert notebook.run("globals().update(n_ctx=8)", "x = 3") == Training(n_ctx=8)
    with pytest.raises(ConfigError, match="did you mean n_ctx"):
        notebook.run("globals().update(n_cxt=8)")


def test_a_cell_that_is_no_python_changes_nothing(notebook: Notebook):
    notebook.shell.run_cell("n_cxt = = 8", store_history=True)
    assert notebook.run("%%time\nx = 3", CELL.replace("4", "5")) == Training(n_ctx=5)


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_a_plain_script_made_of_a_notebook_is_guarded(number: str, tmp_path: Path):
    """As `jupyter nbconvert --to script` makes it: what the notebook imports is no parameter, what is misspelt is."""
    cells = [
        cell for cell in nbformat.read(ROOT / "notebooks" / f"{number}.ipynb", 4).cells if cell.cell_type == "code"
    ]
    imports, parameters = (compile(cell.source, number, "exec") for cell in cells[:2])
    names = {"__name__": "__main__"}
    exec(imports, names)
    exec(parameters, names)
    names["x"] = 3
    model = NOTEBOOKS[number]
    assert resolve(model, names) == model()
    with pytest.raises(ConfigError, match="did you mean seed"):
        resolve(model, names | {"sede": 1})


GUARD = (
    "from handclip_lib.parameters.notebooks import DataExploration\nfrom handclip_lib.parameters.guard import resolve"
)
RUNNERS = {
    "jupyter execute": "-m jupyter execute in.ipynb --output=out.ipynb",
    "nbconvert": "-m jupyter nbconvert --to notebook --execute in.ipynb --output out.ipynb",
}


@pytest.mark.slow
@pytest.mark.parametrize(("runner", "name"), [("nbconvert", "sample"), ("jupyter execute", "samples")])
def test_every_runner_of_notebooks_is_guarded(runner: str, name: str, tmp_path: Path):
    """Those beside papermill, for which see tests/notebooks/test_execution.py."""
    made, cells = nbformat.v4.new_notebook(), nbformat.read(ROOT / "notebooks" / "01_data_exploration.ipynb", 4).cells
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    (parameters,) = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    parameters.source += f"\nimport math\n{name} = 8"
    made.cells = [nbformat.v4.new_code_cell(GUARD), parameters]
    made.cells += [nbformat.v4.new_code_cell("print('samples', resolve(DataExploration, globals()).samples)")]
    nbformat.write(made, tmp_path / "in.ipynb")
    command = [sys.executable, *RUNNERS[runner].split()]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    if name == "samples":
        assert done.returncode == 0, done.stderr[-2000:]
        last = json.loads((tmp_path / "out.ipynb").read_text())["cells"][-1]
        assert "samples 8" in json.dumps(last["outputs"])
    else:
        assert done.returncode != 0
        assert "sample: no such parameter; did you mean samples?" in done.stderr


# --- what is typed, by every way it can come


VALUES = {
    "flip": [("true", True), ("True", True), ("TRUE", True), ("yes", True), ("on", True), ("No", False),
             ("OFF", False)],
    "n_ctx": [("8", 8), ("1_0", 10), ("1e1", 10), ("8.0", 8), ("010", 10), ("+8", 8)],
    "lr": [("1e-3", 0.001), ("1E-3", 0.001), (".5", 0.5), ("1_0", 10.0), ("1", 1.0), ("2.5e-1", 0.25)],
    "name": [("x y", "x y"), ("true", "true"), ("256x128", "256x128"), ("a: b", "a: b"), ("it's", "it's"), ("", "")],
}  # fmt: skip
REFUSED = {
    "flip": ["1", "0", "None", "tRue", "y", "[true]"],
    "n_ctx": ["2.5", "0x10", "1:30", "inf", "nan", "1,000", "None", "true", "[4, 8]", "eight", ""],
    "lr": ["inf", "-inf", "nan", "None", "true", "1e-3s", "", "1,5", "[1e-3]"],
    "name": ["None", "True", "7", "1e-3"],
}


def ways(name: str, text: str, tmp_path: Path) -> dict[str, object]:
    """The parameters that come of a value, by the way it is given."""
    from papermill.cli import _resolve_type

    file = tmp_path / "given.yml"
    quoted = text if text and ": " not in text and name != "name" else yaml.safe_dump(text, default_style='"')
    file.write_text(f"{name}: {quoted}\n")
    return {
        "papermill -p": {name: _resolve_type(text)},
        "handclip -p": gather([], [(name, text)], []),
        "-r": gather([], [], [(name, text)]),
        "-f": read_mapping(file),
    }


@pytest.mark.parametrize(("name", "text", "wanted"), [(n, *pair) for n, pairs in VALUES.items() for pair in pairs])
def test_a_value_is_the_same_by_every_way(name: str, text: str, wanted: object, tmp_path: Path):
    for way, given in ways(name, text, tmp_path).items():
        found = getattr(resolve(Training, given), name)
        assert (found, type(found)) == (wanted, type(wanted)), way


@pytest.mark.parametrize(("name", "text"), [(n, text) for n, texts in REFUSED.items() for text in texts])
def test_what_is_no_value_is_refused_by_every_way(name: str, text: str, tmp_path: Path):
    found = ways(name, text, tmp_path)
    if name == "name":  # text it is where it is said to be
        del found["-r"], found["-f"]
    for way, given in found.items():
        with pytest.raises(ConfigError, match=f"{name}="):
            raise AssertionError(f"{way}: {resolve(Training, given)}")


def test_papermill_types_what_is_typed_as_we_say_it_does():
    from papermill.cli import _resolve_type

    for text in [t for rows in VALUES.values() for t, _ in rows] + [t for texts in REFUSED.values() for t in texts]:
        assert repr(as_papermill(text)) == repr(_resolve_type(text))


def test_the_points_of_a_sweep_are_typed_so_too():
    points = read_points(ROOT / "notebooks" / "03_image_finetune.ipynb",
                         {"grid": {"recompute": ["true", False], "learning_rate": ["1e-3"]}})  # fmt: skip
    assert [point.parameters for point in points] == [
        {"recompute": True, "learning_rate": 0.001}, {"recompute": False, "learning_rate": 0.001},
    ]  # fmt: skip


def test_a_path_in_a_cell_is_text():
    assert resolve(Evaluation, {"dataset": "folder", "data_root": Path("/hands")}).data_root == "/hands"


def test_an_empty_line_and_a_list_name_their_remedy():
    with pytest.raises(ConfigError, match="leave it out for its default"):
        resolve(ImageFinetune, {"epochs": None})
    with pytest.raises(ConfigError, match="several are a sweep"):
        resolve(ImageFinetune, {"epochs": [1, 2]})
