"""The losses of an image training, by name."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from handclip_lib.losses.center import center_loss
from handclip_lib.losses.contrastive import group_cross_entropy, supervised_contrastive
from handclip_lib.losses.triplet import batch_hard_triplet
from handclip_lib.models.guided_encoder import GuidedEncoder
from handclip_lib.models.hand_encoder import HandEncoder

WITH_TEXT = ("image_to_text", "text_supcon")


def loss_terms(
    encoder: HandEncoder | GuidedEncoder,
    texts: Tensor | None,
    label_smoothing: float,
    margin: float,
    temperature: float,
) -> dict[str, Callable[..., Tensor]]:
    """Each takes `ids` (n,) and what `HandEncoder.for_losses` gave of the batch, and returns a number.

    Args:
        encoder: Whose classifier and centres are used.
        texts: Frozen text features of all identities, of length 1; an encoder that makes texts needs none.
        label_smoothing, margin, temperature: See `fit_image`.
    """

    def identity(ids: Tensor, embeddings: Tensor, **_: Tensor) -> Tensor:
        return F.cross_entropy(encoder.logits(embeddings, ids), ids, label_smoothing=label_smoothing)

    def triplet(ids: Tensor, embeddings: Tensor, **_: Tensor) -> Tensor:
        return batch_hard_triplet(F.normalize(embeddings, dim=1), ids, margin)

    def supcon(ids: Tensor, embeddings: Tensor, **_: Tensor) -> Tensor:
        unit, itself = F.normalize(embeddings, dim=1), torch.eye(len(ids), dtype=torch.bool, device=ids.device)
        logits = (unit @ unit.T / temperature).masked_fill(itself, -torch.inf)
        return group_cross_entropy(logits, (ids[:, None] == ids) & ~itself)

    def center(ids: Tensor, embeddings: Tensor, **_: Tensor) -> Tensor:
        return center_loss(F.normalize(embeddings, dim=1), encoder.centers, ids)

    def image_to_text(ids: Tensor, embeddings: Tensor, **_: Tensor) -> Tensor:
        assert texts is not None
        return F.cross_entropy(F.normalize(embeddings, dim=1) @ texts.T / temperature, ids)

    def text_supcon(ids: Tensor, embeddings: Tensor, **made: Tensor) -> Tensor:
        image = made.get("image", embeddings)
        text = made["text"] if texts is None else texts[ids]
        both = [
            supervised_contrastive(*way, ids, ids, temperature, normalize=True)
            for way in ((image, text), (text, image))
        ]
        return both[0] + both[1]

    return {
        "identity": identity, "triplet": triplet, "supcon": supcon, "center": center,
        "image_to_text": image_to_text, "text_supcon": text_supcon,
    }  # fmt: skip
