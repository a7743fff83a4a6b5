from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from handclip_lib.data.images import DecodedImages
from handclip_lib.evaluation.studies.occlusion_sensitivity import DecisionMap
from handclip_lib.plots import retrieval as plots
from handclip_lib.plots.retrieval import decision_alt, decision_rows, upsampled
from handclip_lib.plots.style import COLOURS, MATCH, OTHER, QUERY

LITERAL = r"$x_1$ <b> \frac $"  # as mathematics this would be italic, or an error when drawn


def result(model: str, gallery: str, rank1: list[float], n_gallery: int = 9) -> SimpleNamespace:
    """What the figures read of a `ProtocolResult`."""
    mean = float(np.mean(rank1))
    estimate = np.linspace(mean, 1, 5)
    draws = [SimpleNamespace(rank=lambda k, value=value: {1: value}[k], n_gallery=n_gallery) for value in rank1]
    return SimpleNamespace(
        model=model,
        gallery=gallery,
        draws=draws,
        rank1=SimpleNamespace(estimate=mean, low=mean - 0.1, high=mean + 0.05, n_identities=70),
        cmc=SimpleNamespace(estimate=estimate, low=estimate - 0.1, high=np.minimum(estimate + 0.05, 1)),
    )


@pytest.fixture
def results() -> list[SimpleNamespace]:
    return [
        result(LITERAL, "aspect", [0.5, 0.7]),
        result("pixels", "aspect", [0.2, 0.4]),
        result(LITERAL, "all", [0.3, 0.5], n_gallery=36),
        result("pixels", "all", [0.1, 0.3], n_gallery=36),
    ]


def test_cmc_is_drawn_in_percent_one_panel_a_gallery(results, drawn):
    figure = plots.cmc_curves(results)
    assert [axis.get_title() for axis in figure.axes] == [
        "gallery: same aspect (9 images)",
        "gallery: all aspects (36 images)",
    ]
    lines = [line for axis in figure.axes for line in axis.get_lines()]
    for line, expected in zip(lines, results, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3, 4, 5])
        np.testing.assert_allclose(line.get_ydata(), 100 * expected.cmc.estimate)
    band = figure.axes[0].collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(100 * results[0].cmc.low.min())
    assert f"{LITERAL} (60.0 %)" in drawn(figure)
    assert [to_hex(line.get_color()) for line in lines] == [c.lower() for c in (*COLOURS[:2], *COLOURS[:2])]


def test_draw_spread_has_a_dot_a_draw_and_one_colour_a_model(results, drawn):
    figure = plots.draw_spread(results)
    (axis,) = figure.axes
    dots = [line.get_xdata().tolist() for line in axis.get_lines() if line.get_marker() == "."]
    assert dots == [pytest.approx([100 * d.rank(1) for d in r.draws]) for r in results]
    bars = [(bar[0], bar[2][0].get_segments()[0]) for bar in axis.containers]
    for (estimate, interval), expected in zip(bars, results, strict=True):
        assert estimate.get_xdata() == pytest.approx([100 * expected.rank1.estimate])
        assert interval[:, 0] == pytest.approx([100 * expected.rank1.low, 100 * expected.rank1.high])
    colours = [bar.get_color() for bar, _ in bars]
    assert colours[0] == colours[2] != colours[1] == colours[3]
    assert f"{LITERAL}, gallery: all aspects" in drawn(figure)


def test_similarity_matrix_has_a_line_where_the_identity_changes(drawn):
    similarity = np.arange(25.0).reshape(5, 5) / 25
    figure = plots.similarity_matrix(similarity, [LITERAL, LITERAL, "b", "b", "c"])
    axis = figure.axes[0]
    np.testing.assert_array_equal(axis.get_images()[0].get_array(), similarity)
    assert sorted({float(line.get_ydata()[0]) for line in axis.get_lines() if line.get_ydata()[0] > 1}) == [1.5, 3.5]
    assert [text.get_text() for text in axis.get_yticklabels()] == [LITERAL, "b", "c"]
    assert axis.get_yticks().tolist() == [0.5, 2.5, 4]
    drawn(figure)


def test_a_large_similarity_matrix_is_cut_and_says_so():
    identities = np.repeat(np.arange(250), 2).astype(str)
    figure = plots.similarity_matrix(np.eye(500), identities)
    axis = figure.axes[0]
    assert axis.get_images()[0].get_array().shape == (400, 400)
    assert "first 400 of 500 images" in axis.get_title()
    assert len(axis.get_yticks()) <= plots.MOST_LABELS
    assert (np.diff(axis.get_yticks()) >= 400 / plots.MOST_LABELS).all()


def test_score_histogram_counts_every_pair(drawn):
    rng = np.random.default_rng(0)
    genuine, impostor = rng.uniform(0.5, 1, 200), rng.uniform(-0.2, 0.8, 5000)
    figure = plots.score_histogram(genuine, impostor)
    for container, scores in zip(figure.axes[0].containers, (impostor, genuine), strict=True):
        heights = np.array([bar.get_height() for bar in container])
        edges = np.array([bar.get_x() for bar in container] + [container[-1].get_x() + container[-1].get_width()])
        np.testing.assert_allclose(heights, np.histogram(scores, edges, density=True)[0], rtol=1e-6)
        assert edges[0] <= scores.min() and edges[-1] >= scores.max()
    assert {"non-mated (5,000 pairs, mean 0.30)", f"mated (200 pairs, mean {genuine.mean():.2f})"} <= set(drawn(figure))


def test_score_histogram_of_collapsed_embeddings_has_bars():
    figure = plots.score_histogram(np.ones(3, np.float32), np.ones(4, np.float32))
    for container in figure.axes[0].containers:
        area = sum(bar.get_height() * bar.get_width() for bar in container)
        assert area == pytest.approx(1)


def test_burst_effect_shows_rank1_and_what_is_left_out(drawn):
    frame = pd.DataFrame(
        {
            "model": [LITERAL] * 3 + ["pixels"] * 3,
            "burst": [0, 1, 5] * 2,
            "rank1": [0.9, 0.8, 0.7, 0.6, 0.5, np.nan],
            "left_out": [0, 0.25, 0.75] * 2,
        }
    )
    figure = plots.burst_effect(frame)
    left, right = figure.axes
    lines = [line.get_ydata().tolist() for line in left.get_lines()]
    assert lines[0] == pytest.approx([90, 80, 70])
    assert lines[1] == pytest.approx([60, 50, np.nan], nan_ok=True)
    assert [bar.get_height() for bar in right.patches] == pytest.approx([0, 25, 75])
    assert [text.get_text() for text in left.get_xticklabels()] == ["none", "±1", "±5"]
    assert LITERAL in drawn(figure)


def test_ranked_gallery_tells_matches_by_colour_and_by_mark(drawn):
    images = [np.full((6, 8, 3), value, np.uint8) for value in range(9)]
    titles = [f"{k}. {LITERAL}" for k in range(1, 9)]
    is_match = [True, False, False, True, False, False, False, True]
    figure = plots.ranked_gallery(images[0], "query", images[1:], titles, is_match)
    shown = [axis for axis in figure.axes if axis.get_images()]
    for axis, image in zip(shown, images, strict=True):
        np.testing.assert_array_equal(axis.get_images()[0].get_array(), image)
    frames = [to_hex(axis.spines["left"].get_edgecolor()) for axis in shown]
    assert frames == [c.lower() for c in (QUERY, *(MATCH if same else OTHER for same in is_match))]
    assert all(spine.get_visible() for axis in shown for spine in axis.spines.values())
    marks = ["".join(text.get_text() for text in axis.texts) for axis in shown]
    assert marks == ["", *("✓" if same else "✗" for same in is_match)]
    assert [axis.get_title().replace("\n", " ") for axis in shown] == ["query", *titles]
    drawn(figure)


def test_figures_ignore_what_the_user_set_for_matplotlib(results):
    with mpl.rc_context({"font.size": 4, "legend.fontsize": 3, "text.parse_math": True}):
        figure = plots.cmc_curves(results)
        legend = figure.axes[0].get_legend().get_texts()
    assert {text.get_fontsize() for text in legend} == {9}
    assert not any(text.get_parse_math() for text in legend)


def test_the_legend_of_a_cmc_hides_no_curve(results):
    figure = plots.cmc_curves(results)
    FigureCanvasAgg(figure).draw()
    for axis in figure.axes:
        assert axis.get_legend().get_window_extent().y1 < axis.bbox.y0


def test_a_long_name_leaves_the_axes_their_width():
    long = f"03_image_finetune-tiny-drawn-dorsal_r-7823fbbd cbfe9616, fine-tuned {'x' * 40}"
    figure = plots.cmc_curves([result(long, gallery, [0.5, 0.7]) for gallery in ("aspect", "all")])
    FigureCanvasAgg(figure).draw()
    assert all(axis.get_position().width > 0.35 for axis in figure.axes)
    assert all(axis.get_legend().get_window_extent().width < figure.bbox.width / 2 for axis in figure.axes)


@pytest.fixture
def shown():
    rows = pd.DataFrame(
        {"kind": ["clear hit", "clear miss"], "identity": [LITERAL, "8"], "path": ["a", "b"],
         "match_path": ["c", "d"], "wrong_path": ["d", "a"]}
    )  # fmt: skip
    first = np.zeros((4, 4))
    first[1, 2], first[3, 0] = 0.2, -0.05
    maps = [DecisionMap(first, 0.75, 0.5), DecisionMap(-2 * first, 0.25, 0.375)]
    pixels = np.random.default_rng(0).integers(0, 256, (4, 12, 16, 3), np.uint8)
    return rows, maps, DecodedImages(tuple("abcd"), pixels, {}, ("",) * 4)


def test_a_row_shows_the_three_images_and_the_map_on_one_scale(shown):
    rows, maps, images = shown
    figure = decision_rows(rows, maps, images)
    figure.canvas.draw()
    *pictures, bar = figure.axes
    assert len(pictures) == 8
    for place, (names, found) in enumerate(zip(("acd", "bda"), maps, strict=True)):
        own = pictures[4 * place : 4 * place + 4]
        for axis, name in zip(own, names, strict=False):
            np.testing.assert_array_equal(axis.get_images()[0].get_array(), images.pixels["abcd".index(name)])
        pale, parts = own[3].get_images()
        assert pale.get_array().min() >= 127
        np.testing.assert_allclose(parts.get_array(), upsampled(found.parts, 12, 16))
        assert (parts.norm.vmin, parts.norm.vmax) == (-0.4, 0.4)  # the strongest part of all rows, both ways
        assert [to_hex(axis.spines["left"].get_edgecolor()) for axis in own] == [
            colour.lower() for colour in (QUERY, MATCH, OTHER, QUERY)
        ]
    assert [axis.get_title() for axis in pictures] == [
        f"clear hit\nquery: {LITERAL}", "best match\ncosine 0.750", "best of someone else\ncosine 0.500",
        "occlusion sensitivity\nmargin +0.250", "clear miss\nquery: 8", "best match\ncosine 0.250",
        "best of someone else\ncosine 0.375", "occlusion sensitivity\nmargin -0.125",
    ]  # fmt: skip
    assert "(cosine)" in bar.get_xlabel()
    texts = [text for text in figure.findobj(mpl.text.Text) if text.get_text() and text.get_visible()]
    assert not any(text.get_parse_math() for text in texts if "$" in text.get_text())
    assert min(text.get_fontsize() for text in texts) >= 9


def test_what_does_not_matter_is_clear_and_the_two_directions_differ(shown):
    figure = decision_rows(*shown)
    colours = figure.axes[3].get_images()[1].get_cmap()
    for_person, for_nobody, against = colours(1.0), colours(0.5), colours(0.0)
    assert for_nobody[3] < 0.1 < 0.8 < for_person[3] == against[3]
    assert for_person[0] > for_person[2] and against[2] > against[0]  # orange, purple
    weak, strong = colours(0.6), colours(0.9)
    assert for_nobody[3] < weak[3] < strong[3] < for_person[3]


def test_a_model_that_no_part_matters_to_is_drawn_too(shown):
    rows, _, images = shown
    nothing = [DecisionMap(np.zeros((3, 3)), 0.5, 0.5)] * 2
    figure = decision_rows(rows, nothing, images)
    figure.canvas.draw()
    assert figure.axes[3].get_images()[1].norm.vmax == 1


def test_the_alternative_text_names_the_strongest_part(shown):
    rows, maps, _ = shown
    text = decision_alt(rows, maps)
    assert (
        "clear hit, margin +0.250: it falls most, by 0.200, when row 2 of 4 from the top, column 3 of 4 from the left"
    ) in text
    assert "clear miss, margin -0.125: it rises most, by 0.400, when row 2 of 4" in text


def test_relevance_is_said_to_be_it_and_to_have_no_unit(shown):
    rows, maps, images = shown
    maps = [DecisionMap(result.parts[:, :3], result.match_score, result.wrong_score, "relevance") for result in maps]
    figure = decision_rows(rows, maps, images)
    assert figure.axes[3].get_title() == "attention relevance\nmargin +0.250"
    assert figure.axes[-1].get_xlabel().startswith("relevance of the part for the margin (no unit)")
    text = decision_alt(rows, maps)
    assert "decided, by attention relevance. clear hit, margin +0.250: row 2 of 4 from the top, column 3 of 3" in text
    assert (
        "clear miss, margin -0.125: row 2 of 4 from the top, column 3 of 3 from the left speaks most, for some" in text
    )


def test_an_upsampled_map_keeps_the_middles_of_cells_and_lies_between_them():
    cells = np.array([[0.0, 1.0], [2.0, -4.0]])
    large = upsampled(cells, 6, 10)
    assert large.shape == (6, 10)
    np.testing.assert_allclose(large[np.ix_([1, 4], [2, 7])], cells, atol=1e-6)  # three and five pixels a cell
    assert large[1, 3] == pytest.approx(0.2) and large[2, 2] == pytest.approx(2 / 3)  # a fifth, a third of the way
    assert large.min() == -4 and large.max() == 2
