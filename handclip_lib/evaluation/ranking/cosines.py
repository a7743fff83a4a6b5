"""Cosines that are the same on every machine, at the speed of a product that is not.

A product in float32 depends on the order that a machine sums in, and on the place of an image in the gallery: two
people with one photograph differ by 2^-24, at random. Of those in float64 no more is left than a last bit, which `TIE`
covers. So the cosines are those of float64; but a product in float32 is several times as fast and off by no more than
`rounding`: what it decides by more is decided, and only the few pairs that it leaves open are computed in float64.
"""

import numpy as np

from handclip_lib.evaluation.ranking.counting import THREADED_FROM, Labels, compiled, on_threads
from handclip_lib.machine import products

WIDE_BYTES = 16 * 2**20  # of the gallery in float64 at once
TIE = 2.0**-22
"""Cosines no further apart are a tie: the rounding of embeddings to float32 moves one by up to 2^-23."""
LENGTH_TOLERANCE = 1e-3  # what float16 leaves of a length of 1
OPEN = 16  # where the product leaves one pair in so many open, the whole block in float64 is faster
PAIR_NUMBERS = 2**14  # of the embeddings of pairs at once: more would be new pages of memory each time
STEPS = 2**15  # of a cosine of 1, in which scores are looked up: from -2 to 2
NO_COSINE = np.float32(-1.5)  # less than any
MATRIX, INDICES = "float32[:,::1]", "int64[::1]"
SIGNATURE = f"void({MATRIX}, {MATRIX}, {MATRIX}, {INDICES}, {INDICES}, {INDICES}, float32, float32, boolean[::1])"


def cosines(query: np.ndarray, gallery: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Cosines of embeddings of length 1, float32 (n_query, n_gallery), rounded from float64."""
    found = np.empty((len(query), len(gallery)), np.float32) if out is None else out
    wide, size = query.astype(np.float64), max(1, WIDE_BYTES // (8 * max(gallery.shape[1], len(query))))
    with products(len(query) * gallery.size):
        for start in range(0, len(gallery), size):
            found[:, start : start + size] = wide @ gallery[start : start + size].astype(np.float64).T
    return found


def rounding(size: int) -> float:
    """How far a cosine of so many numbers, summed in float32 in any order, can be from the one `cosines` gives.

    Source: Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 3.1.
    """
    unit = 2.0**-24
    return (1 + LENGTH_TOLERANCE) ** 2 * size * unit / (1 - size * unit) + 4 * unit


def pair_cosines(query: np.ndarray, gallery: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Cosines of pairs, float32 (n,), rounded from float64."""
    found, size = np.empty(len(row), np.float32), max(1, PAIR_NUMBERS // gallery.shape[1])
    for start in range(0, len(row), size):
        some = slice(start, start + size)
        found[some] = np.vecdot(query.take(row[some], 0), gallery.take(column[some], 0), dtype=np.float64)
    return found


def settled(
    query: np.ndarray, gallery: np.ndarray, labels: Labels, rows: np.ndarray, out: np.ndarray, best: bool
) -> np.ndarray:
    """`cosines` of some rows of the queries; where numba is worth it, those that decide nothing to the float32 alone.

    What decides are the matches, what is so near to a match of its row that either may be first, and, where the `best`
    of the others is asked for, what is as near to that.

    Args:
        query, gallery: Embeddings of length 1, float32 (n, size), C-contiguous; all of them.
        out: Float32 (n_rows, n_gallery), C-contiguous, is filled in and returned.
    """
    query, (order, begins, ends) = query[rows], labels.by_identity
    begin, end = begins[rows], ends[rows]
    fast = compiled(_settle_rows, SIGNATURE, len(labels.rows) * len(gallery), in_any_order=True)
    if fast is None or (end - begin).sum() * OPEN > out.size:
        return cosines(query, gallery, out)
    np.matmul(query, gallery.T, out=out)
    error, is_open = rounding(gallery.shape[1]), np.zeros(len(out), bool)

    def some(at: slice) -> None:
        own = order, begin[at], end[at]
        fast[0](out[at], query[at], gallery, *own, np.float32(TIE + error), np.float32(error * best), is_open[at])

    on_threads(some, len(out), fast[1] if out.size >= THREADED_FROM else 1)
    if is_open.any():
        out[is_open] = cosines(query[is_open], gallery)
    return out


def _settle_rows(
    scores: np.ndarray, query: np.ndarray, gallery: np.ndarray, order: np.ndarray, begin: np.ndarray, end: np.ndarray,
    reach: np.float32, error: np.float32, is_open: np.ndarray,
) -> None:  # fmt: skip
    """Settle rows in place; those where too much is open are left so, and told. Compiled by numba."""

    def cosine(one, other):  # type: ignore[no-untyped-def]
        summed = 0.0
        for i in range(len(one)):
            summed += np.float64(one[i]) * np.float64(other[i])
        return np.float32(summed)

    table, near = np.zeros(4 * STEPS, np.bool_), np.empty(2 * scores.shape[1], np.int64)
    zero, steps = np.float32(2 * STEPS), np.float32(STEPS)
    for q in range(len(scores)):
        row, own, n = scores[q], order[begin[q] : end[q]], 0
        levels = np.empty(len(own), np.float32)
        for i in range(len(own)):
            levels[i] = cosine(query[q], gallery[own[i]])
            row[own[i]] = NO_COSINE
        for level in levels:
            table[int((level - reach) * steps + zero) : int((level + reach) * steps + zero) + 1] = True
        for column in range(len(row)):
            if table[int(row[column] * steps + zero)]:
                near[n], hit = column, False
                for level in levels:
                    hit |= abs(row[column] - level) <= reach
                n += hit
        for level in levels:
            table[int((level - reach) * steps + zero) : int((level + reach) * steps + zero) + 1] = False
        if error > 0:
            floor = row.max() - 2 * error
            for column in range(len(row)):
                near[n] = column
                n += row[column] >= floor
        is_open[q] = n * OPEN > len(row)
        for column in near[: 0 if is_open[q] else n]:
            row[column] = cosine(query[q], gallery[column])
        for i in range(len(own)):
            row[own[i]] = levels[i]
