"""A threshold in use: fixed on validation people, on groups of people, and where some people are not enrolled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from handclip_lib.data.images import DecodedImages
from handclip_lib.data.manifest import Split
from handclip_lib.data.table import UNKNOWN, as_groups, identity_order, in_order, own_groups
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.error_curve import ErrorCurve, OperatingPoint, Remaining, split_by
from handclip_lib.evaluation.features import Features, embed_with_baselines
from handclip_lib.evaluation.intervals import (
    Interval,
    identity_interval,
    jackknife,
    left_out_together,
    mean_of_two,
    share_interval,
)
from handclip_lib.evaluation.ranking.protocol import best_images, evaluate_split
from handclip_lib.evaluation.tables import in_percent, result_table
from handclip_lib.evaluation.verification.error_rates import AnyPairs, compared_pairs, curve_of, validation_pairs
from handclip_lib.evaluation.verification.tallies import Tallies, tally
from handclip_lib.models.embeddings import GivenEmbeddings
from handclip_lib.models.trained import Encoder
from handclip_lib.parameters.notebooks import Evaluation

FIXED_SHOWN = (
    "model", "threshold", "fmr_validation", "fmr", "fnmr_validation", "fnmr", "hter", "n_identities",
    "n_genuine_identities",
)  # fmt: skip
GROUPS_SHOWN = ("attribute", "group", "n_identities", "rank1", "fmr", "fnmr", "fnmr_ratio")
OPEN_SET_SHOWN = (
    "model", "target", "fnir", "fpir", "fnir_rank1", "n_mated_identities", "n_non_mated_identities", "n_mated",
    "n_non_mated",
)  # fmt: skip
ATTRIBUTES = ("gender", "skin_color", "age", "nail_polish", "accessories", "irregularities")
EVERYBODY = "everybody"
SMALL = 5  # identities below which a group is marked small
FPIR_TARGETS = (0.1, 0.01)


def operating_points(
    held: Mapping[str, Features], features: Mapping[str, Features], split: Split, fmr: float = 0.01
) -> pd.DataFrame:
    """A row a model: its threshold for an FMR on validation identities, and its errors on test identities there.

    HTER, the half total error rate, is the mean of FMR and FNMR there (Bengio & Mariéthoz, Odyssey 2004), with the
    interval of `mean_of_two`.

    Where only rejecting everybody keeps to it, as with few people happens, the threshold is infinity: that one model
    cannot do it is a result, and the others have theirs.

    Args:
        held, features: Of the images that trained and validated, and of the evaluated ones, by the same models.
    """
    rows = []
    for model, embeddings in features.items():
        known, test = validation_pairs(held[model], split), compared_pairs(embeddings, split)
        rows.append({"model": model, **at_fixed(known, test, fmr)})
    return result_table(rows, FIXED_SHOWN)


def at_fixed(known: AnyPairs, test: AnyPairs, fmr: float) -> dict[str, Any]:
    """The threshold for an FMR on pairs that are known, and the errors of others there, as `operating_points` has."""
    chosen = curve_of(known, (fmr,)).operating_point(fmr)
    found = tally(test, chosen.threshold)
    false_match, false_non_match, supported = found.rates(chosen.threshold)
    return {
        "target": fmr, "threshold": chosen.threshold, "fmr_validation": chosen.false_positive,
        "fnmr_validation": chosen.false_negative, **false_match.columns("fmr"), **false_non_match.columns("fnmr"),
        **mean_of_two(false_match, false_non_match).columns("hter"),
        "n_identities": test.n_identities, "n_genuine_identities": false_non_match.n_identities,
        "n_genuine": len(test.genuine), "n_impostor": test.n_impostor,
        "validation_supported": chosen.supported, "supported": supported,
    }  # fmt: skip


def kept_promise(fixed: pd.DataFrame, trained: bool) -> str:
    """What the first threshold of `fixed_on_validation` promised and keeps; `trained`: on people who trained it too."""
    if fixed.empty:
        return "No threshold could be fixed: fewer than two people validate, or their photographs have no embedding"
    first = fixed.iloc[0]
    promised, kept = (f"{in_percent(first[name])} %" for name in ("fmr_validation", "fmr"))
    told = (
        f"{first['model']} accepts {promised} of non-mated pairs at the threshold fixed on validation, {kept} on test"
    )
    return told + ("; the people who validate also trained it" if trained else "")


def reasons(left_out: Mapping[str, str]) -> str:
    """What is left out, and why, as a sentence's end."""
    return "; ".join(f"{name.replace('_', ' ')}: {why}" for name, why in left_out.items()) or "nothing"


def group_figures(
    features: Features, split: Split, images: pd.DataFrame, threshold: float,
    attributes: Sequence[str] = ATTRIBUTES,
) -> tuple[pd.DataFrame, dict[str, str]]:  # fmt: skip
    """Retrieval and verification figures of each group of the test images, a pair being accepted from a threshold on.

    An image is in the group of its own attribute: a person photographed with and without nail polish is in both
    groups. Ages are in bands; an image whose attribute is not recorded is in the group "unknown". The images are those
    of `HandTable.images`, at least the test images; the attributes are columns of them, `own_groups` beside.

    Returns:
        A row a group, the first, of no attribute, being everybody: attribute, group, n_identities and n_query (a draw's
        mean), rank1 and map of the group's queries in the whole gallery, fmr and fnmr of the pairs whose two images are
        both of the group, n_genuine, n_impostor, each rate with `_low` and `_high`, `fmr_ratio` and `fnmr_ratio` to
        those of everybody, `small` (fewer than 5 identities) and `supported` (see `at_threshold`; rank-1 too). Shares
        in 0..1; NaN where nothing can be said, such as an interval of one identity. And what is left out, and why.

    Source: ISO/IEC 19795-10:2024 (differential performance between groups).
    """
    absent = set(split.paths("test")) - set(images["path"])
    if absent:
        raise EvaluationError(f"{min(absent)} is no row of the images table; give the table the split was made from")
    queries = evaluate_split(features, split).per_query
    pairs = compared_pairs(features, split)
    draws = split.meta["draws"]
    asked = [*attributes, *own_groups(images)]
    test = images.set_index("path").reindex(index=split.paths("test"), columns=asked)
    groups, names, left_out = {"": pd.Series(EVERYBODY, test.index)}, {"": [EVERYBODY]}, {}
    for attribute in asked:
        labels = as_groups(test[attribute])
        known, unknown = set(labels) - {UNKNOWN}, UNKNOWN in set(labels)
        if not known:
            left_out[attribute] = "the data set does not record it"
        elif len(known) < 2:
            left_out[attribute] = f"of every test image it is {min(known)!r}" + " or unknown" * unknown
        else:
            groups[attribute] = labels
            names[attribute] = in_order(attribute, set(labels))
    # distractors are of no group, and everybody is compared with them all the same
    of_image = {name: labels.reindex(pairs.paths, fill_value="" if name else EVERYBODY).to_numpy(str)
                for name, labels in groups.items()}  # fmt: skip
    tallies = Tallies(pairs, threshold, of_image)

    def figures(attribute: str, group: str) -> dict[str, Any]:
        rows = queries[queries["path"].map(groups[attribute]) == group]
        members = tallies.of(attribute, group)
        fmr, fnmr, supported = members.rates(threshold)
        rank1, precision = (identity_interval(rows[name], rows["identity"]) for name in ("hit", "average_precision"))
        n = rank1.n_identities
        return {
            "attribute": attribute, "group": group, "n_identities": n, "n_query": len(rows) / draws,
            **rank1.columns("rank1"), **precision.columns("map"), **fmr.columns("fmr"), **fnmr.columns("fnmr"),
            "n_genuine": len(members.owners), "n_impostor": members.n_impostor, "small": n < SMALL,
            "supported": supported and bool(rank1.supported),
        }  # fmt: skip

    table = [figures(attribute, group) for attribute, some in names.items() for group in some]
    frame = result_table(table, GROUPS_SHOWN)
    for rate in ("fmr", "fnmr"):
        overall = frame[rate].iloc[0]
        frame[f"{rate}_ratio"] = frame[rate] / overall if overall > 0 else np.nan
    return frame, left_out


def fixed_on_validation(
    model: Encoder, images: DecodedImages, features: Mapping[str, Features], split: Split, config: Evaluation
) -> pd.DataFrame:
    """`operating_points` of notebook 05, which embeds the held images.

    No row where fewer than two people validate, or another program has not embedded the held images.
    """
    paths = split.paths("train") + split.paths("val")
    lacking = isinstance(model, GivenEmbeddings) and not model.covers(paths)
    if len(split.identities("val")) < 2 or lacking:
        return result_table([], FIXED_SHOWN, columns=["model", "threshold"])
    images = images.select(paths)
    held = embed_with_baselines(model, images, config.batch_size)
    return operating_points(held, features, split, config.target_fmr)


def usable_threshold(fixed: pd.DataFrame, otherwise: float) -> tuple[float, str]:
    """The first model's threshold of `fixed_on_validation`, else, or if that rejects all, the EER's; what chose it."""
    found = float(fixed["threshold"].iloc[0]) if len(fixed) else np.inf
    why = "the one fixed on validation rejects everybody" if len(fixed) else "nobody validates"
    of_test = f"of the equal error rate, which the test pairs chose themselves ({why})"
    return (otherwise, of_test) if np.isinf(found) else (found, "fixed on validation")


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
    model: str = "model", seed: int = 0,
) -> OpenSetResult:  # fmt: skip
    """Identify the queries of every draw when a share of the test identities is not enrolled.

    The gallery images of the people held out leave the gallery; their queries are the non-mated probes. FPIR is the
    share of those whose best score is at least the threshold; FNIR the share of the mated probes whose own identity
    is not among the `rank` best, ties as in `retrieval_metrics`, with a score of at least the threshold.

    The interval is that of `share_interval`, with the variance of leaving out each mated and each non-mated person's
    probes in turn and finding the threshold anew; the gallery stays, so it says how the figures move with other probes,
    not with other people enrolled.

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
    estimate, (every_mated, every_other) = np.array([point.false_negative for point in points]), curve.once
    without = []
    for code, order, people in zip(codes, (curve.mated_order, curve.non_mated_order), n, strict=True):
        gone = split_by(left_out_together(people)[code[order], None], people)
        without.append([Remaining(len(order), places) for places in gone])
    variance = jackknife(lambda group: curve.negatives_at(targets, (without[0][group], every_other)), estimate, n[0])
    variance += jackknife(lambda group: curve.negatives_at(targets, (every_mated, without[1][group])), estimate, n[1])
    scores = mated["score"].to_numpy()
    missed = np.stack([np.bincount(codes[0][scores < point.threshold], minlength=n[0]) for point in points], 1)
    interval = share_interval(missed, np.bincount(codes[0]), estimate=estimate, variance=variance)
    return OpenSetResult(model, rank, curve, points, interval, held_out, n[0], n[1], n_gallery)


def open_set_models(features: Mapping[str, Features], split: Split, **options: Any) -> list[OpenSetResult]:
    """`open_set` of several models by name: the same people are held out for all."""
    return [open_set(embeddings, split, model=model, **options) for model, embeddings in features.items()]


def open_set_table(results: Sequence[OpenSetResult]) -> pd.DataFrame:
    """A row a model and target: model, rank, the counts, target, fnir with its interval, fpir, threshold, supported.

    `fnir_rank…` is FNIR at that rank without a threshold, 1 - CMC in the gallery that is left: what a search that
    shows its best candidate always misses, whatever its FPIR.
    """
    rows: list[dict[str, Any]] = []
    for result in results:
        facts = {
            "model": result.model, "rank": result.rank, "n_mated": len(result.curve.mated_order),
            "n_non_mated": len(result.curve.non_mated_order), "n_mated_identities": result.n_mated_identities,
            "n_non_mated_identities": result.n_non_mated_identities, "n_gallery": result.n_gallery,
            f"fnir_rank{result.rank}": float(result.curve.false_negative[0]),
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
    features: Features, split: Split, held_out: Sequence[str], most: int
) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """Identity and score of the mated and the non-mated probes of all draws, and the gallery's size.

    A mated probe's score is that of its own identity, minus infinity when not among the `most` best; others' the best.
    """
    sides: tuple[list[pd.DataFrame], list[pd.DataFrame]] = ([], [])
    for draw in split.draws():
        enrolled = ~np.isin(draw.gallery_ids, held_out)
        gallery_ids = draw.gallery_ids[enrolled]
        query, gallery = features.of(draw.query_paths), features.of(draw.gallery_paths[enrolled])
        metrics, _, scores = best_images(query, gallery, draw.query_ids, gallery_ids)
        rank, mated = metrics.first_match_rank, metrics.first_match_rank > 0
        score = np.where(mated, np.where(rank <= most, scores[0], -np.inf), scores[1])
        probes = pd.DataFrame({"identity": draw.query_ids, "score": score})
        sides[0].append(probes[mated])
        sides[1].append(probes[~mated])
    return pd.concat(sides[0]), pd.concat(sides[1]), len(gallery_ids)
