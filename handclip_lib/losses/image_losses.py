"""The losses of an image training by name, and their weighted sum."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from handclip_lib.errors import ConfigError
from handclip_lib.losses.center import center_loss
from handclip_lib.losses.contrastive import group_cross_entropy, supervised_contrastive
from handclip_lib.losses.triplet import batch_hard_triplet

WITH_TEXT = ("image_to_text", "text_supcon")


def image_losses(
    logits_of: Callable[[Tensor, Tensor], Tensor], centers: Tensor, texts: Tensor | None, label_smoothing: float,
    margin: float, temperature: float,
) -> dict[str, Callable[..., Tensor]]:  # fmt: skip
    """Each takes `ids` (n,) and what an encoder's `for_losses` gave of the batch, and returns a scalar.

    `identity`: cross-entropy of the head's logits. `triplet`: batch-hard, on embeddings of length 1. `supcon`: all
    photographs of an identity in the batch are alike. `center`: distance to a learnt centre, on embeddings of length 1.
    `image_to_text`: cross-entropy over the texts of all identities. `text_supcon`: supervised contrastive between
    the batch's photographs and their texts, both ways. The last two and `supcon` compare by the cosine / temperature.

    Args:
        logits_of: Embeddings (n, size) and ids to the classifier's logits, (n, n_identities).
        centers: Of the identities, shape (n_identities, size).
        texts: Frozen text features of all identities, of length 1; None where the encoder gives each image's own.
        label_smoothing: Of `identity`, 0..1.
        margin: Of `triplet`, in Euclidean distance.
        temperature: More than 0.
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

    return {loss.__name__: loss for loss in (identity, triplet, supcon, center, image_to_text, text_supcon)}


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
