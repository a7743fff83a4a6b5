from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from scipy.stats import norm

from handclip_lib.data.splits import make_split
from handclip_lib.data.table import HandTable
from handclip_lib.evaluation.error_curve import ErrorCurve
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.verification.error_rates import verify_models
from handclip_lib.evaluation.verification.menagerie import menagerie
from handclip_lib.evaluation.verification.thresholds import group_figures, open_set_models
from handclip_lib.plots import verification as plots
from handclip_lib.plots.style import COLOURS, QUIET

LITERAL = r"$x_1$ <b> \frac $"


def a_case() -> tuple:
    rows = [
        {"path": f"{i}_{n}.jpg", "identity": str(i), "aspect": "dorsal_r"}
        | {"gender": "male" if i % 13 == 0 else LITERAL, "nail_polish": i % 3 == 0}
        for i in range(40)
        for n in range(5)
    ]
    table = HandTable.build("folder", Path("/photographs"), rows, {})
    split = make_split(table, "dorsal_r", draws=3)
    rng = np.random.default_rng(0)
    centre = {i: rng.normal(size=8) for i in sorted(set(split.images["identity"]))}
    models = {
        name: Features.normalised(
            split.images["path"],
            np.array([centre[i] for i in split.images["identity"]]) + rng.normal(size=(len(split.images), 8)) * noise,
        )
        for name, noise in ((LITERAL, 0.7), ("floor", 1.5))
    }
    return table, split, models


@pytest.fixture(scope="module")
def case() -> tuple:
    return a_case()


@pytest.fixture(scope="module")
def results(case):
    _, split, models = case
    return verify_models(models, split)


def curves(axis, n: int) -> list[tuple[np.ndarray, np.ndarray]]:
    lines = [line for line in axis.get_lines() if len(line.get_xdata()) > 2]
    assert [to_hex(line.get_color()) for line in lines] == [colour.lower() for colour in COLOURS[:n]]
    return [(np.asarray(line.get_xdata()), np.asarray(line.get_ydata())) for line in lines]


def marks(axis) -> list[tuple[float, float, bool]]:
    """Place of each mark, and whether it is filled."""
    return [
        (line.get_xdata()[0], line.get_ydata()[0], line.get_markerfacecolor() != "white")
        for line in axis.get_lines()
        if len(line.get_xdata()) == 1
    ]


def shaded_up_to(axis) -> float:
    (patch,) = [p for p in axis.patches if to_hex(p.get_facecolor()) == plots.SHADE.lower()]
    return patch.get_x() + patch.get_width()


def test_roc_is_percent_accepted_over_fmr_and_grey_where_people_are_few(results, drawn):
    figure = plots.roc_curves(results)
    (axis,) = figure.axes
    for (x, y), result in zip(curves(axis, 2), results, strict=True):
        found = result.curve
        points = set(zip(np.round(found.false_positive, 9), np.round(100 * (1 - found.false_negative), 9), strict=True))
        shown = x > axis.get_xlim()[0]
        assert set(zip(np.round(x[shown], 9), np.round(y[shown], 9), strict=True)) <= points
        assert (x[0], y[0]) == (1, 100)
    assert axis.get_xscale() == "log"
    limit = results[0].curve.lowest_supported
    assert limit == 3 / 190  # 20 people
    assert shaded_up_to(axis) == pytest.approx(limit)
    assert axis.get_xlim()[0] < limit / 5
    expected = [
        (p.false_positive, 100 * (1 - p.false_negative), p.supported) for result in results for p in result.points
    ]
    for (x, y, filled), (fmr, tar, supported) in zip(marks(axis), expected, strict=True):
        assert (x, y) == pytest.approx((max(fmr, axis.get_xlim()[0]), tar))
        assert filled == supported
    assert {supported for *_, supported in expected} == {True, False}
    texts = drawn(figure)
    assert f"{LITERAL} (EER {100 * results[0].curve.eer:.3g} %)" in texts
    assert "too few people (20)" in texts
    assert {"1%", "10%", "100%"} <= set(texts)


def test_steps_never_show_more_than_a_threshold_reaches(results):
    figure = plots.roc_curves(results)
    line = figure.axes[0].get_lines()[0]
    # drawn from the higher FMR to the lower: between two points the rate is that of the lower one
    assert line.get_drawstyle() == "steps-pre"
    assert (np.diff(line.get_xdata()) <= 0).all() and (np.diff(line.get_ydata()) <= 0).all()


def test_det_axes_are_normal_deviates_with_percent_at_the_ticks(results, drawn):
    figure = plots.det_curves(results)
    (axis,) = figure.axes
    drawn(figure)
    for side in (axis.xaxis, axis.yaxis):
        for tick, label in zip(side.get_ticklocs(), side.get_ticklabels(), strict=True):
            assert label.get_text() == f"{100 * norm.cdf(tick):.3g}%"
    for (x, y), result in zip(curves(axis, 2), results, strict=True):
        found = result.curve
        points = set(zip(np.round(found.false_positive, 6), np.round(found.false_negative, 6), strict=True))
        low, high = axis.get_xlim()
        inside = (x > low) & (x < high) & (y > low) & (y < high)
        shown = zip(np.round(norm.cdf(x[inside]), 6), np.round(norm.cdf(y[inside]), 6), strict=True)
        assert inside.sum() > 5 and set(shown) <= points
    assert marks(axis) == [(pytest.approx(norm.ppf(r.curve.eer)),) * 2 + (False,) for r in results]
    assert norm.cdf(shaded_up_to(axis)) == pytest.approx(3 / 190)
    drawn(figure)


def test_a_curve_of_a_million_points_is_thinned_to_what_is_seen():
    kept = plots._visible_steps(np.linspace(0, 1, 10**6), np.linspace(0, 1, 10**6) ** 2)
    assert kept[0] and kept[-1]
    assert 2000 < kept.sum() < 4500


def test_threshold_choice_counts_at_and_between_scores(results, drawn):
    pairs = results[0].pairs
    for threshold in (float(pairs.impostor[3]), 0.123456, float(pairs.genuine.max()) + 1):
        title = plots.threshold_choice(results[0], threshold).get_suptitle()
        assert f" {np.sum(pairs.impostor >= threshold):,} of {len(pairs.impostor):,} non-mated" in title
        assert f" {np.sum(pairs.genuine < threshold):,} of {len(pairs.genuine):,} mated" in title
    figure = plots.threshold_choice(results[0], 0.2)
    assert [line.get_xdata()[0] for line in figure.axes[0].get_lines()] == [0.2]
    assert "threshold: 0.200" in drawn(figure)


def test_open_set_curve_is_fnir_over_fpir(case, drawn):
    _, split, models = case
    results = open_set_models(models, split, targets=(0.5, 0.1))
    figure = plots.open_set_curves(results)
    (axis,) = figure.axes
    for (x, y), result in zip(curves(axis, 2), results, strict=True):
        points = set(
            zip(np.round(result.curve.false_positive, 9), np.round(100 * result.curve.false_negative, 9), strict=True)
        )
        shown = x > axis.get_xlim()[0]
        assert set(zip(np.round(x[shown], 9), np.round(y[shown], 9), strict=True)) <= points
    assert shaded_up_to(axis) == pytest.approx(3 / 10)  # 10 of 20 people are held out
    assert [filled for *_, filled in marks(axis)] == [True, False] * 2
    texts = drawn(figure)
    assert any(text.startswith("10 people with a mate in the gallery of 10, 10 without") for text in texts)


def test_group_bars_show_rates_intervals_counts_and_what_is_small(case, results, drawn):
    table, split, models = case
    threshold = results[1].points[0].threshold
    rows, _ = group_figures(models["floor"], split, table.images, threshold)
    figure = plots.group_bars(rows, LITERAL, threshold)
    for axis, rate in zip(figure.axes, ("rank1", "fmr", "fnmr"), strict=True):
        assert [bar.get_width() for bar in axis.patches] == pytest.approx(list(100 * rows[rate]), nan_ok=True)
        segments = [segment[:, 0] for segment in axis.collections[0].get_segments() if len(segment)]
        intervals = rows[[f"{rate}_low", f"{rate}_high"]].dropna().to_numpy(float)
        np.testing.assert_allclose(segments, 100 * intervals)
        faces = [to_hex(bar.get_facecolor()) for bar in axis.patches]
        for face, small, supported in zip(faces, rows["small"], rows["supported"], strict=True):
            hollow = rate == "fmr" and not supported
            assert face == ("#ffffff" if hollow else QUIET.lower() if small else COLOURS[0].lower())
    assert rows["small"].any() and not rows["small"].all()
    texts = drawn(figure)
    assert f"everybody (20 people, {rows['n_query'][0]:.0f} queries)" in texts
    assert any(text.startswith(f"gender: {LITERAL} (") for text in texts)
    assert any(text.startswith("nail polish: yes (") for text in texts)


def test_a_group_without_pairs_says_so(case, results, drawn):
    table, split, models = case
    images = table.images.copy()
    one = sorted(split.identities("test"))[0]
    images["skin_color"] = np.where(images["identity"] == one, "dark", "fair")
    groups, _ = group_figures(models["floor"], split, images, 0.3, ["skin_color"])
    figure = plots.group_bars(groups, "floor", 0.3)
    assert [text.get_text() for text in figure.axes[1].texts] == [" no pair"]
    assert not figure.axes[0].texts
    drawn(figure)


def test_a_perfect_model_of_very_few_people_can_be_drawn(drawn):
    rows = [{"path": f"{i}_{n}.jpg", "identity": str(i), "aspect": "dorsal_r"} for i in range(4) for n in range(3)]
    split = make_split(HandTable.build("folder", Path("/photographs"), rows, {}), "dorsal_r", "test_only", draws=1)
    codes = split.images["identity"].astype(int).to_numpy()
    found = verify_models({"oracle": Features.normalised(split.images["path"], np.eye(4)[codes])}, split)
    assert found[0].curve.lowest_supported == 0.5  # 3 / 6 pairs
    for figure in (plots.roc_curves(found), plots.det_curves(found), plots.threshold_choice(found[0], 0.5)):
        drawn(figure)
    wrong = replace(found[0], model="wrong", curve=ErrorCurve.of(np.zeros(4), np.ones(6), 6))
    for result, name, end in ((found[0], "oracle (EER 0 %)", 0), (wrong, "wrong (EER 100 %)", 1)):
        figure = plots.det_curves([result])
        (axis,) = figure.axes
        ((x, y),) = curves(axis, 1)
        np.testing.assert_allclose(sorted({*x, *y}), axis.get_xlim())
        assert marks(axis) == [(pytest.approx(axis.get_xlim()[end]),) * 2 + (False,)]
        assert f"{name}, along the edges" in drawn(figure)


def test_a_cell_that_people_cannot_carry_is_grey_and_has_no_colour():
    rows = [("gender", "f", "f", 0.5, True), ("gender", "f", "m", 0.25, True), ("gender", "m", "m", 0.1, False)]
    table = pd.DataFrame(rows, columns=["attribute", "group", "other", "fmr", "supported"])
    (axis,) = plots.cross_group_matrices(table, LITERAL, 0.5).axes
    np.testing.assert_array_equal(axis.images[0].get_array().filled(-1), [[50, 25], [25, -1]])
    inks = {(*text.get_position(), text.get_text()): text.get_color() for text in axis.texts}
    assert inks[1, 1, "10"] == plots.FAINT
    assert inks[0, 1, "25"] != plots.FAINT


def test_every_person_is_on_the_map_of_the_menagerie_once(results):
    people = menagerie(results[0].pairs, 0.5)
    (axis,) = plots.menagerie_map(people, LITERAL).axes
    many = np.concatenate([line.get_xydata() for line in axis.lines if line.get_marker() != "None"])
    assert len(many) == len(people)
    expected = people[["mated_mean", "non_mated_mean"]].to_numpy().tolist()
    assert sorted(map(tuple, many.tolist())) == sorted(map(tuple, expected))
    assert sum(int(text.get_text().rsplit("(")[1][:-1]) for text in axis.get_legend().get_texts()) == len(people)
