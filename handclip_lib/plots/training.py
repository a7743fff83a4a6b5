"""Figures of an image training: results in, `Figure` out."""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from handclip_lib.evaluation.ranking.confusion import Confusion
from handclip_lib.plots import style

TERMS = {
    "identity": "identity", "triplet": "triplet", "supcon": "contrastive",
    "center": "centre", "image_to_text": "image→text", "text_supcon": "image↔text",
}  # fmt: skip
VALIDATION = {"val_rank1": "rank-1", "val_map": "mAP"}
MOST_NAMES = 40


@style.in_our_look
def image_curves(history: pd.DataFrame, best_epoch: int, weights: Mapping[str, float]) -> Figure:
    """Loss terms, rank-1 and mAP of the validation images, gradient norm and learning rate, over epochs.

    What each term adds to the loss by its weight is stacked; a dashed line marks the epoch that was chosen.
    """
    figure, (loss, validation, gradient, rate) = style.figure_with_axes(2, 2, height=5.6, sharex=True)
    _stacked(loss, history, weights)
    over_epochs(loss, history, {"loss": "weighted sum"}, best_epoch, "loss and its terms")
    title = f"validation (dashed: epoch {best_epoch}, chosen)"
    over_epochs(validation, history, VALIDATION, best_epoch, title, factor=100)
    over_epochs(gradient, history, {"gradient_norm": "before clipping"}, best_epoch, "length of the gradient")
    over_epochs(rate, history, {"learning_rate": "image tower"}, best_epoch, "learning rate at the end of an epoch")
    style.percent(validation.yaxis)
    for axis in (gradient, rate):
        axis.set_xlabel("epoch")
    return figure


def over_epochs(
    axis: Axes, history: pd.DataFrame, names: Mapping[str, str], best_epoch: int, title: str, factor: float = 1
) -> None:
    """Draw the columns of a history that there are, under their labels, and a dashed line at the chosen epoch."""
    for number, (column, label) in enumerate(names.items()):
        if column in history:
            values = factor * history[column]
            axis.plot(
                history["epoch"], values, label=label, color=style.COLOURS[number], marker=style.MARKERS[number], ms=3
            )
    axis.axvline(best_epoch, color=style.QUIET, ls="--", lw=1)
    axis.set_title(title)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="best")
    style.whole_numbers(axis.xaxis)


def _stacked(axis: Axes, history: pd.DataFrame, weights: Mapping[str, float]) -> None:
    """What each term adds to the loss, one on top of the other."""
    names = [name for name in TERMS if weights.get(name, 0) > 0 and name in history]
    trained = history[history["epoch"] > 0]
    shares = [weights[name] * trained[name] for name in names]
    labels = [f"{weights[name]:g} × {TERMS[name]}" for name in names]
    colours = [style.COLOURS[1 + place % (len(style.COLOURS) - 1)] for place in range(len(names))]
    if len(trained):
        axis.stackplot(trained["epoch"], shares, labels=labels, colors=colours, alpha=0.45, lw=0)
    axis.set_ylim(bottom=0)


@style.in_our_look
def drift_bars(drift: pd.DataFrame) -> Figure:
    """Relative change of each part of the tower, from the input on; `layer_drift`'s rows."""
    figure, (axis,) = style.figure_with_axes(height=0.24 * len(drift) + 1.1)
    bars = axis.barh(range(len(drift)), 100 * drift["drift"], color=style.COLOURS[0])
    axis.bar_label(bars, [f"{100 * value:.2g} %" for value in drift["drift"]], padding=4, fontsize=9)
    style.name_rows(axis, drift["part"])
    axis.margins(x=0.1)
    style.percent(axis.xaxis)
    axis.set(xlabel="change of the weights since before training, relative to their length")
    return figure


@style.in_our_look
def confusion_matrix(confusion: Confusion, identities: Sequence[str]) -> Figure:
    """What the validation images of each training identity were taken for; identities in the split's order."""
    figure, (axis,) = style.figure_with_axes(height=5.2)
    axis.grid(False)
    picture = axis.imshow(100 * confusion.matrix, cmap="viridis", vmin=0, vmax=100, interpolation="nearest")
    places = range(0, len(identities), max(1, -(-len(identities) // MOST_NAMES)))
    axis.set_xticks(places, [identities[i] for i in places], rotation=90)
    axis.set_yticks(places, [identities[i] for i in places])
    axis.set(xlabel="taken for", ylabel="identity")
    axis.set_title(f"{100 * confusion.accuracy:.1f} % of the validation images are taken for their own identity")
    figure.colorbar(picture, ax=axis, label="images of the identity in %", shrink=0.8)
    return figure
