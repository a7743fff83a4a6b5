"""A penalty on prompts that say the same of different people."""

import torch
import torch.nn.functional as F
from torch import Tensor


def diversity_loss(texts: Tensor) -> Tensor:
    """Mean cosine of the texts of two different identities, in -1..1: the less, the more diverse; 0 for a single one.

    Args:
        texts: Text features, one for each identity, shape (n, size); not normalised.
    """
    if len(texts) < 2:
        return 0 * texts.sum()
    cosine = F.normalize(texts, dim=1) @ F.normalize(texts, dim=1).T
    others = ~torch.eye(len(texts), dtype=torch.bool, device=texts.device)
    return cosine[others].mean()
