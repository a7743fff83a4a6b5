"""Open-set identification: some people are not in the gallery, and the system ought to say so."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from handclip_lib.data.manifest import Split
from handclip_lib.data.table import identity_order
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.bootstrap import Interval, resampled
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.ranking.retrieval import retrieval_metrics
from handclip_lib.evaluation.tables import result_table
from handclip_lib.evaluation.verification.error_curve import RULE_OF_THREE, ErrorCurve, OperatingPoint, PrefixSums

TARGETS = (0.1, 0.01)
SHOWN = ("model", "target", "fnir", "fpir", "n_mated_identities", "n_non_mated_identities")


@dataclass(frozen=True)
class OpenSetResult:
    """FPIR and FNIR over every threshold, all draws together; shares in 0..1.

    Attributes:
        rank: R: a mated probe is found when its own identity is among the R best, and at or above the threshold.
        curve: The errors: its false positives are FPIR, its false negatives FNIR, which begins at 1 - CMC at R.
        points: FNIR at each target FPIR.
        fnir_at_targets: The same FNIR with their intervals over identities, arrays of one a target.
        held_out: The identities whose gallery images were taken away.
        n_mated_identities, n_non_mated_identities: People whose probes have a mate in the gallery, or none.
        n_gallery: Images in the gallery of a draw.
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

    @property
    def lowest_supported_fpir(self) -> float:
        """The FPIR below which these people prove nothing: 3 / people held out (rule of three)."""
        return RULE_OF_THREE / self.n_non_mated_identities

    def at_targets(self) -> list[dict[str, Any]]:
        """A row a target: model, rank, target, fnir with its interval, fpir, threshold, supported and the counts."""
        facts = {
            "model": self.model, "rank": self.rank, "n_mated": len(self.curve.mated_order),
            "n_non_mated": len(self.curve.non_mated_order), "n_mated_identities": self.n_mated_identities,
            "n_non_mated_identities": self.n_non_mated_identities, "n_gallery": self.n_gallery,
        }  # fmt: skip
        fnir = self.fnir_at_targets
        return [facts | point.columns("fpir", "fnir", fnir[i]) for i, point in enumerate(self.points)]


def open_set(
    features: Features, split: Split, *, share: float = 0.5, rank: int = 1, targets: Sequence[float] = TARGETS,
    model: str = "model", bootstrap: int = 1000, seed: int = 0,
) -> OpenSetResult:  # fmt: skip
    """Identify the queries of every draw when a share of the test identities is not enrolled.

    The gallery images of the people held out leave the gallery; their queries are the non-mated probes. FPIR is the
    share of those whose best score is at least the threshold; FNIR the share of the mated probes whose own identity
    is not among the `rank` best with a score of at least the threshold. Ranks and ties are those of
    `retrieval_metrics`.

    The interval resamples mated and non-mated identities apart and finds the threshold anew; the gallery stays, so it
    says how the figures move with other probes, not with other people enrolled.

    Args:
        share: Share of the identities with a query to hold out, 0..1; the same ones in every draw.
        seed: Seed of the choice and of the resampling.

    Source: ISO/IEC 19795-1:2021 (identification error rates); Grother, Ngan & Hanaoka, NIST FRVT part 2.
    """
    if rank < 1:
        raise EvaluationError(f"rank={rank} does not exist; ranks begin at 1")
    held_out = _held_out(split, share, seed)
    mated, non_mated, n_gallery = _probes(features, split, held_out, rank)
    curve = ErrorCurve.of(mated["score"].to_numpy(), non_mated["score"].to_numpy())
    codes = [np.unique(probes["identity"], return_inverse=True)[1].ravel() for probes in (mated, non_mated)]
    n = [int(code.max()) + 1 for code in codes]
    points = [curve.operating_point(target, RULE_OF_THREE / n[1], "FPIR") for target in targets]
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
    """A row a model and target FPIR; rows that are not `supported` are for greying out, not for claims."""
    return result_table([row for result in results for row in result.at_targets()], SHOWN)


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
