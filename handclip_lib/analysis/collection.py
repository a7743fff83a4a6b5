"""The runs of a reports folder as tables: what there is, what differs, and which may be compared."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from handclip_lib.analysis.comparison import not_paired
from handclip_lib.errors import EvaluationError, RunError
from handclip_lib.evaluation.ranking.saved_evaluation import PER_QUERY, SavedEvaluation, load_evaluation
from handclip_lib.evaluation.tables import result_table
from handclip_lib.runs.identity import COMPUTE
from handclip_lib.runs.listing import changed_of
from handclip_lib.runs.record import CHECKPOINTS, not_learnt, record_of

Record = Mapping[str, Any]
"""`run.json` of a run, as `find_records` reads it."""
EVALUATES = ("03_image_finetune", "04_joint_training", "05_evaluation")
METRICS = ("rank1", "rank1_low", "rank1_high", "map", "map_trapezoid")
IN_COLUMNS = ("dataset", "data_root", "aspect")
"""Parameters that have a column of their own there."""
MOST_NAMED, LONGEST_LABEL = 2, 28
"""Parameters, and characters, that a label of a run may hold."""


def find_records(
    runs: Path, ids: Sequence[str] = (), notebook: str = "", dataset: str = "", aspect: str = ""
) -> list[dict[str, Any]]:
    """Records of the runs, the oldest first; those of notebook 06 are left out.

    Args:
        runs: Folder that holds a folder for each run.
        ids: Runs to take; empty: all.
        notebook, dataset, aspect: Take the runs of this one alone, such as "03_image_finetune"; empty: of all.

    Returns:
        `run.json` of each; of a damaged one its id, the status "damaged" and the reason.
    """
    folders = [folder for folder in sorted(runs.glob("0[1-5]_*")) if folder.is_dir()]
    unknown = [name for name in ids if name not in {folder.name for folder in folders}]
    if unknown:
        raise RunError(f"{unknown[0]!r} is no run in {runs} that can be compared; `handclip runs` lists them")
    wanted = {name: value for name, value in (("dataset", dataset), ("aspect", aspect)) if value}
    records = []
    for folder in (folder for folder in folders if not ids or folder.name in ids):
        record = record_of(folder)
        given = record.get("parameters") or {}
        of = record.get("notebook") or folder.name.partition("-")[0]
        if (not notebook or of == notebook) and all(given.get(name) == value for name, value in wanted.items()):
            records.append(record | {"id": folder.name, "notebook": of})
    return sorted(records, key=lambda record: (str(record.get("started")), record["id"]))


def runs_table(records: Sequence[Record], runs: Path, notes: Mapping[str, str] | None = None) -> pd.DataFrame:
    """One row a run of a folder; `notes` of `comparable_runs` say why some that are whole cannot be compared.

    Returns:
        Columns id, notebook, model, weights (their fingerprint), dataset, data_root, aspect, differs (parameters and
        versions of packages in which runs differ), `METRICS` in 0..1, seconds, peak_memory_mb where any run recorded
        it, split (start of its checksum), status, and note: why a run cannot be compared, or what is missing.
    """
    names, packages = differing(records), _differing_packages(records)
    rows = []
    for record in records:
        given, metrics = record.get("parameters") or {}, record.get("metrics") or {}
        row = {"id": record["id"], "notebook": record["notebook"], "model": metrics.get("model", "")}
        row |= {"weights": _fingerprint(record, row["model"])}
        row |= {name: given.get(name, "") for name in ("dataset", "data_root", "aspect")}
        differs = [f"{name}={given[name]}" for name in names if name in given]
        software = record.get("versions") or {}
        row["differs"] = ", ".join(differs + [f"{name} {software[name]}" for name in packages if name in software])
        row |= {name: metrics.get(name) for name in METRICS}
        peak = record.get("peak_memory_mb", metrics.get("peak_memory_mb"))
        row |= {"seconds": record.get("seconds"), "peak_memory_mb": peak}
        row |= {"split": str((record.get("split") or {}).get("checksum") or "")[:12], "status": record["status"]}
        rows.append(row | {"note": note_of(record, runs) or (notes or {}).get(record["id"], "")})
    columns = [
        "id", "notebook", "model", "weights", "dataset", "data_root", "aspect", "differs", *METRICS, "seconds",
        "peak_memory_mb", "split", "status", "note",
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=columns)
    table = table.astype(dict.fromkeys([*METRICS, "seconds", "peak_memory_mb"], "float64"))
    return result_table(table.drop(columns="peak_memory_mb") if table["peak_memory_mb"].isna().all() else table)


def differing(records: Iterable[Record]) -> list[str]:
    """Names of parameters in which runs differ: runs that have one disagree, and one of them is not its default."""
    values: dict[str, set[str]] = defaultdict(set)
    changed: set[str] = set()
    for record in records:
        changed.update(changed_of(record))
        for name, value in (record.get("parameters") or {}).items():
            values[name].add(json.dumps(value, sort_keys=True, default=str))
    return [name for name in values if len(values[name]) > 1 and name in changed and name not in IN_COLUMNS]


def _differing_packages(records: Iterable[Record]) -> list[str]:
    """Packages that figures depend on, of which runs had different versions."""
    software = [record.get("versions") or {} for record in records]
    return [name for name in COMPUTE if len({str(one[name]) for one in software if name in one}) > 1]


def note_of(record: Record, runs: Path) -> str:
    """Why a run cannot be compared or used further, or what it did not learn; "" where nothing is missing."""
    if record["status"] == "running":
        return "it is not done yet"
    if record["status"] != "succeeded":
        return f"{record['status']}: {record.get('error') or 'no message'}"
    checkpoint = CHECKPOINTS.get(record["notebook"])
    if checkpoint and not (runs / record["id"] / checkpoint).is_file():
        return f"no checkpoint: {checkpoint} is not there; run it again"
    if record["notebook"] not in EVALUATES:
        return f"{record['notebook'][:2]} evaluates no retrieval"
    if not (runs / record["id"] / PER_QUERY).is_file():
        return f"no evaluation: {PER_QUERY} is not there; run it again"
    return not_learnt(record)


def comparable_runs(
    records: Sequence[Record], runs: Path, ids: Sequence[str] = (), reference: str = ""
) -> tuple[list[SavedEvaluation], dict[str, str]]:
    """Evaluations of the runs on the same photographs and split that left out the same bursts, the oldest first.

    Args:
        ids: Runs asked for: all of them are taken, whatever their split and burst, for a comparison to refuse by name.
        reference: Run whose split and burst count; empty: those of the newest.

    Returns:
        The evaluations, and by run why it is none or cannot stand beside the reference.
    """
    notes: dict[str, str] = {}
    whole = [r for r in records if r["status"] == "succeeded" and (runs / r["id"] / PER_QUERY).is_file()]
    first = [record for record in whole if record["id"] == reference]
    evaluations: dict[str, SavedEvaluation] = {}
    wanted: SavedEvaluation | None = None
    task: dict[str, Any] = {}
    for record in [*first, *(record for record in reversed(whole) if record not in first)]:
        name = record["id"]
        if wanted and not ids and _task(record) != task:
            notes[name] = f"not beside {wanted.run}: another split, aspect, protocol, seed or number of draws"
            continue
        evaluation = _loaded(runs / name, notes)
        if evaluation is None:
            continue
        if wanted is None:
            wanted, task = evaluation, _task(record)
        evaluations[name] = evaluation
        reason = not_paired(wanted, evaluation)
        if not reason and evaluation.burst != wanted.burst:
            reason = f"burst={wanted.burst} and {evaluation.burst}"
        if reason:
            notes[name] = f"not beside {wanted.run}: {reason}"
    kept = [record["id"] for record in whole if record["id"] in evaluations and (ids or record["id"] not in notes)]
    return [evaluations[name] for name in kept], notes


def _loaded(folder: Path, notes: dict[str, str]) -> SavedEvaluation | None:
    """The evaluation of a run, embeddings and all; None where it is damaged, with a note that says so."""
    try:
        evaluation = load_evaluation(folder)
        evaluation.features(evaluation.models[0])  # the maps of the comparison need them whole
        return evaluation
    except EvaluationError as error:
        notes[folder.name] = str(error)
        return None


def _task(record: Record) -> dict[str, Any]:
    """What a record says of its split, but for the checksum: a run of another task need not be read."""
    split = record.get("split")
    return {name: value for name, value in (split if isinstance(split, dict) else {}).items() if name != "checksum"}


def run_labels(records: Sequence[Record], evaluations: Sequence[SavedEvaluation]) -> dict[str, str]:
    """What to say of each run beside its model: the parameters in which the compared ones differ, "triplet_weight=1".

    It is "" for a run that has none of them, and for all where there is more to tell than a legend holds.
    """
    compared = [record for record in records if record["id"] in {evaluation.run for evaluation in evaluations}]
    names = differing(compared)
    given = {record["id"]: record.get("parameters") or {} for record in compared}
    texts = {run: ", ".join(f"{n}={values[n]}" for n in names if n in values) for run, values in given.items()}
    fits = len(names) <= MOST_NAMED and max(map(len, texts.values()), default=0) <= LONGEST_LABEL
    return texts if fits else dict.fromkeys(texts, "")


def reference_of(evaluations: Sequence[SavedEvaluation], reference: str = "") -> str:
    """Id of the run the others are compared with: as asked for, or the oldest of 05, or the oldest."""
    runs = [evaluation.run for evaluation in evaluations]
    if not runs:
        raise RunError("no run that was asked for has an evaluation to compare; run one first: handclip run 05")
    if reference and reference not in runs:
        raise RunError(f"reference={reference!r} has no evaluation among these runs; choose from {', '.join(runs)}")
    return reference or next((run for run in runs if run.startswith("05_")), runs[0])


def _fingerprint(record: Record, model: Any) -> str:
    weights = record.get("weights")
    facts = weights.get(model) if isinstance(weights, dict) else None
    return str(facts.get("fingerprint", "")) if isinstance(facts, dict) else ""
