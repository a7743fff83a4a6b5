"""CMC, mAP and mINP of a similarity matrix or of embeddings."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.features import check_memory
from handclip_lib.evaluation.ranking.cosines import LENGTH_TOLERANCE, TIE, WIDE_BYTES, settled
from handclip_lib.evaluation.ranking.counting import Labels, as_array, measure

BLOCK_BYTES = 16 * 2**20  # of similarities copied at once
PRODUCT_BYTES = 64 * 2**20  # of similarities multiplied at once: enough rows for a multiplication at full speed
TIED_SHARE_WARNED = 0.01


class TiedScoresWarning(UserWarning):
    """Many best matches are tied with another identity: the embeddings may have collapsed."""


@dataclass(frozen=True)
class RetrievalMetrics:
    """What one ranking of a gallery is worth. Shares are in 0..1; arrays have one entry a query, in the order given.

    Attributes:
        first_match_rank: int64 (n_query,), 1 is best; 0 for a query that is unmatched or left out.
        average_precision, average_precision_trapezoid: float64 (n_query,), NaN for such a query.
        inverse_negative_penalty: Matches divided by the rank of the last one, likewise.
        n_unmatched, n_excluded: Queries without a match in the gallery, or left out: in no mean.
        tied_share: Share of the matched queries whose best match is tied with another identity's image.
    """

    first_match_rank: np.ndarray
    average_precision: np.ndarray
    average_precision_trapezoid: np.ndarray
    inverse_negative_penalty: np.ndarray
    n_gallery: int
    n_unmatched: int
    n_excluded: int
    tied_share: float

    def rank(self, k: int) -> float:
        """CMC at k; a k beyond the gallery is the gallery's size."""
        if k < 1:
            raise EvaluationError(f"rank k={k} does not exist; ranks begin at 1")
        return float((self.first_match_rank[self.first_match_rank > 0] <= k).mean())

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
    exclude: np.ndarray | None = None, tie: float = 0.0,
) -> RetrievalMetrics:  # fmt: skip
    """Rank the gallery for each query and measure where the matches come.

    The average precision is the mean of the precision at the rank of each match. A query without a match is excluded
    and counted (Zheng 2015 skips it silently). Ties are broken pessimistically: an image of another identity comes
    before every match of the same score, so a tie never helps; matches tied with each other take the next ranks in
    turn. The order of the gallery never matters.

    Args:
        similarity: float (n_query, n_gallery), larger is more alike; finite.
        query_ids, gallery_ids: Whole numbers or text, (n_query,) and (n_gallery,), none missing. Floating point is
            refused: float32 merges identities above 2^24.
        query_cameras, gallery_cameras: Gallery images of the query's identity *and* camera are ignored, as on
            Market-1501. Off for hands.
        exclude: bool (n_query,), true for queries to leave out; their similarities are not looked at.
        tie: Similarities no further apart are tied: `TIE` for `cosines` of embeddings.

    Source: Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015, for CMC and mAP.
    """
    similarity = _matrix("similarity", similarity, "(n_query, n_gallery)", "fiu", "real numbers")
    n_query, n_gallery = similarity.shape
    labels = Labels.of(n_query, n_gallery, query_ids, gallery_ids, query_cameras, gallery_cameras, exclude)
    precision = similarity.dtype if similarity.dtype == np.float32 else np.dtype(np.float64)
    size = max(1, BLOCK_BYTES // (n_gallery * precision.itemsize))
    blocks = (labels.rows[i : i + size] for i in range(0, len(labels.rows), size))
    copied = ((rows, similarity[rows].astype(precision, order="C", copy=False)) for rows in blocks)
    return _metrics_of_blocks(((rows, _finite(scores, rows)) for rows, scores in copied), labels, tie)


def rank_features(
    query: np.ndarray, gallery: np.ndarray, query_ids: np.ndarray, gallery_ids: np.ndarray,
    query_cameras: np.ndarray | None = None, gallery_cameras: np.ndarray | None = None,
    exclude: np.ndarray | None = None, *, look: Callable[[np.ndarray, np.ndarray], None] | None = None,
) -> RetrievalMetrics:  # fmt: skip
    """What `retrieval_metrics(cosines(query, gallery), …, tie=TIE)` gives, without the matrix, in under 200 MB.

    A block of queries is multiplied with the gallery and its ranks are counted before the next one is. So two people
    whose photographs are the same tie, whatever the order of the gallery, the threads, and the machine.

    Args:
        query, gallery: Embeddings of length 1, real (n, size); float32 is used as it is, another type is copied.
            One that `exclude` leaves out is not looked at.
        look: Is shown each block: query numbers, and their similarities, which it must leave alone and not keep.
    """
    gallery = embeddings_of("gallery", gallery)
    query = embeddings_of("query", query, gallery)
    n_query, n_gallery = len(query), len(gallery)
    labels = Labels.of(n_query, n_gallery, query_ids, gallery_ids, query_cameras, gallery_cameras, exclude)
    check_unit_length("query", query, labels.rows)
    check_unit_length("gallery", gallery)
    n_rows = min(max(1, PRODUCT_BYTES // (4 * n_gallery)), n_query)
    copies = 1 if look is None else 4
    check_memory(
        f"ranking a gallery of {n_gallery:,} images",
        n_gallery * (4 * n_rows * copies + 16)
        + min(2 * WIDE_BYTES, 16 * gallery.size),  # the block, a row's rivals, the gallery by identity
        "rank against a part of the gallery",
    )

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        scores = np.empty((n_rows, n_gallery), np.float32)
        for start in range(0, len(labels.rows), n_rows):
            rows = labels.rows[start : start + n_rows]
            block = settled(query, gallery, labels, rows, scores[: len(rows)], look is not None)
            if look is not None:
                look(rows, block)
            yield rows, block

    return _metrics_of_blocks(blocks(), labels, TIE)


def rank_scores(
    scored: Callable[[np.ndarray], np.ndarray], query_ids: np.ndarray, gallery_ids: np.ndarray, width: int
) -> RetrievalMetrics:
    """What `retrieval_metrics(…, tie=TIE)` gives of scores that are made for some queries at a time.

    Args:
        scored: Of query numbers their scores, float32 (n, n_gallery), C-contiguous and finite, which are overwritten.
        width: How many scores of a query there are at once while they are made.
    """
    n = len(query_ids)
    labels, size = Labels.of(n, len(gallery_ids), query_ids, gallery_ids), max(1, PRODUCT_BYTES // (4 * width))
    blocks = (np.arange(start, min(start + size, n)) for start in range(0, n, size))
    return _metrics_of_blocks(((rows, scored(rows)) for rows in blocks), labels, TIE)


def _metrics_of_blocks(blocks: Iterable[tuple[np.ndarray, np.ndarray]], labels: Labels, tie: float) -> RetrievalMetrics:
    """Metrics of similarities that come in blocks of queries, which are overwritten.

    A block is query numbers, int64 (n_rows,), and their similarities, float32 or float64 (n_rows, n_gallery), finite;
    together they hold each query of `labels.rows` once.
    """
    n_query = len(labels.query)
    rank = np.zeros(n_query, np.int64)
    per_query = np.full((3, n_query), np.nan)
    tied = 0
    for rows, scores in blocks:
        rank[rows], per_query[:, rows], n_tied = measure(scores, rows, labels, tie)
        tied += n_tied
    matched = int((rank > 0).sum())
    if not matched:
        raise EvaluationError(labels.nothing_matched())
    if tied / matched > TIED_SHARE_WARNED:
        message = f"{tied} of {matched} best matches are tied with another identity: the embeddings may have collapsed"
        warnings.warn(message, TiedScoresWarning, stacklevel=3)
    standard, trapezoid, inverse = per_query
    left_out = len(labels.rows) - matched, n_query - len(labels.rows)
    return RetrievalMetrics(rank, standard, trapezoid, inverse, len(labels.gallery), *left_out, tied / matched)


def _matrix(name: str, values: np.ndarray, shape: str, kinds: str, wanted: str) -> np.ndarray:
    values = as_array(name, values)
    if values.ndim != 2 or 0 in values.shape:
        raise EvaluationError(f"{name} has shape {values.shape}; {shape} is wanted, neither empty")
    if values.dtype.kind not in kinds:
        raise EvaluationError(f"{name} is {values.dtype}; {wanted} are wanted")
    return values


def _finite(scores: np.ndarray, queries: np.ndarray) -> np.ndarray:
    finite = np.isfinite(scores)
    if not finite.all():
        row, item = np.argwhere(~finite)[0]
        said = f"similarity[{queries[row]}, {item}] is {scores[row, item]}"
        raise EvaluationError(f"{said}; look for NaN in the embeddings of that query or gallery image")
    return scores


def embeddings_of(name: str, values: np.ndarray, like: np.ndarray | None = None) -> np.ndarray:
    """Embeddings as float32 (n, size), C-contiguous, copied only if they are not; the size is that of a gallery's."""
    values = _matrix(name, values, "(n, embedding size)", "f", "embeddings in float32")
    if like is not None and values.shape[1] != like.shape[1]:
        sizes = f"{name} embeddings have size {values.shape[1]}, gallery ones {like.shape[1]}"
        raise EvaluationError(f"{sizes}; embed both by one model")
    return np.ascontiguousarray(values, np.float32)


def check_unit_length(name: str, embeddings: np.ndarray, rows: np.ndarray | None = None) -> None:
    """Refuse embeddings, of some rows or all, that are not of length 1, naming the first; NaN and infinity are not."""
    length = np.sqrt(np.einsum("ij,ij->i", embeddings, embeddings))
    bad = ~(np.abs(length - 1) <= LENGTH_TOLERANCE)
    if rows is not None:
        bad &= np.isin(np.arange(len(bad)), rows)
    if bad.any():
        row = int(np.argmax(bad))
        remedy = "scale it (`Features.normalised`)" if np.isfinite(length[row]) else "encode it in float32"
        so = f"and so {int(bad.sum())} of {len(bad)} embeddings are not of length 1"
        raise EvaluationError(f"{name}[{row}] has length {length[row]:.6g}, {so}; {remedy}")
