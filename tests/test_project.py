"""The pages and files around the library say what is true of it."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


def test_the_conda_environment_installs_the_same_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == ["-r requirements.txt", "-e ."]
    python = next(entry for entry in environment["dependencies"] if str(entry).startswith("python"))
    assert python.split()[1].startswith(">=3.11")


def test_every_requirement_is_pinned_and_names_no_host():
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    assert len(lines) > 50
    assert [line for line in lines if not re.match(r"^[A-Za-z0-9._-]+==[^\s]+( ; .+)?$", line)] == []


def test_the_pins_cover_every_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    pinned = set(re.findall(r"^([A-Za-z0-9._-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    assert {re.split(r"[<>=\[]", name)[0] for name in wanted} <= pinned


def test_a_wheel_holds_the_library_alone_which_needs_no_tool():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert project["hatch"]["build"]["targets"]["wheel"]["packages"] == ["handclip_lib"]
    assert project["mypy"]["files"] == ["handclip_lib", "tools"]
    library = "".join(path.read_text() for path in (ROOT / "handclip_lib").rglob("*.py"))
    assert not re.search(r"^\s*(from|import) tools\b", library, re.MULTILINE)


def test_ruff_and_nbstripout_of_pre_commit_are_the_pinned_ones():
    pins = dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert {repo["repo"].rsplit("/", 1)[1].removesuffix("-pre-commit"): repo["rev"].lstrip("v") for repo in hooks} == {
        name: pins[name] for name in ("ruff", "nbstripout")
    }


def test_the_readme_names_every_make_target_and_every_notebook():
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    targets = re.findall(r"^(\w+): \$\(STAMP\)", makefile, re.MULTILINE)
    assert {"demo", "test", "lab", "lint", "bench"} <= set(targets)
    assert [target for target in targets if f"make {target}" not in readme and target != "pins"] == []
    assert [path.name for path in (ROOT / "notebooks").glob("*.ipynb") if path.stem not in readme] == []


def test_no_photograph_of_a_data_set_is_tracked():
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    assert [line for line in done.stdout.splitlines() if re.search(r"Hand_\d{7}\.jpg|HandInfo\.csv", line)] == []
