"""Look at queries and the gallery images a model ranks first for them."""

from functools import lru_cache

import ipywidgets
import numpy as np
from matplotlib.figure import Figure

from handclip_lib.data.images import DecodedImages
from handclip_lib.data.manifest import GALLERIES, Draw, Split
from handclip_lib.data.table import ASPECTS
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.ranking.retrieval import retrieval_metrics
from handclip_lib.plots.retrieval import ranked_gallery
from handclip_lib.widgets.panel import Panel

CHOICES = ("worst", "wrong", "random", "all")


def retrieval_browser(
    features: Features,
    split: Split,
    images: DecodedImages,
    gallery: str = "aspect",
    draw: int = 0,
    top_k: int = 8,
    queries: str = "worst",
) -> Panel:
    """Browse queries: the best gallery images with green frames (same person) and red ones (someone else).

    When no match is among the best, the first one is added with its rank.

    Args:
        features: Embeddings of at least `split.evaluated_paths()`.
        split: The manifest.
        images: Decoded photographs of the same paths.
        gallery: Gallery shown first, "aspect" or "all".
        draw: Draw shown first.
        top_k: Gallery images shown for a query, 1 or more.
        queries: Queries shown first: "worst" (by rank of the first match), "wrong" (those whose best image is someone
            else's, the most confident mistakes first), "random" or "all".
    """

    @lru_cache(maxsize=4)
    def ranked(draw: int, gallery: str) -> Ranking:
        return Ranking(features, split.draw(draw, gallery))

    def show(draw: int, gallery: str, queries: str, query: int) -> Figure:
        ranking = ranked(draw, gallery)
        order = ranking.order(queries)
        row = order[min(query, len(order)) - 1] if len(order) else None
        if row is None:
            raise LookupError(f"no query is {queries} in draw {draw}, gallery {gallery!r}; choose other queries")
        held = ranking.draw
        columns = ranking.best(row, top_k)
        titles = [
            f"{rank}. {_in_two_lines(held.gallery_ids[column])}\n{ranking.similarity[row, column]:.3f}"
            for rank, column in zip(ranking.ranks(row, columns), columns, strict=True)
        ]
        pixels = images.pixels[images.rows([held.query_paths[row], *held.gallery_paths[columns]])]
        title = f"query\n{held.query_ids[row]}"
        return ranked_gallery(pixels[0], title, pixels[1:], titles, ranking.is_match[row, columns])

    controls = {
        "draw": ipywidgets.IntSlider(draw, 0, split.meta["draws"] - 1),
        "gallery": ipywidgets.Dropdown(options=GALLERIES, value=gallery),
        "queries": ipywidgets.Dropdown(options=CHOICES, value=queries),
    }
    number = ipywidgets.IntSlider(1, 1, max(1, len(ranked(draw, gallery).order(queries))), description="query number")

    def follow(_change: object) -> None:
        number.max = max(
            1, len(ranked(controls["draw"].value, controls["gallery"].value).order(controls["queries"].value))
        )

    for control in controls.values():
        control.observe(follow, names="value")  # before the panel's own, so that it draws within the new range
    alt = f"A query and its {top_k} best gallery images; green frames are the same person, red ones someone else"
    return Panel(show, alt=alt, **controls, query=number)


class Ranking:
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
        self._metrics = retrieval_metrics(self.similarity, draw.query_ids, draw.gallery_ids)

    def order(self, queries: str) -> np.ndarray:
        """Rows of the queries to show, in the order to show them; those without a match only in "all"."""
        first = self._metrics.first_match_rank
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

    def best(self, row: int, top_k: int) -> np.ndarray:
        """Columns of the `top_k` best gallery images, and of the first match where it comes later."""
        ranked = np.lexsort((self.is_match[row], -self.similarity[row]))
        later = ranked[top_k:][self.is_match[row, ranked[top_k:]]][:1]
        return np.concatenate([ranked[:top_k], later if not self.is_match[row, ranked[:top_k]].any() else later[:0]])

    def ranks(self, row: int, columns: np.ndarray) -> list[int]:
        """Rank of gallery images for a query, 1 is best."""
        ranked = np.lexsort((self.is_match[row], -self.similarity[row]))
        place = np.empty(len(ranked), np.int64)
        place[ranked] = np.arange(1, len(ranked) + 1)
        return place[columns].tolist()


def _in_two_lines(identity: str) -> str:
    """Another aspect's gallery identity, "<aspect>/<identity>", is wider than a photograph."""
    aspect, slash, rest = identity.partition("/")
    return f"{aspect}/\n{rest}" if slash and aspect in ASPECTS else identity
