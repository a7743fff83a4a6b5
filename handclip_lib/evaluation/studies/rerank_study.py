"""Re-ranking and query expansion under the protocol, always next to the plain figure."""

from handclip_lib.data.manifest import Split
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.ranking.reranking import alpha_query_expansion, rerank_similarity
from handclip_lib.evaluation.studies.enrolment import FusionResult, fusion_result

K1, K2 = 20, 6  # the paper's, or as many as there are
EXPANDED_BY = 3  # gallery images: each identity has one there, so more would be other people


def refined(features: Features, split: Split, *, bootstrap: int = 1000, seed: int = 0) -> list[FusionResult]:
    """Gallery "aspect" ranked plainly, by k-reciprocal re-ranking, and by alpha query expansion; all draws.

    Re-ranking looks at all queries of a draw together: such figures assume that the probes come as a batch.

    Raises:
        EvaluationError: An embedding is missing, or an interval cannot be made.
    """
    draws = [split.draw(trial) for trial in range(split.meta["draws"])]
    pairs = [(features.of(draw.query_paths), features.of(draw.gallery_paths)) for draw in draws]
    expanded_by = min(EXPANDED_BY, *(len(gallery) for _, gallery in pairs))
    k1 = min(K1, *(len(query) + len(gallery) - 1 for query, gallery in pairs))
    k2 = min(K2, k1 + 1)
    ways = {
        "plain cosine": lambda query, gallery: query @ gallery.T,
        f"k-reciprocal (k1 {k1}, k2 {k2}, λ 0.3)": lambda query, gallery: rerank_similarity(query, gallery, k1, k2),
        f"αQE (k {expanded_by}, α 3)": lambda query, gallery: (
            alpha_query_expansion(query, gallery, expanded_by) @ gallery.T
        ),
    }
    return [
        fusion_result(
            name,
            [(way(*pair), draw.query_ids, draw.gallery_ids) for pair, draw in zip(pairs, draws, strict=True)],
            bootstrap,
            seed,
        )
        for name, way in ways.items()
    ]
