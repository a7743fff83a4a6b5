"""Two runs beside each other: their curves, their difference, and the queries that only one gets right."""

from collections.abc import Sequence

import ipywidgets
from matplotlib.figure import Figure

from handclip_lib.analysis.comparison import Entry, compare_pair, won_and_lost
from handclip_lib.errors import EvaluationError
from handclip_lib.plots.comparison import compared_runs
from handclip_lib.widgets.panel import Panel


def run_comparer(entries: Sequence[Entry], gallery: str = "aspect", *, samples: int = 1000, seed: int = 0) -> Panel:
    """Choose two entries: CMC of both, difference of rank-1 and mAP, and queries that only one of them gets right.

    Args:
        entries: At least two, with labels of their own; the panel starts with the second against the first.

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
    choosers = {
        name: ipywidgets.Dropdown(options=labels, value=labels[place]) for name, place in (("run", 1), ("against", 0))
    }
    alt = "CMC of two runs, the difference of rank-1 and mAP, and queries that only one of them gets right"
    return Panel(show, alt=alt, **choosers)
