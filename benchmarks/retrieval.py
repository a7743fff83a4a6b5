"""CMC and mAP: sorting each query's gallery beside counting. `python -m benchmarks.retrieval`."""

import numpy as np

from benchmarks.side_by_side import compare, heading
from handclip_lib.evaluation.retrieval import retrieval_metrics

TOP = (1, 5, 10)


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


def case(n_query: int, n_gallery: int, n_identity: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings of random identities, alike enough within one to make ranks worth computing."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(n_identity, 64)).astype(np.float32)
    query_ids = rng.integers(0, n_identity, n_query)
    gallery_ids = np.arange(n_gallery) % n_identity

    def embed(ids: np.ndarray) -> np.ndarray:
        rows = centres[ids] + 1.5 * rng.normal(size=(len(ids), 64)).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    return embed(query_ids) @ embed(gallery_ids).T, query_ids, gallery_ids


def main() -> None:
    """Print the rows."""
    heading("CMC + mAP from similarities, float32")
    for title, draws, size in (
        ("11k Hands, ten draws, 971 × 71", 10, (971, 71, 71)),
        ("11k Hands, ten draws, gallery all, 971 × 290", 10, (971, 290, 290)),
        ("Market-1501 size, 3368 × 15913, 751 identities", 1, (3368, 15913, 751)),
    ):
        cases = [case(*size, seed) for seed in range(draws)]
        for arguments in cases:
            metrics = retrieval_metrics(*arguments)
            assert np.allclose(sort_each_query(*arguments), (metrics.rank(1), metrics.map))
        compare(
            f"{title}: sorting each query : counting",
            lambda cases=cases: [sort_each_query(*arguments) for arguments in cases],
            lambda cases=cases: [retrieval_metrics(*arguments) for arguments in cases],
            repeats=9,
        )


if __name__ == "__main__":
    main()
