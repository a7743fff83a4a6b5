"""PromptSG: each image becomes a word of its own prompt, and the prompt guides where the embedding looks."""

import json
from pathlib import Path

import torch
from torch import Tensor

from handclip_lib.backbone.image_tower import learning_tokens
from handclip_lib.backbone.load import Backbone
from handclip_lib.backbone.text_tower import prompt_text
from handclip_lib.backbone.weights import load_tensors, refuse_not_finite, save_tensors
from handclip_lib.errors import BackboneError, ConfigError
from handclip_lib.models.low_rank import merged_state
from handclip_lib.models.prompt_learner import build_prompts
from handclip_lib.models.reid_head import ReidEncoder
from handclip_lib.parameters.parts import Guidance

_FACTS, _TOWER = "guided_encoder", "visual."
FORMERLY = {"scale": "arcface_scale", "margin": "arcface_margin", "layers": "guide_layers"}  # in files of before 0.15


class PromptInversion(torch.nn.Module):
    """Text features of images: each image's embedding becomes one token in the slot of a template.

    The network has three layers with batch norm after the last, as in the paper. Its norm starts with the spread and
    mean of the vocabulary's own embeddings, of which the paper says nothing: a pseudo token begins as long as a word's,
    where batch norm's usual first values would make it many times as long.

    Only the network learns; the text tower is read, and no gradient is computed for its weights.

    Attributes:
        network: From an embedding to a pseudo token, through hidden layers of the text tower's width.
    """

    def __init__(self, backbone: Backbone, template: str):
        """Build the prompt, whose one slot `{}` the pseudo token fills, and the network.

        Raises:
            ConfigError: See `build_prompts`.
            BackboneError: The backbone has no vocabulary.
        """
        super().__init__()
        prompts = build_prompts(backbone, template, 1, "identity", [""])
        self._text = prompt_text(backbone.model, *prompts, 1)
        vocabulary = backbone.model.token_embedding.weight.detach()
        width = vocabulary.shape[1]
        norm = torch.nn.BatchNorm1d(width)
        first, second = torch.nn.Linear(backbone.embedding_dim, width), torch.nn.Linear(width, width)
        last = torch.nn.Linear(width, width, bias=False)  # the norm takes every mean away
        self.network = torch.nn.Sequential(first, torch.nn.ReLU(), second, torch.nn.ReLU(), last, norm)
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

    def __init__(self, size: int, heads: int, layers: int):
        """Build the layers for features of a size, without dropout, so that a run can be repeated exactly.

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
        """Guided embeddings (n, size), of text features (n, size) and the image's places (n, n_places, size)."""
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


class PromptSG(ReidEncoder):
    """A `ReidEncoder` whose embedding its own prompt has guided: neck, classifier and centres take that.

    Images are all it needs: the prompt comes from the image, so unknown people have one too.

    Attributes:
        inversion: From the tower's embedding to text features.
        guidance: From those and the image's places to the guided embedding.

    Source: Yang et al., "A Pedestrian is Worth One Prompt: Towards Language Guidance Person Re-Identification",
        CVPR 2024. There a prompt without the pseudo token is a cheaper way at inference; here the whole prompt is
        read, in training and at inference alike.
    """

    makes_texts = True

    def __init__(self, backbone: Backbone, n_identities: int, options: Guidance, heads: int = 8):
        """As `ReidEncoder`, with the template that each image fills, and `heads` of every attention.

        Raises:
            ConfigError: See `ReidEncoder`, `PromptInversion` and `PromptGuidance`.
            BackboneError: The backbone has no vocabulary.
        """
        super().__init__(backbone, n_identities, options)
        template, layers = options.templates[0], options.guide_layers
        self.recipe |= {"template": template, "guide_layers": layers, "heads": heads}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            self.inversion = PromptInversion(backbone, template)
            self.guidance = PromptGuidance(backbone.embedding_dim, heads, layers).to(backbone.device)

    def learning_part(self, activations: Tensor) -> Tensor:
        """Guided embeddings, not normalised, float32 (n, embedding_dim), from what `frozen_part` gave."""
        return self.for_losses(activations)["embeddings"]

    def for_losses(self, activations: Tensor) -> dict[str, Tensor]:
        """Guided embeddings, the image's own and its text's, by name, as `learning_part` has them."""
        tokens, text = self._read(activations)
        return {"embeddings": self.guidance(text, tokens[:, 1:]).float(), "image": tokens[:, 0], "text": text}

    def attention(self, images: Tensor) -> Tensor:
        """Where each image's prompt looks: in 0..1, sum 1, shape (n, n_places), places row by row of the image."""
        tokens, text_features = self._read(self.frozen_part(images))
        return self.guidance.attention(text_features, tokens[:, 1:]).float()

    def _read(self, activations: Tensor) -> tuple[Tensor, Tensor]:
        """The tower's tokens, (n, 1 + n_places, embedding_dim), and each image's text feature."""
        last, recompute = self._options.unfreeze_blocks, self._options.recompute
        tokens = learning_tokens(self.visual, activations, last, recompute).float()
        return tokens, self.inversion.text_features(tokens[:, 0])


def save_promptsg(encoder: PromptSG, backbone: Backbone, file: Path) -> None:
    """Write a trained encoder and its image tower, without the text tower, which did not learn, as .safetensors.

    Raises:
        BackboneError: The encoder was made on another backbone.
    """
    _check_same(encoder.recipe["backbone"], backbone, "this encoder")
    save_tensors(file, merged_state(encoder), {_FACTS: json.dumps(encoder.recipe)})


def load_promptsg(backbone: Backbone, file: Path) -> PromptSG:
    """Read what `save_promptsg` wrote, in evaluation mode.

    Args:
        backbone: The one the training began with; its image tower takes the file's weights, in place.

    Raises:
        BackboneError: There is no such file, it is of something else, or of another backbone.
    """
    try:
        tensors, facts = load_tensors(file)
        recipe = json.loads(facts[_FACTS])
    except (KeyError, ValueError) as error:
        raise BackboneError(f"{file} holds no guided encoder ({error}); train one in notebook 04") from error
    state = {name.removeprefix("hand."): value for name, value in tensors.items()}  # as files of before 0.16 have it
    tower = {name: value.shape for name, value in backbone.model.visual.state_dict().items()}
    if tower != {name.removeprefix(_TOWER): v.shape for name, v in state.items() if name.startswith(_TOWER)}:
        other = f"{file} is of a backbone of another shape than {backbone.name}"
        raise BackboneError(f"{other}; load the one that was trained")
    _check_same(recipe.pop("backbone"), backbone, str(file))
    try:
        n_identities, heads = recipe.pop("n_identities"), recipe.pop("heads")
        named = {FORMERLY.get(name, name): value for name, value in recipe.items()} | {"lora_rank": 0}  # merged
        encoder = PromptSG(backbone, n_identities, Guidance(method="promptsg", **named), heads)
        encoder.load_state_dict(state)
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise BackboneError(f"{file} was written by another version of HandCLIP ({error}); train again") from error
    refuse_not_finite(encoder, str(file))
    return encoder.eval()


def _check_same(fingerprint: str, backbone: Backbone, what: str) -> None:
    """The text tower reads the prompts and is in no file, so it must be the one of the training."""
    if fingerprint != backbone.fingerprint:
        raise BackboneError(
            f"{what} was trained on weights {fingerprint}, and {backbone.name} is {backbone.fingerprint}: "
            "load the same backbone and weights"
        )
