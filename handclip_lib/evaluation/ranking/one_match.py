"""The protocol's ranking, where a query has one match at most: at the speed of the product, in memory that stays small.

The cosines are those of `cosines`, rounded from float64. A product in float32 is several times as fast and off by no
more than `rounding`: what it decides by more is decided, and the few pairs it leaves open are computed in float64. So
the results are those of `rank_features` to the bit, whatever the block, the threads or the machine.
"""

from dataclasses import dataclass

import numpy as np

from handclip_lib.evaluation.ranking.cosines import OPEN, TIE, cosines, pair_cosines, rounding
from handclip_lib.evaluation.ranking.retrieval import RetrievalMetrics
from handclip_lib.machine import cores, products, workers

ROWS, COLUMNS = 512, 4096  # of a block of similarities: 8 MiB, near the cache; columns divisible by 8
THREADED_FROM = 2**22  # similarities in all, below which threads cost more than they save


@dataclass(frozen=True)
class OneMatch:
    """Of each query, (n_query,): the rank of its match, 0 without one, and its cosine; the best image of others.

    Attributes:
        tied: Whether the best of the others and the match are a tie.
        match_score, wrong_score: float32, -infinity where there is none.
        wrong: Place in the gallery of the best of the others, the first of equal ones, int64.
    """

    rank: np.ndarray
    tied: np.ndarray
    match_score: np.ndarray
    wrong: np.ndarray
    wrong_score: np.ndarray

    def metrics(self, n_gallery: int, asked: np.ndarray) -> RetrievalMetrics:
        """What the ranking is worth; queries that are not asked, bool (n_query,), are the excluded ones."""
        rank, matched = self.rank, self.rank > 0
        precision = np.where(matched, 1 / np.maximum(rank, 1), np.nan)
        trapezoid = np.where(rank > 1, precision / 2, precision)
        left_out = int((asked & ~matched).sum()), int((~asked).sum())
        share = float(self.tied.sum() / matched.sum())
        return RetrievalMetrics(rank, precision, trapezoid, precision, n_gallery, *left_out, share)

    def part(self, rows: slice) -> "OneMatch":
        """Some queries, as views."""
        return OneMatch(*(values[rows] for values in vars(self).values()))


def rank_one_match(query: np.ndarray, gallery: np.ndarray, match: np.ndarray) -> OneMatch:
    """Rank the gallery for each query; images of others no more than `TIE` below the match come before it.

    Args:
        query, gallery: Embeddings of length 1, float32 (n, size), C-contiguous.
        match: Place in the gallery of each query's match, int64 (n_query,); -1 for none.
    """
    n, has = len(query), np.flatnonzero(match >= 0)
    found = OneMatch(
        (match >= 0).astype(np.int64), np.zeros(n, bool), np.full(n, -np.inf, np.float32), np.zeros(n, np.int64),
        np.full(n, -np.inf, np.float32),
    )  # fmt: skip
    found.match_score[has] = pair_cosines(query, gallery, has, match[has])

    threads = cores() if n * len(gallery) >= THREADED_FROM else 1
    width = min(COLUMNS, -(-len(gallery) // 8) * 8)  # by eights, as `_true` counts

    def some(worker: int) -> None:
        buffer = np.empty((min(ROWS, n), width), np.float32)
        for start in range(worker * ROWS, n, threads * ROWS):
            rows = slice(start, start + ROWS)
            for first in range(0, len(gallery), COLUMNS):
                part = gallery[first : first + COLUMNS]
                block = _Block(query[rows], part, match[rows] - first, found.part(rows), first)
                scores = buffer[: len(block.query)]
                scores[:, len(part) :] = -np.inf
                np.matmul(block.query, part.T, out=scores[:, : len(part)])
                if not block.count(scores, rounding(gallery.shape[1])):
                    scores[:, : len(part)] = cosines(block.query, part)
                    block.count(scores, 0.0)

    if threads == 1:
        with products(n * gallery.size):
            some(0)
    else:
        with workers() as pool:
            list(pool.map(some, range(threads)))
    return found


@dataclass(frozen=True)
class _Block:
    """Some queries and a part of the gallery that begins at `first`; what is found is added to `found`."""

    query: np.ndarray
    gallery: np.ndarray
    match: np.ndarray
    found: OneMatch
    first: int

    def count(self, scores: np.ndarray, error: float) -> bool:
        """Count by scores that are off by an error; False, with nothing counted, where they leave too much open."""
        own, found, n = self.found.match_score, self.found, np.arange(len(scores))
        inside = np.flatnonzero((self.match >= 0) & (self.match < len(self.gallery)))
        scores[inside, self.match[inside]] = -np.inf
        top = scores.argmax(1)
        peak = scores[n, top]
        # the best of the others: the top one, and where the next is too near, all that are as near
        scores[n, top] = -np.inf
        is_near = scores.max(1) >= peak - np.float32(2 * error)
        scores[n, top] = peak
        sure, unsure = (np.flatnonzero(kept & (peak > -np.inf)) for kept in (~is_near, is_near))
        row, column = np.nonzero(scores[unsure] >= peak[unsure, None] - np.float32(2 * error))
        row, column = np.append(sure, unsure[row]), np.append(top[sure], column)
        # at or above the match, or not: sure from `high` on and below `low`
        low, high = own - np.float32(TIE + error), own + np.float32(TIE + error)
        behind = np.flatnonzero((peak >= low) & (own > -np.inf))
        rivals = scores if len(behind) == len(scores) else scores[behind]
        ahead, beyond = rivals >= low[behind, None], rivals > high[behind, None]
        surely = _true(beyond)
        some = np.flatnonzero(_true(ahead) > surely)
        asked, rival = np.nonzero(ahead[some] & ~beyond[some])
        if error and (len(row) - len(scores) + len(rival)) * OPEN > scores.size:
            return False
        found.rank[behind] += surely
        asked = behind[some[asked]]
        near = self._cosines(scores, error, asked, rival)
        is_ahead = near >= own[asked] - np.float32(TIE)
        np.add.at(found.rank, asked[is_ahead], 1)
        found.tied[asked[is_ahead & (near <= own[asked] + np.float32(TIE))]] = True
        near = self._cosines(scores, error, row, column)
        order = np.lexsort((column, -near, row))
        row, first = np.unique(row[order], return_index=True)
        column, near = column[order][first], near[order][first]
        better = near > found.wrong_score[row]
        found.wrong[row[better]] = self.first + column[better]
        found.wrong_score[row[better]] = near[better]
        return True

    def _cosines(self, scores: np.ndarray, error: float, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        return pair_cosines(self.query, self.gallery, row, column) if error else scores[row, column]


def _true(values: np.ndarray) -> np.ndarray:
    """How many of each row are true; of bool (n, m), C-contiguous, m divisible by 8."""
    return np.bitwise_count(values.view(np.uint64)).sum(1, dtype=np.int64)
