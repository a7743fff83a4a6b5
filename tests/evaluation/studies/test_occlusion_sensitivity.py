"""Which part decided, on encoders of which it is known, and against covering one window at a time by hand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from handclip_lib.backbone.load import load_backbone
from handclip_lib.data.images import DecodedImages
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.studies import occlusion_sensitivity as occlusion
from handclip_lib.evaluation.studies.occlusion_sensitivity import decision_maps, example_queries, occlusion_map

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


@pytest.mark.parametrize(("cells", "batch_size"), [(4, 1), (4, 5), (6, 32)])
def test_the_map_is_what_one_window_at_a_time_gives(cells, batch_size):
    query, match, wrong = photographs(3, 24, 36)
    # the rim is the outermost sixteenth of 24 pixels, rounded up: 2
    rim = [query[y, x] for y in range(24) for x in range(36) if y < 2 or y >= 22 or x < 2 or x >= 34]
    colour = np.median(rim, axis=0)
    found = occlusion_map(query, match, wrong, projected, cells=cells, **SHARP, batch_size=batch_size)
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
            assert found.parts[row, column] == pytest.approx(fall, abs=1e-6)


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
    found = occlusion_map(query, match, wrong, encode, cells=4, **SHARP)
    # The query is (255, 255, 1), the match (255, 0, 1) and the wrong one (0, 255, 1): the margin is 0. Covered in
    # white, the first cell is gone: (0, 255, 1) is the wrong one itself, so the margin falls to 1/65026 - 1.
    expected = np.zeros((4, 4))
    expected[0, 1], expected[2, 3] = 65025 / 65026, -65025 / 65026
    np.testing.assert_allclose(found.parts, expected, atol=1e-6)
    assert found.margin == pytest.approx(0, abs=1e-7)


def test_a_window_of_background_is_not_encoded_and_the_map_stays(monkeypatch):
    tiny = load_backbone("tiny")
    photos = np.random.default_rng(4).integers(236, 240, (3, 128, 128, 3), np.uint8)  # a wall, with its noise
    hands = np.stack([photographs(1, 4, 4, seed)[0] for seed in range(3)])
    photos[:, 32:64, 32:64] = hands.repeat(8, 1).repeat(8, 2)
    encoded = []

    def encode(pixels: np.ndarray) -> np.ndarray:
        encoded.append(len(pixels))
        return tiny.encode_image(pixels)

    found = occlusion_map(*photos, encode, cells=8)
    assert sum(encoded) == 3 + 16  # the 4 × 4 windows that reach the hand
    monkeypatch.setattr(occlusion, "UNCHANGED", -1)
    every = occlusion_map(*photos, encode, cells=8)
    assert sum(encoded) == 3 + 16 + 3 + 64
    np.testing.assert_allclose(found.parts, every.parts, atol=0.02)
    assert np.abs(every.parts).max() > 0.05


def test_a_faded_window_covers_its_middle_wholly_and_ends_half_a_fade_outside():
    # Sixteen pixels, four cells, a window of two: side 8, fade of half of it is 4 pixels. The window at cell 1 has
    # its middle at 6; a pixel whose middle is d away is covered by (4 - d) / 4 + 1/2, cut to 0..1.
    image = np.zeros((16, 16, 3), np.uint8)
    image[:, :, :] = np.where(np.arange(16) % 2, 0, 200)[None, :, None]
    image[[0, -1]] = image[:, [0, -1]] = 100  # the rim, whose colour the cover takes
    seen = []

    def encode(pixels: np.ndarray) -> np.ndarray:
        seen.append(pixels)
        return np.ones((len(pixels), 2))

    occlusion_map(image, image, image, encode, cells=4, window=2, fade=0.5)
    across = seen[1][5][6, :, 0]  # the window at cell (1, 1), along the row through its middle
    for x in range(16):
        share = min(1, max(0, (4 - abs(x + 0.5 - 6)) / 4 + 0.5))
        down = min(1, max(0, (4 - abs(6.5 - 6)) / 4 + 0.5))
        assert across[x] == pytest.approx(image[6, x, 0] + share * down * (100 - float(image[6, x, 0])), abs=0.51)
    assert across[5] == 100 and across[14] == 200


def test_queries_of_each_kind_are_chosen_by_their_margin():
    margins = {"a": 0.4, "b": -0.3, "c": 0.02, "d": 0.2, "e": -0.01, "f": 0.3, "g": -0.1}
    examples = example_queries(result(rows_of(margins), rows_of({"other draw": 0.9}, draw=1)))
    # in order: .4 a, .3 f, .2 d, .02 c (the median), -.01 e, -.1 g, -.3 b; c is taken as the narrowest hit, and of
    # the rest e (0.03 away) is taken as the narrowest miss, so that the nearest to the median is g (0.12 away)
    assert dict(zip(examples["kind"], examples["path"], strict=True)) == {
        "clear hit": "a", "narrow hit": "c", "narrow miss": "e", "typical": "g", "clear miss": "b",
    }  # fmt: skip
    assert examples["margin"].is_monotonic_decreasing
    np.testing.assert_allclose(examples["margin"], [margins[path] for path in examples["path"]])


def test_kinds_that_nobody_is_of_are_absent():
    examples = example_queries(result(rows_of({"a": 0.1, "b": 0.3})))
    assert examples[["kind", "path"]].to_numpy().tolist() == [["clear hit", "b"], ["narrow hit", "a"]]
    examples = example_queries(result(rows_of({"a": 0.0})))  # a tie is a miss
    assert examples["kind"].tolist() == ["clear miss"]


def test_a_first_draw_without_a_query_is_refused():
    with pytest.raises(EvaluationError, match="the first draw has no query to choose from; leave out fewer bursts"):
        example_queries(result(rows_of({"a": 0.1}, draw=1)))


def test_queries_are_explained_by_the_model_that_ranked_them(tmp_path, monkeypatch):
    monkeypatch.setenv("HANDCLIP_CACHE", str(tmp_path))
    images = DecodedImages(("wrong", "a", "match"), photographs(3), {}, ("", "", ""))
    scores = {name: cosine(*projected(images.pixels[[1, row]])) for name, row in (("match", 2), ("wrong", 0))}
    rows = rows_of({"a": 0.1}).assign(match_score=scores["match"], wrong_score=scores["wrong"])
    (found,) = decision_maps(
        rows, images, SimpleNamespace(encode_image=projected, fingerprint="weights", precision="fp32")
    )
    direct = occlusion_map(*images.pixels[[1, 2, 0]], projected)
    np.testing.assert_array_equal(found.parts, direct.parts)
    with pytest.raises(EvaluationError, match=r"^a: encode gives a cosine that is .* off the ranking's; hand over"):
        other = SimpleNamespace(
            encode_image=lambda pixels: projected(pixels) ** 2, fingerprint="others", precision="fp32"
        )
        decision_maps(rows, images, other)
    (again,) = decision_maps(rows, images, SimpleNamespace(encode_image=None, fingerprint="weights", precision="fp32"))
    np.testing.assert_array_equal(again.parts, found.parts)  # from the cache, which no encoder is asked for
    assert (again.match_score, again.wrong_score, again.by) == (direct.match_score, direct.wrong_score, "occlusion")
    with pytest.raises(TypeError):
        other = DecodedImages(images.paths, 255 - images.pixels, {}, ("", "", ""))
        decision_maps(rows, other, SimpleNamespace(encode_image=None, fingerprint="weights", precision="fp32"))


def test_a_vit_is_asked_by_its_attention_and_by_occlusion_only_where_that_is_wanted(checkpoints, tmp_path):
    checkpoints.write_checkpoint(tmp_path / "vit.pt", checkpoints.SMALL_VIT)
    model = load_backbone("tiny", tmp_path / "vit.pt", "cpu")
    images = DecodedImages(("wrong", "a", "match"), photographs(3, 32, 32), {}, ("", "", ""))
    embedded = model.encode_image(images.pixels)
    rows = rows_of({"a": 0.0}).assign(match_score=cosine(*embedded[[1, 2]]), wrong_score=cosine(*embedded[[1, 0]]))
    (found,) = decision_maps(rows, images, model)
    assert (found.by, found.parts.shape) == ("relevance", (2, 2))
    assert found.margin == pytest.approx((rows["match_score"] - rows["wrong_score"]).iloc[0], abs=1e-6)
    # match and wrong image changed: what spoke for the one speaks against it
    (other,) = decision_maps(rows.assign(match_path="wrong", wrong_path="match", match_score=rows["wrong_score"],
                                         wrong_score=rows["match_score"]), images, model)  # fmt: skip
    np.testing.assert_allclose(other.parts, -found.parts, atol=1e-7)
    (covered,) = decision_maps(rows, images, model, by="occlusion")
    assert (covered.by, covered.parts.shape) == ("occlusion", (12, 12))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cells": 1}, "cells=1: from 2 to the shorter side in pixels, 24"),
        ({"cells": 25}, "cells=25"),
        ({"window": 0.9}, "window=0.9: 1 to 12 cells are wanted; less leaves parts"),
        ({"window": 13}, "window=13"),
        ({"fade": 1.5}, "fade=1.5"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(EvaluationError, match=message):
        occlusion_map(*photographs(3), projected, **options)


def test_other_images_and_embeddings_that_are_no_directions_are_refused():
    query, match, wrong = photographs(3)
    with pytest.raises(EvaluationError, match=r"float64 \(24, 24, 3\); uint8"):
        occlusion_map(query, match / 255, wrong, projected)
    with pytest.raises(EvaluationError, match=r"\(24, 24, 3\), \(24, 24, 3\) and \(12, 24, 3\); one size is wanted"):
        occlusion_map(query, match, wrong[:12], projected)
    with pytest.raises(EvaluationError, match="the embedding of the query, its match or the other image is not finite"):
        occlusion_map(query, match, wrong, lambda pixels: np.full((len(pixels), 3), np.nan))

    def breaks(pixels: np.ndarray) -> np.ndarray:
        return np.ones((len(pixels), 3)) if len(pixels) == 3 else np.zeros((len(pixels), 3))

    with pytest.raises(EvaluationError, match="the embedding of the image covered at cells 0 … 31 is zero"):
        occlusion_map(query, match, wrong, breaks)
