"""Prompt learning: both encoders frozen, only the context learns (CLIP-ReID stage 1, CLIP-FH stage 2a)."""

import logging
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
from handclip_lib.data.batches import identity_batches, warn_if_few
from handclip_lib.errors import TrainingError
from handclip_lib.finite import require_finite
from handclip_lib.losses.contrastive import supervised_contrastive
from handclip_lib.losses.diversity import diversity_loss
from handclip_lib.models.prompt_learner import PromptLearner
from handclip_lib.parameters.notebooks import PromptLearning
from handclip_lib.parameters.parts import PromptTraining
from handclip_lib.training.checkpoints import resume_checkpoint, save_checkpoint
from handclip_lib.training.history import LEARNT, History, have_moved, sample_of
from handclip_lib.training.schedule import warm_up_cosine

logger = logging.getLogger("handclip")
OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
SNAPSHOTS = 24  # kept of a training, evenly spread, beside the start and the end


@dataclass(frozen=True)
class PromptResult:
    """What a prompt training gives.

    Attributes:
        history: One row an epoch, from 0 (before training): the loss and its terms, positives per sample, what
            `validate` returned, prompt norm, prompt variance, gradient norm, learning rate, seconds.
        best_epoch: The epoch that `select_by` chose; 0 where nothing was learnt.
        learnt: "yes", or "no: " and the reason.
        best: Its context, float32, as `PromptLearner.context`; the learner holds it too.
        best_text: Its text features of all identities, not normalised, float32, shape (n_identities, size).
        final: The context after the last epoch.
        epochs: Epochs of the snapshots.
        contexts: Context at each of them, float32, shape (snapshots, …).
        text_features: Text features of all identities at each, float32, shape (snapshots, n_identities, size).
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
    epochs, seed, learning_rate = options.epochs, options.seed, options.learning_rate
    device = learner.context.device
    labels = torch.as_tensor(np.asarray(identities, np.int64), device=device)
    features = torch.as_tensor(np.asarray(images, np.float32), device=device)
    decides = {
        **options.model_dump(include=set(PromptTraining.model_fields)), "learner": learner.recipe,
        "images": float(np.abs(images).sum(dtype=np.float64)),
        "labels": int(np.asarray(identities, np.int64) @ np.arange(1, len(identities) + 1)),
    }  # fmt: skip
    warn_if_few(identities, options.n_identities)

    def batches(epoch: int) -> list[np.ndarray]:
        return identity_batches(identities, options.n_identities, options.n_images, _rng(seed, epoch))

    steps_of = [len(batches(epoch)) for epoch in range(epochs)]
    before = np.concatenate([[0], np.cumsum(steps_of)])
    adam = OPTIMIZERS[options.optimizer]([learner.context], lr=learning_rate, weight_decay=options.weight_decay)
    rising = int(before[min(options.warm_up, epochs)])
    kept = {0, epochs, *np.linspace(0, epochs, SNAPSHOTS + 2).astype(int).tolist()}
    state = _State(learner, adam, decides, folder / "prompts.safetensors" if folder else None)

    def show(last: bool) -> None:
        if watch is not None:
            watch(state.history.frame(), state.history.best_epoch, last=last)

    if not state.resumed():
        text = learner.text_features()
        require_finite(text, "the texts before the first step", "load other weights", TrainingError)
        state.close_epoch({"epoch": 0, **_norms(learner), **(validate(text) if validate else {})}, text, True)
        show(last=False)
    bar = tqdm(total=epochs, initial=state.history.epoch, desc="learning prompts", unit="epoch", disable=not progress)
    while state.history.epoch < epochs and not state.history.stops(options.patience):
        began, epoch, seen = time.monotonic(), state.history.epoch, []
        for number, batch in enumerate(batches(epoch)):
            rows = torch.as_tensor(batch, device=device)
            step = int(before[epoch]) + number
            for group in adam.param_groups:
                group["lr"] = learning_rate * warm_up_cosine(step, int(before[-1]), rising)
            distinct, place = labels[rows].unique(return_inverse=True)
            texts = learner.encode_text(distinct)
            image, prompt, ids = features[rows], texts[place], labels[rows]
            i2t = supervised_contrastive(image, prompt, ids, ids, options.temperature, options.normalize)
            t2i = supervised_contrastive(prompt, image, ids, ids, options.temperature, options.normalize)
            squares, overlap = learner.context.square().mean(), diversity_loss(texts)
            loss = i2t + t2i + options.context_weight * squares + options.diversity_weight * overlap
            adam.zero_grad()
            loss.backward()
            gradient = learner.context.grad.norm() if learner.context.grad is not None else torch.zeros(())
            for what, value in (("loss", loss), ("gradient", gradient)):
                if not torch.isfinite(value):
                    state.put_best()
                    raise TrainingError(
                        f"the {what} is {value.item()} in epoch {epoch + 1}, batch {number + 1} of identities "
                        f"{[learner.identities[i] for i in distinct.tolist()][:8]}: lower "
                        f"learning_rate={learning_rate:g} or raise temperature={options.temperature:g}"
                    )
            adam.step()
            positives = (ids[:, None] == ids).sum() / len(ids)
            seen.append([len(batch), *(v.item() for v in (loss, i2t, t2i, squares, overlap, positives, gradient))])
        text = learner.text_features()
        means = np.average(np.array(seen)[:, 1:], axis=0, weights=np.array(seen)[:, 0])
        names = ("loss", "image_to_text", "text_to_image", "mean_square", "text_overlap", "positives", "gradient_norm")
        row = {"epoch": epoch + 1, **dict(zip(names, means.tolist(), strict=True)), **_norms(learner)}
        row |= {"learning_rate": adam.param_groups[0]["lr"], **(validate(text) if validate else {})}
        row["seconds"] = time.monotonic() - began
        state.close_epoch(row, text, epoch + 1 in kept)
        show(last=False)
        bar.set_postfix({name: f"{row[name]:.3g}" for name in ("loss", options.select_by) if name in row})
        bar.update()
        if stop is not None and stop():
            break
    bar.close()
    show(last=True)
    return state.result(learning_rate, steps_of)


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


def _rng(seed: int, epoch: int) -> np.random.Generator:
    """Batches depend on the seed and the epoch alone, so an interrupted training goes on as it would have."""
    return np.random.default_rng([seed, epoch])


def _norms(learner: PromptLearner) -> dict[str, float]:
    """Mean length of a learnt token, and its variance over identities (shared: over tokens), mean over dimensions."""
    context = learner.context.detach()
    return {
        "prompt_norm": context.norm(dim=-1).mean().item(),
        "prompt_variance": context.var(dim=0, unbiased=False).mean().item(),
    }


class _State:
    """Where a training stands, and its file."""

    def __init__(self, learner: PromptLearner, adam: torch.optim.Optimizer, options: dict[str, Any], file: Path | None):
        self._learner, self._adam, self._options, self._file = learner, adam, options, file
        self.history = History(options["select_by"])
        self._best, self._best_text = learner.context.detach().clone(), torch.empty(0)
        self._at_first = sample_of([self._best])
        self._epochs: list[int] = []
        self._contexts: list[Tensor] = []
        self._texts: list[Tensor] = []

    def close_epoch(self, row: dict[str, Any], text: np.ndarray, snapshot: bool) -> None:
        """Take an epoch's figures, keep its context where it is the best or a snapshot, and write the file."""
        context = self._learner.context.detach().cpu().clone()
        if self.history.add(row, have_moved(sample_of([context]), self._at_first)):
            self._best, self._best_text = context, torch.from_numpy(text)
        if snapshot:
            self._epochs.append(row["epoch"])
            self._contexts.append(context)
            self._texts.append(torch.from_numpy(text))
        if self._file is not None:
            self._write(context)

    def _write(self, context: Tensor) -> None:
        assert self._file is not None
        moments = {f"adam.{name}": value for name, value in self._adam.state[self._learner.context].items()}
        tensors = {"context": context, "best": self._best, "contexts": torch.stack(self._contexts), **moments}
        tensors |= {"text_features": torch.stack(self._texts), "best_text": self._best_text}
        facts = {"options": self._options, "epochs": self._epochs, **self.history.facts()}
        save_checkpoint(self._file, tensors, facts)

    def resumed(self) -> bool:
        """Take up the training whose file is there; whether there was one."""
        found = resume_checkpoint(self._file, self._options)
        if found is None:
            return False
        tensors, facts = found
        self.history.restore(facts)
        self._epochs, self._best, self._best_text = facts["epochs"], tensors["best"], tensors["best_text"]
        self._contexts, self._texts = list(tensors["contexts"]), list(tensors["text_features"])
        parameter = self._learner.context
        parameter.data.copy_(tensors["context"])
        self.history.moved = have_moved(sample_of([parameter]), self._at_first)
        moments = {name.removeprefix("adam."): t for name, t in tensors.items() if name.startswith("adam.")}
        if moments:
            on = {name: t if name == "step" else t.to(parameter.device) for name, t in moments.items()}
            self._adam.state[parameter] = on
        return True

    def put_best(self) -> None:
        """Give the learner the best context."""
        self._learner.context.data.copy_(self._best)

    def result(self, learning_rate: float, steps_of: list[int]) -> PromptResult:
        """The training's result; the learner takes the best context."""
        learnt = self.history.learnt(learning_rate, steps_of)
        if learnt != LEARNT:
            logger.warning("the training of the prompts did not go as it should: learnt %s", learnt)
        final = self._learner.context.detach().cpu().clone()
        self.put_best()
        return PromptResult(
            history=self.history.frame(),
            best_epoch=self.history.best_epoch,
            learnt=learnt,
            best=self._best.cpu().numpy(),
            best_text=self._best_text.numpy(),
            final=final.numpy(),
            epochs=tuple(self._epochs),
            contexts=torch.stack(self._contexts).numpy(),
            text_features=torch.stack(self._texts).numpy(),
        )
