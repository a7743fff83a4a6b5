import numpy as np
import pytest

from handclip_lib.training.schedule import warm_up_cosine


def test_it_rises_on_a_line_and_falls_on_half_a_cosine():
    factors = np.array([warm_up_cosine(step, 20, 4) for step in range(20)])
    np.testing.assert_allclose(factors[:4], [0.2, 0.4, 0.6, 0.8])
    assert factors[4] == 1
    np.testing.assert_allclose(factors[4:], (1 + np.cos(np.pi * np.arange(16) / 16)) / 2)
    assert warm_up_cosine(19, 20, 4, least=0.1) == pytest.approx(0.1 + 0.9 * factors[19])


def test_without_a_warm_up_and_with_nothing_else():
    assert warm_up_cosine(0, 10, 0) == 1
    assert warm_up_cosine(3, 4, 4) == 0.8
