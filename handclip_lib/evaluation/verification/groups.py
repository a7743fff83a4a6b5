"""Who is recognised worse: figures by group of people, all with one gallery and one threshold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from handclip_lib.data.manifest import Split
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.bootstrap import Interval, identity_bootstrap
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.ranking.protocol import evaluate_split
from handclip_lib.evaluation.ranking.retrieval import retrieval_metrics
from handclip_lib.evaluation.tables import result_table
from handclip_lib.evaluation.verification.error_curve import interval_columns, no_interval
from handclip_lib.evaluation.verification.operating_point import at_threshold
from handclip_lib.evaluation.verification.score_pairs import compared_pairs

ATTRIBUTES = ("gender", "skin_color", "age", "nail_polish", "accessories", "irregularities")
SMALL = 5
"""Identities below which a group is marked small."""
AGE_BANDS = ("<20", "20-29", "30-39", "40+")
UNKNOWN = "unknown"
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


def told(left_out: Mapping[str, str]) -> str:
    """Which attributes have no groups, and why, as a sentence's end."""
    return "; ".join(f"{name.replace('_', ' ')}: {why}" for name, why in left_out.items()) or "nothing"


def group_figures(
    features: Features,
    split: Split,
    images: pd.DataFrame,
    threshold: float,
    attributes: Sequence[str] = ATTRIBUTES,
    *,
    model: str = "model",
    bootstrap: int = 1000,
    seed: int = 0,
) -> GroupResult:
    """Retrieval and verification figures of each group of the test images.

    An image is in the group of its own attribute: a person photographed with and without nail polish is in both
    groups. Ages are in bands (under 20, 20-29, 30-39, 40 and over); an image whose attribute is not recorded is in
    the group "unknown".

    Args:
        features: Embeddings of at least `split.evaluated_paths()`.
        split: The manifest.
        images: `HandTable.images`, which knows the attributes; at least the test images.
        threshold: Score from which a pair is accepted, such as `frozen_threshold(...).threshold`.
        attributes: Columns of `images` to group by; absent and constant ones are named in `left_out`.
        model: Name for tables and figures.
        bootstrap: Resamples of the identities.
        seed: Seed of the resampling.

    Raises:
        EvaluationError: A test image is not in `images`, or the threshold is not finite.

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
            **interval_columns("rank1", _interval(rows["hit"], rows["identity"], bootstrap, seed)),
            **interval_columns("map", _interval(rows["average_precision"], rows["identity"], bootstrap, seed)),
            **interval_columns("fmr", rates.fmr), **interval_columns("fnmr", rates.fnmr),
            "n_genuine": rates.n_genuine, "n_impostor": rates.n_impostor,
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


def without(
    features: Features,
    split: Split,
    images: pd.DataFrame,
    attribute: str = "nail_polish",
    value: object = True,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """How much of rank-1 is an attribute read as identity: without the images that have it.

    Returns:
        Three rows, named by `images`: all; the queries with the value left out; queries and gallery images with it
        left out, whereby the gallery shrinks and the task becomes easier: compare the last two. Columns rank1 and map
        with `_low` and `_high`, shares in 0..1 over the queries of all draws, and means a draw: n_query, n_unmatched
        (queries whose only match was left out) and n_gallery; n_identities.

    Raises:
        EvaluationError: No test image has the value, or it leaves no query with a match.
    """
    labels = _labels(split, images, attribute)
    group = _text(value)
    if labels is None or not (labels == group).any():
        known = "not recorded" if labels is None else f"one of {', '.join(_in_order(labels))}"
        raise EvaluationError(f"no test image has {attribute}={value!r}: it is {known} in this split; choose another")
    having = set(labels.index[labels == group])
    cases = {"all": (False, False), f"queries without {attribute}": (True, False),
             f"queries and gallery without {attribute}": (True, True)}  # fmt: skip
    rows = []
    for name, (from_queries, from_gallery) in cases.items():
        found = []
        for trial in range(split.meta["draws"]):
            draw = split.draw(trial)
            leave = np.array([from_queries and path in having for path in draw.query_paths])
            keep = np.array([not (from_gallery and path in having) for path in draw.gallery_paths])
            similarity = features.of(draw.query_paths) @ features.of(draw.gallery_paths[keep]).T
            found.append((retrieval_metrics(similarity, draw.query_ids, draw.gallery_ids[keep], exclude=leave), draw))
        rank = np.concatenate([metrics.first_match_rank for metrics, _ in found])
        precision = np.concatenate([metrics.average_precision for metrics, _ in found])
        identity = np.concatenate([draw.query_ids for _, draw in found])
        there = rank > 0
        rows.append(
            {"images": name, "n_identities": len(np.unique(identity[there])),
             **interval_columns("rank1", _interval((rank == 1)[there], identity[there], bootstrap, seed)),
             **interval_columns("map", _interval(precision[there], identity[there], bootstrap, seed)),
             "n_query": there.sum() / len(found), "n_unmatched": np.mean([m.n_unmatched for m, _ in found]),
             "n_gallery": np.mean([m.n_gallery for m, _ in found])}
        )  # fmt: skip
    return pd.DataFrame(rows)


def _labels(split: Split, images: pd.DataFrame, attribute: str) -> "pd.Series[str] | None":
    """The group of each test image, by path; None where the table has no such column."""
    paths = split.paths("test")
    absent = set(paths) - set(images["path"])
    if absent:
        raise EvaluationError(f"{min(absent)} is no row of the images table; give the table the split was made from")
    if attribute not in images.columns:
        return None
    values = images.set_index("path")[attribute].reindex(paths)
    if attribute == "age":
        known = values.dropna().astype(int)
        bands = np.array(AGE_BANDS)[np.digitize(known, [20, 30, 40])]
        return pd.Series(bands, index=known.index).reindex(paths).fillna(UNKNOWN)
    return pd.Series([_text(value) for value in values], index=paths)


def _text(value: object) -> str:
    if pd.isna(value):  # type: ignore[call-overload]
        return UNKNOWN
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return str(value)


def _in_order(labels: "pd.Series[str]") -> list[str]:
    known = set(labels) - {UNKNOWN}
    return ([band for band in AGE_BANDS if band in known] or sorted(known)) + [UNKNOWN] * (UNKNOWN in set(labels))


def _interval(values: Any, identities: Any, samples: int, seed: int) -> Interval:
    """The mean and its interval over identities: NaN for fewer than two of them."""
    values, n = np.asarray(values, np.float64), len(np.unique(identities))
    if n < 2:
        return no_interval(values.mean() if n else np.nan, n)
    return identity_bootstrap(values, np.asarray(identities), samples, seed)
