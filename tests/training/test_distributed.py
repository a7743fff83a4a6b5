import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

from handclip_lib.training.launch import launch_processes

SCRIPT = Path(__file__).with_name("on_processes.py")


def on_one(folder: Path, **options) -> None:
    spec = importlib.util.spec_from_file_location("on_processes", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder.mkdir(exist_ok=True)
    module.train(folder, **options)


def on_several(count: int, folder: Path, **options) -> tuple[bool, str]:
    folder.mkdir(exist_ok=True)
    heard: list[str] = []
    command = [sys.executable, str(SCRIPT), str(folder), json.dumps(options)]
    return launch_processes(command, count, heard.append), "".join(heard)


@pytest.fixture(autouse=True)
def this_library(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(SCRIPT.parents[2]))


def same(one: Path, several: Path, epochs: int, rtol: float = 5e-5) -> None:
    rows = [pd.read_csv(folder / "history.csv") for folder in (one, several)]
    assert list(rows[0]) == list(rows[1])
    assert len(rows[0]) == len(rows[1]) == epochs + 1
    for name in rows[0].columns.drop("seconds"):
        np.testing.assert_allclose(rows[1][name], rows[0][name], rtol=rtol, atol=1e-10, err_msg=name)
    weights = [safetensors.torch.load_file(folder / "weights.st") for folder in (one, several)]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "size"),
    [(2, {}), (3, {"n_identities": 2, "n_images": 1, "epochs": 2})],
    ids=["2", "3, of which a batch of two images leaves one without any"],
)
def test_several_processes_train_as_one_with_the_same_batch(tmp_path, count, size):
    on_one(tmp_path / "one", **size)
    well, said = on_several(count, tmp_path / "several", **size)
    assert well, said[-3000:]
    assert said.count(f"one of {count} processes") == count
    # the neck's norm over two images gives ±1 whatever they are: its gradient is what rounding leaves
    same(tmp_path / "one", tmp_path / "several", size.get("epochs", 4), 1e-3 if size else 5e-5)


@pytest.mark.slow
def test_several_processes_stay_near_the_frozen_model_as_one_does(tmp_path):
    options = {
        "start_weight": 0.1, "distillation_weight": 0.5, "layer_decay": 0.8, "interpolation": -1, "lora_rank": 2,
        "encoded_at_once": 2, "epochs": 2,
    }  # fmt: skip
    on_one(tmp_path / "one", **options)
    well, said = on_several(2, tmp_path / "several", **options)
    assert well, said[-3000:]
    same(tmp_path / "one", tmp_path / "several", 2)


@pytest.mark.slow
def test_the_main_process_stops_all_and_they_go_on_to_what_one_would_have(tmp_path):
    on_one(tmp_path / "one")
    well, said = on_several(2, tmp_path / "several", stop_after=2)
    assert well, said[-3000:]
    assert said.count("one of 2 processes: 2 epochs") == 2
    well, said = on_several(2, tmp_path / "several")
    assert well, said[-3000:]
    assert said.count("one of 2 processes: 4 epochs") == 2
    same(tmp_path / "one", tmp_path / "several", 4)


@pytest.mark.slow
def test_processes_that_do_not_share_the_folder_cannot_go_on(tmp_path):
    well, said = on_several(2, tmp_path, apart=True, stop_after=1)
    assert well, said[-3000:]
    well, said = on_several(2, tmp_path, apart=True)
    assert not well
    assert "is not there for all processes: name a folder on a disk that they share" in said


@pytest.mark.slow
def test_a_process_that_fails_ends_all(tmp_path):
    well, said = on_several(2, tmp_path / "several", raises=True)
    assert not well
    assert "ZeroDivisionError" in said
