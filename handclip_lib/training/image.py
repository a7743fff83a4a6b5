"""Image fine-tune: the image tower learns to tell training identities (CLIP-FH stage 1, CLIP-ReID stage 2)."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from handclip_lib.backbone.weights import refuse_not_finite
from handclip_lib.data.augment import augment, plain
from handclip_lib.data.batches import identity_batches, warn_if_few
from handclip_lib.errors import TrainingError
from handclip_lib.losses.image_losses import WITH_TEXT, WeightedLoss, image_losses
from handclip_lib.models.promptsg import PromptSG
from handclip_lib.models.reid_head import ReidEncoder
from handclip_lib.models.trained import ENCODED_AT_ONCE, TRAINING, encode_images
from handclip_lib.parameters.parts import ImageTraining
from handclip_lib.training.history import LEARNT
from handclip_lib.training.image_state import ImageState
from handclip_lib.training.processes import Processes
from handclip_lib.training.schedule import one_cycle, warm_up_cosine

logger = logging.getLogger("handclip")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


@dataclass(frozen=True)
class ImageResult:
    """What a fine-tune gives; the encoder holds the best epoch's weights.

    Attributes:
        history: One row an epoch, from 0 (before training): the loss and its terms, what `validate` returned,
            gradient norm before clipping, learning rate, seconds; with fp16 "skipped_steps" of the epoch, whose
            gradients were no numbers.
        best_epoch: The epoch with the highest `select_by`; 0 where nothing was learnt.
        learnt: "yes"; or "no: " or "in part: " and the reason.
    """

    history: pd.DataFrame
    best_epoch: int
    learnt: str


def fit_image(
    encoder: ReidEncoder | PromptSG,
    pixels: np.ndarray,
    identities: np.ndarray,
    options: ImageTraining,
    *,
    text: np.ndarray | None = None,
    keeps_frozen: bool = True,
    validate: Callable[[Callable[[np.ndarray], np.ndarray]], Mapping[str, float]] | None = None,
    folder: Path | None = None,
    watch: Callable[..., None] | None = None,
    stop: Callable[[], bool] | None = None,
    progress: bool = True,
) -> ImageResult:
    """Train the image tower and its head, on one process or on those that `accelerate launch` or `torchrun` started.

    Terms: `identity` (cross-entropy of the head's logits), `triplet` (batch-hard, on embeddings of length 1),
    `supcon` (all photographs of an identity in the batch are alike), `center` (distance to a learnt centre of the
    identity, on embeddings of length 1), `image_to_text` (cross-entropy over the texts of all identities, which are
    frozen), `text_supcon` (supervised contrastive between the batch's photographs and their texts, both ways).

    Args:
        encoder: Trained in place; holds the best epoch's weights at the end.
        pixels: uint8, shape (n, side, side, 3).
        identities: Of each image, its place among the encoder's identities, int64 (n,).
        options: How it is trained; a term of weight 0 is not computed.
        text: Frozen text features of all identities, (n_identities, size); the terms with text need them.
        keeps_frozen: Without augmentation, compute the frozen blocks' activations of every image once and keep them in
            memory (ViT-B/16: 0.6 MB an image); the result is the same.
        validate: Takes an encoder of uint8 images, in evaluation mode; returns measures by name.
        folder: Where `image.safetensors` is written after every epoch; a training that finds its own goes on from it.
        watch: Called with the history and the best epoch after every epoch, and with `last=True` at the end.
        stop: Asked after every epoch, on all processes, of which the main one decides; what was learnt until it says
            True is the result, and `folder` goes on from it.
        progress: Show a bar.

    Raises:
        ConfigError: A weight or term makes no sense.
        TrainingError: A value is out of bounds, a loss, gradient or embedding is no number (the encoder then holds the
            best epoch's weights), or the checkpoint is of another training.
    """
    _check(encoder, pixels, identities, text, options)
    epochs, seed, precision, learning_rate = options.epochs, options.seed, options.precision, options.learning_rate
    refuse_not_finite(encoder, "the weights, before the first step", TrainingError)
    device = encoder.classifier.device
    processes = Processes(device)
    texts = None if text is None else F.normalize(torch.as_tensor(np.asarray(text, np.float32), device=device), dim=1)
    losses = image_losses(
        encoder.logits, encoder.centers, texts, options.label_smoothing, options.margin, options.temperature
    )
    loss_of = WeightedLoss(losses, options.loss_weights)
    decides = {
        **options.model_dump(include=set(ImageTraining.model_fields)), "encoder": encoder.recipe,
        "images": int(pixels.astype(np.int64).sum()),
        "labels": int(np.asarray(identities, np.int64) @ np.arange(1, len(identities) + 1)),
        "text": None if text is None else float(np.abs(text).sum(dtype=np.float64)),
    }  # fmt: skip
    encoder.centers.requires_grad_("center" in loss_of.weights)
    adam = OPTIMIZERS[options.optimizer](_groups(encoder, options))
    sgd = torch.optim.SGD([encoder.centers], lr=options.center_learning_rate)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    warn_if_few(identities, options.n_identities)

    def batches(epoch: int) -> list[np.ndarray]:
        return identity_batches(identities, options.n_identities, options.n_images, _rng(seed, epoch))

    steps_of = [len(batches(epoch)) for epoch in range(epochs)]
    before = np.concatenate([[0], np.cumsum(steps_of)])
    state = ImageState(encoder, adam, scaler, decides, folder / TRAINING if folder else None)

    def stopped(what: str, number: int = 0) -> TrainingError:
        state.put_best()
        begun = state.history.epoch > 0 or number > 0
        remedy = f"lower learning_rate={learning_rate:g}; the best epoch so far is kept"
        if precision == "fp16":
            remedy = f"fp16 holds no number above 65,504: train with precision=bf16 or fp32, or {remedy}"
        elif not begun:
            remedy = "no step was taken yet, so the weights that were given overflow; load others"
        return TrainingError(f"{what}: {remedy}")

    def encoded(images: np.ndarray) -> np.ndarray:
        found = encode_images(state.evaluated, images)
        if not np.isfinite(found).all():
            raise stopped(f"embeddings after epoch {state.history.epoch + 1} are no numbers", state.history.epoch + 1)
        return found

    def close_epoch(row: dict[str, Any]) -> None:
        if processes.is_main and validate is not None:
            row |= validate(encoded)
        if "seconds" in row:
            row["seconds"] = time.monotonic() - began
        state.close_epoch(processes.from_main(row), processes.is_main)
        show(last=False)
        processes.wait()

    def show(last: bool) -> None:
        if processes.is_main and watch is not None:
            watch(state.history.frame(), state.history.best_epoch, last=last)

    # the main process looks for all: a late one would find the file that this training has begun meanwhile
    if processes.from_main(state.begun):
        state.resume()
    else:
        close_epoch({"epoch": 0})
    reuses = encoder.has_frozen_part and not options.augmentation and not options.flip and keeps_frozen
    held = _held(encoder, pixels, precision, progress and processes.is_main) if reuses else None
    learning = [p for group in adam.param_groups for p in group["params"]]
    highest = [group["lr"] for group in adam.param_groups]
    bar = tqdm(
        total=epochs, initial=state.history.epoch, desc="fine-tuning", unit="epoch",
        disable=not progress or not processes.is_main,
    )  # fmt: skip

    def outputs_of(some: Tensor) -> dict[str, Tensor]:
        with torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "fp32"):
            return encoder.for_losses(encoder.frozen_part(some) if held is None else some)

    while state.history.epoch < epochs and not state.history.stops(options.patience):
        began, epoch, seen = time.monotonic(), state.history.epoch, []
        encoder.train()
        for number, batch in enumerate(batches(epoch)):
            rows, step = np.tile(batch, options.views), int(before[epoch]) + number
            place = f"epoch {epoch + 1}, batch {number + 1} of {len(rows)} images"
            ids, own = torch.as_tensor(identities[rows], device=device), processes.share(len(rows))
            if held is None:
                seeds = _rng(seed, epoch, number).integers(2**62, size=len(rows)).tolist()
                images = torch.from_numpy(pixels[rows[own]]).to(device)
                inputs = augment(images, seeds[own], options.augmentation, options.flip)
            else:
                inputs = held[rows[own]].to(device)
            if options.schedule == "one_cycle":
                factor = one_cycle(step, int(before[-1]))
            else:
                factor = warm_up_cosine(step, int(before[-1]), int(before[min(options.warm_up, epochs)]))
            for group, rate in zip(adam.param_groups, highest, strict=True):
                group["lr"] = rate * factor
            encoder.zero_grad()
            pieces = _pieces(inputs, options.encoded_at_once)
            outputs = _in_pieces(encoder, outputs_of, pieces) if len(pieces) > 1 else outputs_of(inputs)
            loss, terms = loss_of(ids=ids, **processes.gather(outputs, len(rows)))
            if not torch.isfinite(loss):
                raise stopped(f"the loss is {loss.item()} in {place}", number)
            scaler.scale(loss).backward()
            if len(pieces) > 1:
                _backward_in_pieces(outputs_of, pieces, outputs)
            processes.mean_gradients([*learning, encoder.centers])
            scaler.unscale_(adam)
            gradient = torch.nn.utils.clip_grad_norm_(learning, options.clip_gradient)
            # fp16's scale is too high at first, and falls; a full-size gradient has no such excuse
            if not torch.isfinite(gradient) and scaler.get_scale() <= 1:
                raise stopped(f"the gradient is {gradient.item()} in {place}", number)
            scaler.step(adam)
            if encoder.centers.grad is not None:  # as if the centre loss had weight 1
                scaler.unscale_(sgd)
                encoder.centers.grad /= loss_of.weights["center"]
                scaler.step(sgd)
            scaler.update()
            state.stepped()
            seen.append([len(rows), loss.item(), gradient.item(), *(value.item() for value in terms.values())])
        means = _means(np.array(seen))
        row = {"epoch": epoch + 1, **dict(zip(("loss", "gradient_norm", *terms), means.tolist(), strict=True))}
        if precision == "fp16":
            row["skipped_steps"] = int((~np.isfinite(np.array(seen)[:, 2])).sum())
        close_epoch(row | {"learning_rate": adam.param_groups[0]["lr"], "seconds": 0.0})
        row = state.history.rows[-1]
        bar.set_postfix({name: f"{row[name]:.3g}" for name in ("loss", options.select_by) if name in row})
        bar.update()
        if processes.from_main(stop is not None and stop()):
            break
    bar.close()
    show(last=True)
    state.put_best()
    learnt = state.history.learnt(learning_rate, steps_of)
    if learnt != LEARNT and processes.is_main:
        logger.warning("the training did not go as it should: learnt %s", learnt)
    return ImageResult(state.history.frame(), state.history.best_epoch, learnt)


@torch.no_grad()
def _held(encoder: ReidEncoder | PromptSG, pixels: np.ndarray, precision: str, progress: bool) -> Tensor:
    """What the frozen blocks give for every image: with no augmentation it is the same in every epoch."""
    encoder.eval()
    device, parts = encoder.classifier.device, []
    starts = range(0, len(pixels), ENCODED_AT_ONCE)
    for start in tqdm(starts, desc="frozen blocks", unit="batch", disable=not progress):
        some = torch.from_numpy(np.array(pixels[start : start + ENCODED_AT_ONCE])).to(device)
        with torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "fp32"):
            parts.append(encoder.frozen_part(plain(some)).cpu())
    return torch.cat(parts)


def _pieces(inputs: Tensor, size: int) -> list[Tensor]:
    """Pieces of a size, or all in one with 0; a last one alone, which no batch norm takes, joins the one before."""
    pieces = list(inputs.split(size or len(inputs)))
    if len(pieces) > 1 and len(pieces[-1]) == 1:
        pieces[-2:] = [torch.cat(pieces[-2:])]
    return pieces


@torch.no_grad()
def _in_pieces(
    encoder: torch.nn.Module, outputs_of: Callable[[Tensor], dict[str, Tensor]], pieces: list[Tensor]
) -> dict[str, Tensor]:
    """Outputs of all pieces without their graphs, as the leaves that the loss's gradient comes back to.

    Batch norms count nothing here: the pieces are encoded again for the gradient.
    """
    norms = [m for m in encoder.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm) and m.training]
    for norm in norms:
        norm.track_running_stats = False
    try:
        parts = [outputs_of(piece) for piece in pieces]
    finally:
        for norm in norms:
            norm.track_running_stats = True
    return {name: torch.cat([part[name] for part in parts]).requires_grad_() for name in parts[0]}


def _backward_in_pieces(
    outputs_of: Callable[[Tensor], dict[str, Tensor]], pieces: list[Tensor], outputs: dict[str, Tensor]
) -> None:
    """Hand the gradient of the outputs on to the weights, one piece's graph at a time."""
    used = [name for name in outputs if outputs[name].grad is not None]
    gradients = {name: outputs[name].grad.split([len(piece) for piece in pieces]) for name in used}  # type: ignore[union-attr]
    for number, piece in enumerate(pieces):
        again = outputs_of(piece)
        torch.autograd.backward([again[name] for name in used], [gradients[name][number] for name in used])


def _groups(encoder: ReidEncoder | PromptSG, options: ImageTraining) -> list[dict[str, Any]]:
    """Every tensor that learns, but for the centres, in exactly one group; weight decay on matrices alone."""
    head = {id(p) for p in encoder.head_parameters()}
    groups = []
    for is_head, own_rate in ((False, options.learning_rate), (True, options.head_learning_rate)):
        for is_matrix, own_decay in ((True, options.weight_decay), (False, 0.0)):
            found = [
                p for p in encoder.parameters()
                if p.requires_grad and p is not encoder.centers
                and (id(p) in head) == is_head and (p.ndim > 1) == is_matrix
            ]  # fmt: skip
            if found:
                groups.append({"params": found, "lr": own_rate, "weight_decay": own_decay})
    return groups


def _means(seen: np.ndarray) -> np.ndarray:
    """Means of columns 1 …, weighted by column 0, over finite values: fp16 tries scales whose gradients are not."""
    finite = np.isfinite(seen[:, 1:])
    weight = seen[:, :1] * finite
    return (weight * np.where(finite, seen[:, 1:], 0)).sum(0) / np.maximum(weight.sum(0), 1e-12)


def _check(
    encoder: ReidEncoder | PromptSG, pixels: np.ndarray, identities: np.ndarray, text: np.ndarray | None,
    options: ImageTraining,
) -> None:  # fmt: skip
    faults, count = [], len(encoder.classifier)
    if len(pixels) != len(identities):
        faults.append(f"{len(pixels)} images and {len(identities)} identities: give each image one")
    if len(np.unique(identities)) < 2:
        faults.append(f"images of {len(np.unique(identities))} identities: at least two are needed")
    elif identities.min() < 0 or identities.max() >= count:
        faults.append(f"identity number {identities.max()}: the classifier has {count}, from 0")
    needed = [name for name in WITH_TEXT if options.loss_weights[name]]
    needed = [name for name in needed if name == "image_to_text" or text is not None or not encoder.makes_texts]
    if needed and (text is None or len(text) != count):
        faults.append(
            f"{' and '.join(needed)}: need a text for each of {count} identities, "
            f"got {0 if text is None else len(text)}"
        )
    if text is not None and not np.isfinite(text).all():
        faults.append(f"{int((~np.isfinite(text)).sum())} values of the texts are not finite: learn the prompts again")
    if encoder.makes_texts and options.encoded_at_once == 1:
        faults.append(
            "encoded_at_once=1: a pseudo token's batch norm takes no single image; give 0, for the whole batch, or "
            "at least 2"
        )
    if faults:
        raise TrainingError("; ".join(faults))


def _rng(*key: int) -> np.random.Generator:
    """Depends on its key alone, so an interrupted training goes on as it would have."""
    return np.random.default_rng(list(key))
