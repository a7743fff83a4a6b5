"""How far a figure would move with other people: the bootstrap over identities."""

from dataclasses import dataclass

import numpy as np

from handclip_lib.errors import EvaluationError

BLOCK = 4_000_000  # resampled weights at once


@dataclass(frozen=True)
class Interval:
    """A mean with its bootstrap interval; `estimate`, `low` and `high` are numbers, or arrays of one a column."""

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    level: float
    n_identities: int


def identity_bootstrap(
    values: np.ndarray, identities: np.ndarray, samples: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Interval of a mean over queries, resampling identities rather than queries.

    A subject's queries rise and fall together, so resampling queries gives intervals that are too narrow. Identities
    are drawn with replacement, each with all its queries; the figure is the mean over the queries drawn.

    Where all values are alike, as with no miss at all, the interval has no width and says nothing: by the rule of
    three, up to 3 / n_identities of other people may still be missed.

    Args:
        values: float (n,) or (n, m), such as 1 for a hit; a row with NaN (an unmatched query) is left out.
        identities: (n,), the identity of each value.
        samples: Number of resamples.
        seed: Seed of the resampling.
        level: Share of resamples inside the interval, 0..1.

    Raises:
        EvaluationError: Fewer than two identities have a value, or an argument is out of range.

    Source: Davison & Hinkley, "Bootstrap Methods and their Application", 1997, §3.8 (clusters), percentile interval.
    """
    if not 0 < level < 1:
        raise EvaluationError(f"level={level}: a share between 0 and 1 is wanted")
    estimate, means, n = resampled_means(values, identities, samples, seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Interval(estimate, low, high, level, n)


def resampled_means(
    values: np.ndarray, identities: np.ndarray, samples: int, seed: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """The mean over queries, and the same of each resample of the identities; see `identity_bootstrap`.

    Returns:
        Mean, a number or (m,); means of the resamples, (samples,) or (samples, m); number of identities.

    Raises:
        EvaluationError: Fewer than two identities have a value, or an argument is out of range.
    """
    values = np.asarray(values, np.float64)
    if values.ndim not in (1, 2) or np.isinf(values).any():
        raise EvaluationError(f"values have shape {values.shape}; (n,) or (n, m) without infinities is wanted")
    table = values[:, None] if values.ndim == 1 else values
    if len(table) != len(identities):
        raise EvaluationError(f"{len(table)} values but {len(identities)} identities; one each is wanted")
    if samples < 2:
        raise EvaluationError(f"samples={samples}: at least 2 are wanted")
    kept = ~np.isnan(table).any(1)
    codes = np.unique(np.asarray(identities)[kept], return_inverse=True)[1].ravel()
    n = int(codes.max(initial=-1)) + 1
    if n < 2:
        raise EvaluationError(f"{n} identities have a value; an interval over identities needs at least two")
    sums = np.zeros((n, table.shape[1]))
    np.add.at(sums, codes, table[kept])
    counts = np.bincount(codes).astype(np.float64)

    rng = np.random.default_rng(seed)
    means = []
    for start in range(0, samples, max(1, BLOCK // n)):
        rows = min(max(1, BLOCK // n), samples - start)
        weights = rng.multinomial(n, np.full(n, 1 / n), size=rows).astype(np.float64)
        means.append(weights @ sums / (weights @ counts)[:, None])
    estimate, drawn = sums.sum(0) / counts.sum(), np.concatenate(means)
    return (estimate[0], drawn[:, 0], n) if values.ndim == 1 else (estimate, drawn, n)
