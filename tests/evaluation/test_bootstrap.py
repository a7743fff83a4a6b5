import numpy as np
import pytest

from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.bootstrap import identity_bootstrap


def clustered(rng, n=60, per=8):
    """Hits of identities that are easy or hard as a whole; the true mean is 0.6."""
    ease = rng.beta(1.5, 1, n)
    identities = np.repeat(np.arange(n), per)
    return (rng.random(n * per) < ease[identities]).astype(float), identities


def test_the_estimate_is_the_mean_over_queries():
    values, identities = np.array([1, 1, 1, 0, 0.0]), np.array(["a", "a", "a", "b", "c"])
    assert identity_bootstrap(values, identities).estimate == pytest.approx(0.6)


def test_equals_a_plain_loop_over_resampled_identities():
    rng = np.random.default_rng(3)
    values, identities = clustered(rng, 12, 5)
    means = []
    for _ in range(4000):
        drawn = rng.integers(0, 12, 12)
        means.append(np.concatenate([values[identities == i] for i in drawn]).mean())
    interval = identity_bootstrap(values, identities, samples=4000)
    np.testing.assert_allclose([interval.low, interval.high], np.quantile(means, [0.025, 0.975]), atol=0.03)


def test_covers_the_truth_where_resampling_queries_does_not():
    rng = np.random.default_rng(0)
    covered = naive = 0
    for _ in range(300):
        values, identities = clustered(rng)
        interval = identity_bootstrap(values, identities, samples=300)
        covered += interval.low <= 0.6 <= interval.high
        alone = identity_bootstrap(values, np.arange(len(values)), samples=300)
        naive += alone.low <= 0.6 <= alone.high
    assert 0.90 <= covered / 300 <= 0.985
    assert naive / 300 < 0.85


def test_columns_are_resampled_together_and_the_seed_decides():
    values = np.random.default_rng(1).random((30, 2))
    identities = np.arange(30) // 3
    both = identity_bootstrap(values, identities, seed=5)
    assert both.low[1] == identity_bootstrap(values[:, 1], identities, seed=5).low
    assert both.low[1] != identity_bootstrap(values[:, 1], identities, seed=6).low


def test_unmatched_queries_are_left_out():
    values = np.array([1.0, np.nan, 0.0, 1.0])
    assert identity_bootstrap(values, np.array([1, 1, 2, 3])).estimate == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("values", "identities", "options", "words"),
    [
        ([1.0, 0.0], [1, 1], {}, "at least two"),
        ([np.nan, np.nan], [1, 2], {}, "0 identities"),
        ([1.0], [1, 2], {}, "1 values but 2"),
        ([1.0, 0.0], [1, 2], {"samples": 1}, "samples=1"),
        ([1.0, np.inf], [1, 2], {}, "without infinities"),
        ([[[1.0]], [[0.0]]], [1, 2], {}, r"shape \(2, 1, 1\)"),
    ],
)
def test_bad_input_is_named(values, identities, options, words):
    with pytest.raises(EvaluationError, match=words):
        identity_bootstrap(np.array(values), np.array(identities), **options)
