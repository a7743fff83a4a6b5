"""PromptSG: an image tower whose embedding is guided by a prompt that the image itself fills in."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from handclip_lib.backbone.freeze import ALL
from handclip_lib.backbone.image_parts import learning_tokens
from handclip_lib.backbone.load import Backbone
from handclip_lib.backbone.weights import refuse_not_finite
from handclip_lib.config import TEMPLATES
from handclip_lib.errors import BackboneError
from handclip_lib.files import UNSEALED, is_sealed, seal, whole_file
from handclip_lib.models.hand_encoder import HandEncoder
from handclip_lib.models.prompt_inversion import PromptGuidance, PromptInversion

_FACTS, _TOWER = "guided_encoder", "hand.visual."


class Guided(NamedTuple):
    """What the losses take, none of it normalised: float32, each of shape (n, embedding_dim)."""

    embeddings: Tensor
    image_embeddings: Tensor
    text_features: Tensor


class GuidedEncoder(torch.nn.Module):
    """An image tower whose embedding its own prompt has guided; the twin of `HandEncoder`.

    Images are all it needs: the prompt comes from the image, so unknown people have one too.

    Attributes:
        makes_texts: Whether `for_losses` gives texts of its own.
        hand: The tower with neck, classifier and centres, which take the guided embedding in place of its own.
        inversion: From the tower's embedding to text features.
        guidance: From those and the image's places to the guided embedding.
        recipe: What it was made of: a training is resumed by the same only.

    Source: Yang et al., "A Pedestrian is Worth One Prompt: Towards Language Guidance Person Re-Identification",
        CVPR 2024. There a prompt without the pseudo token is a cheaper way at inference; here the whole prompt is
        read, in training and at inference alike.
    """

    makes_texts = True

    def __init__(
        self,
        backbone: Backbone,
        n_identities: int,
        *,
        template: str = TEMPLATES["identity"],
        head: str = "linear",
        unfreeze_blocks: int = ALL,
        recompute: bool = False,
        neck_dim: int = 0,
        layers: int = 2,
        heads: int = 8,
        scale: float = 30.0,
        margin: float = 0.5,
        seed: int = 0,
    ):
        """Put everything on the tower, and freeze what does not learn.

        Args:
            backbone: Whose image tower learns, in place; its text tower is frozen.
            n_identities: Training identities, at least 2.
            template: With one slot `{}`, which the pseudo token fills.
            head, unfreeze_blocks, recompute, neck_dim, scale, margin: See `HandEncoder`.
            layers, heads: See `PromptGuidance`.
            seed: Of all first values.

        Raises:
            ConfigError: See `HandEncoder`, `PromptInversion` and `PromptGuidance`.
            BackboneError: The backbone has no vocabulary.
        """
        super().__init__()
        of_head: dict[str, Any] = {
            "head": head, "unfreeze_blocks": unfreeze_blocks, "neck_dim": neck_dim, "scale": scale, "margin": margin,
            "seed": seed,
        }  # fmt: skip
        self.hand = HandEncoder(backbone, n_identities, recompute=recompute, **of_head)
        self._recompute = recompute
        self.recipe: dict[str, Any] = self.hand.recipe | {"template": template, "layers": layers, "heads": heads}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.inversion = PromptInversion(backbone, template)
            self.guidance = PromptGuidance(backbone.embedding_dim, heads, layers).to(backbone.device)

    @property
    def visual(self) -> Any:
        """The tower; shared with the backbone, so training changes that."""
        return self.hand.visual

    @property
    def classifier(self) -> torch.nn.Parameter:
        """A direction for each training identity."""
        return self.hand.classifier

    @property
    def centers(self) -> torch.nn.Parameter:
        """A centre for each training identity, of its guided embeddings."""
        return self.hand.centers

    @property
    def has_frozen_part(self) -> bool:
        """Whether `frozen_part` does any work that is worth keeping."""
        return self.hand.has_frozen_part

    def frozen_part(self, images: Tensor) -> Tensor:
        """Activations before what learns, of normalised images; the same as long as the images are."""
        return self.hand.frozen_part(images)

    def learning_part(self, activations: Tensor) -> Tensor:
        """Guided embeddings, not normalised, float32 (n, embedding_dim), from what `frozen_part` gave."""
        return self.guided_part(activations).embeddings

    def guided_part(self, activations: Tensor) -> Guided:
        """What the losses take, from what `frozen_part` gave."""
        tokens, text_features = self._read(activations)
        return Guided(self.guidance(text_features, tokens[:, 1:]).float(), tokens[:, 0], text_features)

    def for_losses(self, activations: Tensor) -> dict[str, Tensor]:
        """What the losses look at, by name: embeddings, the image's own and the text's, not normalised."""
        return dict(zip(("embeddings", "image", "text"), self.guided_part(activations), strict=True))

    def guided(self, images: Tensor) -> Guided:
        """What the losses take, of normalised images (n, 3, height, width): also embedding and text feature apart."""
        return self.guided_part(self.frozen_part(images))

    def encode_image(self, images: Tensor) -> Tensor:
        """Guided embeddings, not normalised, float32 (n, embedding_dim), of normalised images (n, 3, height, width)."""
        return self.learning_part(self.frozen_part(images))

    def attention(self, images: Tensor) -> Tensor:
        """Where each image's prompt looks: in 0..1, sum 1, shape (n, n_places), places row by row of the image."""
        tokens, text_features = self._read(self.frozen_part(images))
        return self.guidance.attention(text_features, tokens[:, 1:]).float()

    def logits(self, embeddings: Tensor, identities: Tensor) -> Tensor:
        """Logits of the identities, (n, n_identities); ArcFace puts its margin on the own one."""
        return self.hand.logits(embeddings, identities)

    def head_parameters(self) -> list[torch.nn.Parameter]:
        """What learns beside the tower."""
        return [*self.inversion.parameters(), *self.guidance.parameters(), *self.hand.head_parameters()]

    def _read(self, activations: Tensor) -> tuple[Tensor, Tensor]:
        """The tower's tokens, (n, 1 + n_places, embedding_dim), and each image's text feature."""
        tokens = learning_tokens(self.visual, activations, self.recipe["unfreeze_blocks"], self._recompute).float()
        return tokens, self.inversion.text_features(tokens[:, 0])


def save_guided(encoder: GuidedEncoder, backbone: Backbone, file: Path) -> None:
    """Write a trained encoder, its image tower included; the text tower, which did not learn, is not.

    Args:
        encoder: As it is now.
        backbone: The one it was made on.
        file: A .safetensors file, written whole.

    Raises:
        BackboneError: The encoder was made on another backbone.
    """
    _check_same(encoder.recipe["backbone"], backbone, "this encoder")
    state = {name: value.detach().cpu().contiguous().clone() for name, value in encoder.state_dict().items()}
    with whole_file(file) as private:
        safetensors.torch.save_file(state, private, {_FACTS: json.dumps(encoder.recipe), **UNSEALED})
        seal(private)


def load_guided(backbone: Backbone, file: Path) -> GuidedEncoder:
    """Read what `save_guided` wrote.

    Args:
        backbone: The one the training began with; its image tower takes the file's weights, in place.
        file: Of `save_guided`.

    Returns:
        The encoder, in evaluation mode.

    Raises:
        BackboneError: There is no such file, it is of something else, or of another backbone.
    """
    try:
        is_sealed(file)
        with safetensors.safe_open(file, "pt") as opened:
            recipe = json.loads((opened.metadata() or {})[_FACTS])
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise BackboneError(f"{file} holds no guided encoder ({error}); train one in notebook 04") from error
    tower = {name: tuple(value.shape) for name, value in backbone.model.visual.state_dict().items()}
    theirs = {name.removeprefix(_TOWER): tuple(v.shape) for name, v in state.items() if name.startswith(_TOWER)}
    if theirs != tower:
        raise BackboneError(
            f"{file} is of a backbone of another shape than {backbone.name}; load the one that was trained"
        )
    _check_same(recipe.pop("backbone"), backbone, str(file))
    try:
        encoder = GuidedEncoder(backbone, **recipe)
        encoder.load_state_dict(state)
    except (TypeError, RuntimeError) as error:
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
