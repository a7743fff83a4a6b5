"""Intervals of a share over identities: how often each method covers the truth, and how wide it is.

python -m benchmarks.intervals [data sets, 1000 by default]: prints the table of docs/definitions.md.
"""

import sys
from collections.abc import Callable

import numpy as np
from scipy.special import betaincinv, ndtr, ndtri, stdtrit

from handclip_lib.evaluation.intervals import share_interval
from tests.simulated_people import CEILING, COUNTS, MIDDLE, simulated

Ends = tuple[np.ndarray, np.ndarray]
RESAMPLES, TAIL = 400, 0.025


def _spread(sums: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Means, their standard errors over people, how many people of equal counts they are worth, and Student's t."""
    weight = counts / counts.sum()
    means, squares = sums.sum(1) / counts.sum(), (weight**2).sum()
    apart = sums / counts - means[:, None]
    error = np.sqrt((weight**2 / (1 - 2 * weight + squares) * apart**2).sum(1))
    return means, error, 1 / squares, float(stdtrit(1 / squares - 1, 1 - TAIL))


def student(sums: np.ndarray, counts: np.ndarray) -> Ends:
    means, error, _, t = _spread(sums, counts)
    return means - t * error, means + t * error


def logit_student(sums: np.ndarray, counts: np.ndarray) -> Ends:
    """All right or all wrong: the exact binomial end over people."""
    means, error, _, t = _spread(sums, counts)
    inner = np.clip(means, 1e-9, 1 - 1e-9)
    low, high = (
        1 / (1 + np.exp(-(np.log(inner / (1 - inner)) + side * t * error / (inner * (1 - inner))))) for side in (-1, 1)
    )
    end = TAIL ** (1 / len(counts))
    return np.where(means == 1, end, low), np.where(means == 0, 1 - end, high)


def _trials(means: np.ndarray, error: np.ndarray, worth: float) -> np.ndarray:
    most = means * (1 - means)
    rho = np.divide(error**2 * worth, most, out=np.ones_like(means), where=most > 0)
    return worth / np.clip(rho, 1e-9, 1)


def wilson(sums: np.ndarray, counts: np.ndarray) -> Ends:
    """As many trials as the variance says, which is what few misses cannot."""
    means, error, worth, t = _spread(sums, counts)
    k = t**2 / _trials(means, error, worth)
    half = np.sqrt(means * (1 - means) * k + k**2 / 4)
    return (means + k / 2 - half) / (1 + k), (means + k / 2 + half) / (1 + k)


def clopper_pearson(sums: np.ndarray, counts: np.ndarray) -> Ends:
    means, error, worth, t = _spread(sums, counts)
    n = _trials(means, error, worth) * (ndtri(1 - TAIL) / t) ** 2
    hits, misses = np.maximum(means * n, 1e-9), np.maximum((1 - means) * n, 1e-9)
    low, high = betaincinv(hits, misses + 1, TAIL), betaincinv(hits + 1, misses, 1 - TAIL)
    return np.where(means == 0, 0, low), np.where(means == 1, 1, high)


def _resampled(sums: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n = len(counts)
    often = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(float)
    return often, sums @ often.T / (often @ counts)


def percentile(sums: np.ndarray, counts: np.ndarray) -> Ends:
    return tuple(np.quantile(_resampled(sums, counts)[1], (TAIL, 1 - TAIL), axis=1))


def expanded_percentile(sums: np.ndarray, counts: np.ndarray) -> Ends:
    n = len(counts)
    tail = ndtr(-np.sqrt(n / (n - 1)) * stdtrit(n - 1, 1 - TAIL))
    return tuple(np.quantile(_resampled(sums, counts)[1], (tail, 1 - tail), axis=1))


def bca(sums: np.ndarray, counts: np.ndarray) -> Ends:
    drawn, means = np.sort(_resampled(sums, counts)[1], axis=1), sums.sum(1) / counts.sum()
    below = ((drawn < means[:, None]).mean(1) + (drawn <= means[:, None]).mean(1)) / 2
    bias = ndtri(np.clip(below, 1 / RESAMPLES, 1 - 1 / RESAMPLES))
    without = (sums.sum(1)[:, None] - sums) / (counts.sum() - counts)
    apart = without.mean(1)[:, None] - without
    squares = 6 * (apart**2).sum(1) ** 1.5
    skew = np.divide((apart**3).sum(1), squares, out=np.zeros_like(means), where=squares > 0)
    ends = []
    for z in (ndtri(TAIL), ndtri(1 - TAIL)):
        place = ndtr(bias + (bias + z) / (1 - skew * (bias + z))) * (RESAMPLES - 1)
        ends.append(np.take_along_axis(drawn, place.round().astype(int)[:, None], 1)[:, 0])
    return ends[0], ends[1]


def bootstrap_t(sums: np.ndarray, counts: np.ndarray) -> Ends:
    often, drawn = _resampled(sums, counts)
    means, total = sums.sum(1) / counts.sum(), counts.sum()
    squares = sums**2 @ often.T - 2 * drawn * ((sums * counts) @ often.T) + drawn**2 * (often @ counts**2)
    errors = np.sqrt(np.maximum(squares, 0)) / (often @ counts)
    error = np.sqrt(((sums - counts * means[:, None]) ** 2).sum(1)) / total
    t = np.where(errors > 1e-9, (drawn - means[:, None]) / np.maximum(errors, 1e-9), np.nan)
    t[np.isnan(t).all(1)] = 0
    upper, lower = np.nanquantile(t, (1 - TAIL, TAIL), axis=1)
    return means - upper * error, means - lower * error


def chosen(sums: np.ndarray, counts: np.ndarray) -> Ends:
    found = share_interval(sums.T, counts)
    return found.low, found.high


METHODS: tuple[Callable[[np.ndarray, np.ndarray], Ends], ...] = (
    percentile, expanded_percentile, bca, bootstrap_t, student, logit_student, wilson, clopper_pearson, chosen,
)  # fmt: skip


def main(data_sets: int) -> None:
    """Print, of each method, the least and the greatest coverage over settings, and the mean width, in percent."""
    columns = [(n, where) for where in ("middle", "ceiling") for n in (5, 10, 20, 71)]
    print("| method | " + " | ".join(f"{where}, {n}" for n, where in columns) + " |")
    for method in METHODS:
        cells = []
        for n, where in columns:
            covered, widths = [], []
            for mean, alike in MIDDLE if where == "middle" else CEILING:
                for counts in COUNTS:
                    for measure in ("rank-1", "mAP"):
                        sums, queries, truth = simulated(n, counts, measure, mean, alike, data_sets)
                        low, high = (np.clip(end, 0, 1) for end in method(sums, queries))
                        covered.append(100 * ((low <= truth + 1e-9) & (truth - 1e-9 <= high)).mean())
                        widths.append(100 * (high - low).mean())
            cells.append(f"{min(covered):.0f}–{max(covered):.0f} ({np.mean(covered):.0f}), {np.mean(widths):.1f}")
        print(f"| {method.__name__.replace('_', ' ')} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
