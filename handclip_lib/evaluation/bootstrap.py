"""How far a figure would move with other people: the bootstrap over identities, of means and of error curves."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from handclip_lib.errors import EvaluationError

BLOCK = 4_000_000  # resampled weights at once
SUMMED = 256  # weights summed at once: a running sum of all of them costs more than looking them up
ENDS = (1 - 0.95) / 2, (1 + 0.95) / 2
RULE_OF_THREE = 3.0
"""No error in n independent trials leaves an error rate below 3/n open (95 %).
Source: Hanley & Lippman-Hand, "If nothing goes wrong, is everything all right?", JAMA 1983."""


@dataclass(frozen=True)
class Interval:
    """A figure and its 95 % interval over identities, NaN of too few: numbers, or arrays of one a column."""

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n_identities: int

    @classmethod
    def of(cls, estimate: Any, resamples: np.ndarray, n_identities: int) -> "Interval":
        """From the same figure of each resample, (samples,) or (samples, m); those with a NaN are left out."""
        known = resamples[~np.isnan(resamples.reshape(len(resamples), -1)).any(1)]
        low, high = np.quantile(known, ENDS, axis=0) if len(known) else [np.full(resamples.shape[1:], np.nan)[()]] * 2
        return cls(np.asarray(estimate, np.float64)[()], low, high, n_identities)

    @classmethod
    def unknown(cls, estimate: float, n_identities: int) -> "Interval":
        """A figure of too few people for an interval."""
        return cls.of(estimate, np.array([np.nan]), n_identities)

    def __getitem__(self, column: Any) -> "Interval":
        """The interval of some columns."""
        return Interval(self.estimate[column], self.low[column], self.high[column], self.n_identities)

    def columns(self, name: str) -> dict[str, float]:
        """As columns of a table: name, name_low, name_high."""
        return {name: float(self.estimate), f"{name}_low": float(self.low), f"{name}_high": float(self.high)}


def resampled(n: int, samples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each of n identities is drawn in each resample, float64 (some, n) at a time; each row sums to n."""
    if samples < 2:
        raise EvaluationError(f"samples={samples}: at least 2 resamples are wanted")
    rng, size = np.random.default_rng(seed), max(1, BLOCK // n)
    for start in range(0, samples, size):
        rows = min(size, samples - start)
        yield rng.multinomial(n, np.full(n, 1 / n), size=rows).astype(np.float64)


def identity_bootstrap(values: np.ndarray, identities: np.ndarray, samples: int = 1000, seed: int = 0) -> Interval:
    """Interval of a mean over queries, resampling identities rather than queries.

    A subject's queries rise and fall together, so resampling queries gives intervals that are too narrow. Identities
    are drawn with replacement, each with all its queries. Where all values are alike, as with no miss at all, the
    interval has no width and says nothing: by the rule of three, 3 / n_identities of people may still be missed.

    Args:
        values: float (n,) or (n, m), such as 1 for a hit; a row with NaN (an unmatched query) is left out.

    Source: Davison & Hinkley, "Bootstrap Methods and their Application", 1997, §3.8 (clusters), percentile interval.
    """
    return Interval.of(*resampled_means(values, identities, samples, seed))


def mean_interval(values: Any, identities: Any, samples: int, seed: int) -> Interval:
    """The mean as `identity_bootstrap` gives it, without interval for fewer than two identities; NaN of none."""
    values, n = np.asarray(values, np.float64), len(np.unique(identities))
    if n < 2:
        return Interval.unknown(values.mean() if n else np.nan, n)
    return identity_bootstrap(values, np.asarray(identities), samples, seed)


def resampled_means(
    values: np.ndarray, identities: np.ndarray, samples: int, seed: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """What `identity_bootstrap` is made of: the mean, a number or (m,), those of the resamples, and n_identities."""
    values = np.asarray(values, np.float64)
    if values.ndim not in (1, 2) or np.isinf(values).any():
        raise EvaluationError(f"values have shape {values.shape}; (n,) or (n, m) without infinities is wanted")
    table = values.reshape(len(values), -1)
    if len(table) != len(identities):
        raise EvaluationError(f"{len(table)} values but {len(identities)} identities; one each is wanted")
    kept = ~np.isnan(table).any(1)
    codes = np.unique(np.asarray(identities)[kept], return_inverse=True)[1].ravel()
    n = int(codes.max(initial=-1)) + 1
    if n < 2:
        raise EvaluationError(f"{n} identities have a value; an interval over identities needs at least two")
    sums = np.zeros((n, table.shape[1]))
    np.add.at(sums, codes, table[kept])
    counts = np.bincount(codes).astype(np.float64)
    drawn = np.concatenate([w @ sums / (w @ counts)[:, None] for w in resampled(n, samples, seed)])
    estimate = sums.sum(0) / counts.sum()
    return (estimate[0], drawn[:, 0], n) if values.ndim == 1 else (estimate, drawn, n)


class PrefixSums:
    """Sums of the first k of some weights, float64 (n,), for any k; whole numbers up to 2^53 are summed exactly."""

    def __init__(self, weights: np.ndarray):
        whole = weights[: len(weights) // SUMMED * SUMMED].reshape(-1, SUMMED)
        self._weights = weights
        self._starts = np.concatenate([[0.0], np.cumsum(whole.sum(1))])
        self.total = self.first(len(weights))

    def first(self, k: int) -> float:
        """Sum of the first k."""
        block = k // SUMMED
        return float(self._starts[block] + self._weights[block * SUMMED : k].sum())


Weights = tuple[PrefixSums, PrefixSums]
"""How often each score counts: the mated ones, and the non-mated ones, both in rising order of the scores."""


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
        """The lowest threshold whose false-positive rate is at most a target, every score counting once."""
        if not 0 <= target <= 1:
            raise EvaluationError(f"a rate of {target} was asked for; a share in 0..1 is wanted (0.01 is 1 percent)")
        place = self.at_most(target, self.once)
        threshold, rates = float(self.thresholds[place]), self.rates(place, self.once)
        return OperatingPoint(target, threshold, *rates, target >= self.lowest_supported)


def _first(n: int, holds: Callable[[int], bool]) -> int:
    """The first of 0 … n - 1 for which something holds that, once it holds, holds for all after it."""
    return bisect_left(range(n), True, key=holds)
