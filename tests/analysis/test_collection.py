import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from handclip_lib.analysis import collection
from handclip_lib.analysis.collection import (
    METRICS,
    comparable_runs,
    differing,
    find_records,
    prompt_lengths,
    reference_of,
    run_labels,
    runs_table,
    seeds_table,
    sweep_table,
)
from handclip_lib.analysis.comparison import entries_of, paired_queries, tasks_table
from handclip_lib.analysis.publication import beside_literature
from handclip_lib.data.manifest import Split
from handclip_lib.errors import EvaluationError, RunError, TrainingError
from handclip_lib.evaluation.ranking.saved_evaluation import load_evaluation, save_evaluation
from handclip_lib.evaluation.tables import readable
from handclip_lib.training.state import save_checkpoint

DEFAULTS = {"dataset": "drawn", "aspect": "dorsal_r", "seed": 0}


def a_record(name: str, started: int, status: str = "succeeded", **changes) -> dict:
    parameters = DEFAULTS | changes.pop("parameters", {})
    defaults = DEFAULTS | changes.pop("defaults", {})
    notebook = name.partition("-")[0]
    return {
        "id": name, "notebook": notebook, "status": status, "error": None, "parameters": parameters,
        "defaults": defaults, "seed": parameters["seed"], "started": f"2026-11-21T10:{started:02d}:00+00:00",
        "seconds": 12.5, "metrics": {}, "split": {"checksum": "a" * 64}, **changes,
    }  # fmt: skip


def write(runs: Path, record: dict) -> Path:
    folder = runs / record["id"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def compared(*given, **asked) -> list:
    return comparable_runs(*given, **asked)[0]


@pytest.fixture
def runs(tmp_path: Path, made: Path) -> Path:
    """The runs that `made` made, for one test to change."""
    return Path(shutil.copytree(made, tmp_path / "runs"))


@pytest.fixture(scope="module")
def made(tmp_path_factory, saved_runs) -> Path:
    """Two evaluated runs on one split, one on another, and five that cannot be compared, each in its own way."""
    runs = tmp_path_factory.mktemp("made") / "runs"
    metrics = {"model": "tiny", **dict.fromkeys(METRICS, 0.5)}
    for name, seed, started, noise in (("05_evaluation-tiny-e1", 0, 1, 1.5), ("03_image_finetune-tiny-f1", 0, 2, 0.5),
                                       ("05_evaluation-tiny-e2", 1, 0, 1.5)):  # fmt: skip
        saved, _, _ = saved_runs.evaluated(runs / name, noise, split=saved_runs.small_split(seed))
        changes = {"parameters": {"seed": seed, "epochs": 6}, "defaults": {"epochs": 20}} if name[1] == "3" else {}
        changes = changes or {"parameters": {"seed": seed, "top_k": 8}, "defaults": {"top_k": 8}}
        write(runs, a_record(name, started, metrics=metrics, split={"checksum": saved.checksum}, **changes))
    (runs / "03_image_finetune-tiny-f1" / "best.safetensors").write_text("")
    prompts = write(runs, a_record("02_prompt_learning-tiny-p1", 3, parameters={"epochs": 40}, defaults={"epochs": 40}))
    (prompts / "text_features.safetensors").write_text("")
    write(runs, a_record("03_image_finetune-tiny-f2", 4, parameters={"epochs": 9}, defaults={"epochs": 20}))
    (runs / "03_image_finetune-tiny-f2" / "best.safetensors").write_text("")
    write(runs, a_record("04_joint_training-tiny-j1", 5))
    write(runs, a_record("05_evaluation-tiny-x1", 6, "failed", error="DataError: /nowhere does not exist"))
    (runs / "05_evaluation-tiny-d1").mkdir()
    (runs / "05_evaluation-tiny-d1" / "run.json").write_text("{")
    write(runs, a_record("06_analysis-a1", 7))
    return runs


def test_a_run_without_what_it_needs_is_listed_with_the_reason(runs: Path):
    table = runs_table(find_records(runs), runs).set_index("id")
    assert len(table) == 8
    assert "06_analysis-a1" not in table.index
    notes = table["note"].to_dict()
    assert notes["05_evaluation-tiny-e1"] == notes["03_image_finetune-tiny-f1"] == ""
    assert notes["02_prompt_learning-tiny-p1"] == "02 evaluates no retrieval"
    assert notes["03_image_finetune-tiny-f2"] == "no evaluation: per_query.csv is not there; run it again"
    assert notes["04_joint_training-tiny-j1"] == "no checkpoint: best.safetensors is not there; run it again"
    assert notes["05_evaluation-tiny-x1"] == "failed: DataError: /nowhere does not exist"
    assert notes["05_evaluation-tiny-d1"].startswith("damaged: run.json cannot be read: Expecting property name")
    assert table["rank1"].notna().sum() == 3
    assert "peak_memory_mb" not in table


def test_peak_memory_has_a_column_where_a_run_recorded_it(runs: Path):
    write(runs, a_record("05_evaluation-tiny-m1", 9, peak_memory_mb=812.0))
    table = runs_table(find_records(runs), runs).set_index("id")
    assert table["peak_memory_mb"].dropna().to_dict() == {"05_evaluation-tiny-m1": 812.0}


def test_records_are_filtered_and_the_oldest_comes_first(runs: Path):
    ids = [record["id"] for record in find_records(runs, notebook="05_evaluation")]
    assert [name[-2:] for name in ids] == ["e2", "e1", "x1", "d1"]
    assert [r["id"] for r in find_records(runs, ["04_joint_training-tiny-j1"])] == ["04_joint_training-tiny-j1"]
    assert find_records(runs, dataset="11k") == []
    assert len(find_records(runs, aspect="dorsal_r")) == 7
    with pytest.raises(RunError, match=r"'05_none' is no run in .*`handclip runs` lists them"):
        find_records(runs, ["05_none"])
    assert find_records(runs / "nowhere") == []
    assert len(runs_table([], runs)) == 0


def test_versions_that_differ_stand_beside_the_parameters_that_do(runs: Path):
    records = find_records(runs, ["05_evaluation-tiny-e1", "05_evaluation-tiny-e2"])
    for record, pillow in zip(records, ("11.3", "12.0"), strict=True):
        record["versions"] = {"torch": "2.9", "pillow": pillow, "papermill": pillow, "torchvision": "0.24"}
    table = runs_table(records, runs).set_index("id")
    assert list(table["differs"]) == ["seed=1, pillow 11.3", "seed=0, pillow 12.0"]
    del records[0]["versions"]
    assert not runs_table(records, runs)["differs"].str.contains("pillow").any(), "of an earlier one nothing is known"


def test_differing_parameters_are_those_somebody_changed(runs: Path):
    records = find_records(runs)
    assert differing(records) == ["seed", "epochs"], "top_k differs in no run; other notebooks' defaults do not count"
    table = runs_table(records, runs).set_index("id")
    assert table.loc["03_image_finetune-tiny-f1", "differs"] == "seed=0, epochs=6"
    assert table.loc["05_evaluation-tiny-e2", "differs"] == "seed=1"
    alone = [record for record in records if record["id"].endswith("f1")]
    assert differing(alone) == []


@pytest.mark.parametrize(("value", "told"), [("bf16", ["embedding_precision"]), ("fp32", [])])
def test_a_parameter_that_an_earlier_version_did_not_ask_is_one_in_which_runs_differ(value, told):
    earlier = {"notebook": "05_evaluation", "parameters": {"seed": 0}, "defaults": {"seed": 0}}
    now = {"notebook": "05_evaluation", "parameters": {"seed": 0, "embedding_precision": value},
           "defaults": {"seed": 0, "embedding_precision": "fp32"}}  # fmt: skip
    other = {"notebook": "03_image_finetune", "parameters": {"seed": 0, "epochs": 6}, "defaults": {"epochs": 5}}
    assert differing([earlier, now, other]) == told
    assert differing([now, other]) == []


def test_compared_are_the_runs_on_the_split_of_the_newest(runs: Path):
    found = compared(find_records(runs), runs)
    assert [evaluation.run for evaluation in found] == ["05_evaluation-tiny-e1", "03_image_finetune-tiny-f1"]
    ids = ["05_evaluation-tiny-e1", "05_evaluation-tiny-e2", "05_evaluation-tiny-x1"]
    asked = compared(find_records(runs, ids), runs, ids)
    assert [evaluation.run[-2:] for evaluation in asked] == ["e2", "e1"], "those asked for, if they are evaluated"
    other = compared(find_records(runs), runs, reference="05_evaluation-tiny-e2")
    assert [evaluation.run[-2:] for evaluation in other] == ["e2"], "the split of the reference"
    with pytest.raises(RunError, match=r"reference='05_evaluation-tiny-x1' has no evaluation .*; choose from 05_eval"):
        reference_of(compared(find_records(runs), runs), "05_evaluation-tiny-x1")
    with pytest.raises(RunError, match="has an evaluation to compare; run one first: handclip run 05"):
        reference_of(compared(find_records(runs, notebook="02_prompt_learning"), runs))


@pytest.mark.parametrize("file", ["per_query.csv", "embeddings.safetensors", "split.csv", "split.json"])
@pytest.mark.parametrize("damage", [b"cut", b"[]", b"\xff"])
def test_a_damaged_run_is_a_row_with_a_note_and_ends_no_comparison(runs: Path, file: str, damage: bytes):
    (runs / "05_evaluation-tiny-e1" / file).write_bytes(damage)
    records = find_records(runs)
    evaluations, notes = comparable_runs(records, runs)
    assert [evaluation.run for evaluation in evaluations] == ["03_image_finetune-tiny-f1"]
    table = runs_table(records, runs, notes).set_index("id")
    assert "has no evaluation that can be compared" in table.loc["05_evaluation-tiny-e1", "note"]
    assert table.loc["03_image_finetune-tiny-f1", "note"] == ""


def a_twin(runs: Path, saved_runs, name: str, content: str, data_root: str) -> None:
    """An evaluation of the same names and draws, on photographs of its own, or on some that nobody knows."""
    split = saved_runs.small_split()
    if content:
        split = Split.build(split.meta, split.images.assign(content=[f"{content}{n}" for n in split.images.index]))
    saved, _, _ = saved_runs.evaluated(runs / name, 0.5, split=split)
    write(runs, a_record(name, 9, split={"checksum": saved.checksum}, parameters={"data_root": data_root}))


def test_runs_on_other_photographs_of_the_same_names_are_not_paired(tmp_path: Path, saved_runs):
    runs = tmp_path / "runs"
    for name, content, root in (("z", "a", "/a"), ("b", "b", "/b"), ("c", "a", "/c"), ("d", "", "/a"), ("e", "", "/b")):
        a_twin(runs, saved_runs, f"05_evaluation-{name}", content, root)
    records = find_records(runs)
    evaluations, notes = comparable_runs(records, runs, reference="05_evaluation-z")
    assert [evaluation.run[-1] for evaluation in evaluations] == ["c", "z"], "the same photographs in another folder"
    table = runs_table(records, runs, notes).set_index("id")
    assert table["data_root"].tolist() == ["/b", "/c", "/a", "/b", "/a"]
    other = "not beside 05_evaluation-z: other photographs of the same names, data_root '/a' and '/b'"
    assert table.loc["05_evaluation-b", "note"] == other
    assert "does not say what was in its files, data_root '/a' and '/a'" in table.loc["05_evaluation-d", "note"]
    _, notes = comparable_runs(records, runs, reference="05_evaluation-d")
    assert "does not say what was in its files, data_root '/a' and '/b'" in notes["05_evaluation-e"]
    asked = ["05_evaluation-z", "05_evaluation-b"]
    entries = entries_of(comparable_runs(find_records(runs, asked), runs, asked)[0], asked[0])
    with pytest.raises(EvaluationError, match="05_evaluation-z cannot be compared: other photographs"):
        paired_queries(entries[1], entries[0])


def test_a_run_says_which_weights_its_figures_are_of(runs: Path):
    record = json.loads((runs / "05_evaluation-tiny-e1" / "run.json").read_text())
    write(runs, record | {"weights": {"tiny": {"fingerprint": "0123abcd", "source": "tiny of this library"}}})
    table = runs_table(find_records(runs), runs).set_index("id")
    assert table["weights"].drop("05_evaluation-tiny-e1").tolist() == [""] * 7
    assert table.loc["05_evaluation-tiny-e1", "weights"] == "0123abcd"


def test_a_run_that_left_out_bursts_stops_no_comparison_of_the_others(runs: Path, saved_runs):
    name = "05_evaluation-tiny-b2"
    saved, results, features = saved_runs.evaluated(runs / name)
    near = [dataclasses.replace(result, burst=2) for result in results]
    save_evaluation(runs / name, near, features, saved_runs.small_split())
    write(runs, a_record(name, 9, split={"checksum": saved.checksum}, parameters={"burst": 2}, defaults={"burst": 0}))
    records = find_records(runs)
    assert [found.run[-2:] for found in compared(records, runs)] == ["b2"], "the newest's"
    found = compared(records, runs, reference="05_evaluation-tiny-e1")
    assert [evaluation.run[-2:] for evaluation in found] == ["e1", "f1"]
    ids = ["05_evaluation-tiny-e1", name]
    assert len(compared(find_records(runs, ids), runs, ids)) == 2, "asked for by name, it is refused by name"


def test_labels_say_in_what_few_parameters_the_compared_runs_differ(runs: Path):
    records = find_records(runs)
    found = compared(records, runs)
    assert run_labels(records, found) == dict.fromkeys([evaluation.run for evaluation in found], ""), "05 has no epochs"
    other = runs / "03_image_finetune-tiny-f3"
    other.mkdir()
    for file in (runs / "03_image_finetune-tiny-f1").iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    record = json.loads((runs / "03_image_finetune-tiny-f1" / "run.json").read_text())

    def told(**changes) -> list[str]:
        write(runs, record | {"id": other.name, "parameters": record["parameters"] | changes})
        records = find_records(runs)
        found = compared(records, runs)
        return [entry.label for entry in entries_of(found, found[0].run, run_labels(records, found))][1:3]

    assert told(epochs=9) == ["tiny (03-f1, epochs=6)", "tiny (03-f3, epochs=9)"]
    assert told(epochs="") == ["tiny (03-f1, epochs=6)", "tiny (03-f3)"], "an empty one says nothing"
    assert told(epochs="x" * 50) == ["tiny (03-f1)", "tiny (03-f3)"], "too long"
    for file in (runs / "03_image_finetune-tiny-f1", other):
        record = json.loads((file / "run.json").read_text())
        write(runs, record | {"parameters": record["parameters"] | dict.fromkeys("abc", file.name)})
    records = find_records(runs)
    assert set(run_labels(records, compared(records, runs)).values()) == {""}, "three more are too many"


def test_the_reference_is_the_one_asked_for_or_the_oldest_of_05(runs: Path):
    found = compared(find_records(runs), runs)
    assert reference_of(found) == "05_evaluation-tiny-e1"
    assert reference_of(found, "03_image_finetune-tiny-f1") == "03_image_finetune-tiny-f1"
    assert reference_of(found[1:]) == "03_image_finetune-tiny-f1"


def test_tasks_are_what_the_published_figures_are_compared_by(runs: Path):
    found = compared(find_records(runs), runs)
    table = tasks_table(entries_of(found, found[0].run))
    assert table["gallery"].tolist() == ["aspect", "all"] * 2
    assert set(table["protocol"]) == {"proportional"}
    queries = found[0].queries("tiny", "aspect")
    assert table["n_query"][0] == len(queries) / 3
    assert table["map_trapezoid"][0] == pytest.approx(queries["average_precision_trapezoid"].mean())
    beside, others = beside_literature(table)
    assert len(beside) == 0
    assert (others["reason"] == "other data: ours is folder").any()


def trained(name: str, rank1: float = 0.5, status: str = "succeeded", **parameters) -> dict:
    given = {"seed": 0, "epochs": 20, "learning_rate": 1e-3, "head": "linear"} | parameters
    metrics = {"rank1": rank1, "map": rank1 + 0.1, "model": "tiny, fine-tuned"}
    return {"id": f"03_x-{name}", "notebook": "03_image_finetune", "status": status, "parameters": given,
            "metrics": metrics, "seconds": 60.0}  # fmt: skip


RECORDS = [
    trained("a", 0.5, learning_rate=1e-3),
    trained("b", 0.6, learning_rate=1e-4),
    trained("c", 0.62, learning_rate=1e-4, seed=1),
    trained("d", 0.9, learning_rate=1e-2, epochs=3),  # another training altogether
    trained("e", 0.1, status="failed", learning_rate=5e-3),
    trained("f", 0.4, learning_rate=1e-3, head="arcface"),
]


def test_a_sweep_holds_runs_that_differ_in_the_parameter_and_the_seed_alone():
    table = sweep_table(RECORDS, "learning_rate")
    assert table["id"].tolist() == ["03_x-b", "03_x-c", "03_x-a"]
    assert table["value"].tolist() == [1e-4, 1e-4, 1e-3]
    assert table["seed"].tolist() == [0, 1, 0]
    assert table["rank1"].tolist() == [0.6, 0.62, 0.5]


def test_a_sweep_may_be_of_words():
    table = sweep_table(RECORDS, "head")
    assert table["value"].tolist() == ["arcface", "linear"]
    assert table["id"].tolist() == ["03_x-f", "03_x-a"]


def test_no_sweep_is_an_empty_table():
    assert len(sweep_table(RECORDS, "")) == 0
    assert len(sweep_table(RECORDS[:1], "learning_rate")) == 0
    assert len(sweep_table([], "")) == 0
    assert len(sweep_table(RECORDS, "n_ctx")) == 0, "no run has it"


def test_a_run_made_again_counts_once_its_newest():
    again = trained("g", 0.7, learning_rate=1e-4)  # b's parameters, once the library or the data had changed
    table = seeds_table([*RECORDS, again])
    assert sorted(table["id"]) == ["03_x-c", "03_x-g"], "two runs of seed 0 are not two seeds"
    assert sorted(sweep_table([*RECORDS, again], "learning_rate")["id"]) == ["03_x-a", "03_x-c", "03_x-g"]


def test_a_sweep_compares_on_one_split_a_seed_unless_the_parameter_makes_the_split():
    def on(split: str, name: str, **parameters) -> dict:
        return trained(name, **parameters) | {"split": {"checksum": split}}

    old, new = on("old", "a", learning_rate=1e-2), on("new", "b", learning_rate=1e-3)
    other = on("other", "c", learning_rate=1e-3, seed=1)
    assert len(sweep_table([old, new, other], "learning_rate")) == 0, "photographs were added in between"
    last = on("new", "d", learning_rate=1e-4)
    assert sorted(sweep_table([old, new, other, last], "learning_rate")["id"]) == ["03_x-b", "03_x-c", "03_x-d"]
    draws = [on("two", "a", draws=2), on("ten", "b", draws=10)]
    assert sweep_table(draws, "draws")["value"].tolist() == [2, 10]


def test_seeds_are_runs_that_differ_in_the_seed_alone():
    table = seeds_table(RECORDS)
    assert table["id"].tolist() == ["03_x-b", "03_x-c"]
    assert table["group"].nunique() == 1
    assert len(seeds_table(RECORDS[:2])) == 0


@pytest.mark.parametrize("shape", [(5, 4, 8), (4, 8)])
def test_lengths_are_norms_of_the_chosen_tokens(shape, tmp_path: Path):
    best = torch.randn(shape)
    records = []
    for name in ("p1", "p2", "p3"):
        records.append({"id": f"02_prompt_learning-{name}", "notebook": "02_prompt_learning", "status": "succeeded"})
        save_checkpoint(tmp_path / records[-1]["id"] / "prompts.safetensors", {"best": best, "context": best * 2}, {})
    records.append(records[0] | {"id": "02_prompt_learning-gone"})
    found = prompt_lengths(tmp_path, records)
    assert list(found) == ["02_prompt_learning-p2", "02_prompt_learning-p3"], "the newest two"
    expected = np.linalg.norm(best.numpy(), axis=-1).reshape(-1, 4)
    np.testing.assert_allclose(found["02_prompt_learning-p3"], expected, rtol=1e-6)
    assert prompt_lengths(tmp_path, [records[-1]]) == {}
    (tmp_path / records[2]["id"] / "prompts.safetensors").write_bytes(b"cut")
    with pytest.raises(TrainingError, match="no checkpoint of a training"):
        prompt_lengths(tmp_path, records)


def test_seeds_of_each_model_are_stated_and_one_seed_of_a_training_is_warned_of(tmp_path: Path, saved_runs):
    def run_of(name: str, seed: int, rank1: float, **parameters: object) -> dict:
        saved_runs.evaluated(tmp_path / name)
        return {
            "id": name, "notebook": name.partition("-")[0], "status": "succeeded",
            "parameters": {"seed": seed, **parameters}, "metrics": {"rank1": rank1},
        }  # fmt: skip

    records = [
        run_of("05_evaluation-a", 0, 0.5), run_of("03_image_finetune-b", 0, 0.6), run_of("03_image_finetune-c", 4, 0.8),
        run_of("04_joint_training-d", 2, 0.9),
    ]  # fmt: skip
    evaluations = [load_evaluation(tmp_path / record["id"]) for record in records]
    seeds = collection.seeds_of(records, entries_of(evaluations, "05_evaluation-a"))
    assert seeds["seeds"].tolist() == ["0", "0, 4", "0, 4", "2"]
    assert seeds["trained"].tolist() == ["no", "here", "here", "here"]
    assert seeds["rank1"].tolist() == pytest.approx([0.5, 0.7, 0.7, 0.9])
    assert seeds["rank1_spread"].iloc[1] == pytest.approx(0.02**0.5)
    assert "Rank-1, SD over seeds, %" in readable(seeds)
    (said,) = collection.seed_cautions(seeds)
    assert said.startswith("Trained with one seed only: tiny (04-d).")
    assert collection.seed_cautions(seeds.iloc[:3]) == []
    # three trainings of other seeds, each evaluated by 05, are one model of three seeds; its draws' seed is another
    evaluated = [
        run_of(f"05_evaluation-{n}", 0, 0.5 + n / 10, trained_run="latest", batch_size=1)
        | {"inputs": {"03_image_finetune": f"03_image_finetune-{name}"}}
        for n, name in enumerate("bc")
    ]  # fmt: skip
    other = run_of("05_evaluation-w", 0, 0.4, weights="theirs.pt")
    evaluations = [load_evaluation(tmp_path / record["id"]) for record in (*evaluated, other)]
    seeds = collection.seeds_of([*records, *evaluated, other], entries_of(evaluations, "05_evaluation-0"))
    assert seeds["seeds"].tolist() == ["0, 4", "0, 4", "not known"]
    assert seeds["trained"].tolist() == ["here", "here", "elsewhere"]
    assert readable(seeds)["number of seeds"].tolist() == ["2", "2", ""]
    assert seeds["rank1"].tolist() == pytest.approx([0.55, 0.55, 0.4])
    assert collection.seed_cautions(seeds) == [
        "Trained elsewhere, with seeds that are not known here: tiny (05-w)."
    ]  # fmt: skip
