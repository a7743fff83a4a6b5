import numpy as np
import pandas as pd
import pytest
from PIL import Image

from handclip_lib.plots import dataset as plots
from handclip_lib.plots.style import WIDTH

LITERAL = r"$x_1$ <b> \frac $"  # as mathematics this would be italic, or an error when drawn


def pictures(figure):
    return [axis for axis in figure.axes if axis.get_images()]


def test_protocol_counts_sets_found_beside_published():
    frame = pd.DataFrame({"count": ["train", "query"], "found": [889, 971], "published": [890, 971]})
    (axis,) = plots.protocol_counts(frame).axes
    assert [[bar.get_width() for bar in bars] for bars in axis.containers] == [[889, 971], [890, 971]]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["train", "query"]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["found", "published"]


def test_protocol_counts_without_published_figures_has_no_legend():
    (axis,) = plots.protocol_counts(pd.DataFrame({"count": ["train"], "found": [12]})).axes
    assert [bar.get_width() for bar in axis.containers[0]] == [12]
    assert axis.get_legend() is None


def test_attribute_balance_has_a_panel_an_attribute(drawn):
    frame = pd.DataFrame(
        {
            "attribute": ["gender", "gender", "skin_color", "age", "nail_polish"],
            "value": ["female", "male", LITERAL, "20–24", "no"],
            "images": [30, 10, 40, 40, 40],
            "identities": [3, 1, 4, 4, 4],
        }
    )
    figure = plots.attribute_balance(frame)
    assert [axis.get_title() for axis in figure.axes] == ["gender", "skin color", "age", "nail polish"]
    assert [bar.get_width() for bar in figure.axes[0].patches] == [30, 10]
    assert {"3 ids", "1 id", LITERAL} <= set(drawn(figure))


def test_images_per_identity_says_how_much_a_few_hold():
    counts = pd.Series([50, *[4] * 12, 1, 1], index=[f"p{i}" for i in range(15)])
    (axis,) = plots.images_per_identity(counts).axes
    assert [bar.get_height() for bar in axis.patches] == counts.tolist()
    assert axis.get_title(loc="left") == (
        "100 images, median 4 an identity; the first 10 hold 86%; 2 identities of one image"
    )
    (axis,) = plots.images_per_identity(pd.Series([1], index=["p"])).axes
    assert axis.get_title(loc="left") == "1 image, median 1 an identity; 1 identity of one image"
    assert axis.get_xlabel() == "1 identity, most images first"


@pytest.mark.parametrize(("n", "rows", "columns"), [(1, 1, 1), (6, 1, 6), (9, 2, 5), (13, 3, 5)])
def test_sample_grid_shows_each_image_under_its_own_title(n, rows, columns, drawn):
    images = [np.full((3, 4, 3), value, np.uint8) for value in range(n)]
    figure = plots.sample_grid(images, [f"{i} {LITERAL}" for i in range(n)])
    shown = pictures(figure)
    for i, (axis, image) in enumerate(zip(shown, images, strict=True)):
        np.testing.assert_array_equal(axis.get_images()[0].get_array(), image)
        assert axis.get_title().replace("\n", " ") == f"{i} {LITERAL}"
    assert shown[0].get_subplotspec().get_gridspec().get_geometry() == (rows, columns)
    drawn(figure)


def test_long_titles_are_wrapped_inside_the_figure():
    images = [np.zeros((3, 4, 3), np.uint8)] * 6
    title = "a_very_long_folder_name_of_one_identity_with_$_and_more_of_it"
    figure = plots.sample_grid(images, [title] * 6)
    figure.canvas.draw()
    for axis in pictures(figure):
        assert axis.get_title().replace("\n", "") == title
        box = axis.title.get_window_extent().transformed(figure.dpi_scale_trans.inverted())
        assert box.x0 >= 0 and box.x1 <= WIDTH and box.width <= WIDTH / 6


def test_no_image_is_an_empty_figure_not_an_error():
    assert not pictures(plots.sample_grid([], []))


def near_duplicates():
    return pd.DataFrame(
        {
            "cosine": [0.99912, 0.98],
            "same_identity": [True, False],
            "capture_distance": pd.array([1, None], dtype="Int64"),
        }
    )


def test_near_duplicates_stand_one_above_the_other():
    left, right = ([np.full((3, 4, 3), value, np.uint8) for value in values] for values in ((1, 2), (3, 4)))
    figure = plots.near_duplicate_pairs(near_duplicates(), left, right)
    shown = pictures(figure)
    assert [int(axis.get_images()[0].get_array()[0, 0, 0]) for axis in shown] == [1, 2, 3, 4]
    places = [(spec.rowspan.start, spec.colspan.start) for spec in (axis.get_subplotspec() for axis in shown)]
    assert places == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [axis.get_title() for axis in shown[:2]] == [
        "cosine 0.999\nsame identity\ncaptures apart: 1",
        "cosine 0.980\nDIFFERENT identities\ncaptures apart: unknown",
    ]


def test_no_near_duplicate_is_said(drawn):
    assert drawn(plots.near_duplicate_pairs(near_duplicates()[:0], [], [])) == ["no two images look nearly the same"]


def test_capture_distances_count_pairs_of_one_identity():
    pairs = pd.DataFrame(
        {
            "same_identity": [True, True, True, True, False],
            "capture_distance": pd.array([1, 1, 40, None, 1], dtype="Int64"),
        }
    )
    (axis,) = plots.capture_distances(pairs).axes
    assert [bar.get_height() for bar in axis.patches] == [2, *[0] * 13, 1]


@pytest.mark.parametrize(
    ("same", "apart", "said"),
    [([True], None, "captures are not numbered here"), ([False], 1, "no near-duplicates of one identity")],
)
def test_without_distances_of_captures_it_says_so(same, apart, said, drawn):
    pairs = pd.DataFrame({"same_identity": same, "capture_distance": pd.array([apart], dtype="Int64")})
    assert drawn(plots.capture_distances(pairs)) == [said]


def test_image_sizes_has_a_dot_a_size(drawn):
    sizes = pd.DataFrame({"width": [1600, 1600, 240], "height": [1200, 1200, 180]})
    figure = plots.image_sizes(sizes)
    (axis,) = figure.axes
    assert sorted(axis.collections[0].get_offsets().tolist()) == [[240, 180], [1600, 1200]]
    assert {"1600×1200: 2 images", "240×180: 1 image"} <= set(drawn(figure))


def test_transform_steps_shows_the_photograph_first(hands11k_sample, drawn):
    path = sorted((hands11k_sample / "Hands").glob("*.jpg"))[0]
    with Image.open(path) as image:
        original = np.asarray(image)
    fits = {"photograph 240×180": original, "stretch": original[:64, :64], LITERAL: original[-64:, :64]}
    figure = plots.transform_steps(fits)
    shown = pictures(figure)
    for axis, expected in zip(shown, fits.values(), strict=True):
        np.testing.assert_array_equal(axis.get_images()[0].get_array(), expected)
    assert [axis.get_title() for axis in shown] == ["photograph 240×180", "stretch", LITERAL]
    drawn(figure)


def quality_rows() -> pd.DataFrame:
    rows = [("good.png", 240.0, 0.8, 0.2, ""), (LITERAL, 2.0, 0.9, 0.1, "unfocused"), ("cut.jpg", *[np.nan] * 3, "x")]
    return pd.DataFrame(rows, columns=["path", "sharpness", "exposure", "contrast", "fault"])


def test_the_spread_of_quality_shows_its_limits(drawn):
    figure = plots.quality_spread(quality_rows())
    assert [sum(bar.get_height() for bar in axis.patches) for axis in figure.axes] == [2, 2, 2]
    lines = [[line.get_xdata()[0] for line in axis.lines] for axis in figure.axes]
    assert lines == [[6.0], [], [0.02]]
    assert "dashed: below it unfocused" in drawn(figure)
    drawn(plots.quality_spread(quality_rows()[2:]))  # nothing could be read


def test_the_poorest_photographs_have_their_names_and_faults():
    shown = pictures(plots.poorest_photographs(quality_rows()[:2], [np.zeros((8, 8, 3), np.uint8)] * 2))
    titles = [" ".join(axis.get_title().split()) for axis in shown]
    assert titles[0] == "good.png no fault sharpness 240"
    assert titles[1].endswith("unfocused sharpness 2")
