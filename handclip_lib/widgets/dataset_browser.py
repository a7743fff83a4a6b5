"""Look at the photographs of a data set by subject, aspect and attribute."""

from typing import Any

import ipywidgets
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from handclip_lib.data.images import DecodedImages
from handclip_lib.data.table import ASPECTS, HandTable, identity_order
from handclip_lib.errors import DataError
from handclip_lib.plots.dataset import sample_grid
from handclip_lib.widgets.panel import Panel

ALL = "all"
ATTRIBUTES = ("gender", "skin_color", "accessories", "nail_polish")
SAMPLES = 20  # different samples a slider offers


def dataset_browser(table: HandTable, images: DecodedImages, *, count: int = 12, seed: int = 0) -> Panel:
    """Browse a data set: choose an aspect, a subject and attributes, and see photographs that have them.

    Only what the data set records, and in which its images differ, is offered.

    Args:
        images: Decoded photographs of at least its paths.
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
    """The rows that have every wanted value; a value of "all" asks for nothing.

    Args:
        images: The table's rows.
        wanted: Value by column; "subject" stands for the identity.

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
