"""The queries of one draw to look at, and the gallery each of them ranks."""

import numpy as np

from handclip_lib.data.manifest import Draw
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.ranking.retrieval import retrieval_metrics

CHOICES = ("worst", "wrong", "random", "all")


class RankedQueries:
    """The gallery of one draw, ranked for each of its queries; someone else's image comes first at equal scores.

    Attributes:
        draw: Queries and gallery.
        similarity: Cosine, float32 (n_query, n_gallery), -1..1.
        is_match: bool (n_query, n_gallery).
    """

    def __init__(self, features: Features, draw: Draw):
        self.draw = draw
        self.similarity = features.of(draw.query_paths) @ features.of(draw.gallery_paths).T
        self.is_match = draw.query_ids[:, None] == draw.gallery_ids[None, :]
        self._first = retrieval_metrics(self.similarity, draw.query_ids, draw.gallery_ids).first_match_rank

    def order(self, queries: str) -> np.ndarray:
        """Rows of the queries to show, in the order to show them; those without a match only in "all".

        Args:
            queries: "worst" (by rank of the first match), "wrong" (those whose best image is someone else's, the most
                confident mistakes first), "random" or "all".
        """
        first = self._first
        if queries == "all":
            return np.arange(len(first))
        matched = np.flatnonzero(first > 0)
        if queries == "random":
            return np.random.default_rng(0).permutation(matched)
        if queries == "worst":
            return matched[np.argsort(-first[matched], kind="stable")]
        wrong = matched[first[matched] > 1]
        best_match = np.where(self.is_match[wrong], self.similarity[wrong], -np.inf).max(1, initial=-np.inf)
        lead = self.similarity[wrong].max(1, initial=-np.inf) - best_match
        return wrong[np.argsort(-lead, kind="stable")]

    def best(self, row: int, top_k: int) -> tuple[np.ndarray, np.ndarray]:
        """Columns of the `top_k` best gallery images, and of the first match where it comes later; and their ranks."""
        ranked = np.lexsort((self.is_match[row], -self.similarity[row]))
        matches = np.flatnonzero(self.is_match[row, ranked])[:1]
        places = np.append(np.arange(min(top_k, len(ranked))), matches[matches >= top_k])
        return ranked[places], places + 1
