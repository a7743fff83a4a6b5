"""Runs beside each other: paired differences with intervals, p-values, and what many comparisons cost."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.features import Features, is_baseline
from handclip_lib.evaluation.intervals import FEWEST, Difference, Interval, identity_interval, paired_difference
from handclip_lib.evaluation.ranking.protocol import cmc_interval, few_people
from handclip_lib.evaluation.ranking.saved_evaluation import SavedEvaluation
from handclip_lib.evaluation.tables import in_percent, result_table

ANSWERED = ["draw", "path", "first_match_rank"]
MEASURES = {"rank1": "hit", "map": "average_precision"}
"""Measures that are compared, and the column of each query's value."""
FIGURES = ("model", "n_identities", "n_query", "rank1", "rank1_low", "rank1_high", "map", "map_trapezoid", "supported")
DIFFERENCES = ("model", *(f"{m}_{part}" for m in MEASURES for part in ("gain", "gain_low", "gain_high", "p", "p_holm")))
"""Columns of a `comparison_table`: what each entry reaches, and what it gains over the first."""
SHOWN = (
    "model", "n_identities", "n_query", "rank1", "map", "map_trapezoid", "rank1_gain", "rank1_p_holm", "map_gain",
    "map_p_holm", "same_as",
)  # fmt: skip
SIGNIFICANT = 0.05
"""p-value by Holm below which a conclusion speaks of a difference."""


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

    def cmc(self, gallery: str) -> Interval:
        """CMC over all draws, with its interval over identities."""
        return cmc_interval(self.queries(gallery), self.evaluation.n_gallery[gallery])

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
    differences = paired_difference(left, right, ours["identity"].to_numpy(), samples, seed)
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
    """Every entry with its figures, and what it gains over the first one: `FIGURES`, `DIFFERENCES`, same_as and run.

    The p-values by Holm are over all comparisons of the table, rank-1 and mAP; the first has NaN. A model that answers
    every query as one before it does, by the same ranks and scores, is the same model once more: `same_as` says whose,
    and it counts as no comparison of its own. `supported` is of rank-1, see `Interval.supported`.
    """
    rows: list[dict[str, Any]] = []
    answers: list[tuple[str, pd.DataFrame]] = []
    for entry in entries:
        queries = entry.queries(gallery)
        rank1, n_draws = identity_interval(queries["hit"], queries["identity"]), queries["draw"].nunique()
        row = {"run": entry.evaluation.run, "model": entry.label, **rank1.columns("rank1"), **_both_maps(queries)}
        row |= {"n_identities": rank1.n_identities, "n_query": len(queries) / n_draws}
        row |= {"supported": bool(rank1.supported)}
        if entry is not entries[0]:
            for name, gain in compare_pair(entry, entries[0], gallery, samples=samples, seed=seed).items():
                row |= gain.columns(f"{name}_gain") | {f"{name}_p": float(gain.p_value)}
        given = queries.sort_values(["draw", "path"]).reset_index(drop=True)
        row["same_as"] = next((label for label, other in answers if _alike(given, other)), "")
        answers.append((entry.label, given))
        rows.append(row)
    table = pd.DataFrame(rows, columns=[*FIGURES, *DIFFERENCES[1:], "same_as", "run"])
    tested = [f"{name}_p" for name in MEASURES]
    once = table.index[(table.index > 0) & (table["same_as"] == "")]
    adjusted = holm(table.loc[once, tested].to_numpy(np.float64).ravel()).reshape(-1, len(tested))
    by_label = dict(zip(table.loc[once, "model"], adjusted, strict=True))
    for i in table.index[1:]:
        of_it = by_label.get(table.loc[i, "same_as"] or table.loc[i, "model"], np.ones(len(tested)))
        table.loc[i, [f"{name}_holm" for name in tested]] = of_it
    words = ("model", "run", "same_as", "supported", "n_identities")
    shown = [name for name in SHOWN if name != "same_as" or table["same_as"].any()]
    return result_table(table.astype(dict.fromkeys([c for c in table if c not in words], np.float64)), shown)


def _alike(given: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Whether the answers are of one model: its scores move in the last digits with the threads that embedded."""
    if not given[ANSWERED].equals(other[ANSWERED]):
        return False
    return all(np.allclose(given[name], other[name], rtol=0, atol=1e-5) for name in ("match_score", "wrong_score"))


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


def comparison_conclusion(table: pd.DataFrame, whose: str = "people") -> str:
    """The best entry of a `comparison_table` as a sentence without its full stop, and what it gains over the first.

    `whose`: what identities are, as `Split.whose` says.
    """
    best, first = table.iloc[int(table["rank1"].argmax())], table.iloc[0]
    interval = "–".join(in_percent(best[f"rank1_{end}"]) for end in ("low", "high"))
    share, people = f"{in_percent(best['rank1'])} % ({interval})", f"{best['n_identities']:.0f} {whose}"
    said = f"{best['model']} finds {share} of the queries of {people} first"
    if best["model"] == first["model"]:
        return f"{said}; nothing it is compared with finds more"
    gain, low, high = (f"{100 * best[f'rank1_gain{end}']:+.1f}" for end in ("", "_low", "_high"))
    p = max(best["rank1_p_holm"], 0.001)
    sign = "≤" if p == 0.001 else "="
    verdict = "a difference" if p < SIGNIFICANT else "which shows no difference"
    return (
        f"{said}; {gain} percentage points ({low} to {high}) over {first['model']}, p {sign} {p:.3f} (Holm): {verdict}"
    )


def comparison_cautions(table: pd.DataFrame) -> list[str]:
    """What must be said of the best entry of a `comparison_table` and of its p-values, a sentence each."""
    best = table.iloc[int(table["rank1"].argmax())]
    n = int(best["n_identities"])
    said = few_people(n, bool(best["supported"]))
    if n < FEWEST:
        said.append(f"Of {n} people no p is below {2.0 ** (1 - n):.2g}, and of fewer than six none is below .05.")
    if is_baseline(best["model"]):
        said.append("No model is better than a trivial baseline, which knows nothing about identity.")
    return said


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
