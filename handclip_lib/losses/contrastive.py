"""Supervised contrastive loss between two sets of embeddings, such as images and texts."""

import torch.nn.functional as F
from torch import Tensor


def group_cross_entropy(logits: Tensor, positive: Tensor) -> Tensor:
    """Cross-entropy against all positives of a row: mean over rows of −mean over positives of log softmax.

    Args:
        logits: Scaled similarities, shape (n, m); −inf takes a pair out.
        positive: Which pairs belong together, bool, shape (n, m); rows without any are left out (0 if none has one).

    Source: Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, eq. 2.
    """
    has_one = positive.any(dim=1)
    if not has_one.any():
        return 0 * logits[logits.isfinite()].sum()
    logits, positive = logits[has_one], positive[has_one]
    log_share = logits.log_softmax(dim=1).masked_fill(~positive, 0)
    return -(log_share.sum(dim=1) / positive.sum(dim=1)).mean()


def supervised_contrastive(
    anchors: Tensor, others: Tensor, anchor_ids: Tensor, other_ids: Tensor, temperature: float = 1.0,
    normalize: bool = False,
) -> Tensor:  # fmt: skip
    """L = −mean over i of 1/|P(i)| · Σ over p in P(i) of log softmax_i(p), softmax over all columns.

    P(i) are all columns with the identity of anchor i, its own column included: the columns are another modality.

    Args:
        anchors: Embeddings, shape (n, size).
        others: Embeddings, shape (m, size); a repeated row counts as often as it is there.
        anchor_ids, other_ids: Identities, int64, shapes (n,) and (m,).
        temperature: What the similarities are divided by, > 0.
        normalize: Compare by the cosine, else by the dot product.

    Source: CLIP-ReID's stage 1 (Li et al., "CLIP-ReID", AAAI 2023, eq. 3 and 4), with temperature 1 and no
        normalisation.
    """
    if normalize:
        anchors, others = F.normalize(anchors, dim=1), F.normalize(others, dim=1)
    return group_cross_entropy(anchors @ others.T / temperature, anchor_ids[:, None] == other_ids)
