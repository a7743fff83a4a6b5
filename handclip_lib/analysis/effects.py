"""What changed between runs, and with what effect: sweeps of one parameter, seeds, learnt prompts."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from handclip_lib.analysis.collection import Record
from handclip_lib.evaluation.tables import result_table
from handclip_lib.training.checkpoints import load_checkpoint

MAKES_THE_SPLIT = (
    "dataset", "data_root", "aspect", "protocol", "draws", "sample_range", "quality", "drawn_subjects", "drawn_images",
)  # fmt: skip
"""Parameters, beside the seed, that decide which images are trained and tested on."""
PROMPTS = "prompts.safetensors"
FIGURES = ("seed", "id", "rank1", "map", "seconds")


def sweep_table(records: Sequence[Record], parameter: str) -> pd.DataFrame:
    """The effect of one parameter: the largest group of runs that differ in it and in nothing else but the seed.

    Runs of one seed are on one split, that of the newest of them, unless the parameter is one that makes the split:
    photographs that were added or removed in between would look like its effect.

    Returns:
        Columns value, seed, id, rank1, map, seconds, ordered by value; empty where no two values were run.
    """
    groups = _alike(
        [record for record in records if parameter in (record.get("parameters") or {})], {parameter, "seed"}
    )
    if parameter not in MAKES_THE_SPLIT:
        groups = [_on_one_split(group) for group in groups]
    groups = [group for group in groups if len({str(record["parameters"][parameter]) for record in group}) > 1]
    rows = [[record["parameters"][parameter], *_figures(record)] for record in max(groups, key=len, default=[])]
    rows.sort(key=lambda row: (isinstance(row[0], str), row[0]))
    return result_table(rows, columns=["value", *FIGURES])


def seeds_table(records: Sequence[Record]) -> pd.DataFrame:
    """Runs that differ in the seed alone: columns group, seed, id, rank1, map, seconds; empty where there are none.

    The seed draws the split too, so the spread is that of other draws (and, with a proportional protocol, of other
    people) as well as of another training.
    """
    rows = []
    for group in _alike(records, {"seed"}):
        if len({record["parameters"]["seed"] for record in group}) > 1:
            run = f"{group[0]['id'][:2]}-{group[0]['id'].rpartition('-')[2]}"
            rows += [[f"{group[0]['metrics'].get('model', '')} ({run} …)", *_figures(record)] for record in group]
    return result_table(rows, columns=["group", *FIGURES])


def prompt_lengths(runs: Path, records: Sequence[Record], most: int = 2) -> dict[str, np.ndarray]:
    """Length of every learnt token of the newest runs of 02, by id: (n_identities, n_ctx), or (1, n_ctx) if shared."""
    able = [
        record["id"]
        for record in records
        if (record["notebook"], record["status"]) == ("02_prompt_learning", "succeeded")
        and (runs / record["id"] / PROMPTS).is_file()
    ]
    lengths = {}
    for name in able[-most:]:
        context = load_checkpoint(runs / name / PROMPTS)[0]["best"].float().norm(dim=-1)
        lengths[name] = context.numpy().reshape(-1, context.shape[-1])
    return lengths


def _alike(records: Iterable[Record], but: set[str]) -> list[list[Record]]:
    """Runs with figures, of one notebook, in groups that agree in all parameters but some; the newest of equal ones."""
    groups = defaultdict[tuple[str, str], dict[str, Record]](dict)
    for record in records:
        if record["status"] == "succeeded" and "rank1" in (record.get("metrics") or {}):
            rest = {name: value for name, value in record["parameters"].items() if name not in but}
            group = groups[record["notebook"], json.dumps(rest, sort_keys=True, default=str)]
            own = json.dumps(record["parameters"], sort_keys=True, default=str)
            group.pop(own, None)  # made again with another library or other data: no second seed, no second value
            group[own] = record
    return [list(group.values()) for group in groups.values()]


def _on_one_split(group: Sequence[Record]) -> list[Record]:
    """Of each seed the runs on the split of its newest."""
    split = {record["id"]: (record.get("split") or {}).get("checksum") for record in group}
    newest = {record["parameters"]["seed"]: split[record["id"]] for record in group}
    return [record for record in group if split[record["id"]] == newest[record["parameters"]["seed"]]]


def _figures(record: Record) -> list[Any]:
    metrics = record["metrics"]
    return [record["parameters"]["seed"], record["id"], metrics["rank1"], metrics.get("map"), record.get("seconds")]
