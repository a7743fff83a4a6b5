"""One person or two? Pairs of images, each once, and FMR and FNMR over every threshold of their scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from handclip_lib.data.manifest import Split
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.error_curve import ErrorCurve, OperatingPoint, Remaining, split_by
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.intervals import Interval, jackknife, left_out_together, share_interval
from handclip_lib.evaluation.tables import result_table
from handclip_lib.evaluation.verification.pairs import Pairs
from handclip_lib.evaluation.verification.streamed import StreamedPairs
from handclip_lib.evaluation.verification.sweep import Sweep, sweep

TARGETS = (1e-1, 1e-2, 1e-3)
EQUAL_ERRORS = (
    "model", "eer", "eer_threshold", "auc", "d_prime", "n_identities", "n_genuine_identities", "n_genuine",
    "n_impostor",
)  # fmt: skip
AT_TARGETS = ("model", "target", "fnmr", "threshold", "n_identities", "supported")
AnyPairs = Pairs | StreamedPairs
LISTED = 2**22  # pairs, up to which they are listed


def compared_pairs(features: Features, split: Split) -> AnyPairs:
    """The pairs of a query and a gallery image that any draw compares, each once and not once a draw.

    The gallery is that of the split's own aspect (with distractors where there are any): other aspects' images would
    be impostors that are told apart by the aspect, and some of them are of the query's own person.
    """
    rows = split.images[split.images["role"].isin(["test", "distractor"])]
    place = pd.Series(np.arange(len(rows)), index=rows["path"])
    held, asked = np.zeros((2, len(rows), split.meta["draws"]), bool)
    for number, draw in enumerate(split.draws()):
        held[place[draw.gallery_paths], number] = True
        asked[place[draw.query_paths], number] = True
    return _listed_if_few(StreamedPairs.of(features, rows, held, asked))


def validation_pairs(features: Features, split: Split) -> AnyPairs:
    """Pairs of people that no test figure knows: each val image with each train image.

    A model trained on these people tells them apart better than strangers, so that a threshold chosen here lets
    through more strangers than it promises: report what it does on the test identities.
    """
    rows = split.images[split.images["role"].isin(["train", "val"])]
    is_val = (rows["role"] == "val").to_numpy()
    n = rows.loc[is_val, "identity"].nunique()
    if n < 2:
        found = f"{n} validation identities in this split (protocol {split.meta['protocol']!r})"
        remedy = "a protocol in which identities train (proportional, standard), or photographs with two images each"
        raise EvaluationError(f"{found}; a threshold needs two: choose {remedy}")
    return _listed_if_few(StreamedPairs.of(features, rows, ~is_val[:, None], is_val[:, None]))


def _listed_if_few(pairs: StreamedPairs) -> AnyPairs:
    """The pairs in a list, where that is small: what is computed of either is the same."""
    return pairs.listed() if pairs.n_impostor + len(pairs.genuine) <= LISTED else pairs


def verification(genuine: np.ndarray, impostor: np.ndarray, n_identity_pairs: int) -> ErrorCurve:
    """FMR, its false positives, and FNMR, its false negatives, over every threshold (ISO/IEC 19795-1:2021).

    Scores are of pairs of one person, and of two, float (n,), finite, larger being more alike; the impostor pairs are
    of `n_identity_pairs` distinct pairs of people.
    """
    return ErrorCurve.of(_checked("genuine", genuine), _checked("impostor", impostor), n_identity_pairs)


def curve_of(pairs: AnyPairs, targets: Sequence[float]) -> ErrorCurve:
    """The curve of `verification`, exact at its EER and at each target FMR where the pairs are too many to list."""
    if isinstance(pairs, StreamedPairs):
        _checked("genuine", pairs.genuine)
        return sweep(pairs, targets).curve
    return verification(pairs.genuine, pairs.impostor, pairs.n_identity_pairs)


def d_prime(genuine: np.ndarray, impostor: np.ndarray) -> float:
    """Difference of the means over the root mean of the variances, NaN where neither varies (Daugman 2000)."""
    exponent = np.frexp(max(np.abs(part).max() for part in (genuine, impostor)))[1]
    # exact, for it is a power of two; squares of 1e300 are infinite
    genuine, impostor = (np.ldexp(part.astype(np.float64), -exponent) for part in (genuine, impostor))
    spread = np.sqrt((genuine.var() + impostor.var()) / 2)
    return float((genuine.mean() - impostor.mean()) / spread) if spread > 0 else float("nan")


def area_under_roc(curve: ErrorCurve) -> float:
    """Chance that a mated pair scores higher than a non-mated one, a tie counting half, 0..1 (Hanley & McNeil 1982)."""
    return float(-np.trapezoid(1 - curve.false_negative, curve.false_positive))


def auc_interval(pairs: Pairs, curve: ErrorCurve) -> Interval:
    """AUC with its interval over people: the mean over mated pairs of the share of non-mated ones that each outscores.

    The variance is that of leaving out each person with all their pairs in turn, which takes no pass over all pairs:
    of the wins of all, those of their mated pairs go, and those over their non-mated pairs, but not twice those of the
    one over the other.

    Source: `share_interval`; Arvesen, "Jackknifing U-statistics", Annals of Mathematical Statistics 1969.
    """
    n, steps, n_mated = pairs.n_identities, len(curve.thresholds), len(curve.mated_order)
    mated, other = (
        np.repeat(np.arange(steps - 1), np.diff(below)) for below in (curve.mated_below, curve.non_mated_below)
    )
    owner, people = pairs.genuine_identities[curve.mated_order], pairs.impostor_identities[curve.non_mated_order]
    wins = (curve.non_mated_below[mated] + curve.non_mated_below[mated + 1]) / 2
    lost = n_mated - (curve.mated_below[other] + curve.mated_below[other + 1]) / 2
    theirs, own = np.sort((people * steps + other[:, None]).ravel()), owner * steps + mated
    over_own = (np.searchsorted(theirs, own) + np.searchsorted(theirs, own, "right")) / 2
    over_own -= np.searchsorted(theirs, owner * steps)
    won, of_mated = (np.bincount(owner, rows, n) for rows in (wins, np.ones(n_mated)))
    gone = won + np.bincount(people.ravel(), np.repeat(lost, 2), n) - np.bincount(owner, over_own, n)
    left = (n_mated - of_mated) * (len(other) - np.bincount(people.ravel(), minlength=n))
    estimate = np.array([area_under_roc(curve)])
    with np.errstate(invalid="ignore", divide="ignore"):  # the one person in every pair left out: nothing is left
        without = (wins.sum() - gone) / left
    variance = np.nansum((without - estimate) ** 2, keepdims=True) * (n - 1) / n
    return share_interval((won / len(other))[:, None], of_mated, estimate=estimate, variance=variance)[0]


@dataclass(frozen=True)
class VerificationResult:
    """Verification of one model over all draws of a split; `points` and `fnmr_at_targets` hold one a target FMR."""

    model: str
    pairs: AnyPairs
    curve: ErrorCurve
    eer: Interval
    auc: Interval
    d_prime: float
    points: list[OperatingPoint]
    fnmr_at_targets: Interval

    def summary(self) -> dict[str, Any]:
        """One row of a results table; shares in 0..1."""
        pairs, curve = self.pairs, self.curve
        return {
            "model": self.model, **self.eer.columns("eer"),
            "supported": curve.eer >= curve.lowest_supported and bool(self.eer.supported),
            "eer_threshold": curve.eer_threshold, **self.auc.columns("auc"),
            "d_prime": self.d_prime,
            "n_genuine": len(pairs.genuine), "n_impostor": pairs.n_impostor, "n_identities": pairs.n_identities,
            "n_genuine_identities": self.eer.n_identities, "n_identity_pairs": pairs.n_identity_pairs,
            "lowest_supported_fmr": curve.lowest_supported,
        }  # fmt: skip


def verification_of(
    features: Features, split: Split, *, targets: Sequence[float] = TARGETS, model: str = "model"
) -> VerificationResult:
    """Verify the query and gallery images of all draws of a split, each pair once (see `compared_pairs`)."""
    return verification_of_pairs(compared_pairs(features, split), targets=targets, model=model)


def verification_of_pairs(
    pairs: AnyPairs, *, targets: Sequence[float] = TARGETS, model: str = "model"
) -> VerificationResult:
    """Verify pairs of images, with some mated and some not.

    The intervals are those of `share_interval`, of the people with a mated pair and their rejections, with the variance
    of leaving out each person, and all their pairs, in turn: the threshold is found anew each time. Of pairs that are
    too many to list all figures are the same but AUC and d′, which are those of `sweep`.

    Source: Fogliato, Patil & Perona, "Confidence intervals for error rates in 1:1 matching tasks", IJCV 2024.
    """
    _checked("genuine", pairs.genuine)
    found = sweep(pairs, targets) if isinstance(pairs, StreamedPairs) else _of_list(pairs)
    curve = found.curve
    points = [curve.operating_point(target) for target in targets]
    estimate = np.array([curve.eer, *(point.false_negative for point in points)])
    thresholds = [curve.eer_threshold, *(point.threshold for point in points)]
    owner, n = pairs.genuine_identities, pairs.n_identities
    rejected = np.stack([np.bincount(owner[pairs.genuine < t], minlength=n) for t in thresholds], 1)

    def errors(group: int) -> list[float]:
        weights = found.weights[group]
        if not (weights[0].total and weights[1].total):
            return [np.nan] * len(estimate)
        return [curve.equal(weights)[0], *curve.negatives_at(targets, weights)]

    variance = jackknife(errors, estimate, n)
    figures = share_interval(rejected, np.bincount(owner, minlength=n), estimate=estimate, variance=variance)
    return VerificationResult(model, pairs, curve, figures[0], found.auc, found.d_prime, points, figures[1:])


def _of_list(pairs: Pairs) -> Sweep:
    curve, group = (
        verification(pairs.genuine, pairs.impostor, pairs.n_identity_pairs),
        left_out_together(pairs.n_identities),
    )
    mated = split_by(group[pairs.genuine_identities[curve.mated_order, None]], len(group))
    others = split_by(group[pairs.impostor_identities[curve.non_mated_order]], len(group))
    n = len(pairs.genuine), len(pairs.impostor)
    weights = [(Remaining(n[0], one), Remaining(n[1], other)) for one, other in zip(mated, others, strict=True)]
    return Sweep(curve, weights, auc_interval(pairs, curve), d_prime(pairs.genuine, pairs.impostor))


def verify_models(features: Mapping[str, Features], split: Split, **options: Any) -> list[VerificationResult]:
    """`verification_of` several models by name, the model of interest first; the same options for all."""
    return [verification_of(embeddings, split, model=model, **options) for model, embeddings in features.items()]


def target_table(results: Sequence[VerificationResult]) -> pd.DataFrame:
    """A row a model and target FMR: model, target, fnmr with its interval, fmr, threshold, supported, tar = 1 - FNMR.

    TAR is of the genuine pairs, whose people `n_identities` are; the FAR, here FMR, is of the impostor pairs.
    """
    rows = [
        {"model": result.model, **point.columns("fmr", "fnmr", result.fnmr_at_targets[i])}
        for result in results
        for i, point in enumerate(result.points)
    ]
    return result_table([row | {"tar": 1 - row["fnmr"]} for row in rows], AT_TARGETS)


def _checked(name: str, scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores)
    if scores.ndim != 1 or not len(scores) or scores.dtype.kind not in "fiu":
        raise EvaluationError(f"{name} scores are {scores.dtype} {scores.shape}; real numbers (n,), not none, wanted")
    finite = np.isfinite(scores)
    if not finite.all():
        place = int(np.argmin(finite))
        raise EvaluationError(f"{name}[{place}] is {scores[place]}; look for NaN in the embeddings of that pair")
    return scores.astype(np.float64)
