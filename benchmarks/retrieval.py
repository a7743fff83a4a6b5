"""CMC and mAP: sorting each query's gallery beside counting. `python -m benchmarks.retrieval`."""

import numpy as np

from benchmarks.side_by_side import compare, heading
from handclip_lib.evaluation.retrieval import retrieval_metrics


def sort_each_query(similarity: np.ndarray, query_ids: np.ndarray, gallery_ids: np.ndarray) -> tuple[float, float]:
    """Rank-1 and mAP the published evaluators' way: sort the gallery of each query, walk down the matches."""
    first, average = [], []
    for row, identity in zip(similarity, query_ids, strict=True):
        matches = gallery_ids[np.argsort(-row)] == identity
        if not matches.any():
            continue
        places = np.flatnonzero(matches)
        first.append(places[0] == 0)
        average.append(np.mean(np.arange(1, len(places) + 1) / (places + 1)))
    return float(np.mean(first)), float(np.mean(average))


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
            repeats=3,
        )


if __name__ == "__main__":
    main()
