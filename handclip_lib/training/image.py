"""Image fine-tune: the image tower learns to tell training identities (CLIP-FH stage 1, CLIP-ReID stage 2)."""

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
from handclip_lib.errors import TrainingError
from handclip_lib.losses.image_losses import WITH_TEXT, WeightedLoss, image_losses
from handclip_lib.models.promptsg import PromptSG
from handclip_lib.models.reid_head import ReidEncoder
from handclip_lib.models.trained import TRAINING, encode_images
from handclip_lib.parameters.parts import ImageTraining
from handclip_lib.training.distributed import Processes
from handclip_lib.training.encoding import BatchEncoder
from handclip_lib.training.optimizer import ImageOptimizer
from handclip_lib.training.schedule import Batches, key_of
from handclip_lib.training.state import ImageState


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

    Args:
        encoder: Trained in place; holds the best epoch's weights at the end.
        pixels: uint8, shape (n, side, side, 3).
        identities: Of each image, its place among the encoder's identities, int64 (n,).
        options: How it is trained; for its loss terms see `image_losses`.
        text: Frozen text features of all identities, (n_identities, size); the terms with text need them.
        keeps_frozen: See `BatchEncoder.keep_frozen`.
        validate: Takes an encoder of uint8 images, in evaluation mode; returns measures by name.
        folder: Where `image.safetensors` is written after every epoch; a training that finds its own goes on from it.
        watch: Called with the history and the best epoch after every epoch, and with `last=True` at the end.
        stop: Asked after every epoch, on all processes, of which the main one decides; what was learnt until it says
            True is the result, and `folder` goes on from it.
        progress: Show a bar.

    Raises:
        ConfigError: Every loss has weight 0.
        TrainingError: The data do not fit the encoder, a loss, gradient or embedding is no number (the encoder then
            holds the best epoch's weights), or the checkpoint is of another training.
    """
    _check(encoder, pixels, identities, text, options)
    refuse_not_finite(encoder, "the weights, before the first step", TrainingError)
    training = _Training(encoder, pixels, identities, options, text, folder)
    processes, state, epochs = training.processes, training.state, options.epochs
    shows = progress and processes.is_main

    def save(row: dict[str, Any], began: float | None = None) -> None:
        """Validate, keep and write an epoch on the main process; the others take its figures."""
        row |= {} if began is None else {"seconds": 0.0}
        if processes.is_main and validate is not None:
            row |= validate(training.embed)
        if began is not None:
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
        save({"epoch": 0})
    if keeps_frozen:
        training.images.keep_frozen(shows)
    bar = tqdm(total=epochs, initial=state.history.epoch, desc="fine-tuning", unit="epoch", disable=not shows)
    while state.history.epoch < epochs and not state.history.stops(options.patience):
        began = time.monotonic()
        save(training.train(state.history.epoch), began)
        row = state.history.rows[-1]
        bar.set_postfix({name: f"{row[name]:.3g}" for name in ("loss", options.select_by) if name in row})
        bar.update()
        if processes.from_main(stop is not None and stop()):
            break
    bar.close()
    show(last=True)
    state.put_best()
    learnt = state.learnt("the training", options.learning_rate, training.batches.steps_of, processes.is_main)
    return ImageResult(state.history.frame(), state.history.best_epoch, learnt)


class _Training:
    """What a fine-tune is set up with, an epoch of it, and what it says where a number is none."""

    def __init__(
        self, encoder: ReidEncoder | PromptSG, pixels: np.ndarray, identities: np.ndarray, options: ImageTraining,
        text: np.ndarray | None, folder: Path | None,
    ):  # fmt: skip
        self.encoder, self.identities, self.options = encoder, identities, options
        self.device = encoder.classifier.device
        self.processes = Processes(self.device)
        self.images = BatchEncoder(encoder, pixels, options)
        texts = None if text is None else torch.as_tensor(np.asarray(text, np.float32), device=self.device)
        losses = image_losses(
            encoder.logits, encoder.centers, None if texts is None else F.normalize(texts, dim=1),
            options.label_smoothing, options.margin, options.temperature,
        )  # fmt: skip
        self.loss_of = WeightedLoss(losses, options.loss_weights)
        self.batches = Batches(identities, options)
        self.optimizer = ImageOptimizer(encoder, options, self.batches)
        decides = {
            **options.model_dump(include=set(ImageTraining.model_fields)), "encoder": encoder.recipe,
            "images": int(pixels.astype(np.int64).sum()),
            "labels": key_of(identities),
            "text": None if text is None else float(np.abs(text).sum(dtype=np.float64)),
        }  # fmt: skip
        file = folder / TRAINING if folder else None
        self.state = ImageState(encoder, self.optimizer.adam, self.optimizer.scaler, decides, file)

    def train(self, epoch: int) -> dict[str, Any]:
        """Train an epoch, counted from 0; its row: means over its images."""
        optimizer, seen = self.optimizer, []
        self.encoder.train()
        for number, batch in enumerate(self.batches.of(epoch)):
            rows = np.tile(batch, self.options.views)
            place = f"epoch {epoch + 1}, batch {number + 1} of {len(rows)} images"
            optimizer.set_rates(self.batches.before[epoch] + number)
            self.encoder.zero_grad()
            loss, terms = self.loss_step(rows, np.random.default_rng([self.options.seed, epoch, number]), place, number)
            self.processes.mean_gradients([*optimizer.learning, self.encoder.centers])
            gradient = optimizer.clip()
            if optimizer.fails(gradient):
                raise self.stopped(f"the gradient is {gradient.item()} in {place}", number)
            optimizer.step()
            self.state.stepped()
            seen.append([len(rows), loss.item(), gradient.item(), *(value.item() for value in terms.values())])
        means = _means(np.array(seen))
        row = {"epoch": epoch + 1, **dict(zip(("loss", "gradient_norm", *terms), means.tolist(), strict=True))}
        if self.options.precision == "fp16":
            row["skipped_steps"] = int((~np.isfinite(np.array(seen)[:, 2])).sum())
        return row | {"learning_rate": optimizer.rate}

    def loss_step(
        self, rows: np.ndarray, rng: np.random.Generator, place: str, number: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a whole batch, and its terms; this process's own images get their gradients."""
        ids = torch.as_tensor(self.identities[rows], device=self.device)
        seeds = rng.integers(2**62, size=len(rows)).tolist()
        outputs = self.images.encode(self.images.inputs(rows, self.processes.share(len(rows)), seeds))
        loss, terms = self.loss_of(ids=ids, **self.processes.gather(outputs, len(rows)))
        if not torch.isfinite(loss):
            raise self.stopped(f"the loss is {loss.item()} in {place}", number)
        self.optimizer.backward(loss)
        self.images.backward(outputs)
        return loss, terms

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Embeddings of uint8 images by what is evaluated, in evaluation mode."""
        found, epoch = encode_images(self.state.evaluated, images), self.state.history.epoch + 1
        if not np.isfinite(found).all():
            raise self.stopped(f"embeddings after epoch {epoch} are no numbers", epoch)
        return found

    def stopped(self, what: str, number: int) -> TrainingError:
        """What to raise where a number is none, after some batches of the epoch; the encoder takes the best weights."""
        self.state.put_best()
        remedy = f"lower learning_rate={self.options.learning_rate:g}; the best epoch so far is kept"
        if self.options.precision == "fp16":
            remedy = f"fp16 holds no number above 65,504: train with precision=bf16 or fp32, or {remedy}"
        elif not (self.state.history.epoch > 0 or number > 0):
            remedy = "no step was taken yet, so the weights that were given overflow; load others"
        return TrainingError(f"{what}: {remedy}")


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
