"""Figures of an image training: results in, `Figure` out."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from handclip_lib.plots.style import COLOURS, MARKERS, QUIET, figure_with_axes, in_our_look

TERMS = {
    "loss": "weighted sum", "identity": "identity", "triplet": "triplet", "supcon": "contrastive",
    "center": "centre", "image_to_text": "image→text", "text_supcon": "image↔text",
}  # fmt: skip
VALIDATION = {"val_rank1": "rank-1", "val_map": "mAP"}


@in_our_look
def image_curves(history: pd.DataFrame, best_epoch: int) -> Figure:
    """Loss terms, rank-1 and mAP of the validation images, gradient norm and learning rate, over epochs.

    Args:
        history: `ImageResult.history`.
        best_epoch: The epoch that was chosen; a dashed line marks it.
    """
    figure, (loss, validation, gradient, rate) = figure_with_axes(2, 2, height=5.6, sharex=True)
    panels = (
        (loss, TERMS, 1, "loss and its terms"),
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
        axis.legend(loc="best")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    validation.yaxis.set_major_formatter(PercentFormatter())
    for axis in (gradient, rate):
        axis.set_xlabel("epoch")
    return figure
