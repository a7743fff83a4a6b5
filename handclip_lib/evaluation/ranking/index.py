"""Search of a gallery of a million and more by FAISS: exact, or approximate with the recall that costs."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.memory import check_memory
from handclip_lib.evaluation.ranking.retrieval import check_unit_length, embeddings_of, same_size

KINDS = ("flat", "ivf", "hnsw")
POINTS_PER_LIST = 39  # what FAISS asks for to learn where the lists' centres are


@dataclass(frozen=True)
class Found:
    """The k best gallery images of each query.

    Attributes:
        rows: int64 (n_query, k), the best first; -1 where an approximate search found fewer.
        similarity: Their cosine, float32 (n_query, k), -1..1; below -1 where `rows` is -1.
        recall: Recall@k against the exact search of the same queries, 0..1: mean over `n_sampled` of them; 1 if exact.
        n_sampled: Queries the recall was measured on.
    """

    rows: np.ndarray
    similarity: np.ndarray
    recall: float
    n_sampled: int


class GalleryIndex:
    """A gallery that is ready to be searched: "flat" compares all; "ivf" and "hnsw" only what lies near.

    Ranks beyond k, and so mAP and mINP, are unknown to a search of k: `rank_features` has them.
    """

    def __init__(self, gallery: np.ndarray, kind: str = "flat", effort: int | None = None):
        """Build the index.

        Args:
            gallery: Embeddings of length 1, (n_gallery, size); kept, not copied, where they are float32.
            kind: "flat" is exact and copies nothing; "ivf" looks into the lists nearest to the query; "hnsw" walks a
                graph: the quickest to search, the slowest to build and the largest.
            effort: Lists looked into (ivf; a sixteenth, 16 at least, by default) or candidates kept (hnsw; 128): more
                is slower, and recall rises.

        Source: Douze et al., "The Faiss library", 2024; Malkov & Yashunin, "Efficient and robust approximate nearest
        neighbor search using Hierarchical Navigable Small World graphs", TPAMI 2020.
        """
        if kind not in KINDS:
            raise EvaluationError(f"kind={kind!r}; choose from {', '.join(KINDS)}")
        if effort is not None and (effort < 1 or kind == "flat"):
            raise EvaluationError(f"effort={effort} with kind={kind!r}; a number from 1, for ivf or hnsw, is wanted")
        self._faiss, self.kind, self.gallery = _faiss(), kind, embeddings_of("gallery", gallery)
        check_unit_length("gallery", self.gallery)
        self._index = None if kind == "flat" else self._approximate(effort)

    def _approximate(self, effort: int | None) -> Any:
        (n, size), faiss = self.gallery.shape, self._faiss
        links = 32
        needed = n * (4 * size + (8 * links + 8 if self.kind == "hnsw" else 8))
        check_memory(f"an index of {n:,} images", needed, 'use kind="flat", which copies nothing')
        if self.kind == "ivf":
            lists = max(1, min(int(4 * n**0.5), n // POINTS_PER_LIST))
            index = faiss.IndexIVFFlat(faiss.IndexFlatIP(size), size, lists, faiss.METRIC_INNER_PRODUCT)
            index.nprobe = min(effort or max(16, lists // 16), lists)
            index.train(self.gallery)
        else:
            index = faiss.IndexHNSWFlat(size, links, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction = 128
            index.hnsw.efSearch = effort or 128
        index.add(self.gallery)
        return index

    def search(self, query: np.ndarray, k: int = 10, sample: int = 100) -> Found:
        """Find the k gallery images most alike to each query, and measure what an approximate search misses.

        Args:
            query: Embeddings of length 1, (n_query, size).
            sample: Queries, evenly spread, whose exact search the recall is measured on; all, if there are fewer.
        """
        query, _ = same_size(query, self.gallery)
        check_unit_length("query", query)
        if not 1 <= k <= len(self.gallery) or sample < 1:
            least = f"k from 1 to the gallery's {len(self.gallery)} images, and a sample of 1 query or more"
            raise EvaluationError(f"k={k}, sample={sample}; choose {least}")
        if self._index is None:
            similarity, rows = self._exact(query, k)
            return Found(rows, similarity, 1.0, len(query))
        similarity, rows = self._index.search(query, k)
        asked = np.unique(np.linspace(0, len(query) - 1, min(sample, len(query))).astype(int))
        return Found(rows, similarity, recall_at_k(rows[asked], self._exact(query[asked], k)[1]), len(asked))

    def _exact(self, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        return self._faiss.knn(query, self.gallery, k, metric=self._faiss.METRIC_INNER_PRODUCT)


def recall_at_k(found: np.ndarray, exact: np.ndarray) -> float:
    """Share of the exact neighbours, int64 (n, k), that are among those found, (n, k): 0..1, in whatever order."""
    return float(np.mean([np.isin(right, left).mean() for left, right in zip(found, exact, strict=True)]))


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise EvaluationError(
            f"an index of the gallery needs FAISS ({error}): `pip install handclip[fast]`; without it, `rank_features`"
        ) from error
    return faiss
