"""Figures of a data set: counts, balance, samples, near-duplicates, sizes, and what the transform does."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from handclip_lib.data.survey import LIMITS
from handclip_lib.plots.style import (
    COLOURS,
    QUIET,
    figure_with_axes,
    in_our_look,
    name_rows,
    nothing,
    panels,
    picture_grid,
)
from handclip_lib.terminal import counted


@in_our_look
def protocol_counts(frame: pd.DataFrame) -> Figure:
    """What the split holds, beside the published count where there is one; rows of `split_counts`."""
    figure, (axis,) = figure_with_axes(height=3.4)
    place, published = np.arange(len(frame)), "published" in frame
    bars = [axis.barh(place - 0.2 * published, frame["found"], 0.4 if published else 0.6, color=COLOURS[0])]
    if published:
        bars += [axis.barh(place + 0.2, frame["published"], 0.4, color=COLOURS[4], hatch="//")]
        axis.legend(bars, ["found", "published"], loc="lower left", bbox_to_anchor=(0, 1), ncols=2)  # hides no bar
    for container in bars:
        axis.bar_label(container, padding=3, fontsize=9)
    name_rows(axis, frame["count"])
    axis.set_xlabel("images (identities where the row says so)")
    axis.margins(x=0.08)
    return figure


@in_our_look
def attribute_balance(frame: pd.DataFrame) -> Figure:
    """Images and identities of each value of each attribute; rows of `attribute_counts`."""
    groups = list(frame.groupby("attribute", sort=False))
    figure, axes = panels(len(groups), 2.3)
    for axis, (attribute, part) in zip(axes, groups, strict=True):
        bars = axis.barh(range(len(part)), part["images"], color=COLOURS[0])
        axis.bar_label(bars, [counted(n, "id") for n in part["identities"]], padding=3, fontsize=9)
        name_rows(axis, part["value"])
        axis.set_title(str(attribute).replace("_", " "))
        axis.margins(x=0.4)
    figure.supxlabel("images", fontsize=10)
    return figure


@in_our_look
def images_per_identity(counts: "pd.Series[int]") -> Figure:
    """Images of each identity, most first: how much of a figure a few subjects carry."""
    figure, (axis,) = figure_with_axes(height=2.9)
    values = counts.to_numpy()
    axis.bar(np.arange(len(values)), values, width=1.0, color=COLOURS[0])
    axis.set(xlabel=f"{counted(len(values), 'identity')}, most images first", ylabel="images")
    axis.set_xlim(-0.5, len(values) - 0.5)
    most = f"the first 10 hold {values[:10].sum() / values.sum():.0%}; " if len(values) > 10 else ""
    title = f"{counted(values.sum(), 'image')}, median {np.median(values):g} an identity; {most}"
    axis.set_title(f"{title}{counted((values == 1).sum(), 'identity')} of one image", loc="left", fontsize=10)
    return figure


@in_our_look
def sample_grid(pixels: Sequence[np.ndarray], titles: Sequence[str]) -> Figure:
    """Photographs with their titles, which are literal text from the data set."""
    return picture_grid(pixels, titles, columns=min(6, max(1, len(pixels))), size=1.5)[0]


@in_our_look
def near_duplicate_pairs(pairs: pd.DataFrame, left: Sequence[np.ndarray], right: Sequence[np.ndarray]) -> Figure:
    """Pairs of images that look nearly the same, one above the other; rows of `near_duplicates`."""
    shown = min(6, len(pairs))
    if not shown:
        return nothing("no two images look nearly the same")
    titles = []
    for pair in pairs.head(shown).itertuples():
        distance = "unknown" if pair.capture_distance is pd.NA else str(pair.capture_distance)
        who = "same identity" if pair.same_identity else "DIFFERENT identities"
        titles.append(f"cosine {pair.cosine:.3f}\n{who}\ncaptures apart: {distance}")
    return picture_grid([*left[:shown], *right[:shown]], [*titles, *[""] * shown], columns=shown, size=1.3)[0]


@in_our_look
def image_sizes(sizes: pd.DataFrame) -> Figure:
    """Width and height of the photographs in pixels, one dot a size with its number of images."""
    figure, (axis,) = figure_with_axes(height=3.0)
    grouped = sizes.groupby(["width", "height"]).size().sort_values(ascending=False)
    width, height = (grouped.index.get_level_values(i).to_numpy() for i in (0, 1))
    axis.scatter(width, height, s=40 + 300 * grouped.to_numpy() / grouped.max(), color=COLOURS[0], alpha=0.6)
    for w, h, n in list(zip(width, height, grouped, strict=True))[:8]:
        axis.annotate(f"{w}×{h}: {counted(n, 'image')}", (w, h), (12, 0), textcoords="offset points", va="center")
    axis.set(xlabel="width in pixels", ylabel="height in pixels")
    axis.set(xlim=(0, width.max() * 1.35), ylim=(0, height.max() * 1.35))
    return figure


@in_our_look
def transform_steps(results: Mapping[str, np.ndarray]) -> Figure:
    """A photograph, and what the model sees of it under each fit, with their titles."""
    return picture_grid(list(results.values()), list(results), columns=len(results), size=2.1)[0]


@in_our_look
def quality_spread(quality: pd.DataFrame) -> Figure:
    """Sharpness, exposure and contrast of the photographs, and the limits of `survey.LIMITS`; rows of its measures."""
    figure, axes = figure_with_axes(1, 3, height=2.6)
    names = {"sharpness": "sharpness (variance of the Laplacian)", "exposure": "mean grey", "contrast": "SD of grey"}
    for axis, (column, name) in zip(axes, names.items(), strict=True):
        values = quality[column].dropna()
        if column == "sharpness":
            least = max(float(values.min()), 0.1) if len(values) else 0.1
            edges = np.geomspace(least, max(float(values.max()), 2 * least) if len(values) else 1.0, 31)
            axis.set_xscale("log")
        else:
            edges = np.linspace(0, 1 if column == "exposure" else 0.5, 31)
        axis.hist(values.clip(edges[0], edges[-1]), edges.tolist(), color=COLOURS[0])
        if column in LIMITS:
            axis.axvline(LIMITS[column][0], color=COLOURS[1], ls="--")
            axis.set_title(f"dashed: below it {LIMITS[column][1]}", loc="left", fontsize=9)
        axis.set(xlabel=name, ylabel="photographs")
    return figure


@in_our_look
def poorest_photographs(rows: pd.DataFrame, pixels: Sequence[np.ndarray]) -> Figure:
    """Photographs with their sharpness and fault; rows of `poorest`, and their images."""
    titles = [
        f"{row['path'].replace('/', '/ ')}\n{row['fault'] or 'no fault'}\nsharpness {row['sharpness']:.3g}"
        for _, row in rows.iterrows()
    ]
    return picture_grid(pixels, titles, columns=6, size=1.5)[0]


@in_our_look
def capture_distances(pairs: pd.DataFrame) -> Figure:
    """How far apart in capture number near-duplicates of one identity lie: bursts sit at one."""
    same = pairs[pairs["same_identity"]]["capture_distance"].dropna().astype(int).clip(upper=15)
    if same.empty:
        numbered = pairs["capture_distance"].notna().any() or pairs.empty
        return nothing("no near-duplicates of one identity" if numbered else "captures are not numbered here")
    figure, (axis,) = figure_with_axes(height=2.6)
    counts = same.value_counts().reindex(range(1, 16), fill_value=0)
    axis.bar(counts.index, counts.to_numpy(), color=QUIET)
    axis.set_xticks(range(1, 16), [*map(str, range(1, 15)), "15+"])
    axis.set(xlabel="captures apart, near-duplicates of one identity", ylabel="pairs")
    return figure
