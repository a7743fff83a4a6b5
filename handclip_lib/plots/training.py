"""Figures of trainings, of images and of prompts: results in, `Figure` out."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from handclip_lib.data.images import DecodedImages
from handclip_lib.evaluation.ranking.confusion import Confusion
from handclip_lib.plots import style

TERMS = {
    "identity": "identity", "triplet": "triplet", "supcon": "contrastive",
    "center": "centre", "image_to_text": "image→text", "text_supcon": "image↔text", "start": "distance to the start",
    "distillation": "distance to frozen",
}  # fmt: skip
LOSSES = {"loss": "loss", "image_to_text": "image→text", "text_to_image": "text→image"}
HITS = {
    "image_to_text@1": "image→text@1", "image_to_text@5": "image→text@5", "text_to_image@1": "text→image@1",
    "val_image_to_text@1": "image→text@1, validation",
}  # fmt: skip
MOST_NAMES, MOST_LABELS, RIVALS = 40, 30, 5


@style.in_our_look
def image_curves(history: pd.DataFrame, best_epoch: int, weights: Mapping[str, float]) -> Figure:
    """Loss terms, rank-1 and mAP of validation, gradient norm and learning rate, over epochs.

    What each term adds to the loss by its weight is stacked; a dashed line marks the epoch that was chosen.
    """
    figure, (loss, validation, gradient, rate) = style.figure_with_axes(2, 2, height=5.6, sharex=True)
    _stacked(loss, history, weights)
    over_epochs(loss, history, {"loss": "weighted sum"}, best_epoch, "loss and its terms")
    title = f"validation (dashed: epoch {best_epoch}, chosen)"
    names = {"val_rank1": "rank-1", "val_map": "mAP", "trained_rank1": "rank-1 of trained people"}
    over_epochs(validation, history, names, best_epoch, title, factor=100)
    over_epochs(gradient, history, {"gradient_norm": "before clipping"}, best_epoch, "length of the gradient")
    over_epochs(rate, history, {"learning_rate": "image tower"}, best_epoch, "learning rate at the end of an epoch")
    style.percent(validation.yaxis)
    for axis in (gradient, rate):
        axis.set_xlabel("epoch")
    return figure


@style.in_our_look
def generalisation_curves(curve: pd.DataFrame, epoch: int) -> Figure:
    """Rank-1 of trained people and of strangers, with its 95 % interval, over epochs: `Generalisation.curve`.

    A dotted line is what the frozen model, of epoch 0, reaches; the gap stands at the epoch that is kept.
    """
    figure, (axis,) = style.figure_with_axes(height=4.0)
    kept = curve.set_index("epoch").loc[epoch]
    kinds = {"trained_rank1": ("trained people", style.COLOURS[1]), "strangers_rank1": ("strangers", style.COLOURS[0])}
    there = {name: look for name, look in kinds.items() if name in curve}
    for place, (name, (label, colour)) in enumerate(there.items()):
        ends = ("low", "high") if name == "strangers_rank1" else ()
        band = [100 * curve[f"{name}_{end}"] for end in ends]
        said = f"{label}: {100 * kept[name]:.1f} % at epoch {epoch}"
        style.curve(axis, curve["epoch"], 100 * curve[name], place, said, band, color=colour)
        frozen = 100 * float(curve[name].iloc[0])
        axis.axhline(frozen, color=colour, ls=":", lw=1.5, label=f"{label}, frozen model: {frozen:.1f} %")
    axis.axvline(epoch, color=style.QUIET, ls="--", lw=1)
    title = f"rank-1 (dashed: epoch {epoch}, kept)"
    if len(there) == len(kinds):
        gap, before = (100 * (row["trained_rank1"] - row["strangers_rank1"]) for row in (kept, curve.iloc[0]))
        title += f"; gap {gap:.1f} points, {before:.1f} before training"
    axis.set(xlabel="epoch", title=title)
    style.percent(axis.yaxis)
    style.whole_numbers(axis.xaxis)
    style.legend_below(figure, axis)
    return figure


def over_epochs(
    axis: Axes, history: pd.DataFrame, names: Mapping[str, str], best_epoch: int, title: str, factor: float = 1
) -> None:
    """Draw the columns of a history that there are, under their labels, and a dashed line at the chosen epoch."""
    for number, (column, label) in enumerate(names.items()):
        if column in history:
            style.curve(axis, history["epoch"], factor * history[column], number, label, ms=3)
    axis.axvline(best_epoch, color=style.QUIET, ls="--", lw=1)
    axis.set_title(title)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="best")
    style.whole_numbers(axis.xaxis)


def _stacked(axis: Axes, history: pd.DataFrame, weights: Mapping[str, float]) -> None:
    """What each term adds to the loss, one on top of the other."""
    names = [name for name in TERMS if weights.get(name, 0) > 0 and name in history]
    trained = history[history["epoch"] > 0]
    shares = [weights[name] * trained[name] for name in names]
    labels = [f"{weights[name]:g} × {TERMS[name]}" for name in names]
    colours = [style.COLOURS[1 + place % (len(style.COLOURS) - 1)] for place in range(len(names))]
    if len(trained):
        axis.stackplot(trained["epoch"], shares, labels=labels, colors=colours, alpha=0.45, lw=0)
    axis.set_ylim(bottom=0)


@style.in_our_look
def drift_bars(drift: pd.DataFrame) -> Figure:
    """Relative change of each part of the tower, from the input on; `layer_drift`'s rows."""
    figure, (axis,) = style.figure_with_axes(height=0.24 * len(drift) + 1.1)
    bars = axis.barh(range(len(drift)), 100 * drift["drift"], color=style.COLOURS[0])
    axis.bar_label(bars, [f"{100 * value:.2g} %" for value in drift["drift"]], padding=4, fontsize=9)
    style.name_rows(axis, drift["part"])
    axis.margins(x=0.1)
    style.percent(axis.xaxis)
    axis.set(xlabel="change of the weights since before training, relative to their length")
    return figure


@style.in_our_look
def confusion_matrix(confusion: Confusion, identities: Sequence[str]) -> Figure:
    """What the validation images of each training identity were taken for; identities in the split's order."""
    figure, (axis,) = style.figure_with_axes(height=5.2)
    style.matrix(axis, 100 * confusion.matrix, "images of the identity in %", vmin=0, vmax=100)
    places = range(0, len(identities), max(1, -(-len(identities) // MOST_NAMES)))
    axis.set_xticks(places, [identities[i] for i in places], rotation=90)
    axis.set_yticks(places, [identities[i] for i in places])
    axis.set(xlabel="taken for", ylabel="identity")
    axis.set_title(f"{100 * confusion.accuracy:.1f} % of the validation images are taken for their own identity")
    return figure


@style.in_our_look
def learning_curves(history: pd.DataFrame, best_epoch: int) -> Figure:
    """Loss and its terms, hits by identity, prompt norm and variance, and gradient norm, over epochs."""
    figure, (loss, hits, norms, gradients) = style.figure_with_axes(2, 2, height=5.8, sharex=True)
    over_epochs(loss, history, LOSSES, best_epoch, "loss and its terms")
    over_epochs(hits, history, HITS, best_epoch, f"hits by identity (dashed: epoch {best_epoch}, chosen)", factor=100)
    style.percent(hits.yaxis)
    hits.set_ylim(-2, 102)
    over_epochs(norms, history, {"prompt_norm": "mean length of a learnt token"}, best_epoch, "learnt tokens")
    spread = norms.twinx()
    spread.plot(history["epoch"], history["prompt_variance"], color=style.COLOURS[1], marker=style.MARKERS[1], ms=3)
    spread.tick_params(labelsize=9, colors=style.COLOURS[1])
    spread.grid(False)
    spread.set_ylabel("variance over identities", color=style.COLOURS[1])
    over_epochs(gradients, history, {"gradient_norm": "length of the context's gradient"}, best_epoch, "gradient")
    for axis in (norms, gradients):
        axis.set_xlabel("epoch")
    return figure


@style.in_our_look
def prompt_norms(epochs: Sequence[int], contexts: np.ndarray) -> Figure:
    """Length of every learnt token: over epochs (mean and range over identities), and at the end by identity.

    The contexts of the epochs are (snapshots, n_identities, n_ctx, width) or, shared, (snapshots, n_ctx, width).
    """
    import seaborn  # a second, which the other figures can do without

    lengths = np.linalg.norm(contexts if contexts.ndim == 4 else contexts[:, None], axis=-1)
    n_ctx = lengths.shape[2]  # (snapshots, identities, tokens)
    figure, (left, right) = style.figure_with_axes(1, 2, height=3.6, width_ratios=(1, 1.1))
    for token in range(n_ctx):
        own = lengths[:, :, token]
        style.curve(left, epochs, own.mean(1), token, f"token {token + 1}", (own.min(1), own.max(1)))
    left.set(xlabel="epoch", ylabel="length", title="mean over identities, band: lowest to highest")
    style.whole_numbers(left.xaxis)
    left.set_ylim(bottom=0)
    left.legend(loc="lower right", ncols=2 if n_ctx > 4 else 1)
    order = np.argsort(lengths[-1].mean(axis=1))
    seaborn.heatmap(lengths[-1][order], ax=right, cmap="viridis", xticklabels=range(1, n_ctx + 1), yticklabels=False,
                    cbar_kws={"label": "length"})  # fmt: skip
    right.set(xlabel="learnt token", title="at the end, one row an identity")
    right.set_ylabel("identity, shortest first")
    return figure


def cluster_order(text: np.ndarray) -> np.ndarray:
    """An order of the identities in which similar texts are neighbours: average linkage of the cosine, (n,)."""
    if len(text) < 3:
        return np.arange(len(text))
    from scipy.cluster.hierarchy import leaves_list, linkage  # a fifth of a second, which most reports do without

    return leaves_list(linkage(_unit(text), "average", "cosine", optimal_ordering=True))


@style.in_our_look
def prompt_similarity(text: np.ndarray, identities: Sequence[str], order: np.ndarray, title: str) -> Figure:
    """Cosine between the texts of all identities, (n_identities, size), in an order such as `cluster_order`."""
    import seaborn  # a second, which the other figures can do without

    similarity = (_unit(text) @ _unit(text).T)[np.ix_(order, order)]
    figure, (axis,) = style.figure_with_axes(height=6.4)
    seaborn.heatmap(similarity, ax=axis, cmap="viridis", vmin=-0.2, vmax=1, square=True, xticklabels=False,
                    yticklabels=False, cbar_kws={"label": "cosine", "shrink": 0.8})  # fmt: skip
    places, names = np.arange(0, len(order), max(1, -(-len(order) // MOST_LABELS))), np.asarray(identities)[order]
    axis.set_xticks(places + 0.5, names[places], rotation=90, fontsize=9)
    axis.set_yticks(places + 0.5, names[places], rotation=0, fontsize=9)
    off = similarity[~np.eye(len(similarity), dtype=bool)]
    axis.set_title(f"{title}: mean cosine of two identities' texts {off.mean():.2f}, highest {off.max():.2f}")
    return figure


@style.in_our_look
def image_text_matrices(before: np.ndarray, after: np.ndarray, labels: np.ndarray) -> Figure:
    """Cosine of images and identities' texts, (n, n_identities), before and after the training.

    Rows are in the order of the images' identities, whose numbers are the labels, (n,).
    """
    figure, axes = style.figure_with_axes(1, 2, height=5.4)
    for axis, matrix, title in zip(axes, (before, after), ("before", "after"), strict=True):
        standard = (matrix - matrix.mean(axis=1, keepdims=True)) / (matrix.std(axis=1, keepdims=True) + 1e-9)
        picture = axis.imshow(standard, aspect="auto", cmap="RdBu_r", vmin=-4, vmax=4, interpolation="nearest")
        axis.grid(False)
        hits = np.mean(matrix.argmax(axis=1) == labels)
        axis.set(title=f"{title}: {100 * hits:.0f} % nearest to their own", xlabel="text of identity number")
    axes[0].set_ylabel("image, ordered by identity")
    figure.colorbar(picture, ax=axes, label="cosine, standard deviations above its row's mean", shrink=0.8)
    return figure


@style.in_our_look
def identity_hits(by_identity: pd.DataFrame) -> Figure:
    """Margin and hits of every identity, the least recognised first; `PromptTask.by_identity`'s frame."""
    figure, (left, right) = style.figure_with_axes(1, 2, height=3.4, width_ratios=(2.4, 1))
    place, own = np.arange(len(by_identity)), by_identity["image_to_text@1"].to_numpy() == 1
    looks = ((own, style.MATCH, "o", "all images hit"), (~own, style.OTHER, "X", "some miss"))
    for mask, colour, marker, label in looks:
        left.plot(place[mask], by_identity["margin"][mask], marker, color=colour, ms=5, ls="", label=label)
    left.axhline(0, color=style.QUIET, lw=1)
    left.set(xlabel="identity, least recognised first", ylabel="own cosine − best other")
    left.set_title("margin, mean of images")
    left.legend(loc="lower right")
    right.hist(100 * by_identity["image_to_text@1"], np.linspace(0, 100, 11).tolist(), color=style.COLOURS[0])
    style.percent(right.xaxis)
    right.set(xlabel="image→text@1", ylabel="identities", title="hits by identity")
    return figure


@style.in_our_look
def confused_hands(pairs: Sequence[tuple[str, str, str, str]], images: DecodedImages) -> Figure:
    """Side by side: a photograph, and one of the identity whose text is nearer to it; `PromptTask.confused_pairs`."""
    if not pairs:
        return style.nothing("every image is nearest to the text of its own identity")
    paths = [path for _, own, _, other in pairs for path in (own, other)]
    titles = [title for own, _, other, _ in pairs for title in (own, f"taken for {other}")]
    return style.picture_grid(images.pixels[images.rows(paths)], titles, columns=6, size=1.5)[0]


@style.in_our_look
def identity_sheet(
    identity: str, photographs: Sequence[np.ndarray], similarity: np.ndarray, identities: Sequence[str], title: str
) -> Figure:
    """One identity: photographs with the cosine to its own text, and the texts that are nearest to all its images.

    Photographs are uint8 (height, width, 3), of its first images; `similarity` is of all to each identity's text.
    """
    number, names = list(identities).index(identity), np.asarray(identities)
    figure = Figure(figsize=(style.WIDTH, 4.4), layout="constrained")
    grid = figure.add_gridspec(2, max(1, len(photographs)))
    for column, (pixels, row) in enumerate(zip(photographs, similarity, strict=False)):
        nearest = "" if row.argmax() == number else f"\nnearest {names[row.argmax()]} {row.max():.2f}"
        style.show_picture(figure.add_subplot(grid[0, column]), pixels, f"own {row[number]:.2f}{nearest}")
    axis = figure.add_subplot(grid[1, :])
    rivals = pd.Series(similarity.mean(axis=0), names).drop(identity).nlargest(RIVALS)
    bars = {f"{identity} (own)": similarity[:, number].mean(), **rivals}
    axis.barh(range(len(bars)), list(bars.values()), color=[style.MATCH] + [style.OTHER] * len(rivals), height=0.7)
    style.name_rows(axis, bars)
    axis.tick_params(labelsize=9)
    axis.set_xlabel("mean cosine of these photographs and an identity's text")
    figure.suptitle(title, fontsize=9)
    return figure


def _unit(text: np.ndarray) -> np.ndarray:
    return text / np.linalg.norm(text, axis=1, keepdims=True)
