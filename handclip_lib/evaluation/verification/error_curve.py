"""False positives against false negatives over every threshold, and how both move when people are resampled."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.bootstrap import Interval

BLOCK = 256  # weights summed at once: a running sum of all of them costs more than looking them up


class Mass:
    """Sums of the first k of some weights, for any k; whole numbers up to 2^53 are summed exactly.

    Args:
        weights: float64 (n,).
    """

    def __init__(self, weights: np.ndarray):
        whole = weights[: len(weights) // BLOCK * BLOCK].reshape(-1, BLOCK)
        self._weights = weights
        self._starts = np.concatenate([[0.0], np.cumsum(whole.sum(1))])
        self.total = self.first(len(weights))

    def first(self, k: int) -> float:
        """Sum of the first k."""
        block = k // BLOCK
        return float(self._starts[block] + self._weights[block * BLOCK : k].sum())


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
        """Sort the scores once.

        Args:
            mated: Scores that ought to be accepted, float (n,), neither empty nor NaN; minus infinity for one that no
                threshold accepts.
            non_mated: Scores that ought to be rejected, likewise, all finite.
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

    def masses(self) -> tuple[Mass, Mass]:
        """Every score counting once, as the methods below take it: mated, non-mated."""
        return Mass(np.ones(len(self.mated_order))), Mass(np.ones(len(self.non_mated_order)))

    def rates(self, place: int, mated: Mass, non_mated: Mass) -> tuple[float, float]:
        """False-positive and false-negative share at `thresholds[place]`, each score counting by its weight."""
        positive = (non_mated.total - non_mated.first(self.non_mated_below[place])) / non_mated.total
        return positive, mated.first(self.mated_below[place]) / mated.total

    def equal(self, mated: Mass, non_mated: Mass) -> tuple[float, int]:
        """The rate at which both errors are equal, and the place of the first threshold with as many negatives.

        Both are steps that seldom meet: the rate is where the straight line between the last threshold with more
        false positives and the next one crosses equality (linear interpolation in the ROC plane).
        """

        def excess(place: int) -> float:
            positive, negative = self.rates(place, mated, non_mated)
            return negative - positive

        place = _first(len(self.thresholds), lambda k: excess(k) >= 0)
        after, _ = self.rates(place, mated, non_mated)
        if place == 0 or excess(place) == 0:
            return after, place
        before, _ = self.rates(place - 1, mated, non_mated)
        way = excess(place - 1) / (excess(place - 1) - excess(place))
        return before + way * (after - before), place

    def at_most(self, target: float, mated: Mass, non_mated: Mass) -> int:
        """Place of the lowest threshold whose false-positive share is at most `target`."""
        return _first(len(self.thresholds), lambda k: self.rates(k, mated, non_mated)[0] <= target)


def resampled(n: int, samples: int, seed: int) -> np.ndarray:
    """How often each of n identities is drawn in each resample, float64 (samples, n); each row sums to n.

    Raises:
        EvaluationError: Fewer than two resamples.
    """
    if samples < 2:
        raise EvaluationError(f"samples={samples}: at least 2 resamples are wanted")
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=samples).astype(np.float64)


def percentile_interval(
    estimate: np.ndarray, resamples: np.ndarray, n_identities: int, level: float = 0.95
) -> Interval:
    """Percentile interval of figures, one a column; a resample without a value (NaN) is left out.

    Args:
        estimate: (m,) on all identities.
        resamples: float (samples, m).
        n_identities: Identities that were resampled.
        level: Share of resamples inside the interval, 0..1.
    """
    if not 0 < level < 1:
        raise EvaluationError(f"level={level}: a share between 0 and 1 is wanted")
    known = resamples[~np.isnan(resamples).any(1)]
    if not len(known):
        return no_interval(estimate, n_identities)
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Interval(estimate, low, high, level, n_identities)


def no_interval(estimate: object, n_identities: int) -> Interval:
    """A figure of too few people for an interval, whose ends are NaN."""
    figure = np.asarray(estimate, np.float64)
    nothing = np.full(figure.shape, np.nan)
    return Interval(figure, nothing, nothing, 0.95, n_identities)


def interval_columns(name: str, interval: Interval) -> dict[str, float]:
    """A figure with its interval as columns of a table: name, name_low, name_high."""
    return {name: float(interval.estimate), f"{name}_low": float(interval.low), f"{name}_high": float(interval.high)}


def _first(n: int, holds: Callable[[int], bool]) -> int:
    """The first of 0 … n - 1 for which something holds that, once it holds, holds for all after it."""
    return bisect_left(range(n), True, key=holds)
