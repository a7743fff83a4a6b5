"""Intervals and the test over people: by hand, against plain loops and scipy, and by simulation."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.intervals import (
    Interval,
    identity_interval,
    mean_interval,
    mean_of_two,
    paired_difference,
    share_interval,
)
from tests.simulated_people import CEILING, COUNTS, DRAWS, MIDDLE, simulated, two_alike

MEASURES = ("rank-1", "mAP")


def coverage(n: int, counts: str, measure: str, mean: float, alike: float | str, data_sets: int) -> float:
    """Share of simulated data sets whose interval holds the true mean."""
    sums, queries, truth = simulated(n, counts, measure, mean, alike, data_sets)
    found = share_interval(sums.T, queries)
    return float(((found.low <= truth + 1e-9) & (truth - 1e-9 <= found.high)).mean())


def false_alarms(sums: np.ndarray, queries: np.ndarray, samples: int = 999) -> float:
    """Share of simulated pairs of equally good models, (data_sets, n), of whom the test says p < .05."""
    # the draws of a query are one row: the test takes sums of people
    return float(np.mean(paired_of_sums(sums, queries, samples).p_value < 0.05))


def paired_of_sums(sums: np.ndarray, queries: np.ndarray, samples: int = 999):
    rows = (queries / DRAWS).astype(int)
    values = np.repeat((sums / queries).T, rows, axis=0)
    return paired_difference(
        values, np.broadcast_to(0.0, values.shape), np.repeat(np.arange(len(queries)), rows), samples
    )


def test_ten_people_of_whom_nobody_is_missed():
    # as of 10 trials: t with 9 degrees of freedom is 2.2622, and 10 / (10 + 2.2622²) = 0.6615
    found = identity_interval(np.ones(40), np.arange(40) % 10)
    assert (found.estimate, found.low, found.high) == pytest.approx((1, 0.6615, 1), abs=5e-5)
    assert found.n_identities == 10
    nothing = identity_interval(np.zeros(40), np.arange(40) % 10)
    assert (nothing.low, nothing.high) == pytest.approx((0, 1 - 0.6615), abs=5e-5)


def test_the_interval_of_a_mean_equals_plain_loops():
    rng = np.random.default_rng(2)
    people = np.repeat(["c", "a", "d", "b"], [3, 1, 7, 4])
    values = rng.random(15)
    found = identity_interval(values, people)
    mean, names = values.mean(), sorted(set(people))
    w = {name: sum(people == name) / 15 for name in names}
    squares = sum(w[name] ** 2 for name in names)
    hits = [values[people == name].sum() for name in names]
    misses = [(1 - values[people == name]).sum() for name in names]
    variance = sum(
        w[name] ** 2 * (values[people == name].mean() - mean) ** 2 / (1 - 2 * w[name] + squares) for name in names
    )
    rho = variance / squares / (mean * (1 - mean))
    worth = min(sum(x) ** 2 / sum(v**2 for v in x) for x in (hits, misses))
    trials = 1 / squares / ((worth**2 * rho + 1) / (worth**2 + 1))
    t = stats.t.ppf(0.975, max(1 / squares - 1, 4 - 1))  # those of four people: fewer than ten
    # Wilson's ends are where the mean is t standard errors off
    for end in (found.low, found.high):
        assert abs(mean - end) == pytest.approx(t * np.sqrt(end * (1 - end) / trials))
    assert found.low < mean < found.high


def test_of_people_who_are_all_right_or_all_wrong_it_is_wilsons():
    hits = np.array([1.0] * 60 + [0.0] * 40)
    found = identity_interval(np.repeat(hits, 5), np.repeat(np.arange(100), 5))
    wilson = stats.binomtest(60, 100).proportion_ci(method="wilson")
    # Student's t for 1.96 and the variance over n - 1 for that over n make it 2 % wider
    assert found.high - found.low == pytest.approx((wilson.high - wilson.low) * 1.018, rel=0.005)


def test_columns_are_counted_at_once_and_a_row_without_a_match_is_left_out():
    values = np.array([[1, 0.5], [np.nan, 0.2], [0, 0.7], [1, 1]])
    people = np.array(["a", "a", "b", "c"])
    both = identity_interval(values, people)
    alone = identity_interval(values[[0, 2, 3], 1], people[[0, 2, 3]])
    assert (both.low[1], both.high[1]) == (alone.low, alone.high)
    assert both.columns is not None and both[0].estimate == pytest.approx(2 / 3)


def test_one_of_twelve_who_has_most_photographs_counts_as_few_people_whose_t_is_that_of_ten():
    counts = np.array([200.0] + [1.0] * 11)
    found = share_interval((counts / 2)[:, None], counts)
    u = counts.sum() ** 2 / (counts**2).sum()  # 1.11: its own 0.11 degrees of freedom would leave nothing but 0..1
    trials = u / (1 / (u**2 + 1))  # nobody differs, and u people say so
    spread = stats.t.ppf(0.975, 9) ** 2 / trials
    assert found.high[0] - found.low[0] == pytest.approx(np.sqrt(spread + spread**2) / (1 + spread))


def test_the_mean_of_two_rates_has_the_hypotenuse_of_their_distances():
    fmr, fnmr = Interval(0.01, 0.004, 0.04, 48), Interval(0.14, 0.05, 0.32, 29)
    found = mean_of_two(fmr, fnmr)
    assert found.estimate == pytest.approx(0.075)
    assert found.low == pytest.approx(0.075 - np.sqrt(0.006**2 + 0.09**2) / 2)
    assert found.high == pytest.approx(0.075 + np.sqrt(0.03**2 + 0.18**2) / 2)
    assert found.n_identities == 48
    none = mean_of_two(Interval.unknown(0.0, 5), Interval.unknown(1.0, 5))
    assert none.estimate == 0.5 and np.isnan([none.low, none.high]).all()


def test_one_person_has_no_interval_and_one_who_outweighs_all_has_one_that_says_nothing():
    alone = identity_interval([1.0, 0.0], ["a", "a"])
    assert alone.estimate == 0.5 and np.isnan([alone.low, alone.high]).all()
    heavy = identity_interval([1.0] * 500 + [0.0], ["a"] * 500 + ["b"])
    assert heavy.high - heavy.low > 0.99


def test_a_claim_needs_ten_people_and_as_many_errors_as_they_can_show():
    def supported(hits: int, people: int) -> bool:
        return bool(identity_interval(np.arange(people) < hits, np.arange(people)).supported)

    assert not supported(6, 9) and supported(6, 10)
    # by the rule of three, 71 people show no error rate below 3 / 71
    assert supported(68, 71) and not supported(69, 71) and not supported(71, 71)
    assert supported(3, 71) and not supported(2, 71)


def test_three_people_who_all_gain_are_p_one_in_four():
    people = np.arange(30) % 3
    found = paired_difference(np.ones(30), np.zeros(30), people)
    assert found.p_value == 0.25  # two of eight choices of signs are as far from 0
    assert (found.estimate, found.low, found.high) == (1, -1, 1)
    # of six people 2 of 64, so .03: from there on the interval says something
    six = paired_difference(np.full(30, 0.5), np.zeros(30), np.arange(30) % 6)
    assert six.p_value == 2 / 64
    assert (six.low, six.high) == (0.5, 0.5)


@pytest.mark.parametrize("n", [3, 6, 9])
def test_the_exact_test_is_scipys_and_its_interval_holds_what_it_does_not_reject(n):
    rng = np.random.default_rng(n)
    people = np.repeat(np.arange(n), rng.integers(1, 9, n))
    first, second = rng.integers(0, 9, (2, len(people))) / 8  # scipy misses ties of sums that are rounded
    found = paired_difference(first, second, people)
    sums = np.bincount(people, first - second)
    scipys = stats.permutation_test((sums,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert found.p_value == pytest.approx(scipys.pvalue)
    counts, signs = np.bincount(people), np.array(list(product([1, -1], repeat=n)))
    for offset in np.linspace(-1, 1, 401):
        shifted = sums - offset * counts
        p = np.mean(np.abs(signs @ shifted) >= abs(shifted.sum()) - 1e-9)
        assert (p > 0.05) == (found.low <= offset <= found.high), offset


def test_of_many_people_choices_of_signs_are_drawn_and_the_one_found_counts_as_one_more():
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(30), 4)
    first, second = rng.integers(0, 2, (2, 120)).astype(float)
    found = paired_difference(first, second, people, samples=400, seed=8)
    sums = np.bincount(people, first - second)
    flips = np.random.default_rng(8).integers(0, 2, (400, 30))
    as_far = sum(abs(sum(sums * (1 - 2 * row))) >= abs(sums.sum()) for row in flips)
    assert found.p_value == pytest.approx((1 + as_far) / 401)
    assert paired_difference(np.ones(120), np.zeros(120), people, samples=400).p_value == 1 / 401
    assert paired_difference(first, first, people, samples=400).p_value == 1


def test_p_is_at_most_005_just_where_the_interval_leaves_out_0_and_swapping_turns_the_sign():
    for n in (8, 25):
        sums, queries = two_alike(n, "Zipf", "rank-1", 0.7, False, 300)
        found, turned = paired_of_sums(sums + queries * 0.1, queries), paired_of_sums(-sums - queries * 0.1, queries)
        outside = (found.low > 0) | (found.high < 0)
        np.testing.assert_array_equal(outside, found.p_value <= 0.05)
        assert 0.02 < outside.mean() < 0.98
        np.testing.assert_array_equal(turned.p_value, found.p_value)
        np.testing.assert_allclose([turned.low, turned.high], [-found.high, -found.low])


def test_few_people_near_the_ceiling_are_covered_where_a_percentile_is_at_79_percent():
    assert coverage(10, "even", "rank-1", 0.95, 0.15, 1000) >= 0.93
    assert coverage(20, "11k", "mAP", 0.95, 0.15, 1000) >= 0.93


def test_two_equally_good_models_differ_in_one_of_twenty():
    for n in (3, 10, 20):
        assert false_alarms(*two_alike(n, "11k", "rank-1", 0.95, False, 1000)) <= 0.06


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, 10, 20, 71])
def test_intervals_cover_the_truth_whatever_the_counts_and_the_ceiling(n):
    found = {
        (counts, measure, *setting): coverage(n, counts, measure, *setting, 2000)
        for counts in COUNTS
        for measure in MEASURES
        for setting in (*MIDDLE, *CEILING)
    }
    least = min(found, key=lambda setting: found[setting])
    assert found[least] >= 0.92 - 0.006, (least, found[least])  # three standard errors of the simulation are 1.8 %
    assert np.mean(list(found.values())) >= 0.95
    if n == 71:
        assert np.mean([0.925 <= share <= 0.975 for share in found.values()]) > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("n", [3, 5, 10, 20, 71])
def test_the_test_holds_its_level_whatever_the_counts_and_the_ceiling(n):
    for counts in COUNTS:
        for measure in MEASURES:
            for mean in (0.6, 0.85, 0.95, 0.99):
                for shared in (True, False):
                    found = false_alarms(*two_alike(n, counts, measure, mean, shared, 2000))
                    assert found <= 0.06, (counts, measure, mean, shared, found)


@pytest.mark.parametrize(
    ("values", "identities", "words"),
    [
        ([0.5, 1.5], ["a", "b"], "outside 0..1"),
        ([0.5, np.inf], ["a", "b"], "without infinities"),
        ([0.5], ["a", "b"], "1 values but 2 identities"),
    ],
)
def test_bad_values_are_named(values, identities, words):
    with pytest.raises(EvaluationError, match=words):
        identity_interval(values, identities)


def test_the_interval_of_a_mean_of_folds_is_students():
    values = [0.1, 0.4, 0.35, 0.2]
    wanted = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    np.testing.assert_allclose(mean_interval(values), wanted)
