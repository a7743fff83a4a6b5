"""CMC, mAP and mINP of a similarity matrix, counted without sorting the gallery."""

import warnings
from dataclasses import dataclass

import numpy as np

from handclip_lib.errors import EvaluationError

BLOCK_BYTES = 4 * 2**20  # of similarities at once: near the cache, and under 200 MB even if all are matches
FEW_MATCHES = 3  # up to here a pass over the gallery for each match beats sorting the rivals
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
    similarity: np.ndarray,
    query_ids: np.ndarray,
    gallery_ids: np.ndarray,
    query_cameras: np.ndarray | None = None,
    gallery_cameras: np.ndarray | None = None,
    exclude: np.ndarray | None = None,
) -> RetrievalMetrics:
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
    query, gallery = _codes("ids", query_ids, gallery_ids, n_query, n_gallery)
    cameras = _cameras(query_cameras, gallery_cameras, n_query, n_gallery)
    wanted = np.ones(n_query, bool) if exclude is None else ~_checked_mask(exclude, n_query)

    rank = np.zeros(n_query, np.int64)
    per_query = np.full((3, n_query), np.nan)
    tied = 0
    rows = np.flatnonzero(wanted)
    precision = similarity.dtype if similarity.dtype == np.float32 else np.dtype(np.float64)
    size = max(1, BLOCK_BYTES // (n_gallery * precision.itemsize))
    for block in (rows[i : i + size] for i in range(0, len(rows), size)):
        scores = _finite(similarity[block].astype(precision, copy=False), block)
        match = query[block, None] == gallery[None, :]
        if cameras is not None:
            same = match & (cameras[0][block, None] == cameras[1][None, :])
            scores[same] = -np.inf
            match &= ~same
        best_rank, measures, n_tied = _measure(scores, match)
        rank[block], per_query[:, block] = best_rank, measures
        tied += n_tied
    matched = int((rank > 0).sum())
    if not matched:
        raise EvaluationError(_nothing_matched(cameras is not None, len(rows)))
    if tied / matched > TIED_SHARE_WARNED:
        message = f"{tied} of {matched} best matches are tied with another identity: the embeddings may have collapsed"
        warnings.warn(message, TiedScoresWarning, stacklevel=2)
    n_excluded = n_query - len(rows)
    standard, trapezoid, inverse = per_query
    n_unmatched = len(rows) - matched
    return RetrievalMetrics(rank, standard, trapezoid, inverse, n_gallery, n_unmatched, n_excluded, tied / matched)


def _measure(scores: np.ndarray, match: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Measure a block: the rank of the first match, (AP, trapezoid AP, INP), and how many best matches are tied.

    `scores` is overwritten: the matches leave, so that what remains are the images of other identities.
    """
    row, column = np.divmod(np.flatnonzero(match), match.shape[1])  # faster than np.nonzero
    n_match = np.bincount(row, minlength=len(match))
    found = scores[row, column]
    order = np.lexsort((-found, row))
    place = np.arange(len(row)) - np.repeat(np.cumsum(n_match) - n_match, n_match)
    best_first = np.zeros((len(scores), max(1, int(n_match.max(initial=0)))), scores.dtype)
    best_first[row[order], place] = found[order]
    scores[row, column] = -np.inf

    matched = n_match > 0
    nth = np.arange(1, best_first.shape[1] + 1)
    there = nth <= n_match[:, None]
    rank = np.where(there, _others_at_or_above(scores, best_first, n_match) + nth, 0)
    precision = np.where(there, nth / np.maximum(rank, 1), 0)
    before = np.where(rank > 1, (nth - 1) / np.maximum(rank - 1, 1), 1.0) * there
    last = rank.max(1)
    measures = np.full((3, len(scores)), np.nan)
    measures[0, matched] = precision.sum(1)[matched] / n_match[matched]
    measures[1, matched] = ((precision + before) / 2).sum(1)[matched] / n_match[matched]
    measures[2, matched] = n_match[matched] / last[matched]
    best = np.where(matched, best_first[:, 0], np.nan)
    n_tied = int((scores == best[:, None].astype(scores.dtype)).any(1).sum())
    return rank[:, 0], measures, n_tied


def _others_at_or_above(scores: np.ndarray, best_first: np.ndarray, n_match: np.ndarray) -> np.ndarray:
    """How many images of other identities score at least as high as each match: whole numbers, like `best_first`."""
    ahead = np.zeros(best_first.shape, np.int64)
    if best_first.shape[1] <= FEW_MATCHES:
        for j in range(best_first.shape[1]):
            ahead[:, j] = np.count_nonzero(scores >= best_first[:, j, None], axis=1)
        return ahead
    for query in np.flatnonzero(n_match):
        matches, row = best_first[query, : n_match[query]], scores[query]
        rivals = np.sort(row[row >= matches[-1]])  # only these are ahead of any match
        ahead[query, : len(matches)] = len(rivals) - np.searchsorted(rivals, matches, "left")
    return ahead


def _array(name: str, values: object) -> np.ndarray:
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as fault:  # ragged lists; tensors with a gradient or on a GPU
        raise EvaluationError(
            f"{name} cannot be read as a numpy array ({fault}); for a tensor: `.detach().cpu().numpy()`"
        ) from fault


def _checked_similarity(similarity: np.ndarray) -> np.ndarray:
    similarity = _array("similarity", similarity)
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


def _codes(
    what: str, query: np.ndarray, gallery: np.ndarray, n_query: int, n_gallery: int
) -> tuple[np.ndarray, np.ndarray]:
    """Whole-number codes, equal where the labels are equal."""
    left = _labels(f"query_{what}", query, n_query)
    right = _labels(f"gallery_{what}", gallery, n_gallery)
    if left.dtype.kind != right.dtype.kind:
        raise EvaluationError(f"query_{what} and gallery_{what} are text and numbers; use one kind for both")
    codes = np.unique(np.concatenate([left, right]), return_inverse=True)[1].ravel().astype(np.int32)
    return codes[:n_query], codes[n_query:]


def _labels(name: str, values: np.ndarray, n: int) -> np.ndarray:
    """Labels as int64 or text, (n,): a missing one is refused, for it would match every other missing one."""
    # numpy would turn a list like [1, "1"] into text, and so merge the two
    labels = _array(name, values) if hasattr(values, "dtype") else np.array(values, dtype=object)
    if labels.shape != (n,):
        raise EvaluationError(f"{name} has shape {labels.shape}; ({n},) is wanted, one for each of them")
    if labels.dtype.kind in "OT":
        wanted = str if isinstance(labels[0], str) else (int, np.integer)
        for i, label in enumerate(labels.tolist()):
            if not isinstance(label, wanted) or isinstance(label, bool):
                raise EvaluationError(f"{name}[{i}] is {label!r}; all whole numbers or all text are wanted")
        labels = np.array(labels.tolist())
    if labels.dtype.kind == "U":
        return labels
    if labels.dtype.kind not in "iu" or labels.max() > np.iinfo(np.int64).max:
        raise EvaluationError(f"{name} are {labels.dtype}; int64 or text is wanted, none missing (floats merge ids)")
    return labels.astype(np.int64)  # numpy compares int64 with uint64 as float64


def _cameras(
    query: np.ndarray | None, gallery: np.ndarray | None, n_query: int, n_gallery: int
) -> tuple[np.ndarray, np.ndarray] | None:
    if (query is None) != (gallery is None):
        missing = "query_cameras" if query is None else "gallery_cameras"
        raise EvaluationError(
            f"{missing} is missing; the same-camera filter needs the cameras of both sides, or neither"
        )
    if query is None or gallery is None:
        return None
    return _codes("cameras", query, gallery, n_query, n_gallery)


def _checked_mask(exclude: np.ndarray, n_query: int) -> np.ndarray:
    exclude = _array("exclude", exclude)
    if exclude.shape != (n_query,) or exclude.dtype != bool:
        raise EvaluationError(f"exclude is {exclude.dtype} {exclude.shape}; bool ({n_query},) is wanted")
    return exclude


def _nothing_matched(filtered: bool, n_query: int) -> str:
    if n_query == 0:
        return "every query is left out by `exclude`; leave fewer out"
    if filtered:
        return (
            f"all query identities are missing from the gallery ({n_query} queries), once gallery images of the "
            "query's own identity and camera are ignored: with one camera the filter removes every match. "
            "Leave the cameras out"
        )
    return f"all query identities are missing from the gallery ({n_query} queries); are both from one split?"
