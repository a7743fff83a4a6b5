"""How far a figure would move with other people: the bootstrap over identities."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from handclip_lib.errors import EvaluationError

BLOCK = 4_000_000  # resampled weights at once
LEVEL = 0.95
ENDS = (1 - LEVEL) / 2, (1 + LEVEL) / 2


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % percentile interval over identities: numbers, or arrays of one a column.

    The ends are NaN where there are too few people for an interval.
    """

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n_identities: int

    @classmethod
    def of(cls, estimate: Any, resamples: np.ndarray, n_identities: int) -> "Interval":
        """From the same figure of each resample, (samples,) or (samples, m); those with a NaN are left out."""
        known = resamples[~np.isnan(resamples.reshape(len(resamples), -1)).any(1)]
        if not len(known):
            return cls.unknown(estimate, n_identities)
        low, high = np.quantile(known, ENDS, axis=0)
        return cls(np.asarray(estimate, np.float64)[()], low, high, n_identities)

    @classmethod
    def unknown(cls, estimate: Any, n_identities: int) -> "Interval":
        """A figure of too few people for an interval."""
        figure = np.asarray(estimate, np.float64)[()]
        nothing = np.full(figure.shape, np.nan)[()]
        return cls(figure, nothing, nothing, n_identities)

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
    are drawn with replacement, each with all its queries; the figure is the mean over the queries drawn.

    Where all values are alike, as with no miss at all, the interval has no width and says nothing: by the rule of
    three, up to 3 / n_identities of other people may still be missed.

    Args:
        values: float (n,) or (n, m), such as 1 for a hit; a row with NaN (an unmatched query) is left out.
        identities: (n,), the identity of each value.

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
    """The mean over queries, and the same of each resample of the identities; see `identity_bootstrap`.

    Returns:
        Mean, a number or (m,); means of the resamples, (samples,) or (samples, m); number of identities.
    """
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
