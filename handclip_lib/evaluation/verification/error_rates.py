"""One person or two? Pairs of images, each once, and FMR and FNMR over every threshold of their scores."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from handclip_lib.data.manifest import Split
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.error_curve import ErrorCurve, OperatingPoint, PrefixSums
from handclip_lib.evaluation.features import Features, check_memory
from handclip_lib.evaluation.intervals import Interval, jackknife, share_interval
from handclip_lib.evaluation.ranking.retrieval import cosines
from handclip_lib.evaluation.tables import result_table

TARGETS = (1e-1, 1e-2, 1e-3)
EQUAL_ERRORS = (
    "model", "eer", "eer_threshold", "auc", "d_prime", "n_identities", "n_genuine_identities", "n_genuine",
    "n_impostor",
)  # fmt: skip
AT_TARGETS = ("model", "target", "fnmr", "threshold", "n_identities", "supported")
BLOCK = 1024  # rows of the similarity matrix at once
PAIR_BYTES = 100  # of a pair, with its score sorted, as a verification has it


@dataclass(frozen=True)
class Pairs:
    """Cosines of pairs of images, each unordered pair once.

    Attributes:
        genuine, impostor: float32 (n_genuine,) and (n_impostor,), -1..1: of two images of one person, and of two.
        genuine_images, impostor_images: int32 (n, 2), places in `paths`.
    """

    paths: np.ndarray
    identities: np.ndarray
    genuine: np.ndarray
    genuine_images: np.ndarray
    impostor: np.ndarray
    impostor_images: np.ndarray

    @cached_property
    def _codes(self) -> np.ndarray:
        """Number of the identity of each image, in order of the text; -1 for an image that no pair compares."""
        used = np.zeros(len(self.paths), bool)
        used[self.genuine_images] = used[self.impostor_images] = True
        codes = np.full(len(used), -1)
        codes[used] = np.unique(self.identities[used], return_inverse=True)[1].ravel()
        return codes

    @property
    def genuine_identities(self) -> np.ndarray:
        """Number of the identity of each genuine pair, int64 (n_genuine,), 0 … n_identities - 1."""
        return self._codes[self.genuine_images[:, 0]]

    @property
    def impostor_identities(self) -> np.ndarray:
        """Numbers of the two identities of each impostor pair, int64 (n_impostor, 2)."""
        return self._codes[self.impostor_images]

    @property
    def n_identities(self) -> int:
        """Identities that some pair compares."""
        return int(self._codes.max(initial=-1)) + 1

    @cached_property
    def n_identity_pairs(self) -> int:
        """Distinct pairs of two people that some impostor pair compares; n(n - 1)/2 where all n are compared."""
        first, second = self.impostor_identities.T
        compared = np.zeros((self.n_identities, self.n_identities), bool)
        compared[np.minimum(first, second), np.maximum(first, second)] = True
        return int(compared.sum())

    def among(self, images: np.ndarray) -> "Pairs":
        """The pairs of which both images are chosen; bool (n_images,)."""
        a, b = (images[rows].all(1) for rows in (self.genuine_images, self.impostor_images))
        kept = self.genuine[a], self.genuine_images[a], self.impostor[b], self.impostor_images[b]
        return Pairs(self.paths, self.identities, *kept)


def compared_pairs(features: Features, split: Split) -> Pairs:
    """The pairs of a query and a gallery image that any draw compares, each once and not once a draw.

    The gallery is that of the split's own aspect (with distractors where there are any): other aspects' images would
    be impostors that are told apart by the aspect, and some of them are of the query's own person.
    """
    rows = split.images[split.images["role"].isin(["test", "distractor"])]
    first = split.draw(0)
    _check_memory(len(rows), split.meta["draws"] * len(first.query_paths) * len(first.gallery_paths))
    place = pd.Series(np.arange(len(rows)), index=rows["path"])
    compared = np.zeros((len(rows), len(rows)), bool)
    for draw in split.draws():
        compared[np.ix_(place[draw.query_paths].to_numpy(), place[draw.gallery_paths].to_numpy())] = True
    return _pairs(features, rows, np.triu(compared | compared.T, 1))


def validation_pairs(features: Features, split: Split) -> Pairs:
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
    _check_memory(len(rows), int(is_val.sum()) * int((~is_val).sum()))
    return _pairs(features, rows, is_val[:, None] & ~is_val[None, :])


def _check_memory(n: int, most: int) -> None:
    needed = 4 * n * n + PAIR_BYTES * min(n * (n - 1) // 2, most)
    check_memory(f"the pairs of {n:,} images", needed, "verify fewer people, or with fewer draws")


def _pairs(features: Features, rows: pd.DataFrame, compared: np.ndarray) -> Pairs:
    """Score the pairs of images where `compared`, bool (n, n), is true."""
    identities = rows["identity"].to_numpy(str)
    embeddings = features.of(rows["path"])
    scores, images = [], []
    for start in range(0, len(rows), BLOCK):
        first, second = np.nonzero(compared[start : start + BLOCK])
        scores.append(cosines(embeddings[start : start + BLOCK], embeddings)[first, second])
        images.append(np.stack([first + start, second], 1).astype(np.int32))
    score, image = np.concatenate(scores), np.concatenate(images)
    same = identities[image[:, 0]] == identities[image[:, 1]]
    return Pairs(rows["path"].to_numpy(object), identities, score[same], image[same], score[~same], image[~same])


def verification(genuine: np.ndarray, impostor: np.ndarray, n_identity_pairs: int) -> ErrorCurve:
    """FMR, its false positives, and FNMR, its false negatives, over every threshold (ISO/IEC 19795-1:2021).

    Scores are of pairs of one person, and of two, float (n,), finite, larger being more alike; the impostor pairs are
    of `n_identity_pairs` distinct pairs of people.
    """
    return ErrorCurve.of(_checked("genuine", genuine), _checked("impostor", impostor), n_identity_pairs)


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
    pairs: Pairs
    curve: ErrorCurve
    eer: Interval
    auc: Interval
    points: list[OperatingPoint]
    fnmr_at_targets: Interval

    def summary(self) -> dict[str, Any]:
        """One row of a results table; shares in 0..1."""
        pairs, curve = self.pairs, self.curve
        return {
            "model": self.model, **self.eer.columns("eer"),
            "supported": curve.eer >= curve.lowest_supported and bool(self.eer.supported),
            "eer_threshold": curve.eer_threshold, **self.auc.columns("auc"),
            "d_prime": d_prime(pairs.genuine, pairs.impostor),
            "n_genuine": len(pairs.genuine), "n_impostor": len(pairs.impostor), "n_identities": pairs.n_identities,
            "n_genuine_identities": self.eer.n_identities, "n_identity_pairs": pairs.n_identity_pairs,
            "lowest_supported_fmr": curve.lowest_supported,
        }  # fmt: skip


def verification_of(
    features: Features, split: Split, *, targets: Sequence[float] = TARGETS, model: str = "model"
) -> VerificationResult:
    """Verify the query and gallery images of all draws of a split, each pair once (see `compared_pairs`)."""
    return verification_of_pairs(compared_pairs(features, split), targets=targets, model=model)


def verification_of_pairs(
    pairs: Pairs, *, targets: Sequence[float] = TARGETS, model: str = "model"
) -> VerificationResult:
    """Verify pairs of images, with some mated and some not.

    The intervals are those of `share_interval`, of the people with a mated pair and their rejections, with the variance
    of leaving out each person, and all their pairs, in turn: the threshold is found anew each time.

    Source: Fogliato, Patil & Perona, "Confidence intervals for error rates in 1:1 matching tasks", IJCV 2024.
    """
    curve = verification(pairs.genuine, pairs.impostor, pairs.n_identity_pairs)
    points = [curve.operating_point(target) for target in targets]
    estimate = np.array([curve.eer, *(point.false_negative for point in points)])
    thresholds = [curve.eer_threshold, *(point.threshold for point in points)]
    owner, n = pairs.genuine_identities, pairs.n_identities
    rejected = np.stack([np.bincount(owner[pairs.genuine < t], minlength=n) for t in thresholds], 1)
    variance = jackknife(_errors(pairs, curve, targets), estimate, n)
    figures = share_interval(rejected, np.bincount(owner, minlength=n), estimate=estimate, variance=variance)
    return VerificationResult(model, pairs, curve, figures[0], auc_interval(pairs, curve), points, figures[1:])


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


def _errors(pairs: Pairs, curve: ErrorCurve, targets: Sequence[float]) -> Callable[[np.ndarray], list[float]]:
    """EER and FNMR at each target by how often each person counts: a pair of two people as the product of theirs."""
    mated = pairs.genuine_identities[curve.mated_order]
    first, second = pairs.impostor_identities[curve.non_mated_order].T

    def figures(often: np.ndarray) -> list[float]:
        weights = PrefixSums(often[mated]), PrefixSums(often[first] * often[second])
        if not (weights[0].total and weights[1].total):
            return [np.nan] * (1 + len(targets))
        return [curve.equal(weights)[0], *curve.negatives_at(targets, weights)]

    return figures


def _checked(name: str, scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores)
    if scores.ndim != 1 or not len(scores) or scores.dtype.kind not in "fiu":
        raise EvaluationError(f"{name} scores are {scores.dtype} {scores.shape}; real numbers (n,), not none, wanted")
    finite = np.isfinite(scores)
    if not finite.all():
        place = int(np.argmin(finite))
        raise EvaluationError(f"{name}[{place}] is {scores[place]}; look for NaN in the embeddings of that pair")
    return scores.astype(np.float64)
