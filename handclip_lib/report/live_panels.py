"""The panels of a notebook drawn ahead, at every choice of their controls, for a report that has no kernel."""

import base64
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ipywidgets import Dropdown
from pydantic import ValidationError
from tqdm.auto import tqdm

from handclip_lib.analysis.collection import comparable_runs, find_records
from handclip_lib.analysis.comparison import entries_of
from handclip_lib.data.decoder import open_image
from handclip_lib.data.manifest import Split
from handclip_lib.data.open import decode_table, open_table
from handclip_lib.errors import HandClipError, RunError
from handclip_lib.evaluation.features import is_baseline
from handclip_lib.evaluation.ranking.saved_evaluation import load_evaluation
from handclip_lib.evaluation.verification.error_rates import verify_models
from handclip_lib.parameters.notebooks import NOTEBOOKS
from handclip_lib.parameters.parts import Parameters
from handclip_lib.widgets.browsers import dataset_browser, retrieval_browser, run_comparer, threshold_explorer
from handclip_lib.widgets.panel import Panel

THRESHOLDS, QUERIES, SAMPLES = 20, 6, 4  # positions of the sliders
MOST_RUNS = 5  # of the run comparer: every pair is drawn
SIDE = 224  # pixels of a photograph
QUALITY = 82  # of WebP: a third of the PNG, and no difference to be seen


@dataclass(frozen=True)
class LivePanel:
    """A panel as pictures; `alt` is what the alternative text of its picture in the notebook begins with."""

    alt: str
    note: str  # what a reader should know beside it
    controls: list[dict[str, Any]] = field(default_factory=list)  # name, labels, start (an index), slides (or a list)
    frames: list[dict[str, Any]] = field(default_factory=list)  # alt, picture (WebP; or alt says why not), width (CSS)
    order: list[int] = field(default_factory=list)  # frame of each combination, the last control's changing first

    def as_metadata(self) -> dict[str, Any]:
        """What the report's template reads beside the picture of an output."""
        if not self.frames:
            return {"caption": f"{self.alt}. {self.note}"}
        start = 0
        for control in self.controls:
            start = start * len(control["labels"]) + control["start"]
        return {"live": vars(self) | {"start": self.order[start]}}


def drawn_ahead(panel: Panel, choices: Mapping[str, Iterable[Any]], note: str = "") -> LivePanel:
    """Draw a panel, whose controls are moved, at every combination of choices; equal pictures are kept once.

    The choices are values by the label of a control; what it shows now is shown first, or what is nearest.
    """
    alt = panel.alt.partition(" (")[0]
    there = {control.description: control for control in panel.controls.values()}
    moved = {name: (there[name], list(values)) for name, values in choices.items() if name in there}
    controls = [
        {
            "name": name, "labels": [_label(value) for value in values], "start": _nearest(values, control.value),
            "slides": not isinstance(control, Dropdown),
        }
        for name, (control, values) in moved.items()
    ]  # fmt: skip
    numbers: dict[tuple[str, str], int] = {}
    frames: list[dict[str, Any]] = []
    order: list[int] = []
    combinations = list(product(*(values for _, values in moved.values())))
    for combination in tqdm(combinations, desc=f"drawing “{alt}…”", unit="picture", leave=False):
        for (control, _), value in zip(moved.values(), combination, strict=True):
            control.value = value
        data, about = panel._repr_mimebundle_()
        key = data["text/plain"], data.get("image/png", "")
        if key not in numbers:
            numbers[key] = len(frames)
            width = about["image/png"]["width"] if about else None
            frames.append({"alt": key[0], "picture": _lighter(key[1]) if key[1] else "", "width": width})
        order.append(numbers[key])
    return LivePanel(alt, note, controls, frames, order)


def live_panels(run_folder: Path, run: Mapping[str, Any]) -> list[LivePanel]:
    """The panels of a run, from what it left in its folder and the photographs; without these, a note and no frames.

    The similarity over epochs of 02 is drawn ahead in every report; its other panels would need the model.
    """
    makers = MAKERS.get(str(run.get("notebook")), ())
    if not makers:
        return []
    if run.get("status") != "succeeded":
        raise RunError(f"{run['id']} {run.get('status')}: the panels of a run that succeeded can be drawn again")
    try:
        config = NOTEBOOKS[run["notebook"]].model_validate(run.get("parameters"))
    except ValidationError as error:
        raise RunError(f"{run['id']} has other parameters than this version; run the notebook again") from error
    panels = []
    for alt, maker in makers:
        try:
            panels.append(maker(run_folder, config))
        except HandClipError as error:
            panels.append(LivePanel(alt, f"Its controls are not live: {error}"))
    return panels


def _photographs(_: Path, config: Any) -> LivePanel:
    table, images = decode_table(open_table(config), config, config.resolution, progress=False)
    panel = dataset_browser(table, images, count=config.samples, seed=config.seed)
    aspects = [control.options for control in panel.controls.values() if control.description == "aspect"]
    return drawn_ahead(panel, {"aspect": aspects[0] if aspects else (), "sample": range(1, SAMPLES + 1)})


def _thresholds(folder: Path, _: Any) -> LivePanel:
    saved, split = load_evaluation(folder), Split.read(folder)
    models = [model for model in saved.models if not is_baseline(model)]
    results = verify_models({model: saved.features(model) for model in models}, split)
    low = min(float(np.median(result.pairs.shown)) for result in results)
    high = max(float(result.curve.thresholds[-2]) for result in results)
    start = results[0].curve.eer_threshold
    steps = sorted({*np.linspace(low, high, THRESHOLDS).tolist(), start})
    note = "Trivial baselines are left out here: their embeddings are not kept."
    return drawn_ahead(threshold_explorer(results), {"model": models, "threshold": steps}, note)


def _queries(folder: Path, config: Any) -> LivePanel:
    saved, split = load_evaluation(folder), Split.read(folder)
    _, images = decode_table(open_table(config), config, SIDE, progress=False)
    features = saved.features(saved.models[0])
    panel = retrieval_browser(features, split, images, top_k=getattr(config, "top_k", 8))
    choices = {"gallery": list(saved.n_gallery), "queries": ("worst", "wrong", "random")}
    note = f"The first draw, and up to {QUERIES} queries of each kind."
    return drawn_ahead(panel, choices | {"query number": range(1, QUERIES + 1)}, note)


def _runs(folder: Path, config: Any) -> LivePanel:
    try:
        compared = pd.read_csv(folder / "comparison.csv", dtype=str)["run"]
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{folder / 'comparison.csv'} cannot be read ({error}); run the notebook again") from error
    ids = list(dict.fromkeys(compared))
    evaluations, _ = comparable_runs(find_records(folder.parent, ids), folder.parent, ids)
    entries = entries_of(evaluations, ids[0])
    panel = run_comparer(entries, config.gallery, samples=config.sign_flips, seed=config.seed)
    shown = [entry.label for entry in entries][:MOST_RUNS]
    note = f"The first {len(shown)} of {len(entries)}." if len(shown) < len(entries) else ""
    return drawn_ahead(panel, {"run": shown, "against": shown}, note)


BROWSED = ("A query and its", _queries)
EXPLORED = ("Distribution of the scores of pairs of one person and of two people, with", _thresholds)
MAKERS: dict[str, tuple[tuple[str, Callable[[Path, Parameters], LivePanel]], ...]] = {
    "01_data_exploration": (("Sample of up to", _photographs),),
    "03_image_finetune": (BROWSED,),
    "04_joint_training": (BROWSED,),
    "05_evaluation": (EXPLORED, BROWSED),
    "06_analysis": (("CMC of two runs", _runs),),
}
"""By notebook: what the alternative text of each panel begins with, and what draws it."""


def _label(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _nearest(values: list[Any], value: Any) -> int:
    if isinstance(value, float):
        return int(np.abs(np.array(values) - value).argmin())
    return values.index(value)


def _lighter(png: str) -> str:
    """A base64 PNG as base64 WebP."""
    buffer = io.BytesIO()
    with open_image(io.BytesIO(base64.b64decode(png))) as picture:
        picture.convert("RGB").save(buffer, "webp", quality=QUALITY)
    return base64.b64encode(buffer.getvalue()).decode()
