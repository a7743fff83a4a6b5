"""Which gallery images are matches of which query: labels read, checked and coded."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from handclip_lib.errors import EvaluationError

NO_CAMERA = -1  # equal to no camera's code


@dataclass(frozen=True)
class Labels:
    """Labels of queries and gallery as whole-number codes, equal where the labels are.

    Attributes:
        query, gallery: Identities, int32 (n_query,) and (n_gallery,).
        query_cameras, gallery_cameras: Likewise; `NO_CAMERA` for every query without the same-camera filter.
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
            raise EvaluationError(
                f"{'gallery' if filtered else 'query'}_cameras is missing; the same-camera filter needs the cameras of "
                "both sides, or neither"
            )
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
        n = len(self.rows)
        if n == 0:
            return "every query is left out by `exclude`; leave fewer out"
        if self.filtered:
            return (
                f"all query identities are missing from the gallery ({n} queries), once gallery images of the "
                "query's own identity and camera are ignored: with one camera the filter removes every match. "
                "Leave the cameras out"
            )
        return f"all query identities are missing from the gallery ({n} queries); are both from one split?"


def as_array(name: str, values: object) -> np.ndarray:
    """Values as a numpy array; an EvaluationError where they are none."""
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as fault:  # ragged lists; tensors with a gradient or on a GPU
        raise EvaluationError(
            f"{name} cannot be read as a numpy array ({fault}); for a tensor: `.detach().cpu().numpy()`"
        ) from fault


def _codes(what: str, query: object, gallery: object, n_query: int, n_gallery: int) -> tuple[np.ndarray, np.ndarray]:
    """Whole-number codes, equal where the labels are equal."""
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
