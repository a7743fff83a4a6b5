import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from handclip_lib.data.batches import SmallBatchWarning, augment, identity_batches, normalised, plain, warn_if_few


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=80), st.integers(2, 6), st.integers(1, 5), st.integers(0, 99))
def test_an_epoch_holds_every_image_once_and_a_batch_at_most_p_times_k(labels, p, k, seed):
    labels = np.array(labels)
    batches = identity_batches(labels, p, k, np.random.default_rng(seed))
    assert sorted(np.concatenate(batches)) == list(range(len(labels)))
    over = 0  # a last image alone joins another batch
    for batch in batches:
        _, counts = np.unique(labels[batch], return_counts=True)
        over += max(len(batch) - p * k, max(counts) - k, len(counts) - p, 0)
    assert over <= 1


def test_large_identities_are_spread_over_the_epoch():
    labels = np.repeat(np.arange(20), [40] + [4] * 19)
    batches = identity_batches(labels, 4, 4, np.random.default_rng(0))
    assert [len(np.unique(labels[batch])) for batch in batches].count(4) == 6
    assert sum((labels[batch] == 0).any() for batch in batches) == 10, "one group of the large one a batch"


def test_the_generator_decides():
    labels = np.repeat(np.arange(10), 5)
    one, again, other = (identity_batches(labels, 4, 2, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=False))


def test_a_batch_of_one_identity_is_refused():
    with pytest.raises(ValueError, match="1 identities × 4 images"):
        identity_batches([0, 1], 1, 4, np.random.default_rng(0))


def test_no_batch_is_a_single_image():
    for seed in range(20):
        for count in (2, 3, 5, 7, 9):
            batches = identity_batches([0] * count + [1, 2], 3, 2, np.random.default_rng(seed))
            assert min(map(len, batches)) > 1
            assert sorted(np.concatenate(batches)) == list(range(count + 2))


def test_fewer_identities_than_a_batch_is_to_hold_are_told():
    with pytest.warns(SmallBatchWarning, match="n_identities=4: a batch holds the 3 identities"):
        warn_if_few([7, 7, 8, 9], 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_few([7, 7, 8, 9], 3)


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
