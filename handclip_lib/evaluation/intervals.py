"""What so many people can carry: intervals of shares over identities, and a test of two models on the same queries."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from handclip_lib.errors import EvaluationError

LEVEL = 0.95
FEWEST = 10
"""Identities below which an interval covers the truth and is too wide to say much."""
RULE_OF_THREE = 3.0
"""No error in n independent trials leaves an error rate below 3/n open (95 %).
Source: Hanley & Lippman-Hand, "If nothing goes wrong, is everything all right?", JAMA 1983."""
EXACT_UP_TO = 2**13  # sign flips that are all tried: 14 people
BLOCK = 4_000_000  # flips of a person at once
GROUPS = 1000  # of people, left out one after the other


@dataclass(frozen=True)
class Interval:
    """A share with its 95 % interval over identities: numbers, or arrays of one a column; NaN ends of no interval."""

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n_identities: int

    @classmethod
    def unknown(cls, estimate: Any, n_identities: int) -> "Interval":
        """A figure of too few people for an interval."""
        figure = np.asarray(estimate, np.float64)[()]
        nothing = np.full(figure.shape, np.nan)[()]
        return cls(figure, nothing, nothing, n_identities)

    def __getitem__(self, column: Any) -> "Interval":
        """The interval of some columns."""
        return Interval(self.estimate[column], self.low[column], self.high[column], self.n_identities)

    @property
    def supported(self) -> np.ndarray:
        """Whether there are enough people for the claim: `FEWEST`, and by the rule of three, errors and hits alike."""
        carried = np.minimum(self.estimate, 1 - self.estimate) >= RULE_OF_THREE / max(self.n_identities, 1)
        return carried & (self.n_identities >= FEWEST)

    def columns(self, name: str) -> dict[str, float]:
        """As columns of a table: name, name_low, name_high."""
        return {name: float(self.estimate), f"{name}_low": float(self.low), f"{name}_high": float(self.high)}


@dataclass(frozen=True)
class Difference(Interval):
    """A figure of one model less that of another, on the same queries: -1..1; its p-value is two-sided."""

    p_value: np.ndarray

    def __getitem__(self, column: Any) -> "Difference":
        """The difference of some columns."""
        return Difference(**vars(super().__getitem__(column)), p_value=self.p_value[column])


def identity_interval(values: Any, identities: Any) -> Interval:
    """Mean over queries of shares, with its interval over identities; no interval of fewer than two.

    A subject's queries rise and fall together, so the interval counts people; see `share_interval`.

    Args:
        values: float (n,) or (n, m) in 0..1, such as 1 for a hit; a row with NaN (an unmatched query) is left out.
        identities: (n,), the identity of each value.
    """
    values = np.asarray(values, np.float64)
    found = share_interval(*by_identity(values, identities))
    return found[0] if values.ndim == 1 else found


def by_identity(values: Any, identities: Any) -> tuple[np.ndarray, np.ndarray]:
    """Sums of each identity's values, float64 (n_identities, m), and their numbers, (n_identities,), by its name.

    A row with NaN is left out.
    """
    values = np.asarray(values, np.float64)
    if values.ndim not in (1, 2) or np.isinf(values).any():
        raise EvaluationError(f"values have shape {values.shape}; (n,) or (n, m) without infinities is wanted")
    if len(values) != len(identities):
        raise EvaluationError(f"{len(values)} values but {len(identities)} identities; one each is wanted")
    table = values[:, None] if values.ndim == 1 else values
    kept = ~np.isnan(table).any(1)
    codes = pd.factorize(np.asarray(identities)[kept], sort=True)[0]  # by their hashes: quicker than to sort them all
    sums = np.stack([np.bincount(codes, column) for column in table[kept].T], 1) if len(codes) else np.zeros((0, 1))
    return sums, np.bincount(codes).astype(np.float64)


def share_interval(
    sums: np.ndarray, counts: np.ndarray, *, estimate: Any = None, variance: Any = None, units: float | None = None
) -> Interval:
    """Interval of shares over identities: Wilson's, with as many independent trials as the people make.

    With w the identities' shares of all counts, they are worth u = 1 / Σw² identities of equal counts. ρ is the
    variance of the share in terms of what u people would have who are all right or all wrong each: 1 then, about 0
    where people do not differ. Few people with a miss (or a hit, whichever are fewer) say little about ρ: with m =
    (Σ misses)² / Σ misses² of them, m² : 1 is the weight of what was found against 1. Wilson's interval is that of u/ρ
    trials, with Student's t of u - 1 degrees of freedom in place of 1.96; of those of ten people, or all there are,
    where most counts are one person's: ρ is then held up by its 1, and both at once would say nothing.

    So where nobody is missed, one of n further people still may be: the interval is that of n trials. How often it
    covers the truth, and what else was tried, is in docs/definitions.md.

    Args:
        sums, counts: Of each identity the sum of its values, each in 0..1, (n, m), and their number, (n,).
        estimate, variance: The shares, (m,), and their variance over identities, where they are no plain means.
        units: Independent units in place of u, such as the pairs of two people that false matches are of.

    Source: Wilson 1927; Korn & Graubard, "Confidence intervals for proportions with small expected number of positive
        counts estimated from survey data", Survey Methodology 1998 (the number of trials, and Student's t); Fogliato,
        Patil & Perona, "Confidence intervals for error rates in 1:1 matching tasks", IJCV 2024 (Wilson's over people).
    """
    sums, counts = (np.asarray(part[counts > 0], np.float64) for part in (sums, counts))
    n, total = len(counts), counts.sum()
    if not n:
        return Interval.unknown(np.full(sums.shape[1], np.nan), 0)
    found = sums.sum(0) / total if estimate is None else np.asarray(estimate, np.float64)
    if ((sums < -1e-9) | (sums > counts[:, None] + 1e-9)).any():
        raise EvaluationError("an interval of values outside 0..1 was asked for; shares are wanted")
    if n < 2:
        return Interval.unknown(found, n)
    weight = counts / total
    squares = (weight**2).sum()
    if variance is None:
        apart = sums / counts[:, None] - found
        variance = ((weight**2 / (1 - 2 * weight + squares))[:, None] * apart**2).sum(0)
    trials = 1 / squares if units is None else units
    most = found * (1 - found)
    rho = np.divide(variance * trials, most, out=np.ones_like(found), where=most > 0)
    known = np.minimum(_worth(sums), _worth(counts[:, None] - sums)) ** 2
    rho = np.maximum(rho, (known * rho + 1) / (known + 1))
    t = stdtrit(max(1 / squares - 1, min(n, FEWEST) - 1), (1 + LEVEL) / 2)
    spread = t**2 * rho / trials
    middle, half = found + spread / 2, np.sqrt(most * spread + spread**2 / 4)
    low, high = (np.clip((middle + side * half) / (1 + spread), 0, 1) for side in (-1, 1))
    return Interval(found, np.where(found <= 0, 0, low), np.where(found >= 1, 1, high), n)


def mean_of_two(first: Interval, second: Interval) -> Interval:
    """The mean of two rates over the same people: their distances to either end add as the sides of a right angle do.

    So it is no wider where one of them never varies, and keeps to 0..1.

    Source: Zou & Donner, "Construction of confidence limits about effect measures: a general approach", Statistics in
        Medicine 2008 (the method of variance estimates recovery).
    """
    both = (first.estimate + second.estimate) / 2
    down, up = (
        np.hypot(getattr(first, end) - first.estimate, getattr(second, end) - second.estimate) / 2
        for end in ("low", "high")
    )
    return Interval(both, both - down, both + up, max(first.n_identities, second.n_identities))


def mean_interval(values: Any) -> tuple[float, float]:
    """Ends of the 95 % interval of a mean of two and more measured alike, such as folds or seeds: Student's t."""
    each = np.asarray(values, np.float64)
    half = stdtrit(len(each) - 1, (1 + LEVEL) / 2) * each.std(ddof=1) / np.sqrt(len(each))
    return float(each.mean() - half), float(each.mean() + half)


def jackknife(figures: Callable[[int], Any], estimate: np.ndarray, n: int) -> np.ndarray:
    """Variance over n identities of what is no mean, (m,), from leaving out one after the other.

    Args:
        figures: The figures, (m,), without a group of `left_out_together`; NaN where nothing is left.

    Source: Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, §11.2.
    """
    groups = min(n, GROUPS)
    without = np.array([figures(group) for group in range(groups)])
    return np.asarray((groups - 1) / groups * np.nansum((without - estimate) ** 2, axis=0))


def left_out_together(n: int) -> np.ndarray:
    """The group of each of n identities, int64 (n,): each its own, or of many one of `GROUPS`."""
    return np.arange(n) % min(n, GROUPS) if n else np.zeros(0, np.int64)


def _worth(sums: np.ndarray) -> np.ndarray:
    """How many identities of equal sums those of (n, m) are worth, (m,): 0 where all are 0."""
    squares = (sums**2).sum(0)
    return np.divide(sums.sum(0) ** 2, squares, out=np.zeros_like(squares), where=squares > 0)


def paired_difference(
    values: np.ndarray, reference: np.ndarray, identities: np.ndarray, samples: int = 10_000, seed: int = 0
) -> Difference:
    """Difference of two means over the same queries, with an exact test over identities and the interval of that test.

    Were the two models alike, each person's sum of differences would be as likely of the other sign. p is the share
    of all choices of signs whose sum is at least as far from 0 as that found: all 2^n for up to 14 people, otherwise
    `samples` of them and the one found, so p = (1 + how many) / (1 + samples). It is never below 2^(1 - n).

    The interval holds every difference that the same test does not reject at .05, once each query is less that
    difference; of fewer than six people, who can reject nothing, it is -1..1. To flip some people's signs is to set
    their mean against that of all others: so its ends are quantiles of the smaller, and of the larger, of the two.

    Args:
        values, reference: float (n,) or (n, m) in 0..1, one row a query, the same queries of either model.
        identities: (n,).

    Source: Fisher, "The Design of Experiments", 1935, §21; Phipson & Smyth, "Permutation p-values should never be
        zero", 2010; Hartigan, "Using subsample values as typical values", JASA 1969 (the interval).
    """
    values, reference = np.asarray(values, np.float64), np.asarray(reference, np.float64)
    if values.shape != reference.shape:
        raise EvaluationError(f"{values.shape} values and {reference.shape} of the reference; pairs are wanted")
    if samples < 1:
        raise EvaluationError(f"samples={samples}: at least 1 choice of signs is wanted")
    sums, counts = by_identity(values - reference, identities)
    n, all_of, total = len(counts), sums.sum(0), counts.sum()
    if n < 2:
        raise EvaluationError(f"identities with a value: {n}; a test over identities needs at least two")
    rounding = 1e-9 * np.abs(sums).sum(0)
    as_far, lows, highs = np.zeros(sums.shape[1]), [], []
    for flipped in _flips(n, samples, seed):
        theirs, of_them = flipped @ sums, (flipped @ counts)[:, None]
        as_far += (np.abs(all_of - 2 * theirs) >= np.abs(all_of) - rounding).sum(0)
        nobody = (of_them == 0) | (of_them == total)
        with np.errstate(invalid="ignore"):
            means = np.stack([theirs / of_them, (all_of - theirs) / (total - of_them)])
        lows.append(np.where(nobody, -1, means.min(0)))
        highs.append(np.where(nobody, 1, means.max(0)))
    low, high = np.concatenate(lows), np.concatenate(highs)
    out = int((1 - LEVEL) * len(low) + 1e-9)
    lowest, highest = np.partition(low, out, 0)[out].round(12), np.partition(high, -1 - out, 0)[-1 - out].round(12)
    found = Difference(all_of / total, lowest, highest, n, as_far / len(low))
    return found[0] if values.ndim == 1 else found


def _flips(n: int, samples: int, seed: int) -> Iterator[np.ndarray]:
    """Whose signs are flipped, float64 (some, n) of 0 and 1 at a time, nobody's first.

    All choices, of which one person never flips, for the others say the same; or so many, where they are too many.
    """
    if 2 ** (n - 1) <= EXACT_UP_TO:
        yield (np.arange(2 ** (n - 1))[:, None] >> np.arange(n) & 1).astype(np.float64)
        return
    yield np.zeros((1, n))
    rng, size = np.random.default_rng(seed), max(1, BLOCK // n)
    for start in range(0, samples, size):
        yield rng.integers(0, 2, (min(size, samples - start), n)).astype(np.float64)
