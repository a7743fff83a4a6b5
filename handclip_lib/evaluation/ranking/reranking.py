"""A second look at a ranking: k-reciprocal neighbours and query expansion. Always report it next to the plain figure.

Both use the whole gallery at once (re-ranking the other queries as well): what a search of one image by one cannot do.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy import sparse

from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.features import check_memory
from handclip_lib.evaluation.ranking.counting import compiled
from handclip_lib.evaluation.ranking.retrieval import check_unit_length, embeddings_of
from handclip_lib.machine import workers

SMALLEST = 1e-6  # of what is a squared distance rather than rounding: images may all be the same
BLOCK_BYTES = 8 * 2**20  # of similarities, or of gathered embeddings, at once: near the cache
ROWS, COLUMNS = 512, 2048  # of a tile of similarities: 4 MiB
LAST = np.uint64(2**64 - 1)  # a key after every other
INDICES, VALUES = "int64[::1]", "float32[::1]"
SIGNATURE = f"void(float32[:,::1], int64[::1], {INDICES}, {INDICES}, {VALUES}, {INDICES}, {INDICES}, {VALUES}, float32)"


def rerank_similarity(
    query: np.ndarray, gallery: np.ndarray, k1: int = 20, k2: int = 6, distance_share: float = 0.3
) -> np.ndarray:
    """Similarity by k-reciprocal neighbours: two images are alike if they are neighbours of the same images.

    As the authors' program, and every re-identification toolbox after it, has it, where that and the paper differ:
    squared distances are divided by each image's largest; a neighbour's neighbours join if *more* than 2/3 are shared.
    An image is always its own first neighbour, and of equally distant ones the first in order is taken.
    From embeddings of length 1: 1 less the re-ranked distance, float32 (n_query, n_gallery), 0..1.

    Args:
        k1: Neighbours of an image, beside itself.
        k2: Images, itself one of them, over which a neighbourhood is averaged; 1 for none.
        distance_share: Share of the plain distance in the sum, 0..1; the rest is the Jaccard distance (λ).

    Source: Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017.
    """
    query, gallery = _checked(query, gallery)
    n, n_query, n_gallery = len(query) + len(gallery), len(query), len(gallery)
    if not 1 <= k1 < n:
        raise EvaluationError(f"k1={k1} neighbours of each of {n} images; choose from 1 to {n - 1}")
    if not 1 <= k2 <= k1 + 1:
        raise EvaluationError(f"k2={k2}; choose from 1 to k1 + 1 = {k1 + 1}")
    if not 0 <= distance_share <= 1:
        raise EvaluationError(f"distance_share={distance_share}; a share from 0 to 1 is wanted")
    needed = 4 * BLOCK_BYTES + n * (4 * query.shape[1] + 8 * (k1 + 1) ** 2 + 16 * k1 * k2) + 4 * n_query * n_gallery
    check_memory(f"re-ranking {n:,} images", needed, "re-rank a part of the gallery")
    images = np.concatenate([query, gallery])
    similarity = np.empty((n_query, n_gallery), np.float32)
    neighbours, furthest = _neighbours(images, k1 + 1, similarity)
    weights = _weights(images, _expanded(neighbours, k1), furthest)  # sparse (n, n), a row sums to 1
    if k2 > 1:
        weights = (_pattern(neighbours[:, :k2], np.float32(1 / k2)) @ weights).tocsr()
    # Only images that share a neighbour have a Jaccard distance below 1: from a neighbour to those who have it.
    having = weights[n_query:].tocsc()
    for matrix in (weights, having):  # scipy chooses int32 where they suffice
        matrix.indptr, matrix.indices = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64)
    size = max(1, BLOCK_BYTES // (4 * n_gallery))

    def compare(start: int) -> None:
        rows = np.arange(start, min(start + size, n_query))
        # 1 - share × distance - (1 - share) × (1 - overlap), in one array
        block = similarity[start : start + size]
        block -= 1  # exact, before the scale, which is large where all images are nearly the same
        block *= 2 * distance_share / furthest[rows, None]
        block += distance_share
        add_overlap(block, rows, weights, having, 1 - distance_share)
        np.clip(block, 0, 1, out=block)

    with workers() as pool:
        list(pool.map(compare, range(0, n_query, size)))
    return similarity


def alpha_query_expansion(query: np.ndarray, gallery: np.ndarray, k: int = 10, alpha: float = 3.0) -> np.ndarray:
    """Add to each query its nearest gallery images, weighted by their cosine to the power of alpha.

    A cosine of 0 or below has weight 0: its power is none. Of equally near images the first in order is taken. The k
    is 50 of many thousands in the paper; an alpha of 0 is the plain mean. Embeddings are of length 1, (n, size), as
    those returned, float32 (n_query, size), to rank in place of the first.

    Source: Radenović, Tolias & Chum, "Fine-tuning CNN Image Retrieval with No Human Annotation", TPAMI 2019, §3.4.
    """
    query, gallery = _checked(query, gallery)
    if not 1 <= k <= len(gallery):
        raise EvaluationError(f"k={k} images are to be added; choose from 1 to the gallery's {len(gallery)}")
    if not (np.isfinite(alpha) and alpha >= 0):
        raise EvaluationError(f"alpha={alpha}; a number from 0 is wanted")
    expanded = np.empty_like(query)
    size = max(1, BLOCK_BYTES // (4 * max(len(gallery), k * gallery.shape[1])))
    for start in range(0, len(query), size):
        block = query[start : start + size]
        similarity = block @ gallery.T
        added = nearest(similarity, k)
        cosine = np.take_along_axis(similarity, added, axis=1)
        weight = np.where(cosine > 0, np.abs(cosine) ** np.float32(alpha), 0)
        summed = block + np.einsum("qk,qks->qs", weight, gallery[added])
        expanded[start : start + size] = summed / np.linalg.norm(summed, axis=1, keepdims=True)
    return expanded


def _checked(query: np.ndarray, gallery: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    gallery = embeddings_of("gallery", gallery)
    query = embeddings_of("query", query, gallery)
    check_unit_length("query", query)
    check_unit_length("gallery", gallery)
    return query, gallery


def _neighbours(images: np.ndarray, k: int, similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each image's k nearest, nearest first, itself the first, int32 (n, k); and its largest squared distance, (n,).

    Two images are multiplied once: a block of images with those from its first on, which serves both sides. What the
    queries, which stand first, have with the gallery is written into `similarity`, (n_query, n_gallery).
    """
    n = len(images)
    best, lowest = np.full((n, k), LAST), np.full(n, np.inf, np.float32)
    size = min(max(k, ROWS), n)
    with workers() as pool:
        for start in range(0, n, size):
            stop = min(start + size, n)
            least = None if start == 0 else _nearer(best[start:stop])
            tiles = partial(_tile, images, similarity, best, lowest, slice(start, stop), least)
            lows, *found = zip(*pool.map(tiles, range(start, n, COLUMNS)), strict=True)
            np.minimum(lowest[start:stop], np.min(lows, axis=0), out=lowest[start:stop])
            _keep(best[start:stop], *(np.concatenate(part) for part in found))
    best.sort(axis=1)
    return (best & 0xFFFFFFFF).astype(np.int32), np.maximum(2 - 2 * lowest, SMALLEST)


def _tile(
    images: np.ndarray, similarity: np.ndarray, best: np.ndarray, lowest: np.ndarray, rows: slice,
    least: np.ndarray | None, begin: int,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    """Multiply some images with those of some columns; what these gain is kept, what the images gain is returned.

    The lowest similarity of each image, and places among the rows, similarities and columns of what may be nearest.
    `least` is what that must be at least, None in the first rows.
    """
    end, (n_query, k) = min(begin + COLUMNS, len(images)), (len(similarity), best.shape[1])
    block = images[rows] @ images[begin:end].T
    if rows.start < n_query < end:
        first = max(begin, n_query)
        similarity[rows, first - n_query : end - n_query] = block[: n_query - rows.start, first - begin :]
    low, later = block.min(axis=1), slice(max(rows.stop, begin), end)
    others = block[:, later.start - begin :]
    if others.shape[1]:
        np.minimum(lowest[later], others.min(axis=0), out=lowest[later])
        enough = _bound(others.T, k) if least is None else _nearer(best[later])
        row, column = np.divmod(np.flatnonzero(others >= enough), others.shape[1])
        _keep(best[later], column, others[row, column], row + rows.start)
    if begin < rows.stop:
        own = np.arange(max(rows.start, begin), min(rows.stop, end))
        block[own - rows.start, own - begin] = np.inf
    if least is None:
        least = _bound(block, k) if end - begin >= k else np.full(len(block), -np.inf, np.float32)
    row, column = np.divmod(np.flatnonzero(block >= least[:, None]), end - begin)
    return low, row, block[row, column], column + begin


def _nearer(best: np.ndarray) -> np.ndarray:
    """What comes later in order has to be nearer than the k there are, not as near: the least of that, float32 (n,)."""
    return np.nextafter(_furthest(best), np.float32(np.inf))


def _furthest(best: np.ndarray) -> np.ndarray:
    """The similarity in the last of each row's keys, float32 (n,)."""
    bits = ~(best.max(axis=1) >> 32).astype(np.uint32)
    return np.where(bits >> 31, bits & 0x7FFFFFFF, ~bits).astype(np.uint32).view(np.float32)


def _keep(best: np.ndarray, row: np.ndarray, similarity: np.ndarray, column: np.ndarray) -> None:
    """Put what is nearer in the place of what is not, in some rows of the keys of the nearest, uint64 (n, k).

    A key is the similarity, its bits in the opposite order, and then the column: the smaller, the earlier in a ranking.
    """
    order = np.argsort(row, kind="stable")
    bits = (similarity[order] + np.float32(0)).view(np.uint32)  # -0 becomes 0
    keys = (np.where(bits >> 31, bits, ~bits & 0x7FFFFFFF).astype(np.uint64) << 32) | column[order].astype(np.uint64)
    touched, begin, count = np.unique(row[order], return_index=True, return_counts=True)
    if not len(touched):
        return
    k = best.shape[1]
    wide = np.full((len(touched), k + count.max()), LAST)
    wide[:, :k] = best[touched]
    wide[np.repeat(np.arange(len(touched)), count), k + np.arange(len(keys)) - np.repeat(begin, count)] = keys
    wide.partition(k - 1, axis=1)
    best[touched] = wide[:, :k]


def _bound(similarity: np.ndarray, k: int) -> np.ndarray:
    """At most the k-th largest of each row, and near it, (n,): that of the maxima over a few columns each."""
    n, m = similarity.shape
    fold = max(1, min(16, m // (4 * k)))
    width = m // fold
    highest = similarity[:, : fold * width].reshape(n, fold, width).max(axis=1)
    return np.partition(highest, width - k, axis=1)[:, width - k]


def nearest(similarity: np.ndarray, k: int) -> np.ndarray:
    """Columns of the k largest of each row, the largest first and of equal ones the first in order: int64 (n, k)."""
    n, m = similarity.shape
    row, column = np.divmod(np.flatnonzero(similarity >= _bound(similarity, k)[:, None]), m)
    order = np.lexsort((column, -similarity[row, column], row))
    first = np.searchsorted(row, np.arange(n))
    return column[order][first[:, None] + np.arange(k)]


def _pattern(columns: np.ndarray, value: np.float32, kept: np.ndarray | None = None) -> sparse.csr_array:
    """A square sparse matrix with `value` at some columns, (n, k), of each row; all or those that are kept."""
    n = len(columns)
    kept = np.ones(columns.shape, bool) if kept is None else kept
    starts = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
    chosen = columns[kept]
    return sparse.csr_array((np.full(len(chosen), value), chosen, starts.astype(np.int64)), shape=(n, n))


def _reciprocal(neighbours: np.ndarray) -> sparse.csr_array:
    """1 where two images are among each other's neighbours."""
    theirs = neighbours[neighbours]  # (n, k, k): the neighbours of the neighbours
    mutual = (theirs == np.arange(len(neighbours))[:, None, None]).any(axis=2)
    return _pattern(neighbours, np.float32(1), mutual)


def _expanded(neighbours: np.ndarray, k1: int) -> sparse.csr_array:
    """R* of the paper: an image's reciprocal neighbours, and theirs (of half as many) that are mostly the same."""
    near = _reciprocal(neighbours)
    half = _reciprocal(neighbours[:, : round(k1 / 2) + 1])
    shared = (near @ half.T).multiply(near).tocsr()  # of half's row j, how many are in near's row i
    size = np.diff(half.indptr)
    shared.data = (3 * shared.data > 2 * size[shared.indices]).astype(np.float32)
    shared.eliminate_zeros()
    return (near + shared @ half).tocsr()


def _weights(images: np.ndarray, near: sparse.csr_array, furthest: np.ndarray) -> sparse.csr_array:
    """Gaussian weights of the neighbours, each row divided by its sum."""
    near.sort_indices()
    row, column = np.repeat(np.arange(len(images)), np.diff(near.indptr)), near.indices
    weight = np.empty(len(row), np.float32)
    size = max(1, BLOCK_BYTES // (8 * images.shape[1]))
    for start in range(0, len(row), size):
        at = slice(start, start + size)
        cosine = np.einsum("ns,ns->n", images[row[at]], images[column[at]])
        weight[at] = np.exp((2 * cosine - 2) / furthest[row[at]])
    total = np.bincount(row, weight, len(images)).astype(np.float32)
    return sparse.csr_array((weight / total[row], column, near.indptr), shape=near.shape)


def add_overlap(
    similarity: np.ndarray, block: np.ndarray, weights: sparse.csr_array, having: sparse.csc_array, share: float
) -> None:
    """Add to each similarity `share` times the overlap of the two neighbourhoods: shared weight over weight of either.

    In numpy, or compiled where numba is installed: both add the same numbers in the same order, so they give the same
    to the bit; the numpy way is the other's oracle. Each row of `weights` sums to 1, so the weight of either is 2 less
    the shared. The similarity, float32 (n_rows, n_gallery), is that of the block's rows of `weights`; `having` is the
    gallery's rows of it by neighbour.
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
    made = compiled(_add_rows, SIGNATURE, n_scores)
    return made and made[0]


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
