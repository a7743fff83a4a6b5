"""The runs of a reports folder as tables: what there is, what differs, which may be compared, what a change did."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from handclip_lib.analysis.comparison import Entry, not_paired
from handclip_lib.errors import EvaluationError, RunError
from handclip_lib.evaluation.features import is_baseline
from handclip_lib.evaluation.ranking.saved_evaluation import PER_QUERY, SavedEvaluation, load_evaluation
from handclip_lib.evaluation.tables import result_table
from handclip_lib.runs.identity import COMPUTE, TOWERS
from handclip_lib.runs.inputs import EARLIER
from handclip_lib.runs.listing import changed_of
from handclip_lib.runs.record import CHECKPOINTS, not_learnt, record_of
from handclip_lib.training.state import load_checkpoint

Record = Mapping[str, Any]
"""`run.json` of a run, as `find_records` reads it."""
EVALUATES = ("03_image_finetune", "04_joint_training", "05_evaluation")
PROMPTS = "prompts.safetensors"
EFFECTS = ("seed", "id", "rank1", "map", "seconds")
METRICS = ("rank1", "rank1_low", "rank1_high", "map", "map_trapezoid")
COLUMNS = [
    "id", "notebook", "model", "weights", "dataset", "data_root", "aspect", "differs", *METRICS, "seconds",
    "peak_memory_mb", "split", "status", "note",
]  # fmt: skip
SHOWN = ("id", "model", "differs", "rank1", "map", "seconds", "split", "note")
"""Columns that a reader sees: what an id or a note says is in no other."""
NUMBERS = [*METRICS, "seconds", "peak_memory_mb"]
IN_COLUMNS = ("dataset", "data_root", "aspect")  # parameters that have a column of their own there
MOST_NAMED, LONGEST_LABEL = 2, 28  # parameters, and characters, that a label of a run may hold
MAKES_THE_SPLIT = (
    "dataset", "data_root", "aspect", "protocol", "draws", "sample_range", "quality", "drawn_subjects", "drawn_images",
)  # fmt: skip
"""Parameters, beside the seed, that decide which images are trained and tested on."""


def find_records(
    runs: Path, ids: Sequence[str] = (), notebook: str = "", dataset: str = "", aspect: str = ""
) -> list[dict[str, Any]]:
    """Records of the runs in a folder, the oldest first; those of notebook 06 are left out.

    What is given takes the runs of it alone: such ids, such a notebook as "03_image_finetune". A damaged record has its
    id, the status "damaged" and the reason.
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
        Columns `COLUMNS`, peak_memory_mb where any run recorded it: weights by their fingerprint, shares in 0..1,
        `differs` the parameters and versions of packages in which runs differ, and `note` why a run cannot be compared,
        or what is missing.
    """
    names, packages = differing(records), _differing_packages(records)
    rows = []
    for record in records:
        given, metrics = record.get("parameters") or {}, record.get("metrics") or {}
        model, software = metrics.get("model", ""), record.get("versions") or {}
        differs = [
            _told(_meant(record), names) if given else "",
            *(f"{name} {software[name]}" for name in packages if name in software),
        ]
        rows.append({
            "id": record["id"], "notebook": record["notebook"], "model": model, "weights": _fingerprint(record, model),
            **{name: given.get(name, "") for name in IN_COLUMNS}, "differs": ", ".join(filter(None, differs)),
            **{name: metrics.get(name) for name in METRICS}, "seconds": record.get("seconds"),
            "peak_memory_mb": record.get("peak_memory_mb", metrics.get("peak_memory_mb")),
            "split": str((record.get("split") or {}).get("checksum") or "")[:12], "status": record["status"],
            "note": note_of(record, runs) or (notes or {}).get(record["id"], ""),
        })  # fmt: skip
    table = pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(NUMBERS, "float64"))
    return result_table(table.drop(columns="peak_memory_mb") if table["peak_memory_mb"].isna().all() else table, SHOWN)


def differing(records: Iterable[Record]) -> list[str]:
    """Names of parameters in which runs differ: runs that have one disagree, and one of them is not its default.

    A run of an earlier version that was not asked what others of its notebook were disagrees with them too.
    """
    values, changed = defaultdict[str, set[str]](set), set[str]()
    asked = defaultdict[str, dict[str, Any]](dict)
    records = [record for record in records if record.get("parameters")]
    for record in records:
        asked[record["notebook"]] |= record["parameters"]
    for record in records:
        changed.update(changed_of(record))
        for name in asked[record["notebook"]]:
            values[name].add(json.dumps(record["parameters"].get(name), sort_keys=True, default=str))
    return [name for name in values if len(values[name]) > 1 and name in changed and name not in IN_COLUMNS]


def _told(given: Mapping[str, Any], names: Iterable[str]) -> str:
    """As "a=1, b=2", some parameters; those that a run has not, or that are empty in it, are left out."""
    return ", ".join(f"{name}={given[name]}" for name in names if given.get(name, "") != "")


def _differing_packages(records: Iterable[Record]) -> list[str]:
    """Packages that figures depend on, of which runs had different versions."""
    software = [record.get("versions") or {} for record in records]
    return [name for name in (*COMPUTE, *TOWERS) if len({str(one[name]) for one in software if name in one}) > 1]


def note_of(record: Record, runs: Path) -> str:
    """Why a run cannot be compared or used further, or what it did not learn; "" where nothing is missing."""
    folder, status, checkpoint = runs / record["id"], record["status"], CHECKPOINTS.get(record["notebook"])
    if status != "succeeded":
        return "it is not done yet" if status == "running" else f"{status}: {record.get('error') or 'no message'}"
    if checkpoint and not (folder / checkpoint).is_file():
        return f"no checkpoint: {checkpoint} is not there; run it again"
    if record["notebook"] not in EVALUATES:
        return f"{record['notebook'][:2]} evaluates no retrieval"
    if not (folder / PER_QUERY).is_file():
        return f"no evaluation: {PER_QUERY} is not there; run it again"
    return not_learnt(record)


def comparable_runs(
    records: Sequence[Record], runs: Path, ids: Sequence[str] = (), reference: str = ""
) -> tuple[list[SavedEvaluation], dict[str, str]]:
    """Evaluations of the runs on the same photographs and split that left out the same bursts, the oldest first.

    Those of the reference count, else of the newest; with them, by run, why it is none or cannot stand beside it. Runs
    asked for by id are all taken, for a comparison to refuse by name.
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
        try:
            evaluation = load_evaluation(runs / name)
            evaluation.features(evaluation.models[0])  # the maps of the comparison need them whole
        except EvaluationError as error:
            notes[name] = str(error)
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


def _task(record: Record) -> dict[str, Any]:
    """What a record says of its split, but for the checksum: a run of another task need not be read."""
    split = record.get("split")
    return {name: value for name, value in (split if isinstance(split, dict) else {}).items() if name != "checksum"}


def run_labels(records: Sequence[Record], evaluations: Sequence[SavedEvaluation]) -> dict[str, str]:
    """What to say of each run beside its model: the parameters in which the compared ones differ, "triplet_weight=1".

    It is "" for a run that has none of them, and for all where there is more to tell than a legend holds.
    """
    compared = [record for record in records if record["id"] in {evaluation.run for evaluation in evaluations}]
    names = [name for name in differing(compared) if name not in EARLIER]  # an id that a label has no room for
    given = {record["id"]: record.get("parameters") or {} for record in compared}
    texts = {run: _told(values, names) for run, values in given.items()}
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


def sweep_table(records: Sequence[Record], parameter: str) -> pd.DataFrame:
    """The effect of one parameter: the largest group of runs that differ in it and in nothing else but the seed.

    Runs of one seed are on one split, that of the newest of them, unless the parameter is one that makes the split:
    photographs that were added or removed in between would look like its effect.

    Columns are value and `EFFECTS`, ordered by value; empty where no two values were run.
    """
    having = [record for record in records if parameter in (record.get("parameters") or {})]
    groups = _alike(having, {parameter, "seed"})
    if parameter not in MAKES_THE_SPLIT:
        groups = [_on_one_split(group) for group in groups]
    groups = [group for group in groups if len({str(record["parameters"][parameter]) for record in group}) > 1]
    rows = [[record["parameters"][parameter], *_figures(record)] for record in max(groups, key=len, default=[])]
    rows.sort(key=lambda row: (isinstance(row[0], str), row[0]))
    return result_table(rows, columns=["value", *EFFECTS])


def seeds_table(records: Sequence[Record]) -> pd.DataFrame:
    """Runs that differ in the seed alone: columns group and `EFFECTS`; empty where there are none.

    The seed draws the split too, so the spread is also of other draws and, with a proportional protocol, other people.
    """
    rows = []
    for group in _alike(records, {"seed"}):
        if len({record["parameters"]["seed"] for record in group}) > 1:
            run = f"{group[0]['id'][:2]}-{group[0]['id'].rpartition('-')[2]}"
            rows += [[f"{group[0]['metrics'].get('model', '')} ({run} …)", *_figures(record)] for record in group]
    return result_table(rows, columns=["group", *EFFECTS])


def seeds_of(records: Sequence[Record], entries: Sequence[Entry]) -> pd.DataFrame:
    """With which seeds each compared model was made: its run and those that differ from it in the seed alone.

    What a run of 05 evaluates was made with the seed of the run of 03 or 04 that it names.

    Columns model, run, trained ("here": a seed made it, not only its draws; "no"; or "elsewhere", with seeds that are
    not known here), seeds (text), n_seeds, and the mean and the standard deviation of rank-1 over them (rank1_spread),
    which are of other draws too; baselines are left out.
    """
    by_id = {record["id"]: record for record in records}
    groups = {record["id"]: group for group in _alike(records, {"seed"}) for record in group}
    rows = []
    for entry in entries:
        run = entry.evaluation.run
        if is_baseline(entry.model) or run not in by_id:
            continue
        group = groups.get(run, [by_id[run]])  # a run that was made again later has no group of its own
        trained = _trained(by_id[run], by_id)
        if trained == "here" and run.startswith("05_"):
            group = _of_trainings(by_id[run], records, groups)
        seeds = sorted({int((_training(record, by_id) or record)["parameters"]["seed"]) for record in group})
        rank1 = [record["metrics"]["rank1"] for record in group]
        spread = float(np.std(rank1, ddof=1)) if len(rank1) > 1 else float("nan")
        told, n = (", ".join(map(str, seeds)), len(seeds)) if trained != "elsewhere" else ("not known", None)
        rows.append([entry.label, run, trained, told, n, float(np.mean(rank1)), spread])
    shown = ["model", "trained", "seeds", "n_seeds", "rank1", "rank1_spread"]
    table = pd.DataFrame(rows, columns=["model", "run", *shown[1:]]).astype({"n_seeds": "Int64"})
    return result_table(table, shown)


def _training(record: Record, by_id: Mapping[str, Record]) -> Record | None:
    """The run of 03 or 04 whose model a run of 05 evaluates, where it names one that is among the others."""
    return by_id.get(_meant(record).get("trained_run", ""))


def _trained(record: Record, by_id: Mapping[str, Record]) -> str:
    if not record["id"].startswith("05_") or _training(record, by_id):
        return "here"
    given = record["parameters"]
    return "elsewhere" if any(given.get(name) for name in ("trained_run", "weights", "embeddings")) else "no"


def _of_trainings(record: Record, records: Sequence[Record], groups: Mapping[str, list[Record]]) -> list[Record]:
    """The runs of 05 that evaluate trainings alike but for the seed, the newest of each, in nothing else different."""
    by_id = {one["id"]: one for one in records}
    training = _training(record, by_id) or record
    alike = {one["id"] for one in groups.get(training["id"], [training])}
    found = dict[str, Record]()
    for group in _alike(records, {"seed", "trained_run"}):
        if record["id"] in {one["id"] for one in group}:
            made_by = {one["id"]: (_training(one, by_id) or one)["id"] for one in group}
            found |= {made_by[one["id"]]: one for one in group if made_by[one["id"]] in alike}
    return list(found.values()) or [record]


def seed_cautions(seeds: pd.DataFrame) -> list[str]:
    """What must be said of models trained with one seed, or seeds nobody knows, by `seeds_of`, a sentence each."""
    alone = seeds.loc[(seeds["trained"] == "here") & (seeds["n_seeds"] == 1).fillna(False), "model"].tolist()
    unknown = seeds.loc[seeds["trained"] == "elsewhere", "model"].tolist()
    moves = "Another seed moves figures, and no interval here knows it."
    found = [f"Trained with one seed only: {', '.join(alone)}. {moves}"] if alone else []
    return found + (
        [f"Trained elsewhere, with seeds that are not known here: {', '.join(unknown)}."] if unknown else []
    )


def prompt_lengths(runs: Path, records: Sequence[Record]) -> dict[str, np.ndarray]:
    """Length of the learnt tokens of the two newest runs of 02, by id: (n_identities, n_ctx), or (1, n_ctx)."""
    trained = [r["id"] for r in records if (r["notebook"], r["status"]) == ("02_prompt_learning", "succeeded")]
    able = [name for name in trained if (runs / name / PROMPTS).is_file()]
    found = {name: load_checkpoint(runs / name / PROMPTS)[0]["best"].float().norm(dim=-1) for name in able[-2:]}
    return {name: lengths.numpy().reshape(-1, lengths.shape[-1]) for name, lengths in found.items()}


def _alike(records: Iterable[Record], but: set[str]) -> list[list[Record]]:
    """Runs with figures, of one notebook, in groups that agree in all parameters but some; the newest of equal ones."""
    groups = defaultdict[tuple[str, str], dict[str, Record]](dict)
    for record in records:
        if record["status"] == "succeeded" and "rank1" in (record.get("metrics") or {}):
            given = _meant(record)
            rest = {name: value for name, value in given.items() if name not in but}
            group = groups[record["notebook"], json.dumps(rest, sort_keys=True, default=str)]
            own = json.dumps(given, sort_keys=True, default=str)
            group.pop(own, None)  # made again with another library or other data: no second seed, no second value
            group[own] = record
    return [list(group.values()) for group in groups.values()]


def _meant(record: Record) -> dict[str, Any]:
    """A run's parameters, with the earlier runs they name by id: "latest" was another one at another time."""
    used, given = record.get("inputs") or {}, record["parameters"]
    named = {name: notebooks for name, notebooks in EARLIER.items() if given.get(name)}
    return {**given, **{name: used[one] for name, notebooks in named.items() for one in notebooks if one in used}}


def _on_one_split(group: Sequence[Record]) -> list[Record]:
    """Of each seed the runs on the split of its newest."""
    split = {record["id"]: (record.get("split") or {}).get("checksum") for record in group}
    newest = {record["parameters"]["seed"]: split[record["id"]] for record in group}
    return [record for record in group if split[record["id"]] == newest[record["parameters"]["seed"]]]


def _figures(record: Record) -> list[Any]:
    """Values of `EFFECTS`."""
    metrics = record["metrics"]
    return [record["parameters"]["seed"], record["id"], metrics["rank1"], metrics.get("map"), record.get("seconds")]
