"""Figures of several runs, and of one model before and after its training: results in, `Figure` out."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from handclip_lib.data.manifest import Split
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.intervals import Difference, Interval
from handclip_lib.evaluation.ranking.confusion import embedding_map, similarity_by_identity
from handclip_lib.evaluation.ranking.protocol import ProtocolResult
from handclip_lib.evaluation.verification.error_rates import compared_pairs
from handclip_lib.plots import retrieval, style
from handclip_lib.terminal import counted

MEASURES = {"rank1": "rank-1", "map": "mAP"}
POINTS, PALE = "percentage points", "#C8C8C8"
CHANGED = {
    "cmc": "CMC before and after, and the trivial baselines, with 95 % bands",
    "draw_spread": "Rank-1 of each draw, and the 95 % interval over identities",
    "margins": "How far the best match is ahead of the best image of someone else",
    "scores_before": "Cosine of pairs, before", "scores_after": "Cosine of pairs, after",
    "similarity_before": "Cosine, before", "similarity_after": "Cosine, after",
    "maps": "Test images laid out by t-SNE, before and after; a colour an identity",
}  # fmt: skip
"""Figures of what a training changed, and what each shows."""
MOST_QUERIES, LONGEST_NAME = 8, 20  # listed a side, and characters of a file's name


@style.in_our_look
def forest(table: pd.DataFrame) -> Figure:
    """Rank-1 of each entry with its interval, and what rank-1 and mAP gain over the first; a `comparison_table`.

    A filled mark is a gain whose p-value by Holm is below 0.05.
    """
    figure, (left, right) = style.figure_with_axes(1, 2, height=0.42 * len(table) + 1.5, sharey=True)
    rows = np.arange(len(table))
    style.bar_of_interval(left, [table[f"rank1{end}"] for end in ("", "_low", "_high")], rows, style.look(0)[:2])
    style.name_rows(left, (style.wrapped(name, style.LINE) for name in table["model"]), -0.6)
    left.set(title="rank-1", xlabel=f"interval over {style.people(table['n_identities'])}")
    style.percent(left.xaxis)
    right.axvline(0, color=style.QUIET, lw=1)
    for place, (name, label) in enumerate(MEASURES.items()):
        colour, marker, _ = style.look(place)
        sure = (table[f"{name}_p_holm"] < 0.05).to_numpy()
        for mask, fill in ((sure, colour), (~sure, "white")):
            gain = [table[mask][f"{name}_gain{end}"] for end in ("", "_low", "_high")]
            style.bar_of_interval(right, gain, rows[mask] + 0.24 * place - 0.12, (colour, marker), fill)
        right.plot([], [], marker, color=colour, label=label)
    right.set_title("gain over the first row", loc="left")
    right.set(xlabel=f"{POINTS}; filled: p < 0.05 by Holm")
    right.legend(loc="lower right", ncols=2, bbox_to_anchor=(1, 1.08), borderaxespad=0)
    right.grid(axis="y", visible=False)
    return figure


@style.in_our_look
def cmc_overlay(curves: Mapping[str, Interval], n_gallery: int) -> Figure:
    """CMC of several models on one gallery, by label, with their bands over identities."""
    figure, (axis,) = style.figure_with_axes(height=4.0 + 0.1 * len(curves))
    _one_gallery(axis, curves, n_gallery)
    style.legend_below(figure, axis, "rank-1 in brackets")
    return figure


def _one_gallery(axis: Axes, curves: Mapping[str, Interval], n_gallery: int) -> None:
    retrieval.draw_cmc(axis, curves)
    low = min((float(cmc.low.min()) for cmc in curves.values()), default=0)
    axis.set(ylabel="queries with a match in the k best", ylim=(max(0, 100 * low - 5), 101))
    axis.set_title(f"gallery of {n_gallery} images")


@style.in_our_look
def compared_runs(
    curves: Mapping[str, Interval], n_gallery: int, differences: Mapping[str, Difference],
    queries: Mapping[str, pd.DataFrame],
) -> Figure:  # fmt: skip
    """Two runs: CMC of both by label, what the first gains over the second, and queries that only one gets right.

    The differences are of `compare_pair`, the queries of `won_and_lost`.
    """
    figure = Figure(figsize=(style.WIDTH, 6.2), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=(1.5, 1))
    left, right = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[0, 1])
    _one_gallery(left, curves, n_gallery)
    handles, labels = left.get_legend_handles_labels()
    left.legend(handles, [style.wrapped(label, style.LINE) for label in labels], loc="lower right")
    first, second = curves
    right.axvline(0, color=style.QUIET, lw=1)
    for row, difference in enumerate(differences.values()):
        style.bar_of_interval(right, (difference.estimate, difference.low, difference.high), row, style.look(row)[:2])
        value, low, high = 100 * float(difference.estimate), 100 * float(difference.low), 100 * float(difference.high)
        text = f"{value:+z.1f} [{low:z.1f}, {high:z.1f}], p = {float(difference.p_value):.3g}"
        right.annotate(text, (value, row), (0, 10), textcoords="offset points", ha="center", fontsize=9)
    style.name_rows(right, (MEASURES[name] for name in differences), -0.7)
    right.margins(x=0.35)
    right.set_title(style.wrapped(f"{first}\nless {second}", style.HALF))
    people = style.people(difference.n_identities for difference in differences.values())
    right.set_xlabel(f"difference in {POINTS}, 95 % over {people}")
    for column, name, label, rank in ((0, "first", first, "rank_second"), (1, "second", second, "rank_first")):
        _listed(figure.add_subplot(grid[1, column]), queries[name], label, rank)
    total = sum(map(len, queries.values()))
    both, one, other, neither = (100 * len(queries[n]) / max(1, total) for n in ("both", "first", "second", "neither"))
    figure.suptitle(
        f"of {counted(total, 'query')} of all draws both get {both:.0f} % right, one of them {one + other:.0f} %, "
        f"neither {neither:.0f} %",
        fontsize=10
    )  # fmt: skip
    return figure


def _listed(axis: Axes, queries: pd.DataFrame, label: str, rank: str) -> None:
    """Photographs as lines of text: in how many draws only one run gets them right, and the other's worst rank."""
    photographs = queries.groupby(["path", "identity"])[rank].agg(["size", "max"]).reset_index()
    photographs = photographs.sort_values(["size", "max", "path"], ascending=[False, False, True], kind="stable")
    axis.set_axis_off()
    told = f"{counted(len(queries), 'query')} of {counted(len(photographs), 'photograph')}"
    axis.set_title(style.wrapped(f"only {label}:\n{told}", style.HALF), loc="left", fontsize=9)
    lines = []
    for path, identity, draws, worst in photographs.head(MOST_QUERIES).itertuples(index=False, name=None):
        name = path.rpartition("/")[2]
        name = name if len(name) <= LONGEST_NAME else "…" + name[1 - LONGEST_NAME :]
        lines.append(f"{name} ({identity}): {counted(draws, 'draw')}, other's rank ≤ {worst}")
    if len(photographs) > len(lines):
        lines.append(f"… and {len(photographs) - len(lines)} more")
    text = axis.text(0, 1, "\n".join(lines) or "none", va="top", fontsize=8, transform=axis.transAxes)
    text.set_in_layout(False)  # a long name must not take the curves' width


@style.in_our_look
def sweep_effect(table: pd.DataFrame, parameter: str, measures: Mapping[str, str] = MEASURES) -> Figure:
    """Measures over the values of one parameter: lines are means over seeds, dots single runs.

    The table has a row a run, with its value and the measures, in 0..1, whose labels are given by column.
    """
    figure, (axis,) = style.figure_with_axes(height=3.6)
    is_number = pd.api.types.is_numeric_dtype(table["value"]) and not pd.api.types.is_bool_dtype(table["value"])
    names = list(dict.fromkeys(table["value"].tolist()))
    place = table["value"] if is_number else table["value"].map(names.index)
    for number, (name, label) in enumerate(measures.items()):
        colour, marker, _ = style.look(number)
        axis.plot(place, 100 * table[name], marker, color=colour, ms=5, mfc="white", ls="")
        mean = (100 * table[name]).groupby(place).mean()
        axis.plot(mean.index, mean, color=colour, marker=marker, ms=6, label=label)
    if is_number and table["value"].min() > 0 and table["value"].max() / table["value"].min() >= 20:
        axis.set_xscale("log")
    if is_number:
        axis.set_xticks(names, [f"{value:g}" for value in names])
        axis.minorticks_off()
    else:
        axis.set_xticks(range(len(names)), [str(name) or "none" for name in names])
    axis.set_xlabel(f"{parameter} ({len(table)} runs)")
    style.percent(axis.yaxis)
    axis.legend(loc="best")
    return figure


@style.in_our_look
def seed_spread(table: pd.DataFrame) -> Figure:
    """Rank-1 and mAP of runs that differ in the seed alone, as `seeds_table` has them: dots, mean and deviation."""
    groups = list(dict.fromkeys(table["group"]))
    figure, (axis,) = style.figure_with_axes(height=0.7 * len(groups) + 1.3)
    for number, (name, label) in enumerate(MEASURES.items()):
        colour, marker, _ = style.look(number)
        for row, group in enumerate(groups):
            values = 100 * table.loc[table["group"] == group, name].to_numpy()
            at = row + 0.3 * number - 0.15
            axis.plot(values, np.full(len(values), at), ".", color=style.QUIET, ms=8)
            axis.errorbar(values.mean(), at + 0.1, xerr=values.std(ddof=1), fmt=marker, color=colour, capsize=4)
        axis.plot([], [], marker, color=colour, label=label)
    sizes = table.groupby("group").size()
    style.name_rows(axis, (f"{group}, {sizes[group]} seeds" for group in groups), -0.6)
    style.percent(axis.xaxis)
    axis.set_xlabel("grey: a run; bar: mean ± one standard deviation over seeds")
    style.legend_below(figure, axis)
    return figure


@style.in_our_look
def draw_variance(draws: Mapping[str, pd.Series]) -> Figure:
    """Rank-1 of every draw, one line an entry: the draws are the same for all, so they rise and fall together."""
    figure, (axis,) = style.figure_with_axes(height=3.6 + 0.1 * len(draws))
    for place, (label, values) in enumerate(draws.items()):
        spread = f"sd {100 * values.std(ddof=1):.1f}" if len(values) > 1 else "one draw"
        text = f"{label}: {100 * values.mean():.1f} ({spread})"
        style.curve(axis, values.index, 100 * values, place, text, ms=5, lw=1)
    axis.set(xlabel="draw of the gallery", ylabel="rank-1")
    style.whole_numbers(axis.xaxis)
    style.percent(axis.yaxis)
    style.legend_below(figure, axis, "mean and standard deviation over draws, %")
    return figure


@style.in_our_look
def cost_accuracy(table: pd.DataFrame) -> Figure:
    """Rank-1 with its interval against the seconds a run took, by notebook; rows of `runs_table`."""
    figure, (axis,) = style.figure_with_axes(height=4.0)
    for place, (notebook, rows) in enumerate(table.groupby("notebook", sort=True)):
        colour, marker, _ = style.look(place)
        ends = [100 * (rows["rank1"] - rows["rank1_low"]), 100 * (rows["rank1_high"] - rows["rank1"])]
        label = str(notebook).replace("_", " ")
        axis.errorbar(rows["seconds"], 100 * rows["rank1"], yerr=ends, fmt=marker, color=colour, capsize=4, label=label)
        for name, seconds, rank1 in zip(rows["id"], rows["seconds"], rows["rank1"], strict=True):
            text = str(name).rpartition("-")[2]
            axis.annotate(text, (seconds, 100 * rank1), (7, 4), textcoords="offset points", fontsize=9)
    if table["seconds"].max() / max(table["seconds"].min(), 1e-9) >= 20:
        axis.set_xscale("log")
        axis.margins(x=0.15)
    else:
        axis.set_xlim(0, 1.15 * table["seconds"].max())
    axis.margins(y=0.1)
    axis.set(xlabel="seconds a run took, on the machine it ran on", ylabel="rank-1")
    style.percent(axis.yaxis)
    axis.legend(loc="best", title="at each mark: end of the run's id")
    return figure


def before_and_after(
    results: Sequence[ProtocolResult], before: Features, after: Features, split: Split, seed: int = 0
) -> dict[str, tuple[Figure, str]]:
    """`CHANGED` by the frozen and by the trained model's embeddings of the evaluated images; the seed is of the map."""
    maps = {label: embedding_map(found, split, seed=seed) for label, found in (("before", before), ("after", after))}
    figures = {
        "cmc": retrieval.cmc_curves(results), "draw_spread": retrieval.draw_spread(results),
        "margins": retrieval.margins(results), "maps": embedding_maps(maps),
    }  # fmt: skip
    for when, found in (("before", before), ("after", after)):
        pairs = compared_pairs(found, split)
        figures[f"scores_{when}"] = retrieval.score_histogram(pairs.genuine, pairs.shown)
        figures[f"similarity_{when}"] = retrieval.similarity_matrix(*similarity_by_identity(found, split))
    return {name: (figures[name], said) for name, said in CHANGED.items()}


@style.in_our_look
def embedding_maps(maps: Mapping[str, pd.DataFrame], identities: int = 12) -> Figure:
    """`embedding_map`s by label, side by side: colour and mark are one person with many images, the rest is grey."""
    figure, axes = style.figure_with_axes(1, len(maps), height=5.2 if len(maps) > 1 else 6.0)
    named = list(dict.fromkeys(next(iter(maps.values()))["identity"]))[:identities]
    for axis, (label, points) in zip(axes, maps.items(), strict=True):
        rest = points[~points["identity"].isin(named)]
        others = counted(rest["identity"].nunique(), "other") if len(rest) else None
        axis.plot(rest["x"], rest["y"], ".", color=PALE, ms=4, label=others)
        for place, identity in enumerate(named):
            own = points[points["identity"] == identity]
            marker = style.MARKERS[place // len(style.COLOURS) % len(style.MARKERS)]
            style.curve(
                axis, own["x"], own["y"], place, str(identity), marker=marker, ls="", ms=6, mec="white", mew=0.4
            )
        axis.set_title(
            style.wrapped(f"{label}: {counted(len(points), 'image')}", style.HALF if len(maps) > 1 else 2 * style.HALF)
        )
        style.bare(axis, PALE)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=7, title="identity")
    return figure


@style.in_our_look
def similarity_difference(before: np.ndarray, after: np.ndarray, identities: Sequence[str], names: str) -> Figure:
    """How the cosine of all pairs of images changed, (n, n), in order of identity: red rose, blue fell.

    The names say what is compared, such as "fine-tuned less frozen".
    """
    change, people = np.asarray(after, np.float64) - np.asarray(before, np.float64), np.asarray(identities)
    same, off = people[:, None] == people[None, :], ~np.eye(len(people), dtype=bool)
    figure, (left, right) = style.figure_with_axes(1, 2, height=4.9, width_ratios=(1.35, 1))
    bound = float(np.quantile(np.abs(change[off]), 0.99)) or 1.0
    style.matrix(left, change, "change of the cosine", "RdBu_r", vmin=-bound, vmax=bound)
    left.set_title(style.wrapped(names, style.HALF))
    left.set(xlabel="test image, ordered by identity", ylabel="test image")
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
        ordered = tokens[np.argsort(tokens.mean(axis=1), kind="stable")].repeat(1 if len(tokens) > 1 else 2, axis=0)
        label = f"02-{run.rpartition('-')[2]}: {counted(tokens.shape[1], 'token')}, mean {tokens.mean():.2f}"
        x, band = np.linspace(0, 100, len(ordered)), (ordered.min(1), ordered.max(1))
        style.curve(axis, x, ordered.mean(1), place, label, band, ms=3)
    axis.set(xlabel="identities, shortest prompts first", ylabel="length of a learnt token", ylim=(0, None))
    style.percent(axis.xaxis)
    axis.legend(loc="lower right")
    return figure
