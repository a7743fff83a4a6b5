"""Paired comparisons against plain loops, by hand, and by simulation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from handclip_lib.analysis.comparison import (
    DIFFERENCES,
    FIGURES,
    Entry,
    compare_pair,
    comparison_cautions,
    comparison_conclusion,
    comparison_table,
    entries_of,
    holm,
    won_and_lost,
)
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.intervals import identity_interval, paired_difference
from handclip_lib.evaluation.ranking.protocol import evaluate_split
from handclip_lib.evaluation.tables import is_share

SIMULATIONS, PEOPLE = 2000, 60


def simulated(seed: int, effect: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hits of two models on many data sets, a column each, and whose the queries are.

    People are easy or hard for both models, and a little more so for one of them; they have 2 to 20 queries. The
    first model is right more often by 2 · effect.
    """
    rng = np.random.default_rng(seed)
    people = np.repeat(np.arange(PEOPLE), rng.integers(2, 21, PEOPLE))
    ease = 0.2 + 0.6 * rng.beta(2, 1.5, (PEOPLE, SIMULATIONS))
    own = rng.uniform(-0.15, 0.15, (PEOPLE, SIMULATIONS)) + effect
    first = rng.random((len(people), SIMULATIONS)) < (ease + own)[people]
    second = rng.random((len(people), SIMULATIONS)) < (ease - own)[people]
    return first.astype(float), second.astype(float), people


def test_what_both_models_find_hard_cancels_out():
    first, second, people = simulated(0, effect=0.05)
    truth = 0.2 + 0.6 * 2 / 3.5 + 0.05  # mean of the beta distribution is 2 / (2 + 1.5)
    alone = identity_interval(first, people)
    assert 0.93 <= np.mean((alone.low <= truth) & (truth <= alone.high)) <= 0.97
    paired = paired_difference(first, second, people, samples=999)
    assert 0.93 <= np.mean((paired.low <= 0.1) & (paired.high >= 0.1)) <= 0.97
    unpaired = np.hypot(alone.high - alone.low, alone.high - alone.low)
    assert np.mean(paired.high - paired.low) < 0.9 * unpaired.mean()
    assert np.mean(paired.p_value < 0.05) > 0.75


def test_p_values_are_uniform_where_there_is_no_difference():
    first, second, people = simulated(2)
    p = paired_difference(first, second, people, samples=999).p_value
    for alpha in (0.05, 0.2, 0.5, 0.8):
        assert np.mean(p <= alpha) == pytest.approx(alpha, abs=0.04), alpha
    assert 0.03 <= np.mean(p < 0.05) <= 0.06


def test_holm_by_hand():
    # sorted 0.01, 0.02, 0.03, 0.5 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.5
    np.testing.assert_allclose(holm([0.02, 0.5, 0.01, 0.03]), [0.06, 0.5, 0.04, 0.06])
    # the second, 0.011 · 2 = 0.022, is not less than the first, 0.01 · 3 = 0.03; 0.9 · 1 = 0.9
    np.testing.assert_allclose(holm([0.01, 0.011, 0.9]), [0.03, 0.03, 0.9])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1, 1])
    assert holm([0.04]).tolist() == [0.04]
    assert len(holm([])) == 0


@pytest.fixture(scope="module")
def runs(tmp_path_factory, saved_runs) -> list[Entry]:
    tmp_path = tmp_path_factory.mktemp("runs")
    quiet, _, _ = saved_runs.evaluated(tmp_path / "03_image_finetune-tiny-drawn-aaaa1111", 0.5, 1, name="tiny, tuned")
    loud, _, _ = saved_runs.evaluated(tmp_path / "05_evaluation-tiny-drawn-bbbb2222", 1.5, 2)
    return entries_of([quiet, loud], loud.run)


def test_entries_begin_with_the_reference_and_end_with_its_floors(runs):
    assert [entry.label for entry in runs] == [
        "tiny (05-bbbb2222)",
        "tiny, tuned (03-aaaa1111)",
        "trivial baseline: pixels",
    ]
    assert runs[2].evaluation is runs[0].evaluation
    with pytest.raises(EvaluationError, match=r"reference='05_x' is not among .*; choose from 05_evaluation"):
        entries_of([runs[0].evaluation], "05_x")


def test_the_table_holds_the_figures_of_each_and_the_gain_over_the_first(runs):
    table = comparison_table(runs, samples=500, seed=4)
    assert set(table.columns) == {*FIGURES, *DIFFERENCES, "same_as", "run"}
    for row, entry in zip(table.to_dict("records"), runs, strict=True):
        queries = entry.queries("aspect")
        interval = identity_interval(queries["hit"], queries["identity"])
        assert (row["rank1"], row["rank1_low"], row["rank1_high"]) == pytest.approx(
            (interval.estimate, interval.low, interval.high)
        )
    assert table.iloc[0][[*DIFFERENCES[1:]]].isna().all()
    gains = table["rank1"] - table["rank1"][0]
    np.testing.assert_allclose(table["rank1_gain"][1:], gains[1:], atol=1e-12)
    np.testing.assert_allclose(table["map_gain"][1:], (table["map"] - table["map"][0])[1:], atol=1e-12)
    raw = table.loc[1:, ["rank1_p", "map_p"]].to_numpy().ravel()
    np.testing.assert_allclose(table.loc[1:, ["rank1_p_holm", "map_p_holm"]].to_numpy().ravel(), holm(raw))
    assert all(table[name].dropna().abs().le(1).all() for name in table if is_share(name))


def test_a_model_that_is_there_twice_is_one_comparison_and_told(runs, tmp_path: Path, saved_runs):
    again, _, _ = saved_runs.evaluated(tmp_path / "05_again-tiny-drawn-dddd4444", 0.5, 1, name="tiny, tuned")
    entries = entries_of([*(entry.evaluation for entry in runs[:2]), again], runs[0].evaluation.run)
    once, twice = comparison_table(runs, samples=500), comparison_table(entries, samples=500)
    assert twice["same_as"].tolist() == ["", "", runs[1].label, ""]
    holm_of = ["rank1_p_holm", "map_p_holm"]
    pd.testing.assert_frame_equal(twice.loc[[0, 1, 3], holm_of].reset_index(drop=True), once[holm_of])
    assert twice.loc[2, holm_of].tolist() == twice.loc[1, holm_of].tolist()
    itself = comparison_table([runs[0], entries[2], replace(runs[0], label="again")], samples=500)
    assert itself["same_as"].tolist() == ["", "", runs[0].label]
    assert itself.loc[2, ["rank1_gain", "rank1_p", "rank1_p_holm"]].tolist() == [0, 1, 1]
    assert itself.loc[1, "rank1_p_holm"] == min(1, 2 * itself.loc[1, ["rank1_p", "map_p"]].min())


def test_the_people_of_every_figure_are_counted(runs):
    table = comparison_table(runs, samples=500)
    queries = runs[0].queries("aspect")
    assert set(table["n_identities"]) == {queries["identity"].nunique()}
    assert set(table["n_query"]) == {len(queries) / queries["draw"].nunique()}
    least = 2.0 ** (1 - queries["identity"].nunique())
    assert table["rank1_p"].min() >= least


def test_one_run_alone_is_compared_with_its_floors_and_a_single_entry_with_nobody(runs):
    alone = comparison_table(runs[:1], samples=100)
    assert len(alone) == 1
    assert alone["rank1_p_holm"].isna().all()
    assert comparison_conclusion(alone).endswith("people first; nothing it is compared with finds more")


def test_the_conclusion_by_hand():
    gained = {f"rank1_{end}": [np.nan, value] for end, value in
              (("gain", 0.1), ("gain_low", -0.02), ("gain_high", 0.18), ("p_holm", 4e-4))}  # fmt: skip
    of_each = {"model": ["a", "b"], "rank1": [0.5, 0.6], "rank1_low": [0.4, 0.5], "rank1_high": [0.6, 0.7],
               "n_identities": [30, 30]}  # fmt: skip
    assert comparison_conclusion(pd.DataFrame(of_each | gained)) == (
        "b finds 60.0 % (50.0–70.0) of the queries of 30 people first; +10.0 percentage points (-2.0 to +18.0) over a, "
        "p ≤ 0.001 (Holm): a difference"
    )


def test_few_people_and_a_baseline_that_wins_are_said_of_a_comparison():
    def said(n: int, model: str, supported: bool) -> list[str]:
        row = {"model": [model], "rank1": [0.9], "n_identities": [n], "supported": [supported]}
        return comparison_cautions(pd.DataFrame(row))

    assert said(30, "tiny", True) == []
    (few,) = said(12, "tiny", False)
    assert few == "12 people can show no error rate below 25.0 %: rank-1 is no claim."
    only, least, floor = said(3, "trivial baseline: pixels", False)
    assert only.startswith("Only 3 people") and floor.startswith("No model is better than a trivial baseline")
    assert least == "Of 3 people no p is below 0.25, and of fewer than six none is below .05."


def test_cmc_and_draws_are_those_of_the_evaluation(tmp_path: Path, saved_runs):
    split = saved_runs.small_split()
    saved, results, features = saved_runs.evaluated(tmp_path / "05_x-1", split=split)
    result = evaluate_split(features["tiny"], split, "all")
    found = Entry("x", saved, "tiny").cmc("all")
    np.testing.assert_array_equal(found.estimate, result.cmc.estimate)
    np.testing.assert_array_equal(found.low, result.cmc.low)
    draws = Entry("x", saved, "tiny").draws("aspect")
    np.testing.assert_allclose(draws, [draw.rank(1) for draw in results[0].draws])


def test_another_split_is_refused_with_both_checksums(runs, tmp_path: Path, saved_runs):
    other, _, _ = saved_runs.evaluated(tmp_path / "05_other-cccc3333", split=saved_runs.small_split(seed=1))
    with pytest.raises(EvaluationError) as caught:
        compare_pair(Entry("other", other, "tiny"), runs[0])
    assert all(word in str(caught.value) for word in (other.checksum[:12], runs[0].evaluation.checksum[:12]))
    assert "cannot be compared" in str(caught.value)


def test_other_queries_of_the_same_split_are_refused(runs, tmp_path: Path):
    evaluation = runs[1].evaluation
    rows = evaluation.per_query
    fewer = Entry(
        "x", evaluation.__class__(**{**vars(evaluation), "per_query": rows.drop(rows.index[2])}), "tiny, tuned"
    )
    path = rows["path"].iloc[2]
    with pytest.raises(
        EvaluationError, match=rf"same queries: 1 queries are in one only, such as '{path}'.*same burst"
    ):
        compare_pair(fewer, runs[0])


def test_rows_are_matched_by_draw_and_photograph_not_by_their_order(runs):
    evaluation = runs[1].evaluation
    shuffled = evaluation.per_query.sample(frac=1, random_state=0)
    mixed = Entry("x", evaluation.__class__(**{**vars(evaluation), "per_query": shuffled}), "tiny, tuned")
    ordered, again = compare_pair(runs[1], runs[0], samples=200), compare_pair(mixed, runs[0], samples=200)
    assert again == ordered


def test_won_and_lost_are_the_queries_that_one_of_them_gets_right(runs):
    found = won_and_lost(runs[1], runs[0])
    left = runs[1].queries("aspect").set_index(["draw", "path"])["hit"]
    right = runs[0].queries("aspect").set_index(["draw", "path"])["hit"]
    wanted = {"both": (1, 1), "first": (1, 0), "second": (0, 1), "neither": (0, 0)}
    assert sum(len(part) for part in found.values()) == len(left)
    for name, part in found.items():
        assert len(part) > 0, name
        for row in part.itertuples():
            assert (left[row.draw, row.path], right[row.draw, row.path]) == wanted[name]
    assert found["first"]["rank_second"].is_monotonic_decreasing
    assert (found["first"]["rank_first"] == 1).all()


@pytest.mark.parametrize(
    ("first", "second", "options", "words"),
    [
        ([1.0, 0.0], [1.0], {}, "pairs are wanted"),
        ([1.0, 0.0], [1.0, 0.0], {"samples": 0}, "samples=0"),
    ],
)
def test_bad_input_is_named(first, second, options, words):
    with pytest.raises(EvaluationError, match=words):
        paired_difference(np.array(first), np.array(second), np.arange(len(first)), **options)
