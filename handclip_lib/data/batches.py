"""P×K batches: P identities, up to K images of each."""

import warnings
from collections.abc import Sequence

import numpy as np


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
