"""The run id: what a result depends on renames its runs, and nothing else does."""

import json
import shutil
from pathlib import Path

import pytest

from handclip_lib.errors import ConfigError
from handclip_lib.launch.launcher import find_notebook
from handclip_lib.parameters.notebooks import NOTEBOOKS
from handclip_lib.runs import identity
from handclip_lib.runs.identity import code_of, run_id


@pytest.fixture
def library(tmp_path: Path, monkeypatch) -> Path:
    """A copy of the package, with weights of a few bytes."""
    monkeypatch.setenv("HANDCLIP_REPORTS", str(tmp_path / "reports"))
    copy = tmp_path / identity.LIBRARY.name
    shutil.copytree(identity.LIBRARY, copy, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    (copy / "backbone" / identity.WEIGHTS).write_text("weights")
    monkeypatch.setattr(identity, "LIBRARY", copy)
    return copy


def ids(**given) -> dict[str, str]:
    """Id of a run of each notebook, by its number, and of one of 02 by hand."""
    made = {}
    for stem, model in NOTEBOOKS.items():
        config = model(**{name: value for name, value in given.items() if name in model.model_fields})
        made[stem[:2]] = run_id(config, code_of(find_notebook(stem)), {})
        if stem[:2] == "02":
            made["by hand"] = run_id(config, None, {})
    return made


def others(now: dict[str, str], before: dict[str, str]) -> str:
    return " ".join(name for name in now if now[name] != before[name])


CHANGES = [
    ("plots/retrieval.py", "x = 1\n", ""),
    ("widgets/panel.py", "x = 1\n", ""),
    ("report/pages.py", "x = 1\n", ""),
    ("launch/sweep.py", "x = 1\n", ""),
    ("runs/listing.py", "x = 1\n", ""),
    ("evaluation/ranking/reranking.py", "x = 1\n", "05"),  # of 05 alone
    ("evaluation/ranking/reranking.py", "# a comment\n", ""),
    ("evaluation/ranking/reranking.py", 'def f():\n    """Words."""\n', "05"),
    ("training/prompt.py", "x = 1\n", "02 04"),
    ("training/__main__.py", "x = 1\n", "03 04"),  # what several processes run
    ("training/image.py", "x = 1\n", "03 04"),
    ("data/labels.py", "x = 1\n", "01 02 03 04 05 06"),  # imported inside a function
    ("analysis/published.csv", "x", "04 06"),
]


def test_a_change_renames_the_runs_of_notebooks_that_import_it(library: Path):
    before = ids()
    for module, text, expected in CHANGES:
        with (library / module).open("a") as file:
            file.write(text)
        now = ids()
        assert others(now, before) == expected.replace("02", "02 by hand"), module
        before = now


def test_words_rename_nothing(library: Path):
    file, before = library / "losses.py", ids()
    file.write_text(file.read_text().replace('    """', '    """Other words. ', 1).replace("\n\n", "\n\n# why\n", 1))
    assert "Other words." in file.read_text()
    assert ids() == before


def test_the_shipped_weights_count_where_the_backbone_is_tiny(library: Path):
    before = [ids(backbone=name) for name in ("tiny", "vitb16")]
    (library / "backbone" / identity.WEIGHTS).write_text("others")
    now = [ids(backbone=name) for name in ("tiny", "vitb16")]
    assert others(now[0], before[0]) == "02 by hand 03 04 05"
    assert others(now[1], before[1]) == ""


def test_code_that_cannot_be_parsed_depends_on_everything_but_what_shows_and_keeps(library: Path):
    config = NOTEBOOKS["02_prompt_learning"]()
    before = run_id(config, "%matplotlib inline", {})
    for module, same in (("plots/retrieval.py", True), ("evaluation/studies/enrolment.py", False)):
        (library / module).write_text("x = 1\n")
        assert (run_id(config, "%matplotlib inline", {}) == before) == same


def test_code_is_parsed_once_and_known_code_makes_the_same_id(library: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HANDCLIP_CACHE", str(tmp_path / "cache"))
    file, config = tmp_path / "cache" / "content" / "code.json", NOTEBOOKS["01_data_exploration"]()
    code = code_of(find_notebook("01"))
    before = run_id(config, code, {})
    for damaged in ("[1]", '{"a": 1}', "{"):
        file.write_text(damaged)
        identity._known.cache_clear()
        assert run_id(config, code, {}) == before
    identity._known.cache_clear()
    monkeypatch.setattr(identity.ast, "dump", lambda _: pytest.fail("parsed again"))
    assert run_id(config, code, {}) == before


def test_an_id_names_the_model_whichever_parameter_brings_it(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HANDCLIP_REPORTS", str(tmp_path))
    trained = tmp_path / "runs" / "03_image_finetune-a"
    trained.mkdir(parents=True)
    given = {"backbone": "tiny", "weights": "/data/my clip/model.safetensors"}
    record = {"id": "a", "status": "succeeded", "notebook": "03_image_finetune", "parameters": given}
    (trained / "run.json").write_text(json.dumps(record))
    model = NOTEBOOKS["05_evaluation"]
    for name, value, called in (
        ("weights", "~/w.pt", "w"), ("embeddings", "of bert.npz", "of_bert"), ("backbone", "timm:vit.x", "timm_vit.x"),
        ("trained_run", trained.name, "my_clip"), ("trained_run", "gone", "tiny"),
    ):  # fmt: skip
        assert run_id(model(**{name: value}), "", {}).split("-")[1] == called


def test_versions_of_what_figures_depend_on_are_recorded():
    found = identity.versions()
    assert {"torch", "torchvision", "pillow", "numpy"} <= set(found) & set(identity.COMPUTE)
    assert found["torchvision"] != "not installed"


def test_what_is_no_notebook_is_refused(tmp_path: Path):
    (tmp_path / "x.ipynb").write_text("[]")
    with pytest.raises(ConfigError, match=r"x\.ipynb is not a notebook"):
        code_of(tmp_path / "x.ipynb")
