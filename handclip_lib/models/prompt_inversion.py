"""The two networks of PromptSG: an image becomes a word of its own prompt, and the prompt guides where to look."""

import torch
from torch import Tensor

from handclip_lib.backbone.load import Backbone
from handclip_lib.backbone.text import PromptText
from handclip_lib.errors import ConfigError
from handclip_lib.models.prompt_learner import build_prompts


class PromptInversion(torch.nn.Module):
    """Text features of images: each image's embedding becomes one token in the slot of a template.

    The network has three layers with batch norm after the last, as in the paper. Its norm starts with the spread and
    mean of the vocabulary's own embeddings, of which the paper says nothing: a pseudo token begins as long as a word's,
    where batch norm's usual first values would make it many times as long.

    Only the network learns; the text tower is read, and no gradient is computed for its weights.

    Attributes:
        network: From an embedding to a pseudo token, through hidden layers of the text tower's width.

    Source: Yang et al., "A Pedestrian is Worth One Prompt: Towards Language Guidance Person Re-Identification",
        CVPR 2024.
    """

    def __init__(self, backbone: Backbone, template: str):
        """Build the prompt and the network.

        Args:
            backbone: The CLIP whose frozen text tower reads the prompts.
            template: With one slot `{}`, which one token fills.

        Raises:
            ConfigError: See `build_prompts`.
            BackboneError: The backbone has no vocabulary.
        """
        super().__init__()
        prompts = build_prompts(backbone, template, 1, "identity", [""])
        self._text = PromptText(backbone.model, *prompts, 1)
        vocabulary = backbone.model.token_embedding.weight.detach()
        width = vocabulary.shape[1]
        norm = torch.nn.BatchNorm1d(width)
        self.network = torch.nn.Sequential(
            torch.nn.Linear(backbone.embedding_dim, width),
            torch.nn.ReLU(),
            torch.nn.Linear(width, width),
            torch.nn.ReLU(),
            torch.nn.Linear(width, width, bias=False),  # the norm takes every mean away
            norm,
        )
        self.to(backbone.device)
        with torch.no_grad():
            norm.weight.copy_(vocabulary.std(dim=0))
            norm.bias.copy_(vocabulary.mean(dim=0))

    def pseudo_tokens(self, image_embeddings: Tensor) -> Tensor:
        """Token embeddings, float32 (n, text width), of image embeddings (n, embedding_dim)."""
        return self.network(image_embeddings).float()

    def text_features(self, image_embeddings: Tensor) -> Tensor:
        """The text tower's feature of each image's prompt, at its end token; not normalised, (n, embedding_dim)."""
        rows = torch.zeros(len(image_embeddings), dtype=torch.long, device=image_embeddings.device)
        return self._text.encode(rows, self.pseudo_tokens(image_embeddings)[:, None]).float()


class PromptGuidance(torch.nn.Module):
    """What an image shows where its text points: cross-attention, then self-attention.

    The text asks, and the tokens of the image's places answer. Nothing of the text itself is added, so it acts by
    what it picks alone; asked of a single global vector it could act on nothing, since the softmax over one key is 1.

    The answer then goes through self-attention *together with the places*: over itself alone, self-attention's
    weights would be constant for the same reason, and the layers no more than a map of each answer for itself.
    """

    def __init__(self, size: int, heads: int = 8, layers: int = 2):
        """Build the layers, without dropout, so that a run can be repeated exactly.

        Args:
            size: Length of text features and of the tokens.
            heads: Of every attention.
            layers: Of self-attention; 0: the cross-attention alone.

        Raises:
            ConfigError: `heads` does not divide `size`, or there are fewer than 0 layers.
        """
        super().__init__()
        if heads < 1 or size % heads:
            raise ConfigError(f"heads={heads}: they share the embedding's {size} values evenly; give a divisor of it")
        if layers < 0:
            raise ConfigError(f"layers={layers}: give 0 or more layers of self-attention")
        self.text_norm, self.place_norm, self.last_norm = (torch.nn.LayerNorm(size) for _ in range(3))
        self.cross = torch.nn.MultiheadAttention(size, heads, batch_first=True)
        self.layers = torch.nn.ModuleList(
            torch.nn.TransformerEncoderLayer(size, heads, 4 * size, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(layers)
        )

    def forward(self, text_features: Tensor, places: Tensor) -> Tensor:
        """Guided embeddings, shape (n, size).

        Args:
            text_features: Shape (n, size).
            places: Tokens of the image's places, shape (n, n_places, size).
        """
        places = self.place_norm(places)
        answer = self.cross(self.text_norm(text_features)[:, None], places, places, need_weights=False)[0]
        x = torch.cat([answer, places], dim=1)
        for layer in self.layers:
            x = layer(x)
        return self.last_norm(x[:, 0])

    def attention(self, text_features: Tensor, places: Tensor) -> Tensor:
        """How much of the answer each place gives, the mean of all heads: in 0..1, sum 1, shape (n, n_places)."""
        places = self.place_norm(places)
        return self.cross(self.text_norm(text_features)[:, None], places, places)[1][:, 0]
