"""One look for all figures: colours that colour-blind readers tell apart, sizes that a report shows legibly."""

import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import RLock
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.ticker import MaxNLocator, PercentFormatter

from handclip_lib.terminal import counted

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito, "Color Universal Design", 2008."""
MATCH, OTHER, QUERY, QUIET = "#009E73", "#D55E00", "#333333", "#8C8C8C"
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", ":", "-.")
WIDTH = 9.0  # inches: the width of a report's column
CHARACTER = 0.075  # inches: mean width of a character at 9 pt
LINE, HALF = 34, 52  # characters of a label beside an axis, which takes its width; and of half a figure's width
HANDLE = 6  # characters beside which a legend shows what its label is of
OTHER_SCRIPTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Zen Hei", "PingFang SC",
    "Hiragino Sans", "Microsoft YaHei", "Malgun Gothic", "Noto Sans Devanagari", "Noto Sans Thai", "Arial Unicode MS",
)  # fmt: skip
"""Fonts for names that the first font has no letters for, those that are there."""
_INSTALLED = set(fontManager.get_font_names())
LOOK: Any = {
    "font.size": 10, "axes.titlesize": 11, "axes.labelsize": 10, "legend.fontsize": 9, "xtick.labelsize": 9,
    "ytick.labelsize": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.color": "#E5E5E5", "axes.axisbelow": True, "legend.frameon": False, "text.parse_math": False,
    "text.usetex": False, "font.family": ["DejaVu Sans", *(font for font in OTHER_SCRIPTS if font in _INSTALLED)],
}  # fmt: skip
_DRAWING = RLock()


@contextmanager
def _our_look() -> Iterator[None]:
    with _DRAWING, mpl.rc_context(LOOK):  # the look is global, and a panel may draw in a thread beside a cell's figure
        yield


in_our_look = _our_look()
"""Decorator of every figure: a text takes its look, and `$` its meaning, when it is made, not when it is drawn."""


def figure_with_axes(rows: int = 1, columns: int = 1, height: float = 3.6, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure of the report's width with a grid of axes, row by row, in our look, without pyplot."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, **options).ravel())
    for axis in axes:
        axis.tick_params(labelsize=9)  # ticks may be made after the decorator's end
    return figure, axes


def panels(count: int, height: float, above: float = 0.0) -> tuple[Figure, list[Axes]]:
    """A figure with so many axes, up to three in a row of so many inches, and some inches above."""
    columns = min(3, max(1, count))
    rows = max(1, -(-count // columns))
    figure, axes = figure_with_axes(rows, columns, height=height * rows + above)
    for axis in axes[count:]:
        axis.remove()
    return figure, axes[:count]


def look(place: int) -> tuple[str, str, str]:
    """Colour, marker and line of one of several; the line changes where the colours begin anew."""
    n = len(COLOURS)
    return COLOURS[place % n], MARKERS[place % n], LINES[place // n % len(LINES)]


def curve(axis: Axes, x: Any, y: Any, place: int, label: str, band: Sequence[Any] = (), **options: Any) -> None:
    """A line in the look of one of several, and its band, low and high, where there is one."""
    colour, marker, line = look(place)
    if len(band):
        axis.fill_between(x, *band, color=options.get("color", colour), alpha=0.12, lw=0)
    axis.plot(x, y, **{"color": colour, "marker": marker, "ls": line, "ms": 4, "label": label, **options})


def matrix(axis: Axes, values: np.ndarray, label: str = "", cmap: str = "viridis", **options: Any) -> None:
    """A matrix as colours, without a grid; `label` is that of its bar of colours, if it has one of its own."""
    axis.grid(False)
    picture = axis.imshow(values, cmap=cmap, interpolation="nearest", **options)
    if label:
        axis.get_figure(root=True).colorbar(picture, ax=axis, label=label, shrink=0.8)  # type: ignore[union-attr]


def percent(*sides: Axis) -> None:
    """Label sides whose values are shares times 100: they become percent in figures and tables and nowhere else."""
    for side in sides:
        side.set_major_formatter(PercentFormatter())


def whole_numbers(side: Axis) -> None:
    """Ticks at whole numbers: epochs, ranks, draws."""
    side.set_major_locator(MaxNLocator(integer=True))


def bar_of_interval(axis: Axes, values: Sequence[Any], rows: Any, look: tuple[str, str], fill: str = "") -> None:
    """Estimates with their intervals as bars with a marker, in percent; rows without one are left out.

    The values are estimate, low and high, shares, each a number or (n,); `fill` is the marker's, else its colour.
    """
    estimate, low, high = (np.atleast_1d(np.asarray(value, np.float64)) for value in values)
    there = ~np.isnan(estimate)
    # rounding may put the estimate of values that are all alike beyond its interval, and a bar has no negative length
    ends = [100 * side[there].clip(min=0) for side in (estimate - low, high - estimate)]
    colour, marker = look
    axis.errorbar(
        100 * estimate[there], np.atleast_1d(rows)[there], xerr=ends, fmt=marker, color=colour, mfc=fill or colour,
        capsize=4, ms=6,
    )  # fmt: skip


def name_rows(axis: Axes, names: Iterable[str], top: float | None = None) -> None:
    """A name beside each row, from above to below, and no line across it; `top` is the height the axis begins at."""
    names = list(names)
    axis.set_yticks(range(len(names)), names)
    axis.grid(axis="y", visible=False)
    if top is None:
        axis.invert_yaxis()
    else:
        axis.set_ylim(len(names) - 0.4, top)


def draw_scores(
    axis: Axes, mated: np.ndarray, non_mated: np.ndarray, edges: np.ndarray, said: Callable[[np.ndarray], str]
) -> None:
    """Histograms of pairs of one person and of two people, each scaled to an area of one; `said` is in their labels."""
    for scores, colour, hatch, kind in ((non_mated, OTHER, "//", "non-mated"), (mated, MATCH, "", "mated")):
        if len(scores):
            axis.hist(
                scores, edges.tolist(), density=True, color=colour, alpha=0.55, hatch=hatch, edgecolor="white", lw=0,
                label=f"{kind} ({said(scores)})",
            )  # fmt: skip


def people(counts: Iterable[int]) -> str:
    """How many people figures are of, or from how few to how many."""
    few, many = min(counts := list(counts), default=0), max(counts, default=0)
    return counted(many, "person") if few == many else f"{few} to {many} people"


def legend(axis: Axes, **where: Any) -> None:
    """A legend in its axis, of labels no wider than half a figure: a run's or a file's name would leave no axis."""
    handles, labels = axis.get_legend_handles_labels()
    axis.legend(handles, [wrapped(label, HALF - HANDLE) for label in labels], **where)


def legend_below(figure: Figure, axis: Axes, title: str = "") -> None:
    """Labels of runs are long: under the figure, in two columns if they fit, they take no width from it."""
    handles, labels = axis.get_legend_handles_labels()
    columns = 2 if max(map(len, labels), default=0) <= HALF else 1
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, title=title)


def show_picture(axis: Axes, pixels: np.ndarray, title: str = "", frame: str = "") -> None:
    """An image without ticks under its title, which is literal text, in a frame of a colour if there is one."""
    axis.imshow(pixels)
    axis.set_title(title, fontsize=9)
    bare(axis, frame, 2.0)


def bare(axis: Axes, frame: str = "", width: float = 0.8) -> None:
    """An axis without ticks and grid, in a frame of a colour if there is one."""
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(False)
    axis.spines[:].set(visible=bool(frame), linewidth=width)
    if frame:
        axis.spines[:].set_color(frame)


def picture_grid(
    pixels: Sequence[np.ndarray], titles: Sequence[str], columns: int, size: float
) -> tuple[Figure, list[Axes]]:
    """Images, uint8 (height, width, 3), in rows of equal length, each with its title, wrapped to its width.

    A row has at most so many columns, an image at most `size` inches of height. The axes are those of the images.
    """
    rows = max(1, -(-len(pixels) // columns))
    columns = max(1, -(-len(pixels) // rows))
    width = WIDTH / columns
    lines_of = [wrapped(title, int(width / CHARACTER)) for title in titles]
    tall = min(size, width * max((image.shape[0] / image.shape[1] for image in pixels), default=0.1))
    lines = sum(max(t.count("\n") + 1 for t in lines_of[i : i + columns]) for i in range(0, len(titles), columns))
    figure, axes = figure_with_axes(rows, columns, height=rows * (tall + 0.12) + 0.16 * lines)
    for axis in axes:
        bare(axis)
        axis.set_anchor("N")
    for axis, image, title in zip(axes, pixels, lines_of, strict=False):
        show_picture(axis, image, title)
    return figure, axes[: len(pixels)]


def nothing(said: str) -> Figure:
    """That there is nothing to draw, and why: empty axes would look like a fault."""
    figure, (axis,) = figure_with_axes(height=1.0)
    axis.set_axis_off()
    axis.text(0.5, 0.5, said, ha="center", va="center")
    return figure


def wrapped(title: str, width: int) -> str:
    """Text in lines of at most `width` characters; its own line breaks stay."""
    return "\n".join(part for line in title.split("\n") for part in textwrap.wrap(line, width) or [""])
