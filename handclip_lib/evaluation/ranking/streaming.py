"""CMC, mAP and mINP straight from embeddings: similarities live for a block of queries, never all at once."""

from collections.abc import Callable, Iterator

import numpy as np

from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.memory import check_memory
from handclip_lib.evaluation.ranking.labels import Labels, as_array
from handclip_lib.evaluation.ranking.retrieval import RetrievalMetrics, metrics_of_blocks

BLOCK_BYTES = 64 * 2**20  # of similarities at once: enough rows for a multiplication at full speed
LENGTH_TOLERANCE = 1e-3  # what float16 leaves of a length of 1


def rank_features(
    query: np.ndarray, gallery: np.ndarray, query_ids: np.ndarray, gallery_ids: np.ndarray,
    query_cameras: np.ndarray | None = None, gallery_cameras: np.ndarray | None = None,
    exclude: np.ndarray | None = None, *, look: Callable[[np.ndarray, np.ndarray], None] | None = None,
) -> RetrievalMetrics:  # fmt: skip
    """What `retrieval_metrics(query @ gallery.T, …)` gives, without the matrix: 10,000 × 100,000 in under 200 MB.

    A block of queries is multiplied with the gallery and its ranks are counted before the next one is. The blocks
    depend on the size of the gallery alone, so a run repeats to the bit on one machine.

    Args:
        query, gallery: Embeddings of length 1, real (n, size); float32 is used as it is, another type is copied.
        query_ids, gallery_ids, query_cameras, gallery_cameras, exclude: See `retrieval_metrics`; an embedding that
            `exclude` leaves out is not looked at.
        look: Is shown each block: query numbers, and their similarities, which it must leave alone and not keep.

    Raises:
        EvaluationError: A shape, type or value is wrong, an embedding is not of length 1, no query has a match, or
            a block does not fit the memory.
    """
    query, gallery = embeddings_of("query", query), embeddings_of("gallery", gallery)
    check_same_size(query, gallery)
    n_query, n_gallery = len(query), len(gallery)
    labels = Labels.of(n_query, n_gallery, query_ids, gallery_ids, query_cameras, gallery_cameras, exclude)
    check_unit_length("query", query, labels.rows)
    check_unit_length("gallery", gallery)
    n_rows = min(max(1, BLOCK_BYTES // (4 * n_gallery)), n_query)
    copies = 1 if look is None else 4
    check_memory(
        f"ranking a gallery of {n_gallery:,} images",
        n_gallery * (4 * n_rows * copies + 16),  # the block, a row's rivals, and the gallery by identity
        "rank against a part of the gallery, or search it by `GalleryIndex`",
    )

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        scores = np.empty((n_rows, n_gallery), np.float32)
        for start in range(0, len(labels.rows), n_rows):
            rows = labels.rows[start : start + n_rows]
            block = np.matmul(query[rows], gallery.T, out=scores[: len(rows)])
            if look is not None:
                look(rows, block)
            yield rows, block

    return metrics_of_blocks(blocks(), labels)


def embeddings_of(name: str, values: np.ndarray) -> np.ndarray:
    """Embeddings as float32 (n, size), C-contiguous; copied only if they are not.

    Raises:
        EvaluationError: They are of another shape, empty, or not real numbers.
    """
    values = as_array(name, values)
    if values.ndim != 2 or 0 in values.shape:
        raise EvaluationError(f"{name} has shape {values.shape}; (n, embedding size) is wanted, neither empty")
    if values.dtype.kind != "f":
        raise EvaluationError(f"{name} is {values.dtype}; embeddings in float32 are wanted")
    return np.ascontiguousarray(values, np.float32)


def check_same_size(query: np.ndarray, gallery: np.ndarray) -> None:
    """Refuse embeddings of two sizes."""
    if query.shape[1] != gallery.shape[1]:
        raise EvaluationError(
            f"query embeddings have size {query.shape[1]}, gallery ones {gallery.shape[1]}; embed both by one model"
        )


def check_unit_length(name: str, embeddings: np.ndarray, rows: np.ndarray | None = None) -> None:
    """Refuse embeddings, of some rows or all, that are not of length 1, naming the first; NaN and infinity are not."""
    length = np.sqrt(np.einsum("ij,ij->i", embeddings, embeddings))
    bad = ~(np.abs(length - 1) <= LENGTH_TOLERANCE)
    if rows is not None:
        bad &= np.isin(np.arange(len(bad)), rows)
    if bad.any():
        row = int(np.argmax(bad))
        remedy = "scale it (`Features.normalised`)" if np.isfinite(length[row]) else "encode it in float32"
        raise EvaluationError(
            f"{name}[{row}] has length {length[row]:.6g}, and so {int(bad.sum())} of {len(bad)} embeddings are not of "
            f"length 1; {remedy}"
        )
