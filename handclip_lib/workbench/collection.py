"""The runs of a reports folder as tables: what there is, what differs, and which may be compared."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from handclip_lib.errors import RunError
from handclip_lib.workbench.record import sound_record

if TYPE_CHECKING:
    import pandas as pd

    from handclip_lib.analysis.comparison import Entry
    from handclip_lib.evaluation.ranking.saved_evaluation import SavedEvaluation

EVALUATION = "per_query.csv"
EVALUATES = ("03_image_finetune", "04_joint_training", "05_evaluation")
CHECKPOINTS = {
    "02_prompt_learning": "text_features.safetensors", "03_image_finetune": "best.safetensors",
    "04_joint_training": "best.safetensors",
}  # fmt: skip
"""What a later notebook takes from a run."""
METRICS = ("rank1", "rank1_low", "rank1_high", "map", "map_trapezoid")
MOST_TOLD, LONGEST_TOLD = 2, 28
"""Parameters, and characters, that a label of a run may hold."""


def find_records(
    runs: Path, ids: Sequence[str] = (), notebook: str = "", dataset: str = "", aspect: str = ""
) -> list[dict[str, Any]]:
    """Records of the runs, the oldest first; those of notebook 06 are left out.

    Args:
        runs: Folder that holds a folder for each run.
        ids: Runs to take; empty: all.
        notebook: Take those of this notebook alone, such as "03_image_finetune"; empty: of all.
        dataset: Likewise.
        aspect: Likewise.

    Returns:
        `run.json` of each; of a damaged one its id, the status "damaged" and the reason.

    Raises:
        RunError: An id is of no run.
    """
    folders = [folder for folder in sorted(runs.glob("0[1-5]_*")) if folder.is_dir()]
    unknown = [name for name in ids if name not in {folder.name for folder in folders}]
    if unknown:
        raise RunError(f"{unknown[0]!r} is no run in {runs} that can be compared; `handclip runs` lists them")
    found = []
    for folder in folders:
        record = sound_record(folder) or {"id": folder.name, "status": "damaged", "error": "run.json cannot be read"}
        given = record.get("parameters") or {}
        of = record.get("notebook") or folder.name.partition("-")[0]
        if (
            (not ids or folder.name in ids)
            and (not notebook or of == notebook)
            and (not dataset or given.get("dataset") == dataset)
            and (not aspect or given.get("aspect") == aspect)
        ):
            found.append(record | {"id": folder.name, "notebook": of})
    return sorted(found, key=lambda record: (str(record.get("started")), record["id"]))


def runs_table(records: Sequence[Mapping[str, Any]], runs: Path) -> "pd.DataFrame":
    """One row a run.

    Returns:
        Columns id, notebook, model, dataset, aspect, differs (parameters in which runs differ), `METRICS` in 0..1,
        seconds, peak_memory_mb where any run recorded it, split (start of its checksum), status, and note: why a run
        cannot be compared, or what is missing.
    """
    import pandas as pd

    from handclip_lib.evaluation.tables import result_table

    names = differing(records)
    rows = []
    for record in records:
        given, metrics = record.get("parameters") or {}, record.get("metrics") or {}
        row = {"id": record["id"], "notebook": record["notebook"], "model": metrics.get("model", "")}
        row |= {name: given.get(name, "") for name in ("dataset", "aspect")}
        row["differs"] = ", ".join(f"{name}={given[name]}" for name in names if name in given)
        row |= {name: metrics.get(name) for name in METRICS}
        row |= {"seconds": record.get("seconds"), "peak_memory_mb": _peak(record)}
        row |= {"split": str((record.get("split") or {}).get("checksum") or "")[:12], "status": record["status"]}
        rows.append(row | {"note": note_of(record, runs)})
    columns = [
        "id", "notebook", "model", "dataset", "aspect", "differs", *METRICS, "seconds", "peak_memory_mb", "split",
        "status", "note",
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=columns)
    table = table.astype(dict.fromkeys([*METRICS, "seconds", "peak_memory_mb"], "float64"))
    return result_table(table.drop(columns="peak_memory_mb") if table["peak_memory_mb"].isna().all() else table)


def differing(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of parameters in which runs differ: runs that have one disagree, and one of them is not its default."""
    values: dict[str, set[str]] = defaultdict(set)
    changed = set()
    for record in records:
        defaults = record.get("defaults") or {}
        for name, value in (record.get("parameters") or {}).items():
            values[name].add(json.dumps(value, sort_keys=True, default=str))
            if value != defaults.get(name, value):
                changed.add(name)
    return [name for name in values if len(values[name]) > 1 and name in changed and name not in ("dataset", "aspect")]


def note_of(record: Mapping[str, Any], runs: Path) -> str:
    """Why a run cannot be compared or used further; "" where nothing is missing."""
    if record["status"] == "running":
        return "it is not done yet"
    if record["status"] != "succeeded":
        return f"{record['status']}: {record.get('error') or 'no message'}"
    checkpoint = CHECKPOINTS.get(record["notebook"])
    if checkpoint and not (runs / record["id"] / checkpoint).is_file():
        return f"no checkpoint: {checkpoint} is not there; run it again"
    if record["notebook"] not in EVALUATES:
        return f"{record['notebook'][:2]} evaluates no retrieval"
    if not (runs / record["id"] / EVALUATION).is_file():
        return f"no evaluation: {EVALUATION} is not there; run it again"
    return ""


def comparable_runs(
    records: Sequence[Mapping[str, Any]], runs: Path, ids: Sequence[str] = (), reference: str = ""
) -> "list[SavedEvaluation]":
    """Evaluations of the runs that succeeded on one split and left out the same bursts, the oldest first.

    Args:
        records: Of `find_records`.
        runs: Folder that holds a folder for each run.
        ids: Runs asked for: all of them are taken, whatever their split and burst, for a comparison to refuse by name.
        reference: Run whose split and burst count; empty: those of the newest.

    Raises:
        RunError: No run has an evaluation, or the reference has none.
        EvaluationError: One is damaged.
    """
    from handclip_lib.evaluation.ranking.saved_evaluation import load_evaluation

    splits = {
        record["id"]: record["split"]["checksum"]
        for record in records
        if record["status"] == "succeeded" and (runs / record["id"] / EVALUATION).is_file()
    }
    if not splits:
        raise RunError(
            f"no run in {runs} that was asked for has an evaluation to compare; run one first: handclip run 05"
        )
    if reference and reference not in splits:
        raise RunError(f"reference={reference!r} has no evaluation among these runs; choose from {', '.join(splits)}")
    wanted = reference or list(splits)[-1]
    found = {name: load_evaluation(runs / name) for name, split in splits.items() if ids or split == splits[wanted]}
    return [evaluation for evaluation in found.values() if ids or evaluation.burst == found[wanted].burst]


def run_labels(records: Sequence[Mapping[str, Any]], evaluations: "Sequence[SavedEvaluation]") -> dict[str, str]:
    """What to say of each run beside its model: the parameters in which the compared ones differ, if few and short.

    Args:
        records: Of `find_records`.
        evaluations: The compared ones.

    Returns:
        Text such as "triplet_weight=1" by run; "" for a run that has none of them, and for all where there is more to
        tell than a legend holds.
    """
    compared = [record for record in records if record["id"] in {evaluation.run for evaluation in evaluations}]
    names = differing(compared)
    given = {record["id"]: record.get("parameters") or {} for record in compared}
    texts = {run: ", ".join(f"{n}={values[n]}" for n in names if n in values) for run, values in given.items()}
    fits = len(names) <= MOST_TOLD and max(map(len, texts.values()), default=0) <= LONGEST_TOLD
    return texts if fits else dict.fromkeys(texts, "")


def reference_of(evaluations: "Sequence[SavedEvaluation]", reference: str = "") -> str:
    """Id of the run the others are compared with: as asked for, or the oldest of 05, or the oldest."""
    of_05 = [evaluation.run for evaluation in evaluations if evaluation.run.startswith("05_")]
    return reference or (of_05 or [evaluation.run for evaluation in evaluations])[0]


def tasks_table(entries: "Sequence[Entry]") -> "pd.DataFrame":
    """What entries reach on each gallery, with the task: what `beside_literature` takes; baselines are left out."""
    import pandas as pd

    from handclip_lib.evaluation.baselines import is_baseline

    rows = []
    for entry in entries:
        if is_baseline(entry.model):
            continue
        meta = json.loads((entry.evaluation.folder / "split.json").read_text(encoding="utf-8"))
        for gallery, n_gallery in entry.evaluation.n_gallery.items():
            queries = entry.queries(gallery)
            row = {"model": entry.label, "gallery": gallery, "n_gallery": n_gallery}
            row |= {name: meta[name] for name in ("dataset", "aspect", "protocol")}
            row |= {"n_query": len(queries) / meta["draws"], "rank1": queries["hit"].mean()}
            row |= {"map": queries["average_precision"].mean()}
            rows.append(row | {"map_trapezoid": queries["average_precision_trapezoid"].mean()})
    return pd.DataFrame(rows)


def _peak(record: Mapping[str, Any]) -> Any:
    return record.get("peak_memory_mb", (record.get("metrics") or {}).get("peak_memory_mb"))
