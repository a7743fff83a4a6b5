"""Look at the photographs of a data set by subject, aspect and attribute."""

from typing import Any

import ipywidgets
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from handclip_lib.data.images import DecodedImages, decode_file
from handclip_lib.data.table import ASPECTS, HandTable, identity_order
from handclip_lib.errors import DataError
from handclip_lib.plots.dataset import sample_grid
from handclip_lib.widgets.panel import Panel

ALL = "all"
ATTRIBUTES = ("gender", "skin_color", "accessories", "nail_polish")
SAMPLES = 20  # different samples a slider offers


def dataset_browser(
    table: HandTable,
    images: DecodedImages | None = None,
    *,
    aspect: str = ALL,
    count: int = 12,
    resolution: int = 160,
    seed: int = 0,
) -> Panel:
    """Browse a data set: choose an aspect, a subject and attributes, and see photographs that have them.

    Only what the data set records is offered. A photograph that cannot be decoded is shown as a grey square.

    Args:
        table: The data set.
        images: Decoded photographs to show; one that is not among them, or all by default, is decoded on the spot.
        aspect: Aspect shown first, or "all".
        count: Photographs shown at once, 1 or more.
        resolution: Side in pixels of a photograph decoded on the spot; its proportions are kept.
        seed: Seed of the samples.

    Raises:
        DataError: The table has no photograph of `aspect`.
    """
    decoded = {} if images is None else {path: row for row, path in enumerate(images.paths)}
    controls = _controls(table.images, aspect)

    def show(sample: int = 1, **wanted: Any) -> Figure:
        rows = matching(table.images, wanted)
        order = np.random.default_rng([seed, sample]).permutation(len(rows))[:count]
        chosen = rows.iloc[np.sort(order)]
        pixels = [
            images.pixels[decoded[path]]
            if images is not None and path in decoded
            else _photograph(table, path, resolution)
            for path in chosen["path"]
        ]
        titles = [
            f"{identity}\n{aspect}" if aspect else str(identity)
            for identity, aspect in zip(chosen["identity"], chosen["aspect"], strict=True)
        ]
        return sample_grid(pixels, titles)

    alt = f"Sample of up to {count} photographs, each titled with its identity and aspect"
    return Panel(show, alt=alt, **controls, sample=ipywidgets.IntSlider(1, 1, SAMPLES))


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


def _controls(images: pd.DataFrame, aspect: str) -> dict[str, ipywidgets.Dropdown]:
    """A control for each column that has something to choose from."""
    there = [name for name in ASPECTS if (images["aspect"] == name).any()]
    if aspect not in (ALL, *there):
        raise DataError(f"no photograph has aspect={aspect!r}; choose from {', '.join([ALL, *there])}")
    controls = {}
    if there:
        controls["aspect"] = ipywidgets.Dropdown(options=[ALL, *there], value=aspect)
    subjects = sorted(images["identity"].unique(), key=identity_order)
    controls["subject"] = ipywidgets.Dropdown(options=[(ALL, ALL), *((name, name) for name in subjects)])
    for name in ATTRIBUTES:
        values = sorted(images[name].dropna().unique())
        if len(values) > 1:
            named = [({True: "yes", False: "no"}.get(value, value), value) for value in values]
            controls[name] = ipywidgets.Dropdown(options=[(ALL, ALL), *named])
    return controls


def _photograph(table: HandTable, path: str, resolution: int) -> np.ndarray:
    decoded = decode_file(table.root / path, resolution, "pad")
    return np.full((resolution, resolution, 3), 225, np.uint8) if isinstance(decoded, str) else decoded
