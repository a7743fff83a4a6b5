"""The rank of every match, counted without sorting the gallery: in numpy, or compiled where numba is installed.

Both ways give the same results to the bit: ranks are whole numbers, and what is summed is summed in the order of the
ranks. The numpy way is the plain one, and the oracle of the other.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from handclip_lib.errors import EvaluationError

NO_CAMERA = -1  # equal to no camera's code
COMPILED_FROM = 2**25  # similarities in all, below which numba's import costs more than it saves
MOST_THREADS = 16
NUMPY_BYTES = 4 * 2**20  # of scores at once: near the cache, and under 200 MB even if all are matches
THREADED_FROM = 2**20  # scores in a block, below which a thread costs more than it saves
FEW_MATCHES = 3  # numpy: up to here a pass over the gallery for each match beats sorting the rivals
MANY_MATCHES = 1024  # compiled: from here sorting the rivals beats a pass for each match
LABELS = "int64[::1], int64[::1], int64[::1], int32[::1], int32[::1]"
RESULTS = "int64[::1], float64[:,::1], boolean[::1]"

_compiled: dict[tuple[Callable, str], tuple[Callable, int] | None] = {}
_lock = threading.Lock()


@dataclass(frozen=True)
class Labels:
    """Identities and cameras of queries and gallery as whole-number codes, int32, equal where the labels are.

    Attributes:
        query_cameras: `NO_CAMERA` for every query without the same-camera filter.
        filtered: Whether gallery images of the query's own identity and camera are ignored.
        rows: Queries that are not left out, ascending, int64.
    """

    query: np.ndarray
    gallery: np.ndarray
    query_cameras: np.ndarray
    gallery_cameras: np.ndarray
    filtered: bool
    rows: np.ndarray

    @classmethod
    def of(
        cls, n_query: int, n_gallery: int, query_ids: np.ndarray, gallery_ids: np.ndarray,
        query_cameras: np.ndarray | None = None, gallery_cameras: np.ndarray | None = None,
        exclude: np.ndarray | None = None,
    ) -> "Labels":  # fmt: skip
        """Read labels as `retrieval_metrics` takes them."""
        query, gallery = _codes("ids", query_ids, gallery_ids, n_query, n_gallery)
        filtered = query_cameras is not None
        if filtered != (gallery_cameras is not None):
            missing = f"{'gallery' if filtered else 'query'}_cameras is missing"
            raise EvaluationError(f"{missing}; the same-camera filter needs the cameras of both sides, or neither")
        cameras = np.full(n_query, NO_CAMERA, np.int32), np.zeros(n_gallery, np.int32)
        if filtered:
            cameras = _codes("cameras", query_cameras, gallery_cameras, n_query, n_gallery)
        left_out = np.zeros(n_query, bool) if exclude is None else as_array("exclude", exclude)
        if left_out.shape != (n_query,) or left_out.dtype != bool:
            raise EvaluationError(f"exclude is {left_out.dtype} {left_out.shape}; bool ({n_query},) is wanted")
        return cls(query, gallery, *cameras, filtered, np.flatnonzero(~left_out))

    @cached_property
    def by_identity(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Gallery images ordered by identity, int64 (n_gallery,), and where each query's begin and end, (n_query,)."""
        order = np.argsort(self.gallery, kind="stable")
        ordered = self.gallery[order]
        return order, np.searchsorted(ordered, self.query, "left"), np.searchsorted(ordered, self.query, "right")

    def nothing_matched(self) -> str:
        """Why no query has a match, for an error."""
        missing = f"all query identities are missing from the gallery ({len(self.rows)} queries)"
        if not len(self.rows):
            return "every query is left out by `exclude`; leave fewer out"
        if self.filtered:
            once = "once gallery images of the query's own identity and camera are ignored"
            return f"{missing}, {once}: with one camera the filter removes every match. Leave the cameras out"
        return f"{missing}; are both from one split?"


def matches(query: np.ndarray, gallery: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of each query and of each gallery image of the same code, int64 (n,) both, a query's own in order."""
    order = np.argsort(gallery, kind="stable")
    begin, end = (np.searchsorted(gallery[order], query, side) for side in ("left", "right"))
    count = end - begin
    nth = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return np.repeat(np.arange(len(query)), count), order[np.repeat(begin, count) + nth]


def as_array(name: str, values: object) -> np.ndarray:
    """Values as a numpy array; an EvaluationError where they are none."""
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as fault:  # ragged lists; tensors with a gradient or on a GPU
        remedy = "for a tensor: `.detach().cpu().numpy()`"
        raise EvaluationError(f"{name} cannot be read as a numpy array ({fault}); {remedy}") from fault


def _codes(what: str, query: object, gallery: object, n_query: int, n_gallery: int) -> tuple[np.ndarray, np.ndarray]:
    left, right = _labels(f"query_{what}", query, n_query), _labels(f"gallery_{what}", gallery, n_gallery)
    if left.dtype.kind != right.dtype.kind:
        raise EvaluationError(f"query_{what} and gallery_{what} are text and numbers; use one kind for both")
    if left.dtype.kind == "i":
        least, most = min(int(left.min()), int(right.min())), max(int(left.max()), int(right.max()))
        if most - least <= np.iinfo(np.int32).max:  # the numbers are codes themselves: no need to sort them
            return (left - least).astype(np.int32), (right - least).astype(np.int32)
    codes = np.unique(np.concatenate([left, right]), return_inverse=True)[1].ravel().astype(np.int32)
    return codes[:n_query], codes[n_query:]


def _labels(name: str, values: object, n: int) -> np.ndarray:
    """Labels as int64 or text, (n,): a missing one is refused, for it would match every other missing one."""
    # numpy would turn a list like [1, "1"] into text, and so merge the two
    labels = as_array(name, values) if hasattr(values, "dtype") else np.array(values, dtype=object)
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


def measure(
    scores: np.ndarray, rows: np.ndarray, labels: Labels, tie: float = 0.0
) -> tuple[np.ndarray, np.ndarray, int]:
    """Measure the rankings of some rows of the queries by their scores, which are overwritten.

    Scores are float32 or float64 (n_rows, n_gallery), C-contiguous, finite; larger is more alike, and those no
    more than `tie` apart are equal.

    Returns:
        Rank of the first match, int64 (n_rows,), 0 without one; AP, trapezoid AP and inverse negative penalty, float64
        (3, n_rows), NaN without one; and how many best matches are tied with an image of another identity.
    """
    fast = kernel(scores.dtype, len(labels.rows) * scores.shape[1])
    if fast is not None:
        return _measure_compiled(fast, scores, rows, labels, tie)
    size = max(1, NUMPY_BYTES // (scores.shape[1] * scores.itemsize))
    starts = range(0, max(1, len(rows)), size)
    ranks, measures, tied = zip(
        *(_measure_numpy(scores[i : i + size], rows[i : i + size], labels, tie) for i in starts), strict=True
    )
    return np.concatenate(ranks), np.concatenate(measures, axis=1), sum(tied)


def _measure_numpy(
    scores: np.ndarray, rows: np.ndarray, labels: Labels, tie: float
) -> tuple[np.ndarray, np.ndarray, int]:
    match = labels.query[rows, None] == labels.gallery[None, :]
    if labels.filtered:
        same = match & (labels.query_cameras[rows, None] == labels.gallery_cameras[None, :])
        scores[same] = -np.inf
        match &= ~same
    row, column = np.divmod(np.flatnonzero(match), match.shape[1])  # faster than np.nonzero
    n_match = np.bincount(row, minlength=len(match))
    tie = scores.dtype.type(tie)
    matches = scores[row, column] - tie  # so a rival that is no more than this below it is ahead
    order = np.lexsort((-matches, row))
    nth = np.arange(1, len(row) + 1) - np.repeat(np.cumsum(n_match) - n_match, n_match)
    best_first = np.zeros((len(scores), max(1, int(n_match.max(initial=0)))), scores.dtype)
    best_first[row, nth - 1] = matches[order]
    scores[row, column] = -np.inf  # the matches leave: what remains are the images of other identities

    place = _others_at_or_above(scores, best_first, n_match)[row, nth - 1] + nth
    precision = nth / place
    before = np.where(place > 1, (nth - 1) / np.maximum(place - 1, 1), 1.0)
    matched = n_match > 0
    last = np.cumsum(n_match)[matched] - 1
    rank, measures = np.zeros(len(scores), np.int64), np.full((3, len(scores)), np.nan)
    rank[matched] = place[last + 1 - n_match[matched]]
    for i, values in enumerate((precision, (precision + before) / 2)):
        # bincount adds one by one, in the order of the ranks: so do blocks of any size, and the kernel
        measures[i, matched] = np.bincount(row, values, len(scores))[matched] / n_match[matched]
    measures[2, matched] = n_match[matched] / place[last]
    best = np.where(matched, best_first[:, 0], scores.dtype.type(np.nan))[:, None]
    n_tied = int(((scores >= best) & (scores <= best + 2 * tie)).any(1).sum())
    return rank, measures, n_tied


def _others_at_or_above(scores: np.ndarray, best_first: np.ndarray, n_match: np.ndarray) -> np.ndarray:
    """How many images of other identities score at least as high as each match: whole numbers, like `best_first`."""
    ahead = np.zeros(best_first.shape, np.int64)
    if best_first.shape[1] <= FEW_MATCHES:
        for j, matches in enumerate(best_first.T):
            ahead[:, j] = np.count_nonzero(scores >= matches[:, None], axis=1)
        return ahead
    for query in np.flatnonzero(n_match):
        matches, row = best_first[query, : n_match[query]], scores[query]
        rivals = np.sort(row[row >= matches[-1]])  # only these are ahead of any match
        ahead[query, : len(matches)] = len(rivals) - np.searchsorted(rivals, matches, "left")
    return ahead


def kernel(dtype: np.dtype, n_scores: int) -> tuple[Callable, int] | None:
    """The compiled way and its number of threads; None where numba is missing, or not worth its import."""
    return compiled(_measure_rows, f"void({dtype.name}[:,::1], {dtype.name}, {LABELS}, {RESULTS})", n_scores)


def _measure_compiled(
    fast: tuple[Callable, int], scores: np.ndarray, rows: np.ndarray, labels: Labels, tie: float
) -> tuple[np.ndarray, np.ndarray, int]:
    run, threads = fast
    n = len(scores)
    rank, measures, tied = np.zeros(n, np.int64), np.full((n, 3), np.nan), np.zeros(n, bool)
    order, start, stop = labels.by_identity
    begin, end, cameras = start[rows], stop[rows], labels.query_cameras[rows]

    def some(at: slice) -> None:
        matches = order, begin[at], end[at], cameras[at], labels.gallery_cameras
        run(scores[at], scores.dtype.type(tie), *matches, rank[at], measures[at], tied[at])

    on_threads(some, n, threads if scores.size >= THREADED_FROM else 1)
    return rank, measures.T, int(tied.sum())


def _measure_rows(
    scores: np.ndarray, tie: Any, order: np.ndarray, begin: np.ndarray, end: np.ndarray, query_cameras: np.ndarray,
    gallery_cameras: np.ndarray, rank: np.ndarray, measures: np.ndarray, tied: np.ndarray,
) -> None:  # fmt: skip
    """What `_measure_numpy` does, a row at a time; compiled by numba. The last three arrays are filled in."""
    rivals = np.empty(scores.shape[1], scores.dtype)
    for q in range(scores.shape[0]):
        row = scores[q]
        own = np.empty(end[q] - begin[q], scores.dtype)
        n_match = 0
        for column in order[begin[q] : end[q]]:
            if gallery_cameras[column] != query_cameras[q]:
                own[n_match] = row[column] - tie
                n_match += 1
            row[column] = -np.inf
        if n_match == 0:
            continue
        matches = np.sort(own[:n_match])
        n_rivals = 0  # at or above the lowest match: no other is ahead of any
        for score in row:
            rivals[n_rivals] = score
            n_rivals += score >= matches[0]
        ordered = n_match > MANY_MATCHES
        if ordered:
            rivals[:n_rivals] = np.sort(rivals[:n_rivals])
        standard, trapezoid, place = 0.0, 0.0, 0
        for nth in range(1, n_match + 1):
            match = matches[n_match - nth]
            ahead = np.int32(0)
            if ordered:
                ahead = np.int32(n_rivals - np.searchsorted(rivals[:n_rivals], match))
            else:
                for i in range(n_rivals):
                    ahead = np.int32(ahead + np.int32(rivals[i] >= match))  # 32 bits: twice as many at once
            place = int(ahead) + nth
            precision = nth / place
            before = (nth - 1) / (place - 1) if place > 1 else 1.0
            standard += precision
            trapezoid += (precision + before) / 2
            if nth == 1:
                rank[q] = place
                for i in range(n_rivals):
                    tied[q] |= match <= rivals[i] <= match + tie + tie
        measures[q, 0] = standard / n_match
        measures[q, 1] = trapezoid / n_match
        measures[q, 2] = n_match / place


def on_threads(work: Callable[[slice], None], n: int, threads: int) -> None:
    """Work on so many rows in as many slices as there are threads."""
    cuts = np.linspace(0, n, min(threads, n) + 1).astype(int)
    with ThreadPoolExecutor(len(cuts) - 1) as pool:
        list(pool.map(work, map(slice, cuts[:-1], cuts[1:])))


def compiled(
    function: Callable, signature: str, n_scores: int, *, in_any_order: bool = False
) -> tuple[Callable, int] | None:
    """A function of loops compiled, without the interpreter's lock, and on how many threads it may run.

    None where numba is missing, or not worth its import for so many similarities in all. The signature is numba's.
    `in_any_order` lets it add up in another order than written, several numbers at once.
    """
    key = (function, signature)
    if key not in _compiled and n_scores < COMPILED_FROM:
        return None
    with _lock:
        if key not in _compiled:
            _compiled[key] = _compile(function, signature, {"reassoc", "contract"} if in_any_order else False)
    return _compiled[key]


def _compile(function: Callable, signature: str, fastmath: set[str] | bool) -> tuple[Callable, int] | None:
    try:
        import numba
    except ImportError:  # not installed, or not for this version of numpy
        return None
    for cache in (True, False):  # whatever ails the cache (no folder to write, a full disk, a damaged file)
        try:
            njit = numba.njit(signature, cache=cache, nogil=True, error_model="numpy", fastmath=fastmath)
            # read, not asked for by get_num_threads(), which starts numba's own threads
            return njit(function), min(MOST_THREADS, numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
        except Exception:
            continue
    return None
