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
    """There are fewer identities than a batch is to hold."""


def warn_if_few(identities: Sequence[int] | np.ndarray, n_identities: int) -> None:
    """Say that no batch will hold the `n_identities` that were asked for, with the same arguments as below."""
    there = len(np.unique(identities))
    if there < n_identities:
        message = f"n_identities={n_identities}: a batch holds the {there} identities there are to train on"
        warnings.warn(message, SmallBatchWarning, stacklevel=3)


def identity_batches(
    identities: Sequence[int] | np.ndarray, n_identities: int, n_images: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """One epoch: every image exactly once, in batches of different identities.

    An identity's images are shuffled and cut into groups of `n_images`; a batch takes one group of each of the
    `n_identities` identities that have the most groups left, so large ones are not left over for the end. An
    identity with one image is a group of one. The last batches may hold fewer identities; a batch of a single image,
    which no batch norm can take, joins the batch before it.

    Args:
        identities: Of each image, shape (n,).
        n_identities, n_images: P, at least 2, and K, at least 1.
        rng: What shuffles.

    Returns:
        Positions of images, int64 each; together a permutation of 0 … n−1.
    """
    if n_identities < 2 or n_images < 1:
        raise ValueError(f"a batch of {n_identities} identities × {n_images} images: give at least 2 × 1")
    labels = np.asarray(identities)
    groups: list[list[np.ndarray]] = []
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        groups.append([rows[i : i + n_images] for i in range(0, len(rows), n_images)])
    batches = []
    while any(groups):
        left = np.array([len(parts) for parts in groups])
        order = np.lexsort((rng.random(len(groups)), -left))[:n_identities]
        batches.append(np.concatenate([groups[number].pop() for number in order if groups[number]]))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [np.concatenate(batches[-2:])]
    return [batches[number] for number in rng.permutation(len(batches))]


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
    for image, generator, amount in zip(images, generators, 0.02 * strength * drawn[:, 10], strict=True):
        image += amount * torch.randn(image.shape, generator=generator, device=device)
    return normalised(images.clamp(0, 1), by)
