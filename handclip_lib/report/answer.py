"""The first screen of a report: what came out, in a sentence and beside the baselines, and what to doubt of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from handclip_lib.evaluation.tables import in_percent, readable, result_table
from handclip_lib.parameters.notebooks import SELECTED_ON_TEST
from handclip_lib.report.values import duration, is_number
from handclip_lib.runs.record import not_learnt

FEW_PEOPLE = 30  # below, a bootstrap over people covers less than the 95 % it says
SHOWN = ("model", "rank1", "rank5", "map")


@dataclass(frozen=True)
class Answer:
    """What a run found.

    Attributes:
        sentence: Its figures in a sentence; of a run without any, how it ended.
        table: The headline beside the baselines as text, the heading first; empty without one.
        warnings: What a reader should doubt, a sentence each.
    """

    sentence: str
    table: list[list[str]]
    warnings: list[str]


def answer_of(run_folder: Path, run: Mapping[str, Any]) -> Answer:
    """What a run found: as its notebook concluded, or made of the figures of its record and its tables."""
    metrics = run.get("metrics") or {}
    if run["status"] != "succeeded" or not is_number(metrics.get("rank1")):
        took = f" after {duration(run['seconds'])}" if is_number(run.get("seconds")) else ""
        said = f"This run {run['status']}{took}." if run["status"] != "running" else "This run goes on."
        unlearnt = not_learnt(run)
        return Answer(said, [], [f"The training did not learn as it should ({unlearnt})."] if unlearnt else [])
    people = metrics.get("n_people") or _people(run_folder)
    concluded, cautions = run.get("answer"), run.get("cautions")
    sentence = concluded if isinstance(concluded, str) else _sentence(run, metrics, people)
    warnings = cautions if isinstance(cautions, list) else _warnings(run_folder, run, metrics, people)
    return Answer(sentence, _headline(run_folder, metrics.get("gallery")), [str(warning) for warning in warnings])


def _sentence(run: Mapping[str, Any], metrics: Mapping[str, Any], people: int) -> str:
    low, high, baseline = (metrics.get(name) for name in ("rank1_low", "rank1_high", "best_floor_rank1"))
    model = metrics.get("model") or (run.get("parameters") or {}).get("backbone") or "The model"
    interval = f" ({in_percent(low)}–{in_percent(high)})" if is_number(low) and is_number(high) else ""
    among = f" among {people} people" if people else ""
    compared = f", the best of {metrics['runs']} runs" if "runs" in metrics else ""
    beside = f"; the better trivial baseline {in_percent(baseline)} %" if is_number(baseline) else ""
    return f"{model} finds {in_percent(metrics['rank1'])} %{interval} of queries first{among}{compared}{beside}."


def _warnings(run_folder: Path, run: Mapping[str, Any], metrics: Mapping[str, Any], people: int) -> list[str]:
    parameters, baseline = run.get("parameters") or {}, metrics.get("best_floor_rank1")
    checks = _table(run_folder / "leak_checks.csv", ("check", "passed", "detail"))
    rows = [(str(check), str(passed), str(detail)) for check, passed, detail in checks.itertuples(index=False)]
    doubts = {
        "The hands are drawn, not photographed: these figures say nothing about people.":
            parameters.get("dataset") == "drawn",
        "It is no better than a trivial baseline.": is_number(baseline) and metrics["rank1"] <= baseline,
        "Its interval reaches down to a trivial baseline.":
            is_number(baseline) and metrics["rank1"] > baseline >= metrics.get("rank1_low", 1),
        f"Test images chose the epoch: every figure is {SELECTED_ON_TEST}.":
            SELECTED_ON_TEST in str(metrics.get("model")) or parameters.get("validation") == "test",
        f"Few people: with {people}, the interval is too narrow.": 0 < people < FEW_PEOPLE,
        f"The training did not learn as it should ({not_learnt(run)}).": bool(not_learnt(run)),
        "Leaks between training and test are not checked here; 05 does.": not rows and run.get("split") is not None,
    }  # fmt: skip
    found = [doubt for doubt, is_so in doubts.items() if is_so]
    found += [f"Leak check of {check} not passed: {detail}" for check, passed, detail in rows if passed == "no"]
    unknown = [check for check, passed, _ in rows if passed == "not checked"]
    return found + ([f"Leaks that were not checked: {', '.join(unknown)}."] if unknown else [])


def _headline(run_folder: Path, gallery: object) -> list[list[str]]:
    results = _table(run_folder / "results.csv", ("model", "gallery", "rank1"))
    some = readable(result_table(results[results["gallery"] == gallery], SHOWN))
    return [list(some.columns), *some.to_numpy().tolist()] if len(some) else []


def _people(run_folder: Path) -> int:
    """How many are tested, by the split; 0 where it says nothing."""
    split = _table(run_folder / "split.csv", ("identity", "role"))
    return int(split.loc[split["role"] == "test", "identity"].nunique())


def _table(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """A table that a run left; empty where it left none with such columns."""
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError):
        table = pd.DataFrame()
    return table if set(columns) <= set(table) else pd.DataFrame(columns=list(columns))
