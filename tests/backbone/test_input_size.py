import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from handclip_lib.backbone.image_tower import grid_of, resize_input
from handclip_lib.backbone.load import load_backbone
from handclip_lib.errors import BackboneError
from handclip_lib.models.trained import save_clip

KINDS = ("SMALL_VIT", "SMALL_RESNET")


def cells(visual) -> torch.Tensor:
    holder = visual if hasattr(visual, "transformer") else visual.attnpool
    return holder.positional_embedding.detach()


@pytest.fixture(params=KINDS)
def kind(request, checkpoints, tmp_path):
    checkpoints.write_checkpoint(tmp_path / "small.pt", getattr(checkpoints, request.param))
    return tmp_path / "small.pt"


def test_embeddings_are_interpolated_as_a_picture_of_each_channel_is(kind):
    square = load_backbone(str(kind), device="cpu")
    old = grid_of(square.model.visual, (square.resolution, square.resolution))
    wanted = (4 * square.resolution, 2 * square.resolution)
    portrait = load_backbone(str(kind), device="cpu", input_size=wanted)
    before, after = cells(square.model.visual), cells(portrait.model.visual)
    assert torch.equal(after[0], before[0]), "the class token has no place"
    assert len(after) == 1 + 8 * old[0] * old[1]
    for channel in (0, 7):
        picture = Image.fromarray(before[1:, channel].reshape(*old).numpy())
        larger = np.asarray(picture.resize((2 * old[1], 4 * old[0]), Image.Resampling.BICUBIC))
        np.testing.assert_allclose(after[1:, channel].reshape(4 * old[0], 2 * old[1]), larger, atol=1e-5)


def test_a_portrait_tower_embeds_saves_and_loads(kind, tmp_path):
    square = load_backbone(str(kind), device="cpu")
    side = square.resolution
    portrait = load_backbone(str(kind), device="cpu", input_size=(2 * side, side))
    assert portrait.resolution == (2 * side, side)
    assert portrait.fingerprint != square.fingerprint
    pixels = np.random.default_rng(0).integers(0, 255, (2, 2 * side, side, 3), np.uint8)
    embedded = portrait.encode_image(pixels)
    with torch.inference_mode():
        from handclip_lib.data.batches import plain

        wanted = portrait.model.visual(plain(torch.from_numpy(pixels)))
    np.testing.assert_allclose(embedded, wanted.numpy(), rtol=1e-4, atol=1e-5)
    save_clip(portrait, tmp_path / "best.safetensors")
    loaded = load_backbone(str(tmp_path / "best.safetensors"), device="cpu")
    assert (loaded.fingerprint, loaded.resolution) == (portrait.fingerprint, portrait.resolution)
    np.testing.assert_array_equal(loaded.encode_image(pixels), embedded)
    with pytest.raises(BackboneError, match=rf"takes uint8 images of shape \(n, {2 * side}, {side}, 3\)"):
        portrait.encode_image(pixels[:, :side])


def test_the_size_it_has_changes_nothing(kind):
    square = load_backbone(str(kind), device="cpu")
    same = load_backbone(str(kind), device="cpu", input_size=(square.resolution, square.resolution))
    assert same.fingerprint == square.fingerprint
    assert same.resolution == square.resolution


def test_a_side_that_no_patch_fits_is_refused_with_the_next_that_does(kind):
    visual = load_backbone(str(kind), device="cpu").model.visual
    step = 16 if hasattr(visual, "transformer") else 32
    with pytest.raises(BackboneError, match=f"multiples of {step} pixels; try {4 * step}x{2 * step}"):
        resize_input(visual, (step, step), (4 * step + 3, 2 * step))
    with pytest.raises(BackboneError, match=f"input_size=0x{step}"):
        resize_input(visual, (step, step), (0, step))


def test_a_header_that_disagrees_with_the_tensors_is_refused(kind, tmp_path):
    square = load_backbone(str(kind), device="cpu")
    state = {name: value.contiguous() for name, value in square.model.state_dict().items()}
    file = tmp_path / "wrong.safetensors"
    safetensors.torch.save_file(state, file, {"input_size": f"{4 * square.resolution} 32 {square.resolution}"})
    with pytest.raises(BackboneError, match="places for patches"):
        load_backbone(str(file), device="cpu")
