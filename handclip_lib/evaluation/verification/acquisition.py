"""Failure to acquire: how many photographs of each part of a split could not be used at all (ISO/IEC 19795-1:2021)."""

import pandas as pd

from handclip_lib.data.images import DecodedImages
from handclip_lib.data.manifest import Split
from handclip_lib.data.survey import POOR, UNREADABLE, measure_quality
from handclip_lib.data.table import HandTable
from handclip_lib.evaluation.tables import result_table

FAULTS = (UNREADABLE, *POOR)
OF_NOBODY = "of nobody in the split"


def failure_to_acquire(table: HandTable, images: DecodedImages, split: Split) -> pd.DataFrame:
    """Photographs that could not be read, or are too poor by `measure_quality`, by the role of the person they show.

    Whoever trains, validates too: nothing says which of the two an unreadable photograph would have done, so both are
    "train". Photographs that a protocol leaves out (accessories, other aspects) are no attempts.

    Args:
        table: The data set, less what could not be acquired: those rows stand in `left_out`.
        images: Its decoded images.
        split: Of the table.

    Returns:
        A row a role, and "all": role, n_photographs (attempts), a count each of `FAULTS` (a photograph counts once),
        fta (share of the attempts that this evaluation lacks) and fta_if_dropped (share with any fault).
    """
    rows = split.images.assign(role=split.images["role"].replace({"val": "train"}), dropped=False)
    whose = rows.drop_duplicates(["identity", "aspect"]).set_index(["identity", "aspect"])["role"]
    measured = measure_quality(images.seen, rows["path"].tolist(), progress=False)
    kept = rows[["path", "role", "dropped"]].merge(measured[["path", "fault"]], on="path")
    lost = _lost(table, split)
    keys = pd.MultiIndex.from_frame(lost[["identity", "aspect"]])
    lost = lost.assign(role=whose.reindex(keys).fillna(OF_NOBODY).to_numpy(), dropped=True)
    attempts = pd.concat([kept, lost[["path", "role", "dropped", "fault"]]], ignore_index=True)
    roles = [role for role in ("train", "test", "other", "distractor", OF_NOBODY) if (attempts["role"] == role).any()]
    parts = {role: attempts[attempts["role"] == role] for role in roles} | {"all": attempts}
    return result_table([_counted(role, part) for role, part in parts.items()])


def _lost(table: HandTable, split: Split) -> pd.DataFrame:
    """What could not be acquired of the aspect that is tested, with its fault."""
    lost = table.left_out.reindex(columns=["path", "reason", "identity", "aspect", "accessories"])
    lost = lost[lost["identity"].notna()]
    if split.meta["protocol"] != "given":
        lost = lost[~lost["accessories"].fillna(False).astype(bool)]
    if split.meta["aspect"] in set(table.images["aspect"]):
        lost = lost[lost["aspect"] == split.meta["aspect"]]
    named = lost["reason"].astype("string").str.split(":").str[0]
    return lost.assign(fault=named.where(named.isin(POOR), UNREADABLE))


def _counted(role: str, attempts: pd.DataFrame) -> dict[str, object]:
    counts = {fault: int((attempts["fault"] == fault).sum()) for fault in FAULTS}
    shares = {"fta": attempts["dropped"].mean(), "fta_if_dropped": (attempts["fault"] != "").mean()}
    return {"role": role, "n_photographs": len(attempts), **counts, **shares}
