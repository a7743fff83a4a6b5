import numpy as np
import pytest

from handclip_lib.data.images import DecodedImages
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation import features as module
from handclip_lib.evaluation.features import Features, extract_features, joined, mirrored


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
    assert f"{block} of the feature cache is damaged; its images are encoded again" in caplog.text
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


def test_joined_features_hold_each_path_once_and_refuse_other_models():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4, 3))
    first = {"a": Features.normalised("xyz", rows[:3]), "b": Features.normalised("xyz", -rows[:3])}
    second = {"a": Features.normalised("wx", rows[[3, 0]]), "b": Features.normalised("wx", -rows[[3, 0]])}
    both = joined(first, second)
    for name, sign in (("a", 1), ("b", -1)):
        assert sorted(both[name].paths) == list("wxyz")
        unit = sign * rows / np.linalg.norm(rows, axis=1, keepdims=True)
        np.testing.assert_allclose(both[name].of("xyzw"), unit, rtol=1e-6)
    with pytest.raises(EvaluationError, match="the same models"):
        joined(first, {"a": second["a"]})


def test_a_mirrored_encoder_sees_the_pixels_from_right_to_left():
    pixels = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    seen = mirrored(lambda given: given[:, 0, :, 0])(pixels)
    np.testing.assert_array_equal(seen, pixels[:, 0, ::-1, 0])


def test_a_batch_larger_than_the_memory_is_refused_before_it_is_encoded(tmp_path, monkeypatch):
    monkeypatch.setattr("handclip_lib.evaluation.memory.free_memory", lambda: 2 * 8 * 8 * 3 * 8 - 1)
    encoder = Encoder()
    with pytest.raises(EvaluationError, match=r"a batch of 2 images of 8x8 pixels needs .* lower batch_size, or input"):
        extract(encoder, images(), tmp_path)
    assert encoder.seen == 0
