import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

SCRIPT = Path(__file__).with_name("on_processes.py")


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_train_as_one_with_the_same_batch(tmp_path, count):
    spec = importlib.util.spec_from_file_location("on_processes", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "one").mkdir()
    (tmp_path / "several").mkdir()
    module.train(tmp_path / "one")
    launch = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count), str(SCRIPT),
        str(tmp_path / "several"),
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[2])}
    done = subprocess.run(launch, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count(f"one of {count} processes") == count
    one, several = (pd.read_csv(tmp_path / name / "history.csv") for name in ("one", "several"))
    assert list(one) == list(several)
    assert len(one) == 5
    for name in one.columns.drop("seconds"):
        np.testing.assert_allclose(several[name], one[name], rtol=1e-5, err_msg=name)
    weights = [safetensors.torch.load_file(tmp_path / name / "weights.st") for name in ("one", "several")]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-5)
