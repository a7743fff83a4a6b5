import numpy as np
import pandas as pd
import pytest

from handclip_lib.data.images import DecodedImages
from handclip_lib.data.manifest import Split
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.ranking.confusion import RankedQueries
from handclip_lib.widgets.browsers import retrieval_browser

# Three people; the gallery holds a0, b0, c0. Angles in degrees place the embeddings on a circle.
ANGLES = {"a0": 0, "a1": 5, "a2": 100, "b0": 90, "b1": 80, "c0": 180, "c1": 70}
# a1 → a0 (right); a2 → b0 (10° away), c0 (80°), a0 (100°): rank 3;
# b1 → b0 (right); c1 → b0 (20°), a0 (70°), c0 (110°): rank 3


@pytest.fixture
def split() -> Split:
    rows = [
        {"path": f"{name}.jpg", "identity": name[0], "aspect": "dorsal_r", "capture": number, "role": "test",
         "gallery_in": "0" if name[1] == "0" else ("1" if name[1] == "1" else "")}
        for number, name in enumerate(ANGLES)
    ]  # fmt: skip
    rows.append({**rows[0], "path": "other.jpg", "identity": "a", "aspect": "palmar_r", "role": "other"})
    meta = {"dataset": "folder", "aspect": "dorsal_r", "draws": 2, "unqueryable": []}
    return Split.build(meta, pd.DataFrame(rows))


@pytest.fixture
def features() -> Features:
    angles = np.deg2rad([*ANGLES.values(), 99])
    paths = [*(f"{name}.jpg" for name in ANGLES), "other.jpg"]
    return Features.normalised(paths, np.stack([np.cos(angles), np.sin(angles)], 1))


@pytest.fixture
def images(features: Features) -> DecodedImages:
    pixels = np.arange(len(features.paths), dtype=np.uint8)[:, None, None, None] * np.ones((1, 16, 16, 3), np.uint8)
    return DecodedImages(features.paths, pixels, {}, features.paths)


def _titles(panel) -> list[str]:
    return [axes.get_title() for axes in panel.figure.axes if axes.images]


def test_queries_are_ordered_as_asked(features: Features, split: Split):
    ranking = RankedQueries(features, split.draw(0))
    names = np.array([path[:2] for path in ranking.draw.query_paths])
    assert names[ranking.order("all")].tolist() == ["a1", "a2", "b1", "c1"]
    assert sorted(names[ranking.order("random")]) == ["a1", "a2", "b1", "c1"]
    assert names[ranking.order("worst")].tolist() == ["a2", "c1", "a1", "b1"]
    # lead of the wrong image: c1 cos 20° - cos 110° = 1.28, a2 cos 10° - cos 100° = 1.16
    assert names[ranking.order("wrong")].tolist() == ["c1", "a2"]


def test_shows_the_ranked_gallery_and_the_first_match_beyond_it(features, split, images):
    panel = retrieval_browser(features, split, images, top_k=2)
    titles = _titles(panel)
    assert "a" in titles[0]
    assert titles[1:] == ["1. b\n0.985", "2. c\n0.174", "3. a\n-0.174"]
    shown = [int(np.asarray(axes.images[0].get_array()).flat[0]) for axes in panel.figure.axes if axes.images]
    assert shown == [2, 3, 5, 0]  # a2; b0, c0, a0


def test_frames_are_green_for_the_same_person_and_red_for_another(features, split, images):
    panel = retrieval_browser(features, split, images, top_k=2)
    colours = []
    for axes in panel.figure.axes:
        if axes.images:
            red, green, _, _ = axes.spines["left"].get_edgecolor()
            colours.append("red" if red > green else "green" if green > red else "none")
    assert colours[1:] == ["red", "red", "green"]


def test_gallery_all_counts_another_aspect_as_someone_else(features, split, images):
    panel = retrieval_browser(features, split, images, top_k=1)
    panel.controls["gallery"].value = "all"
    assert _titles(panel)[1].startswith("1. palmar_r/\na\n")
    assert any(title.startswith("4. a\n") for title in _titles(panel))


def test_the_number_of_queries_follows_the_choice(features, split, images):
    panel = retrieval_browser(features, split, images)
    panel.controls["queries"].value = "all"
    number = panel.controls["query"]
    assert number.max == 4
    number.value = 4
    panel.controls["queries"].value = "wrong"
    assert (number.max, number.value) == (2, 2)
    assert "image/png" in panel._repr_mimebundle_()[0]
    panel.controls["queries"].value = "all"
    assert number.max == 4


def test_a_choice_without_queries_says_so(features, split, images):
    corner = {"a": (1.0, 0.0, 0.0), "b": (0.0, 1.0, 0.0), "c": (0.0, 0.0, 1.0), "o": (1.0, 0.0, 0.0)}
    same = Features.normalised(features.paths, np.array([corner[path[0]] for path in features.paths]))
    panel = retrieval_browser(same, split, images)
    panel.controls["queries"].value = "wrong"
    text = panel._repr_mimebundle_()[0]["text/plain"]
    assert text == "LookupError: no query is wrong in draw 0, gallery 'aspect'; choose other queries"


def test_equal_scores_put_someone_else_first(split: Split):
    flat = Features.normalised([*(f"{name}.jpg" for name in ANGLES), "other.jpg"], np.ones((8, 2)))
    with pytest.warns(UserWarning, match="collapsed"):
        ranking = RankedQueries(flat, split.draw(0))
    columns, ranks = ranking.best(0, 1)
    assert ranking.is_match[0, columns].tolist() == [False, True]
    assert ranks.tolist() == [1, 3]


def test_another_draw_shows_its_own_gallery(features, split, images):
    panel = retrieval_browser(features, split, images, top_k=3)
    panel.controls["queries"].value = "all"
    panel.controls["draw"].value = 1
    assert sorted(title.split()[1] for title in _titles(panel)[1:]) == ["a", "b", "c"]
    assert panel.values["draw"] == 1
