"""The epochs of a training, which of them is the best, and whether anything was learnt at all."""

from collections.abc import Iterable
from typing import Any

import pandas as pd
from torch import Tensor

from handclip_lib.errors import TrainingError

LEARNT = "yes"
SAMPLED, ROUNDING = 4096, 1e-6


class History:
    """Rows of measures, one an epoch from 0 (before training), and the best of them by one measure.

    Attributes:
        rows: Measures by name; each has "epoch".
        best_epoch: The epoch with the highest measure (the loss: the lowest), of equals the earliest; an epoch until
            which nothing was learnt is none, for weight decay and batch norms alone may change a figure.
    """

    def __init__(self, select_by: str):
        """Start without an epoch.

        Args:
            select_by: The measure that chooses; row 0 may lack it, and is then better than none.
        """
        self.rows: list[dict[str, Any]] = []
        self.best_epoch = 0
        self.moved = False
        self._select_by = select_by

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.rows) - 1

    def add(self, row: dict[str, Any], moved: bool = True) -> bool:
        """Take an epoch's row; whether it is the best so far.

        Args:
            row: Measures by name; of a trained epoch with "gradient_norm", where that can be 0.
            moved: Whether what is evaluated has other weights than before training.

        Raises:
            TrainingError: The measure that chooses is not among those of a trained epoch.
        """
        name = self._select_by
        if row["epoch"] and name not in row:
            raise TrainingError(f"select_by={name!r} is not measured; choose from {', '.join(row)}")
        best = self.rows[self.best_epoch].get(name) if self.rows else None
        first = not self.rows
        self.rows.append(row)
        self.moved = moved and not first
        sign = -1 if name == "loss" else 1
        better = first or (self._has_learnt and (best is None or sign * row[name] > sign * best))
        if better:
            self.best_epoch = row["epoch"]
        return better

    @property
    def _has_learnt(self) -> bool:
        return self.moved and any(row.get("gradient_norm", 1.0) > 0 for row in self.rows[1:])

    def learnt(self, learning_rate: float, steps_of: list[int]) -> str:
        """Whether the chosen epoch learnt anything: "yes", or "no: " or "in part: " and the reason.

        Args:
            learning_rate: For the reason.
            steps_of: Steps of each epoch. A row counts those that fp16 skipped as "skipped_steps".
        """
        until = self.best_epoch or self.epoch
        skipped, steps = sum(row.get("skipped_steps", 0) for row in self.rows[1 : until + 1]), sum(steps_of[:until])
        if self.best_epoch:
            return f"in part: {skipped} of {steps} fp16 steps were skipped" if 2 * skipped >= steps else LEARNT
        if skipped and skipped == steps:
            return f"no: all {steps} fp16 steps were skipped"
        if not any(row.get("gradient_norm", 1.0) for row in self.rows[1:]):
            return "no: every gradient was 0, as where no batch holds a pair"
        if not self.moved:
            return f"no: learning_rate={learning_rate:g} moved no weight"
        return "no: epoch 0 was best"

    def stops(self, patience: int) -> bool:
        """Whether there was no better epoch for `patience` of them; never with 0."""
        return bool(patience) and self.epoch - self.best_epoch >= patience

    def frame(self) -> pd.DataFrame:
        """The rows as a table."""
        return pd.DataFrame(self.rows)

    def facts(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"history": self.rows, "best_epoch": self.best_epoch}

    def restore(self, facts: dict[str, Any]) -> None:
        """Take up what `facts` gave."""
        self.rows, self.best_epoch = facts["history"], facts["best_epoch"]


def sample_of(parameters: Iterable[Tensor]) -> list[Tensor]:
    """Some values of each matrix, on the CPU: what tells whether weights moved, without a copy of all of them."""
    matrices = (p.detach() for p in parameters if p.ndim > 1)
    return [p.flatten()[:: max(1, p.numel() // SAMPLED)].to("cpu", copy=True) for p in matrices]


def have_moved(now: Iterable[Tensor], before: Iterable[Tensor]) -> bool:
    """Whether any of two `sample_of` changed by more than rounding, of which the smallest values feel some always."""
    return any(bool((a - b).norm() > ROUNDING * b.norm()) for a, b in zip(now, before, strict=True))
