"""A study: made anywhere, found from anywhere, and brought up to date without touching what was edited."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from handclip_lib import places, study
from handclip_lib.cli import main
from handclip_lib.errors import ConfigError
from handclip_lib.launch.launcher import find_notebook, gather
from handclip_lib.launch.plan import plan
from handclip_lib.parameters.study import read_study, study_parameters
from handclip_lib.places import project, project_root, reports_folder

ROOT = Path(__file__).parents[1]
NOTEBOOK = "notebooks/05_evaluation.ipynb"


@pytest.fixture(autouse=True)
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder in no project."""
    monkeypatch.delenv("HANDCLIP_REPORTS", raising=False)
    monkeypatch.delenv("HANDCLIP_PROJECT", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def mine(outside: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["init", "mine"]) == 0
    capsys.readouterr()
    return outside / "mine"


@pytest.fixture
def delivered(outside: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a version delivers: a copy of notebooks and params to change."""
    for part in places.SHIPPED:
        shutil.copytree(ROOT / part, outside / "delivered" / part)
    monkeypatch.setattr(study, "shipped", lambda: outside / "delivered")
    return outside / "delivered"


def edit(file: Path, text: str) -> None:
    notebook = nbformat.read(file, as_version=4)
    [cell for cell in notebook.cells if cell.cell_type == "code"][-1].source += text
    nbformat.write(notebook, file)


def test_a_study_holds_what_the_checkout_has(mine: Path):
    for file in [*(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / "params").rglob("*.yml")]:
        assert (mine / file.relative_to(ROOT)).read_bytes() == file.read_bytes()
    assert {"README.md", "study.toml", ".gitignore", ".gitattributes", ".handclip.json"} <= set(os.listdir(mine))


def test_the_same_notebook_is_the_same_run_in_a_study_in_the_checkout_and_as_packaged(mine: Path, monkeypatch):
    ids = set()
    for folder in (mine, ROOT, mine.parent):
        monkeypatch.chdir(folder)
        ids.add(plan(find_notebook("05"), {"draws": 3}).folder.name)
    assert len(ids) == 1
    edit(mine / NOTEBOOK, "\n1")
    monkeypatch.chdir(mine)
    assert plan(find_notebook("05"), {"draws": 3}).folder.name not in ids


def test_a_study_is_the_named_one_or_else_the_nearest(mine: Path, monkeypatch):
    assert (project(), project_root()) == (None, ROOT)
    assert reports_folder() == mine.parent / "user" / "handclip" / "reports", "never where the package lies"
    monkeypatch.chdir(mine / "notebooks")
    assert (project(), reports_folder()) == (mine, mine / "reports")
    monkeypatch.setenv("HANDCLIP_PROJECT", str(ROOT))
    assert project() == ROOT
    monkeypatch.setenv("HANDCLIP_PROJECT", str(mine.parent))
    with pytest.raises(ConfigError, match=r"is no project of HandCLIP; name a folder with study.toml"):
        project()


@pytest.mark.parametrize("words", [["--project", "mine", "runs"], ["runs", "--project", "mine"]])
def test_project_names_it_on_either_side_of_the_command(words: list[str], mine: Path, monkeypatch, capsys):
    monkeypatch.setenv("HANDCLIP_PROJECT", "elsewhere")
    assert main(words) == 0
    assert f"no runs in {mine / 'reports' / 'runs'}" in capsys.readouterr().out
    assert os.environ["HANDCLIP_PROJECT"] == str(mine), "for the kernel, which works in another folder"
    assert main(["--project", "nowhere", "runs"]) == 2


def test_a_file_of_parameters_is_sought_in_the_project_too(mine: Path, monkeypatch):
    monkeypatch.setenv("HANDCLIP_PROJECT", str(mine))
    assert gather(["params/prompt_learning/drawn_tiny.yml"], [], [])["n_ctx"]


def test_another_project_with_notebooks_is_none_of_ours(outside: Path):
    (outside / "notebooks").mkdir()
    (outside / "pyproject.toml").touch()
    assert project() is None
    assert find_notebook("05") == ROOT / NOTEBOOK


def test_a_user_without_home_is_told_which_folders_to_name(monkeypatch):
    def nobody(_: str) -> Path:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr(places, "user_data_path", nobody)
    with pytest.raises(ConfigError, match="no home folder; name a folder in HANDCLIP_REPORTS"):
        reports_folder()


def test_a_user_without_a_home_that_can_be_written_has_one_in_the_cache(outside: Path, monkeypatch):
    own = ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "MPLCONFIGDIR", "HOME")
    for variable in own:
        monkeypatch.setenv(variable, "as it was")
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HANDCLIP_CACHE", str(outside / "cache"))
    monkeypatch.setattr(Path, "home", lambda: outside)
    places.settle_home()
    assert not set(own) & set(os.environ)
    monkeypatch.setattr(Path, "home", lambda: outside / "nowhere")
    places.settle_home()
    assert os.environ["JUPYTER_RUNTIME_DIR"] == str(outside / "cache" / "home" / "jupyter_runtime_dir")
    assert "HOME" not in os.environ, "~/data is still what it was"

    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    places.settle_home()
    assert os.environ["HOME"] == str(outside / "cache" / "home")


def test_a_run_begins_with_what_the_study_says_below_files_and_what_is_typed(mine: Path, monkeypatch, capsys):
    (mine / "study.toml").write_text('name = "palms"\n[parameters]\ndraws = 4\nn_ctx = 8\n')
    monkeypatch.chdir(mine)
    assert study_parameters("05_evaluation") == {"draws": 4}
    for words, draws in (([], 4), (["-p", "draws", "5"], 5)):
        assert main(["run", "05", "--dry-run", *words]) == 0
        assert re.search(rf"\* draws +{draws}  \[10\]", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed = 3", "seed: write it below the line"),
        ("nam = 'x'", "nam: no such key; did you mean name"), ("name = 3", "name=3: text is wanted"),
        ("[parameter]", "did you mean parameters"), ("parameters = 1", "a table of names and values"),
        ("[parameters]\ndata_rot = 'x'", "data_rot: no notebook has such a parameter; did you mean data_root"),
        ("name = ", "cannot be read"), ("\0", "cannot be read"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_study_file_is_named_with_its_place(text: str, words: str, mine: Path, monkeypatch):
    (mine / "study.toml").write_text(text)
    monkeypatch.chdir(mine)
    with pytest.raises(ConfigError, match=f"study.toml (is wrong|cannot)(.|\n)*{words}|study.toml {words}"):
        read_study()


def test_an_update_brings_newer_files_and_touches_none_that_was_edited(
    mine: Path, delivered: Path, monkeypatch, capsys
):
    monkeypatch.chdir(mine)
    seeds, n_ctx, rates = (Path("params/sweeps") / f"{name}.yml" for name in ("seeds", "n_ctx", "learning_rate"))
    shown = mine / "notebooks/01_data_exploration.ipynb"
    opened = nbformat.read(shown, as_version=4)
    cell = next(cell for cell in opened.cells if cell.cell_type == "code")
    cell.outputs, cell.metadata["collapsed"] = [nbformat.v4.new_output("stream", text="looked at")], True
    nbformat.write(opened, shown)
    edit(mine / NOTEBOOK, "\n# mine")
    edited = (mine / NOTEBOOK).read_bytes()
    seeds.write_text("mine: 1\n")
    rates.unlink()
    (mine / "study.toml").write_text('name = "mine"\n')
    for name in ("01_data_exploration", "05_evaluation"):
        edit(delivered / f"notebooks/{name}.ipynb", "\n# newer")
    (delivered / n_ctx).write_text("newer: 1\n")
    (delivered / "params/sweeps/new.yml").write_text("new: 1\n")
    assert main(["init", "--update"]) == 0
    said = capsys.readouterr().out
    assert "1 files written, 2 replaced" in said
    assert f"{NOTEBOOK} is yours and stays; ours lies beside it as 05_evaluation.ipynb.new" in said
    assert f"{rates} was removed here and stays away" in said
    assert "seeds.yml" not in said, "nothing newer of it"
    assert (mine / NOTEBOOK).read_bytes() == edited
    assert "# newer" in (mine / f"{NOTEBOOK}.new").read_text()
    assert "# newer" in shown.read_text(), "what a notebook showed, and how it is folded, is no edit"
    assert (n_ctx.read_text(), seeds.read_text(), rates.exists()) == ("newer: 1\n", "mine: 1\n", False)
    assert (mine / "params/sweeps/new.yml").exists()
    assert read_study().name == "mine"
    (mine / f"{NOTEBOOK}.new").unlink()
    assert main(["init", "--update"]) == 0
    assert "is yours" not in capsys.readouterr().out, "offered once"
    (mine / ".handclip.json").write_text("{")
    assert main(["init", "--update"]) == 0
    assert (mine / NOTEBOOK).read_bytes() == edited, "what nobody knows is not overwritten"


def test_a_folder_that_holds_something_keeps_it(outside: Path, capsys):
    (outside / "README.md").write_text("mine")
    assert main(["init", "."]) == 0
    assert (outside / "README.md").read_text() == "mine"
    assert "README.md is yours" in capsys.readouterr().out
    assert f'name = "{outside.name}"' in (outside / "study.toml").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mine"], "is a study already; newer notebooks come by: handclip init --update"),
        ([str(ROOT)], "is a checkout of HandCLIP"), (["mine/README.md"], "is a file; name a folder"),
        ([], "name the folder"), (["--update"], "name the folder"), (["--update", "."], "is no study"),
    ],
)  # fmt: skip
def test_a_study_is_not_made_where_it_cannot_be(words: list[str], said: str, mine: Path, capsys):
    before = (mine / ".handclip.json").read_bytes()
    assert main(["init", *words]) == 2
    assert said in capsys.readouterr().err
    assert (mine / ".handclip.json").read_bytes() == before


def test_outside_a_study_no_file_of_parameters_is_saved_into_the_package(outside: Path):
    from handclip_lib.parameters.files import save_parameters
    from handclip_lib.parameters.notebooks import Evaluation

    with pytest.raises(ConfigError, match=r"is in no project.*handclip init FOLDER"):
        save_parameters(Evaluation(), "mine")


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_git_adds_notebooks_of_a_study_without_what_they_showed(mine: Path):
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=mine, capture_output=True, text=True, check=True).stdout

    assert study.is_stripped(mine), "there is no repository"
    git("init", "-q")
    assert not study.is_stripped(mine)
    assert main(["init", "--update", str(mine)]) == 0
    assert study.is_stripped(mine)
    notebook = nbformat.read(mine / NOTEBOOK, as_version=4)
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    cell.outputs = [nbformat.v4.new_output("display_data", data={"image/png": "cGhvdG9ncmFwaA=="})]
    nbformat.write(notebook, mine / NOTEBOOK)
    git("add", NOTEBOOK)
    assert "cGhvdG9ncmFwaA" in (mine / NOTEBOOK).read_text()
    assert "cGhvdG9ncmFwaA" not in git("show", f":{NOTEBOOK}")


def test_a_run_names_its_study_and_the_commit_it_is_kept_at(mine: Path, monkeypatch):
    from handclip_lib.parameters.notebooks import Evaluation
    from handclip_lib.runs.run import new_record

    monkeypatch.chdir(mine)
    assert new_record(mine, Evaluation(), {})["study"] == {"name": "mine"}
    monkeypatch.chdir(ROOT)
    assert new_record(mine, Evaluation(), {})["study"] is None


@pytest.mark.slow
def test_a_wheel_alone_makes_a_study_and_runs_in_it(outside: Path):
    """Built, laid into a folder and used with this environment's packages, without the checkout."""
    pytest.importorskip("hatchling", reason="hatchling, which builds, is not installed")
    built = [sys.executable, "-m", "hatchling", "build", "-d", str(outside / "dist")]
    subprocess.run(built, cwd=ROOT, capture_output=True, text=True, check=True)
    (wheel,) = (outside / "dist").glob("*.whl")
    shutil.unpack_archive(wheel, outside / "installed", "zip")
    own = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(outside / "installed"),
        "HANDCLIP_CACHE": str(outside / "cache"),
    }

    def handclip(*words: str) -> str:
        command = [sys.executable, "-m", "handclip_lib.cli", *words]
        return subprocess.run(command, cwd="/", env=own, capture_output=True, text=True, check=True).stdout

    package = outside / "installed" / "handclip_lib"
    if (ROOT / ".git").exists():
        assert json.loads((package / "made_of.json").read_text())["commit"][:12] in handclip("--version")
    for file in ("analysis/published.csv", "backbone/tiny.md", "backbone/tiny.safetensors", "report/page/page.html.j2"):
        assert (package / file).is_file()
    handclip("init", str(outside / "mine"))
    files = subprocess.run(["git", "ls-files", "notebooks", "params"], cwd=ROOT, capture_output=True, text=True).stdout
    assert all((outside / "mine" / name).read_bytes() == (ROOT / name).read_bytes() for name in files.splitlines())
    said = handclip("--project", str(outside / "mine"), "run", "05", "--dry-run")
    assert str(outside / "mine" / "reports" / "runs") in said
    assert str(package / "shipped" / "notebooks") in handclip("doctor")
