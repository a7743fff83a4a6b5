import numpy as np
import pytest
import safetensors.numpy
import torch

from handclip_lib.backbone.load import load_backbone
from handclip_lib.errors import BackboneError
from handclip_lib.models.trained import BEST, PROMPTS, load_trained, prompt_texts, save_clip, save_texts


@pytest.fixture(scope="module")
def tiny():
    return load_backbone("tiny", device="cpu")


def test_texts_come_back_in_the_order_that_is_asked_for(tiny, tmp_path):
    texts = np.random.default_rng(0).normal(size=(3, 128)).astype(np.float32)
    save_texts(tmp_path / PROMPTS, texts, ["7", "12", "anna"], tiny)
    np.testing.assert_array_equal(prompt_texts(tiny, tmp_path, ["anna", "7"]), texts[[2, 0]])
    with pytest.raises(BackboneError, match="has no prompt of 8, 9 \\(2 of 3\\): run notebook 02 on the same data"):
        prompt_texts(tiny, tmp_path, ["7", "8", "9"])


def test_prompts_of_another_clip_and_of_no_run_are_refused(tiny, tmp_path):
    with pytest.raises(BackboneError, match=r"holds no prompts.*run notebook 02"):
        prompt_texts(tiny, tmp_path, ["7"])
    save_texts(tmp_path / PROMPTS, np.ones((1, 128), np.float32), ["7"], tiny)
    other = load_backbone("tiny", device="cpu")
    with torch.no_grad():
        other.model.visual.conv1.weight.add_(1)
    moved = save_clip(other, tmp_path / "best.safetensors")
    assert moved.fingerprint != tiny.fingerprint
    with pytest.raises(BackboneError, match=r"were learnt on weights .* run notebook 02 with the same backbone"):
        prompt_texts(moved, tmp_path, ["7"])


@pytest.mark.parametrize("place", [100, 20_000, -1])
def test_a_changed_byte_of_prompts_and_of_tuned_weights_is_noticed(tiny, tmp_path, place):
    save_texts(tmp_path / PROMPTS, np.ones((50, 128), np.float32), [str(n) for n in range(50)], tiny)
    save_clip(tiny, tmp_path / BEST)
    for name in (PROMPTS, BEST):
        with (tmp_path / name).open("r+b") as file:
            file.seek(place, 2 if place < 0 else 0)
            byte = file.read(1)
            file.seek(-1, 1)
            file.write(bytes([byte[0] ^ 16]))
    with pytest.raises(BackboneError, match=r"text_features\.safetensors holds no prompts.*run notebook 02"):
        prompt_texts(tiny, tmp_path, ["7"])
    with pytest.raises(BackboneError, match=r"best\.safetensors is damaged"):
        load_backbone("tiny", tmp_path / BEST, "cpu")
    with pytest.raises(BackboneError, match=r"best\.safetensors is damaged.*run notebook 03 or 04 again"):
        load_trained(tmp_path, {"backbone": "tiny"}, "cpu")


def test_prompts_without_a_checksum_are_taken_with_a_word(tiny, tmp_path, caplog):
    facts = {"identities": "7", "backbone": tiny.fingerprint}
    safetensors.numpy.save_file({"texts": np.ones((1, 128), np.float32)}, tmp_path / PROMPTS, facts)
    assert prompt_texts(tiny, tmp_path, ["7"]).shape == (1, 128)
    assert "whether it is damaged is not known" in caplog.text


def test_a_saved_clip_is_loaded_as_it_was(tiny, tmp_path):
    saved = save_clip(tiny, tmp_path / "best.safetensors")
    loaded = load_backbone("tiny", weights=tmp_path / "best.safetensors", device="cpu")
    assert loaded.fingerprint == saved.fingerprint == tiny.fingerprint
    pixels = np.random.default_rng(0).integers(0, 255, (2, 128, 128, 3), np.uint8)
    np.testing.assert_array_equal(loaded.encode_image(pixels), tiny.encode_image(pixels))
