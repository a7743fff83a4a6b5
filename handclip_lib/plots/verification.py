"""Figures of verification and open-set identification: results in, `Figure` out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from scipy.special import ndtr, ndtri  # norm's, whose scipy.stats takes a second to import

from handclip_lib.evaluation.exchange.scoring import FileEvaluation
from handclip_lib.evaluation.tables import in_percent, plain
from handclip_lib.evaluation.verification.error_rates import VerificationResult
from handclip_lib.evaluation.verification.menagerie import FEWEST, KINDS
from handclip_lib.evaluation.verification.thresholds import OpenSetResult
from handclip_lib.files import whole_file, write_text
from handclip_lib.plots.retrieval import cmc_curves, score_histogram
from handclip_lib.plots.style import (
    COLOURS,
    QUERY,
    QUIET,
    figure_with_axes,
    in_our_look,
    legend,
    look,
    matrix,
    name_rows,
    panels,
    percent,
)
from handclip_lib.terminal import counted

SHADE, FAINT = "#E3E3E3", "#6B6B6B"
DET_TICKS = np.array([0.0001, 0.0005, 0.002, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9])
STEPS = 2000  # of a curve across its axis: more than a report has pixels
GROUP_RATES = {"rank1": "rank-1", "fmr": "false match rate", "fnmr": "false non-match rate"}


@in_our_look
def roc_curves(results: Sequence[VerificationResult]) -> Figure:
    """Mated pairs accepted against FMR on a logarithmic axis, greyed where there are too few people for a claim."""
    return _log_curves(
        results, [_with_eer(result) for result in results], results[0].pairs.n_identities,
        ("non-mated pairs accepted (FMR)", "mated pairs accepted (1 − FNMR)"),
        "marks: target FMR, hollow where unsupported", accepted=True,
    )  # fmt: skip


@in_our_look
def det_curves(results: Sequence[VerificationResult]) -> Figure:
    """FNMR against FMR, both on normal-deviate axes, on which normal scores give straight lines.

    A curve that lies outside the axes, such as one without errors, is drawn along their edges, and its name says so.

    Source: Martin et al., "The DET curve in assessment of detection task performance", Eurospeech 1997.
    """
    limit = max(result.curve.lowest_supported for result in results)
    ticks = DET_TICKS[max(0, np.searchsorted(DET_TICKS, limit / 10, "right") - 1) :]
    low, high = ndtri(ticks[0]), ndtri(ticks[-1])
    figure, (axis,) = figure_with_axes(height=4.8)
    for row, result in enumerate(results):
        curve, (colour, marker, line) = result.curve, look(row)
        rates = (curve.false_positive, curve.false_negative)
        edge = _outside(*rates, ticks[0], ticks[-1])
        above: dict[str, Any] = {"clip_on": False, "zorder": 3} if edge else {}  # the frame
        ends = (ticks[0], ticks[-1]) if edge else (ticks[0] / 10, 0.9999)
        fmr, fnmr = (ndtri(np.clip(rate, *ends)) for rate in rates)
        kept = _visible_steps((fmr - low) / (high - low), (fnmr - low) / (high - low))
        name = _with_eer(result) + (", along the edges" if edge else "")
        axis.step(fmr[kept], fnmr[kept], where="pre", color=colour, ls=line, label=name, **above)
        if edge or ticks[0] <= curve.eer <= ticks[-1]:
            eer = ndtri(np.clip(curve.eer, ticks[0], ticks[-1]))
            axis.plot(eer, eer, marker, color=colour, ms=7, mfc="white", mew=1.5, **above)
    axis.plot([low, high], [low, high], color=QUIET, lw=0.8, ls=":")
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_locator(FixedLocator(ndtri(ticks)))
        side.set_minor_locator(NullLocator())
        side.set_major_formatter(FuncFormatter(lambda deviate, _: f"{in_percent(ndtr(deviate), '.3g')}%"))
    axis.set(xlim=(low, high), xlabel="non-mated pairs accepted (FMR)")
    axis.set(ylim=(low, high), ylabel="mated pairs rejected (FNMR)")
    _shade(axis, ndtri(min(limit, 0.9999)), results[0].pairs.n_identities)
    _words_above(axis, "marks on the dotted line: EER")
    return figure


@in_our_look
def threshold_choice(result: VerificationResult, threshold: float) -> Figure:
    """The scores of a model with one threshold, and what it does: FMR, FNMR and the pairs behind them."""
    pairs, curve = result.pairs, result.curve
    place = int(np.searchsorted(curve.thresholds, threshold))
    n_impostor, n_genuine = pairs.n_impostor, len(pairs.genuine)
    accepted, rejected = n_impostor - int(curve.non_mated_below[place]), int(curve.mated_below[place])
    fmr, fnmr = accepted / n_impostor, rejected / n_genuine
    doubt = "" if fmr >= curve.lowest_supported else ", too few for a claim"
    title = (
        f"FMR {in_percent(fmr, '.3g')} %: {accepted:,} of {counted(n_impostor, 'non-mated pair')} accepted"
        f" ({counted(pairs.n_identities, 'person')}{doubt})\n"
        f"FNMR {in_percent(fnmr, '.3g')} %: {rejected:,} of {counted(n_genuine, 'mated pair')} rejected"
    )
    figure = score_histogram(pairs.genuine, pairs.shown, height=3.6)
    (axis,) = figure.axes
    axis.axvline(threshold, color=QUERY, lw=1.8, label=f"threshold: {threshold:.3f}")
    axis.set_xlabel("cosine similarity of two images")
    _words_above(axis, title)
    return figure


@in_our_look
def open_set_curves(results: Sequence[OpenSetResult]) -> Figure:
    """FNIR against FPIR on a logarithmic axis, greyed where too few people were held out for a claim."""
    first = results[0]
    return _log_curves(
        results, [f"{result.model}, rank {result.rank}" for result in results], first.n_non_mated_identities,
        ("non-mated probes with a candidate (FPIR)", "mated probes missed (FNIR)"),
        f"{first.n_mated_identities} people with a mate in the gallery of {first.n_gallery}, "
        f"{first.n_non_mated_identities} without; marks: FNIR at a target FPIR, hollow where unsupported",
    )  # fmt: skip


@in_our_look
def group_bars(table: pd.DataFrame, model: str, threshold: float) -> Figure:
    """Rank-1, FMR and FNMR of each group with intervals and counts; the line is everybody, small groups are grey."""
    figure, axes = figure_with_axes(1, len(GROUP_RATES), height=0.3 * len(table) + 1.3, sharey=True)
    for axis, (rate, title) in zip(axes, GROUP_RATES.items(), strict=True):
        share, low, high = (100 * table[f"{rate}{end}"].to_numpy(float) for end in ("", "_low", "_high"))
        claimed = table["supported"] if rate == "fmr" else np.ones(len(table), bool)
        for row, (small, full) in enumerate(zip(table["small"], claimed, strict=True)):
            colour = QUIET if small else COLOURS[0]
            axis.barh(row, share[row], 0.65, color=colour if full else "white", edgecolor=colour, lw=1.2)
        axis.hlines(np.arange(len(table)), low, high, color=QUERY, lw=1.5)
        axis.plot(np.stack([low, high]), np.tile(np.arange(len(table)), (2, 1)), "|", color=QUERY, ms=7)
        axis.axvline(share[0], color=QUERY, lw=1, ls="--")
        axis.set(xlim=(0, min(100, 1.05 * np.nanmax([*share, *high, 1]))), title=title)
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda percent, _: f"{percent:g}%"))
        for row in np.flatnonzero(np.isnan(share)).tolist():
            axis.text(0, row, " no pair", va="center", fontsize=9, backgroundcolor="white")
        axis.grid(axis="y", visible=False)
    groups = table["attribute"].str.replace("_", " ") + ": " + table["group"]
    counts = zip(groups.str.removeprefix(": "), table["n_identities"], table["n_query"], strict=True)
    names = [
        f"{group} ({counted(people, 'person')}, {plain(queries)} {'query' if queries == 1 else 'queries'})"
        for group, people, queries in counts
    ]
    name_rows(axes[0], names)
    figure.suptitle(
        f"{model}, threshold {threshold:.3f}. Queries: a draw. Grey: fewer than 5 people. Hollow: too few for a claim",
        fontsize=10
    )  # fmt: skip
    return figure


@in_our_look
def cross_group_matrices(table: pd.DataFrame, model: str, threshold: float) -> Figure:
    """FMR between groups, a matrix an attribute: rows of `cross_group_fmr`; grey where too few people carry it."""
    attributes = list(dict.fromkeys(table["attribute"]))
    figure, axes = panels(len(attributes), 3.1, 0.5)
    claimed = table.loc[table["supported"].astype(bool), "fmr"]
    most = 100 * max(float(claimed.max()) if len(claimed) else 0, 1e-9)
    for axis, attribute in zip(axes, attributes, strict=True):
        rows = table[table["attribute"] == attribute]
        groups = list(dict.fromkeys(rows["group"]))
        place = {group: i for i, group in enumerate(groups)}
        rates = np.full((len(groups), len(groups)), np.nan)
        for group, other, fmr, supported in rows[["group", "other", "fmr", "supported"]].itertuples(index=False):
            for i, j in {(place[group], place[other]), (place[other], place[group])}:
                rates[i, j] = 100 * fmr if supported else np.nan
                text = "no pair" if np.isnan(fmr) else in_percent(fmr, ".2g")
                ink = FAINT if not supported else "white" if 100 * fmr < 0.6 * most else QUERY
                axis.text(j, i, text, ha="center", va="center", fontsize=9, color=ink)
        matrix(axis, rates, vmin=0, vmax=most)
        axis.set_xticks(range(len(groups)), groups, rotation=30, ha="right")
        axis.set_yticks(range(len(groups)), groups)
        axis.set_title(attribute.replace("_", " "))
    figure.suptitle(
        f"{model}, threshold {threshold:.3f}: FMR in percent. Grey: too few people for a claim", fontsize=10
    )
    return figure


@in_our_look
def menagerie_map(people: pd.DataFrame, model: str) -> Figure:
    """Mean mated and non-mated score of each person, rows of `menagerie`, and the quarters that make the kinds."""
    figure, (axis,) = figure_with_axes(height=4.6)
    for place, kind in enumerate(("", *KINDS) if len(people) >= FEWEST else ("",)):
        rows = people[people["kind"] == kind]
        colour, marker, _ = look(place - 1) if kind else (QUIET, ".", "")
        label = f"{kind or 'none of these'} ({len(rows)})"
        axis.plot(rows["mated_mean"], rows["non_mated_mean"], marker, color=colour, ms=7, label=label)
    for column, line in (("mated_mean", axis.axvline), ("non_mated_mean", axis.axhline)):
        for quarter in (0.25, 0.75) if len(people) >= FEWEST else ():
            line(float(np.quantile(people[column], quarter)), color=QUIET, lw=0.8, ls=":")
    axis.set_xlabel("mean score with oneself (mated): left, goats")
    axis.set_ylabel("mean score with others:\nabove, lambs and wolves")
    title = f"{model}: {counted(len(people), 'person')}, {counted(int(people['n_genuine'].sum()), 'mated pair')}; "
    title += "dotted: quarters" if len(people) >= FEWEST else f"fewer than {FEWEST} people: no kinds"
    _words_above(axis, title)
    return figure


def _log_curves(
    results: Sequence[Any], labels: Sequence[str], people: int,
    sides: tuple[str, str], words: str, accepted: bool = False,
) -> Figure:  # fmt: skip
    """Curves on an axis of shares that begins a decade below what can be claimed, and one of percent.

    What is drawn against the share of false positives is that of false negatives, or of what is `accepted`.
    """
    limit = max(result.curve.lowest_supported for result in results)
    left = 10.0 ** np.floor(np.log10(min(limit, 1) / 10) + 1e-9)
    figure, (axis,) = figure_with_axes(height=4.2)
    axis.set_xscale("log")
    axis.set(xlim=(left, 1), xlabel=sides[0], ylim=(0, 101), ylabel=sides[1])
    axis.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{in_percent(float(share), '.3g')}%"))
    axis.xaxis.set_minor_formatter(FuncFormatter(lambda share, _: ""))
    percent(axis.yaxis)
    for row, (result, label) in enumerate(zip(results, labels, strict=True)):
        colour, marker, line = look(row)
        rate = 1 - result.curve.false_negative if accepted else result.curve.false_negative
        share = np.maximum(result.curve.false_positive, left / 10)  # a share of 0 lies beyond the left end
        kept = _visible_steps(np.log(share) / np.log(left), rate)
        axis.step(share[kept], 100 * rate[kept], where="pre", color=colour, ls=line, label=label)
        for point in result.points:
            reached = 1 - point.false_negative if accepted else point.false_negative
            face = colour if point.supported else "white"
            at = max(point.false_positive, left)
            axis.plot(at, 100 * reached, marker, color=colour, ms=6, mfc=face, clip_on=False)
    _shade(axis, limit, people)
    _words_above(axis, words)
    return figure


def _outside(fmr: np.ndarray, fnmr: np.ndarray, low: float, high: float) -> bool:
    """Whether no step, up and then to the left, passes where both rates lie between `low` and `high`."""
    up = (low < fmr[:-1]) & (fmr[:-1] < high) & (fnmr[1:] > low) & (fnmr[:-1] < high)
    left = (low < fnmr[1:]) & (fnmr[1:] < high) & (fmr[:-1] > low) & (fmr[1:] < high)
    return not (up | left).any()


def _visible_steps(*coordinates: np.ndarray) -> np.ndarray:
    """True where a curve has moved by a pixel, and at its end; coordinates in shares of the axes."""
    cells = np.stack([np.round(values * STEPS) for values in coordinates])
    moved = np.append(True, (np.diff(cells) != 0).any(0))
    moved[-1] = True
    return moved


def _shade(axis: Axes, limit: float, people: int) -> None:
    left, right = axis.get_xlim()
    axis.axvspan(left, max(left, min(limit, right)), color=SHADE, lw=0, zorder=0, label=f"too few people ({people})")


def _words_above(axis: Axes, title: str) -> None:
    """The legend above the axes, where it hides no curve, and the title above it."""
    figure = axis.get_figure(root=True)
    if title and figure is not None:
        figure.suptitle(title, fontsize=10)
    legend(axis, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2, columnspacing=1.2)


def _with_eer(result: VerificationResult) -> str:
    return f"{result.model} (EER {in_percent(result.curve.eer, '.3g')} %)"


def write_evaluation(found: FileEvaluation, folder: Path) -> None:
    """What files of scores gave: each table as CSV, in full precision, and DET, ROC and, with ranks, CMC as PNG."""
    for name, table in found.tables.items():
        write_text(folder / f"{name}.csv", table.to_csv(index=False, lineterminator="\n"))
    figures = {"det": det_curves(found.verified), "roc": roc_curves(found.verified)}
    if found.identified:
        figures["cmc"] = cmc_curves(found.identified)
    for name, figure in figures.items():
        with whole_file(folder / f"{name}.png") as private:
            figure.savefig(private, dpi=144)
