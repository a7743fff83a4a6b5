"""Anybody's scores by the protocol here: error rates with intervals over people, and ranks where they are complete."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from handclip_lib.data.table import identity_order
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.exchange.score_files import Comparisons, read_scores
from handclip_lib.evaluation.features import check_memory
from handclip_lib.evaluation.ranking.protocol import ProtocolResult, chance_of_match, cmc_interval
from handclip_lib.evaluation.ranking.retrieval import RetrievalMetrics, TiedScoresWarning, retrieval_metrics
from handclip_lib.evaluation.tables import result_table, summary_table
from handclip_lib.evaluation.verification.error_rates import (
    EQUAL_ERRORS,
    Pairs,
    VerificationResult,
    target_table,
    verification_of_pairs,
)
from handclip_lib.evaluation.verification.thresholds import FIXED_SHOWN, at_fixed

GALLERY = "of the file"
RANKED = (
    "model", "rank1", "rank1_chance", "rank5", "rank10", "map", "minp", "n_identities", "n_query", "n_gallery",
    "n_unmatched",
)  # fmt: skip


def pairs_of(scores: Comparisons, name: str) -> Pairs:
    """The comparisons of a file as pairs of images. Those of several draws count once, whichever image is the probe."""
    probe, reference, score = scores.probe, scores.reference, scores.score
    if scores.has_draws:
        low, high = (side(probe, reference).astype(np.int64) for side in (np.minimum, np.maximum))
        once = np.sort(np.unique(low * len(scores.names) + high, return_index=True)[1])
        probe, reference, score = probe[once], reference[once], score[once]
    same = scores.subjects[probe] == scores.subjects[reference]
    for kind, there in (("one person", same.any()), ("two people", not same.all())):
        if not there:
            raise EvaluationError(f"{name}: no comparison is of {kind}; error rates need mated and non-mated ones")
    images = np.stack([probe, reference], 1)
    return Pairs(scores.names, scores.subjects, score[same], images[same], score[~same], images[~same])


def identification_of(scores: Comparisons, name: str) -> ProtocolResult | str:
    """CMC, mAP and mINP of probes among references, of all draws; or in words why there are none.

    Every probe of a draw must be compared with every reference of it: else ranks are of galleries that differ.
    """
    draws: list[RetrievalMetrics] = []
    tables, chances, probed = [], [], set[str]()
    first_people = 0
    for number in range(int(scores.draw.max()) + 1):
        rows = scores.draw == number
        (probes, row), (references, column) = (
            np.unique(side[rows], return_inverse=True) for side in (scores.probe, scores.reference)
        )
        if len(row) != len(probes) * len(references):
            asked = np.bincount(row)
            few = int(asked.argmin())
            return (
                f"{scores.names[probes[few]]!r} was compared with {asked[few]} of {len(references)} references: ranks "
                "need every probe compared with every reference"
            )
        check_memory(f"the scores of {len(probes):,} probes", 24 * len(row), "give fewer probes")
        matrix = np.empty((len(probes), len(references)))
        matrix[row, column] = scores.score[rows]
        query_ids, gallery_ids = scores.subjects[probes], scores.subjects[references]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", TiedScoresWarning)
                metrics = retrieval_metrics(matrix, query_ids, gallery_ids)
        except EvaluationError as error:
            return str(error)
        rank = metrics.first_match_rank
        table = {"draw": number, "path": scores.names[probes], "identity": query_ids, "first_match_rank": rank,
                 "average_precision": metrics.average_precision, "hit": (rank == 1).astype(float)}  # fmt: skip
        tables.append(pd.DataFrame(table)[rank > 0])
        chances.append(chance_of_match(query_ids[rank > 0], gallery_ids))
        draws.append(metrics)
        probed |= set(query_ids)
        first_people = first_people or len(np.unique(gallery_ids))
    per_query = pd.concat(tables, ignore_index=True)
    if per_query["identity"].nunique() < 2:
        return "fewer than two people have a probe with a match"
    cmc = cmc_interval(per_query, draws[0].n_gallery)
    unasked = len(set(scores.subjects[np.unique(scores.reference)]) - probed)
    chance = float(np.concatenate(chances).mean())
    return ProtocolResult(name, GALLERY, 0, draws, per_query, cmc[0], cmc, unasked, first_people, chance)


def in_doubt(name: str, pairs: Pairs) -> list[str]:
    """What must be said of a file beside its figures, a sentence each."""
    if pairs.genuine.mean() >= pairs.impostor.mean():
        return []
    return [f"{name}: scores of one person are lower than those of two on average; for distances say --distances"]


@dataclass(frozen=True)
class FileEvaluation:
    """What `evaluate_files` found: tables by their names, results for figures, and remarks, a sentence each."""

    tables: dict[str, pd.DataFrame]
    verified: list[VerificationResult]
    identified: list[ProtocolResult]
    remarks: list[str]


def evaluate_files(
    files: Sequence[Path], *, distances: bool = False, validation: Path | None = None, fmr: float = 0.01
) -> FileEvaluation:
    """Evaluate files of scores, a system each, by the definitions of notebook 05.

    Args:
        distances: Smaller scores are more alike: all are negated, so that thresholds are too.
        validation: Scores of other people, by the same system as every file: they fix the threshold for `fmr`.
    """
    if not 0 < fmr < 1:
        raise EvaluationError(f"an FMR of {fmr} was asked for; a share between 0 and 1 is wanted (0.01 is 1 percent)")
    known = pairs_of(read_scores(validation, distances=distances), str(validation)) if validation else None
    names = [file.name for file in files]
    verified, identified, fixed, remarks = [], [], [], list[str]()
    for file in files:
        scores, name = read_scores(file, distances=distances), file.name if names.count(file.name) == 1 else str(file)
        pairs = pairs_of(scores, name)
        verified.append(verification_of_pairs(pairs, model=name))
        ranked = identification_of(scores, name)
        if isinstance(ranked, str):
            remarks.append(f"{name}: no ranks, since {ranked}")
        else:
            identified.append(ranked)
        if known:
            both = sorted(set(known.identities) & set(pairs.identities), key=identity_order)
            if both:
                said = f"such as {str(both[0])!r} ({len(both)} of them): its threshold is not one for strangers"
                remarks.append(f"{name}: people are in the file of validation too, {said}")
            fixed.append({"model": name, **at_fixed(known, pairs, fmr)})
        remarks += in_doubt(name, pairs)
    tables = {"verification": summary_table(verified, EQUAL_ERRORS), "verification_targets": target_table(verified)}
    if fixed:
        tables["operating_point"] = result_table(fixed, FIXED_SHOWN)
    if identified:
        tables["identification"] = summary_table(identified, RANKED)
    return FileEvaluation(tables, verified, identified, remarks)
