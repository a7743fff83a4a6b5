"""CLIP-HandID: each image becomes a word of its own prompt, and learns to be like the text that the prompt makes."""

import torch
from torch import Tensor

from handclip_lib.backbone.load import Backbone
from handclip_lib.models.promptsg import PromptInversion
from handclip_lib.models.reid_head import ReidEncoder
from handclip_lib.parameters.parts import Guidance


class HandID(ReidEncoder):
    """A `ReidEncoder` that gives each image's own text, made by textual inversion, to the losses.

    Tower and inversion learn together; the text tower is read. The embedding is the tower's own, so that what is
    evaluated needs no text and is a CLIP again.

    Attributes:
        inversion: From the tower's embedding to text features; training alone needs it.

    Source: Baisa, Pallam and Jayavel, "CLIP-HandID: Vision-Language Model for Hand-Based Person Identification", 2025,
        arXiv 2506.12447. The inversion network is PromptSG's; docs/from_clipfh.md says what their public code does.
    """

    makes_texts = True
    training_only = (*ReidEncoder.training_only, "inversion.")

    def __init__(self, backbone: Backbone, n_identities: int, options: Guidance):
        """As `ReidEncoder`, with the template that each image fills.

        Raises:
            ConfigError: See `ReidEncoder` and `PromptInversion`.
            BackboneError: The backbone has no vocabulary.
        """
        super().__init__(backbone, n_identities, options)
        self.recipe |= {"method": options.method, "template": options.templates[0]}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            self.inversion = PromptInversion(backbone, options.templates[0])

    def for_losses(self, activations: Tensor) -> dict[str, Tensor]:
        """The tower's embeddings and the features of their texts, not normalised, float32 (n, embedding_dim) each."""
        embeddings = self.learning_part(activations)
        return {"embeddings": embeddings, "text": self.inversion.text_features(embeddings)}
