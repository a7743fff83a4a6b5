"""What earlier trainings left: prompts as texts, and a tuned image tower as a CLIP of its own."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch

from handclip_lib.backbone.load import Backbone
from handclip_lib.backbone.weights import fingerprint, size_fact
from handclip_lib.data.images import height_and_width
from handclip_lib.errors import BackboneError
from handclip_lib.files import whole_file

PROMPTS = "text_features.safetensors"


def save_texts(file: Path, texts: np.ndarray, identities: Sequence[str], backbone: Backbone) -> None:
    """Write the text features of identities, with whose they are and of which weights.

    Args:
        file: To write.
        texts: Shape (n_identities, embedding_dim).
        identities: Of the rows.
        backbone: What made them.
    """
    facts = {"identities": "\n".join(identities), "backbone": backbone.fingerprint}
    with whole_file(file) as private:
        safetensors.torch.save_file({"texts": torch.from_numpy(np.ascontiguousarray(texts))}, private, facts)


def prompt_texts(backbone: Backbone, run: Path | None, identities: Sequence[str]) -> np.ndarray | None:
    """Text features of some identities from a run of notebook 02.

    Args:
        backbone: The frozen CLIP; it must be the one the prompts were learnt on.
        run: The run's folder; None where no prompts are wanted.
        identities: Whose, in the order wanted.

    Returns:
        float32, shape (len(identities), embedding_dim), or None without a run.

    Raises:
        BackboneError: There are no prompts, they are of another CLIP, or an identity has none.
    """
    if run is None:
        return None
    file = run / PROMPTS
    try:
        with safetensors.safe_open(file, "pt") as opened:
            facts, texts = opened.metadata() or {}, opened.get_tensor("texts").numpy()
        names, made_by = facts["identities"].split("\n"), facts["backbone"]
    except (OSError, KeyError, safetensors.SafetensorError) as error:
        raise BackboneError(f"{file} holds no prompts ({error}); run notebook 02, then name its run") from error
    if made_by != backbone.fingerprint:
        raise BackboneError(
            f"the prompts of {run.name} were learnt on weights {made_by}, and {backbone.name} is "
            f"{backbone.fingerprint}: run notebook 02 with the same backbone and weights"
        )
    missing = [identity for identity in identities if identity not in names]
    if missing:
        raise BackboneError(
            f"{run.name} has no prompt of {', '.join(missing[:5])} ({len(missing)} of {len(identities)}): run "
            "notebook 02 on the same data, aspect, protocol and seed"
        )
    return texts[[names.index(identity) for identity in identities]]


def save_clip(backbone: Backbone, file: Path) -> Backbone:
    """Write a CLIP whose image tower was trained: `load_backbone(file)` and `-p weights` take it.

    Args:
        backbone: Its model as it is now.
        file: A .safetensors file, written whole.

    Returns:
        The same model under its new fingerprint, so that no cache takes it for the old one.
    """
    state = {name: value.detach().cpu().contiguous().clone() for name, value in backbone.model.state_dict().items()}
    size, side = height_and_width(backbone.resolution), backbone.model.visual.input_resolution
    with whole_file(file) as private:
        safetensors.torch.save_file(state, private, None if size == (side, side) else size_fact(size, side))
    return replace(backbone, fingerprint=fingerprint(backbone.model))
