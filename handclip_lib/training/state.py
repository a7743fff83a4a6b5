"""Where a training stands: its epochs, the best of them, and its file. A killed one goes on to the same weights."""

import json
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor
from tqdm.auto import tqdm

from handclip_lib.backbone.weights import SEALED, load_tensors, save_tensors
from handclip_lib.data.batches import identity_batches, warn_if_short
from handclip_lib.errors import TrainingError
from handclip_lib.evaluation.tables import result_table
from handclip_lib.machine import kept_memory
from handclip_lib.parameters.parts import ImageTraining, PromptTraining

logger = logging.getLogger("handclip")
LEARNT = "yes"
SAMPLED, ROUNDING = 4096, 1e-6
_FACTS = "handclip"


def save_checkpoint(file: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors, with facts (JSON values) in the file's own header: one file cannot disagree with another.

    Raises:
        WriteError: The file cannot be written.
    """
    save_tensors(file, tensors, {_FACTS: json.dumps(facts)}, "free space, then run again: it resumes")


def load_checkpoint(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_checkpoint` wrote.

    Raises:
        TrainingError: The file is absent or damaged, or not of `save_checkpoint`. One without a checksum, of an
            earlier version, is refused too: nobody could say that it goes on to the weights it was stopped at.
    """
    try:
        tensors, header = load_tensors(file)
        if SEALED not in header:
            raise ValueError("it has no checksum, so damage could not be told")
        return tensors, json.loads(header[_FACTS])
    except (KeyError, ValueError) as error:
        raise TrainingError(f"{file} is no checkpoint of a training ({error}); delete it and train again") from error


def keep_history(file: Path) -> None:
    """Leave of a finished training's checkpoint what it measured, without the weights: it is not trained again."""
    tensors, facts = load_checkpoint(file)
    if tensors:
        save_checkpoint(file, {}, facts)


class Batches:
    """The batches of every epoch; they depend on seed and epoch alone, so an interrupted training goes on the same.

    Attributes:
        steps_of: Steps of each epoch.
        before: Steps before each epoch, and at last those of the whole training.
        rising: Steps of the warm-up.
    """

    def __init__(self, identities: np.ndarray, options: PromptTraining | ImageTraining):
        """Take the identity of each image."""
        self._identities, self._options = identities, options
        warn_if_short(identities, options.n_identities, options.n_images)
        self.steps_of = [len(self.of(0))] * options.epochs  # of the number of images alone
        self.before: list[int] = np.concatenate([[0], np.cumsum(self.steps_of)]).tolist()
        self.rising = self.before[min(options.warm_up, options.epochs)]

    def of(self, epoch: int) -> list[np.ndarray]:
        """Rows of each batch of an epoch, counted from 0."""
        rng = np.random.default_rng([self._options.seed, epoch])
        return identity_batches(self._identities, self._options.n_identities, self._options.n_images, rng)


class History:
    """Rows of measures, one an epoch from 0 (before training), and the best of them by `select_by`.

    Attributes:
        rows: Measures by name; each has "epoch". Row 0 may lack the measure that chooses: any is better than none.
        best_epoch: The epoch with the highest measure (the loss: the lowest), of equals the earliest; an epoch until
            which nothing was learnt is none, for weight decay and batch norms alone may change a figure.
        moved: Whether what is evaluated has other weights than before training.
    """

    def __init__(self, select_by: str | None):
        """Start without an epoch; None: nothing chooses, and the last one that learnt is kept."""
        self.rows: list[dict[str, Any]] = []
        self.best_epoch = 0
        self.moved = False
        self._select_by = select_by

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.rows) - 1

    def add(self, row: dict[str, Any], moved: bool = True) -> bool:
        """Take an epoch's row, with "gradient_norm" where that can be 0; whether it is the best so far.

        Raises:
            TrainingError: The measure that chooses is not among those of a trained epoch.
        """
        name = self._select_by
        if name and row["epoch"] and name not in row:
            raise TrainingError(f"select_by={name!r} is not measured; choose from {', '.join(row)}")
        best = self.rows[self.best_epoch].get(name) if name and self.rows else None
        first = not self.rows
        self.rows.append(row)
        self.moved = moved and not first
        sign = -1 if name == "loss" else 1
        learnt = self.moved and self._has_gradient
        better = first or (learnt and (name is None or best is None or sign * row[name] > sign * best))
        if better:
            self.best_epoch = row["epoch"]
        return better

    @property
    def _has_gradient(self) -> bool:
        return any(row.get("gradient_norm", 1.0) > 0 for row in self.rows[1:])

    def learnt(self, learning_rate: float, steps_of: list[int]) -> str:
        """Whether the chosen epoch learnt anything: "yes", or "no: " or "in part: " and the reason.

        Of the `steps_of` each epoch, a row counts those that fp16 skipped as "skipped_steps".
        """
        if not self.epoch:
            return "no: epoch 0 was best"
        until = self.best_epoch or self.epoch
        skipped, steps = sum(row.get("skipped_steps", 0) for row in self.rows[1 : until + 1]), sum(steps_of[:until])
        if self.best_epoch:
            return f"in part: {skipped} of {steps} fp16 steps were skipped" if 2 * skipped >= steps else LEARNT
        if skipped and skipped == steps:
            return f"no: all {steps} fp16 steps were skipped"
        if not self._has_gradient:
            return "no: every gradient was 0, as where no batch holds a pair"
        if not self.moved:
            return f"no: learning_rate={learning_rate:g} moved no weight"
        return "no: epoch 0 was best"

    def stops(self, patience: int) -> bool:
        """Whether there was no better epoch for `patience` of them; never with 0."""
        return bool(patience) and self.epoch - self.best_epoch >= patience

    def frame(self, shown: Sequence[str] = ()) -> pd.DataFrame:
        """The rows as a table, of which a reader sees some columns."""
        return result_table(self.rows, shown)


class Training(ABC):
    """Epochs, the best one's weights, and the checkpoint of a training; a kind of training says what an epoch is.

    Attributes:
        history: The epochs done.
        what: It is, for its bar and the log.
        is_main: Whether this process measures, writes and shows.
    """

    what: str
    is_main = True

    def __init__(
        self, options: PromptTraining | ImageTraining, batches: Batches, decides: Mapping[str, Any],
        file: Path | None, keep_epoch: int | None = None,
    ):  # fmt: skip
        """Begin at epoch 0, of what the subclass holds by now.

        Args:
            decides: All that decides the training beside the options, JSON values: a checkpoint of others is refused.
            file: Its checkpoint; None: it keeps none.
            keep_epoch: The epoch after which it ends, and which is kept; None: `select_by` chooses.
        """
        self._limits, self.batches, self._file = options, batches, file
        part = ImageTraining if isinstance(options, ImageTraining) else PromptTraining
        self._decides = options.model_dump(include=set(part.model_fields)) | dict(decides)
        self._last = options.epochs if keep_epoch is None else min(keep_epoch, options.epochs)
        if keep_epoch is not None:
            self._decides |= {"keep_epoch": keep_epoch, "select_by": None, "patience": 0}
        self.history = History(self._decides["select_by"])
        self._best, self._at_first = self.copy(), self.sample()

    @abstractmethod
    def train(self, epoch: int) -> dict[str, Any]:
        """Train an epoch, counted from 0; its row: "epoch" from 1, and means over its images."""

    @abstractmethod
    def measure(self) -> Mapping[str, float]:
        """Validate what was learnt so far."""

    @abstractmethod
    def put_best(self) -> None:
        """Give the model the best epoch's weights."""

    @abstractmethod
    def copy(self) -> dict[str, Tensor]:
        """What the best epoch is kept as."""

    @abstractmethod
    def sample(self) -> list[Tensor]:
        """What tells whether what is evaluated has moved, of `sample_of`."""

    @abstractmethod
    def held(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What the file holds beside options and history: tensors, and facts."""

    @abstractmethod
    def take(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Take up what the file holds; the history is taken already."""

    def from_main(self, value: Any) -> Any:
        """What the main process has, in all of them: here there is one."""
        return value

    def run(self, watch: Callable[..., None] | None, stop: Callable[[], bool] | None, progress: bool) -> None:
        """Go on from the file or begin; train, measure, keep and write epochs until the last, `patience` or `stop`."""
        history, patience, last = self.history, self._decides["patience"], self._last

        def close(row: dict[str, Any], began: float | None = None) -> None:
            """Measure, keep and write an epoch on the main process; the others take its figures."""
            if self.is_main:
                row |= self.measure()
            row |= {} if began is None else {"seconds": time.monotonic() - began}
            self._keep(self.from_main(row))
            show(last=False)

        def show(last: bool) -> None:
            if self.is_main and watch is not None:
                watch(history.frame(), history.best_epoch, last=last)

        # the main process looks for all: a late one would find the file that this training has begun meanwhile
        if self.from_main(self._file is not None and self._file.exists()):
            self._resume()
        else:
            close({"epoch": 0})
        shows = progress and self.is_main
        bar = tqdm(total=last, initial=history.epoch, desc=self.what, unit="epoch", disable=not shows)
        with bar, kept_memory():
            while history.epoch < last and not history.stops(patience):
                began = time.monotonic()
                close(self.train(history.epoch), began)
                row = history.rows[-1]
                bar.set_postfix({name: f"{row[name]:.3g}" for name in ("loss", self._limits.select_by) if name in row})
                bar.update()
                if self.from_main(stop is not None and stop()):
                    break
        show(last=True)

    def _keep(self, row: dict[str, Any]) -> None:
        if self.history.add(row, self.history.moved or have_moved(self.sample(), self._at_first)):
            self._best = self.copy()
        if self._file is not None and self.is_main:
            tensors, facts = self.held()
            facts |= {"options": self._decides, "history": self.history.rows, "best_epoch": self.history.best_epoch}
            save_checkpoint(self._file, tensors, facts)

    def _resume(self) -> None:
        assert self._file is not None
        if not self._file.exists():
            raise TrainingError(f"{self._file} is not there for all processes: name a folder on a disk that they share")
        tensors, facts = load_checkpoint(self._file)
        theirs, ours = facts.get("options", {}), json.loads(json.dumps(self._decides))
        if other := ", ".join(name for name in ours if theirs.get(name) != ours[name]):
            raise TrainingError(f"{self._file} is of a training with other {other}; delete it, or name another folder")
        self.history.rows, self.history.best_epoch = facts["history"], facts["best_epoch"]
        if tensors:
            self.take(tensors, facts)
        self.history.moved = not tensors or have_moved(self.sample(), self._at_first)

    def learnt(self) -> str:
        """See `History.learnt`; a training that did not learn is told in the log."""
        learnt = self.history.learnt(self._limits.learning_rate, self.batches.steps_of)
        if learnt != LEARNT and self.is_main:
            logger.warning("%s did not go as it should: learnt %s", self.what, learnt)
        return learnt


def identity_faults(images: np.ndarray, identities: np.ndarray, count: int, who: str) -> list[str]:
    """What is wrong with the identity of each image, a number below `count`, which `who` has."""
    faults, known = [], np.unique(identities)
    if len(images) != len(identities):
        faults.append(f"{len(images)} images and {len(identities)} identities: give each image one")
    if len(known) < 2:
        faults.append(f"images of {len(known)} identities: at least two are needed, to be told apart")
    elif known[0] < 0 or known[-1] >= count:
        faults.append(f"identity number {known[-1]}: the {who} has {count}, from 0")
    return faults


def key_of(identities: np.ndarray) -> int:
    """A sum that tells labels, and their order, from others."""
    return int(np.asarray(identities, np.int64) @ np.arange(1, len(identities) + 1))


def finite_means(seen: np.ndarray) -> np.ndarray:
    """Means of columns 1 …, weighted by column 0, over finite values: fp16 tries scales whose gradients are not."""
    finite = np.isfinite(seen[:, 1:])
    weight = seen[:, :1] * finite
    return (weight * np.where(finite, seen[:, 1:], 0)).sum(0) / np.maximum(weight.sum(0), 1e-12)


def sample_of(parameters: Iterable[Tensor]) -> list[Tensor]:
    """Some values of each matrix, on the CPU: what tells whether weights moved, without a copy of all of them."""
    matrices = (p.detach() for p in parameters if p.ndim > 1)
    return [p.flatten()[:: max(1, p.numel() // SAMPLED)].to("cpu", copy=True) for p in matrices]


def have_moved(now: Iterable[Tensor], before: Iterable[Tensor]) -> bool:
    """Whether any of two `sample_of` changed by more than rounding, of which the smallest values feel some always."""
    return any(bool((a - b).norm() > ROUNDING * b.norm()) for a, b in zip(now, before, strict=True))
