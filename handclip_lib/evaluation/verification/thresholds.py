"""A threshold in use: fixed on validation people, on groups of people, and where some people are not enrolled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from handclip_lib.backbone.load import Backbone
from handclip_lib.data.images import DecodedImages
from handclip_lib.data.manifest import Split
from handclip_lib.data.table import AGE_BANDS, UNKNOWN, as_groups, identity_order
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.bootstrap import (
    RULE_OF_THREE,
    ErrorCurve,
    Interval,
    OperatingPoint,
    PrefixSums,
    mean_interval,
    resampled,
)
from handclip_lib.evaluation.features import Features, embed_with_baselines
from handclip_lib.evaluation.ranking.protocol import evaluate_split
from handclip_lib.evaluation.ranking.retrieval import retrieval_metrics
from handclip_lib.evaluation.tables import in_percent, result_table
from handclip_lib.evaluation.verification.error_rates import Pairs, compared_pairs, validation_pairs, verification
from handclip_lib.models.trained import Trained
from handclip_lib.parameters.notebooks import Evaluation

FIXED_SHOWN = ("model", "threshold", "fmr_validation", "fmr", "fnmr_validation", "fnmr")
GROUPS_SHOWN = ("attribute", "group", "n_identities", "rank1", "fmr", "fnmr", "fnmr_ratio")
OPEN_SET_SHOWN = ("model", "target", "fnir", "fpir", "n_mated_identities", "n_non_mated_identities")
ATTRIBUTES = ("gender", "skin_color", "age", "nail_polish", "accessories", "irregularities")
SMALL = 5  # identities below which a group is marked small
FPIR_TARGETS = (0.1, 0.01)


def at_threshold(
    test: Pairs, threshold: float, *, bootstrap: int = 1000, seed: int = 0
) -> tuple[dict[str, float], bool]:
    """FMR and FNMR at a threshold that was chosen elsewhere, with intervals over identities.

    Identities are resampled as in `verification_of`, but the threshold stays. At an infinite one, which rejects
    everybody, the FMR is 0 and the FNMR 1, without intervals.

    Returns:
        Columns fmr and fnmr, shares in 0..1, NaN where there is no pair to count; each with `_low` and `_high`, NaN
        where fewer than two pairs of people (FMR) or two people (FNMR) are compared. And whether there are enough
        people to claim an FMR as low as the one found (rule of three).
    """
    if np.isnan(threshold):
        raise EvaluationError("threshold=nan: a score is wanted")
    n, pairs = test.n_identities, test.n_identity_pairs
    if np.isinf(threshold):
        fmr, fnmr = Interval.unknown(0.0, n), Interval.unknown(1.0, n)
    else:
        fmr = _fmr(test, threshold, bootstrap, seed)
        fnmr = mean_interval(test.genuine < threshold, test.genuine_identities, bootstrap, seed)
    supported = pairs > 0 and float(fmr.estimate) >= RULE_OF_THREE / pairs
    return fmr.columns("fmr") | fnmr.columns("fnmr"), supported


def operating_points(
    held: Mapping[str, Features], features: Mapping[str, Features], split: Split, fmr: float = 0.01, *,
    bootstrap: int = 1000, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """A row a model: its threshold for an FMR on validation identities, and its errors on test identities there.

    Where only rejecting everybody keeps to it, as with few people happens, the threshold is infinity: that one model
    cannot do it is a result, and the others have theirs.

    Args:
        held, features: Of the images that trained and validated, and of the evaluated ones, by the same models.
    """
    rows = []
    for model, embeddings in features.items():
        known = validation_pairs(held[model], split)
        chosen = verification(known.genuine, known.impostor, known.n_identity_pairs).operating_point(fmr)
        test = compared_pairs(embeddings, split)
        rates, supported = at_threshold(test, chosen.threshold, bootstrap=bootstrap, seed=seed)
        rows.append(
            {"model": model, "target": fmr, "threshold": chosen.threshold, "fmr_validation": chosen.false_positive,
             "fnmr_validation": chosen.false_negative, **rates, "n_identities": test.n_identities,
             "validation_supported": chosen.supported, "supported": supported}
        )  # fmt: skip
    return result_table(rows, FIXED_SHOWN)


def kept_promise(fixed: pd.DataFrame, trained: bool) -> str:
    """What the first model's threshold of `fixed_on_validation` promised and keeps, as a caption.

    `trained`: the people it was chosen on trained the model too.
    """
    if fixed.empty:
        return "No threshold could be fixed: fewer than two people validate"
    first = fixed.iloc[0]
    promised, kept = (f"{in_percent(first[name])} %" for name in ("fmr_validation", "fmr"))
    told = (
        f"{first['model']} accepts {promised} of strangers on validation, at the threshold fixed there, {kept} on test"
    )
    return told + ("; the people who validate also trained it" if trained else "")


def reasons(left_out: Mapping[str, str]) -> str:
    """What is left out, and why, as a sentence's end."""
    return "; ".join(f"{name.replace('_', ' ')}: {why}" for name, why in left_out.items()) or "nothing"


def group_figures(
    features: Features, split: Split, images: pd.DataFrame, threshold: float,
    attributes: Sequence[str] = ATTRIBUTES, *, bootstrap: int = 1000, seed: int = 0,
) -> tuple[pd.DataFrame, dict[str, str]]:  # fmt: skip
    """Retrieval and verification figures of each group of the test images, a pair being accepted from a threshold on.

    An image is in the group of its own attribute: a person photographed with and without nail polish is in both
    groups. Ages are in bands; an image whose attribute is not recorded is in the group "unknown". The images are those
    of `HandTable.images`, at least the test images; the attributes are columns of them.

    Returns:
        A row a group, the first, of no attribute, being everybody: attribute, group, n_identities and n_query (a draw's
        mean), rank1 and map of the group's queries in the whole gallery, fmr and fnmr of the pairs whose two images are
        both of the group, n_genuine, n_impostor, each rate with `_low` and `_high`, `fmr_ratio` and `fnmr_ratio` to
        those of everybody, `small` (fewer than 5 identities) and `supported` (see `at_threshold`). Shares in 0..1; NaN
        where nothing can be said, such as an interval of one identity. And the attributes left out, and why.

    Source: ISO/IEC 19795-10:2024 (differential performance between groups).
    """
    absent = set(split.paths("test")) - set(images["path"])
    if absent:
        raise EvaluationError(f"{min(absent)} is no row of the images table; give the table the split was made from")
    queries = evaluate_split(features, split, bootstrap=2).per_query
    pairs = compared_pairs(features, split)
    draws = split.meta["draws"]

    def figures(attribute: str, group: str, paths: set[str]) -> dict[str, Any]:
        rows = queries[queries["path"].isin(paths)]
        members = pairs.among(np.array([path in paths for path in pairs.paths]))
        rates, supported = at_threshold(members, threshold, bootstrap=bootstrap, seed=seed)
        n = rows["identity"].nunique()
        return {
            "attribute": attribute, "group": group, "n_identities": n, "n_query": len(rows) / draws,
            **mean_interval(rows["hit"], rows["identity"], bootstrap, seed).columns("rank1"),
            **mean_interval(rows["average_precision"], rows["identity"], bootstrap, seed).columns("map"),
            **rates, "n_genuine": len(members.genuine), "n_impostor": len(members.impostor), "small": n < SMALL,
            "supported": supported,
        }  # fmt: skip

    test = images.set_index("path").reindex(index=split.paths("test"), columns=list(attributes))
    table = [figures("", "everybody", set(pairs.paths))]
    left_out = {}
    for attribute in attributes:
        labels = as_groups(test[attribute])
        known, unknown = set(labels) - {UNKNOWN}, UNKNOWN in set(labels)
        if not known:
            left_out[attribute] = "the data set does not record it"
        elif len(known) < 2:
            left_out[attribute] = f"of every test image it is {min(known)!r}" + " or unknown" * unknown
        else:
            groups = ([band for band in AGE_BANDS if band in known] or sorted(known)) + [UNKNOWN] * unknown
            table += [figures(attribute, group, set(labels.index[labels == group])) for group in groups]
    frame = result_table(table, GROUPS_SHOWN)
    for rate in ("fmr", "fnmr"):
        overall = frame[rate].iloc[0]
        frame[f"{rate}_ratio"] = frame[rate] / overall if overall > 0 else np.nan
    return frame, left_out


def fixed_on_validation(
    model: Backbone | Trained, images: DecodedImages, features: Mapping[str, Features], split: Split, config: Evaluation
) -> pd.DataFrame:
    """`operating_points` of notebook 05, which embeds the held images; no row where fewer than two people validate."""
    if len(split.identities("val")) < 2:
        return result_table([], FIXED_SHOWN, columns=["model", "threshold"])
    images = images.select(split.paths("train") + split.paths("val"))
    held = embed_with_baselines(model, images, config.batch_size)
    return operating_points(held, features, split, config.target_fmr, bootstrap=config.bootstrap, seed=config.seed)


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


@dataclass(frozen=True)
class OpenSetResult:
    """FPIR and FNIR over every threshold, all draws together; shares in 0..1.

    Attributes:
        rank: R: a mated probe is found when its own identity is among the R best, and at or above the threshold.
        curve: The errors: its false positives are FPIR, its false negatives FNIR, which begins at 1 - CMC at R.
        points, fnir_at_targets: FNIR at each target FPIR, and the same with their intervals over identities.
        n_mated_identities, n_non_mated_identities: People whose probes have a mate in the gallery, or none.
    """

    model: str
    rank: int
    curve: ErrorCurve
    points: list[OperatingPoint]
    fnir_at_targets: Interval
    held_out: tuple[str, ...]
    n_mated_identities: int
    n_non_mated_identities: int
    n_gallery: int


def open_set(
    features: Features, split: Split, *, share: float = 0.5, rank: int = 1, targets: Sequence[float] = FPIR_TARGETS,
    model: str = "model", bootstrap: int = 1000, seed: int = 0,
) -> OpenSetResult:  # fmt: skip
    """Identify the queries of every draw when a share of the test identities is not enrolled.

    The gallery images of the people held out leave the gallery; their queries are the non-mated probes. FPIR is the
    share of those whose best score is at least the threshold; FNIR the share of the mated probes whose own identity
    is not among the `rank` best, ties as in `retrieval_metrics`, with a score of at least the threshold.

    The interval resamples mated and non-mated identities apart and finds the threshold anew; the gallery stays, so it
    says how the figures move with other probes, not with other people enrolled.

    Args:
        share: Share of the identities with a query to hold out, 0..1; the same ones in every draw.

    Source: ISO/IEC 19795-1:2021 (identification error rates); Grother, Ngan & Hanaoka, NIST FRVT part 2.
    """
    if rank < 1:
        raise EvaluationError(f"rank={rank} does not exist; ranks begin at 1")
    held_out = held_out_identities(split, share, seed)
    if not held_out:
        raise EvaluationError(
            f"share={share} of the test identities with a query: at least two must be held out and two stay: choose "
            "another share, or a split with more test identities"
        )
    mated, non_mated, n_gallery = _probes(features, split, held_out, rank)
    codes = [np.unique(probes["identity"], return_inverse=True)[1].ravel() for probes in (mated, non_mated)]
    n = [int(code.max()) + 1 for code in codes]
    curve = ErrorCurve.of(mated["score"].to_numpy(), non_mated["score"].to_numpy(), n[1])
    points = [curve.operating_point(target) for target in targets]
    drawn = (chain.from_iterable(resampled(people, bootstrap, seed + i)) for i, people in enumerate(n))
    mated_codes, non_mated_codes = codes[0][curve.mated_order], codes[1][curve.non_mated_order]
    resamples = [
        curve.negatives_at(targets, (PrefixSums(with_mate[mated_codes]), PrefixSums(without[non_mated_codes])))
        for with_mate, without in zip(*drawn, strict=True)
    ]
    interval = Interval.of([point.false_negative for point in points], np.array(resamples), sum(n))
    return OpenSetResult(model, rank, curve, points, interval, held_out, n[0], n[1], n_gallery)


def open_set_models(features: Mapping[str, Features], split: Split, **options: Any) -> list[OpenSetResult]:
    """`open_set` of several models by name: the same people are held out for all."""
    return [open_set(embeddings, split, model=model, **options) for model, embeddings in features.items()]


def open_set_table(results: Sequence[OpenSetResult]) -> pd.DataFrame:
    """A row a model and target: model, rank, the counts, target, fnir with its interval, fpir, threshold, supported."""
    rows: list[dict[str, Any]] = []
    for result in results:
        facts = {
            "model": result.model, "rank": result.rank, "n_mated": len(result.curve.mated_order),
            "n_non_mated": len(result.curve.non_mated_order), "n_mated_identities": result.n_mated_identities,
            "n_non_mated_identities": result.n_non_mated_identities, "n_gallery": result.n_gallery,
        }  # fmt: skip
        fnir = result.fnir_at_targets
        rows += [facts | point.columns("fpir", "fnir", fnir[i]) for i, point in enumerate(result.points)]
    return result_table(rows, OPEN_SET_SHOWN)


def held_out_identities(split: Split, share: float, seed: int) -> tuple[str, ...]:
    """A seeded choice among the test identities with a query; none where fewer than two would be held out or stay."""
    queryable = sorted(split.identities("test") - set(split.meta["unqueryable"]), key=identity_order)
    n = round(share * len(queryable)) if 0 < share < 1 else 0
    if not 2 <= n <= len(queryable) - 2:
        return ()
    chosen = np.random.default_rng(seed).permutation(len(queryable))[:n]
    return tuple(queryable[i] for i in sorted(chosen))


def _probes(
    features: Features, split: Split, held_out: Sequence[str], rank: int
) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """Identity and score of the mated and the non-mated probes of all draws, and the gallery's size.

    A mated probe's score is that of its own identity, minus infinity when not among the `rank` best; others' the best.
    """
    sides: tuple[list[pd.DataFrame], list[pd.DataFrame]] = ([], [])
    for draw in split.draws():
        enrolled = ~np.isin(draw.gallery_ids, held_out)
        gallery_ids = draw.gallery_ids[enrolled]
        similarity = features.of(draw.query_paths) @ features.of(draw.gallery_paths[enrolled]).T
        mated = np.isin(draw.query_ids, gallery_ids)  # a folder's own split may lack a gallery image too
        own = np.where(draw.query_ids[:, None] == gallery_ids, similarity, -np.inf).max(1)
        ranks = retrieval_metrics(similarity, draw.query_ids, gallery_ids, exclude=~mated).first_match_rank
        score = np.where(mated, np.where(ranks <= rank, own, -np.inf), similarity.max(1))
        probes = pd.DataFrame({"identity": draw.query_ids, "score": score})
        sides[0].append(probes[mated])
        sides[1].append(probes[~mated])
    return pd.concat(sides[0]), pd.concat(sides[1]), len(gallery_ids)
