"""Runs beside each other: paired differences with intervals, p-values, and what many comparisons cost."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.bootstrap import Interval, identity_bootstrap, resampled_means
from handclip_lib.evaluation.features import Features, is_baseline
from handclip_lib.evaluation.ranking.protocol import cmc_interval
from handclip_lib.evaluation.ranking.saved_evaluation import SavedEvaluation
from handclip_lib.evaluation.tables import in_percent, result_table

MEASURES = {"rank1": "hit", "map": "average_precision"}
"""Measures that are compared, and the column of each query's value."""
FIGURES = ("model", "rank1", "rank1_low", "rank1_high", "map", "map_trapezoid")
DIFFERENCES = ("model", *(f"{m}_{part}" for m in MEASURES for part in ("gain", "gain_low", "gain_high", "p", "p_holm")))
"""Columns of a `comparison_table`: what each entry reaches, and what it gains over the first."""
SHOWN = ("model", "rank1", "map", "map_trapezoid", "rank1_gain", "rank1_p_holm", "map_gain", "map_p_holm")


SIGNIFICANT = 0.05
"""p-value by Holm below which a conclusion speaks of a difference."""


@dataclass(frozen=True)
class Difference(Interval):
    """A figure of one model less that of another, on the same queries: -1..1; its p-value is two-sided."""

    p_value: np.ndarray

    def __getitem__(self, column: Any) -> "Difference":
        """The difference of some columns."""
        return Difference(**vars(super().__getitem__(column)), p_value=self.p_value[column])


@dataclass(frozen=True)
class Entry:
    """One model of one run; `label` names it in tables and figures."""

    label: str
    evaluation: SavedEvaluation
    model: str

    def queries(self, gallery: str) -> pd.DataFrame:
        """What each query found."""
        return self.evaluation.queries(self.model, gallery)

    def features(self) -> Features:
        """Embeddings of the evaluated images; trivial baselines have none."""
        return self.evaluation.features(self.model)

    def cmc(self, gallery: str, samples: int = 1000, seed: int = 0) -> Interval:
        """CMC over all draws, with its interval over identities."""
        return cmc_interval(self.queries(gallery), self.evaluation.n_gallery[gallery], samples, seed)

    def draws(self, gallery: str) -> pd.Series:
        """Rank-1 of each draw, by its number."""
        return self.queries(gallery).groupby("draw")["hit"].mean()


def entries_of(
    evaluations: Sequence[SavedEvaluation], reference: str, labels: Mapping[str, str] | None = None
) -> list[Entry]:
    """The model of interest of each run, the reference (an id) first, and the reference's trivial baselines last.

    `labels` says what to add to a run's label, by its id, such as "triplet_weight=1".
    """
    first = next((evaluation for evaluation in evaluations if evaluation.run == reference), None)
    if first is None:
        known = ", ".join(evaluation.run for evaluation in evaluations)
        raise EvaluationError(f"reference={reference!r} is not among the compared runs; choose from {known}")
    ordered = [first, *(evaluation for evaluation in evaluations if evaluation is not first)]
    runs = [Entry(_label(each, (labels or {}).get(each.run, "")), each, each.models[0]) for each in ordered]
    return runs + [Entry(model, first, model) for model in first.models if is_baseline(model)]


def reference_and_best(entries: Sequence[Entry], gallery: str = "aspect") -> list[Entry]:
    """The first entry, and of the other runs the one of the highest rank-1, where there is another run."""
    others = [entry for entry in entries[1:] if not is_baseline(entry.model)]
    return [entries[0], *sorted(others, key=lambda entry: entry.queries(gallery)["hit"].mean())[-1:]]


def paired_bootstrap(
    values: np.ndarray, reference: np.ndarray, identities: np.ndarray, samples: int = 10_000, seed: int = 0
) -> Difference:
    """Difference of two means over the same queries, resampling identities with all their queries in both.

    The p-value is the smallest α at which the percentile interval of level 1 - α leaves out 0, with the observed data
    counted as one resample more, so that it is never 0:
    p = min(1, 2 · (1 + min(#{d* ≤ 0}, #{d* ≥ 0})) / (samples + 1)), where d* are the resampled differences. So p and
    the interval agree, and resamples that are exactly 0 speak for no difference.

    Args:
        values, reference: float (n,) or (n, m), one row a query, the same queries of either model.
        identities: (n,).

    Source: Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, §15.4 (a test from an interval); Davison &
        Hinkley, "Bootstrap Methods and their Application", 1997, §3.8 (clusters) and §4.2.2 (the added one).
    """
    values, reference = np.asarray(values, np.float64), np.asarray(reference, np.float64)
    if values.shape != reference.shape:
        raise EvaluationError(f"{values.shape} values and {reference.shape} of the reference; pairs are wanted")
    estimate, drawn, n = resampled_means(values - reference, identities, samples, seed)
    interval = Interval.of(estimate, drawn, n)
    fewer = np.minimum((drawn <= 0).sum(0), (drawn >= 0).sum(0))
    return Difference(**vars(interval), p_value=np.minimum(1.0, 2 * (1 + fewer) / (samples + 1)))


def holm(p_values: np.ndarray) -> np.ndarray:
    """p-values adjusted so that a share α of false findings holds for the whole family of comparisons.

    The i-th smallest of m is multiplied by m - i + 1; none is less than one before it, none more than 1.

    Source: Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics, 1979.
    """
    p_values = np.asarray(p_values, np.float64)
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


def compare_pair(
    entry: Entry, reference: Entry, gallery: str = "aspect", *, samples: int = 10_000, seed: int = 0
) -> dict[str, Difference]:
    """Difference of rank-1 and of mAP (means over the queries of all draws), by the names of `MEASURES`."""
    ours, theirs = paired_queries(entry, reference, gallery)
    left, right = (queries[list(MEASURES.values())].to_numpy() for queries in (ours, theirs))
    differences = paired_bootstrap(left, right, ours["identity"].to_numpy(), samples, seed)
    return {name: differences[i] for i, name in enumerate(MEASURES)}


def not_paired(a: SavedEvaluation, b: SavedEvaluation) -> str:
    """Why two evaluations were not made on the same photographs in the same draws; "" where they were."""
    roots = f"data_root {a.data_root!r} and {b.data_root!r}"
    if a.task != b.task:
        return (
            f"split {a.checksum[:12]} and split {b.checksum[:12]}; run both on the same data with the same aspect, "
            "protocol, seed and draws"
        )
    if a.knows_content and b.knows_content:
        return "" if a.checksum == b.checksum else f"other photographs of the same names, {roots}"
    if not a.knows_content and not b.knows_content and a.data_root == b.data_root:
        return ""
    return f"a split does not say what was in its files, {roots}; run both again"


def paired_queries(first: Entry, second: Entry, gallery: str = "aspect") -> tuple[pd.DataFrame, pd.DataFrame]:
    """The queries of two entries, row by row the same draw and photograph; without those they are refused."""
    a, b = first.evaluation, second.evaluation
    reason = not_paired(a, b)
    if reason:
        raise EvaluationError(f"the figures of {a.run} and {b.run} cannot be compared: {reason}")
    left, right = (
        entry.queries(gallery).sort_values(["draw", "path"], kind="stable", ignore_index=True)
        for entry in (first, second)
    )
    keys = ["draw", "path", "identity"]
    if left[keys].equals(right[keys]):
        return left, right
    both = left[keys].merge(right[keys], "outer", indicator="side")
    alone = both[both["side"] != "both"]
    where = f"{len(alone)} queries are in one only, such as {alone['path'].iloc[0]!r} in draw {alone['draw'].iloc[0]}"
    raise EvaluationError(
        f"{a.run} (burst={a.burst}) and {b.run} (burst={b.burst}) did not answer the same queries: {where}; run both "
        "with the same burst"
    )


def comparison_table(
    entries: Sequence[Entry], gallery: str = "aspect", *, samples: int = 10_000, seed: int = 0
) -> pd.DataFrame:
    """Every entry with its figures, and what it gains over the first one: `FIGURES`, `DIFFERENCES` and run.

    The p-values by Holm are over all comparisons of the table, rank-1 and mAP; the first has NaN.
    """
    rows = []
    for entry in entries:
        queries = entry.queries(gallery)
        rank1 = identity_bootstrap(queries["hit"].to_numpy(), queries["identity"].to_numpy(), samples, seed)
        row = {"run": entry.evaluation.run, "model": entry.label, **rank1.columns("rank1"), **_both_maps(queries)}
        if entry is not entries[0]:
            for name, gain in compare_pair(entry, entries[0], gallery, samples=samples, seed=seed).items():
                row |= gain.columns(f"{name}_gain") | {f"{name}_p": float(gain.p_value)}
        rows.append(row)
    table = pd.DataFrame(rows, columns=[*FIGURES, *DIFFERENCES[1:], "run"])
    tested = [f"{name}_p" for name in MEASURES]
    adjusted = holm(table[tested].to_numpy(np.float64)[1:].ravel()).reshape(-1, len(tested))
    table.loc[table.index[1:], [f"{name}_holm" for name in tested]] = adjusted
    table = table.astype(dict.fromkeys([c for c in table if c not in ("model", "run")], np.float64))
    return result_table(table, SHOWN)


def tasks_table(entries: Sequence[Entry]) -> pd.DataFrame:
    """What entries reach on each gallery, with the task: what `beside_literature` takes; baselines are left out."""
    rows = []
    for entry in entries:
        if is_baseline(entry.model):
            continue
        meta = json.loads((entry.evaluation.folder / "split.json").read_text(encoding="utf-8"))
        for gallery, n_gallery in entry.evaluation.n_gallery.items():
            queries = entry.queries(gallery)
            task = {name: meta[name] for name in ("dataset", "aspect", "protocol")}
            row = {"model": entry.label, "gallery": gallery, "n_gallery": n_gallery, **task}
            row |= {"n_query": len(queries) / meta["draws"], "rank1": queries["hit"].mean(), **_both_maps(queries)}
            rows.append(row)
    return pd.DataFrame(rows)


def _both_maps(queries: pd.DataFrame) -> dict[str, float]:
    columns = {"map": "average_precision", "map_trapezoid": "average_precision_trapezoid"}
    return {name: queries[column].mean() for name, column in columns.items()}


def comparison_conclusion(table: pd.DataFrame) -> str:
    """The best entry of a `comparison_table` as a sentence without its full stop, and what it gains over the first."""
    best, first = table.iloc[int(table["rank1"].argmax())], table.iloc[0]
    interval = "–".join(in_percent(best[f"rank1_{end}"]) for end in ("low", "high"))
    said = f"{best['model']} finds {in_percent(best['rank1'])} % ({interval}) of queries first"
    if best["model"] == first["model"]:
        return f"{said}; nothing it is compared with finds more"
    gain, low, high = (f"{100 * best[f'rank1_gain{end}']:+.1f}" for end in ("", "_low", "_high"))
    p = max(best["rank1_p_holm"], 0.001)
    sign = "≤" if p == 0.001 else "="
    verdict = "a difference" if p < SIGNIFICANT else "which shows no difference"
    return (
        f"{said}; {gain} percentage points ({low} to {high}) over {first['model']}, p {sign} {p:.3f} (Holm): {verdict}"
    )


def won_and_lost(first: Entry, second: Entry, gallery: str = "aspect") -> Mapping[str, pd.DataFrame]:
    """Queries by which of two entries puts a match first ("both", "first", "second", "neither"), with the rank of each.

    Those that only one gets right are ordered by the rank the other gives, the worst first.
    """
    left, right = paired_queries(first, second, gallery)
    table = left[["draw", "path", "identity"]].assign(
        rank_first=left["first_match_rank"], rank_second=right["first_match_rank"]
    )
    a, b = table["rank_first"] == 1, table["rank_second"] == 1
    parts = {"both": a & b, "first": a & ~b, "second": b & ~a, "neither": ~a & ~b}
    other = {"first": "rank_second", "second": "rank_first"}
    return {
        name: table[mask].sort_values(other.get(name, "draw"), ascending=name not in other, kind="stable")
        for name, mask in parts.items()
    }


def _label(evaluation: SavedEvaluation, more: str) -> str:
    """Model, notebook and the run's hash: short, and enough to find the run; and what tells it from the others."""
    number, digest = evaluation.run[:2], evaluation.run.rpartition("-")[2]
    return f"{evaluation.models[0]} ({number}-{digest}{f', {more}' if more else ''})"
