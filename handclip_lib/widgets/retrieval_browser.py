"""Look at queries and the gallery images a model ranks first for them."""

from functools import lru_cache

import ipywidgets
from matplotlib.figure import Figure

from handclip_lib.data.images import DecodedImages
from handclip_lib.data.manifest import GALLERIES, Split
from handclip_lib.data.table import ASPECTS
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.ranking.confusion import CHOICES, RankedQueries
from handclip_lib.plots.retrieval import ranked_gallery
from handclip_lib.widgets.panel import Panel


def retrieval_browser(features: Features, split: Split, images: DecodedImages, top_k: int = 8) -> Panel:
    """Browse queries: the best gallery images with green frames (same person) and red ones (someone else).

    When no match is among the best, the first one is added with its rank. The worst queries come first.

    Args:
        features: Embeddings of at least `split.evaluated_paths()`.
        images: Decoded photographs of the same paths.
        top_k: Gallery images shown for a query, 1 or more.
    """

    @lru_cache(maxsize=4)
    def ranked(draw: int, gallery: str) -> RankedQueries:
        return RankedQueries(features, split.draw(draw, gallery))

    def show(draw: int, gallery: str, queries: str, query: int) -> Figure:
        ranking = ranked(draw, gallery)
        order = ranking.order(queries)
        if not len(order):
            raise LookupError(f"no query is {queries} in draw {draw}, gallery {gallery!r}; choose other queries")
        row, held = order[min(query, len(order)) - 1], ranking.draw
        columns, ranks = ranking.best(row, top_k)
        titles = [
            f"{rank}. {_in_two_lines(held.gallery_ids[column])}\n{ranking.similarity[row, column]:.3f}"
            for rank, column in zip(ranks, columns, strict=True)
        ]
        pixels = images.pixels[images.rows([held.query_paths[row], *held.gallery_paths[columns]])]
        title = f"query\n{held.query_ids[row]}"
        return ranked_gallery(pixels[0], title, pixels[1:], titles, ranking.is_match[row, columns])

    controls = {
        "draw": ipywidgets.IntSlider(0, 0, split.meta["draws"] - 1),
        "gallery": ipywidgets.Dropdown(options=GALLERIES),
        "queries": ipywidgets.Dropdown(options=CHOICES),
    }
    number = ipywidgets.IntSlider(1, 1, 1, description="query number")

    def follow(_change: object = None) -> None:
        draw, gallery, queries = (control.value for control in controls.values())
        number.max = max(1, len(ranked(draw, gallery).order(queries)))

    follow()
    for control in controls.values():
        control.observe(follow, names="value")  # before the panel's own, so that it draws within the new range
    alt = f"A query and its {top_k} best gallery images; green frames are the same person, red ones someone else"
    return Panel(show, alt=alt, **controls, query=number)


def _in_two_lines(identity: str) -> str:
    """Another aspect's gallery identity, "<aspect>/<identity>", is wider than a photograph."""
    aspect, slash, rest = identity.partition("/")
    return f"{aspect}/\n{rest}" if slash and aspect in ASPECTS else identity
