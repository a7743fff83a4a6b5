from dataclasses import replace

import numpy as np
import pytest

from handclip_lib.data import splits
from handclip_lib.data.images import DecodedImages, decode_images
from handclip_lib.data.labels import read_hands11k
from handclip_lib.evaluation.baselines import BASELINE, histogram_embeddings, is_baseline, pixel_embeddings
from handclip_lib.evaluation.ranking.protocol import evaluate_split


def decoded(*pixels: np.ndarray) -> DecodedImages:
    names = tuple(f"{i}.jpg" for i in range(len(pixels)))
    return DecodedImages(names, np.stack(pixels), {}, names)


def test_pixels_ignore_brightness_and_see_position():
    image = np.full((64, 64, 3), 200, np.uint8)
    image[10:30, 10:30] = (150, 90, 70)
    moved = np.roll(image, 32, axis=1)
    same, shifted = (pixel_embeddings(decoded(image, other)).embeddings for other in (image - 40, moved))
    assert same[0] @ same[1] == pytest.approx(1, abs=1e-5)
    assert shifted[0] @ shifted[1] < 0.2


def test_pixels_equal_a_plain_mean_over_two_by_two():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    small = image.reshape(32, 2, 32, 2, 3).mean((1, 3)).ravel()
    plain = (small - small.mean()) / np.linalg.norm(small - small.mean())
    assert plain @ pixel_embeddings(decoded(image)).embeddings[0] > 0.9999


def test_histogram_sees_skin_and_neither_position_nor_background():
    hand, other = (np.full((32, 32, 3), 250, np.uint8) for _ in range(2))
    hand[:10], other[20:30] = (200, 140, 110), (200, 140, 110)
    dark = hand.copy()
    dark[:10] = (90, 55, 40)
    embeddings = histogram_embeddings(decoded(hand, other, dark)).embeddings
    assert embeddings[0] @ embeddings[1] == pytest.approx(1, abs=1e-6)
    assert embeddings[0] @ embeddings[2] < 0.1


def test_images_of_one_colour_have_embeddings_too():
    for baseline in (pixel_embeddings, histogram_embeddings):
        assert np.isfinite(baseline(decoded(np.full((32, 32, 3), 255, np.uint8))).embeddings).all()


@pytest.mark.parametrize(("aspect", "pixels", "histogram"), [("dorsal_r", 0.68, 0.73), ("palmar_r", 0.69, 0.63)])
def test_baselines_are_as_strong_as_published_on_real_photographs(
    aspect, pixels, histogram, hands11k_sample, monkeypatch
):
    monkeypatch.setattr(splits, "TRAIN_SHARE", 0.0)  # every subject is tested, as in the published figure
    table = read_hands11k(hands11k_sample)
    own = table.images[(table.images["aspect"] == aspect) & ~table.images["accessories"]]
    own = own[own.groupby("identity")["path"].transform("size") >= 2]
    split = splits.make_split(replace(table, images=own), aspect, "proportional")
    images = decode_images(table.root, own["path"], 224, progress=False)
    for baseline, published in ((pixel_embeddings, pixels), (histogram_embeddings, histogram)):
        assert evaluate_split(baseline(images), split).summary()["rank1"] == pytest.approx(published, abs=0.06)


def test_a_baseline_is_known_by_its_name_in_earlier_runs_too():
    assert [is_baseline(name) for name in (f"{BASELINE}pixels", "floor: pixels", "tiny, tuned", "")] == [
        True, True, False, False,
    ]  # fmt: skip
