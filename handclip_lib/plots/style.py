"""One look for all figures: colours that colour-blind readers tell apart, sizes that a report shows legibly."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito, "Color Universal Design", 2008."""
MATCH, OTHER, QUERY, QUIET = "#009E73", "#D55E00", "#333333", "#8C8C8C"
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
WIDTH = 9.0  # inches: the width of a report's column
LOOK: Any = {
    "font.size": 10, "axes.titlesize": 11, "axes.labelsize": 10, "legend.fontsize": 9, "xtick.labelsize": 9,
    "ytick.labelsize": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.color": "#E5E5E5", "axes.axisbelow": True, "legend.frameon": False, "text.parse_math": False,
}  # fmt: skip


def figure_with_axes(rows: int = 1, columns: int = 1, height: float = 3.6, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure of the report's width with a grid of axes, row by row, in our look, without pyplot."""
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, **options)
        return figure, list(axes.ravel())


def picture_grid(pixels: Sequence, titles: Sequence[str], columns: int, size: float) -> tuple[Figure, list[Axes]]:
    """Images in rows, each with its title as literal text; returns the figure and the axes of the images."""
    rows = -(-len(pixels) // columns)
    lines = max((title.count("\n") + 1 for title in titles), default=0)
    figure, axes = figure_with_axes(rows, columns, height=rows * (size + 0.18 * lines))
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.grid(False)
        axis.spines[:].set_visible(False)
    for axis, image, title in zip(axes, pixels, titles, strict=False):
        axis.imshow(image)
        axis.set_title(title, fontsize=9, parse_math=False)
    return figure, axes[: len(pixels)]
