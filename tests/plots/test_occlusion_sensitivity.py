import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from handclip_lib.data.images import DecodedImages
from handclip_lib.evaluation.studies.occlusion_sensitivity import OcclusionMap
from handclip_lib.plots.retrieval import occlusion_alt, occlusion_rows, upsampled
from handclip_lib.plots.style import MATCH, OTHER, QUERY

LITERAL = r"$x_1$ <b> \frac $"  # as mathematics this would be italic, or an error when drawn


@pytest.fixture
def shown():
    rows = pd.DataFrame(
        {"kind": ["clear hit", "clear miss"], "identity": [LITERAL, "8"], "path": ["a", "b"],
         "match_path": ["c", "d"], "wrong_path": ["d", "a"]}
    )  # fmt: skip
    first = np.zeros((4, 4))
    first[1, 2], first[3, 0] = 0.2, -0.05
    maps = [OcclusionMap(first, 0.75, 0.5), OcclusionMap(-2 * first, 0.25, 0.375)]
    pixels = np.random.default_rng(0).integers(0, 256, (4, 12, 16, 3), np.uint8)
    return rows, maps, DecodedImages(tuple("abcd"), pixels, {}, ("",) * 4)


def test_a_row_shows_the_three_images_and_the_map_on_one_scale(shown):
    rows, maps, images = shown
    figure = occlusion_rows(rows, maps, images)
    figure.canvas.draw()
    *pictures, bar = figure.axes
    assert len(pictures) == 8
    for place, (names, found) in enumerate(zip(("acd", "bda"), maps, strict=True)):
        own = pictures[4 * place : 4 * place + 4]
        for axis, name in zip(own, names, strict=False):
            np.testing.assert_array_equal(axis.get_images()[0].get_array(), images.pixels["abcd".index(name)])
        pale, parts = own[3].get_images()
        assert pale.get_array().min() >= 127
        np.testing.assert_allclose(parts.get_array(), upsampled(found.fall, 12, 16))
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
    figure = occlusion_rows(*shown)
    colours = figure.axes[3].get_images()[1].get_cmap()
    for_person, for_nobody, against = colours(1.0), colours(0.5), colours(0.0)
    assert for_nobody[3] < 0.1 < 0.8 < for_person[3] == against[3]
    assert for_person[0] > for_person[2] and against[2] > against[0]  # orange, purple
    weak, strong = colours(0.6), colours(0.9)
    assert for_nobody[3] < weak[3] < strong[3] < for_person[3]


def test_a_model_that_no_part_matters_to_is_drawn_too(shown):
    rows, _, images = shown
    nothing = [OcclusionMap(np.zeros((3, 3)), 0.5, 0.5)] * 2
    figure = occlusion_rows(rows, nothing, images)
    figure.canvas.draw()
    assert figure.axes[3].get_images()[1].norm.vmax == 1


def test_the_alternative_text_names_the_strongest_part(shown):
    rows, maps, _ = shown
    text = occlusion_alt(rows, maps)
    assert (
        "clear hit, margin +0.250: it falls most, by 0.200, when row 2 of 4 from the top, column 3 of 4 from the left"
    ) in text
    assert "clear miss, margin -0.125: it rises most, by 0.400, when row 2 of 4" in text


def test_an_upsampled_map_keeps_the_middles_of_cells_and_lies_between_them():
    cells = np.array([[0.0, 1.0], [2.0, -4.0]])
    large = upsampled(cells, 6, 10)
    assert large.shape == (6, 10)
    np.testing.assert_allclose(large[np.ix_([1, 4], [2, 7])], cells, atol=1e-6)  # three and five pixels a cell
    assert large[1, 3] == pytest.approx(0.2) and large[2, 2] == pytest.approx(2 / 3)  # a fifth, a third of the way
    assert large.min() == -4 and large.max() == 2
