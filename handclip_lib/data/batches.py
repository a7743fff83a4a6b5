"""What a training step takes: batches of P identities × K images, CLIP's normalisation, and random changes.

Evaluation sees no change.
"""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from handclip_lib.data.images import CLIP_MEAN, CLIP_STD


class SmallBatchWarning(UserWarning):
    """Batches cannot hold what they are to hold."""


def warn_if_short(identities: Sequence[int] | np.ndarray, n_identities: int, n_images: int) -> None:
    """Say what batches lack of the P people × K images that were asked for, with the same arguments as below."""
    counts = np.unique(np.asarray(identities), return_counts=True)[1]
    there, most = len(counts), int(counts.max())
    said = []
    if there < n_identities:
        said.append(f"n_identities={n_identities}: a batch holds the {there} identities there are to train on")
    held = min(n_identities, there)
    shown = _batch_count(-(-counts // n_images), held) * n_images
    if many := int((counts > shown).sum()):
        each = f"{held} identities × {n_images} images"
        left = f"{many} identities have more images than an epoch in batches of {each} shows: {shown} of up to {most}"
        said.append(f"{left}, and others in the next")
    if said:
        warnings.warn("; ".join(said), SmallBatchWarning, stacklevel=3)


def identity_batches(
    identities: Sequence[int] | np.ndarray, n_identities: int, n_images: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """One epoch, in batches that are each of as many different identities: P, or all where there are fewer.

    An identity's images are shuffled and cut into groups of at most `n_images`, as even as may be; a batch takes one
    group of each of its identities. There are as many batches as hold all groups, P in each. Places that are left go
    to identities drawn at random, whose images are then shown again. An identity with more groups than there are
    batches shows some of them, and others in the next epoch: one with many photographs shall not fill steps on its
    own. All other images are shown at least once.

    Args:
        identities: Of each image, shape (n,); at least two different ones.
        n_identities, n_images: P, at least 2, and K, at least 1.
        rng: What shuffles.

    Returns:
        Positions of images, int64 each, none twice in a batch.
    """
    if n_identities < 2 or n_images < 1:
        raise ValueError(f"a batch of {n_identities} identities × {n_images} images: give at least 2 × 1")
    labels = np.asarray(identities)
    people, counts = np.unique(labels, return_counts=True)
    if len(people) < 2:
        raise ValueError(f"images of {len(people)} identities: a batch holds at least two")
    groups, held = -(-counts // n_images), min(n_identities, len(people))
    n_batches = _batch_count(groups, held)
    times = np.minimum(groups, n_batches)
    while (left := held * n_batches - times.sum()) > 0:
        free = np.flatnonzero(times < n_batches)
        times[rng.permutation(free)[:left]] += 1
    # dealt in turn, an identity's groups go to different batches, and each batch gets as many
    batches: list[list[np.ndarray]] = [[] for _ in range(n_batches)]
    dealt = 0
    for number in rng.permutation(len(people)):
        for group in _groups(np.flatnonzero(labels == people[number]), groups[number], times[number], rng):
            batches[dealt % n_batches].append(group)
            dealt += 1
    return [np.concatenate(batches[number]) for number in rng.permutation(n_batches)]


def _batch_count(groups: np.ndarray, held: int) -> int:
    return -(-int(groups.sum()) // held)


def _groups(rows: np.ndarray, count: int, times: int, rng: np.random.Generator) -> list[np.ndarray]:
    """So many groups of an identity's images, shuffled and cut into `count` anew once all were shown."""
    found: list[np.ndarray] = []
    while len(found) < times:
        found += np.array_split(rng.permutation(rows), count)
    return found[:times]


Normalisation = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation of the three channels of pixels in 0..1: a backbone's own."""
CLIPS: Normalisation = (CLIP_MEAN, CLIP_STD)  # type: ignore[assignment]


def normalised(images: Tensor, by: Normalisation = CLIPS) -> Tensor:
    """Images in 0..1, less the mean and over the deviation, float32 (n, 3, height, width), channels last in memory."""
    mean, std = (images.new_tensor(values)[:, None, None] for values in by)
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


def plain(pixels: Tensor, by: Normalisation = CLIPS) -> Tensor:
    """Photographs as they are: uint8 (n, height, width, 3) to normalised float32 (n, 3, height, width)."""
    return normalised(pixels.permute(0, 3, 1, 2).float() / 255, by)


def augment(
    pixels: Tensor, seeds: Sequence[int], strength: float = 1.0, flip: bool = False, by: Normalisation = CLIPS
) -> Tensor:
    """Move and turn, light and tint a little, and add noise.

    Each image's change depends on its own seed alone, so a batch in pieces, on several processes, is the same batch.

    Args:
        pixels: uint8, shape (n, height, width, 3).
        seeds: Of each image, 0 … 2^63 − 1.
        strength: 1: shifts up to 12 %, turns up to 9°, scales 0.88 to 1.12, light ±4 %; 0: nothing changes.
        flip: Also mirror half of them. Off by default: a mirrored right hand is a left one.

    Returns:
        Normalised float32, shape (n, 3, height, width).
    """
    if not strength and not flip:
        return plain(pixels, by)
    images, device = pixels.permute(0, 3, 1, 2).float() / 255, pixels.device
    generators = [torch.Generator(device).manual_seed(int(seed)) for seed in seeds]
    drawn = torch.stack([torch.rand(11, generator=generator, device=device) for generator in generators])
    reach = torch.tensor([0.15, 0.12, 0.12, 0.12, 0.04, 0.014, 0.014, 0.014, 0.05], device=device)
    even = strength * reach * (2 * drawn[:, :9] - 1)  # turn, size, shift (2), light, tint (3), contrast
    cosine, sine = even[:, 0].cos() * (1 + even[:, 1]), even[:, 0].sin() * (1 + even[:, 1])
    rows = (torch.stack([cosine, -sine, even[:, 2]], 1), torch.stack([sine, cosine, even[:, 3]], 1))
    matrix = torch.stack(rows, 1)
    if flip:
        matrix[:, :, 0] *= torch.where(drawn[:, 9:10] < 0.5, -1.0, 1.0)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    images = images * (1 + even[:, 4, None, None, None]) * (1 + even[:, 5:8, None, None])
    images = 0.5 + (images - 0.5) * (1 + even[:, 8, None, None, None])
    noise = torch.empty(images.shape, device=device)
    for one, generator in zip(noise, generators, strict=True):
        torch.randn(one.shape, generator=generator, out=one)
    images += noise.mul_(0.02 * strength * drawn[:, 10, None, None, None])
    return normalised(images.clamp(0, 1), by)
