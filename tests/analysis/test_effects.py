from pathlib import Path

import numpy as np
import pytest
import torch

from handclip_lib.analysis.effects import prompt_lengths, seeds_table, sweep_table
from handclip_lib.errors import TrainingError
from handclip_lib.training.state import save_checkpoint


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
