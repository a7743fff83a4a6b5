"""Published figures beside a user's own: only those of the same task stand in one table."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.ranking.protocol import ProtocolResult
from handclip_lib.evaluation.tables import result_table

TABLE = Path(__file__).with_name("clipfh_joint.csv")
"""Joint training ("stage 2") on 11k Hands, dorsal right, gallery of 71: evaluation logs of the CLIP-FH study."""
PROMPTSG_TABLE = Path(__file__).with_name("clipfh_promptsg.csv")
"""PromptSG ("stage 3"), the same task; versions are named "promptsg v1" …; a version without figures was never run."""
REFERENCE = Path(__file__).parents[2] / "reports" / "reference"
"""`literature.csv` and `clipfh.csv`: published figures with source, licence, gallery and definition of mAP."""
FACTS = (
    "study", "method", "dataset", "aspect", "gallery", "n_query", "n_gallery", "rank1", "map", "map_definition", "note",
    "reservation", "source", "license",
)  # fmt: skip
DEFINITIONS = {"standard": "map", "trapezoid": "map_trapezoid"}
"""Our column of each definition of mAP."""
BESIDE = (
    "study", "method", "dataset", "aspect", "gallery", "n_gallery", "rank1", "map", "map_definition", "note", "source",
)  # fmt: skip
SHOWN = ("model", "task", "rank1", "map", "described_as", "what_its_code_did", "source")
COLUMNS = (*SHOWN, "same_task")
PUBLISHED_TASK = "11k, dorsal_r, standard, 971 queries, gallery of 71"
"""Of all versions of CLIP-FH."""


def beside_published(
    version: str, backbone: str, results: Sequence[ProtocolResult], meta: Mapping[str, Any]
) -> pd.DataFrame:
    """Our result of gallery "aspect", and CLIP-FH's of the same version.

    Args:
        version: Such as "v5" or "promptsg v8"; empty for none.
        backbone: Short name; the study has vitb16 and rn50, and both are shown for any other.
        results: Of `evaluate_models`, ours first.
        meta: Of the split: data set, aspect and protocol make the task, with the numbers of queries and gallery images.

    Returns:
        Columns `COLUMNS`; shares in 0..1; `same_task` is false for a figure that may not be compared with ours.

    Raises:
        EvaluationError: The study has no such version.
    """
    ours = next(result for result in results if result.gallery == "aspect").summary()
    of_split = ", ".join(str(meta[name]) for name in ("dataset", "aspect", "protocol"))
    task = f"{of_split}, {ours['n_query']:g} queries, gallery of {ours['n_gallery']}"
    figures = {"model": f"ours: {ours['model']}", "task": task, "rank1": ours["rank1"], "map": ours["map"]}
    rows = [dict.fromkeys(COLUMNS, "") | figures | {"same_task": True}]
    if version:
        blank = {"rank1": [""], "map": [""]}
        tables = [pd.read_csv(file, keep_default_na=False, na_values=blank) for file in (TABLE, PROMPTSG_TABLE)]
        table = pd.concat(tables)
        found = table[table["version"] == version]
        if found.empty:
            known = ", ".join(dict.fromkeys(table["version"]))
            raise EvaluationError(f"version={version!r}: CLIP-FH has {known}")
        same = found[found["backbone"] == backbone]
        for row in (found if same.empty else same).to_dict("records"):
            row["model"] = f"CLIP-FH {version}, {row['backbone']}"
            row |= {"task": PUBLISHED_TASK, "same_task": task == PUBLISHED_TASK}
            rows.append({name: row[name] for name in COLUMNS})
    return result_table(rows, SHOWN, claims="same_task")


def published_figures() -> pd.DataFrame:
    """All published figures of `REFERENCE`; columns `FACTS`, shares in 0..1.

    Raises:
        EvaluationError: A file is absent or damaged, or has a value that cannot be.
    """
    tables = []
    for name in ("literature.csv", "clipfh.csv"):
        file = REFERENCE / name
        try:
            table = pd.read_csv(file, keep_default_na=False)[list(FACTS)]
            shares = table[["rank1", "map"]].to_numpy(float)
        except (OSError, KeyError, ValueError) as error:
            raise EvaluationError(f"{file} is no table of published figures ({error}); restore it from git") from error
        if not ((shares >= 0) & (shares <= 1)).all() or not set(table["map_definition"]) <= {*DEFINITIONS, "unknown"}:
            raise EvaluationError(f"{file}: shares in 0..1 and a definition of mAP that is known here are wanted")
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def beside_literature(ours: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Our results beside the published ones of the same task, and the others with the reason why not.

    A task is data set, aspect, gallery with its size, queries a draw, and the definition of mAP; the published
    protocol is the only one that may be compared.

    Args:
        ours: A row a model and gallery: model, dataset, aspect, protocol, gallery, n_query (a draw), n_gallery,
            rank1, map, map_trapezoid.

    Returns:
        Those that may be compared, columns `BESIDE`, ours first in each task, under the study "ours". And the others:
        study, dataset, aspect, gallery, map_definition, figures (how many), best_rank1, reason.
    """
    published = published_figures()
    reasons = [_reason(row, ours) for row in published.to_dict("records")]
    same = published[[not reason for reason in reasons]]
    task = ["dataset", "aspect", "gallery", "map_definition"]
    rows: list[Mapping[Hashable, Any]] = []
    for names, theirs in same.groupby(task, sort=False):
        dataset, aspect, gallery, definition = names
        mine = ours[(ours["dataset"] == dataset) & (ours["aspect"] == aspect) & (ours["gallery"] == gallery)]
        for row in mine.to_dict("records"):
            facts = {"study": "ours", "method": row["model"], "map": row[DEFINITIONS[str(definition)]], "note": ""}
            rows.append(row | facts | {"map_definition": definition, "source": ""})
        rows += theirs.sort_values("rank1", ascending=False).to_dict("records")
    others = published.assign(reason=reasons)[[bool(reason) for reason in reasons]]
    grouped = others.groupby(["study", *task, "reason"], sort=False)["rank1"].agg(figures="size", best_rank1="max")
    listed = ["study", *task, "figures", "best_rank1", "reason"]
    return result_table(rows, columns=BESIDE), result_table(grouped.reset_index()[listed])


def _reason(row: Mapping[Hashable, Any], ours: pd.DataFrame) -> str:
    """Why a published figure cannot stand beside ours; "" where it can."""
    if row["reservation"]:
        return str(row["reservation"])
    if row["map_definition"] not in DEFINITIONS:
        return "its definition of mAP is not known"
    left = ours
    for name, what in (("dataset", "data"), ("aspect", "aspect"), ("gallery", "gallery")):
        there = list(dict.fromkeys(left[name]))
        left = left[left[name] == row[name]]
        if left.empty:
            return f"other {what}: ours is {', '.join(there)}"
    protocol = "hd" if row["dataset"] == "hd" else "standard"
    if set(left["protocol"]) != {protocol}:
        return f"other protocol: ours is {', '.join(sorted(set(left['protocol'])))}, theirs {protocol}"
    sizes = {(round(q, 1), g) for q, g in zip(left["n_query"], left["n_gallery"], strict=True)}
    if sizes != {(row["n_query"], row["n_gallery"])}:
        queries, gallery = min(sizes)
        return (
            f"other images: ours has {queries:g} queries and a gallery of {gallery}, theirs {row['n_query']} and "
            f"{row['n_gallery']}"
        )
    return ""
