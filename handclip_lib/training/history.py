"""The epochs of a training, and which of them is the best."""

from typing import Any

import pandas as pd

from handclip_lib.errors import TrainingError


class History:
    """Rows of measures, one an epoch from 0 (before training), and the best of them by one measure.

    Attributes:
        rows: Measures by name; each has "epoch".
        best_epoch: The epoch with the highest measure (the loss: the lowest), of equals the earliest.
    """

    def __init__(self, select_by: str):
        """Start without an epoch.

        Args:
            select_by: The measure that chooses; row 0 may lack it, and is then better than none.
        """
        self.rows: list[dict[str, Any]] = []
        self.best_epoch = 0
        self._select_by = select_by

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.rows) - 1

    def add(self, row: dict[str, Any]) -> bool:
        """Take an epoch's row; whether it is the best so far.

        Raises:
            TrainingError: The measure that chooses is not among those of a trained epoch.
        """
        name = self._select_by
        if row["epoch"] and name not in row:
            raise TrainingError(f"select_by={name!r} is not measured; choose from {', '.join(row)}")
        best = self.rows[self.best_epoch].get(name) if self.rows else None
        self.rows.append(row)
        sign = -1 if name == "loss" else 1
        better = best is None or sign * row[name] > sign * best
        if better:
            self.best_epoch = row["epoch"]
        return better

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
