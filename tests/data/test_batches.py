import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from handclip_lib.data.batches import SmallBatchWarning, augment, identity_batches, normalised, plain, warn_if_short


def counted(labels: np.ndarray, p: int, k: int, batches: list[np.ndarray]) -> np.ndarray:
    """How often an epoch shows each image, after a plain look at every batch."""
    people = sorted(set(labels.tolist()))
    images = {who: int((labels == who).sum()) for who in people}
    groups = {who: math.ceil(images[who] / k) for who in people}
    held = min(p, len(people))
    assert len(batches) == math.ceil(sum(groups.values()) / held), "as many as hold all groups"
    shown = np.zeros(len(labels), int)
    for batch in batches:
        assert len(set(batch.tolist())) == len(batch), "no image twice"
        own = [(labels[batch] == who).sum() for who in people]
        assert sum(count > 0 for count in own) == held, "full, and never fewer than two"
        assert max(own) <= k
        for who, count in zip(people, own, strict=True):
            assert count == 0 or count >= images[who] // groups[who], "groups as even as may be"
        shown[batch] += 1
    for who in people:
        times = shown[labels == who]
        assert max(times) - min(times) <= 1
        assert min(times) >= (groups[who] <= len(batches)), "whose groups fit is shown whole"
        assert groups[who] <= len(batches) or max(times) == 1, "nobody shows all again before others are shown once"
    return shown


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=2, max_size=80), st.integers(2, 6), st.integers(1, 5), st.integers(0, 99))
def test_every_batch_holds_p_people_and_an_epoch_every_image_that_fits(labels, p, k, seed):
    labels = np.array([*labels, 10, 11])
    counted(labels, p, k, identity_batches(labels, p, k, np.random.default_rng(seed)))


def test_a_person_of_many_images_fills_no_step_alone():
    """The shape of 11k Hands' palmar_r: one person has four times as many images as the others."""
    labels = np.repeat(np.arange(72), [72, *[8] * 71])
    rng = np.random.default_rng(0)
    epochs = [identity_batches(labels, 32, 4, rng) for _ in range(20)]
    shown = sum(counted(labels, 32, 4, batches) for batches in epochs)
    assert {len(batches) for batches in epochs} == {5}
    assert {len(batch) for batches in epochs for batch in batches} == {128}
    assert shown.min() > 0, "what one epoch leaves, another shows"


def test_places_that_are_left_go_to_all_in_turn():
    labels = np.repeat(np.arange(33), 4)
    shown = sum(counted(labels, 32, 4, identity_batches(labels, 32, 4, np.random.default_rng(n))) for n in range(40))
    assert shown.sum() == 40 * 64 * 4
    assert shown.max() - shown.min() <= 15, "none is favoured: 77.6 in the mean"


def test_the_generator_decides():
    labels = np.repeat(np.arange(10), 5)
    one, again, other = (identity_batches(labels, 4, 2, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=False))


def test_a_batch_of_one_identity_is_refused():
    with pytest.raises(ValueError, match="1 identities × 4 images"):
        identity_batches([0, 1], 1, 4, np.random.default_rng(0))
    with pytest.raises(ValueError, match="images of 1 identities: a batch holds at least two"):
        identity_batches([0, 0, 0], 2, 4, np.random.default_rng(0))


def test_what_batches_lack_is_told():
    with pytest.warns(SmallBatchWarning, match="^n_identities=4: a batch holds the 3 identities"):
        warn_if_short([7, 7, 8, 9], 4, 2)
    wanted = "^1 identities have more images than an epoch in batches of 2 identities × 2 images shows: 4 of up to 5"
    with pytest.warns(SmallBatchWarning, match=wanted):
        warn_if_short([7] * 5 + [8], 2, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_short([7, 7, 8, 9], 3, 2)


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
