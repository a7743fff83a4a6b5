"""Several images of a person enrolled, and their scores or features fused."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import pandas as pd

from handclip_lib.data.manifest import Split
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.bootstrap import Interval, identity_bootstrap
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.ranking.retrieval import RetrievalMetrics, retrieval_metrics
from handclip_lib.evaluation.tables import result_table

RULES = ("max", "mean", "feature mean")
SHOWN = ("name", "rank1", "map", "n_query", "n_gallery", "n_short")


@dataclass(frozen=True)
class FusionResult:
    """One way to combine images, over all draws.

    Attributes:
        name: What was combined, for tables and figures.
        draws: Metrics of each draw; the gallery's entries are identities.
        rank1, map: Means over the queries of all draws with their intervals over identities, 0..1.
        n_short: Identities that enrol fewer images than was asked for, having no more to spare.
    """

    name: str
    draws: list[RetrievalMetrics]
    rank1: Interval
    map: Interval
    n_short: int = 0

    def summary(self) -> dict[str, Any]:
        """One row of a results table: shares in 0..1, counts are means a draw."""
        return {
            "name": self.name, **self.rank1.columns("rank1"), **self.map.columns("map"),
            "n_query": float(np.mean([(draw.first_match_rank > 0).sum() for draw in self.draws])),
            "n_unmatched": float(np.mean([draw.n_unmatched for draw in self.draws])),
            "n_gallery": self.draws[0].n_gallery, "n_identities": self.rank1.n_identities, "n_short": self.n_short,
        }  # fmt: skip


def fusion_table(results: Iterable[FusionResult]) -> pd.DataFrame:
    """A row a result."""
    return result_table([result.summary() for result in results], SHOWN)


def enrol_several(
    features: Features,
    split: Split,
    sizes: Sequence[int] = (1, 2, 4),
    rules: Sequence[str] = RULES,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
) -> list[FusionResult]:
    """Enrol k images of each test identity and fuse them, for each k and rule, always with the same queries.

    The first image enrolled is the draw's own, the others follow by a keyed hash, so that a larger gallery holds the
    smaller one. The queries are the images that the largest k leaves over. An identity with too few images enrols all
    but one (and its only one, where it has one), and is counted in `n_short`. Distractors are enrolled alike.

    Args:
        features: Embeddings of at least `split.evaluated_paths()`.
        split: The manifest.
        sizes: Images enrolled of an identity, 1 or more each.
        rules: "max" or "mean" of the query's scores with the enrolled images, or "feature mean": the score with the
            mean of their embeddings, scaled to length 1. With one image all three are the same.
        bootstrap: Resamples of the identities.
        seed: Seed of the resampling.

    Raises:
        EvaluationError: A size or rule is unknown, or no query is left.

    Source: Kittler et al., "On combining classifiers", PAMI 1998, for the max and mean rules.
    """
    if not sizes or min(sizes) < 1:
        raise EvaluationError(f"sizes={tuple(sizes)}: one image enrolled, or more, is wanted for each")
    known_rules(rules, RULES)
    rows = split.images[split.images["role"].isin(["test", "distractor"])]
    drawn = [enrolled_paths(rows, trial, split.meta["seed"], max(sizes)) for trial in range(split.meta["draws"])]
    results = []
    for size in sizes:
        short = sum(len(paths) < size for paths in drawn[0].values())
        for rule in rules if size > 1 else rules[:1]:
            trials = []
            for enrolled in drawn:
                gallery = {identity: paths[:size] for identity, paths in enrolled.items()}
                query = left_over(rows, enrolled)
                similarity = fused_scores(features.of(query["path"]), features, gallery, rule)
                trials.append((similarity, query["identity"].to_numpy(str), np.array(list(gallery))))
            name = f"{size} images, {rule}" if size > 1 else "1 image"
            results.append(fusion_result(name, trials, bootstrap, seed, short))
    return results


def enrolled_paths(rows: pd.DataFrame, trial: int, seed: int, most: int) -> dict[str, list[str]]:
    """Paths to enrol of each identity, at most `most`, the draw's own gallery image first; one is left for a query."""
    chosen = rows["gallery_in"].map(lambda text: str(trial) in text.split())
    keys = [keyed(seed, f"enrol {trial}|{i}", path) for i, path in zip(rows["identity"], rows["path"], strict=True)]
    order = rows.assign(later=~chosen, key=keys).sort_values(["later", "key"])
    galleries = {}
    for identity, group in order.groupby("identity", sort=True):
        spare = len(group) - (group["role"].iloc[0] != "distractor")
        galleries[str(identity)] = group["path"].tolist()[: max(1, min(most, spare))]
    return galleries


def left_over(rows: pd.DataFrame, enrolled: Mapping[str, list[str]]) -> pd.DataFrame:
    """The images that may be queries: not enrolled, and no distractors."""
    taken = {path for paths in enrolled.values() for path in paths}
    return rows[~rows["path"].isin(taken) & (rows["role"] != "distractor")]


def fused_scores(query: np.ndarray, features: Features, gallery: Mapping[str, list[str]], rule: str) -> np.ndarray:
    """Score of each query with each identity of a gallery, float32 (n_query, n_identities).

    Args:
        query: Embeddings of length 1, (n_query, size).
        features: Embeddings of the gallery's images.
        gallery: Paths of the images of each identity, none empty.
        rule: One of `RULES`.
    """
    count = np.array([len(paths) for paths in gallery.values()])
    start = np.cumsum(count) - count
    enrolled = features.of([path for paths in gallery.values() for path in paths])
    if rule == "feature mean":
        total = np.add.reduceat(enrolled, start, axis=0)
        return query @ (total / np.linalg.norm(total, axis=1, keepdims=True)).T
    if rule == "max":
        return np.maximum.reduceat(query @ enrolled.T, start, axis=1)
    return np.add.reduceat(query @ enrolled.T, start, axis=1) / count.astype(np.float32)


def known_rules(rules: Sequence[str], known: Sequence[str]) -> None:
    """Refuse a rule that does not exist.

    Raises:
        EvaluationError: A rule is unknown, or there is none.
    """
    unknown = [rule for rule in rules if rule not in known]
    if unknown or not rules:
        raise EvaluationError(f"unknown rule {unknown[0] if unknown else ''!r}; choose from {', '.join(known)}")


def fusion_result(
    name: str, trials: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], samples: int, seed: int, n_short: int = 0
) -> FusionResult:
    """Metrics of (similarity, query identities, gallery identities) of each draw."""
    draws = [retrieval_metrics(*trial) for trial in trials]
    rank = np.concatenate([draw.first_match_rank for draw in draws])
    precision = np.concatenate([draw.average_precision for draw in draws])
    found = identity_bootstrap(
        np.stack([np.where(rank > 0, rank == 1, np.nan), precision], 1),
        np.concatenate([ids for _, ids, _ in trials]), samples, seed,
    )  # fmt: skip
    return FusionResult(name, draws, found[0], found[1], n_short)


def keyed(seed: int, purpose: str, path: str) -> bytes:
    """A hash to order images by: the same on every machine and in every folder."""
    return blake2b(
        f"{seed}|{purpose}|{path.rsplit('/', 1)[-1]}".encode("utf-8", "surrogatepass"), digest_size=8
    ).digest()
