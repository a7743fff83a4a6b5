"""Two errors over every threshold of some scores, of all of them or without some."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.intervals import RULE_OF_THREE, Interval

NOTHING = np.zeros(0, np.int64)


class Remaining:
    """How many of the first k of n scores, in rising order, remain where some are left out: exact for any k.

    Or, where only some `spans` list what is left out, exact within those and at the ends of all, and on a straight line
    between the ends of any other.

    Args:
        places: Of what is left out, among 0 … n - 1, rising.
        spans: Ends of spans that begin at 0 and end at n, rising; how many are left out before each; and whether each
            span lists its own in `places`.
    """

    def __init__(
        self,
        n: int,
        places: np.ndarray = NOTHING,
        spans: tuple[Sequence[int], Sequence[int], Sequence[bool]] | None = None,
    ):
        self._places = places
        self._ends, self._gone, self._lists = spans or ([0, n], [0, len(places)], [True])
        self.total = n - int(self._gone[-1])

    def first(self, k: int) -> float:
        """How many of the first k remain."""
        span = min(bisect_right(self._ends, k), len(self._lists)) - 1
        begin, end = self._ends[span], self._ends[span + 1]
        if self._lists[span]:
            since = np.searchsorted(self._places, k) - np.searchsorted(self._places, begin)
            return float(k - self._gone[span] - since)
        way = (k - begin) / (end - begin) if end > begin else 0
        return float(k - self._gone[span] - way * (self._gone[span + 1] - self._gone[span]))


Weights = tuple[Remaining, Remaining]
"""Which scores count: of the mated ones, and of the non-mated ones, both in rising order."""


@dataclass(frozen=True)
class OperatingPoint:
    """The threshold for a target false-positive rate, infinity where only rejecting everybody keeps to it.

    The rates are shares in 0..1: FMR and FNMR, or FPIR and FNIR. `supported`: there are enough people for the target.
    """

    target: float
    threshold: float
    false_positive: float
    false_negative: float
    supported: bool

    def columns(self, positive: str, negative: str, interval: Interval) -> dict[str, Any]:
        """As columns of a table, the rates under their names, such as "fmr" and "fnmr"; the latter's interval too.

        `supported`: there are enough people for both, the target and the false-negative rate.
        """
        return {"target": self.target, **interval.columns(negative), positive: self.false_positive,
                "threshold": self.threshold, "n_identities": interval.n_identities,
                "supported": self.supported and bool(interval.supported)}  # fmt: skip


@dataclass(frozen=True)
class ErrorCurve:
    """The two error rates as exact step functions: a score is accepted when it is at or above the threshold.

    Attributes:
        thresholds: float64 (m,), rising: each distinct finite score, then infinity, which accepts nothing.
        mated_below, non_mated_below: int64 (m,): how many scores lie below each threshold.
        mated_order, non_mated_order: Places of the scores in rising order; empty where nobody asks for them.
        lowest_supported: The false-positive rate below which these people prove nothing, by the rule of three.
    """

    thresholds: np.ndarray
    mated_below: np.ndarray
    non_mated_below: np.ndarray
    mated_order: np.ndarray
    non_mated_order: np.ndarray
    lowest_supported: float

    @classmethod
    def of(cls, mated: np.ndarray, non_mated: np.ndarray, trials: int) -> "ErrorCurve":
        """Sort scores once, float (n,), not empty, none NaN; no threshold accepts a mated one of minus infinity.

        Trials are the people, or pairs of people, that the non-mated scores are of: pairs share people, so the bound
        they give is a generous one.
        """
        scores = np.concatenate([mated, non_mated])
        order = np.argsort(scores)
        ranked, is_mated = scores[order], order < len(mated)
        new = np.r_[True, ranked[1:] != ranked[:-1]] & (ranked > -np.inf)
        start = np.append(np.flatnonzero(new), len(ranked))
        below = np.concatenate([[0], np.cumsum(is_mated)])[start]
        thresholds = np.append(ranked[new].astype(np.float64), np.inf)
        orders = order[is_mated], order[~is_mated] - len(mated)
        return cls(thresholds, below, start - below, *orders, RULE_OF_THREE / trials)

    @property
    def false_positive(self) -> np.ndarray:
        """Share of the non-mated scores accepted at each threshold, float64 (m,), falling from 1 to 0."""
        n = self.non_mated_below[-1]
        return (n - self.non_mated_below) / n

    @property
    def false_negative(self) -> np.ndarray:
        """Share of the mated scores rejected at each threshold, float64 (m,), rising to 1."""
        return self.mated_below / self.mated_below[-1]

    @cached_property
    def once(self) -> Weights:
        """Every score counting."""
        return Remaining(int(self.mated_below[-1])), Remaining(int(self.non_mated_below[-1]))

    def rates(self, place: int, weights: Weights) -> tuple[float, float]:
        """False-positive and false-negative share at `thresholds[place]`."""
        mated, non_mated = weights
        positive = (non_mated.total - non_mated.first(int(self.non_mated_below[place]))) / non_mated.total
        return positive, mated.first(int(self.mated_below[place])) / mated.total

    def equal(self, weights: Weights) -> tuple[float, int]:
        """The rate at which both errors are equal, and the place of the first threshold with as many negatives.

        Both are steps that seldom meet: the rate is where the straight line between the last threshold with more
        false positives and the next one crosses equality (linear interpolation in the ROC plane).
        """

        def excess(place: int) -> float:
            positive, negative = self.rates(place, weights)
            return negative - positive

        place = _first(len(self.thresholds), lambda k: excess(k) >= 0)
        after, _ = self.rates(place, weights)
        if place == 0 or excess(place) == 0:
            return after, place
        before, _ = self.rates(place - 1, weights)
        way = excess(place - 1) / (excess(place - 1) - excess(place))
        return before + way * (after - before), place

    @cached_property
    def eer(self) -> float:
        """Equal error rate."""
        return self.equal(self.once)[0]

    @cached_property
    def eer_threshold(self) -> float:
        """The lowest threshold with as many false negatives as false positives, or more."""
        return float(self.thresholds[self.equal(self.once)[1]])

    def at_most(self, target: float, weights: Weights) -> int:
        """Place of the lowest threshold whose false-positive share is at most `target`."""
        return _first(len(self.thresholds), lambda k: self.rates(k, weights)[0] <= target)

    def negatives_at(self, targets: Sequence[float], weights: Weights) -> list[float]:
        """The false-negative share at each target: no interpolation, so never better than measured."""
        return [self.rates(self.at_most(target, weights), weights)[1] for target in targets]

    def operating_point(self, target: float) -> OperatingPoint:
        """The lowest threshold whose false-positive rate is at most a target."""
        if not 0 <= target <= 1:
            raise EvaluationError(f"a rate of {target} was asked for; a share in 0..1 is wanted (0.01 is 1 percent)")
        place = self.at_most(target, self.once)
        threshold, rates = float(self.thresholds[place]), self.rates(place, self.once)
        return OperatingPoint(target, threshold, *rates, target >= self.lowest_supported)


def split_by(groups: np.ndarray, n: int) -> list[np.ndarray]:
    """Of each of n groups the rows that are of it, rising; a row, int (n_rows, m), is of several, or of one twice."""
    again = np.zeros(groups.shape, bool)
    again[:, 1:] = groups[:, 1:] == groups[:, :1]
    which = groups[~again].astype(np.uint16 if n < 2**16 else np.int64)
    row = np.repeat(np.arange(len(groups)), groups.shape[1])[~again.ravel()]
    return np.split(row[np.argsort(which, kind="stable")], np.cumsum(np.bincount(which, minlength=n))[:-1])


def _first(n: int, holds: Callable[[int], bool]) -> int:
    """The first of 0 … n - 1 for which something holds that, once it holds, holds for all after it."""
    return bisect_left(range(n), True, key=holds)
