"""`make strip`, which `make lab` begins with: git never adds what a notebook showed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

ROOT = Path(__file__).parents[1]


def git(folder: Path, *words: str) -> str:
    own = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    command = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", *words]
    done = subprocess.run(command, cwd=folder, env=os.environ | own, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.skipif(not shutil.which("make") or not shutil.which("git"), reason="make or git is not installed")
def test_git_adds_no_outputs_of_a_checkout_and_its_worktree_however_often_the_filter_is_installed(tmp_path: Path):
    checkout, beside = tmp_path / "project", tmp_path / "beside"
    checkout.mkdir()
    git(checkout, "init", "-q")
    git(checkout, "commit", "-q", "--allow-empty", "-m", "first")
    git(checkout, "worktree", "add", "-q", str(beside))
    output = v4.new_output("display_data", data={"image/png": "cGhvdG9ncmFwaA=="})
    cell = v4.new_code_cell("1", outputs=[output], metadata={"tags": ["setup"]})
    for folder in (beside, checkout):
        shutil.copy(ROOT / "Makefile", folder)
        (folder / ".venv").symlink_to(Path(sys.prefix))
        made = ["make", "-o", ".venv/.installed", "-s", "strip"]
        subprocess.run(made, cwd=folder, check=True, capture_output=True, text=True)
        attributes = folder / git(folder, "rev-parse", "--git-path", "info/attributes").strip()
        assert attributes.read_text().splitlines() == ["*.ipynb filter=nbstripout"]
        nbformat.write(v4.new_notebook(cells=[cell]), folder / "a.ipynb")
        git(folder, "add", "a.ipynb")
        added = nbformat.reads(git(folder, "show", ":a.ipynb"), as_version=4).cells[0]
        assert (added.outputs, added.id, added.metadata.tags) == ([], cell.id, ["setup"])
        assert "cGhvdG9ncmFwaA" in (folder / "a.ipynb").read_text(), "who works with it keeps it"


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_outside_a_checkout_there_is_nothing_to_install(tmp_path: Path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    made = ["make", "-o", ".venv/.installed", "-s", "strip"]
    apart = os.environ | {"GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}
    assert subprocess.run(made, cwd=tmp_path, env=apart, capture_output=True, text=True, check=True).stdout == ""
