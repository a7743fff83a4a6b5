"""Losses: plain functions of embeddings and identities; those of an image training by name, and their weighted sum.

Shapes: embeddings (n, size), identities int64 (n,); nothing is normalised unless a function says so.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from handclip_lib.errors import ConfigError

WITH_TEXT = ("image_to_text", "text_supcon")


def arcface_logits(
    embeddings: Tensor, weights: Tensor, identities: Tensor, scale: float = 30.0, margin: float = 0.5
) -> Tensor:
    """What a cross-entropy takes, (n, n_identities): s · cos(θ + m) for the own identity, s · cos θ for the others.

    Where θ + m would pass π, the logit goes on as a line, so that it keeps falling. The cosine is kept off ±1, where
    the angle's slope is infinite.

    Args:
        weights: A direction for each identity, shape (n_identities, size); it must reach the optimizer.
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


def center_loss(embeddings: Tensor, centers: Tensor, identities: Tensor) -> Tensor:
    """Half the mean squared Euclidean distance of each embedding to its identity's centre, of (n_identities, size).

    The centres learn too, usually with a rate of their own.

    Source: Wen et al., "A Discriminative Feature Learning Approach for Deep Face Recognition", ECCV 2016, eq. 2,
        divided by n.
    """
    return 0.5 * (embeddings - centers[identities]).square().sum(dim=1).mean()


def batch_hard_triplet(embeddings: Tensor, identities: Tensor, margin: float = 0.3) -> Tensor:
    """Mean over anchors of max(0, margin + farthest positive − nearest negative), Euclidean distances.

    An anchor without another image of its identity, or without another identity, in the batch is left out; 0 if all.
    The margin is 0 or more, in units of the distance.

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
        others: Embeddings, shape (m, size); a repeated row counts as often as it is there.
        temperature: What the similarities are divided by, > 0.
        normalize: Compare by the cosine, else by the dot product.

    Source: CLIP-ReID's stage 1 (Li et al., "CLIP-ReID", AAAI 2023, eq. 3 and 4), with temperature 1 and no
        normalisation.
    """
    if normalize:
        anchors, others = F.normalize(anchors, dim=1), F.normalize(others, dim=1)
    return group_cross_entropy(anchors @ others.T / temperature, anchor_ids[:, None] == other_ids)


def diversity_loss(texts: Tensor) -> Tensor:
    """Mean cosine of the texts (n, size) of two identities, in -1..1: the less, the more diverse; 0 of a single one."""
    if len(texts) < 2:
        return 0 * texts.sum()
    cosine = F.normalize(texts, dim=1) @ F.normalize(texts, dim=1).T
    others = ~torch.eye(len(texts), dtype=torch.bool, device=texts.device)
    return cosine[others].mean()


def image_losses(
    logits_of: Callable[[Tensor, Tensor], Tensor], centers: Tensor, texts: Tensor | None, label_smoothing: float,
    margin: float, temperature: float, distance: Callable[[], Tensor] | None = None,
) -> dict[str, Callable[..., Tensor]]:  # fmt: skip
    """Each takes `ids` (n,) and what an encoder's `for_losses` gave of the batch, and returns a scalar.

    `identity`: cross-entropy of the head's logits. `triplet`: batch-hard, on embeddings of length 1. `supcon`: all
    photographs of an identity in the batch are alike. `center`: distance to a learnt centre, on embeddings of length 1.
    `image_to_text`: cross-entropy over the texts of all identities. `text_supcon`: supervised contrastive between
    the batch's photographs and their texts, both ways. These two and `supcon` compare by the cosine / temperature.
    `start`: how far the weights went. `distillation`: mean squared distance of the tower's embeddings to the frozen
    tower's of the same views, both of length 1.

    Args:
        logits_of: Embeddings and ids to the classifier's logits, (n, n_identities).
        centers: Of the identities, shape (n_identities, size).
        texts: Frozen text features of all identities, of length 1; None where the encoder gives each image's own.
        label_smoothing: Of `identity`, 0..1.
        margin: Of `triplet`.
        temperature: More than 0.
        distance: What `start` is.

    Source of `start`: Li et al., "Explicit Inductive Bias for Transfer Learning with Convolutional Networks" (L2-SP),
        ICML 2018. Of `distillation`: Mukhoti et al., "Fine-tuning can cripple your foundation model" (LDIFS), TMLR
        2024; of the same views: Beyer et al., "Knowledge distillation: A good teacher is patient and consistent",
        CVPR 2022, where targets computed once, of unchanged images, were worse.
    """

    def identity(ids: Tensor, embeddings: Tensor, **_: Tensor) -> Tensor:
        return F.cross_entropy(logits_of(embeddings, ids), ids, label_smoothing=label_smoothing)

    def triplet(ids: Tensor, embeddings: Tensor, **_: Tensor) -> Tensor:
        return batch_hard_triplet(F.normalize(embeddings, dim=1), ids, margin)

    def supcon(ids: Tensor, embeddings: Tensor, **_: Tensor) -> Tensor:
        unit, itself = F.normalize(embeddings, dim=1), torch.eye(len(ids), dtype=torch.bool, device=ids.device)
        logits = (unit @ unit.T / temperature).masked_fill(itself, -torch.inf)
        return group_cross_entropy(logits, (ids[:, None] == ids) & ~itself)

    def center(ids: Tensor, embeddings: Tensor, **_: Tensor) -> Tensor:
        return center_loss(F.normalize(embeddings, dim=1), centers, ids)

    def image_to_text(ids: Tensor, embeddings: Tensor, **_: Tensor) -> Tensor:
        assert texts is not None
        return F.cross_entropy(F.normalize(embeddings, dim=1) @ texts.T / temperature, ids)

    def text_supcon(ids: Tensor, embeddings: Tensor, **made: Tensor) -> Tensor:
        image = made.get("image", embeddings)
        text = made["text"] if texts is None else texts[ids]
        ways = ((image, text), (text, image))
        both = [supervised_contrastive(*way, ids, ids, temperature, normalize=True) for way in ways]
        return both[0] + both[1]

    def start(**_: Tensor) -> Tensor:
        assert distance is not None
        return distance()

    def distillation(embeddings: Tensor, frozen: Tensor, **made: Tensor) -> Tensor:
        now, then = F.normalize(made.get("image", embeddings), dim=1), F.normalize(frozen.detach(), dim=1)
        return (now - then).square().sum(dim=1).mean()

    losses = (identity, triplet, supcon, center, image_to_text, text_supcon, start, distillation)
    return {loss.__name__: loss for loss in losses}


class WeightedLoss:
    """A weighted sum of named losses; one of weight 0 is never computed."""

    def __init__(self, losses: Mapping[str, Callable[..., Tensor]], weights: Mapping[str, float]):
        """Take functions of the same keyword arguments, and a weight of 0 or more for each.

        Raises:
            ConfigError: Every weight is 0.
        """
        self._losses = {name: (loss, weights[name]) for name, loss in losses.items() if weights[name] > 0}
        if not self._losses:
            raise ConfigError("every loss has weight 0: nothing would be learnt")

    def __call__(self, **arguments: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum, and every loss by name, unweighted."""
        found = {name: loss(**arguments) for name, (loss, _) in self._losses.items()}
        parts = [self._losses[name][1] * value for name, value in found.items()]
        return sum(parts[1:], start=parts[0]), found
