import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from handclip_lib.analysis.comparison import DIFFERENCES, FIGURES
from handclip_lib.evaluation.intervals import Interval
from handclip_lib.plots import comparison as plots
from handclip_lib.plots.style import COLOURS

LITERAL = r"$x_1$ <b>"


def interval(estimate) -> Interval:
    estimate = np.asarray(estimate, float)
    return Interval(estimate, estimate - 0.05, np.minimum(estimate + 0.04, 1), 30)


@pytest.fixture
def compared() -> pd.DataFrame:
    table = pd.DataFrame(index=range(3), columns=[*FIGURES, *DIFFERENCES[1:], "run"], dtype=float)
    table = table.astype({"model": object, "run": object})
    table["model"], table["run"] = [LITERAL, "tuned", "trivial baseline: pixels"], ["05_a", "03_b", "05_a"]
    table["rank1"], table["rank1_low"], table["rank1_high"] = [0.6, 0.8, 0.3], [0.5, 0.7, 0.2], [0.7, 0.85, 0.4]
    for name in ("rank1", "map"):
        table.loc[1:, f"{name}_gain"], table.loc[1:, f"{name}_p_holm"] = [0.2, -0.3], [0.01, 0.2]
        table.loc[1:, f"{name}_gain_low"], table.loc[1:, f"{name}_gain_high"] = [0.1, -0.5], [0.25, 0.05]
    return table


def test_forest_draws_figures_and_gains_in_percent_and_fills_the_sure_ones(compared, drawn):
    figure = plots.forest(compared)
    left, right = figure.axes
    bar = left.containers[0]
    assert bar[0].get_xdata() == pytest.approx([60, 80, 30])
    np.testing.assert_allclose([segment[:, 0] for segment in bar[2][0].get_segments()], [[50, 70], [70, 85], [20, 40]])
    gains = [(c[0].get_xdata().tolist(), c[0].get_mfc()) for c in right.containers if len(c[0].get_xdata())]
    assert [(values, to_hex(colour)) for values, colour in gains] == [
        (pytest.approx([20]), COLOURS[0].lower()), (pytest.approx([-30]), "#ffffff"),
        (pytest.approx([20]), COLOURS[1].lower()), (pytest.approx([-30]), "#ffffff"),
    ]  # fmt: skip
    assert right.containers[0][2][0].get_segments()[0][:, 0] == pytest.approx([10, 25])
    texts = drawn(figure)
    assert "gain over the first row" in texts and LITERAL in texts
    assert left.get_ylim()[0] > left.get_ylim()[1], "the reference is at the top"


def test_forest_draws_an_interval_that_rounding_put_beside_its_estimate(compared, drawn):
    alike = np.nextafter(0.2, 1)  # every query gains 0.2: the mean of a resample is 0.2 but for the last bit
    compared.loc[1, ["map_gain", "map_gain_low", "map_gain_high"]] = [0.2, alike, alike]
    drawn(plots.forest(compared))


def test_cmc_overlay_is_in_percent_with_bands_and_tells_eight_runs_apart(drawn):
    curves = {f"run {n}": interval(np.linspace(0.3 + 0.05 * n, 1, 20)) for n in range(8)} | {LITERAL: interval([0.5])}
    figure = plots.cmc_overlay(curves, 71)
    lines = figure.axes[0].get_lines()
    for line, cmc in zip(lines, curves.values(), strict=True):
        np.testing.assert_allclose(line.get_ydata(), 100 * cmc.estimate)
        assert line.get_xdata()[0] == 1
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 9
    texts = drawn(figure)
    assert "gallery of 71 images" in texts
    assert f"{LITERAL} (50.0 %)" in texts


@pytest.mark.parametrize(
    ("values", "scale", "ticks"),
    [
        ([1e-5, 1e-5, 1e-3], "log", ["1e-05", "0.001"]),
        ([2, 2, 8], "linear", ["2", "8"]),
        (["adam", "adam", LITERAL], "linear", ["adam", LITERAL]),
        ([False, False, True], "linear", ["False", "True"]),
    ],
)
def test_a_sweep_has_a_line_a_measure_and_a_dot_a_run(values, scale, ticks, drawn):
    table = pd.DataFrame({"value": values, "rank1": [0.5, 0.7, 0.8], "map": [0.6, 0.8, 0.9]})
    figure = plots.sweep_effect(table, "learning_rate")
    (axis,) = figure.axes
    dots, means = axis.get_lines()[::2], axis.get_lines()[1::2]
    assert [line.get_ydata().tolist() for line in dots] == [pytest.approx([50, 70, 80]), pytest.approx([60, 80, 90])]
    assert [line.get_ydata().tolist() for line in means] == [pytest.approx([60, 80]), pytest.approx([70, 90])]
    drawn(figure)
    assert axis.get_xscale() == scale
    assert [label.get_text() for label in axis.get_xticklabels()] == ticks
    assert "3 runs" in axis.get_xlabel()


def test_seeds_have_a_mean_and_a_standard_deviation(drawn):
    table = pd.DataFrame({"group": [LITERAL, LITERAL, "b", "b"], "rank1": [0.5, 0.7, 0.2, 0.2], "map": [0.8] * 4})
    figure = plots.seed_spread(table)
    bars = figure.axes[0].containers
    assert bars[0][0].get_xdata() == pytest.approx([60])
    ends = bars[0][2][0].get_segments()[0][:, 0]
    assert ends[1] - ends[0] == pytest.approx(2 * 100 * np.std([0.5, 0.7], ddof=1))
    assert f"{LITERAL}, 2 seeds" in drawn(figure)


def test_draws_are_lines_with_their_spread_in_the_legend(drawn):
    draws = {LITERAL: pd.Series([0.5, 0.7], index=[0, 1]), "one": pd.Series([0.4], index=[0])}
    figure = plots.draw_variance(draws)
    assert figure.axes[0].get_lines()[0].get_ydata().tolist() == [50, 70]
    texts = drawn(figure)
    assert f"{LITERAL}: 60.0 (sd 14.1)" in texts  # (70 - 50) / √2
    assert "one: 40.0 (one draw)" in texts


@pytest.mark.parametrize(("seconds", "scale"), [([20.0, 60.0], "linear"), ([5.0, 900.0], "log")])
def test_cost_sets_accuracy_against_seconds(seconds, scale, drawn):
    table = pd.DataFrame(
        {"id": ["05_evaluation-tiny-abcd", "03_image_finetune-tiny-ef01"], "rank1": [0.6, 0.8],
         "rank1_low": [0.5, 0.7], "rank1_high": [0.7, 0.9], "notebook": ["05_evaluation", "03_image_finetune"],
         "seconds": seconds}
    )  # fmt: skip
    figure = plots.cost_accuracy(table)
    (axis,) = figure.axes
    found = sorted((bar[0].get_xdata()[0], bar[0].get_ydata()[0]) for bar in axis.containers)
    assert found == [(seconds[0], pytest.approx(60)), (seconds[1], pytest.approx(80))]
    assert {"abcd", "ef01", "03 image finetune"} <= set(drawn(figure))
    assert axis.get_xscale() == scale


def test_maps_colour_the_same_people_in_both_and_the_rest_grey(drawn):
    people = [LITERAL] * 4 + ["b"] * 3 + ["c"] * 2
    rng = np.random.default_rng(0)
    maps = {name: pd.DataFrame({"identity": people, "x": rng.normal(size=9), "y": rng.normal(size=9)}) for name in "pq"}
    figure = plots.embedding_maps(maps, 2)
    for axis, points in zip(figure.axes, maps.values(), strict=True):
        rest, first, second = axis.get_lines()
        assert [len(line.get_xdata()) for line in (rest, first, second)] == [2, 4, 3]
        np.testing.assert_array_equal(first.get_xdata(), points["x"][:4])
        assert (first.get_color(), second.get_color()) == COLOURS[:2]
    assert {LITERAL, "b", "1 other", "p: 9 images"} <= set(drawn(figure))
    many = pd.DataFrame({"identity": [str(n) for n in range(15)], "x": 0.0, "y": 0.0})
    looks = [(line.get_color(), line.get_marker()) for line in plots.embedding_maps({"m": many}, 15).axes[0].lines[1:]]
    assert len(set(looks)) == 15


def test_the_difference_of_two_matrices_is_after_less_before_with_white_at_zero(drawn):
    rng = np.random.default_rng(0)
    before, after = rng.uniform(-1, 1, (6, 6)), rng.uniform(-1, 1, (6, 6))
    people = ["a", "a", "b", "b", "b", "c"]
    figure = plots.similarity_difference(before, after, people, LITERAL)
    picture = figure.axes[0].get_images()[0]
    np.testing.assert_allclose(picture.get_array(), after - before)
    assert picture.get_clim()[0] == -picture.get_clim()[1]
    same = np.array(people)[:, None] == np.array(people)
    off = ~np.eye(6, dtype=bool)
    means = [(after - before)[off & ~same].mean(), (after - before)[off & same].mean()]
    texts = drawn(figure)
    assert f"non-mated (mean {means[0]:+.2f})" in texts and f"mated (mean {means[1]:+.2f})" in texts
    assert LITERAL in texts
    drawn(plots.similarity_difference(before, before, people, "none"))


def test_prompt_norms_are_ordered_means_with_their_range(drawn):
    lengths = {"02_prompt_learning-tiny-aaaa": np.array([[3.0, 5.0], [1.0, 1.0]]), "02_x-bbbb": np.array([[2.0, 4.0]])}
    figure = plots.prompt_norms_of_runs(lengths)
    first, shared = figure.axes[0].get_lines()
    assert first.get_ydata().tolist() == [1, 4]
    assert shared.get_ydata().tolist() == [3, 3]
    assert "02-aaaa: 2 tokens, mean 2.50" in drawn(figure)
