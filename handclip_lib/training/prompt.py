"""Prompt learning: both encoders frozen, only the context learns (CLIP-ReID stage 1, CLIP-FH stage 2a)."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from handclip_lib.backbone.load import Backbone
from handclip_lib.errors import TrainingError
from handclip_lib.finite import require_finite
from handclip_lib.losses.contrastive import supervised_contrastive
from handclip_lib.losses.diversity import diversity_loss
from handclip_lib.models.prompt_learner import PromptLearner
from handclip_lib.parameters.notebooks import PromptLearning
from handclip_lib.parameters.parts import PromptTraining
from handclip_lib.training.history import LEARNT, sample_of
from handclip_lib.training.optimizer import OPTIMIZERS
from handclip_lib.training.schedule import Batches, key_of, warm_up_cosine
from handclip_lib.training.state import TrainingState

SNAPSHOTS = 24  # kept of a training, evenly spread, beside the start and the end


@dataclass(frozen=True)
class PromptResult:
    """What a prompt training gives.

    Attributes:
        history: One row an epoch, from 0 (before training): the loss and its terms, positives per sample, what
            `validate` returned, prompt norm, prompt variance, gradient norm, learning rate, seconds.
        best_epoch: The epoch that `select_by` chose; 0 where nothing was learnt.
        learnt: "yes", or "no: " and the reason.
        best, final: The chosen and the last context, float32, as `PromptLearner.context`.
        best_text: Text features of all identities at the chosen, not normalised, float32 (n_identities, size).
        epochs, contexts, text_features: Snapshots: their epochs, and of each the same, (snapshots, …).
    """

    history: pd.DataFrame
    best_epoch: int
    learnt: str
    best: np.ndarray
    best_text: np.ndarray
    final: np.ndarray
    epochs: tuple[int, ...]
    contexts: np.ndarray
    text_features: np.ndarray

    @property
    def name(self) -> str:
        """What its texts are called in tables."""
        return "learnt" if self.learnt == LEARNT else f"not learnt ({self.learnt.partition(': ')[2]})"


def fit_prompt(
    learner: PromptLearner,
    images: np.ndarray,
    identities: np.ndarray,
    options: PromptTraining,
    *,
    validate: Callable[[np.ndarray], Mapping[str, float]] | None = None,
    folder: Path | None = None,
    watch: Callable[..., None] | None = None,
    stop: Callable[[], bool] | None = None,
    progress: bool = True,
) -> PromptResult:
    """Learn the context, by supervised contrastive losses both ways.

    Loss: SupCon(image→text) + SupCon(text→image) + context_weight · mean(context²)
    + diversity_weight · mean cosine between the texts of different identities.

    The image features never change, so they are computed once, before. Only the distinct identities of a batch are
    encoded; their features are then repeated for each of its images, which changes neither loss nor gradient.

    Args:
        learner: Trained in place; holds the best context at the end.
        images: Image features, float32, shape (n, size); scaled as they should be compared (see `normalize`).
        identities: Of each image, number of its row in the learner, int, shape (n,).
        options: How it is trained; `temperature` and `normalize` as `supervised_contrastive` has them.
        validate: Takes text features (n_identities, size), not normalised, and returns measures by name.
        folder: Where `prompts.safetensors` is written after every epoch; a training that finds its own there goes
            on from it, to the same history and weights as if it had not been interrupted.
        watch: Called with the history and the best epoch after every epoch, and with `last=True` at the end.
        stop: Asked after every epoch; what was learnt until it says True is the result, and `folder` goes on from it.
        progress: Show a bar.

    Raises:
        TrainingError: Too few identities, a value out of bounds, a loss that is no number, or a checkpoint of
            another training.
    """
    _check(learner, images, identities)
    training = _Training(learner, images, identities, options, folder)
    state, epochs = training.state, options.epochs

    def save(row: dict[str, Any], began: float | None = None) -> None:
        """Validate, keep and write an epoch."""
        text = learner.text_features()
        if began is None:
            require_finite(text, "the texts before the first step", "load other weights", TrainingError)
        row |= validate(text) if validate else {}
        row |= {} if began is None else {"seconds": time.monotonic() - began}
        state.close(row, text)
        show(last=False)

    def show(last: bool) -> None:
        if watch is not None:
            watch(state.history.frame(), state.history.best_epoch, last=last)

    if state.begun:
        state.resume()
    else:
        save({"epoch": 0, **_norms(learner)})
    bar = tqdm(total=epochs, initial=state.history.epoch, desc="learning prompts", unit="epoch", disable=not progress)
    while state.history.epoch < epochs and not state.history.stops(options.patience):
        began = time.monotonic()
        save(training.train(state.history.epoch), began)
        row = state.history.rows[-1]
        bar.set_postfix({name: f"{row[name]:.3g}" for name in ("loss", options.select_by) if name in row})
        bar.update()
        if stop is not None and stop():
            break
    bar.close()
    show(last=True)
    return state.result(options.learning_rate, training.batches.steps_of)


class _Training:
    """What a prompt training is set up with, and an epoch of it."""

    def __init__(
        self, learner: PromptLearner, images: np.ndarray, identities: np.ndarray, options: PromptTraining,
        folder: Path | None,
    ):  # fmt: skip
        self.learner, self.identities, self.options = learner, identities, options
        device = learner.context.device
        self.labels = torch.as_tensor(np.asarray(identities, np.int64), device=device)
        self.features = torch.as_tensor(np.asarray(images, np.float32), device=device)
        self.batches = Batches(identities, options)
        self.adam = OPTIMIZERS[options.optimizer](
            [learner.context], lr=options.learning_rate, weight_decay=options.weight_decay
        )
        decides = {
            **options.model_dump(include=set(PromptTraining.model_fields)), "learner": learner.recipe,
            "images": float(np.abs(images).sum(dtype=np.float64)),
            "labels": key_of(identities),
        }  # fmt: skip
        self.state = PromptState(learner, self.adam, decides, folder / "prompts.safetensors" if folder else None)

    def train(self, epoch: int) -> dict[str, Any]:
        """Train an epoch, counted from 0; its row: means over its images."""
        options, batches, seen = self.options, self.batches, []
        for number, batch in enumerate(batches.of(epoch)):
            rate = options.learning_rate * warm_up_cosine(
                batches.before[epoch] + number, batches.before[-1], batches.rising
            )
            self.adam.param_groups[0]["lr"] = rate
            terms = self.loss_step(torch.as_tensor(batch, device=self.labels.device))
            for what, value in (("loss", terms["loss"]), ("gradient", terms["gradient_norm"])):
                if not torch.isfinite(value):
                    self.state.put_best()
                    people = [self.learner.identities[i] for i in np.unique(self.identities[batch])][:8]
                    place = f"epoch {epoch + 1}, batch {number + 1} of identities {people}"
                    remedy = f"lower learning_rate={options.learning_rate:g} or raise temperature="
                    raise TrainingError(f"the {what} is {value.item()} in {place}: {remedy}{options.temperature:g}")
            self.adam.step()
            seen.append([len(batch), *(value.item() for value in terms.values())])
        means = np.average(np.array(seen)[:, 1:], axis=0, weights=np.array(seen)[:, 0])
        row = {"epoch": epoch + 1, **dict(zip(terms, means.tolist(), strict=True))}
        return row | _norms(self.learner) | {"learning_rate": rate}

    def loss_step(self, rows: Tensor) -> dict[str, Tensor]:
        """Loss and terms of a batch, and the length of the gradient that the context gets."""
        distinct, place = self.labels[rows].unique(return_inverse=True)
        texts = self.learner.encode_text(distinct)
        image, prompt, ids = self.features[rows], texts[place], self.labels[rows]
        how = self.options.temperature, self.options.normalize
        i2t = supervised_contrastive(image, prompt, ids, ids, *how)
        t2i = supervised_contrastive(prompt, image, ids, ids, *how)
        squares, overlap = self.learner.context.square().mean(), diversity_loss(texts)
        loss = i2t + t2i + self.options.context_weight * squares + self.options.diversity_weight * overlap
        self.adam.zero_grad()
        loss.backward()
        gradient = self.learner.context.grad
        return {
            "loss": loss, "image_to_text": i2t, "text_to_image": t2i, "mean_square": squares, "text_overlap": overlap,
            "positives": (ids[:, None] == ids).sum() / len(ids),
            "gradient_norm": torch.zeros(()) if gradient is None else gradient.norm(),
        }  # fmt: skip


def try_prompt(
    backbone: Backbone,
    names: Sequence[str],
    images: np.ndarray,
    identities: np.ndarray,
    options: PromptLearning,
    *,
    validate: Callable[[np.ndarray], Mapping[str, float]],
    **watched: Any,
) -> PromptResult:
    """A training of `trial_epochs` from a fresh context, kept nowhere.

    Args:
        backbone: The frozen CLIP.
        names: Names of the identities.
        images, identities, options, validate, **watched: As `fit_prompt` takes them.

    Raises:
        ConfigError, TrainingError: See `PromptLearner` and `fit_prompt`.
    """
    trial = options.model_copy(update={"epochs": options.trial_epochs})
    return fit_prompt(PromptLearner(backbone, names, trial), images, identities, trial, validate=validate, **watched)


def _check(learner: PromptLearner, images: np.ndarray, identities: np.ndarray) -> None:
    faults = []
    if len(images) != len(identities):
        faults.append(f"{len(images)} images and {len(identities)} identities: give each image one")
    known = np.unique(identities)
    if len(known) < 2:
        faults.append(f"images of {len(known)} identities: prompts are learnt to tell at least two apart")
    elif known[0] < 0 or known[-1] >= len(learner.identities):
        faults.append(f"identity number {known[-1]}: the learner has {len(learner.identities)}, from 0")
    if not np.isfinite(images).all():
        faults.append("an image feature is not finite: check the weights")
    if faults:
        raise TrainingError("; ".join(faults))


def _norms(learner: PromptLearner) -> dict[str, float]:
    """Mean length of a learnt token, and its variance over identities (shared: over tokens), mean over dimensions."""
    context = learner.context.detach()
    return {
        "prompt_norm": context.norm(dim=-1).mean().item(),
        "prompt_variance": context.var(dim=0, unbiased=False).mean().item(),
    }


class PromptState(TrainingState):
    """The context, its moments, the texts of the best epoch, and snapshots of both over the training."""

    def __init__(
        self, learner: PromptLearner, adam: torch.optim.Optimizer, decides: Mapping[str, Any], file: Path | None
    ):
        self._learner, self._adam, self._text = learner, adam, torch.empty(0)
        self._kept = {0, *np.linspace(0, decides["epochs"], SNAPSHOTS + 2).astype(int).tolist()}
        self._epochs: list[int] = []
        self._contexts: list[Tensor] = []
        self._texts: list[Tensor] = []
        super().__init__(decides, file)

    def close(self, row: dict[str, Any], text: np.ndarray) -> None:
        """Take an epoch's figures and the texts of all identities after it."""
        self._text = torch.from_numpy(text)
        if row["epoch"] in self._kept:
            self._epochs.append(row["epoch"])
            self._contexts.append(self._context())
            self._texts.append(self._text)
        self.close_epoch(row)

    def put_best(self) -> None:
        """Give the learner the best context."""
        self._learner.context.data.copy_(self._best["best"])

    def result(self, learning_rate: float, steps_of: list[int]) -> PromptResult:
        """The training's result; the learner takes the best context."""
        learnt, final = self.learnt("the training of the prompts", learning_rate, steps_of), self._context()
        self.put_best()
        return PromptResult(
            history=self.history.frame(), best_epoch=self.history.best_epoch, learnt=learnt,
            best=self._best["best"].numpy(), best_text=self._best["best_text"].numpy(), final=final.numpy(),
            epochs=tuple(self._epochs), contexts=torch.stack(self._contexts).numpy(),
            text_features=torch.stack(self._texts).numpy(),
        )  # fmt: skip

    def _context(self) -> Tensor:
        return self._learner.context.detach().cpu().clone()

    def _copy(self) -> dict[str, Tensor]:
        return {"best": self._context(), "best_text": self._text}

    def _sample(self) -> list[Tensor]:
        return sample_of([self._learner.context])

    def _held(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        moments = {f"adam.{name}": value for name, value in self._adam.state[self._learner.context].items()}
        snapshots = {"contexts": torch.stack(self._contexts), "text_features": torch.stack(self._texts)}
        return {"context": self._context(), **self._best, **snapshots, **moments}, {"epochs": self._epochs}

    def _take(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        self._epochs, self._best = facts["epochs"], {name: tensors[name] for name in ("best", "best_text")}
        self._contexts, self._texts = list(tensors["contexts"]), list(tensors["text_features"])
        context = self._learner.context
        context.data.copy_(tensors["context"])
        moments = {name.removeprefix("adam."): t for name, t in tensors.items() if name.startswith("adam.")}
        if moments:
            self._adam.state[context] = {
                name: t if name == "step" else t.to(context.device) for name, t in moments.items()
            }
