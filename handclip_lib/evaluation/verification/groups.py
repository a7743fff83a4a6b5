"""Demographic differentials: figures by group of people, all with one gallery and one threshold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from handclip_lib.data.manifest import Split
from handclip_lib.data.table import AGE_BANDS, UNKNOWN, as_groups
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.bootstrap import mean_interval
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.ranking.protocol import evaluate_split
from handclip_lib.evaluation.tables import result_table
from handclip_lib.evaluation.verification.operating_point import at_threshold
from handclip_lib.evaluation.verification.score_pairs import compared_pairs

ATTRIBUTES = ("gender", "skin_color", "age", "nail_polish", "accessories", "irregularities")
SMALL = 5
"""Identities below which a group is marked small."""
SHOWN = ("attribute", "group", "n_identities", "rank1", "fmr", "fnmr", "fnmr_ratio")


@dataclass(frozen=True)
class GroupResult:
    """One model by group of the test images.

    Attributes:
        model: Name of the model.
        threshold: Score from which a pair is accepted, the same for every group.
        table: A row a group: attribute, group, n_identities and n_query (a draw's mean), rank1 and map of the group's
            queries in the whole gallery, fmr and fnmr of the pairs whose two images are both of the group, n_genuine,
            n_impostor, each rate with `_low` and `_high`, `fmr_ratio` and `fnmr_ratio` to those of everybody, `small`
            (fewer than 5 identities) and `supported` (see `ThresholdRates`). The first row, of no attribute, is
            everybody. Shares in 0..1; NaN where nothing can be said, such as an interval of one identity.
        left_out: Attributes without groups, and why.
    """

    model: str
    threshold: float
    table: pd.DataFrame
    left_out: dict[str, str]


def reasons(left_out: Mapping[str, str]) -> str:
    """What is left out, and why, as a sentence's end."""
    return "; ".join(f"{name.replace('_', ' ')}: {why}" for name, why in left_out.items()) or "nothing"


def group_figures(
    features: Features, split: Split, images: pd.DataFrame, threshold: float,
    attributes: Sequence[str] = ATTRIBUTES, *, model: str = "model", bootstrap: int = 1000, seed: int = 0,
) -> GroupResult:  # fmt: skip
    """Retrieval and verification figures of each group of the test images.

    An image is in the group of its own attribute: a person photographed with and without nail polish is in both
    groups. Ages are in bands (under 20, 20-29, 30-39, 40 and over); an image whose attribute is not recorded is in
    the group "unknown".

    Args:
        images: `HandTable.images`, which knows the attributes; at least the test images.
        threshold: Score from which a pair is accepted.
        attributes: Columns of `images` to group by; absent and constant ones are named in `left_out`.

    Raises:
        EvaluationError: A test image is not in `images`.

    Source: ISO/IEC 19795-10:2024 (differential performance between groups).
    """
    queries = evaluate_split(features, split, model=model, bootstrap=2).per_query
    pairs = compared_pairs(features, split)
    draws = split.meta["draws"]

    def figures(attribute: str, group: str, paths: set[str]) -> dict[str, Any]:
        rows = queries[queries["path"].isin(paths)]
        members = pairs.among(np.array([path in paths for path in pairs.paths]))
        rates = at_threshold(members, threshold, bootstrap=bootstrap, seed=seed)
        n = rows["identity"].nunique()
        return {
            "attribute": attribute, "group": group, "n_identities": n, "n_query": len(rows) / draws,
            **mean_interval(rows["hit"], rows["identity"], bootstrap, seed).columns("rank1"),
            **mean_interval(rows["average_precision"], rows["identity"], bootstrap, seed).columns("map"),
            **rates.fmr.columns("fmr"), **rates.fnmr.columns("fnmr"),
            "n_genuine": len(members.genuine), "n_impostor": len(members.impostor),
            "small": n < SMALL, "supported": rates.supported,
        }  # fmt: skip

    table = [figures("", "everybody", set(pairs.paths))]
    left_out = {}
    for attribute in attributes:
        labels = _labels(split, images, attribute)
        if labels is None or set(labels) <= {UNKNOWN}:
            left_out[attribute] = "the data set does not record it"
        elif len(set(labels) - {UNKNOWN}) < 2:
            (only,) = set(labels) - {UNKNOWN}
            left_out[attribute] = f"of every test image it is {only!r}" + " or unknown" * (UNKNOWN in set(labels))
        else:
            table += [figures(attribute, group, set(labels.index[labels == group])) for group in _in_order(labels)]
    frame = result_table(table, SHOWN)
    for rate in ("fmr", "fnmr"):
        overall = frame[rate].iloc[0]
        frame[f"{rate}_ratio"] = frame[rate] / overall if overall > 0 else np.nan
    return GroupResult(model, threshold, frame, left_out)


def _labels(split: Split, images: pd.DataFrame, attribute: str) -> "pd.Series[str] | None":
    """The group of each test image, by path; None where the table has no such column."""
    paths = split.paths("test")
    absent = set(paths) - set(images["path"])
    if absent:
        raise EvaluationError(f"{min(absent)} is no row of the images table; give the table the split was made from")
    return as_groups(images.set_index("path")[attribute].reindex(paths)) if attribute in images.columns else None


def _in_order(labels: "pd.Series[str]") -> list[str]:
    known = set(labels) - {UNKNOWN}
    return ([band for band in AGE_BANDS if band in known] or sorted(known)) + [UNKNOWN] * (UNKNOWN in set(labels))
