"""Figures of a ranking: results in, `Figure` out; shares become percent here and nowhere else."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from handclip_lib.evaluation.ranking.protocol import ProtocolResult
from handclip_lib.plots.style import (
    COLOURS,
    MARKERS,
    MATCH,
    OTHER,
    QUERY,
    QUIET,
    figure_with_axes,
    in_our_look,
    picture_grid,
)

MOST_IN_MATRIX = 400
MOST_LABELS = 30
GALLERY_TITLES = {"aspect": "gallery: same aspect", "all": "gallery: all aspects"}


@in_our_look
def cmc_curves(results: Sequence[ProtocolResult]) -> Figure:
    """CMC of each model with its band over identities; one panel a gallery."""
    galleries = list(dict.fromkeys(result.gallery for result in results))
    models = list(dict.fromkeys(result.model for result in results))
    figure, axes = figure_with_axes(1, len(galleries), sharey=True)
    for axis, gallery in zip(axes, galleries, strict=True):
        for result in (r for r in results if r.gallery == gallery):
            colour, marker = _look(models.index(result.model))
            k = np.arange(1, len(result.cmc.estimate) + 1)
            axis.fill_between(k, 100 * result.cmc.low, 100 * result.cmc.high, color=colour, alpha=0.15, lw=0)
            label = f"{result.model} ({100 * result.cmc.estimate[0]:.1f} %)"
            axis.plot(k, 100 * result.cmc.estimate, color=colour, marker=marker, ms=4, label=label)
        sizes = {result.draws[0].n_gallery for result in results if result.gallery == gallery}
        axis.set_title(f"{GALLERY_TITLES[gallery]} ({', '.join(map(str, sorted(sizes)))} images)")
        axis.set(xlabel="rank k", xlim=(0.5, len(k) + 0.5), ylim=(0, 101))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.legend(loc="lower right", title="rank-1 in brackets")
    axes[0].set_ylabel("queries with a match in the k best")
    axes[0].yaxis.set_major_formatter(PercentFormatter())
    return figure


@in_our_look
def draw_spread(results: Sequence[ProtocolResult]) -> Figure:
    """Rank-1 of each draw (dots) and of all draws with the interval over identities (bar)."""
    models = list(dict.fromkeys(result.model for result in results))
    figure, (axis,) = figure_with_axes(height=0.5 * len(results) + 1.2)
    for row, result in enumerate(results):
        values = 100 * np.array([draw.rank(1) for draw in result.draws])
        axis.plot(values, np.full(len(values), row), ".", color=QUIET, ms=9, alpha=0.7)
        estimate, low, high = (100 * float(v) for v in (result.rank1.estimate, result.rank1.low, result.rank1.high))
        colour, marker = _look(models.index(result.model))
        axis.errorbar(
            estimate, row + 0.22, xerr=[[estimate - low], [high - estimate]], fmt=marker, color=colour, capsize=4
        )
    axis.set_yticks(range(len(results)), [f"{r.model}, {GALLERY_TITLES[r.gallery]}" for r in results], parse_math=False)
    axis.invert_yaxis()
    axis.xaxis.set_major_formatter(PercentFormatter())
    axis.set(xlabel="rank-1: grey dots are single draws, bars the interval over identities", xlim=(0, 100))
    axis.margins(y=0.2)
    return figure


@in_our_look
def similarity_matrix(similarity: np.ndarray, identities: Sequence[str]) -> Figure:
    """Cosine between images, in the order of their identities, with a line where the identity changes.

    Args:
        similarity: Cosine, shape (n, n), in -1..1, rows and columns ordered by identity; beyond 400 images the
            first 400 are drawn.
        identities: Identity of each row.
    """
    n = min(len(identities), MOST_IN_MATRIX)
    shown, names = np.asarray(similarity)[:n, :n], np.asarray(identities)[:n]
    figure, (axis,) = figure_with_axes(height=6.6)
    axis.grid(False)
    off_diagonal = shown[~np.eye(n, dtype=bool)] if n > 1 else shown
    picture = axis.imshow(shown, cmap="viridis", vmin=np.quantile(off_diagonal, 0.02), vmax=1, interpolation="nearest")
    edges = np.flatnonzero(names[1:] != names[:-1]) + 0.5
    for edge in edges:
        axis.axhline(edge, color="white", lw=0.4)
        axis.axvline(edge, color="white", lw=0.4)
    starts = np.concatenate([[-0.5], edges, [n - 0.5]])
    middles = (starts[1:] + starts[:-1]) / 2
    labels = names[np.concatenate([[0], np.ceil(edges).astype(int)])]
    named = [0]
    for i in range(1, len(middles)):
        if middles[i] - middles[named[-1]] >= n / MOST_LABELS:  # closer labels would overlap
            named.append(i)
    axis.set_xticks(middles[named], labels[named], rotation=90, parse_math=False)
    axis.set_yticks(middles[named], labels[named], parse_math=False)
    note = f" (first {n} of {len(identities)} images)" if n < len(identities) else ""
    axis.set_title(f"cosine similarity, images ordered by identity{note}")
    figure.colorbar(picture, ax=axis, label="cosine", shrink=0.8)
    return figure


@in_our_look
def score_histogram(genuine: np.ndarray, impostor: np.ndarray) -> Figure:
    """Distribution of the cosine of pairs of one person and of two people, each scaled to an area of one."""
    figure, (axis,) = figure_with_axes(height=3.2)
    ends = np.array([min(genuine.min(), impostor.min()), max(genuine.max(), impostor.max())], np.float64)
    edges = np.histogram_bin_edges(ends, 60)  # also where all scores are equal
    for scores, colour, hatch, label in ((impostor, OTHER, "//", "two people"), (genuine, MATCH, "", "one person")):
        axis.hist(
            scores, edges.tolist(), density=True, color=colour, alpha=0.55, hatch=hatch, edgecolor="white", lw=0,
            label=f"{label} ({len(scores):,} pairs, mean {scores.mean():.2f})",
        )  # fmt: skip
    axis.set(xlabel="cosine similarity of a query and a gallery image", ylabel="density")
    axis.legend(loc="upper left")
    return figure


@in_our_look
def burst_effect(frame: pd.DataFrame) -> Figure:
    """Rank-1 as queries close in capture to their gallery image are left out; `burst_share`'s rows, any models."""
    figure, (left, right) = figure_with_axes(1, 2, height=3.2, width_ratios=(2, 1))
    steps = sorted(frame["burst"].unique())
    for row, (model, rows) in enumerate(frame.groupby("model", sort=False)):
        colour, marker = _look(row)
        place = [steps.index(burst) for burst in rows["burst"]]
        left.plot(place, 100 * rows["rank1"], color=colour, marker=marker, label=str(model))
    names = ["none"] + [f"±{burst}" for burst in steps if burst]
    left.set_xticks(range(len(steps)), names[-len(steps) :])
    left.set(xlabel="captures around the gallery image left out", ylabel="rank-1", ylim=(0, 101))
    left.yaxis.set_major_formatter(PercentFormatter())
    left.legend(loc="best")
    share = frame.drop_duplicates("burst").sort_values("burst")
    right.bar(range(len(share)), 100 * share["left_out"], color=QUIET)
    right.set_xticks(range(len(share)), names[-len(share) :])
    right.set(xlabel="captures left out", ylabel="queries left out", ylim=(0, 101))
    right.yaxis.set_major_formatter(PercentFormatter())
    return figure


@in_our_look
def ranked_gallery(
    query: np.ndarray, query_title: str, gallery: Sequence[np.ndarray], titles: Sequence[str], is_match: Sequence[bool]
) -> Figure:
    """A query and gallery images, best first: green frame and tick for the same person, red frame and cross for others.

    Args:
        query: uint8 (height, width, 3).
        query_title: Title, shown literally.
        gallery: Images like the query.
        titles: A title for each of them.
        is_match: Whether each is the query's identity.
    """
    columns = min(len(gallery) + 1, 7)
    figure, axes = picture_grid([query, *gallery], [query_title, *titles], columns, size=1.35)
    _frame(axes[0], QUERY, "")
    for axis, same in zip(axes[1:], is_match, strict=True):
        _frame(axis, MATCH if same else OTHER, "✓" if same else "✗")
    return figure


def _frame(axis: Axes, colour: str, mark: str) -> None:
    axis.spines[:].set(visible=True, color=colour, linewidth=3)
    if mark:
        box = {"facecolor": colour, "edgecolor": "none", "boxstyle": "round,pad=0.15"}
        axis.text(0.04, 0.05, mark, transform=axis.transAxes, color="white", bbox=box, fontsize=10)


def _look(index: int) -> tuple[str, str]:
    return COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
