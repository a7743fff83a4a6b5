"""How much of two neighbourhoods is shared, for re-ranking: in numpy, or compiled where numba is installed.

Both ways add the same numbers in the same order, so they give the same to the bit; the numpy way is the other's oracle.
"""

from collections.abc import Callable

import numpy as np
from scipy import sparse

from handclip_lib.evaluation.ranking.compiling import compiled

INDICES, VALUES = "int64[::1]", "float32[::1]"
SIGNATURE = f"void(float32[:,::1], int64[::1], {INDICES}, {INDICES}, {VALUES}, {INDICES}, {INDICES}, {VALUES}, float32)"


def add_overlap(
    similarity: np.ndarray, block: np.ndarray, weights: sparse.csr_array, having: sparse.csc_array, share: float
) -> None:
    """Add to each similarity `share` times the overlap of the two neighbourhoods: shared weight over weight of either.

    Args:
        similarity: float32 (n_rows, n_gallery), changed in place.
        block: Queries of the rows, int64 (n_rows,), rows of `weights`.
        weights: Neighbours of every image, float32; each row sums to 1, so the weight of either is 2 less the shared.
            Its indices are int64, as `having`'s.
        having: The gallery's rows of `weights`, by neighbour.
        share: Of the overlap in the similarity, 0..1.
    """
    run = kernel(len(weights.indptr) * similarity.shape[1])
    if run is not None:
        both = (part for matrix in (weights, having) for part in (matrix.indptr, matrix.indices, matrix.data))
        run(similarity, block, *both, np.float32(share))
        return
    for i, query in enumerate(block):
        own = slice(*weights.indptr[query : query + 2])
        shared = _shared_weight(weights.indices[own], weights.data[own], having, similarity.shape[1])
        similarity[i] += np.float32(share) * (shared / (2 - shared))


def kernel(n_scores: int) -> Callable | None:
    """The compiled way; None where numba is missing, or not worth its import."""
    found = compiled(_add_rows, SIGNATURE, n_scores)
    return found and found[0]


def _shared_weight(neighbours: np.ndarray, weights: np.ndarray, having: sparse.csc_array, n_gallery: int) -> np.ndarray:
    """Of a query's neighbours, the sum of the smaller of its weight and that of each gallery image, (n_gallery,)."""
    start, stop = having.indptr[neighbours], having.indptr[neighbours + 1]
    count = stop - start
    at = np.arange(count.sum()) + np.repeat(start - (np.cumsum(count) - count), count)
    smaller = np.minimum(np.repeat(weights, count), having.data[at])
    return np.bincount(having.indices[at], smaller, n_gallery).astype(np.float32)


def _add_rows(
    similarity: np.ndarray, block: np.ndarray, begins: np.ndarray, neighbours: np.ndarray, weights: np.ndarray,
    having_begins: np.ndarray, having: np.ndarray, having_weights: np.ndarray, share: np.float32,
) -> None:  # fmt: skip
    """What `add_overlap` does, an entry at a time; compiled by numba."""
    shared = np.zeros(similarity.shape[1])
    touched = np.empty(similarity.shape[1], np.int64)
    for row in range(len(block)):
        n_touched = 0
        for own in range(begins[block[row]], begins[block[row] + 1]):
            neighbour = neighbours[own]
            for at in range(having_begins[neighbour], having_begins[neighbour + 1]):
                item = having[at]
                if shared[item] == 0:
                    touched[n_touched] = item
                    n_touched += 1
                shared[item] += min(weights[own], having_weights[at])
        for item in touched[:n_touched]:
            overlap = np.float32(shared[item])
            similarity[row, item] += share * (overlap / (np.float32(2) - overlap))
            shared[item] = 0
