"""The pages and files around the library say what is true of it."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.version import Version

from handclip_lib.places import SHIPPED
from handclip_lib.version import __version__

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


def test_a_wheel_holds_library_notebooks_and_params_and_needs_no_tool():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    wheel = project["hatch"]["build"]["targets"]["wheel"]
    assert wheel["only-include"] == ["handclip_lib", *SHIPPED]
    assert wheel["sources"] == {part: f"handclip_lib/shipped/{part}" for part in SHIPPED}
    assert set(wheel["only-include"]) < set(project["hatch"]["build"]["targets"]["sdist"]["only-include"])
    assert project["mypy"]["files"] == ["handclip_lib", "tools"]
    library = "".join(path.read_text() for path in (ROOT / "handclip_lib").rglob("*.py"))
    assert not re.search(r"^\s*(from|import) tools\b", library, re.MULTILINE)


def test_a_version_is_released_with_a_date_or_is_one_to_come():
    released = re.findall(r"^## \[([\d.]+)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    versions = [Version(each) for each in released]
    assert versions == sorted(versions, reverse=True)
    ours = Version(__version__)
    assert ours == versions[0] if not ours.is_devrelease else ours > versions[0]
    assert f"\nversion: {released[0]}\n" in (ROOT / "CITATION.cff").read_text()


def test_every_supported_python_is_named_alike():
    readme, environment = (ROOT / "README.md").read_text(), (ROOT / "environment.yml").read_text()
    oldest = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"].removeprefix(">=")
    (newest,) = re.findall(rf"Python {re.escape(oldest)} to (3\.\d+)", readme)
    assert f"python >={oldest},<3.{int(newest.split('.')[1]) + 1}" in environment


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
