"""Move a threshold over the scores of a model and see whom it lets in and whom it keeps out."""

from collections.abc import Sequence

import ipywidgets
from matplotlib.figure import Figure

from handclip_lib.evaluation.verification.error_rates import VerificationResult
from handclip_lib.plots.verification import threshold_choice
from handclip_lib.widgets.panel import Panel

STEPS = 400  # of the slider


def threshold_explorer(results: Sequence[VerificationResult]) -> Panel:
    """Explore thresholds: the two distributions with a line, FMR and FNMR there, and the pairs behind them.

    Args:
        results: Models to choose from; the first is shown first, at the threshold of its EER.
    """
    models = {result.model: result for result in results}

    def show(model: str, threshold: float) -> Figure:
        return threshold_choice(models[model], threshold)

    low = min(float(result.verification.thresholds[0]) for result in results)
    # The last threshold is infinity; one step beyond the highest score is where nothing passes.
    high = max(float(result.verification.thresholds[-2]) for result in results)
    step, start = max((high - low) / STEPS, 1e-6), results[0].verification.eer_threshold
    slider = ipywidgets.FloatSlider(
        start, min=low, max=high + step, step=step, readout_format=".3f", layout=ipywidgets.Layout(width="420px")
    )
    choice = ipywidgets.Dropdown(options=list(models))
    alt = "Distribution of the scores of pairs of one person and of two people, with a line at the threshold"
    return Panel(show, alt=alt, model=choice, threshold=slider)
