"""The notebooks, executed: under plain papermill as a person types it, and through the launcher."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from handclip_lib.drawn.dataset import draw_dataset

ROOT = Path(__file__).parents[2]
SMALL = {"drawn_subjects": 12, "drawn_images": 4, "draws": 2}
QUICK = {
    "01_data_exploration": {"resolution": 48, "samples": 4},
    "02_prompt_learning": {"epochs": 3, "trial_epochs": 1, "n_ctx": 2},
    "03_image_finetune": {"epochs": 1, "n_identities": 4, "views": 1},
    "04_joint_training": {"epochs": 1, "n_identities": 4, "views": 1, "prompt_epochs": 1},
    "05_evaluation": {"top_k": 3},
}


def papermill(notebook: str, folder: Path, *words: object) -> tuple[subprocess.CompletedProcess, Path]:
    """Run `papermill notebooks/NOTEBOOK.ipynb out.ipynb WORDS` from the project's root; reports go to `folder`."""
    out = folder / "out.ipynb"
    command = [
        sys.executable,
        "-m",
        "papermill",
        ROOT / "notebooks" / f"{notebook}.ipynb",
        out,
        "--no-progress-bar",
        *words,
    ]
    environment = {**os.environ, "HANDCLIP_REPORTS": str(folder)}
    done = subprocess.run([str(word) for word in command], cwd=ROOT, env=environment, capture_output=True, text=True)
    return done, out


def given(values: dict[str, object]) -> list[object]:
    return [word for name, value in values.items() for word in ("-p", name, value)]


def record_in(folder: Path) -> dict:
    (path,) = (folder / "runs").glob("*/run.json")
    return json.loads(path.read_text()) | {"folder": str(path.parent)}


@pytest.mark.parametrize("notebook", QUICK)
def test_runs_under_plain_papermill_on_drawn_hands(notebook: str, tmp_path: Path):
    done, out = papermill(notebook, tmp_path, *given(SMALL | QUICK[notebook]))
    assert done.returncode == 0, done.stderr[-2000:]
    record = record_in(tmp_path)
    assert record["status"] == "succeeded"
    assert record["parameters"]["drawn_subjects"] == 12
    pictures = pictures_in(out)
    assert len(pictures) >= 6
    kept = pictures_in(Path(record["folder"]) / "executed.ipynb")
    assert [one.data["image/png"] for one in kept] == [one.data["image/png"] for one in pictures], "the same report"
    assert all(picture.metadata["image/png"]["alt"] for picture in pictures)


def test_evaluation_states_floors_beside_the_model_and_both_galleries(tmp_path: Path):
    done, _ = papermill("05_evaluation", tmp_path, *given(SMALL | QUICK["05_evaluation"]))
    assert done.returncode == 0, done.stderr[-2000:]
    results = pd.read_csv(Path(record_in(tmp_path)["folder"]) / "results.csv")
    models = ["tiny", "trivial baseline: pixels", "trivial baseline: histogram"]
    assert results.groupby("gallery")["model"].agg(list).to_dict() == {"aspect": models, "all": models}
    assert ((results["rank1_low"] <= results["rank1"]) & (results["rank1"] <= results["rank1_high"])).all()


def pictures_in(out: Path) -> list:
    cells = nbformat.read(out, as_version=4).cells
    return [output for cell in cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]


@pytest.mark.slow
def test_analysis_compares_the_runs_there_are(tmp_path: Path):
    done, _ = papermill("06_analysis", tmp_path)
    assert done.returncode != 0
    assert "run one first: handclip run 05" in done.stderr
    for notebook in ("05_evaluation", "04_joint_training"):
        done, _ = papermill(notebook, tmp_path, *given(SMALL | QUICK[notebook]))
        assert done.returncode == 0, done.stderr[-2000:]
    done, out = papermill("06_analysis", tmp_path, "-p", "sign_flips", 200)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(pictures_in(out)) == 7
    assert all(picture.metadata["image/png"]["alt"] for picture in pictures_in(out))
    (folder,) = [path.parent for path in tmp_path.glob("runs/06_*/references.bib")]
    files = {path.name for path in folder.iterdir()}
    assert {"comparison.csv", "comparison.md", "comparison.tex", "not_comparable.csv", "runs.csv"} <= files
    compared = pd.read_csv(folder / "comparison.csv")
    assert [name.split(" (")[0] for name in compared["model"]] == [
        "tiny",
        "tiny, not joint",
        "trivial baseline: pixels",
        "trivial baseline: histogram",
    ]
    alone = compared["run"][0]
    done, out = papermill("06_analysis", tmp_path, "-p", "sign_flips", 200, "-p", "runs", alone)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(pictures_in(out)) == 6, "the difference of one run from itself is a sentence, no picture"
    assert "There is no second run on this split" in out.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", [{"method": "promptsg", "guide_layers": 1}, {"method": "handid"}, {"input_size": "96x64"}]
)
def test_a_trained_run_is_evaluated_as_it_was_in_its_own_notebook(method, tmp_path: Path):
    done, _ = papermill("04_joint_training", tmp_path, *given(SMALL | QUICK["04_joint_training"] | method))
    assert done.returncode == 0, done.stderr[-2000:]
    done, _ = papermill("05_evaluation", tmp_path, *given(SMALL | QUICK["05_evaluation"] | {"trained_run": "latest"}))
    assert done.returncode == 0, done.stderr[-2000:]
    records = {path.parent.name[:2]: json.loads(path.read_text()) for path in tmp_path.glob("runs/*/run.json")}
    assert records["05"]["inputs"] == {"04_joint_training": records["04"]["id"]}
    for name in ("rank1", "rank1_low", "map", "n_query", "best_floor_rank1"):
        assert records["05"]["metrics"][name] == pytest.approx(records["04"]["metrics"][name], abs=1e-6), name


@pytest.mark.slow
def test_what_was_selected_on_test_says_so_wherever_it_is_shown(tmp_path: Path):
    words = SMALL | QUICK["03_image_finetune"] | {"validation": "test"}
    done, out = papermill("03_image_finetune", tmp_path, *given(words))
    assert done.returncode == 0, done.stderr[-2000:]
    captions = [picture.metadata["image/png"]["alt"] for picture in pictures_in(out)]
    assert [text for text in captions[:-1] if not text.endswith("(selected on test)")] == []
    folder = Path(record_in(tmp_path)["folder"])
    name = "tiny, not fine-tuned (epoch 0 was best), selected on test"
    assert pd.read_csv(folder / "results.csv")["model"][0] == name
    done, out = papermill("05_evaluation", tmp_path, *given(SMALL | QUICK["05_evaluation"] | {"trained_run": "latest"}))
    assert done.returncode == 0, done.stderr[-2000:]
    (folder,) = tmp_path.glob("runs/05_*")
    assert pd.read_csv(folder / "results.csv")["model"][0] == name
    checks = pd.read_csv(folder / "leak_checks.csv").set_index("check")["passed"]
    assert checks["selection"] == "no"
    done, out = papermill("06_analysis", tmp_path, "-p", "sign_flips", 200)
    assert done.returncode == 0, done.stderr[-2000:]
    (folder,) = tmp_path.glob("runs/06_*")
    models = pd.read_csv(folder / "comparison.csv")["model"]
    assert [model for model in models if "selected on test" not in model] == [
        "trivial baseline: pixels",
        "trivial baseline: histogram",
    ]


@pytest.mark.slow
def test_what_was_trained_on_one_data_set_is_evaluated_on_another(tmp_path: Path):
    """Drawn hands stand in for both: the 11k layout trains, the HD layout tests, with people the training never saw."""
    done, _ = papermill("03_image_finetune", tmp_path, *given(SMALL | QUICK["03_image_finetune"]))
    assert done.returncode == 0, done.stderr[-2000:]
    drawn, hd = draw_dataset(tmp_path / "drawn", 12, 4, seed=9), tmp_path / "hd" / "Original Images"
    table = pd.read_csv(drawn / "HandInfo.csv").query("aspectOfHand == 'dorsal right'")
    for n, (_, images) in enumerate(table.groupby("id")):  # five people to train on, five to test on, two distractors
        number, folder = (443 + n, hd / "1-501") if n < 10 else (494 + n, hd / "502-712")
        folder.mkdir(parents=True, exist_ok=True)
        for k, name in enumerate(images["imageName"]):
            shutil.copy(drawn / "Hands" / name, folder / f"{number}_{k}.jpg")
    words = {"dataset": "hd", "data_root": hd.parent, "aspect": "all", "trained_run": "latest"}
    done, _ = papermill("05_evaluation", tmp_path, *given(QUICK["05_evaluation"] | {"draws": 2} | words))
    assert done.returncode == 0, done.stderr[-2000:]
    records = {path.parent.name[:2]: json.loads(path.read_text()) for path in tmp_path.glob("runs/*/run.json")}
    assert records["05"]["inputs"] == {"03_image_finetune": records["03"]["id"]}
    assert (records["05"]["metrics"]["n_query"], records["05"]["metrics"]["n_gallery"]) == (15, 13)


@pytest.mark.slow
@pytest.mark.parametrize("notebook", QUICK)
@pytest.mark.parametrize("aspect", ["dorsal_r", "palmar_r"])
def test_runs_on_real_photographs_with_one_parameter_changed(notebook, aspect, tmp_path, hands11k_sample):
    words = given({"dataset": "11k", "data_root": hands11k_sample, "aspect": aspect} | QUICK[notebook])
    done, out = papermill(notebook, tmp_path, *words)
    assert done.returncode == 0, done.stderr[-2000:]
    alone = record_in(tmp_path)["split"]["unqueryable"]
    assert len(alone) > 0
    assert f"{len(alone)} ({alone[0]}" in out.read_text(), "the report says how many subjects could not be queried"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-p", "drawn_subject", "8"], ["drawn_subject", "did you mean drawn_subjects?"]),
        (["-p", "data_root", "007"], ["data_root=7", "-r data_root"]),
        (["-p", "draws", "0", "-p", "aspect", "dorsal"], ["2 parameters are wrong", "draws=0", "dorsal_r"]),
        (["-p", "dataset", "11k", "-p", "data_root", "/nowhere/at/all"], ["/nowhere/at/all", "does not exist"]),
        (["-p", "weights", "/nowhere.pt"], ["/nowhere.pt"]),
        (["-p", "backbone", "vitb16", "-p", "download_root", "DOWNLOADS"], ["vitb16", "weights", "tiny"]),
    ],
)
def test_bad_input_stops_plain_papermill_with_one_message(words, said, tmp_path: Path):
    words = [str(tmp_path / "empty") if word == "DOWNLOADS" else word for word in words]
    done, _ = papermill("05_evaluation", tmp_path, *given(SMALL), *words)
    assert done.returncode != 0
    assert [word for word in said if word not in done.stderr] == []
    told = re.search(r"(\w+Error): ", done.stderr.split("Exception encountered at", 1)[1])
    assert told and told[1] in {"ConfigError", "DataError", "BackboneError"}, done.stderr[-2000:]


def test_a_failed_cell_is_recorded_by_the_run_itself(tmp_path: Path):
    done, _ = papermill("05_evaluation", tmp_path, *given(SMALL | {"protocol": "hd"}))
    assert done.returncode != 0
    record = record_in(tmp_path)
    assert record["status"] == "failed"
    assert "hd" in record["error"]


def test_a_parameters_file_may_write_numbers_as_text(tmp_path: Path):
    file = tmp_path / "given.yml"
    file.write_text("top_k: 1e-2\ndraws: '2'\ndrawn_subjects: 12\ndrawn_images: 4\n")
    done, _ = papermill("05_evaluation", tmp_path, "-f", file)
    assert done.returncode != 0, "1e-2 is no whole number"
    assert "top_k=0.01" in done.stderr
    assert "draws" not in done.stderr.split("wrong:")[1].split("\n\n")[0]


@pytest.mark.slow
def test_every_cell_of_every_notebook_can_be_run_again(tmp_path: Path):
    """Each once more, the last first, in the same kernel: nothing fails, and no table changes."""
    keep, again = (
        f"import shutil\nshutil.copytree(run.folder, run.folder.parents[1] / '{name}')" for name in ("before", "after")
    )
    sound = (
        "from handclip_lib.backbone.weights import fingerprint\n"
        "assert 'encoder' not in globals() or fingerprint(model.model) == model.fingerprint, 'it has learnt'"
    )
    for notebook in (*QUICK, "06_analysis"):
        made = nbformat.read(ROOT / "notebooks" / f"{notebook}.ipynb", as_version=4)
        code = [cell.source for cell in made.cells if cell.cell_type == "code"]
        guard = next(n for n, source in enumerate(code) if "= start(" in source)  # it begins anew, without tables
        cells = (keep, sound, *reversed(code[guard + 1 :]), again, *reversed(code[: guard + 1]))
        made.cells += [nbformat.v4.new_code_cell(source) for source in cells]
        nbformat.write(made, tmp_path / "again.ipynb")
        values = {} if notebook == "06_analysis" else SMALL | QUICK[notebook]
        done, _ = papermill(str(tmp_path / "again"), tmp_path, *given(values))
        assert done.returncode == 0, f"{notebook}: {done.stderr[-2000:]}"
        (folder,) = tmp_path.glob(f"runs/{notebook}-*")
        for table in (tmp_path / "before").glob("*.csv"):
            if table.name not in ("history.csv", "runs.csv", "template_cost.csv"):  # which have seconds
                assert table.read_bytes() == (tmp_path / "after" / table.name).read_bytes(), table.name
        shutil.rmtree(tmp_path / "after")
        shutil.rmtree(folder)  # its guard was run again, so it is not finished
        (tmp_path / "before").rename(folder)
