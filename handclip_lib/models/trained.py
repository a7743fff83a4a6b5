"""What earlier trainings left: prompts as texts, and a tuned image tower as a CLIP of its own."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from handclip_lib.backbone.image_tower import autocast
from handclip_lib.backbone.load import Backbone, configured_backbone, load_backbone
from handclip_lib.backbone.properties import Given, Properties
from handclip_lib.backbone.weights import (
    MADE_OF,
    fingerprint,
    header_facts,
    load_tensors,
    save_tensors,
    size_fact,
)
from handclip_lib.data.batches import plain
from handclip_lib.data.decoder import Resolution, height_and_width
from handclip_lib.data.images import DecodedImages
from handclip_lib.data.manifest import Split
from handclip_lib.data.open import open_images
from handclip_lib.data.table import HandTable, identity_order
from handclip_lib.errors import BackboneError
from handclip_lib.files import is_sealed
from handclip_lib.finite import require_finite
from handclip_lib.models.embeddings import GivenEmbeddings, read_embeddings, under_paths
from handclip_lib.models.handid import HandID
from handclip_lib.models.lineage import TrainedOn, cautions_of
from handclip_lib.models.low_rank import merge, merged_state
from handclip_lib.models.promptsg import PromptSG, load_promptsg, save_promptsg
from handclip_lib.models.reid_head import ReidEncoder
from handclip_lib.parameters.notebooks import Evaluation, trained_name
from handclip_lib.parameters.parts import Guidance, Precision, ReidHead

logger = logging.getLogger("handclip")
PROMPTS = "text_features.safetensors"
BEST, FINAL = "best.safetensors", "final.safetensors"
TRAINING = "image.safetensors"
"""What `fit_image` writes: weights of the last and of the best epoch, and what it needs to go on."""
ENCODED_AT_ONCE = 64


@dataclass(frozen=True)
class Trained:
    """A trained image encoder to evaluate.

    Attributes:
        encode_image: uint8 images (n, height, width, 3) to embeddings, float32 (n, embedding_dim).
        fingerprint: Of its weights.
        name: For tables.
        resolution: As `Backbone.resolution`.
        properties: Of the backbone it was made of.
        reads_text: Whether it embeds texts of their own, as a CLIP does.
        source, precision: As those of a `Backbone`.
    """

    encode_image: Callable[[np.ndarray], np.ndarray]
    fingerprint: str
    name: str
    resolution: Resolution
    properties: Properties
    reads_text: bool = False
    source: str = "trained in this run"
    precision: Precision = "fp32"


Encoder = Backbone | Trained | GivenEmbeddings
"""What notebook 05 evaluates."""


class Training(NamedTuple):
    """An earlier run of notebook 03 or 04.

    Attributes:
        folder, parameters: The run's folder, and its parameters as its record has them.
        split: The manifest it trained on.
        learnt: `ImageResult.learnt`.
        selected_on: What chose the epoch: "people", "val" or "test".
        lineage: All that its weights were trained on, that split first.
    """

    folder: Path
    parameters: Mapping[str, Any]
    split: Split
    learnt: str
    selected_on: str = "val"
    lineage: tuple[TrainedOn, ...] = ()

    @property
    def cautions(self) -> list[str]:
        """What must be said of what trained it, beside its own split."""
        return cautions_of(self.lineage)


M = TypeVar("M", Backbone, Trained)


def image_encoder(backbone: Backbone, n_identities: int, options: ReidHead) -> ReidEncoder:
    """The encoder that learns, on the backbone's image tower: a `PromptSG` or `HandID` where `method` says so."""
    if isinstance(options, Guidance) and options.method == "promptsg":
        return PromptSG(backbone, n_identities, options)
    if isinstance(options, Guidance) and options.method == "handid":
        return HandID(backbone, n_identities, options)
    return ReidEncoder(backbone, n_identities, options)


@torch.inference_mode()
def encode_images(encoder: ReidEncoder, pixels: np.ndarray) -> np.ndarray:
    """Embeddings of uint8 images in evaluation mode, float32 (n, embedding_dim)."""
    encoder.eval()
    device, parts = encoder.classifier.device, []
    for start in range(0, len(pixels), ENCODED_AT_ONCE):
        some = torch.from_numpy(np.array(pixels[start : start + ENCODED_AT_ONCE])).to(device)
        with autocast(device, encoder.precision):
            parts.append(encoder.encode_image(plain(some, encoder.normalisation)).cpu().numpy())
    return np.concatenate(parts)


@torch.inference_mode()
def classify(encoder: ReidEncoder, pixels: np.ndarray) -> np.ndarray:
    """Scores of the training identities for uint8 images, in evaluation mode, float32 (n, n_identities)."""
    embeddings = torch.from_numpy(encode_images(encoder, pixels)).to(encoder.classifier.device)
    return encoder.scores(embeddings).cpu().numpy()


def save_trained(encoder: ReidEncoder, backbone: Backbone, folder: Path, name: str = "") -> Trained:
    """Write the best epoch's weights (`best.safetensors`) and the last one's (`final.safetensors`) after `fit_image`.

    A `ReidEncoder` is written as a CLIP, which `-p weights` takes, a `HandID` too: its embedding is the tower's own. A
    `PromptSG` is written for `load_promptsg`. Adapters are merged, in the files and in the encoder.

    Args:
        encoder: Holds the best weights, as `fit_image` leaves it; made on the backbone.
        folder: The run's, with the training's checkpoint.
        name: What tables call it, see `trained_name`; empty: as the backbone.

    Returns:
        The best one, to evaluate.
    """
    best = {name: value.clone() for name, value in encoder.state_dict().items()}
    try:
        now, _ = load_tensors(folder / TRAINING, "now.")
    except ValueError as error:
        raise BackboneError(f"{folder / TRAINING} is damaged ({error}); delete it and train again") from error
    states = []
    for state in (best | now, best):  # what is frozen is not in the file
        encoder.load_state_dict(state)
        states.append(merged_state(encoder))
    merge(encoder)
    for state, file in zip(states, (FINAL, BEST), strict=True):
        encoder.load_state_dict(state)
        if isinstance(encoder, PromptSG):
            save_promptsg(encoder, backbone, folder / file)
        else:
            tuned = save_clip(backbone, folder / file)
    if isinstance(encoder, PromptSG):
        return replace(_guided(encoder, backbone), name=name or backbone.name)
    called = name or backbone.name
    return Trained(
        tuned.encode_image, tuned.fingerprint, called, backbone.resolution, backbone.properties,
        precision=backbone.precision,
    )  # fmt: skip


def load_evaluated(config: Evaluation, training: Training | None) -> Encoder:
    """The model that notebook 05 evaluates: the backbone its parameters name, or what a training made of one.

    Or the embeddings of another program, which stand in its place.
    """
    if config.embeddings:
        given = read_embeddings(Path(config.embeddings).expanduser())
        return replace(given, name="embeddings") if config.private else given  # as `configured_backbone` has it
    if training is None:
        return configured_backbone(config)
    return load_trained(training, config.device, config.embedding_precision)


def open_evaluated(config: Evaluation, training: Training | None) -> tuple[Encoder, HandTable, DecodedImages, Split]:
    """`load_evaluated`, and what `open_images` gives of the photographs as that model takes them."""
    model = load_evaluated(config, training)
    interpolation = model.properties.interpolation if model.properties else "bicubic"
    table, images, split = open_images(config, model.resolution, interpolation)
    return under_paths(model, table, split), table, images, split


def load_trained(training: Training, device: str = "auto", precision: Precision = "fp32") -> Backbone | Trained:
    """The best weights of a run of notebook 03 or 04, by the name they have in its tables.

    Raises:
        BackboneError: The run left no weights, they are damaged, or of another backbone.
    """
    folder, parameters, file = training.folder, training.parameters, training.folder / BEST
    if not file.exists():
        raise BackboneError(f"{folder.name} has no {BEST}: its training did not end; run notebook 03 or 04 again")
    try:
        _tell_unsealed(file)
    except ValueError as error:
        raise BackboneError(f"{file} is damaged ({error}); run notebook 03 or 04 again") from error
    if parameters.get("method") != "promptsg":
        made_of = header_facts(file).get(MADE_OF, parameters["backbone"])
        return _labelled(
            replace(load_backbone(parameters["backbone"], file, device, precision=precision), name=made_of), training
        )
    height, _, width = parameters["input_size"].partition("x")
    size = (int(height), int(width)) if width else None
    given = Given(*(parameters.get(name, usual) for name, usual in zip(Given._fields, Given(), strict=True)))
    backbone = load_backbone(
        parameters["backbone"], parameters["weights"] or None, device, parameters["download_root"] or None, size, given,
        precision=precision,
    )  # fmt: skip
    return _labelled(_guided(load_promptsg(backbone, file), backbone), training)


def _labelled(model: M, training: Training) -> M:
    name = trained_name(model.name, training.parameters, training.learnt)
    return replace(model, name=name, source=f"run {training.folder.name}")


def _guided(encoder: PromptSG, backbone: Backbone) -> Trained:
    content = fingerprint(encoder, backbone.unlike_clip)
    encode = partial(encode_images, encoder)
    of = backbone.resolution, backbone.properties
    return Trained(encode, content, backbone.name, *of, precision=backbone.precision)


def save_texts(file: Path, texts: np.ndarray, identities: Sequence[str], backbone: Backbone) -> None:
    """Write text features (n_identities, embedding_dim), with whose they are and of which weights."""
    facts = {"identities": "\n".join(identities), "backbone": backbone.fingerprint}
    save_tensors(file, {"texts": torch.from_numpy(texts)}, facts)


def prompt_texts(backbone: Backbone, run: Path | None, identities: Sequence[str], split: Split) -> np.ndarray | None:
    """Text features of some identities from a run of notebook 02.

    Args:
        backbone: The frozen CLIP; it must be the one the prompts were learnt on.
        run: The run's folder; None where no prompts are wanted.
        split: The manifest of the photographs they are used for: names mean the same people only where the prompts
            were learnt on the same ones.

    Returns:
        float32, shape (len(identities), embedding_dim), in their order, or None without a run.

    Raises:
        BackboneError: There are no prompts, they are of another CLIP, an identity has none, or they were learnt on
            other photographs.
        DataError: The run has no manifest, or a damaged one.
    """
    if run is None:
        return None
    texts = read_texts(run / PROMPTS, backbone, identities)
    _refuse_other_photographs(run, identities, split)
    return texts


def read_texts(file: Path, backbone: Backbone, identities: Sequence[str]) -> np.ndarray:
    """Some identities' rows of what `save_texts` wrote, as `prompt_texts` has them."""
    run = file.parent
    try:
        _tell_unsealed(file)
        tensors, facts = load_tensors(file)
        texts, names, made_by = tensors["texts"].numpy(), facts["identities"].split("\n"), facts["backbone"]
    except (OSError, KeyError, ValueError) as error:
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
    require_finite(texts, f"the prompts of {run.name}", "run notebook 02 again", BackboneError)
    return texts[[names.index(identity) for identity in identities]]


def _refuse_other_photographs(run: Path, identities: Sequence[str], split: Split) -> None:
    theirs = Split.read(run)
    both = [m.images[m.images["role"].isin(["train", "val"]) & m.images["identity"].isin(identities)]
            for m in (split, theirs)]  # fmt: skip
    known = all(rows["content"].all() for rows in both)
    if not known:
        logger.warning("the prompts of %s: not all contents are recorded, so photographs are told by path", run.name)
    ours, learnt_on = (
        set(zip(rows["identity"], rows["role"], rows["content" if known else "path"], strict=True)) for rows in both
    )
    if theirs.meta["dataset"] == split.meta["dataset"] and ours == learnt_on:
        return
    wrong = {who for who, _, _ in ours ^ learnt_on} or set(identities)
    raise BackboneError(
        f"the prompts of {run.name} were learnt on other photographs ({theirs.meta['dataset']}, "
        f"{theirs.meta['aspect']}, {theirs.meta['protocol']}, seed {theirs.meta['seed']}) of {len(wrong)} of "
        f"{len(identities)} people, such as {min(wrong, key=identity_order)}: equal names are not equal people; run "
        "notebook 02 on the same data, aspect, protocol and seed"
    )


def _tell_unsealed(file: Path) -> None:
    if not is_sealed(file):
        logger.warning("%s was written without a checksum: whether it is damaged is not known", file)


def save_clip(backbone: Backbone, file: Path) -> Backbone:
    """Write a CLIP whose image tower was trained, as .safetensors: `load_backbone(file)` and `-p weights` take it.

    Returns the same model under its new fingerprint, so that no cache takes it for the old one.
    """
    size, side = height_and_width(backbone.resolution), backbone.model.visual.input_resolution
    facts = backbone.properties.facts() | {MADE_OF: backbone.name}
    facts |= {} if size == (side, side) else size_fact(size, side)
    save_tensors(file, backbone.model.state_dict(), facts)
    return replace(backbone, fingerprint=fingerprint(backbone.model, backbone.unlike_clip))
