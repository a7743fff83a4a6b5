"""Figures of an image training: results in, `Figure` out."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from handclip_lib.evaluation.ranking.confusion import Confusion
from handclip_lib.evaluation.ranking.protocol import ProtocolResult
from handclip_lib.plots.style import COLOURS, MARKERS, QUIET, figure_with_axes, in_our_look

TERMS = {
    "loss": "weighted sum", "identity": "identity", "triplet": "triplet", "supcon": "contrastive",
    "center": "centre", "image_to_text": "image→text", "text_supcon": "image↔text",
}  # fmt: skip
MOST_NAMES = 40
STYLES = ("-", "--", ":", "-.")
VALIDATION = {"val_rank1": "rank-1", "val_map": "mAP"}


@in_our_look
def image_curves(history: pd.DataFrame, best_epoch: int, weights: Mapping[str, float] | None = None) -> Figure:
    """Loss terms, rank-1 and mAP of the validation images, gradient norm and learning rate, over epochs.

    Args:
        history: `ImageResult.history`.
        best_epoch: The epoch that was chosen; a dashed line marks it.
        weights: Of the terms; given, what each adds to the loss is stacked, else the terms are lines.
    """
    figure, (loss, validation, gradient, rate) = figure_with_axes(2, 2, height=5.6, sharex=True)
    if weights is not None:
        _stacked(loss, history, weights)
    panels = (
        (loss, TERMS if weights is None else {"loss": "weighted sum"}, 1, "loss and its terms"),
        (validation, VALIDATION, 100, f"validation (dashed: epoch {best_epoch}, chosen)"),
        (gradient, {"gradient_norm": "before clipping"}, 1, "length of the gradient"),
        (rate, {"learning_rate": "image tower"}, 1, "learning rate at the end of an epoch"),
    )
    for axis, names, factor, title in panels:
        for number, (column, label) in enumerate(names.items()):
            if column in history:
                values = factor * history[column]
                axis.plot(history["epoch"], values, label=label, color=COLOURS[number], marker=MARKERS[number], ms=3)
        axis.axvline(best_epoch, color=QUIET, ls="--", lw=1)
        axis.set_title(title)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(loc="best")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    validation.yaxis.set_major_formatter(PercentFormatter())
    for axis in (gradient, rate):
        axis.set_xlabel("epoch")
    return figure


def _stacked(axis: Axes, history: pd.DataFrame, weights: Mapping[str, float]) -> None:
    """What each term adds to the loss, one on top of the other."""
    names = [name for name in TERMS if weights.get(name, 0) > 0 and name in history]
    trained = history[history["epoch"] > 0]
    shares = [weights[name] * trained[name] for name in names]
    labels = [f"{weights[name]:g} × {TERMS[name]}" for name in names]
    colours = [COLOURS[1 + place % (len(COLOURS) - 1)] for place in range(len(names))]
    if len(trained):
        axis.stackplot(trained["epoch"], shares, labels=labels, colors=colours, alpha=0.45, lw=0)
    axis.set_ylim(bottom=0)


@in_our_look
def drift_bars(drift: pd.DataFrame) -> Figure:
    """Relative change of each part of the tower, from the input on; `layer_drift`'s rows."""
    figure, (axis,) = figure_with_axes(height=0.24 * len(drift) + 1.1)
    rows = range(len(drift))
    axis.barh(rows, 100 * drift["drift"], color=COLOURS[0])
    for row, value in zip(rows, 100 * drift["drift"], strict=True):
        axis.annotate(f"{value:.2g} %", (value, row), (4, 0), textcoords="offset points", va="center", fontsize=9)
    axis.set_yticks(rows, drift["part"])
    axis.invert_yaxis()
    axis.margins(x=0.1)
    axis.grid(axis="y", visible=False)
    axis.xaxis.set_major_formatter(PercentFormatter())
    axis.set(xlabel="change of the weights since before training, relative to their length")
    return figure


@in_our_look
def confusion_matrix(found: Confusion, identities: Sequence[str]) -> Figure:
    """What the validation images of each training identity were taken for; identities in the split's order."""
    figure, (axis,) = figure_with_axes(height=5.2)
    axis.grid(False)
    picture = axis.imshow(100 * found.matrix, cmap="viridis", vmin=0, vmax=100, interpolation="nearest")
    step = max(1, -(-len(identities) // MOST_NAMES))
    places = range(0, len(identities), step)
    axis.set_xticks(places, [identities[i] for i in places], rotation=90, parse_math=False)
    axis.set_yticks(places, [identities[i] for i in places], parse_math=False)
    axis.set(xlabel="taken for", ylabel="identity")
    axis.set_title(f"{100 * found.accuracy:.1f} % of the validation images are taken for their own identity")
    figure.colorbar(picture, ax=axis, label="images of the identity in %", shrink=0.8)
    return figure


@in_our_look
def margins(results: Sequence[ProtocolResult]) -> Figure:
    """How far the best match is ahead of the best image of someone else; left of 0 rank-1 fails."""
    shown = [result for result in results if result.gallery == results[0].gallery]
    figure, (axis,) = figure_with_axes(height=3.4)
    gaps = [(r.per_query["match_score"] - r.per_query["wrong_score"]).to_numpy() for r in shown]
    edges = np.histogram_bin_edges(np.concatenate(gaps), 80)
    for number, (result, gap) in enumerate(zip(shown, gaps, strict=True)):
        share = 100 * np.histogram(gap, edges)[0] / len(gap)
        label = f"{result.model}: {100 * (gap > 0).mean():.1f} % above 0, mean {gap.mean():+.3f}"
        axis.stairs(share, edges, color=COLOURS[number], label=label, lw=1.6, ls=STYLES[number % len(STYLES)])
    axis.axvline(0, color=QUIET, ls="--", lw=1)
    axis.set(xlabel="cosine of the best match − cosine of the best image of someone else", ylabel="share of queries")
    axis.yaxis.set_major_formatter(PercentFormatter())
    axis.legend(loc="best")
    return figure
