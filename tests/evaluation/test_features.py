from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from handclip_lib.data import splits
from handclip_lib.data.images import DecodedImages, decode_images
from handclip_lib.data.labels import read_hands11k
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation import features as module
from handclip_lib.evaluation.features import (
    BASELINE,
    Features,
    extract_features,
    histogram_embeddings,
    is_baseline,
    mirrored,
    pixel_embeddings,
)
from handclip_lib.evaluation.ranking.protocol import evaluate_split


def images(n: int = 10, copies: int = 0) -> DecodedImages:
    """`n` images of random pixels, the first `copies` of them twice under another name."""
    pixels = np.random.default_rng(0).integers(0, 255, (n, 8, 8, 3), np.uint8)
    order = [*range(n), *range(copies)]
    paths = tuple(f"{place}.jpg" for place in range(len(order)))
    return DecodedImages(paths, pixels[order], {}, tuple(f"key{i}" for i in order))


class Encoder:
    """Sums of colours; counts the images it was given, and can break after some."""

    def __init__(self, breaks_after: int = 10**9):
        self.seen, self.breaks_after = 0, breaks_after

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        if self.seen + len(pixels) > self.breaks_after:
            raise RuntimeError("killed")
        self.seen += len(pixels)
        return pixels.reshape(len(pixels), -1)[:, :12].astype(np.float64) + 1


def extract(encoder, decoded, tmp_path, key="weights"):
    return extract_features(encoder, decoded, encoder_key=key, batch_size=2, cache=tmp_path, progress=False)


def test_embeddings_are_those_of_the_encoder_scaled_to_length_one(tmp_path):
    decoded = images()
    found = extract(Encoder(), decoded, tmp_path)
    plain = Encoder()(np.asarray(decoded.pixels))
    np.testing.assert_allclose(found.embeddings, plain / np.linalg.norm(plain, axis=1, keepdims=True), rtol=1e-6)
    assert found.embeddings.dtype == np.float32
    np.testing.assert_array_equal(found.of(["3.jpg", "1.jpg"]), found.embeddings[[3, 1]])


def test_each_content_is_encoded_once_and_kept(tmp_path):
    decoded, encoder = images(10, copies=4), Encoder()
    found = extract(encoder, decoded, tmp_path)
    assert encoder.seen == 10
    np.testing.assert_array_equal(found.embeddings[10:], found.embeddings[:4])
    assert extract(Encoder(breaks_after=0), decoded, tmp_path).embeddings.tolist() == found.embeddings.tolist()
    other = Encoder()
    extract(other, decoded, tmp_path, key="other weights")
    assert other.seen == 10


@pytest.mark.matrix("killed", "encoding", "goes on at the last block")
def test_an_encoder_that_gives_fortran_arrays_is_kept_as_it_gave_them(tmp_path):
    def encode(pixels):
        return np.asfortranarray(pixels[:, 0, :, 0] + 1.0)

    first, kept = (extract(encode, images(), tmp_path).embeddings for _ in range(2))
    np.testing.assert_array_equal(kept, first)


def test_a_killed_run_resumes_at_the_last_block(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 4)
    decoded = images()
    with pytest.raises(RuntimeError, match="killed"):
        extract(Encoder(breaks_after=6), decoded, tmp_path)
    again = Encoder()
    resumed = extract(again, decoded, tmp_path)
    assert again.seen == 6, "the block of four that was whole is not encoded again"
    np.testing.assert_array_equal(resumed.embeddings, extract(Encoder(), decoded, tmp_path / "fresh").embeddings)


@pytest.mark.matrix("damaged file", "features in the cache", "encoded again")
@pytest.mark.parametrize("harm", ["flip", "hole", "cut", "empty", "swap"])
def test_a_damaged_block_is_encoded_again_with_a_word(tmp_path, harm, caplog):
    decoded = images()
    first = extract(Encoder(), decoded, tmp_path)
    (block,) = tmp_path.rglob("*.safetensors")
    data = bytearray(block.read_bytes())
    if harm == "flip":
        data[-3] ^= 1  # still a finite number
    elif harm == "hole":
        data[-96:-48] = bytes(48)
    elif harm == "swap":  # two rows of 48 bytes change places
        data[-96:] = data[-48:] + data[-96:-48]
    block.write_bytes(data[: {"cut": 150, "empty": 0}.get(harm)])
    again = Encoder()
    np.testing.assert_array_equal(extract(again, decoded, tmp_path).embeddings, first.embeddings)
    assert again.seen == 10
    assert f"{block} of the feature cache is damaged; what it held is computed again" in caplog.text
    caplog.clear()
    extract(Encoder(breaks_after=0), decoded, tmp_path)
    assert not caplog.records


@pytest.mark.parametrize(("value", "words"), [(np.nan, "not finite"), (np.inf, "not finite"), (0.0, "zero")])
def test_an_embedding_that_means_nothing_is_refused_by_path_and_not_kept(value, words, tmp_path):
    def encode(pixels):
        embeddings = np.ones((len(pixels), 3))
        embeddings[0] = value
        return embeddings

    with pytest.raises(EvaluationError, match=rf"\d\.jpg is {words}"):
        extract(encode, images(), tmp_path)
    assert list(tmp_path.rglob("*.safetensors")) == []


def test_a_path_without_an_embedding_is_named():
    with pytest.raises(EvaluationError, match=r"b\.jpg has no embedding"):
        Features.normalised(["a.jpg"], np.ones((1, 2))).of(["b.jpg"])
    with pytest.raises(EvaluationError, match=r"\(3, 2\) for 1 images"):
        Features.normalised(["a.jpg"], np.ones((3, 2)))


def test_a_mirrored_encoder_sees_the_pixels_from_right_to_left():
    pixels = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    seen = mirrored(lambda given: given[:, 0, :, 0])(pixels)
    np.testing.assert_array_equal(seen, pixels[:, 0, ::-1, 0])


def test_a_batch_larger_than_the_memory_is_refused_before_it_is_encoded(tmp_path, monkeypatch):
    monkeypatch.setattr("handclip_lib.evaluation.features.free_memory", lambda: 2 * 8 * 8 * 3 * 8 - 1)
    encoder = Encoder()
    with pytest.raises(EvaluationError, match=r"a batch of 2 images of 8x8 pixels needs .* lower batch_size, or input"):
        extract(encoder, images(), tmp_path)
    assert encoder.seen == 0


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


def test_histogram_is_that_of_each_pixel_in_turn():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 9, 7, 3), dtype=np.uint8)
    pixels[1] = 128  # grey: no skin, so all pixels count
    found = histogram_embeddings(decoded(*pixels)).embeddings
    for own, image in zip(found, pixels, strict=True):
        hsv = np.asarray(Image.fromarray(image).convert("HSV")).reshape(-1, 3).tolist()
        skin = [pixel for pixel in hsv if pixel[1] > 0.15 * 255] or hsv
        counts = np.zeros((16, 8, 8))
        for hue, saturation, value in skin:
            counts[hue * 16 // 256, saturation * 8 // 256, value * 8 // 256] += 1
        np.testing.assert_allclose(own, np.sqrt(counts / len(skin)).ravel(), rtol=1e-6)


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


def test_embeddings_are_scaled_a_block_at_a_time_to_what_all_at_once_give(monkeypatch):
    given = np.random.default_rng(0).standard_normal((10, 5)).astype(np.float32)
    monkeypatch.setattr(module, "AT_ONCE", 3)
    found = Features.normalised(map(str, range(10)), given)
    length = np.linalg.norm(given.astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_array_equal(found.embeddings, (given / length).astype(np.float32))
    np.testing.assert_array_equal(found.lengths, length[:, 0].astype(np.float32))
