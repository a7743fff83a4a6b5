"""CMC, mAP and re-ranking from embeddings: the peers' ways beside ours. `python -m benchmarks.retrieval [--market]`."""

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np

from benchmarks.retrieval_peers import cumulated_compiled, cumulated_in_numpy, rerank_densely, sort_each_query
from benchmarks.side_by_side import allocated, compare, heading
from handclip_lib.evaluation.ranking import counting
from handclip_lib.evaluation.ranking.one_match import rank_one_match
from handclip_lib.evaluation.ranking.reranking import rerank_similarity
from handclip_lib.evaluation.ranking.retrieval import rank_features, retrieval_metrics

SIZE = 512  # of ViT-B/16's embeddings
Case = tuple[np.ndarray, ...]
Way = Callable[..., tuple[float, float]]


def case(n_query: int, n_gallery: int, n_identity: int, seed: int = 0) -> Case:
    """Embeddings of random identities, alike enough within one to make ranks worth computing; identities; cameras."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(n_identity, SIZE)).astype(np.float32)
    ids = rng.integers(0, n_identity, n_query), rng.permutation(n_gallery) % n_identity

    def embed(ids: np.ndarray) -> np.ndarray:
        rows = centres[ids] + 3 * rng.normal(size=(len(ids), SIZE)).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    cameras = rng.integers(0, 6, n_query), rng.integers(6, 12, n_gallery)  # no camera sees a query and its match
    return embed(ids[0]), embed(ids[1]), *ids, *cameras


def ours(query: np.ndarray, gallery: np.ndarray, *labels: np.ndarray) -> tuple[float, float]:
    metrics = rank_features(query, gallery, *labels)
    return metrics.rank(1), metrics.map


def one_match(query: np.ndarray, gallery: np.ndarray, query_ids: np.ndarray, gallery_ids: np.ndarray, *_: np.ndarray
) -> tuple[float, float]:  # fmt: skip
    """Ours where each identity is once in the gallery, as an evaluation ranks it."""
    place = np.argsort(gallery_ids)
    metrics = rank_one_match(query, gallery, place[query_ids]).metrics(len(gallery), np.ones(len(query), bool))
    return metrics.rank(1), metrics.map


def in_numpy(*arguments: np.ndarray) -> tuple[float, float]:
    """Ours as it is without numba."""
    compiled, counting.kernel = counting.kernel, lambda *_: None
    try:
        return ours(*arguments)
    finally:
        counting.kernel = compiled


def counted(similarity: np.ndarray, *labels: np.ndarray) -> tuple[float, float]:
    metrics = retrieval_metrics(similarity, *labels)
    return metrics.rank(1), metrics.map


def two_labels(evaluate: Way) -> Way:
    """Without cameras."""
    return lambda similarity, *labels: evaluate(similarity, *labels[:2])


def negated(evaluate: Way) -> Way:
    """By distances."""
    return lambda similarity, *labels: evaluate(1 - similarity, *labels)


def from_embeddings(evaluate: Way) -> Way:
    """With the matrix of similarities made first."""
    return lambda query, gallery, *labels: evaluate(query @ gallery.T, *labels)


def rows(title: str, cases: list[Case], ways: list[tuple[str, Callable, Callable, int]]) -> None:
    """A row for each pair of ways, once both have given the same rank-1 and mAP (the compiled peer sums in float32)."""
    heading(title)
    for name, peer, way, repeats in ways:
        found = [[each(*arguments) for arguments in cases] for each in (peer, way)]
        assert found[0][0] is None or np.allclose(*found, atol=1e-5), f"{name}: the ways differ: {found}"
        compare(
            name,
            lambda peer=peer: [peer(*arguments) for arguments in cases],
            lambda way=way: [way(*arguments) for arguments in cases],
            repeats,
            allocated,
        )


def product(query: np.ndarray, gallery: np.ndarray, *_: np.ndarray) -> None:
    query @ gallery.T


def reranking(n_query: int, n_gallery: int, n_identity: int, repeats: int) -> None:
    query, gallery, *labels = case(n_query, n_gallery, n_identity)
    means = [
        retrieval_metrics(np.asarray(similarity, np.float32), *labels).map
        for similarity in (query @ gallery.T, 1 - rerank_densely(query, gallery), rerank_similarity(query, gallery))
    ]
    heading(f"k-reciprocal re-ranking, {n_query} × {n_gallery}; mAP {means[0]:.4f} plain, {means[1]:.4f} densely (in "
            f"float16), {means[2]:.4f} ours")  # fmt: skip
    dense, sparse = partial(rerank_densely, query, gallery), partial(rerank_similarity, query, gallery)
    compare("matrices of all by all, as CLIP-ReID : neighbour lists", dense, sparse, repeats)


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--market", action="store_true", help="re-rank at Market-1501's size too: minutes, 9 GB")
    options = parser.parse_args()
    counting.COMPILED_FROM = 0  # the kernel is warm in every row; alone, a small ranking does without it
    print("The compiled peer is the algorithm of torchreid and fast-reid (sort all, cumulate each row) in numba, which")
    print("stands in for their Cython. Where the processor has AVX-512 or AVX2, numpy sorts 6× faster, and so do they.")
    compiled = cumulated_compiled()
    fh, numpy_peer, compiled_peer = (
        from_embeddings(way) for way in (two_labels(sort_each_query), negated(cumulated_in_numpy), negated(compiled))
    )
    draws = [case(971, 71, 71, seed) for seed in range(10)]
    similarities = [(query @ gallery.T, *labels) for query, gallery, *labels in draws]
    rows("11k Hands, ten draws, 971 × 71, from similarities", similarities, [
        ("CLIP-FH's evaluator : ours", two_labels(sort_each_query), two_labels(counted), 9),
        ("torchreid / fast-reid compiled : ours", negated(compiled), two_labels(counted), 9),
    ])  # fmt: skip
    rows("11k Hands, ten draws, 971 × 71, from embeddings", draws, [
        ("matrix product alone : ours", product, one_match, 7),
        ("CLIP-FH's evaluator : ours", fh, one_match, 7),
        ("CLIP-FH's evaluator : ours for any number of matches", fh, ours, 7),
        ("torchreid / CLIP-ReID in numpy : ours", numpy_peer, one_match, 3),
        ("torchreid / fast-reid compiled : ours", compiled_peer, one_match, 7),
    ])  # fmt: skip
    rows("Market-1501's size, 3368 × 15913, 751 identities, from embeddings", [case(3368, 15913, 751)], [
        ("matrix product alone : ours", product, ours, 7),
        ("CLIP-FH's evaluator : ours", fh, ours, 3),
        ("torchreid / fast-reid compiled : ours", compiled_peer, ours, 5),
        ("torchreid / fast-reid compiled : ours without numba", compiled_peer, in_numpy, 3),
    ])  # fmt: skip
    rows("a tenth of MSMT17, 1166 × 82161, 3060 identities, from embeddings", [case(1166, 82161, 3060)], [
        ("matrix product alone : ours", product, ours, 7),
        ("torchreid / fast-reid compiled : ours", compiled_peer, ours, 3),
    ])  # fmt: skip
    reranking(1000, 4000, 200, 3)
    if options.market:
        reranking(3368, 15913, 751, 1)


if __name__ == "__main__":
    main()
