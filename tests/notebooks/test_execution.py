"""The notebooks, executed: one under plain papermill as a person types it, all in this process, each cell twice.

In kernels of their own all six run in tests/browser/test_jupyterlab.py, 03 and 05 from the command line in
tests/test_documentation.py.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import nbformat
import pandas as pd
import pytest
from PIL import Image

from handclip_lib.backbone.weights import fingerprint
from handclip_lib.drawn.dataset import draw_dataset, draw_image, subject_seed
from handclip_lib.errors import HandClipError
from handclip_lib.runs import run as running
from handclip_lib.widgets import panel
from tests.in_process import QUICK, SMALL, Shell, cells_of, run_notebook, run_quickly, shell_for

ROOT = Path(__file__).parents[2]
TRIVIAL = ["trivial baseline: pixels", "trivial baseline: histogram"]
HAVE_SECONDS = {"history.csv", "runs.csv", "template_cost.csv"}


def papermill(notebook: str, folder: Path, **values: object) -> tuple[subprocess.CompletedProcess, Path]:
    """Run `papermill notebooks/NOTEBOOK.ipynb out.ipynb -p …` from the project's root; reports go to `folder`."""
    out = folder / "out.ipynb"
    words = [sys.executable, "-m", "papermill", f"notebooks/{notebook}.ipynb", out, "--no-progress-bar"]
    words += [word for name, value in values.items() for word in ("-p", name, value)]
    environment = {**os.environ, "HANDCLIP_REPORTS": str(folder)}
    done = subprocess.run([str(word) for word in words], cwd=ROOT, env=environment, capture_output=True, text=True)
    return done, out


def pictures_in(out: Path) -> list:
    cells = nbformat.read(out, as_version=4).cells
    return [output for cell in cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]


@pytest.mark.slow
def test_runs_under_plain_papermill_on_drawn_hands(tmp_path: Path):
    done, out = papermill("01_data_exploration", tmp_path, **SMALL | QUICK["01_data_exploration"])
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = (tmp_path / "runs").glob("*/run.json")
    record = json.loads(path.read_text())
    assert record["status"] == "succeeded"
    assert record["parameters"]["drawn_subjects"] == 12
    pictures = pictures_in(out)
    assert len(pictures) >= 6
    kept = pictures_in(path.with_name("executed.ipynb"))
    assert [one.data["image/png"] for one in kept] == [one.data["image/png"] for one in pictures], "the same report"
    captions = [picture.metadata["image/png"]["alt"] for picture in pictures]
    assert all(captions)
    assert [text for text in captions if text.startswith("Sample of up to 4 photographs")], (
        "a panel keeps its figure where nobody is"
    )


@pytest.mark.slow
def test_bad_input_stops_plain_papermill_with_one_message(tmp_path: Path):
    done, _ = papermill("01_data_exploration", tmp_path, **SMALL | {"draws": 0, "aspect": "dorsal"})
    assert done.returncode != 0
    assert [word for word in ("2 parameters are wrong", "draws=0", "dorsal_r") if word not in done.stderr] == []
    told = re.search(r"(\w+Error): ", done.stderr.split("Exception encountered at", 1)[1])
    assert told and told[1] == "ConfigError", done.stderr[-2000:]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Shell]:
    """A notebook's quick run, in a folder of reports that all have; each is run once, and then each cell once more."""
    reports, done = tmp_path_factory.mktemp("ran"), dict[str, Shell]()

    def run(name: str) -> Shell:
        if name not in done:
            done[name] = run_each_cell_twice(name, reports)
        return done[name]

    return run


def run_each_cell_twice(name: str, reports: Path) -> Shell:
    """All in order, then the last first: nothing fails, and no table changes."""
    before = reports / "before"
    with shell_for(reports) as shell:
        cells = cells_of(name, **({} if name == "06_analysis" else SMALL) | QUICK[name])
        shell.run(*cells)
        assert shell.record["status"] == "succeeded"
        shutil.copytree(shell.folder, before)
        model = shell.names.get("model")
        assert "encoder" not in shell.names or fingerprint(model.model) == model.fingerprint, "it has learnt"
        pictures, guard = list(shell.pictures), next(n for n, cell in enumerate(cells) if "= start(" in cell)
        with patch.object(running, "as_png", return_value=b""), patch.object(panel, "as_png", return_value=b""):
            shell.run(*reversed(cells[guard + 1 :]))  # figures are made again; only drawn they are not
        for table in before.glob("*.csv"):
            if table.name not in HAVE_SECONDS:
                assert table.read_bytes() == (shell.folder / table.name).read_bytes(), table.name
        shell.run(*reversed(cells[: guard + 1]))  # it begins anew, without tables
    shutil.rmtree(shell.folder)  # its guard was run again, so it is not finished
    before.rename(shell.folder)
    shell.pictures = pictures
    return shell


@pytest.mark.parametrize(
    "notebook",
    [
        "01_data_exploration", "02_prompt_learning", "03_image_finetune", "05_evaluation",
        pytest.param("04_joint_training", marks=pytest.mark.slow),  # its cells are those of 02 and 03 but for a few
    ],
)  # fmt: skip
def test_every_cell_of_every_notebook_can_be_run_and_run_again(ran, notebook: str):
    assert len(ran(notebook).pictures) >= 5
    assert all(ran(notebook).pictures), "a caption each"


def test_evaluation_states_floors_beside_the_model_and_both_galleries(ran):
    results = pd.read_csv(ran("05_evaluation").folder / "results.csv")
    models = ["tiny", *TRIVIAL]
    assert results.groupby("gallery")["model"].agg(list).to_dict() == {"aspect": models, "all": models}
    assert ((results["rank1_low"] <= results["rank1"]) & (results["rank1"] <= results["rank1_high"])).all()


def test_analysis_compares_the_runs_there_are(ran, tmp_path: Path):
    with pytest.raises(HandClipError, match="run one first: handclip run 05"):
        run_quickly("06_analysis", tmp_path)
    for name in ("05_evaluation", "03_image_finetune"):
        shutil.copytree(ran(name).folder, tmp_path / "runs" / ran(name).folder.name)
    analysis = run_quickly("06_analysis", tmp_path)
    assert len(analysis.pictures) == 6
    assert all(analysis.pictures)
    files = {path.name for path in analysis.folder.iterdir()}
    assert {"comparison.csv", "comparison.md", "comparison.tex", "not_comparable.csv", "runs.csv"} <= files
    compared = pd.read_csv(analysis.folder / "comparison.csv")
    trained = pd.read_csv(ran("03_image_finetune").folder / "results.csv")["model"][0]
    wanted = ["tiny", trained.split(" (")[0], *TRIVIAL]
    assert [name.split(" (")[0] for name in compared["model"]] == wanted
    alone = run_quickly("06_analysis", tmp_path, runs=compared["run"][0])
    assert len(alone.pictures) == 5, "the difference of one run from itself is a sentence, no picture"
    assert "There is no second run on this split" in alone.text


def test_every_cell_of_the_analysis_can_be_run_again(ran):
    ran("05_evaluation")
    assert len(ran("06_analysis").pictures) >= 5


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", [{"method": "promptsg", "guide_layers": 1}, {"method": "handid"}, {"input_size": "96x64"}]
)
def test_a_trained_run_is_evaluated_as_it_was_in_its_own_notebook(method, tmp_path: Path):
    trained = run_quickly("04_joint_training", tmp_path, **method).record
    found = run_quickly("05_evaluation", tmp_path, trained_run="latest", studies="none").record
    assert found["inputs"] == {"04_joint_training": trained["id"]}
    for name in ("rank1", "rank1_low", "map", "n_query", "best_floor_rank1"):
        assert found["metrics"][name] == pytest.approx(trained["metrics"][name], abs=1e-6), name


@pytest.mark.slow
def test_what_was_selected_on_test_says_so_wherever_it_is_shown(tmp_path: Path):
    trained = run_quickly("03_image_finetune", tmp_path, validation="test")
    assert [text for text in trained.pictures if not text.endswith("(selected on test)")] == []
    name = "tiny, not fine-tuned (epoch 0 was best), selected on test"
    assert pd.read_csv(trained.folder / "results.csv")["model"][0] == name
    evaluated = run_quickly("05_evaluation", tmp_path, trained_run="latest", studies="none")
    assert pd.read_csv(evaluated.folder / "results.csv")["model"][0] == name
    checks = pd.read_csv(evaluated.folder / "leak_checks.csv").set_index("check")["passed"]
    assert checks["selection"] == "no"
    models = pd.read_csv(run_quickly("06_analysis", tmp_path).folder / "comparison.csv")["model"]
    assert [model for model in models if "selected on test" not in model] == TRIVIAL


@pytest.mark.slow
def test_what_was_trained_on_one_data_set_is_evaluated_on_another(ran, tmp_path: Path):
    """Drawn hands stand in for both: the 11k layout trains, the HD layout tests, with people the training never saw."""
    trained = ran("03_image_finetune")
    shutil.copytree(trained.folder, tmp_path / "runs" / trained.folder.name)
    hd = tmp_path / "hd" / "Original Images"
    for n in range(12):  # five people to train on, five to test on, two distractors
        number, folder = (443 + n, hd / "1-501") if n < 10 else (494 + n, hd / "502-712")
        folder.mkdir(parents=True, exist_ok=True)
        for k in range(4):
            hand = draw_image(subject_seed(9, n), "dorsal_r", k)
            Image.fromarray(hand).save(folder / f"{number}_{k}.jpg", quality=95)
    words = {"dataset": "hd", "data_root": str(hd.parent), "aspect": "all", "trained_run": "latest", "studies": "none"}
    found = run_notebook("05_evaluation", tmp_path, top_k=3, draws=2, **words).record
    assert found["inputs"] == {"03_image_finetune": trained.folder.name}
    assert (found["metrics"]["n_query"], found["metrics"]["n_gallery"]) == (15, 13)


@pytest.mark.slow
def test_two_sets_train_from_the_weights_of_another_run_and_all_is_known_of_them(ran, tmp_path: Path):
    """Hands of another world are the run's own; those the first run trained on train again, from their palms."""
    first = ran("03_image_finetune")
    own = {
        "dataset": "11k",
        "data_root": str(draw_dataset(tmp_path / "own", 12, 4, seed=9)),
        "protocol": "proportional",
    }
    weights = str(first.folder / "best.safetensors")
    both = run_quickly("03_image_finetune", tmp_path, **own, weights=weights, extra_data="drawn:palmar_r")
    beside, before = (line for line in both.record["cautions"] if "rained on" in line)
    assert re.fullmatch(
        r"Trained on 11k dorsal_r \(6 people, .*\) \+ drawn palmar_r \(12 people, .*\); validated and .*", beside
    )
    assert before.startswith("The weights it began with had been trained on drawn dorsal_r (6 people")
    assert [one["how"] for one in both.record["trained_on"]] == ["own", "extra_data", "weights"]
    assert [name[:6] for name in both.names["people"].identities].count("drawn:") == 12
    again = run_quickly("05_evaluation", tmp_path, **own, trained_run="latest", studies="none")
    assert beside in again.record["cautions"] and before in again.record["cautions"]
    assert again.record["metrics"]["rank1"] == pytest.approx(both.record["metrics"]["rank1"], abs=1e-6)
    checks = pd.read_csv(again.folder / "leak_checks.csv").set_index("check")
    assert checks["passed"][["people", "copies"]].tolist() == ["yes", "yes"]
    with pytest.raises(HandClipError, match="identities of the test split trained the model"):
        run_quickly("05_evaluation", tmp_path, trained_run="latest", protocol="test_only", studies="none")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("notebook", "aspect"),
    [
        ("01_data_exploration", "dorsal_r"), ("02_prompt_learning", "palmar_r"), ("03_image_finetune", "palmar_r"),
        ("04_joint_training", "dorsal_r"), ("05_evaluation", "palmar_r"),
    ],
)  # fmt: skip
def test_runs_on_real_photographs_with_one_parameter_changed(notebook, aspect, tmp_path, hands11k_sample):
    values = {"dataset": "11k", "data_root": str(hands11k_sample), "aspect": aspect} | QUICK[notebook]
    done = run_notebook(notebook, tmp_path, **values)
    alone = done.record["split"]["unqueryable"]
    assert len(alone) > 0
    assert f"{len(alone)} ({alone[0]}" in done.text, "the report says how many subjects could not be queried"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"drawn_subject": 8}, ["drawn_subject", "did you mean drawn_subjects?"]),
        ({"data_root": 7}, ["data_root=7", "-r data_root"]),
        ({"dataset": "11k", "data_root": "/nowhere/at/all"}, ["/nowhere/at/all", "does not exist"]),
        ({"weights": "/nowhere.pt"}, ["/nowhere.pt"]),
        ({"backbone": "vitb16", "download_root": "{made}"}, ["vitb16", "weights", "tiny"]),
    ],
)
def test_bad_input_stops_a_notebook_with_one_message(values, said, tmp_path: Path):
    values = {name: str(tmp_path) if value == "{made}" else value for name, value in values.items()}
    with pytest.raises(HandClipError) as told:
        run_notebook("05_evaluation", tmp_path, **SMALL | values)
    assert [word for word in said if word not in str(told.value)] == []


def test_a_failed_cell_is_recorded_by_the_run_itself(tmp_path: Path):
    with shell_for(tmp_path) as shell, pytest.raises(HandClipError):
        shell.run(*cells_of("05_evaluation", **SMALL | {"protocol": "hd"}))
    assert shell.record["status"] == "failed"
    assert "hd" in shell.record["error"]
