"""What training does for people who trained, and for strangers: curves over epochs, the gap, and whether it helped."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from handclip_lib.data.folds import Folds
from handclip_lib.evaluation.intervals import mean_interval
from handclip_lib.evaluation.ranking.protocol import ProtocolResult
from handclip_lib.evaluation.tables import in_percent, result_table
from handclip_lib.terminal import counted
from handclip_lib.training.folds import FoldHistory
from handclip_lib.training.image import ImageResult
from handclip_lib.training.validation import STRANGERS, TRAINED

FROZEN = ", frozen"
"""What the name of the model before training ends with."""
HELD_OUT = "strangers_"
"""How the figures of people held out begin, by which runs are chosen."""


@dataclass(frozen=True)
class Generalisation:
    """Rank-1 of trained people and of strangers over epochs, in 0..1, each epoch as it would be kept.

    Attributes:
        curve: One row an epoch, from 0, the frozen model; columns epoch, and trained_rank1 and strangers_rank1 with
            their intervals (`_low`, `_high`), as far as they were measured: strangers are none with validation "val".
        epoch: The one that is kept.
        who: The strangers.
        held_out: What each fold measured on strangers, at epoch 0 and at the kept one: columns fold, epoch, rank1, map;
            empty where nobody was held out.
    """

    curve: pd.DataFrame
    epoch: int
    who: str
    held_out: pd.DataFrame

    @property
    def of_whom(self) -> str:
        """Whose rank-1 was measured, in words."""
        kinds = {"trained_rank1": "trained people", "strangers_rank1": f"strangers, {self.who}"}
        return " and of ".join(said for name, said in kinds.items() if name in self.curve) or "nobody"

    @property
    def table(self) -> pd.DataFrame:
        """The frozen model and the kept epoch, each with the gap: rank-1 of trained people less that of strangers."""
        rows = self.curve[self.curve["epoch"].isin([0, self.epoch])].drop(columns="epoch").reset_index(drop=True)
        rows.insert(0, "model", ["frozen", f"epoch {self.epoch}"][: len(rows)])
        if {"trained_rank1", "strangers_rank1"} <= set(rows):
            rows["rank1_gap"] = rows["trained_rank1"] - rows["strangers_rank1"]
        return result_table(rows)

    @property
    def figures(self) -> dict[str, float]:
        """What runs are chosen by, as none of it is of people tested: of strangers held out, at the kept epoch.

        Means over the folds of rank-1, of mAP and of what rank-1 gained over the frozen model; the gain of the worst
        fold, and of two folds and more the 95 % interval of the mean gain, Student's t.
        """
        if self.held_out.empty:
            return {}
        kept, before = (self.held_out[self.held_out["epoch"] == epoch].set_index("fold") for epoch in (self.epoch, 0))
        gains = kept["rank1"] - before["rank1"]
        found = {"rank1": kept["rank1"].mean(), "map": kept["map"].mean(), "gain": gains.mean(), "worst": gains.min()}
        if len(gains) > 1:
            found["gain_low"], found["gain_high"] = mean_interval(gains)
        return {f"{HELD_OUT}{name}": float(value) for name, value in found.items()}

    def unhelped(self, results: Sequence[ProtocolResult]) -> str:
        """How training did not help strangers, held out or tested (the first result against the frozen model's).

        "" where it did, or nobody was a stranger.
        """
        said = [self._held_out(), _tested(results) if self.epoch else ""]
        return "; ".join(filter(None, said))

    def _held_out(self) -> str:
        if "strangers_rank1" not in self.curve:
            return ""
        rank1 = self.curve.set_index("epoch")["strangers_rank1"]
        frozen, kept, later = rank1[0], rank1[self.epoch], rank1.drop(0)
        if self.epoch == 0 and len(later):
            best = f"{in_percent(later.max())} % at the best of {counted(len(later), 'later epoch')}"
            return f"the frozen model finds {in_percent(frozen)} % of the photographs of {self.who} first, {best}"
        if self.epoch and kept <= frozen:
            found = f"rank-1 of {self.who} is {in_percent(kept)} % at epoch {self.epoch}"
            return f"{found}, {in_percent(frozen)} % by the frozen model"
        return ""


def generalisation(measured: FoldHistory, result: ImageResult, folds: Folds) -> Generalisation:
    """The curves of the folds, where there were any, else of the training itself."""
    history = result.history if measured.best_epoch is None else measured.history
    epoch = result.best_epoch if measured.best_epoch is None else measured.best_epoch
    kinds = {TRAINED: "trained", STRANGERS: "trained" if folds.validation == "val" else "strangers"}
    names = {
        f"{kind}_rank1{end}": f"{name}_rank1{end}" for kind, name in kinds.items() for end in ("", "_low", "_high")
    }
    there = {old: new for old, new in names.items() if old in history}
    who = "the people tested" if folds.validation == "test" else f"{sum(map(len, folds.held_out))} held-out people"
    figures = pd.DataFrame()
    if folds.held_out:
        each = result.history.assign(fold=1) if measured.best_epoch is None else measured.each
        own = {f"{STRANGERS}_{name}": name for name in ("rank1", "map")}
        figures = each.loc[each["epoch"].isin([0, epoch]), ["fold", "epoch", *own]].rename(columns=own)
    return Generalisation(history[["epoch", *there]].rename(columns=there), epoch, who, figures)


def _tested(results: Sequence[ProtocolResult]) -> str:
    first = results[0]
    before = [one for one in results if one.model.endswith(FROZEN) and one.gallery == first.gallery]
    if not before:
        return ""
    kept, frozen = (one.summary()["rank1"] for one in (first, before[0]))
    if kept > frozen:
        return ""
    found = f"rank-1 of the {first.n_people} {first.whose} tested is {in_percent(kept)} %"
    return f"{found}, {in_percent(frozen)} % by the frozen model"
