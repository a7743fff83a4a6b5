import pytest
import torch

from handclip_lib.data.augment import augment, normalised, plain


def test_augmentation_moves_a_mark_a_little_and_never_mirrors_it():
    pixels = torch.zeros(200, 64, 64, 3, dtype=torch.uint8)
    pixels[:, 28:36, 46:58] = 255  # a mark in the right half
    images = augment(pixels, range(200))
    light = (images - images.mean(dim=(2, 3), keepdim=True)).clamp(min=0.5).sum(dim=1) - 1.5
    across = (light * torch.arange(64)).sum(dim=(1, 2)) / light.sum(dim=(1, 2))
    assert across.min() > 38
    assert across.std() > 0.5


def test_no_strength_is_the_plain_normalisation():
    pixels = torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8)
    torch.testing.assert_close(augment(pixels, range(3), strength=0), plain(pixels))
    torch.testing.assert_close(plain(pixels), normalised(pixels.permute(0, 3, 1, 2).float() / 255))


def test_a_flip_mirrors_half_and_only_on_request():
    pixels = torch.zeros(100, 16, 16, 3, dtype=torch.uint8)
    pixels[:, :, 8:] = 255
    right = augment(pixels, range(100), 0, flip=True)[:, 0, :, 12].mean(dim=1) > 0
    assert 30 < right.sum() < 70
    assert (augment(pixels, range(100), 0)[:, 0, :, 12].mean(dim=1) > 0).all()


def test_each_image_depends_on_its_own_seed_alone():
    pixels = torch.randint(0, 256, (3, 24, 16, 3), dtype=torch.uint8)
    whole = augment(pixels, [7, 8, 9], flip=True)
    assert torch.equal(whole, augment(pixels, [7, 8, 9], flip=True))
    assert torch.equal(whole[1:], augment(pixels[1:], [8, 9], flip=True))
    assert not torch.equal(whole, augment(pixels, [8, 8, 9], flip=True))


def test_the_strength_scales_every_change():
    pixels = torch.full((400, 8, 8, 3), 128, dtype=torch.uint8)
    grey = plain(pixels)
    # a flat picture: light, tint, contrast and noise are what is left
    change = [(augment(pixels, range(400), strength) - grey).std().item() for strength in (0.5, 1.0, 2.0)]
    assert change[0] == pytest.approx(0.5 * change[1], rel=0.05)
    assert change[2] == pytest.approx(2 * change[1], rel=0.05)
