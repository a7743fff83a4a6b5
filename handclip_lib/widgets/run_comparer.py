"""Two runs beside each other: their curves, their difference, and the queries that only one gets right."""

from collections.abc import Mapping, Sequence

import ipywidgets
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.bootstrap import Interval
from handclip_lib.evaluation.comparison import Difference, Entry, compare_pair, won_and_lost
from handclip_lib.plots.comparison import HALF, LINE, MEASURES, draw_cmc
from handclip_lib.plots.style import COLOURS, MARKERS, QUIET, WIDTH, in_our_look, wrapped
from handclip_lib.widgets.panel import Panel

MOST_QUERIES = 8  # listed a side
LONGEST_NAME = 20


def run_comparer(entries: Sequence[Entry], gallery: str = "aspect", *, samples: int = 1000, seed: int = 0) -> Panel:
    """Choose two entries: CMC of both, difference of rank-1 and mAP, and queries that only one of them gets right.

    Args:
        entries: At least two, with labels of their own; the panel starts with the second against the first.
        gallery: "aspect" or "all".
        samples: Resamples of the identities.
        seed: Seed of the resampling.

    Raises:
        EvaluationError: There are fewer than two entries, or the first two cannot be compared.
    """
    by_label = {entry.label: entry for entry in entries}
    if len(by_label) < 2 or len(by_label) < len(entries):
        raise EvaluationError(
            f"{len(entries)} entries, {len(by_label)} labels: two entries of different label, or more"
        )

    def show(run: str, against: str) -> Figure:
        if run == against:
            raise EvaluationError(f"{run} is chosen twice; choose another run to set it against")
        first, second = by_label[run], by_label[against]
        differences = compare_pair(first, second, gallery, samples=samples, seed=seed)
        curves = {label: by_label[label].cmc(gallery, samples, seed) for label in (run, against)}
        size = first.evaluation.n_gallery[gallery]
        return compared_runs(curves, size, differences, won_and_lost(first, second, gallery))

    labels = list(by_label)
    alt = "CMC of two runs, the difference of rank-1 and mAP, and queries that only one of them gets right"
    choosers = {
        "run": ipywidgets.Dropdown(options=labels, value=labels[1]),
        "against": ipywidgets.Dropdown(options=labels, value=labels[0]),
    }
    return Panel(show, alt=alt, **choosers)


@in_our_look
def compared_runs(
    curves: Mapping[str, Interval], n_gallery: int, differences: Mapping[str, Difference],
    queries: Mapping[str, pd.DataFrame],
) -> Figure:  # fmt: skip
    """The figure of the panel.

    Args:
        curves: CMC of the two by label, the first less the second being the difference.
        n_gallery: Gallery size.
        differences: Of `compare_pair`.
        queries: Of `won_and_lost`.
    """
    figure = Figure(figsize=(WIDTH, 6.2), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=(1.5, 1))
    left, right = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[0, 1])
    draw_cmc(left, curves, n_gallery)
    handles, labels = left.get_legend_handles_labels()
    left.legend(handles, [wrapped(label, LINE) for label in labels], loc="lower right")
    first, second = curves
    right.axvline(0, color=QUIET, lw=1)
    for row, found in enumerate(differences.values()):
        value, low, high = 100 * float(found.estimate), 100 * float(found.low), 100 * float(found.high)
        right.errorbar(
            value,
            row,
            xerr=[[max(0.0, value - low)], [max(0.0, high - value)]],
            fmt=MARKERS[row],
            color=COLOURS[row],
            capsize=5,
            ms=7,
        )
        text = f"{value:+z.1f} [{low:z.1f}, {high:z.1f}], p = {float(found.p_value):.3g}"
        right.annotate(text, (value, row), (0, 10), textcoords="offset points", ha="center", fontsize=9)
    right.set_yticks(range(len(differences)), [MEASURES[name] for name in differences])
    right.set_ylim(len(differences) - 0.4, -0.7)
    right.margins(x=0.35)
    right.grid(axis="y", visible=False)
    right.set_title(wrapped(f"{first}\nless {second}", HALF), parse_math=False)
    right.set_xlabel("difference in percentage points, 95 % over identities")
    shares = [len(queries[name]) for name in ("both", "first", "second", "neither")]
    total = max(1, sum(shares))
    for column, name, label, rank in ((0, "first", first, "rank_second"), (1, "second", second, "rank_first")):
        axis = figure.add_subplot(grid[1, column])
        _listed(axis, queries[name], label, rank)
    counts = np.array(shares) * 100 / total
    figure.suptitle(
        f"of {total} queries both get {counts[0]:.0f} % right, one of them {counts[1] + counts[2]:.0f} %, "
        f"neither {counts[3]:.0f} %",
        fontsize=10, parse_math=False,
    )  # fmt: skip
    return figure


def _listed(axis: Axes, queries: pd.DataFrame, label: str, rank: str) -> None:
    """Photographs as lines of text: in how many draws only one run gets them right, and the other's worst rank."""
    found = queries.groupby(["path", "identity"])[rank].agg(["size", "max"]).reset_index()
    found = found.sort_values(["size", "max", "path"], ascending=[False, False, True], kind="stable")
    axis.set_axis_off()
    title = wrapped(f"only {label}:", HALF) + f"\n{len(queries)} queries of {len(found)} photographs"
    axis.set_title(title, loc="left", fontsize=9, parse_math=False)
    lines = [
        f"{_short(path)} ({identity}): {draws} {'draw' if draws == 1 else 'draws'}, rank of the other ≤ {worst}"
        for path, identity, draws, worst in found.head(MOST_QUERIES).itertuples(index=False, name=None)
    ]
    more = len(found) - len(lines)
    lines += [f"… and {more} more"] if more > 0 else []
    text = axis.text(0, 1, "\n".join(lines) or "none", va="top", fontsize=9, parse_math=False, transform=axis.transAxes)
    text.set_in_layout(False)  # a long name must not take the curves' width


def _short(path: str) -> str:
    name = path.rpartition("/")[2]
    return name if len(name) <= LONGEST_NAME else "…" + name[1 - LONGEST_NAME :]
