"""Image fine-tune: the image tower learns to tell training identities (CLIP-FH stage 1, CLIP-ReID stage 2)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from handclip_lib.backbone.image_tower import kind_of
from handclip_lib.backbone.rates import chosen, rates_of
from handclip_lib.backbone.weights import refuse_not_finite
from handclip_lib.errors import TrainingError
from handclip_lib.evaluation.tables import result_table
from handclip_lib.losses import WITH_TEXT, WeightedLoss, image_losses
from handclip_lib.models.reid_head import ReidEncoder
from handclip_lib.models.trained import TRAINING
from handclip_lib.models.whitening import Whitening, within_person_whitening
from handclip_lib.parameters.parts import CHOSEN, ImageTraining
from handclip_lib.training.encoding import BatchEncoder, encode_once
from handclip_lib.training.launch import Processes
from handclip_lib.training.optimizer import ImageOptimizer
from handclip_lib.training.start import SHARES, Start, put
from handclip_lib.training.state import LEARNT, Batches, Training, finite_means, identity_faults, key_of, sample_of


@dataclass(frozen=True)
class ImageResult:
    """What a fine-tune gives; the encoder holds the best epoch's weights, or what lies between them and the start.

    Attributes:
        history: One row an epoch, from 0 (before training): the loss and its terms, what `validate` returned,
            gradient norm before clipping, learning rate, seconds; with fp16 "skipped_steps" of the epoch, whose
            gradients were no numbers.
        best_epoch: The epoch with the highest `select_by`; 0 where nothing was learnt.
        learnt: "yes"; or "no: " or "in part: " and the reason.
        share: Of what was tuned that the encoder holds, in 0..1; see `interpolation`.
        shares: Each that was tried, as "interpolation", and what `validate` returned; empty where none is.
        whitened: "yes", "no", or "no: " and why it could not be.
    """

    history: pd.DataFrame
    best_epoch: int
    learnt: str
    share: float
    shares: pd.DataFrame
    whitened: str = "no"

    @property
    def between(self) -> str:
        """What `shares` are of, as a caption."""
        ends = f"From the frozen weights (0 %) to those of epoch {self.best_epoch} (100 %)"
        return f"{ends}{', each whitened' if self.whitened == 'yes' else ''}; taken: {100 * self.share:.3g} %"

    @property
    def after_training(self) -> str:
        """What the encoder holds, a sentence."""
        weights = f"those of epoch {self.best_epoch}"
        if not (self.best_epoch and self.share):
            weights = "as they were before training"
        elif self.share < 1:
            weights = f"{100 * self.share:.3g} % of the way from the frozen ones to {weights}"
        whitened = self.whitened.replace("no", "not whitened", 1)
        if self.whitened == "yes":
            whitened = "whitened by the photographs that trained"
        return f"The weights are {weights}; what they embed is {whitened}."


def fit_image(
    encoder: ReidEncoder, pixels: np.ndarray, identities: np.ndarray, options: ImageTraining, *,
    text: np.ndarray | None = None, folder: Path | None = None, keep_epoch: int | None = None,
    validate: Callable[[Callable[[np.ndarray], np.ndarray]], Mapping[str, float]] | None = None,
    watch: Callable[..., None] | None = None, stop: Callable[[], bool] | None = None, progress: bool = True,
) -> ImageResult:  # fmt: skip
    """Train the image tower and its head, on one process or on those that `accelerate launch` or `torchrun` started.

    Args:
        encoder: Trained in place; holds the best epoch's weights at the end, its adapters not merged.
        pixels: uint8, shape (n, side, side, 3).
        identities: Of each image, its place among the encoder's identities, int64 (n,).
        options: How it is trained; for its loss terms see `image_losses`, for rates of 0 `backbone.rates`.
        text: Frozen text features of all identities, (n_identities, size); the terms with text need them.
        validate: Takes an encoder of uint8 images, in evaluation mode; returns measures by name.
        folder: Where `image.safetensors` is written after every epoch; a training that finds its own goes on from it.
        keep_epoch: Epoch that folds chose, 0 … epochs: it is kept and the last, in the schedule of all epochs, as where
            it was measured. None: `select_by` chooses among all.
        watch, stop, progress: As `fit_prompt` has them; `stop` is asked on all processes, and the main one decides.

    Raises:
        ConfigError: Every loss has weight 0.
        TrainingError: The data do not fit the encoder, a loss, gradient or embedding is no number (the encoder then
            holds the best epoch's weights), or the checkpoint is of another training.
    """
    by = rates_of(*kind_of(encoder.visual), adapters=bool(encoder.recipe["lora_rank"]))
    rates = chosen(options.learning_rate, options.head_learning_rate, by)
    options = options.model_copy(update=rates)
    _check(encoder, pixels, identities, text, options)
    refuse_not_finite(encoder, "the weights, before the first step", TrainingError)
    training = _Images(encoder, pixels, identities, options, text, validate, folder, keep_epoch)
    training.images.keep_frozen(progress and training.is_main)
    training.run(watch, stop, progress)
    training.put_best()
    share, shares = training.interpolate()
    learnt, whitened = training.learnt(), training.whiten()
    if learnt == LEARNT and not share:
        frozen = "the interpolation took the frozen weights"
        learnt = f"in part: {frozen}, whitened" if whitened else f"no: {frozen}"
    cannot = options.whitening and not encoder.can_be_whitened
    told = "yes" if whitened else "no: no last projection gives its embedding" if cannot else "no"
    return ImageResult(training.history.frame(), training.history.best_epoch, learnt, share, shares, told)


class _Images(Training):
    """The encoder, its optimizer's moments and the averaged weights, and an epoch.

    The file holds what changes: not what is frozen, which the encoder has, and the best weights only where they are
    not those of the last epoch.

    Attributes:
        evaluated: What is validated and kept: the encoder, or its moving average.
        whitening: What embeddings that are validated go through; None: nothing.
        known: Embeddings of this validation by content, before that: people who trained are searched, and whiten too.
    """

    what = "fine-tuning"

    def __init__(
        self, encoder: ReidEncoder, pixels: np.ndarray, identities: np.ndarray, options: ImageTraining,
        text: np.ndarray | None, validate: Callable[..., Mapping[str, float]] | None, folder: Path | None,
        keep_epoch: int | None,
    ):  # fmt: skip
        self.encoder, self.identities, self.options, self.validate = encoder, identities, options, validate
        self.pixels, self.whitening, self.known = pixels, cast(Whitening | None, None), dict[bytes, np.ndarray]()
        self.device = encoder.classifier.device
        self.processes = Processes(self.device)
        self.is_main = self.processes.is_main
        self.images = BatchEncoder(encoder, pixels, options)
        texts = None if text is None else torch.as_tensor(np.asarray(text, np.float32), device=self.device)
        batches = Batches(identities, options)
        self.optimizer = ImageOptimizer(encoder, options, batches)
        self.average = None
        if options.average:
            averaged = get_ema_multi_avg_fn(options.average)
            self.average = AveragedModel(encoder, multi_avg_fn=averaged, use_buffers=True)
        self.evaluated = cast(ReidEncoder, self.average.module) if self.average else encoder
        self.changing = {name for name, p in encoder.named_parameters() if p.requires_grad}
        self.changing |= {name for name, _ in encoder.named_buffers()}
        self.asked = 1.0 if encoder.makes_texts else options.interpolation  # its layers began random: no way back
        self.start = Start(encoder, self.changing if options.start_weight or options.interpolation != 1 else ())
        losses = image_losses(
            encoder.logits, encoder.centers, None if texts is None else F.normalize(texts, dim=1),
            options.label_smoothing, options.margin, options.temperature, self.start.distance,
        )  # fmt: skip
        self.loss_of = WeightedLoss(losses, options.loss_weights)
        decides = {
            "encoder": encoder.recipe, "images": int(pixels.sum(dtype=np.int64)), "labels": key_of(identities),
            "text": None if text is None else float(np.abs(text).sum(dtype=np.float64)),
        }  # fmt: skip
        super().__init__(options, batches, decides, folder / TRAINING if folder else None, keep_epoch)

    def train(self, epoch: int) -> dict[str, Any]:
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
            if self.average is not None:
                self.average.update_parameters(self.encoder)
            seen.append([len(rows), loss.item(), gradient.item(), *(value.item() for value in terms.values())])
        means = finite_means(np.array(seen))
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

    def measure(self) -> Mapping[str, float]:
        """Validate what would be kept of this epoch: whitened, and at the share of the way that is asked for."""
        if not (self.validate and self.history.rows) or self.asked in (1, CHOSEN):
            return self.validated()
        tuned = self.copy()
        put(self.evaluated, self.start.towards(tuned, self.asked))
        try:
            return self.validated()
        finally:  # stopped by hand, too
            put(self.evaluated, tuned)

    def validated(self) -> Mapping[str, float]:
        """Validate what is evaluated as it is, whitened."""
        if not self.validate:
            return {}
        self.whitening = self.fitted() if self.history.rows else None  # row 0 is of the model before training
        try:
            return self.validate(self.embed)
        finally:
            self.whitening = None
            self.known.clear()

    def fitted(self) -> Whitening | None:
        """The whitening of what is evaluated, by the training images as they are; None where there is none."""
        strength = self.options.whitening
        if not (strength and self.encoder.can_be_whitened):
            return None
        return within_person_whitening(self.embed(self.pixels), self.identities, strength)

    def whiten(self) -> bool:
        """Whiten the encoder, which holds what is kept; whether it did: not where nothing was learnt."""
        self.evaluated = self.encoder
        kept = self.history.best_epoch > 0
        whitening = self.from_main(self.fitted() if self.is_main and kept else None)
        if whitening is not None:
            self.encoder.whiten(*map(np.asarray, whitening))  # from another process they come as lists
        return whitening is not None

    def interpolate(self) -> tuple[float, pd.DataFrame]:
        """Put in the share that `interpolation` asks for; it, and those that were tried.

        Chosen is the one of the highest `select_by`, of equals the one nearest the start.
        """
        asked, best = self.asked, self.history.best_epoch
        if asked == 1 or not best:
            return 1.0, pd.DataFrame()
        self.evaluated, rows = self.encoder, []
        measured = 1.0 if asked == CHOSEN else asked  # as the best epoch was
        known = {name: self.history.rows[best][name] for name in self.history.rows[0] if name != "epoch"}
        for share in SHARES if asked == CHOSEN else sorted({0.0, asked, 1.0}):
            put(self.encoder, self.start.towards(self._best, share))
            found = known if share == measured or not self.is_main else dict(self.validated())
            rows.append({"interpolation": share} | self.from_main(found))
        share = max(rows, key=lambda row: row[self.options.select_by])["interpolation"] if asked == CHOSEN else asked
        put(self.encoder, self.start.towards(self._best, share))
        return share, result_table(rows)

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Embeddings of uint8 images by what is evaluated, in evaluation mode."""
        found, epoch = encode_once(self.evaluated, images, self.known), self.history.epoch + 1
        if not np.isfinite(found).all():
            raise self.stopped(f"embeddings after epoch {epoch} are no numbers", epoch)
        if self.whitening is None:
            return found
        mean, matrix = self.whitening
        return ((found - mean) @ matrix).astype(np.float32)

    def stopped(self, what: str, number: int) -> TrainingError:
        """What to raise where a number is none, after some batches of the epoch; the encoder takes the best weights."""
        self.put_best()
        remedy = f"lower learning_rate={self.options.learning_rate:g}; the best epoch so far is kept"
        if self.options.precision == "fp16":
            remedy = f"fp16 holds no number above 65,504: train with precision=bf16 or fp32, or {remedy}"
        elif not (self.history.epoch > 0 or number > 0):
            remedy = "no step was taken yet, so the weights that were given overflow; load others"
        return TrainingError(f"{what}: {remedy}")

    def from_main(self, value: Any) -> Any:
        return self.processes.from_main(value)

    def put_best(self) -> None:
        put(self.encoder, self._best)
        self.encoder.eval()

    def sample(self) -> list[Tensor]:
        """Of the weights that learn and that embeddings depend on: not of the head, nor of batch norms' statistics."""
        named, without = self.evaluated.named_parameters(), self.evaluated.training_only
        return sample_of(p for name, p in named if name in self.changing and not name.startswith(without))

    def changed(self, model: torch.nn.Module) -> dict[str, Tensor]:
        """Of a model's tensors those that training changes."""
        return {name: value for name, value in model.state_dict().items() if name in self.changing}

    def copy(self) -> dict[str, Tensor]:
        return {name: value.detach().cpu().clone() for name, value in self.changed(self.evaluated).items()}

    def held(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {f"now.{name}": value for name, value in self.changed(self.encoder).items()}
        if self.average is not None:
            tensors |= {f"average.{name}": value for name, value in self.changed(self.average.module).items()}
            tensors["averaged"] = self.average.n_averaged
        if self.history.best_epoch != self.history.epoch:
            tensors |= {f"best.{name}": value for name, value in self._best.items()}
        for number, moments in self.optimizer.adam.state_dict()["state"].items():
            tensors |= {f"adam.{number}.{name}": value for name, value in moments.items()}
        return tensors, {"scaler": self.optimizer.scaler.state_dict()}

    def take(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        parts: dict[str, dict[str, Tensor]] = {"now": {}, "best": {}, "average": {}, "adam": {}, "averaged": {}}
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            parts[kind][rest] = value
        put(self.encoder, parts["now"])
        if self.average is not None:
            put(self.average.module, parts["average"])
            self.average.n_averaged.copy_(tensors["averaged"])
        self._best = parts["best"] or self.copy()
        adam, scaler = self.optimizer.adam, self.optimizer.scaler
        stored = adam.state_dict()
        for name, value in parts["adam"].items():
            number, _, moment = name.partition(".")
            stored["state"].setdefault(int(number), {})[moment] = value
        adam.load_state_dict(stored)
        if facts["scaler"]:
            scaler.load_state_dict(facts["scaler"])


def _check(
    encoder: ReidEncoder, pixels: np.ndarray, identities: np.ndarray, text: np.ndarray | None,
    options: ImageTraining,
) -> None:  # fmt: skip
    count = len(encoder.classifier)
    faults = identity_faults(pixels, identities, count, "classifier")
    needed = [name for name in WITH_TEXT if options.loss_weights[name]]
    needed = [name for name in needed if name == "image_to_text" or text is not None or not encoder.makes_texts]
    if needed and (text is None or len(text) != count):
        got = 0 if text is None else len(text)
        faults.append(f"{' and '.join(needed)}: need a text for each of {count} identities, got {got}")
    if text is not None and not np.isfinite(text).all():
        faults.append(f"{int((~np.isfinite(text)).sum())} values of the texts are not finite: learn the prompts again")
    if encoder.makes_texts and options.encoded_at_once == 1:
        alone = "a pseudo token's batch norm takes no single image"
        faults.append(f"encoded_at_once=1: {alone}; give 0, for the whole batch, or at least 2")
    if options.interpolation == CHOSEN and options.select_by == "loss":
        faults.append("interpolation=-1 chooses by validation, and select_by='loss' has none: give val_map")
    if faults:
        raise TrainingError("; ".join(faults))
