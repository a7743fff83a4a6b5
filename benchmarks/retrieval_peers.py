"""How others turn embeddings into CMC + mAP and re-rank, written from the published definitions; none of their code."""

from collections.abc import Callable

import numpy as np

TOP = (1, 5, 10)
MAX_RANK = 50


def sort_each_query(similarity: np.ndarray, query_ids: np.ndarray, gallery_ids: np.ndarray) -> tuple[float, float]:
    """Rank-1 and mAP as CLIP-FH's evaluator works them out: per query a full sort, then a Python loop over matches."""
    hits, average = dict.fromkeys(TOP, 0), []
    for query, identity in enumerate(query_ids):
        order = np.argsort(similarity[query])[::-1]
        found = gallery_ids[order] == identity
        for k in TOP:
            hits[k] += bool(np.any(found[:k]))
        places = np.nonzero(found)[0]
        precision = [nth / (place + 1) for nth, place in enumerate(places, 1)]
        average.append(np.mean(precision) if precision else 0.0)
    return hits[1] / len(query_ids), float(np.mean(average))


def cumulated_in_numpy(
    distance: np.ndarray, query_ids: np.ndarray, gallery_ids: np.ndarray, query_cameras: np.ndarray,
    gallery_cameras: np.ndarray,
) -> tuple[float, float]:  # fmt: skip
    """The numpy form of torchreid, fast-reid and CLIP-ReID: sort all, per query drop own camera's, cumulate."""
    order = np.argsort(distance, axis=1)
    found = (gallery_ids[order] == query_ids[:, None]).astype(np.int32)
    cmc, average = [], []
    for query, identity in enumerate(query_ids):
        own = (gallery_ids[order[query]] == identity) & (gallery_cameras[order[query]] == query_cameras[query])
        kept = found[query][~own]
        if not kept.any():
            continue
        cumulated = kept.cumsum()
        cmc.append(np.minimum(cumulated, 1)[:MAX_RANK])
        precision = np.asarray([count / (place + 1.0) for place, count in enumerate(cumulated)]) * kept
        average.append(precision.sum() / kept.sum())
    return float(np.mean([row[0] for row in cmc])), float(np.mean(average))


def _cumulated_rows(
    order: np.ndarray, found: np.ndarray, query_ids: np.ndarray, gallery_ids: np.ndarray, query_cameras: np.ndarray,
    gallery_cameras: np.ndarray,
) -> tuple[float, float]:  # fmt: skip
    n_query, n_gallery = order.shape
    kept, cumulated = np.zeros(n_gallery, np.float32), np.zeros(n_gallery, np.float32)
    cmc, average, valid = np.zeros((n_query, min(MAX_RANK, n_gallery)), np.float32), np.float32(0), 0
    for query in range(n_query):
        n_kept, any_found = 0, False
        for place in range(n_gallery):
            image = order[query, place]
            if gallery_ids[image] != query_ids[query] or gallery_cameras[image] != query_cameras[query]:
                kept[n_kept] = found[query, place]
                any_found |= found[query, place] > 0
                n_kept += 1
        if not any_found:
            continue
        valid += 1
        cumulated[0] = kept[0]
        for place in range(1, n_kept):
            cumulated[place] = cumulated[place - 1] + kept[place]
        for k in range(cmc.shape[1]):
            cmc[query, k] = min(cumulated[k], np.float32(1))
        summed, relevant = np.float32(0), np.float32(0)
        for place in range(n_kept):
            summed += cumulated[place] / np.float32(place + 1) * kept[place]
            relevant += kept[place]
        average += summed / relevant
    return cmc[:, 0].sum() / valid, average / valid


def cumulated_compiled() -> Callable[..., tuple[float, float]]:
    """The compiled form: numba's, in the place of torchreid's and fast-reid's Cython, which is the same algorithm."""
    import numba

    rows = numba.njit(_cumulated_rows)

    def evaluate(
        distance: np.ndarray, query_ids: np.ndarray, gallery_ids: np.ndarray, query_cameras: np.ndarray,
        gallery_cameras: np.ndarray,
    ) -> tuple[float, float]:  # fmt: skip
        order = np.argsort(distance, axis=1)
        found = (gallery_ids[order] == query_ids[:, None]).astype(np.int64)
        return rows(order, found, query_ids, gallery_ids, query_cameras, gallery_cameras)

    return evaluate


def rerank_densely(query: np.ndarray, gallery: np.ndarray, k1: int = 20, k2: int = 6, share: float = 0.3) -> np.ndarray:
    """k-reciprocal re-ranking as CLIP-ReID ships it: matrices of all images by all images, float16 weights, loops."""
    images = np.concatenate([query, gallery])
    n, n_query = len(images), len(query)
    distance = 2 - 2 * images @ images.T
    distance = np.transpose(distance / distance.max(axis=0))
    order = np.argsort(distance).astype(np.int32)
    weights = np.zeros_like(distance).astype(np.float16)

    def reciprocal(image: int, k: int) -> np.ndarray:
        near = order[image, : k + 1]
        return near[np.nonzero(order[near, : k + 1] == image)[0]]

    for image in range(n):
        own = reciprocal(image, k1)
        joined = own
        for candidate in own:
            theirs = reciprocal(candidate, int(np.around(k1 / 2)))
            if len(np.intersect1d(theirs, own)) > 2 / 3 * len(theirs):
                joined = np.append(joined, theirs)
        joined = np.unique(joined)
        weight = np.exp(-distance[image, joined])
        weights[image, joined] = weight / weight.sum()
    distance = distance[:n_query]
    if k2 != 1:
        averaged = np.zeros_like(weights)
        for image in range(n):
            averaged[image] = weights[order[image, :k2]].mean(axis=0)
        weights = averaged
    having = [np.nonzero(weights[:, image])[0] for image in range(n)]
    jaccard = np.zeros_like(distance, dtype=np.float16)
    for image in range(n_query):
        shared = np.zeros((1, n), np.float16)
        for neighbour in np.nonzero(weights[image])[0]:
            theirs = having[neighbour]
            shared[0, theirs] += np.minimum(weights[image, neighbour], weights[theirs, neighbour])
        jaccard[image] = 1 - shared / (2 - shared)
    return (jaccard * (1 - share) + distance * share)[:, n_query:]
