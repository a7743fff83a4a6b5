"""Figures of what a training changed: where images lie, how alike they are, how long prompts became."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from handclip_lib.data.manifest import Split
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.ranking.confusion import embedding_map, similarity_by_identity
from handclip_lib.evaluation.ranking.protocol import ProtocolResult
from handclip_lib.evaluation.verification.error_rates import compared_pairs
from handclip_lib.plots import retrieval, style
from handclip_lib.plots.style import COLOURS, MARKERS

PALE = "#C8C8C8"


def before_and_after(
    results: Sequence[ProtocolResult], before: Features, after: Features, split: Split, seed: int = 0
) -> dict[str, tuple[Figure, str]]:
    """Figures of what a training changed, each with what it shows, by name.

    Args:
        results: Of the trained model, the frozen one and the trivial baselines.
        before, after: Embeddings of the evaluated images by the frozen and by the trained model.
        seed: Of the layout.
    """
    maps = {label: embedding_map(found, split, seed=seed) for label, found in (("before", before), ("after", after))}
    return {
        "cmc": (retrieval.cmc_curves(results), "CMC before and after, and the trivial baselines, with 95 % bands"),
        "draw_spread": (
            retrieval.draw_spread(results), "Rank-1 of each draw, and the 95 % interval over identities",
        ),
        "margins": (
            retrieval.margins(results), "How far the best match is ahead of the best image of someone else",
        ),
        "scores_before": (_scores(before, split), "Cosine of pairs, before"),
        "scores_after": (_scores(after, split), "Cosine of pairs, after"),
        "similarity_before": (retrieval.similarity_matrix(*similarity_by_identity(before, split)), "Cosine, before"),
        "similarity_after": (retrieval.similarity_matrix(*similarity_by_identity(after, split)), "Cosine, after"),
        "maps": (
            embedding_maps(maps), "Test images laid out by t-SNE, before and after; a colour an identity",
        ),
    }  # fmt: skip


def _scores(features: Features, split: Split) -> Figure:
    pairs = compared_pairs(features, split)
    return retrieval.score_histogram(pairs.genuine, pairs.impostor)


@style.in_our_look
def embedding_maps(maps: Mapping[str, pd.DataFrame], identities: int = 12) -> Figure:
    """`embedding_map`s by label, side by side: colour and mark are one person with many images, the rest is grey."""
    figure, axes = style.figure_with_axes(1, len(maps), height=5.2 if len(maps) > 1 else 6.0)
    named = list(dict.fromkeys(next(iter(maps.values()))["identity"]))[:identities]
    for axis, (label, points) in zip(axes, maps.items(), strict=True):
        rest = points[~points["identity"].isin(named)]
        axis.plot(rest["x"], rest["y"], ".", color=PALE, ms=4, label=f"{rest['identity'].nunique()} others")
        for place, identity in enumerate(named):
            own = points[points["identity"] == identity]
            colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place // len(COLOURS) % len(MARKERS)]
            axis.plot(own["x"], own["y"], marker, color=colour, ms=6, mec="white", mew=0.4, label=str(identity))
        axis.set_title(style.wrapped(f"{label}: {len(points)} images", style.HALF if len(maps) > 1 else 2 * style.HALF))
        style.bare(axis, PALE)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=7, title="identity")
    return figure


@style.in_our_look
def similarity_difference(before: np.ndarray, after: np.ndarray, identities: Sequence[str], names: str) -> Figure:
    """How the cosine of all pairs of images changed: red rose, blue fell; images ordered by identity.

    Args:
        before, after: Cosine, shape (n, n), rows and columns in the same order, by identity.
        names: What is compared, such as "fine-tuned less frozen".
    """
    change, people = np.asarray(after, np.float64) - np.asarray(before, np.float64), np.asarray(identities)
    same, off = people[:, None] == people[None, :], ~np.eye(len(people), dtype=bool)
    figure, (left, right) = style.figure_with_axes(1, 2, height=4.9, width_ratios=(1.35, 1))
    bound = float(np.quantile(np.abs(change[off]), 0.99)) or 1.0
    picture = left.imshow(change, cmap="RdBu_r", vmin=-bound, vmax=bound, interpolation="nearest")
    left.grid(False)
    left.set_title(style.wrapped(names, style.HALF))
    left.set(xlabel="test image, ordered by identity", ylabel="test image")
    figure.colorbar(picture, ax=left, label="change of the cosine", shrink=0.85)
    edges = np.linspace(change[off].min(), change[off].max() + 1e-9, 50)
    mated, non_mated = change[off & same], change[off & ~same]
    style.draw_scores(right, mated, non_mated, edges, lambda values: f"mean {values.mean():+z.2f}")
    right.axvline(0, color=style.QUIET, lw=1)
    right.set(xlabel="change of the cosine", ylabel="density")
    right.legend(loc="lower center", bbox_to_anchor=(0.5, 1), title="pairs of images")
    return figure


@style.in_our_look
def prompt_norms_of_runs(lengths: Mapping[str, np.ndarray]) -> Figure:
    """Length of the learnt tokens of each identity, shortest first: mean of its tokens, band from least to greatest.

    The lengths are (n_identities, n_ctx), by run.
    """
    figure, (axis,) = style.figure_with_axes(height=3.6)
    for place, (run, tokens) in enumerate(lengths.items()):
        colour, marker, line = style.look(place)
        ordered = tokens[np.argsort(tokens.mean(axis=1), kind="stable")].repeat(1 if len(tokens) > 1 else 2, axis=0)
        x = np.linspace(0, 100, len(ordered))
        axis.fill_between(x, ordered.min(axis=1), ordered.max(axis=1), color=colour, alpha=0.15, lw=0)
        label = f"02-{run.rpartition('-')[2]}: {tokens.shape[1]} tokens, mean {tokens.mean():.2f}"
        axis.plot(x, ordered.mean(axis=1), color=colour, ls=line, marker=marker, ms=3, label=label)
    axis.set(xlabel="identities, shortest prompts first", ylabel="length of a learnt token", ylim=(0, None))
    style.percent(axis.xaxis)
    axis.legend(loc="lower right")
    return figure
