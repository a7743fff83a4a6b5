"""One person or two? FMR and FNMR over every threshold, with what the number of people can carry."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from handclip_lib.data.manifest import Split
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.bootstrap import Interval, resampled
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.tables import result_table
from handclip_lib.evaluation.verification.error_curve import RULE_OF_THREE, ErrorCurve, OperatingPoint, PrefixSums
from handclip_lib.evaluation.verification.score_pairs import Pairs, compared_pairs

TARGETS = (1e-1, 1e-2, 1e-3)
EQUAL_ERRORS = ("model", "eer", "eer_threshold", "d_prime", "n_genuine", "n_impostor")
AT_TARGETS = ("model", "target", "fnmr", "threshold", "supported")


@dataclass(frozen=True)
class Verification:
    """FMR and FNMR of scores, larger being more alike; a score at or above a threshold is accepted.

    Attributes:
        curve: Both errors over every threshold: genuine pairs are its mated scores, impostor pairs its non-mated.
        d_prime: Difference of the mean scores over the root mean of their variances; NaN where neither varies.
        n_identities, n_identity_pairs: People compared, and distinct pairs of two people.

    Source: ISO/IEC 19795-1:2021 for the terms; Daugman, "Biometric decision landscapes", 2000, for d'.
    """

    curve: ErrorCurve
    d_prime: float
    n_identities: int
    n_identity_pairs: int

    @property
    def thresholds(self) -> np.ndarray:
        """float64 (m,), rising: each distinct score, then infinity."""
        return self.curve.thresholds

    @property
    def fmr(self) -> np.ndarray:
        """Share of impostor pairs accepted at each threshold, float64 (m,), 1..0."""
        return self.curve.false_positive

    @property
    def fnmr(self) -> np.ndarray:
        """Share of genuine pairs rejected at each threshold, float64 (m,), 0..1."""
        return self.curve.false_negative

    @property
    def n_genuine(self) -> int:
        """Pairs of one person."""
        return len(self.curve.mated_order)

    @property
    def n_impostor(self) -> int:
        """Pairs of two people."""
        return len(self.curve.non_mated_order)

    @property
    def lowest_supported_fmr(self) -> float:
        """The FMR below which these people prove nothing: 3 / pairs of two people (rule of three).

        A generous bound, for pairs that share a person are not independent: a claim it refuses nobody can make.
        """
        return RULE_OF_THREE / self.n_identity_pairs

    @cached_property
    def _equal(self) -> tuple[float, int]:
        return self.curve.equal(self.curve.once)

    @property
    def eer(self) -> float:
        """Equal error rate, by linear interpolation in the ROC plane between the two thresholds around equality."""
        return self._equal[0]

    @property
    def eer_threshold(self) -> float:
        """The lowest threshold at which FNMR is at least FMR."""
        return float(self.thresholds[self._equal[1]])

    def fnmr_at_fmr(self, target: float) -> OperatingPoint:
        """The lowest threshold whose FMR is at most a target: no interpolation, so never better than measured."""
        return self.curve.operating_point(target, self.lowest_supported_fmr, "FMR")


def verification(
    genuine: np.ndarray, impostor: np.ndarray, n_identities: int, n_identity_pairs: int | None = None
) -> Verification:
    """FMR and FNMR over every threshold.

    Args:
        genuine, impostor: Scores of pairs of one person, and of two, float (n,), finite; larger is more alike.
        n_identities: How many people the pairs are of, two or more: pairs are many, people are few.
        n_identity_pairs: Distinct pairs of two people among the impostor pairs; n(n - 1)/2 by default.
    """
    scores = [_checked(name, values) for name, values in (("genuine", genuine), ("impostor", impostor))]
    most = n_identities * (n_identities - 1) // 2
    pairs = most if n_identity_pairs is None else n_identity_pairs
    if n_identities < 2 or not 1 <= pairs <= most:
        raise EvaluationError(
            f"n_identities={n_identities} with {pairs} pairs of them: impostor pairs are of two people or more, "
            "and n people have at most n(n - 1)/2 pairs"
        )
    spread = np.sqrt((scores[0].var() + scores[1].var()) / 2)
    apart = scores[0].mean() - scores[1].mean()
    d_prime = float(apart / spread) if spread > 0 else float("nan")
    return Verification(ErrorCurve.of(*scores), d_prime, n_identities, pairs)


def verification_of_pairs(pairs: Pairs) -> Verification:
    """FMR and FNMR over every threshold of the pairs of images."""
    return verification(pairs.genuine, pairs.impostor, pairs.n_identities, pairs.n_identity_pairs)


@dataclass(frozen=True)
class VerificationResult:
    """Verification of one model over all draws of a split; `points` and `fnmr_at_targets` hold one a target FMR."""

    model: str
    pairs: Pairs
    verification: Verification
    eer: Interval
    points: list[OperatingPoint]
    fnmr_at_targets: Interval

    def summary(self) -> dict[str, Any]:
        """One row of a results table; shares in 0..1."""
        rates = self.verification
        return {
            "model": self.model, **self.eer.columns("eer"),
            "eer_supported": rates.eer >= rates.lowest_supported_fmr, "eer_threshold": rates.eer_threshold,
            "d_prime": rates.d_prime, "n_genuine": rates.n_genuine, "n_impostor": rates.n_impostor,
            "n_identities": rates.n_identities, "n_identity_pairs": rates.n_identity_pairs,
            "lowest_supported_fmr": rates.lowest_supported_fmr,
        }  # fmt: skip


def verification_of(
    features: Features, split: Split, *, targets: Sequence[float] = TARGETS, model: str = "model",
    bootstrap: int = 1000, seed: int = 0,
) -> VerificationResult:  # fmt: skip
    """Verify the query and gallery images of all draws of a split, each pair once (see `compared_pairs`).

    The intervals resample identities: in a resample a genuine pair counts as often as its identity was drawn, an
    impostor pair as often as both of its were (the product), and the threshold is found anew. A resample that holds
    only one person has no impostor pair and is left out.

    Source: the vertex bootstrap of Snijders & Borgatti, "Non-parametric standard errors and tests for network
        statistics", Connections 1999; for biometrics see Fogliato, Patil & Perona, "Confidence intervals for error
        rates in 1:1 matching tasks", IJCV 2024.
    """
    pairs = compared_pairs(features, split)
    rates = verification_of_pairs(pairs)
    points = [rates.fnmr_at_fmr(target) for target in targets]
    estimate = np.array([rates.eer, *(point.false_negative for point in points)])
    figures = Interval.of(estimate, _resampled_errors(pairs, rates.curve, targets, bootstrap, seed), rates.n_identities)
    return VerificationResult(model, pairs, rates, figures[0], points, figures[1:])


def verify_models(features: Mapping[str, Features], split: Split, **options: Any) -> list[VerificationResult]:
    """`verification_of` several models by name, the model of interest first; the same options for all."""
    return [verification_of(embeddings, split, model=model, **options) for model, embeddings in features.items()]


def verification_table(results: Sequence[VerificationResult]) -> pd.DataFrame:
    """A row a model: EER with its interval, d' and the counts."""
    return result_table([result.summary() for result in results], EQUAL_ERRORS)


def target_table(results: Sequence[VerificationResult]) -> pd.DataFrame:
    """A row a model and target FMR: model, target, fnmr with its interval, fmr, threshold, supported, tar = 1 - FNMR.

    TAR is of the genuine pairs, while the FAR, here FMR, is of the impostor pairs.
    """
    rows = []
    for result in results:
        for i, point in enumerate(result.points):
            rows.append({"model": result.model, **point.columns("fmr", "fnmr", result.fnmr_at_targets[i])})
    table = pd.DataFrame(rows)
    return result_table(table.assign(tar=1 - table["fnmr"]), AT_TARGETS)


def _resampled_errors(pairs: Pairs, curve: ErrorCurve, targets: Sequence[float], samples: int, seed: int) -> np.ndarray:
    """EER and FNMR at each target in each resample, float64 (samples, 1 + targets)."""
    genuine, impostor = pairs.genuine_identities, pairs.impostor_identities
    mated = genuine[curve.mated_order]
    non_mated = (impostor[:, 0] * pairs.n_identities + impostor[:, 1])[curve.non_mated_order]
    figures = np.full((samples, 1 + len(targets)), np.nan)
    drawn = chain.from_iterable(resampled(pairs.n_identities, samples, seed))
    for row, often in zip(figures, drawn, strict=True):
        weights = PrefixSums(often.take(mated)), PrefixSums(np.multiply.outer(often, often).ravel().take(non_mated))
        if weights[0].total and weights[1].total:
            row[:] = [curve.equal(weights)[0], *curve.negatives_at(targets, weights)]
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
