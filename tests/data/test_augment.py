import torch

from handclip_lib.data.augment import augment, normalised


def test_augmentation_moves_a_mark_a_little_and_never_mirrors_it():
    pixels = torch.zeros(200, 64, 64, 3, dtype=torch.uint8)
    pixels[:, 28:36, 46:58] = 255  # a mark in the right half
    images = augment(pixels, torch.Generator().manual_seed(0))
    light = (images - images.mean(dim=(2, 3), keepdim=True)).clamp(min=0.5).sum(dim=1) - 1.5
    across = (light * torch.arange(64)).sum(dim=(1, 2)) / light.sum(dim=(1, 2))
    assert across.min() > 38
    assert across.std() > 0.5


def test_no_strength_is_the_plain_normalisation():
    pixels = torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8)
    plain = normalised(pixels.permute(0, 3, 1, 2).float() / 255)
    torch.testing.assert_close(augment(pixels, torch.Generator(), strength=0), plain)


def test_a_flip_mirrors_half_and_only_on_request():
    pixels = torch.zeros(100, 16, 16, 3, dtype=torch.uint8)
    pixels[:, :, 8:] = 255
    right = augment(pixels, torch.Generator().manual_seed(0), 0, flip=True)[:, 0, :, 12].mean(dim=1) > 0
    assert 30 < right.sum() < 70
    assert (augment(pixels, torch.Generator().manual_seed(0), 0)[:, 0, :, 12].mean(dim=1) > 0).all()


def test_the_generator_decides():
    pixels = torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8)
    one, again, other = (augment(pixels, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
