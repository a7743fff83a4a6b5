"""Cosine logits with an angular margin for the true identity."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def arcface_logits(
    embeddings: Tensor, weights: Tensor, identities: Tensor, scale: float = 30.0, margin: float = 0.5
) -> Tensor:
    """What a cross-entropy takes, (n, n_identities): s · cos(θ + m) for the own identity, s · cos θ for the others.

    Where θ + m would pass π, the logit goes on as a line, so that it keeps falling. The cosine is kept off ±1, where
    the angle's slope is infinite.

    Args:
        embeddings: Shape (n, size).
        weights: A direction for each identity, shape (n_identities, size); it must reach the optimizer.
        identities: int64, shape (n,).
        scale: s, more than 0.
        margin: m in radians, 0..π/2.

    Source: Deng et al., "ArcFace", CVPR 2019, eq. 3.
    """
    cosine = F.linear(F.normalize(embeddings, dim=1), F.normalize(weights, dim=1)).clamp(-1 + 1e-6, 1 - 1e-6)
    own = cosine.gather(1, identities[:, None])
    moved = own * math.cos(margin) - (1 - own.square()).sqrt() * math.sin(margin)
    beyond = own <= math.cos(math.pi - margin)
    moved = torch.where(beyond, own - margin * math.sin(margin), moved)
    return scale * cosine.scatter(1, identities[:, None], moved)
