"""False positives against false negatives over every threshold, each score counting once or by a weight."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.bootstrap import Interval

BLOCK = 256  # weights summed at once: a running sum of all of them costs more than looking them up
RULE_OF_THREE = 3.0
"""No error in n independent trials leaves an error rate below 3/n open (95 %).
Source: Hanley & Lippman-Hand, "If nothing goes wrong, is everything all right?", JAMA 1983."""


class PrefixSums:
    """Sums of the first k of some weights, float64 (n,), for any k; whole numbers up to 2^53 are summed exactly."""

    def __init__(self, weights: np.ndarray):
        whole = weights[: len(weights) // BLOCK * BLOCK].reshape(-1, BLOCK)
        self._weights = weights
        self._starts = np.concatenate([[0.0], np.cumsum(whole.sum(1))])
        self.total = self.first(len(weights))

    def first(self, k: int) -> float:
        """Sum of the first k."""
        block = k // BLOCK
        return float(self._starts[block] + self._weights[block * BLOCK : k].sum())


Weights = tuple[PrefixSums, PrefixSums]
"""How often each score counts: the mated ones, and the non-mated ones, both in rising order of the scores."""


@dataclass(frozen=True)
class OperatingPoint:
    """One threshold and its two error rates, shares in 0..1.

    Attributes:
        target: The false-positive rate that was asked for.
        threshold: A score at or above it is accepted; infinity where only rejecting everybody keeps to the target.
        false_positive: FMR of a verification, FPIR of an identification; at most the target.
        false_negative: FNMR, or FNIR.
        supported: Whether there are enough people to claim a rate as low as the target.
    """

    target: float
    threshold: float
    false_positive: float
    false_negative: float
    supported: bool

    def columns(self, positive: str, negative: str, interval: Interval) -> dict[str, Any]:
        """As columns of a table, the rates under their names, such as "fmr" and "fnmr"; the latter's interval too."""
        return {"target": self.target, **interval.columns(negative), positive: self.false_positive,
                "threshold": self.threshold, "supported": self.supported}  # fmt: skip


@dataclass(frozen=True)
class ErrorCurve:
    """The two error rates as exact step functions: a score is accepted when it is at or above the threshold.

    Attributes:
        thresholds: float64 (m,), rising: each distinct finite score, then infinity, which accepts nothing.
        mated_below, non_mated_below: int64 (m,): how many scores lie below each threshold.
        mated_order, non_mated_order: Places of the scores in rising order, for weights to follow.
    """

    thresholds: np.ndarray
    mated_below: np.ndarray
    non_mated_below: np.ndarray
    mated_order: np.ndarray
    non_mated_order: np.ndarray

    @classmethod
    def of(cls, mated: np.ndarray, non_mated: np.ndarray) -> "ErrorCurve":
        """Sort once the scores that ought to be accepted, and those that ought to be rejected: float (n,), not empty.

        None is NaN; minus infinity stands for a mated one that no threshold accepts.
        """
        scores = np.concatenate([mated, non_mated])
        order = np.argsort(scores)
        ranked, is_mated = scores[order], order < len(mated)
        new = np.r_[True, ranked[1:] != ranked[:-1]] & (ranked > -np.inf)
        start = np.append(np.flatnonzero(new), len(ranked))
        below = np.concatenate([[0], np.cumsum(is_mated)])[start]
        thresholds = np.append(ranked[new].astype(np.float64), np.inf)
        return cls(thresholds, below, start - below, order[is_mated], order[~is_mated] - len(mated))

    @property
    def false_positive(self) -> np.ndarray:
        """Share of the non-mated scores accepted at each threshold, float64 (m,), falling from 1 to 0."""
        n = len(self.non_mated_order)
        return (n - self.non_mated_below) / n

    @property
    def false_negative(self) -> np.ndarray:
        """Share of the mated scores rejected at each threshold, float64 (m,), rising to 1."""
        return self.mated_below / len(self.mated_order)

    @cached_property
    def once(self) -> Weights:
        """Every score counting once."""
        return PrefixSums(np.ones(len(self.mated_order))), PrefixSums(np.ones(len(self.non_mated_order)))

    def rates(self, place: int, weights: Weights) -> tuple[float, float]:
        """False-positive and false-negative share at `thresholds[place]`."""
        mated, non_mated = weights
        positive = (non_mated.total - non_mated.first(self.non_mated_below[place])) / non_mated.total
        return positive, mated.first(self.mated_below[place]) / mated.total

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

    def at_most(self, target: float, weights: Weights) -> int:
        """Place of the lowest threshold whose false-positive share is at most `target`."""
        return _first(len(self.thresholds), lambda k: self.rates(k, weights)[0] <= target)

    def negatives_at(self, targets: Sequence[float], weights: Weights) -> list[float]:
        """The false-negative share at each target: no interpolation, so never better than measured."""
        return [self.rates(self.at_most(target, weights), weights)[1] for target in targets]

    def operating_point(self, target: float, lowest_supported: float, rate: str) -> OperatingPoint:
        """The lowest threshold that keeps to a target of a rate, such as "FMR", every score counting once."""
        if not 0 <= target <= 1:
            raise EvaluationError(f"an {rate} of {target} was asked for; a share in 0..1 is wanted (0.01 is 1 percent)")
        place = self.at_most(target, self.once)
        threshold = float(self.thresholds[place])
        return OperatingPoint(target, threshold, *self.rates(place, self.once), target >= lowest_supported)


def _first(n: int, holds: Callable[[int], bool]) -> int:
    """The first of 0 … n - 1 for which something holds that, once it holds, holds for all after it."""
    return bisect_left(range(n), True, key=holds)
