"""One threshold: fixed on validation identities, and what it does to others, all of them and group by group."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from handclip_lib.backbone.load import Backbone
from handclip_lib.data.images import DecodedImages
from handclip_lib.data.manifest import Split
from handclip_lib.data.table import AGE_BANDS, UNKNOWN, as_groups, own_groups
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.baselines import embed_with_baselines
from handclip_lib.evaluation.bootstrap import Interval, mean_interval, resampled
from handclip_lib.evaluation.features import Features, joined
from handclip_lib.evaluation.ranking.protocol import evaluate_split
from handclip_lib.evaluation.tables import result_table
from handclip_lib.evaluation.verification.error_curve import RULE_OF_THREE
from handclip_lib.evaluation.verification.error_rates import verification_of_pairs
from handclip_lib.evaluation.verification.score_pairs import Pairs, compared_pairs, validation_pairs
from handclip_lib.models.trained import Trained
from handclip_lib.parameters.notebooks import Evaluation

FIXED_SHOWN = ("model", "threshold", "fmr_validation", "fmr", "fnmr_validation", "fnmr")
GROUPS_SHOWN = ("attribute", "group", "n_identities", "rank1", "fmr", "fnmr", "fnmr_ratio")
ATTRIBUTES = ("gender", "skin_color", "age", "nail_polish", "accessories", "irregularities")
SMALL = 5
"""Identities below which a group is marked small."""


@dataclass(frozen=True)
class ThresholdRates:
    """What one threshold does to pairs.

    Attributes:
        fmr, fnmr: False match and non-match rate in 0..1, NaN where there is no pair to count, with their intervals
            over identities, NaN where fewer than two pairs of people (FMR) or two people (FNMR) are compared.
        supported: Whether there are enough people to claim an FMR as low as the one found (rule of three).
    """

    fmr: Interval
    fnmr: Interval
    supported: bool


def at_threshold(test: Pairs, threshold: float, *, bootstrap: int = 1000, seed: int = 0) -> ThresholdRates:
    """FMR and FNMR at a threshold that was chosen elsewhere, with intervals over identities.

    Identities are resampled as in `verification_of`, but the threshold stays. At an infinite one, which rejects
    everybody, the FMR is 0 and the FNMR 1, without intervals.
    """
    if np.isnan(threshold):
        raise EvaluationError("threshold=nan: a score is wanted")
    n, pairs = test.n_identities, test.n_identity_pairs
    if np.isinf(threshold):
        fmr, fnmr = Interval.unknown(0.0, n), Interval.unknown(1.0, n)
    else:
        fmr = _fmr(test, threshold, bootstrap, seed)
        fnmr = mean_interval(test.genuine < threshold, test.genuine_identities, bootstrap, seed)
    return ThresholdRates(fmr, fnmr, pairs > 0 and float(fmr.estimate) >= RULE_OF_THREE / pairs)


def operating_points(
    features: Mapping[str, Features], split: Split, fmr: float = 0.01, *, bootstrap: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """A row a model: its threshold for an FMR on validation identities, and its errors on test identities there.

    Where no threshold keeps to it but rejecting everybody, as with few people happens, the threshold is infinity:
    that one model cannot do it is a result, and the others have theirs.

    Returns:
        Columns model, target, threshold, fmr_validation, fnmr_validation; fmr and fnmr of the test identities with
        `_low` and `_high`; n_identities, `validation_supported` and `supported`.
    """
    rows = []
    for model, embeddings in features.items():
        chosen = verification_of_pairs(validation_pairs(embeddings, split)).fnmr_at_fmr(fmr)
        test = compared_pairs(embeddings, split)
        rates = at_threshold(test, chosen.threshold, bootstrap=bootstrap, seed=seed)
        rows.append(
            {"model": model, "target": fmr, "threshold": chosen.threshold, "fmr_validation": chosen.false_positive,
             "fnmr_validation": chosen.false_negative, **rates.fmr.columns("fmr"), **rates.fnmr.columns("fnmr"),
             "n_identities": test.n_identities, "validation_supported": chosen.supported,
             "supported": rates.supported}
        )  # fmt: skip
    return result_table(rows, FIXED_SHOWN)


@dataclass(frozen=True)
class GroupResult:
    """One model by group of the test images.

    Attributes:
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
        attributes: Columns of `images` to group by, beside those of the data set's own (`own_groups`); absent and
            constant ones are named in `left_out`.

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
    for attribute in (*attributes, *own_groups(images)):
        labels = _labels(split, images, attribute)
        if labels is None or set(labels) <= {UNKNOWN}:
            left_out[attribute] = "the data set does not record it"
        elif len(set(labels) - {UNKNOWN}) < 2:
            (only,) = set(labels) - {UNKNOWN}
            left_out[attribute] = f"of every test image it is {only!r}" + " or unknown" * (UNKNOWN in set(labels))
        else:
            table += [figures(attribute, group, set(labels.index[labels == group])) for group in _in_order(labels)]
    frame = result_table(table, GROUPS_SHOWN)
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


def fixed_on_validation(
    model: Backbone | Trained, images: DecodedImages, features: Mapping[str, Features], split: Split, config: Evaluation
) -> pd.DataFrame:
    """`operating_points` of notebook 05; no row where fewer than two people validate.

    Args:
        images: Decoded images, those that trained and validated among them: they are embedded here.
        features: Of the evaluated images, the model's first.
    """
    if len(split.identities("val")) < 2:
        return result_table([], FIXED_SHOWN, columns=["model", "threshold"])
    held = images.select(split.paths("train") + split.paths("val"))
    both = joined(features, embed_with_baselines(model, held, config.batch_size))
    return operating_points(both, split, config.target_fmr, bootstrap=config.bootstrap, seed=config.seed)


def usable_threshold(fixed: pd.DataFrame, otherwise: float) -> float:
    """The first model's threshold of `fixed_on_validation`; another where there is none or it rejects everybody."""
    found = float(fixed["threshold"].iloc[0]) if len(fixed) else np.inf
    return otherwise if np.isinf(found) else found


def _fmr(pairs: Pairs, threshold: float, samples: int, seed: int) -> Interval:
    n = pairs.n_identities
    accepted = pairs.impostor >= threshold
    estimate = float(accepted.mean()) if len(accepted) else float("nan")
    if pairs.n_identity_pairs < 2:
        return Interval.unknown(estimate, n)
    code = pairs.impostor_identities @ [n, 1]
    passed, compared = (np.bincount(c, minlength=n * n).reshape(n, n) for c in (code[accepted], code))
    with np.errstate(invalid="ignore"):  # a resample without two people that are compared: NaN, left out
        rates = [((w @ passed) * w).sum(1) / ((w @ compared) * w).sum(1) for w in resampled(n, samples, seed)]
    return Interval.of(estimate, np.concatenate(rates), n)
