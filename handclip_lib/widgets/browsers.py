"""What notebooks offer to look through: photographs, queries, thresholds, and two runs beside each other."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import ipywidgets
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from handclip_lib.analysis.comparison import Entry, compare_pair, won_and_lost
from handclip_lib.data.images import DecodedImages
from handclip_lib.data.manifest import GALLERIES, Split
from handclip_lib.data.table import ASPECTS, HandTable, identity_order
from handclip_lib.errors import DataError, EvaluationError
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.ranking.confusion import CHOICES, RankedQueries
from handclip_lib.evaluation.verification.error_rates import VerificationResult
from handclip_lib.plots.comparison import compared_runs
from handclip_lib.plots.dataset import sample_grid
from handclip_lib.plots.retrieval import ranked_gallery
from handclip_lib.plots.verification import threshold_choice
from handclip_lib.widgets.panel import Panel

ALL = "all"
ATTRIBUTES = ("gender", "skin_color", "accessories", "nail_polish")
SAMPLES = 20  # different samples a slider offers
STEPS = 400  # of the slider


def dataset_browser(table: HandTable, images: DecodedImages, *, count: int = 12, seed: int = 0) -> Panel:
    """Browse a data set: choose an aspect, a subject and attributes, and see photographs that have them.

    Only what the data set records, and in which its images differ, is offered.

    Args:
        count: Photographs shown at once, 1 or more.
    """

    def show(sample: int = 1, **wanted: Any) -> Figure:
        rows = matching(table.images, wanted)
        chosen = rows.iloc[np.sort(np.random.default_rng([seed, sample]).permutation(len(rows))[:count])]
        titles = [
            f"{identity}\n{aspect}" if aspect else str(identity)
            for identity, aspect in zip(chosen["identity"], chosen["aspect"], strict=True)
        ]
        return sample_grid(list(images.pixels[images.rows(chosen["path"])]), titles)

    alt = f"Sample of up to {count} photographs, each titled with its identity and aspect"
    return Panel(show, alt=alt, **_controls(table.images), sample=ipywidgets.IntSlider(1, 1, SAMPLES))


def matching(images: pd.DataFrame, wanted: dict[str, Any]) -> pd.DataFrame:
    """The rows that have every wanted value by column ("subject" is the identity); "all" asks for nothing.

    Raises:
        DataError: No row has them all.
    """
    asked = {name: value for name, value in wanted.items() if not (isinstance(value, str) and value == ALL)}
    kept = np.ones(len(images), bool)
    for name, value in asked.items():
        column = images["identity" if name == "subject" else name]
        kept &= (column == value).fillna(False).to_numpy(bool)
    if not kept.any():
        said = ", ".join(f"{name}={value!r}" for name, value in asked.items())
        raise DataError(f"no photograph has {said}; set one of them to all")
    return images[kept]


def retrieval_browser(features: Features, split: Split, images: DecodedImages, top_k: int = 8) -> Panel:
    """Browse queries: the best gallery images with green frames (same person) and red ones (someone else).

    When no match is among the best, the first one is added with its rank. The worst queries come first.

    Args:
        features, images: Of at least `split.evaluated_paths()`.
        top_k: Gallery images shown for a query, 1 or more.
    """

    @lru_cache(maxsize=4)
    def ranked(draw: int, gallery: str) -> RankedQueries:
        return RankedQueries(features, split.draw(draw, gallery))

    def show(draw: int, gallery: str, queries: str, query: int) -> Figure:
        ranking = ranked(draw, gallery)
        order = ranking.order(queries)
        if not len(order):
            raise LookupError(f"no query is {queries} in draw {draw}, gallery {gallery!r}; choose other queries")
        row, held = order[min(query, len(order)) - 1], ranking.draw
        columns, ranks = ranking.best(row, top_k)
        titles = [
            f"{rank}. {_in_two_lines(held.gallery_ids[column])}\n{ranking.similarity[row, column]:.3f}"
            for rank, column in zip(ranks, columns, strict=True)
        ]
        pixels = images.pixels[images.rows([held.query_paths[row], *held.gallery_paths[columns]])]
        title = f"query\n{held.query_ids[row]}"
        return ranked_gallery(pixels[0], title, pixels[1:], titles, ranking.is_match[row, columns])

    controls = {
        "draw": ipywidgets.IntSlider(0, 0, split.meta["draws"] - 1),
        "gallery": ipywidgets.Dropdown(options=GALLERIES),
        "queries": ipywidgets.Dropdown(options=CHOICES),
    }
    number = ipywidgets.IntSlider(1, 1, 1, description="query number")

    def follow(_change: object = None) -> None:
        draw, gallery, queries = (control.value for control in controls.values())
        number.max = max(1, len(ranked(draw, gallery).order(queries)))

    follow()
    for control in controls.values():
        control.observe(follow, names="value")  # before the panel's own, so that it draws within the new range
    alt = f"A query and its {top_k} best gallery images; green frames are the same person, red ones someone else"
    return Panel(show, alt=alt, **controls, query=number)


def threshold_explorer(results: Sequence[VerificationResult]) -> Panel:
    """Explore thresholds: the two distributions with a line, FMR and FNMR there, and the pairs behind them.

    Args:
        results: Models to choose from; the first is shown first, at the threshold of its EER.
    """
    models = {result.model: result for result in results}

    def show(model: str, threshold: float) -> Figure:
        return threshold_choice(models[model], threshold)

    low = min(float(result.curve.thresholds[0]) for result in results)
    # The last threshold is infinity; one step beyond the highest score is where nothing passes.
    high = max(float(result.curve.thresholds[-2]) for result in results)
    step, start = max((high - low) / STEPS, 1e-6), results[0].curve.eer_threshold
    slider = ipywidgets.FloatSlider(
        start, min=low, max=high + step, step=step, readout_format=".3f", layout=ipywidgets.Layout(width="420px")
    )
    choice = ipywidgets.Dropdown(options=list(models))
    alt = "Distribution of the scores of pairs of one person and of two people, with a line at the threshold"
    return Panel(show, alt=alt, model=choice, threshold=slider)


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


def _controls(images: pd.DataFrame) -> dict[str, ipywidgets.Dropdown]:
    """A control for each column that has something to choose from."""
    controls = {}
    aspects = [name for name in ASPECTS if (images["aspect"] == name).any()]
    if aspects:
        controls["aspect"] = ipywidgets.Dropdown(options=[ALL, *aspects])
    subjects = sorted(images["identity"].unique(), key=identity_order)
    controls["subject"] = ipywidgets.Dropdown(options=[(ALL, ALL), *((name, name) for name in subjects)])
    for name in ATTRIBUTES:
        values = sorted(images[name].dropna().unique())
        if len(values) > 1:
            named = [({True: "yes", False: "no"}.get(value, value), value) for value in values]
            controls[name] = ipywidgets.Dropdown(options=[(ALL, ALL), *named])
    return controls


def _in_two_lines(identity: str) -> str:
    """Another aspect's gallery identity, "<aspect>/<identity>", is wider than a photograph."""
    aspect, slash, rest = identity.partition("/")
    return f"{aspect}/\n{rest}" if slash and aspect in ASPECTS else identity
