"""Figures of several runs: results in, `Figure` out; shares become percent here and nowhere else."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from handclip_lib.evaluation.bootstrap import Interval
from handclip_lib.plots.style import COLOURS, MARKERS, QUIET, figure_with_axes, in_our_look, wrapped

MEASURES = {"rank1": "rank-1", "map": "mAP"}
POINTS = "percentage points"
LINE, HALF = 34, 52  # characters of a label beside an axis, which takes its width; and of half a figure's width


@in_our_look
def forest(table: pd.DataFrame) -> Figure:
    """Rank-1 of each entry with its interval, and what rank-1 and mAP gain over the first; a `comparison_table`.

    A filled mark is a gain whose p-value by Holm is below 0.05.
    """
    figure, (left, right) = figure_with_axes(1, 2, height=0.42 * len(table) + 1.5, sharey=True)
    rows = np.arange(len(table))
    _bars(left, table["rank1"], table["rank1_low"], table["rank1_high"], rows, COLOURS[0], MARKERS[0])
    left.set_yticks(rows, [wrapped(name, LINE) for name in table["model"]], parse_math=False)
    left.set_ylim(len(table) - 0.4, -0.6)
    left.set(title="rank-1", xlabel="interval over identities")
    left.xaxis.set_major_formatter(PercentFormatter())
    right.axvline(0, color=QUIET, lw=1)
    for place, (name, label) in enumerate(MEASURES.items()):
        sure = (table[f"{name}_p_holm"] < 0.05).to_numpy()
        for mask, fill in ((sure, COLOURS[place]), (~sure, "white")):
            part = table[mask]
            gain, low, high = part[f"{name}_gain"], part[f"{name}_gain_low"], part[f"{name}_gain_high"]
            _bars(right, gain, low, high, rows[mask] + 0.24 * place - 0.12, COLOURS[place], MARKERS[place], fill)
        right.plot([], [], MARKERS[place], color=COLOURS[place], label=label)
    right.set_title("gain over the first row", loc="left")
    right.set(xlabel=f"{POINTS}; filled: p < 0.05 by Holm")
    right.legend(loc="lower right", ncols=2, bbox_to_anchor=(1, 1.08), borderaxespad=0)
    for axis in (left, right):
        axis.grid(axis="y", visible=False)
    return figure


@in_our_look
def cmc_overlay(curves: Mapping[str, Interval], n_gallery: int) -> Figure:
    """CMC of several models on one gallery, with their bands over identities.

    Args:
        curves: `Entry.cmc` by label.
        n_gallery: Gallery size.
    """
    figure, (axis,) = figure_with_axes(height=4.0 + 0.1 * len(curves))
    draw_cmc(axis, curves, n_gallery)
    _legend_below(figure, axis, "rank-1 in brackets")
    return figure


def draw_cmc(axis: Axes, curves: Mapping[str, Interval], n_gallery: int) -> None:
    """Draw CMC curves with their bands into an axis."""
    for place, (label, cmc) in enumerate(curves.items()):
        k = np.arange(1, len(cmc.estimate) + 1)
        colour, marker, line = line_look(place)
        axis.fill_between(k, 100 * cmc.low, 100 * cmc.high, color=colour, alpha=0.1, lw=0)
        text = f"{label} ({100 * cmc.estimate[0]:.1f} %)"
        axis.plot(k, 100 * cmc.estimate, color=colour, marker=marker, ls=line, ms=4, label=text)
    low = min((float(cmc.low.min()) for cmc in curves.values()), default=0)
    axis.set(xlabel="rank k", ylabel="queries with a match in the k best", ylim=(max(0, 100 * low - 5), 101))
    axis.set_title(f"gallery of {n_gallery} images")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.yaxis.set_major_formatter(PercentFormatter())


@in_our_look
def sweep_effect(table: pd.DataFrame, parameter: str, measures: Mapping[str, str] = MEASURES) -> Figure:
    """Rank-1 and mAP over the values of one parameter: lines are means over seeds, dots single runs.

    Args:
        table: Columns value, and the measures in 0..1, a row a run.
        parameter: Its name.
        measures: Label of each measure by its column; at most as many as there are colours.
    """
    figure, (axis,) = figure_with_axes(height=3.6)
    is_number = pd.api.types.is_numeric_dtype(table["value"]) and not pd.api.types.is_bool_dtype(table["value"])
    names = list(dict.fromkeys(table["value"].tolist()))
    place = table["value"] if is_number else table["value"].map(names.index)
    for number, (name, label) in enumerate(measures.items()):
        colour, marker, _ = line_look(number)
        axis.plot(place, 100 * table[name], marker, color=colour, ms=5, mfc="white", ls="")
        mean = (100 * table[name]).groupby(place).mean()
        axis.plot(mean.index, mean, color=colour, marker=marker, ms=6, label=label)
    if is_number and table["value"].min() > 0 and table["value"].max() / table["value"].min() >= 20:
        axis.set_xscale("log")
    if is_number:
        axis.set_xticks(names, [f"{value:g}" for value in names])
        axis.minorticks_off()
    else:
        axis.set_xticks(range(len(names)), map(str, names), parse_math=False)
    axis.set_xlabel(f"{parameter} ({len(table)} runs)", parse_math=False)
    axis.yaxis.set_major_formatter(PercentFormatter())
    axis.legend(loc="best")
    return figure


@in_our_look
def seed_spread(table: pd.DataFrame) -> Figure:
    """Rank-1 and mAP of runs that differ in the seed alone: dots, and their mean and standard deviation.

    Args:
        table: Columns group, rank1 and map, a row a run.
    """
    groups = list(dict.fromkeys(table["group"]))
    figure, (axis,) = figure_with_axes(height=0.7 * len(groups) + 1.3)
    for number, (name, label) in enumerate(MEASURES.items()):
        colour, marker, _ = line_look(number)
        for row, group in enumerate(groups):
            values = 100 * table.loc[table["group"] == group, name].to_numpy()
            at = row + 0.3 * number - 0.15
            axis.plot(values, np.full(len(values), at), ".", color=QUIET, ms=8)
            axis.errorbar(values.mean(), at + 0.1, xerr=values.std(ddof=1), fmt=marker, color=colour, capsize=4)
        axis.plot([], [], marker, color=colour, label=label)
    sizes = table.groupby("group").size()
    axis.set_yticks(range(len(groups)), [f"{group}, {sizes[group]} seeds" for group in groups], parse_math=False)
    axis.set_ylim(len(groups) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)
    axis.xaxis.set_major_formatter(PercentFormatter())
    axis.set_xlabel("grey: a run; bar: mean ± one standard deviation over seeds")
    _legend_below(figure, axis, "")
    return figure


@in_our_look
def draw_variance(draws: Mapping[str, pd.Series]) -> Figure:
    """Rank-1 of every draw, one line an entry: the draws are the same for all, so they rise and fall together.

    Args:
        draws: `Entry.draws` by label.
    """
    figure, (axis,) = figure_with_axes(height=3.6 + 0.1 * len(draws))
    for place, (label, values) in enumerate(draws.items()):
        colour, marker, line = line_look(place)
        spread = f"sd {100 * values.std(ddof=1):.1f}" if len(values) > 1 else "one draw"
        text = f"{label}: {100 * values.mean():.1f} ({spread})"
        axis.plot(values.index, 100 * values, color=colour, marker=marker, ls=line, ms=5, lw=1, label=text)
    axis.set(xlabel="draw of the gallery", ylabel="rank-1")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.yaxis.set_major_formatter(PercentFormatter())
    _legend_below(figure, axis, "mean and standard deviation over draws, %")
    return figure


@in_our_look
def cost_accuracy(table: pd.DataFrame) -> Figure:
    """Rank-1 with its interval against the seconds a run took, by notebook; rows of `runs_table`."""
    figure, (axis,) = figure_with_axes(height=4.0)
    for place, (notebook, rows) in enumerate(table.groupby("notebook", sort=True)):
        colour, marker, _ = line_look(place)
        ends = [100 * (rows["rank1"] - rows["rank1_low"]), 100 * (rows["rank1_high"] - rows["rank1"])]
        label = str(notebook).replace("_", " ")
        axis.errorbar(rows["seconds"], 100 * rows["rank1"], yerr=ends, fmt=marker, color=colour, capsize=4, label=label)
        for name, seconds, rank1 in zip(rows["id"], rows["seconds"], rows["rank1"], strict=True):
            text = str(name).rpartition("-")[2]
            axis.annotate(text, (seconds, 100 * rank1), (7, 4), textcoords="offset points", fontsize=9)
    if table["seconds"].max() / max(table["seconds"].min(), 1e-9) >= 20:
        axis.set_xscale("log")
        axis.margins(x=0.15)
    else:
        axis.set_xlim(0, 1.15 * table["seconds"].max())
    axis.margins(y=0.1)
    axis.set(xlabel="seconds a run took, on the machine it ran on", ylabel="rank-1")
    axis.yaxis.set_major_formatter(PercentFormatter())
    axis.legend(loc="best", title="at each mark: end of the run's id")
    return figure


def _bars(
    axis: Axes, value: pd.Series, low: pd.Series, high: pd.Series, rows: np.ndarray, colour: str, marker: str,
    fill: str = "",
) -> None:  # fmt: skip
    """Estimates with their intervals, in percent; rows without one are left out."""
    there = value.notna().to_numpy()
    # rounding may put the estimate of values that are all alike beyond its interval, and a bar has no negative length
    estimate, ends = 100 * value[there], [100 * side[there].clip(lower=0) for side in (value - low, high - value)]
    axis.errorbar(estimate, rows[there], xerr=ends, fmt=marker, color=colour, mfc=fill or colour, capsize=4, ms=6)


def _legend_below(figure: Figure, axis: Axes, title: str) -> None:
    """Labels of runs are long: under the figure, in two columns if they fit, they take no width from it."""
    handles, labels = axis.get_legend_handles_labels()
    columns = 2 if max(map(len, labels), default=0) <= HALF else 1
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, title=title)


def line_look(place: int) -> tuple[str, str, str]:
    """Colour, marker and line; the line changes where the colours begin anew."""
    lines = ("-", "--", ":", "-.")
    n = len(COLOURS)
    return COLOURS[place % n], MARKERS[place % n], lines[place // n % len(lines)]
