"""CMC, mAP and mINP of a similarity matrix, counted without sorting the gallery."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.ranking.counting import measure
from handclip_lib.evaluation.ranking.labels import Labels, as_array

BLOCK_BYTES = 16 * 2**20  # of similarities copied at once
TIED_SHARE_WARNED = 0.01


class TiedScoresWarning(UserWarning):
    """Many best matches are tied with another identity: the embeddings may have collapsed."""


@dataclass(frozen=True)
class RetrievalMetrics:
    """What one ranking of a gallery is worth. Shares are in 0..1; arrays have one entry a query, in the order given.

    Attributes:
        first_match_rank: int64 (n_query,), 1 is best; 0 for a query that is unmatched or left out.
        average_precision: float64 (n_query,); NaN for a query that is unmatched or left out.
        average_precision_trapezoid: The same by the Oxford definition.
        inverse_negative_penalty: Matches divided by the rank of the last one, likewise.
        n_gallery: Gallery size.
        n_unmatched: Queries without a match in the gallery: counted here, in no mean.
        n_excluded: Queries left out by `exclude`.
        tied_share: Share of the matched queries whose best match has exactly the score of another identity's image.
    """

    first_match_rank: np.ndarray
    average_precision: np.ndarray
    average_precision_trapezoid: np.ndarray
    inverse_negative_penalty: np.ndarray
    n_gallery: int
    n_unmatched: int
    n_excluded: int
    tied_share: float

    @property
    def cmc(self) -> np.ndarray:
        """Share of matched queries with a match among the k best: float64 (n_gallery,), `cmc[k - 1]` for k."""
        ranks = self.first_match_rank[self.first_match_rank > 0]
        return np.cumsum(np.bincount(ranks, minlength=self.n_gallery + 1)[1:]) / len(ranks)

    def rank(self, k: int) -> float:
        """CMC at k; a k beyond the gallery is the gallery's size."""
        if k < 1:
            raise EvaluationError(f"rank k={k} does not exist; ranks begin at 1")
        ranks = self.first_match_rank[self.first_match_rank > 0]
        return float((ranks <= k).mean())

    @property
    def map(self) -> float:
        """Mean average precision, standard definition."""
        return float(np.nanmean(self.average_precision))

    @property
    def map_trapezoid(self) -> float:
        """Mean average precision by the trapezoid rule, as MBA-Net and the Oxford buildings benchmark print it."""
        return float(np.nanmean(self.average_precision_trapezoid))

    @property
    def minp(self) -> float:
        """Mean inverse negative penalty. Source: Ye et al., "Deep Learning for Person Re-identification", 2021."""
        return float(np.nanmean(self.inverse_negative_penalty))


def retrieval_metrics(
    similarity: np.ndarray, query_ids: np.ndarray, gallery_ids: np.ndarray,
    query_cameras: np.ndarray | None = None, gallery_cameras: np.ndarray | None = None,
    exclude: np.ndarray | None = None,
) -> RetrievalMetrics:  # fmt: skip
    """Rank the gallery for each query and measure where the matches come.

    The average precision is the mean of the precision at the rank of each match. A query without a match is excluded
    and counted (Zheng 2015 skips it silently). Ties are broken pessimistically: an image of another identity comes
    before every match of the same score, so a tie never helps; matches tied with each other take the next ranks in
    turn. The order of the gallery never matters.

    Args:
        similarity: float (n_query, n_gallery), larger is more alike; finite.
        query_ids: Identities, whole numbers or text, (n_query,), none missing. Floating point is refused: float32
            merges identities above 2^24.
        gallery_ids: Identities, (n_gallery,).
        query_cameras: With `gallery_cameras`, gallery images of the query's identity *and* camera are ignored, as
            on Market-1501. Off for hands.
        gallery_cameras: Cameras, (n_gallery,).
        exclude: bool (n_query,), true for queries to leave out; their similarities are not looked at.

    Raises:
        EvaluationError: A shape, type or value is wrong, or no query has a match.

    Source: Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015, for CMC and mAP.
    """
    similarity = _checked_similarity(similarity)
    n_query, n_gallery = similarity.shape
    labels = Labels.of(n_query, n_gallery, query_ids, gallery_ids, query_cameras, gallery_cameras, exclude)
    precision = similarity.dtype if similarity.dtype == np.float32 else np.dtype(np.float64)
    size = max(1, BLOCK_BYTES // (n_gallery * precision.itemsize))
    blocks = (labels.rows[i : i + size] for i in range(0, len(labels.rows), size))
    return metrics_of_blocks(
        ((rows, _finite(similarity[rows].astype(precision, order="C", copy=False), rows)) for rows in blocks), labels
    )


def metrics_of_blocks(blocks: Iterable[tuple[np.ndarray, np.ndarray]], labels: Labels) -> RetrievalMetrics:
    """Metrics of similarities that come in blocks of queries.

    Args:
        blocks: Query numbers, int64 (n_rows,), and their similarities, float32 or float64 (n_rows, n_gallery), finite;
            these are overwritten. Together the blocks hold each query of `labels.rows` once.
        labels: Of all.

    Raises:
        EvaluationError: No query has a match.
    """
    n_query, n_gallery = len(labels.query), len(labels.gallery)
    rank = np.zeros(n_query, np.int64)
    per_query = np.full((3, n_query), np.nan)
    tied = 0
    for rows, scores in blocks:
        rank[rows], per_query[:, rows], n_tied = measure(scores, rows, labels)
        tied += n_tied
    matched = int((rank > 0).sum())
    if not matched:
        raise EvaluationError(labels.nothing_matched())
    if tied / matched > TIED_SHARE_WARNED:
        message = f"{tied} of {matched} best matches are tied with another identity: the embeddings may have collapsed"
        warnings.warn(message, TiedScoresWarning, stacklevel=3)
    n_wanted = len(labels.rows)
    n_unmatched, n_excluded = n_wanted - matched, n_query - n_wanted
    standard, trapezoid, inverse = per_query
    return RetrievalMetrics(rank, standard, trapezoid, inverse, n_gallery, n_unmatched, n_excluded, tied / matched)


def _checked_similarity(similarity: np.ndarray) -> np.ndarray:
    similarity = as_array("similarity", similarity)
    if similarity.ndim != 2 or 0 in similarity.shape:
        raise EvaluationError(f"similarity has shape {similarity.shape}; (n_query, n_gallery) is wanted, neither empty")
    if similarity.dtype.kind not in "fiu":
        raise EvaluationError(f"similarity is {similarity.dtype}; real numbers are wanted")
    return similarity


def _finite(scores: np.ndarray, queries: np.ndarray) -> np.ndarray:
    finite = np.isfinite(scores)
    if not finite.all():
        row, item = np.argwhere(~finite)[0]
        raise EvaluationError(
            f"similarity[{queries[row]}, {item}] is {scores[row, item]}; look for NaN in the embeddings of that query "
            "or gallery image"
        )
    return scores
