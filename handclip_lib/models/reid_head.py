"""The re-ID head on an image tower: BNNeck, and an identity classifier that training alone needs."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from handclip_lib.backbone.image_tower import (
    ALL,
    can_recompute,
    frozen_part,
    learning_part,
    splits,
    train_mode,
    unfreeze,
)
from handclip_lib.backbone.load import Backbone
from handclip_lib.errors import ConfigError
from handclip_lib.losses import arcface_logits
from handclip_lib.models.low_rank import adapt
from handclip_lib.models.whitening import projects, whiten
from handclip_lib.parameters.parts import ReidHead


class ReidEncoder(torch.nn.Module):
    """The image tower of a backbone with BNNeck and an identity classifier.

    The embedding that is evaluated is the tower's own, before the bottleneck, so that a trained tower is a CLIP
    again and any CLIP can be put in its place.

    Attributes:
        makes_texts: Whether `for_losses` gives texts of its own.
        training_only: Names begin so of what no embedding depends on.
        normalisation: Of the backbone's images.
        precision: As the backbone's, in evaluation.
        visual: The tower; shared with the backbone, so training changes that.
        recipe: What it was made of: a training is resumed by the same only.
        reduction: What comes before the neck: nothing, or a matrix to `neck_dim` values.
        neck: Batch norm without a learnt shift.
        classifier: A direction for each training identity, shape (n_identities, neck_dim or embedding_dim).
        centers: A centre for each, shape (n_identities, embedding_dim); only the centre loss moves them.

    Source: Luo et al., "Bag of Tricks and a Strong Baseline for Deep Person Re-Identification", 2019.
    """

    makes_texts = False
    training_only: tuple[str, ...] = ("reduction.", "neck.", "classifier", "centers")

    def __init__(self, backbone: Backbone, n_identities: int, options: ReidHead):
        """Put the head on, and freeze what does not learn.

        The backbone's image tower learns in place. The options' seed is of the head's first values; `recompute` keeps
        no activations inside a ViT's blocks and computes them again: the same gradient, less memory, more time.

        Raises:
            ConfigError: Too few identities, more blocks than there are, or what this kind of tower does not do.
        """
        super().__init__()
        if n_identities < 2:
            raise ConfigError(f"identities that train: {n_identities}; a classifier needs at least two")
        if options.recompute and not can_recompute(backbone.model.visual):
            why = "a ResNet's batch norms would count every image twice, and another library's modules are left alone"
            raise ConfigError(f"recompute=True: {why}; leave it off")
        kept = options.model_dump(include=set(ReidHead.model_fields) - {"recompute"})
        self.recipe: dict[str, Any] = {"backbone": backbone.fingerprint, "n_identities": n_identities, **kept}
        self.visual: Any = backbone.model.visual
        self.normalisation, self.precision = backbone.normalisation, backbone.precision
        self.learning, self._options = unfreeze(self.visual, options.unfreeze_blocks), options
        if options.lora_rank and not splits(self.visual):
            raise ConfigError("lora_rank: another library's modules are left as they are; leave it out")
        if options.lora_rank:
            adapt(self.visual, options.lora_rank, options.lora_alpha, options.seed)
            self.learning = []
        size = backbone.embedding_dim
        width = options.neck_dim or size
        self.neck = torch.nn.BatchNorm1d(width)
        self.neck.bias.requires_grad_(False)
        generator = torch.Generator().manual_seed(options.seed)
        first = torch.randn(n_identities, width, generator=generator)
        self.classifier = torch.nn.Parameter(first * (0.001 if options.head == "linear" else 1.0))
        self.reduction: torch.nn.Module = torch.nn.Identity()
        if options.neck_dim:
            self.reduction = torch.nn.Linear(size, width, bias=False)  # the neck takes every mean away
            self.reduction.weight.data = torch.randn(width, size, generator=generator) / size**0.5
        self.centers = torch.nn.Parameter(torch.zeros(n_identities, size))
        self._whitened: tuple[Tensor, Tensor] | None = None
        self.to(backbone.device)

    def train(self, mode: bool = True) -> "ReidEncoder":
        """Training mode, but for what is frozen."""
        super().train(mode)
        if mode:
            train_mode(self.visual, self.learning)
        return self

    @property
    def can_be_whitened(self) -> bool:
        """Whether the embedding is what a last projection of the tower gives."""
        return not self.makes_texts and projects(self.visual)

    def whiten(self, mean: np.ndarray, matrix: np.ndarray) -> None:
        """Let the tower give (e − mean) @ matrix in place of its embeddings e; the head goes on to see e."""
        whiten(self.visual, mean, matrix)
        back = np.linalg.inv(matrix)
        self._whitened = self.centers.new_tensor(mean), self.centers.new_tensor(back)

    @property
    def has_frozen_part(self) -> bool:
        """Whether `frozen_part` does any work that is worth keeping."""
        return self._options.unfreeze_blocks != ALL and splits(self.visual)

    def frozen_part(self, images: Tensor) -> Tensor:
        """Activations before what learns, of normalised images; the same as long as the images are."""
        return frozen_part(self.visual, images, self._options.unfreeze_blocks)

    def learning_part(self, activations: Tensor) -> Tensor:
        """Embeddings, not normalised, float32 (n, embedding_dim), from what `frozen_part` gave."""
        return learning_part(self.visual, activations, self._options.unfreeze_blocks, self._options.recompute).float()

    @torch.no_grad()
    def taught(self, teacher: Any, activations: Tensor) -> Tensor:
        """Embeddings by another tower of the same frozen blocks, as `learning_part`."""
        return learning_part(teacher, activations, self._options.unfreeze_blocks).float()

    def for_losses(self, activations: Tensor) -> dict[str, Tensor]:
        """What the losses look at, from what `frozen_part` gave: "embeddings", not normalised."""
        return {"embeddings": self.learning_part(activations)}

    def encode_image(self, images: Tensor) -> Tensor:
        """Embeddings, not normalised, float32 (n, embedding_dim), of normalised images (n, 3, side, side)."""
        return self.learning_part(self.frozen_part(images))

    def logits(self, embeddings: Tensor, identities: Tensor) -> Tensor:
        """Logits of the identities, (n, n_identities); ArcFace puts its margin on the own one."""
        options = self._options
        if options.head == "linear":
            return self.scores(embeddings)
        bottled = self.neck(self.reduction(embeddings))
        return arcface_logits(bottled, self.classifier, identities, options.arcface_scale, options.arcface_margin)

    def scores(self, embeddings: Tensor) -> Tensor:
        """What the classifier says where nobody knows the identity: logits, of ArcFace cosines, (n, n_identities)."""
        if self._whitened is not None:
            mean, back = self._whitened
            embeddings = embeddings @ back + mean
        bottled = self.neck(self.reduction(embeddings))
        if self._options.head == "linear":
            return F.linear(bottled, self.classifier)
        return F.linear(F.normalize(bottled, dim=1), F.normalize(self.classifier, dim=1))
