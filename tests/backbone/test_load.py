from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

from handclip_lib.backbone.load import SHAPES, check_weights, load_backbone
from handclip_lib.backbone.openai_clip import clip_package
from handclip_lib.errors import BackboneError
from handclip_lib.evaluation.features import key_of
from handclip_lib.models.reid_head import ReidEncoder
from handclip_lib.models.trained import encode_images
from handclip_lib.parameters.backbones import BackboneName
from handclip_lib.parameters.parts import ReidHead


@pytest.fixture(scope="module")
def small(checkpoints, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "small.pt"
    checkpoints.write_checkpoint(path, checkpoints.SMALL_VIT)
    return load_backbone(str(path), device="cpu")


def _photographs(n: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("tower", ["SMALL_VIT", "SMALL_RESNET"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_embeddings_in_half_precision_are_near_are_kept_apart_and_leave_the_weights(
    checkpoints, tmp_path, tower, precision
):
    path, shape = tmp_path / "small.pt", getattr(checkpoints, tower)
    checkpoints.write_checkpoint(path, shape)
    plain, half = load_backbone(str(path), device="cpu"), load_backbone(str(path), device="cpu", precision=precision)
    one, other = (backbone.encode_image(_photographs(5, shape.resolution)) for backbone in (plain, half))
    assert other.dtype == np.float32
    assert 1e-6 < np.linalg.norm(one - other) / np.linalg.norm(one) < 0.1
    assert (key_of(plain), key_of(half)) == (plain.fingerprint, f"{plain.fingerprint} {precision}")
    assert {p.dtype for p in half.model.visual.parameters()} == {torch.float32}
    encoder = ReidEncoder(half, 2, ReidHead())
    np.testing.assert_array_equal(encode_images(encoder, _photographs(5, shape.resolution)), other)


def test_weights_too_large_for_half_precision_name_the_precision():
    backbone = load_backbone("tiny", device="cpu", precision="fp16")
    with torch.no_grad():
        for name, values in backbone.model.visual.named_parameters():
            values *= 60 if name.endswith(("conv1.weight", "mlp.c_fc.weight")) else 1
    pixels = _photographs(2, backbone.resolution)
    with pytest.raises(BackboneError, match=r"not finite .*; embedding_precision='fp16' may be too narrow .*fp32"):
        backbone.encode_image(pixels)
    assert np.isfinite(replace(backbone, precision="fp32").encode_image(pixels)).all()


def test_a_read_only_and_an_empty_batch_are_fine(small):
    pixels = _photographs(3, 32)
    pixels.flags.writeable = False
    np.testing.assert_allclose(small.encode_image(pixels[::-1])[::-1], small.encode_image(pixels), rtol=1e-4)
    assert small.encode_image(pixels).dtype == np.float32
    assert small.encode_image(pixels[:0]).shape == (0, 32)
    assert small.encode_text([]).shape == (0, 32)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((2, 33, 33, 3), np.uint8),
        np.zeros((2, 3, 32, 32), np.uint8),
        np.zeros((32, 32, 3), np.uint8),
        np.zeros((2, 32, 32, 3), np.float32),
    ],
)
def test_images_of_another_kind_are_refused(small, pixels):
    with pytest.raises(BackboneError, match=r"\(n, 32, 32, 3\)"):
        small.encode_image(pixels)


def test_tokens_are_openai_clips(small):
    texts = ["A photo of a right dorsal hand.", "", "naïve 手 😀 &amp; <script>"]
    assert torch.equal(small.tokenize(texts), clip_package().tokenize(texts).long())
    assert small.tokenize("one text").shape == (1, 77)


def test_texts_are_embedded_as_the_plain_model_does(checkpoints, small):
    texts = ["A photo of a left palmar hand.", "dark skin"]
    plain = checkpoints.random_clip(checkpoints.SMALL_VIT)
    expected = plain.encode_text(clip_package().tokenize(texts)).detach().numpy()
    np.testing.assert_allclose(small.encode_text(texts), expected, rtol=1e-4, atol=1e-6)


def test_a_text_that_is_too_long_is_refused(small):
    with pytest.raises(BackboneError, match=r"'hand hand .* takes 77"):
        small.tokenize(["hand " * 100])


def test_a_name_and_a_file_that_disagree_are_refused_and_the_remedy_works(checkpoints, tmp_path):
    path = tmp_path / "weights.pt"
    checkpoints.write_checkpoint(path, checkpoints.SMALL_RESNET)
    for refuses in (load_backbone, check_weights):
        with pytest.raises(BackboneError, match=r"(?s)vitb16 is a ViT.*768.*holds a ResNet.*leave backbone out"):
            refuses("vitb16", str(path))
    assert check_weights("tiny", str(path)) == (False, 8)
    assert load_backbone("tiny", weights=path, device="cpu").embedding_dim == 32


def test_a_name_without_published_weights_is_not_given_tinys(monkeypatch, checkpoints, tmp_path):
    monkeypatch.setitem(SHAPES, "small", checkpoints.SMALL_VIT)
    for refuses in (load_backbone, check_weights):
        with pytest.raises(BackboneError, match=r"nobody publishes weights of small.*-p weights FILE"):
            refuses("small", "")
    checkpoints.write_checkpoint(tmp_path / "small.pt", checkpoints.SMALL_VIT)
    assert check_weights("small", str(tmp_path / "small.pt")) == (True, 64)
    assert load_backbone("small", tmp_path / "small.pt", device="cpu").embedding_dim == 32


def test_every_backbone_is_a_choice_and_every_choice_a_backbone():
    assert set(get_args(BackboneName)) == set(SHAPES)


def test_weights_are_called_by_their_file_and_their_content(checkpoints, tmp_path, small):
    assert small.name == f"small {small.fingerprint[:8]}"
    path = tmp_path / "mine.pt"
    checkpoints.write_checkpoint(path, SHAPES["tiny"])
    mine = load_backbone("tiny", weights=path, device="cpu")
    assert (mine.name, mine.source) == (f"mine {mine.fingerprint[:8]}", f"file {path}")
    tiny = load_backbone("tiny")
    assert tiny.source == "tiny of this library"
    assert mine.fingerprint != tiny.fingerprint
    folder = tmp_path / "a_model"
    folder.mkdir()
    checkpoints.write_checkpoint(folder / "model.safetensors", SHAPES["tiny"], "safetensors")
    for place in (folder, folder / "model.safetensors"):
        assert load_backbone("tiny", place, device="cpu").name == f"a_model {mine.fingerprint[:8]}"


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(BackboneError) as failed:
        load_backbone("vit-b-16")
    assert all(name in str(failed.value) for name in SHAPES)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta", ""])
def test_a_device_that_is_not_here_is_refused(device):
    with pytest.raises(BackboneError, match="device"):
        load_backbone("tiny", device=device)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [("vitb16", "jit"), ("rn50", "state_dict")])
def test_the_true_architectures_load_and_embed(checkpoints, tmp_path, name, kind):
    path = tmp_path / "weights.pt"
    stored = checkpoints.write_checkpoint(path, SHAPES[name], kind)
    backbone = load_backbone(name, weights=path, device="cpu")
    assert all(torch.equal(backbone.model.state_dict()[key], value.float()) for key, value in stored.items())
    got = backbone.encode_image(_photographs(2, 224))
    assert got.shape == (2, SHAPES[name].embedding_dim)
    assert np.isfinite(got).all()
    other = "rn50" if name == "vitb16" else "vitb16"
    with pytest.raises(BackboneError, match="leave backbone out"):
        load_backbone(other, weights=path, device="cpu")


@pytest.mark.parametrize("kind", ["state_dict", "safetensors"])
def test_weights_trained_on_another_size_take_it(checkpoints, tmp_path, kind):
    path = tmp_path / ("tiny_256.safetensors" if kind == "safetensors" else "tiny_256.pt")
    checkpoints.write_checkpoint(path, replace(SHAPES["tiny"], resolution=256), kind)
    assert load_backbone("tiny", weights=path, device="cpu").resolution == 256
    assert load_backbone("tiny", weights=path, device="cpu", input_size=(128, 64)).resolution == (128, 64)
    assert check_weights("tiny", str(path)) == (False, 16)
