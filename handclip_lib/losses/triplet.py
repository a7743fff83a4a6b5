"""Triplet loss with the hardest positive and the hardest negative of a batch."""

import torch
from torch import Tensor


def batch_hard_triplet(embeddings: Tensor, identities: Tensor, margin: float = 0.3) -> Tensor:
    """Mean over anchors of max(0, margin + farthest positive − nearest negative), Euclidean distances.

    An anchor without another image of its identity, or without another identity, in the batch is left out; 0 if all.

    Args:
        embeddings: Shape (n, size); not normalised here.
        identities: int64, shape (n,).
        margin: 0 or more, in units of the distance.

    Source: Hermans et al., "In Defense of the Triplet Loss for Person Re-Identification", 2017, eq. 5.
    """
    squares = embeddings.square().sum(dim=1)
    squared = squares[:, None] + squares - 2 * embeddings @ embeddings.T
    distance = squared.clamp(min=1e-12).sqrt()  # the root's slope is infinite at 0
    same = identities[:, None] == identities
    positive = same & ~torch.eye(len(embeddings), dtype=torch.bool, device=embeddings.device)
    counted = positive.any(dim=1) & (~same).any(dim=1)
    if not counted.any():
        return 0 * embeddings.sum()
    farthest = distance.masked_fill(~positive, -torch.inf).amax(dim=1)[counted]
    nearest = distance.masked_fill(same, torch.inf).amin(dim=1)[counted]
    return (margin + farthest - nearest).clamp(min=0).mean()
