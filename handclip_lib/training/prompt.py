"""Prompt learning: both encoders frozen, only the context learns (CLIP-ReID stage 1, CLIP-FH stage 2a)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from handclip_lib.backbone.load import Backbone
from handclip_lib.errors import TrainingError
from handclip_lib.finite import require_finite
from handclip_lib.losses import diversity_loss, supervised_contrastive
from handclip_lib.models.prompt_learner import PromptLearner
from handclip_lib.parameters.notebooks import PromptLearning
from handclip_lib.parameters.parts import PromptTraining
from handclip_lib.training.optimizer import OPTIMIZERS, warm_up_cosine
from handclip_lib.training.state import LEARNT, Batches, Training, identity_faults, key_of, sample_of

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
    learner: PromptLearner, images: np.ndarray, identities: np.ndarray, options: PromptTraining, *,
    validate: Callable[[np.ndarray], Mapping[str, float]] | None = None, folder: Path | None = None,
    watch: Callable[..., None] | None = None, stop: Callable[[], bool] | None = None, progress: bool = True,
) -> PromptResult:  # fmt: skip
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
    faults = identity_faults(images, identities, len(learner.identities), "learner")
    if not np.isfinite(images).all():
        faults.append("an image feature is not finite: check the weights")
    if faults:
        raise TrainingError("; ".join(faults))
    training = _Prompts(learner, images, identities, options, validate, folder)
    training.run(watch, stop, progress)
    return training.result()


SHOWN = (
    "epoch", "loss", "image_to_text@1", "text_to_image@1", "val_image_to_text@1", "val_text_to_image@1", "prompt_norm",
    "gradient_norm", "learning_rate", "seconds",
)  # fmt: skip
"""Columns of a history that a reader sees."""


class _Prompts(Training):
    """The context, its moments, the texts of the best epoch, and snapshots of both over the training."""

    what = "learning prompts"

    def __init__(
        self, learner: PromptLearner, images: np.ndarray, identities: np.ndarray, options: PromptTraining,
        validate: Callable[[np.ndarray], Mapping[str, float]] | None, folder: Path | None,
    ):  # fmt: skip
        self.learner, self.identities, self.options, self.validate = learner, identities, options, validate
        device = learner.context.device
        self.labels = torch.tensor(
            np.asarray(identities, np.int64), device=device
        )  # a copy: pandas gives read-only ones
        self.features = torch.tensor(np.asarray(images, np.float32), device=device)
        self.adam = OPTIMIZERS[options.optimizer](
            [learner.context], lr=options.learning_rate, weight_decay=options.weight_decay
        )
        self.text = torch.empty(0)
        self.kept = {0, *np.linspace(0, options.epochs, SNAPSHOTS + 2).astype(int).tolist()}
        self.epochs: list[int] = []
        self.contexts: list[Tensor] = []
        self.texts: list[Tensor] = []
        total = float(np.abs(images).sum(dtype=np.float64))
        decides = {"learner": learner.recipe, "images": total, "labels": key_of(identities)}
        file = folder / "prompts.safetensors" if folder else None
        super().__init__(options, Batches(identities, options), decides, file)

    def train(self, epoch: int) -> dict[str, Any]:
        options, batches, seen = self.options, self.batches, []
        for number, batch in enumerate(batches.of(epoch)):
            step = batches.before[epoch] + number
            rate = options.learning_rate * warm_up_cosine(step, batches.before[-1], batches.rising)
            self.adam.param_groups[0]["lr"] = rate
            terms = self.loss_step(torch.as_tensor(batch, device=self.labels.device))
            for what, value in (("loss", terms["loss"]), ("gradient", terms["gradient_norm"])):
                if not torch.isfinite(value):
                    self.put_best()
                    people = [self.learner.identities[i] for i in np.unique(self.identities[batch])][:8]
                    place = f"epoch {epoch + 1}, batch {number + 1} of identities {people}"
                    remedy = f"lower learning_rate={options.learning_rate:g} or raise temperature="
                    raise TrainingError(f"the {what} is {value.item()} in {place}: {remedy}{options.temperature:g}")
            self.adam.step()
            seen.append([len(batch), *(value.item() for value in terms.values())])
        means = np.average(np.array(seen)[:, 1:], axis=0, weights=np.array(seen)[:, 0])
        return {"epoch": epoch + 1, **dict(zip(terms, means.tolist(), strict=True)), "learning_rate": rate}

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

    def measure(self) -> Mapping[str, float]:
        """Of the texts of all identities; length of a learnt token, and variance over identities (shared: tokens)."""
        text, epoch, context = self.learner.text_features(), self.history.epoch + 1, self.learner.context.detach()
        if not epoch:
            require_finite(text, "the texts before the first step", "load other weights", TrainingError)
        self.text = torch.from_numpy(text)
        if epoch in self.kept:
            self.epochs.append(epoch)
            self.contexts.append(self.context())
            self.texts.append(self.text)
        norms = {
            "prompt_norm": context.norm(dim=-1).mean().item(),
            "prompt_variance": context.var(dim=0, unbiased=False).mean().item(),
        }
        return norms | dict(self.validate(text) if self.validate else {})

    def put_best(self) -> None:
        self.learner.context.data.copy_(self._best["best"])

    def result(self) -> PromptResult:
        """The training's result; the learner takes the best context."""
        final = self.context()
        self.put_best()
        return PromptResult(
            history=self.history.frame(SHOWN), best_epoch=self.history.best_epoch, learnt=self.learnt(),
            best=self._best["best"].numpy(), best_text=self._best["best_text"].numpy(), final=final.numpy(),
            epochs=tuple(self.epochs), contexts=torch.stack(self.contexts).numpy(),
            text_features=torch.stack(self.texts).numpy(),
        )  # fmt: skip

    def context(self) -> Tensor:
        """The context as it is now, on the CPU."""
        return self.learner.context.detach().cpu().clone()

    def copy(self) -> dict[str, Tensor]:
        return {"best": self.context(), "best_text": self.text}

    def sample(self) -> list[Tensor]:
        return sample_of([self.learner.context])

    def held(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        moments = {f"adam.{name}": value for name, value in self.adam.state[self.learner.context].items()}
        snapshots = {"contexts": torch.stack(self.contexts), "text_features": torch.stack(self.texts)}
        return {"context": self.context(), **self._best, **snapshots, **moments}, {"epochs": self.epochs}

    def take(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        self.epochs, self._best = facts["epochs"], {name: tensors[name] for name in ("best", "best_text")}
        self.contexts, self.texts = list(tensors["contexts"]), list(tensors["text_features"])
        context = self.learner.context
        context.data.copy_(tensors["context"])
        for name, moment in tensors.items():
            if name.startswith("adam."):
                name = name.removeprefix("adam.")
                self.adam.state[context][name] = moment if name == "step" else moment.to(context.device)


def try_prompt(
    backbone: Backbone, names: Sequence[str], images: np.ndarray, identities: np.ndarray, options: PromptLearning,
    **watched: Any,
) -> PromptResult:  # fmt: skip
    """A training of `trial_epochs` from a fresh context, kept nowhere; the rest is as `fit_prompt` has it."""
    trial = options.model_copy(update={"epochs": options.trial_epochs})
    return fit_prompt(PromptLearner(backbone, names, trial), images, identities, trial, **watched)
