"""One look for all figures: colours that colour-blind readers tell apart, sizes that a report shows legibly."""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import RLock
from typing import Any

import matplotlib as mpl
import numpy as np
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
    "text.usetex": False,
}  # fmt: skip
_DRAWING = RLock()


@contextmanager
def _our_look() -> Iterator[None]:
    with _DRAWING, mpl.rc_context(LOOK):  # the look is global, and a panel may draw in a thread beside a cell's figure
        yield


in_our_look = _our_look()
"""Decorator of every figure: a text takes its look, and `$` its meaning, when it is made, not when it is drawn."""
CHARACTER = 0.075  # inches: mean width of a character at 9 pt


def figure_with_axes(rows: int = 1, columns: int = 1, height: float = 3.6, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure of the report's width with a grid of axes, row by row, in our look, without pyplot."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, **options).ravel())
    for axis in axes:
        axis.tick_params(labelsize=9)  # ticks may be made after the decorator's end
    return figure, axes


def picture_grid(
    pixels: Sequence[np.ndarray], titles: Sequence[str], columns: int, size: float
) -> tuple[Figure, list[Axes]]:
    """Images in rows of equal length, each with its title as literal text, wrapped to its width.

    Args:
        pixels: uint8 (height, width, 3) each.
        titles: A title for each.
        columns: Images in a row, at most.
        size: Height of an image in inches, at most.

    Returns:
        The figure and the axes of the images.
    """
    rows = max(1, -(-len(pixels) // columns))
    columns = max(1, -(-len(pixels) // rows))
    width = WIDTH / columns
    lines_of = [wrapped(title, int(width / CHARACTER)) for title in titles]
    tall = min(size, width * max((image.shape[0] / image.shape[1] for image in pixels), default=0.1))
    lines = sum(max(t.count("\n") + 1 for t in lines_of[i : i + columns]) for i in range(0, len(titles), columns))
    figure, axes = figure_with_axes(rows, columns, height=rows * (tall + 0.12) + 0.16 * lines)
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.grid(False)
        axis.set_anchor("N")
        axis.spines[:].set_visible(False)
    for axis, image, title in zip(axes, pixels, lines_of, strict=False):
        axis.imshow(image)
        axis.set_title(title, fontsize=9, parse_math=False)
    return figure, axes[: len(pixels)]


def wrapped(title: str, width: int) -> str:
    """Text in lines of at most `width` characters; its own line breaks stay."""
    return "\n".join(part for line in title.split("\n") for part in textwrap.wrap(line, width) or [""])
