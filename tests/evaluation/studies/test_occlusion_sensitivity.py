"""Which part decided, on encoders of which it is known, and against covering one window at a time by hand."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from handclip_lib.backbone.load import Backbone, load_backbone
from handclip_lib.backbone.openai_clip import clip_package
from handclip_lib.data.images import DecodedImages
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.studies.occlusion_sensitivity import (
    decision_relevance,
    embedding_relevance,
    relevance_of_queries,
    telling_queries,
    upsampled,
)

SHARP = {"window": 1, "fade": 0}


def photographs(n: int, height: int = 24, width: int = 24, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), np.uint8)


def projected(pixels: np.ndarray) -> np.ndarray:
    """An encoder that looks at everything: a random projection of the pixels."""
    flat = pixels.reshape(len(pixels), -1).astype(np.float64)
    return flat @ np.random.default_rng(1).normal(size=(flat.shape[1], 7))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def rows_of(margins: dict[str, float], draw: int = 0) -> pd.DataFrame:
    """Rows of `per_query`, a path and its margin each; a margin above 0 is a hit."""
    return pd.DataFrame(
        {
            "draw": draw, "path": list(margins), "identity": "7", "hit": [float(m > 0) for m in margins.values()],
            "match_path": "match", "match_score": [0.5 + m for m in margins.values()], "wrong_path": "wrong",
            "wrong_score": 0.5,
        }
    )  # fmt: skip


def result(*draws: pd.DataFrame) -> SimpleNamespace:
    return SimpleNamespace(per_query=pd.concat(draws, ignore_index=True), draws=list(draws))


@pytest.mark.parametrize(("cells", "batch_size", "cover"), [(4, 1, "mean"), (4, 5, "background"), (6, 32, "mean")])
def test_both_maps_are_what_one_window_at_a_time_gives(cells, batch_size, cover):
    query, match, wrong = photographs(3, 24, 36)
    colour = query.mean((0, 1))
    if cover == "background":  # the outermost sixteenth of 24 pixels, rounded up: 2
        rim = [query[y, x] for y in range(24) for x in range(36) if y < 2 or y >= 22 or x < 2 or x >= 34]
        colour = np.median(rim, axis=0)
    found = decision_relevance(query, match, wrong, projected, cells=cells, **SHARP, cover=cover, batch_size=batch_size)
    own, right, other = projected(np.stack([query, match, wrong]))
    margin = cosine(own, right) - cosine(own, other)
    assert found.margin == pytest.approx(margin, abs=1e-6)
    assert (found.match_score, found.wrong_score) == pytest.approx((cosine(own, right), cosine(own, other)), abs=1e-6)
    high, wide = 24 // cells, 36 // cells
    for row in range(cells):
        for column in range(cells):
            covered = query.copy()
            covered[row * high : (row + 1) * high, column * wide : (column + 1) * wide] = np.rint(colour)
            there = projected(covered[None])[0]
            fall = margin - (cosine(there, right) - cosine(there, other))
            assert found.decision[row, column] == pytest.approx(fall, abs=1e-6)
            assert found.embedding[row, column] == pytest.approx(1 - cosine(there, own), abs=1e-6)
    alone = embedding_relevance(query, projected, cells=cells, **SHARP, cover=cover, batch_size=batch_size)
    np.testing.assert_allclose(alone, found.embedding, atol=1e-6)


def test_only_the_part_that_is_looked_at_matters_and_its_sign_says_for_whom():
    # White but for two dark cells. The first value is how dark cell (0, 1) is, the second how dark cell (2, 3) is.
    def encode(pixels: np.ndarray) -> np.ndarray:
        dark = 255.0 - pixels.mean(3)
        return np.stack([dark[:, :6, 6:12].mean((1, 2)), dark[:, 12:18, 18:].mean((1, 2)), 0 * dark[:, 0, 0] + 1], 1)

    query, match, wrong = np.full((3, 24, 24, 3), 255, np.uint8)
    for image, cell in ((query, "both"), (match, "first"), (wrong, "second")):
        if cell != "second":
            image[:6, 6:12] = 0
        if cell != "first":
            image[12:18, 18:] = 0
    found = decision_relevance(query, match, wrong, encode, cells=4, **SHARP)
    # The query is (255, 255, 1), the match (255, 0, 1) and the wrong one (0, 255, 1): the margin is 0. Covered in
    # white, the first cell is gone: (0, 255, 1) is the wrong one itself, so the margin falls to 1/65026 - 1.
    expected = np.zeros((4, 4))
    expected[0, 1], expected[2, 3] = 65025 / 65026, -65025 / 65026
    np.testing.assert_allclose(found.decision, expected, atol=1e-6)
    assert found.margin == pytest.approx(0, abs=1e-7)
    # (255, 255, 1) and (0, 255, 1): cosine 65026 / sqrt(130051 * 65026)
    half = 1 - 65026 / np.sqrt(130051 * 65026)
    assert found.embedding[0, 1] == found.embedding[2, 3] == pytest.approx(half, abs=1e-6)
    assert np.count_nonzero(np.abs(found.embedding) > 1e-6) == 2


def test_a_cover_of_the_background_leaves_the_background_as_it_was():
    query = np.full((32, 32, 3), 250, np.uint8)
    query[8:32, 12:20] = 90  # a hand that reaches in over one side
    seen = []

    def encode(pixels: np.ndarray) -> np.ndarray:
        seen.append(pixels)
        return np.ones((len(pixels), 2))

    for cover in ("background", "mean"):
        embedding_relevance(query, encode, cells=8, window=1, cover=cover)
    plain, *covered = np.concatenate(seen)
    background, mean = np.array(covered[:64]), np.array(covered[65:])
    untouched = [(pixels == plain).all() for pixels in background]
    assert sum(untouched) > 40  # most windows lie off the hand, and there is nothing to see there
    assert not any((pixels == plain).all() for pixels in mean)


def test_a_faded_window_covers_its_middle_wholly_and_ends_half_a_fade_outside():
    # Sixteen pixels, four cells, a window of two: side 8, fade of half of it is 4 pixels. The window at cell 1 has
    # its middle at 6; a pixel whose middle is d away is covered by (4 - d) / 4 + 1/2, cut to 0..1.
    image = np.zeros((16, 16, 3), np.uint8)
    image[:, :, :] = np.where(np.arange(16) % 2, 0, 200)[None, :, None]
    seen = []

    def encode(pixels: np.ndarray) -> np.ndarray:
        seen.append(pixels)
        return np.ones((len(pixels), 2))

    embedding_relevance(image, encode, cells=4, window=2, fade=0.5, cover="mean")
    across = seen[1][5][6, :, 0]  # the window at cell (1, 1), along the row through its middle
    for x in range(16):
        share = min(1, max(0, (4 - abs(x + 0.5 - 6)) / 4 + 0.5))
        down = min(1, max(0, (4 - abs(6.5 - 6)) / 4 + 0.5))
        assert across[x] == pytest.approx(image[6, x, 0] + share * down * (100 - float(image[6, x, 0])), abs=0.51)
    assert across[5] == 100 and across[15] == 0


def a_vit() -> Backbone:
    torch.manual_seed(0)
    model = clip_package().model.CLIP(48, 64, 2, 64, 16, 77, 512, 64, 1, 1).eval()
    return Backbone("random", model, 64, 48, 77, torch.device("cpu"), "0123")


@pytest.mark.parametrize("tower", [a_vit, partial(load_backbone, "tiny", device="cpu")], ids=["vit", "resnet"])
def test_both_towers_are_asked_alike(tower):
    tower = tower()
    side = tower.resolution
    query, match, wrong = photographs(3, side, side)
    found = decision_relevance(query, match, wrong, tower.encode_image, cells=4, **SHARP, cover="mean")
    covered = query.copy()
    covered[side // 4 : side // 2, 3 * side // 4 :] = np.rint(query.mean((0, 1)))
    own, there, right, other = tower.encode_image(np.stack([query, covered, match, wrong]))
    fall = cosine(own, right) - cosine(own, other) - cosine(there, right) + cosine(there, other)
    assert found.decision[1, 3] == pytest.approx(fall, abs=1e-6)
    assert found.embedding[1, 3] == pytest.approx(1 - cosine(own, there), abs=1e-6)
    assert found.embedding[1, 3] > 1e-4


def test_an_upsampled_map_keeps_the_middles_of_cells_and_lies_between_them():
    cells = np.array([[0.0, 1.0], [2.0, -4.0]])
    large = upsampled(cells, 6, 10)
    assert large.shape == (6, 10)
    np.testing.assert_allclose(large[np.ix_([1, 4], [2, 7])], cells, atol=1e-6)  # three and five pixels a cell
    assert large[1, 3] == pytest.approx(0.2) and large[2, 2] == pytest.approx(2 / 3)  # a fifth, a third of the way
    assert large.min() == -4 and large.max() == 2


def test_queries_of_each_kind_are_chosen_by_their_margin():
    margins = {"a": 0.4, "b": -0.3, "c": 0.02, "d": 0.2, "e": -0.01, "f": 0.3, "g": -0.1}
    told = telling_queries(result(rows_of(margins), rows_of({"other draw": 0.9}, draw=1)))
    # in order: .4 a, .3 f, .2 d, .02 c (the median), -.01 e, -.1 g, -.3 b; c is taken as the narrowest hit, and of
    # the rest e (0.03 away) is taken as the narrowest miss, so that the nearest to the median is g (0.12 away)
    assert dict(zip(told["kind"], told["path"], strict=True)) == {
        "clear hit": "a", "narrow hit": "c", "narrow miss": "e", "typical": "g", "clear miss": "b",
    }  # fmt: skip
    assert told["margin"].is_monotonic_decreasing
    np.testing.assert_allclose(told["margin"], [margins[path] for path in told["path"]])
    two = telling_queries(result(rows_of(margins)), n=2)
    assert sorted(two["path"]) == sorted(margins)  # seven queries for ten places, none twice
    assert two["kind"].tolist() == [
        "clear hit", "clear hit", "narrow hit", "narrow hit", "narrow miss", "clear miss", "clear miss",
    ]  # fmt: skip
    assert telling_queries(result(rows_of({"x": 0.1}, 0), rows_of(margins, 3)), draw=3)["path"][0] == "a"


def test_kinds_that_nobody_is_of_are_absent():
    told = telling_queries(result(rows_of({"a": 0.1, "b": 0.3})))
    assert told[["kind", "path"]].to_numpy().tolist() == [["clear hit", "b"], ["narrow hit", "a"]]
    told = telling_queries(result(rows_of({"a": 0.0})))  # a tie is a miss
    assert told["kind"].tolist() == ["clear miss"]


@pytest.mark.parametrize(("n", "draw"), [(0, 0), (1, 2)])
def test_no_queries_and_no_such_draw_are_refused(n, draw):
    with pytest.raises(EvaluationError, match=f"n={n}, draw={draw}: at least one query of each kind"):
        telling_queries(result(rows_of({"a": 0.1})), n, draw)


def test_queries_are_explained_by_the_model_that_ranked_them():
    images = DecodedImages(("wrong", "a", "match"), photographs(3), {}, ("", "", ""))
    scores = {name: cosine(*projected(images.pixels[[1, row]])) for name, row in (("match", 2), ("wrong", 0))}
    rows = rows_of({"a": 0.1}).assign(match_score=scores["match"], wrong_score=scores["wrong"])
    (found,) = relevance_of_queries(rows, images, projected, cells=3)
    direct = decision_relevance(*images.pixels[[1, 2, 0]], projected, cells=3)
    np.testing.assert_array_equal(found.decision, direct.decision)
    with pytest.raises(EvaluationError, match=r"^a: encode gives a cosine that is .* off the ranking's; hand over"):
        relevance_of_queries(rows, images, lambda pixels: projected(pixels) ** 2, cells=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cells": 1}, "cells=1: from 2 to the shorter side in pixels, 24"),
        ({"cells": 25}, "cells=25"),
        ({"window": 0.9}, "window=0.9: 1 to 12 cells are wanted; less leaves parts"),
        ({"window": 13}, "window=13"),
        ({"fade": 1.5}, "fade=1.5"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"cover": "black"}, "cover='black'; choose from background, mean"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(EvaluationError, match=message):
        decision_relevance(*photographs(3), projected, **options)


def test_other_images_and_embeddings_that_are_no_directions_are_refused():
    query, match, wrong = photographs(3)
    with pytest.raises(EvaluationError, match=r"float64 \(24, 24, 3\); uint8"):
        decision_relevance(query, match / 255, wrong, projected)
    with pytest.raises(EvaluationError, match=r"\(24, 24, 3\), \(24, 24, 3\) and \(12, 24, 3\); one size is wanted"):
        decision_relevance(query, match, wrong[:12], projected)
    with pytest.raises(EvaluationError, match="the embedding of the query, its match or the other image is not finite"):
        decision_relevance(query, match, wrong, lambda pixels: np.full((len(pixels), 3), np.nan))

    def breaks(pixels: np.ndarray) -> np.ndarray:
        return np.ones((len(pixels), 3)) if len(pixels) == 3 else np.zeros((len(pixels), 3))

    with pytest.raises(EvaluationError, match="the embedding of the image covered at cells 0 … 31 is zero"):
        decision_relevance(query, match, wrong, breaks)
