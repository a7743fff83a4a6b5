"""Open-set identification: some people are not in the gallery, and the system ought to say so."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from handclip_lib.data.manifest import Split
from handclip_lib.data.table import identity_order
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.bootstrap import Interval
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.ranking.retrieval import retrieval_metrics
from handclip_lib.evaluation.tables import result_table
from handclip_lib.evaluation.verification.error_curve import ErrorCurve, Mass, percentile_interval, resampled
from handclip_lib.evaluation.verification.error_rates import RULE_OF_THREE

TARGETS = (0.1, 0.01)
SHOWN = ("model", "target", "fnir", "fpir", "n_mated_identities", "n_non_mated_identities")


@dataclass(frozen=True)
class OpenSetPoint:
    """One threshold and its errors, all shares in 0..1.

    Attributes:
        target: The FPIR that was asked for.
        threshold: A candidate at or above it is reported; infinity where only silence keeps to the target.
        fpir: Share of non-mated probes with a candidate, at most the target.
        fnir: Share of mated probes whose own identity is not reported among the R best.
        supported: Whether enough people were held out to claim an FPIR as low as the target.
    """

    target: float
    threshold: float
    fpir: float
    fnir: float
    supported: bool


@dataclass(frozen=True)
class OpenSetResult:
    """FPIR and FNIR over every threshold, all draws together; shares in 0..1.

    Attributes:
        model: Name of the model.
        rank: R: a mated probe is found when its own identity is among the R best, and at or above the threshold.
        curve: The errors: its false positives are FPIR, its false negatives FNIR.
        points: FNIR at each target FPIR.
        fnir_at_targets: The same FNIR with their intervals over identities, arrays of one a target.
        held_out: The identities whose gallery images were taken away.
        n_mated_identities, n_non_mated_identities: People whose probes have a mate in the gallery, or none.
        n_gallery: Images in the gallery of a draw.
    """

    model: str
    rank: int
    curve: ErrorCurve
    points: list[OpenSetPoint]
    fnir_at_targets: Interval
    held_out: tuple[str, ...]
    n_mated_identities: int
    n_non_mated_identities: int
    n_gallery: int

    @property
    def thresholds(self) -> np.ndarray:
        """float64 (m,), rising: each distinct best score, then infinity."""
        return self.curve.thresholds

    @property
    def fpir(self) -> np.ndarray:
        """False-positive identification rate at each threshold, float64 (m,), 1..0."""
        return self.curve.false_positive

    @property
    def fnir(self) -> np.ndarray:
        """False-negative identification rate at each threshold, float64 (m,); begins at 1 - CMC at R."""
        return self.curve.false_negative

    @property
    def lowest_supported_fpir(self) -> float:
        """The FPIR below which these people prove nothing: 3 / people held out (rule of three)."""
        return RULE_OF_THREE / self.n_non_mated_identities

    def at_targets(self) -> pd.DataFrame:
        """A row a target: model, rank, target, fnir with its interval, fpir, threshold, supported and the counts."""
        rows = [
            {"model": self.model, "rank": self.rank, "target": point.target, "fnir": point.fnir, "fnir_low": low,
             "fnir_high": high, "fpir": point.fpir, "threshold": point.threshold, "supported": point.supported,
             "n_mated": len(self.curve.mated_order), "n_non_mated": len(self.curve.non_mated_order),
             "n_mated_identities": self.n_mated_identities, "n_non_mated_identities": self.n_non_mated_identities,
             "n_gallery": self.n_gallery}
            for point, low, high in zip(
                self.points, self.fnir_at_targets.low, self.fnir_at_targets.high, strict=True
            )
        ]  # fmt: skip
        return pd.DataFrame(rows)


def open_set(
    features: Features,
    split: Split,
    *,
    share: float = 0.5,
    rank: int = 1,
    targets: Sequence[float] = TARGETS,
    model: str = "model",
    bootstrap: int = 1000,
    seed: int = 0,
) -> OpenSetResult:
    """Identify the queries of every draw when a share of the test identities is not enrolled.

    The gallery images of the people held out leave the gallery; their queries are the non-mated probes. FPIR is the
    share of those whose best score is at least the threshold; FNIR the share of the mated probes whose own identity
    is not among the `rank` best with a score of at least the threshold. Ranks and ties are those of
    `retrieval_metrics`.

    The interval resamples mated and non-mated identities apart and finds the threshold anew; the gallery stays, so it
    says how the figures move with other probes, not with other people enrolled.

    Args:
        features: Embeddings of at least `split.evaluated_paths()`.
        split: The manifest.
        share: Share of the identities with a query to hold out, 0..1; the same ones in every draw.
        rank: R, 1 or more.
        targets: FPIR at which FNIR is wanted, each in 0..1.
        model: Name for tables and figures.
        bootstrap: Resamples of the identities.
        seed: Seed of the choice and of the resampling.

    Raises:
        EvaluationError: Fewer than two identities would be held out or stay, or an argument is out of range.

    Source: ISO/IEC 19795-1:2021 (identification error rates); Grother, Ngan & Hanaoka, NIST FRVT part 2.
    """
    if rank < 1:
        raise EvaluationError(f"rank={rank} does not exist; ranks begin at 1")
    wrong = [target for target in targets if not 0 <= target <= 1]
    if wrong:
        raise EvaluationError(f"an FPIR of {wrong[0]} was asked for; a share in 0..1 is wanted")
    held_out = _held_out(split, share, seed)
    mated, non_mated, n_gallery = _probes(features, split, held_out, rank)
    curve = ErrorCurve.of(mated["score"].to_numpy(), non_mated["score"].to_numpy())
    codes = [np.unique(probes["identity"], return_inverse=True)[1].ravel() for probes in (mated, non_mated)]
    n = [int(code.max()) + 1 for code in codes]
    everyone = curve.masses()
    points = []
    for target in targets:
        place = curve.at_most(target, *everyone)
        fpir, fnir = curve.rates(place, *everyone)
        supported = target >= RULE_OF_THREE / n[1]
        points.append(OpenSetPoint(target, float(curve.thresholds[place]), fpir, fnir, supported))
    weights = zip(resampled(n[0], bootstrap, seed), resampled(n[1], bootstrap, seed + 1), strict=True)
    resamples = []
    for with_mate, without in weights:
        masses = Mass(with_mate[codes[0][curve.mated_order]]), Mass(without[codes[1][curve.non_mated_order]])
        resamples.append([curve.rates(curve.at_most(target, *masses), *masses)[1] for target in targets])
    estimate = np.array([point.fnir for point in points])
    interval = percentile_interval(estimate, np.array(resamples), sum(n))
    return OpenSetResult(model, rank, curve, points, interval, held_out, n[0], n[1], n_gallery)


def open_set_models(features: Mapping[str, Features], split: Split, **options: Any) -> list[OpenSetResult]:
    """`open_set` of several models by name: the same people are held out for all."""
    return [open_set(embeddings, split, model=model, **options) for model, embeddings in features.items()]


def open_set_table(results: Sequence[OpenSetResult]) -> pd.DataFrame:
    """A row a model and target FPIR; rows that are not `supported` are for greying out, not for claims."""
    return result_table(pd.concat([result.at_targets() for result in results], ignore_index=True), SHOWN)


def n_held_out(split: Split, share: float) -> int:
    """How many test identities a share is; 0 where fewer than two would be held out or stay."""
    queryable = _queryable(split)
    n = round(share * len(queryable)) if 0 < share < 1 else 0
    return n if 2 <= n <= len(queryable) - 2 else 0


def _queryable(split: Split) -> list[str]:
    """Test identities with two images or more: others are never a probe."""
    return sorted(split.identities("test") - set(split.meta["unqueryable"]), key=identity_order)


def _held_out(split: Split, share: float, seed: int) -> tuple[str, ...]:
    """A seeded choice among the test identities that may be a probe."""
    queryable, n = _queryable(split), n_held_out(split, share)
    if not n:
        raise EvaluationError(
            f"share={share} of {len(queryable)} test identities with a query: at least two must be held out and two "
            "stay: choose another share, or a split with more test identities"
        )
    chosen = np.random.default_rng(seed).permutation(len(queryable))[:n]
    return tuple(queryable[i] for i in sorted(chosen))


def _probes(
    features: Features, split: Split, held_out: Sequence[str], rank: int
) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """Identity and score of the mated and the non-mated probes of all draws, and the gallery's size.

    The score of a mated probe is that of its own identity, minus infinity when it is not among the `rank` best; that
    of a non-mated probe is its best.
    """
    found: tuple[list[pd.DataFrame], list[pd.DataFrame]] = ([], [])
    for trial in range(split.meta["draws"]):
        draw = split.draw(trial)
        enrolled = ~np.isin(draw.gallery_ids, held_out)
        gallery_ids = draw.gallery_ids[enrolled]
        similarity = features.of(draw.query_paths) @ features.of(draw.gallery_paths[enrolled]).T
        mated = np.isin(draw.query_ids, gallery_ids)  # a folder's own split may lack a gallery image too
        own = np.where(draw.query_ids[:, None] == gallery_ids, similarity, -np.inf).max(1)
        ranks = retrieval_metrics(similarity, draw.query_ids, gallery_ids, exclude=~mated).first_match_rank
        score = np.where(mated, np.where(ranks <= rank, own, -np.inf), similarity.max(1))
        probes = pd.DataFrame({"identity": draw.query_ids, "score": score})
        found[0].append(probes[mated])
        found[1].append(probes[~mated])
    return pd.concat(found[0]), pd.concat(found[1]), len(gallery_ids)
