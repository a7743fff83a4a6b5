import numpy as np
import pytest
import torch

from handclip_lib.training.optimizer import one_cycle, warm_up_cosine


def test_it_rises_on_a_line_and_falls_on_half_a_cosine():
    factors = np.array([warm_up_cosine(step, 20, 4) for step in range(20)])
    np.testing.assert_allclose(factors[:4], [0.2, 0.4, 0.6, 0.8])
    assert factors[4] == 1
    np.testing.assert_allclose(factors[4:], (1 + np.cos(np.pi * np.arange(16) / 16)) / 2)


def test_without_a_warm_up_and_with_nothing_else():
    assert warm_up_cosine(0, 10, 0) == 1
    assert warm_up_cosine(3, 4, 4) == 0.8


@pytest.mark.parametrize("steps", [20, 50, 300])
def test_one_cycle_is_torchs(steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        assert one_cycle(step, steps) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6, abs=1e-9)
        optimizer.step()
        if step + 1 < steps:
            scheduler.step()
