"""A model under the protocol: all draws of a split, either gallery, with spread, and what rests on bursts."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from handclip_lib.data.audit import data_cautions
from handclip_lib.data.manifest import Draw, Split
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.features import Features, is_baseline
from handclip_lib.evaluation.intervals import FEWEST, RULE_OF_THREE, Interval, share_interval
from handclip_lib.evaluation.ranking.counting import matches
from handclip_lib.evaluation.ranking.one_match import rank_one_match
from handclip_lib.evaluation.ranking.retrieval import (
    TIED_SHARE_WARNED,
    RetrievalMetrics,
    TiedScoresWarning,
    check_unit_length,
    rank_features,
)
from handclip_lib.evaluation.tables import in_percent, result_table
from handclip_lib.parameters.notebooks import SELECTED_ON_TEST

CMC_DEPTH = 20
HEADLINE = (
    "model", "gallery", "rank1", "rank1_chance", "rank5", "rank10", "map", "map_trapezoid", "minp", "n_identities",
    "n_query",
)  # fmt: skip
DETAILS = (
    "model", "gallery", "rank1_sd", "rank1_macro", "map_macro", "n_query", "n_gallery", "n_unmatched",
    "n_left_out_burst", "n_unqueryable", "tied_share",
)  # fmt: skip


@dataclass(frozen=True)
class ProtocolResult:
    """One model on one gallery.

    Attributes:
        gallery: "aspect" or "all".
        burst: Queries within ± this many captures of their gallery image are left out; 0 for none.
        per_query: A row a draw and query: draw, path, identity, first_match_rank, average_precision, hit (rank-1),
            match_path and match_score (the best match), wrong_path and wrong_score (the best image of someone else).
        rank1, cmc: Rank-1, and CMC at 1…20 (or the gallery's size), over all draws with their intervals.
        unqueryable, n_people: Test identities with one image, never a query; and identities in the gallery of a draw.
        whose: What identities are, as `Split.whose` says.
        chance: Rank-1 of a gallery in random order, 0..1: the mean of matches / gallery images over the same queries.
    """

    model: str
    gallery: str
    burst: int
    draws: list[RetrievalMetrics]
    per_query: pd.DataFrame
    rank1: Interval
    cmc: Interval
    unqueryable: int
    n_people: int
    chance: float = float("nan")
    whose: str = "people"

    def summary(self) -> dict[str, Any]:
        """One row of a results table: shares in 0..1, means over the queries of all draws (`macro`: over identities).

        `rank1_sd` is the spread of the draws' rank-1; `n_…` are counts a draw. Rank-5 and rank-10 are NaN in a gallery
        of no more images: there every match is among the best.
        """
        of_people = self.per_query.groupby("identity")[["hit", "average_precision"]].mean().mean()
        draws = self.draws
        matched = [int((d.first_match_rank > 0).sum()) for d in draws]

        def mean(shares: Iterable[float]) -> float:
            # Left-out queries differ between draws, and the interval is that of the mean over queries.
            return float(np.average(list(shares), weights=matched))

        return {
            "model": self.model, "gallery": self.gallery, "burst": self.burst,
            **self.rank1.columns("rank1"), "rank1": mean(d.rank(1) for d in draws),
            "rank1_chance": self.chance,
            "rank1_sd": float(np.std([d.rank(1) for d in draws], ddof=1)) if len(draws) > 1 else float("nan"),
            **{f"rank{k}": mean(d.rank(k) for d in draws) if k < draws[0].n_gallery else float("nan") for k in (5, 10)},
            **{name: mean(getattr(d, name) for d in draws) for name in ("map", "map_trapezoid", "minp")},
            "rank1_macro": float(of_people["hit"]), "map_macro": float(of_people["average_precision"]),
            "n_identities": self.rank1.n_identities, "supported": bool(self.rank1.supported),
            "n_query": float(np.mean(matched)), "n_gallery": draws[0].n_gallery,
            "n_unmatched": float(np.mean([d.n_unmatched for d in draws])),
            "n_left_out_burst": float(np.mean([d.n_excluded for d in draws])),
            "n_unqueryable": self.unqueryable, "tied_share": mean(d.tied_share for d in draws),
        }  # fmt: skip


def evaluate_split(
    features: Features, split: Split, gallery: str = "aspect", *, model: str = "model", burst: int = 0
) -> ProtocolResult:
    """Evaluate a model on every draw of a split; each file's embedding serves all of them.

    Args:
        gallery: "aspect" or "all": different tasks, so results name theirs.
        burst: Leave out a query within ± this many capture numbers of its own subject's gallery image: neighbours
            are near-duplicates of one sitting. 0 leaves out none.
    """
    drawn = list(split.draws(gallery))
    ranked = [_ranked(features, draw, in_burst(draw, burst)) for draw in drawn]
    draws, tables = [metrics for metrics, _ in ranked], [table for _, table in ranked]
    tied = float(np.mean([metrics.tied_share for metrics in draws]))
    if tied > TIED_SHARE_WARNED:
        message = f"{in_percent(tied)}% of the best matches are tied with another identity; collapsed?"
        warnings.warn(f"{model}, gallery {gallery!r}: {message}", TiedScoresWarning, stacklevel=2)
    per_query = pd.concat(dict(enumerate(tables)), names=["draw"]).reset_index("draw").reset_index(drop=True)
    cmc = cmc_interval(per_query, draws[0].n_gallery)
    alone, people = len(split.meta["unqueryable"]), len(np.unique(drawn[0].gallery_ids))
    asked = ((draw, metrics.first_match_rank > 0) for draw, metrics in zip(drawn, draws, strict=True))
    by_chance = [chance_of_match(draw.query_ids[rows], draw.gallery_ids) for draw, rows in asked]
    chance = float(np.concatenate(by_chance).mean())
    return ProtocolResult(model, gallery, burst, draws, per_query, cmc[0], cmc, alone, people, chance, split.whose)


def chance_of_match(query_ids: np.ndarray, gallery_ids: np.ndarray) -> np.ndarray:
    """Share of the gallery that is of each query's identity, float64 (n_query,): rank-1 of a random order."""
    people, images = np.unique(gallery_ids, return_counts=True)
    place = np.searchsorted(people, query_ids).clip(max=len(people) - 1)
    return np.where(people[place] == query_ids, images[place], 0) / len(gallery_ids)


def cmc_interval(per_query: pd.DataFrame, n_gallery: int) -> Interval:
    """CMC at 1…20 (or the gallery's size) over all draws, with its interval; rows of `ProtocolResult.per_query`."""
    depth = min(CMC_DEPTH, n_gallery)
    codes, people = pd.factorize(per_query["identity"], sort=True)
    if len(people) < 2:
        raise EvaluationError(f"identities with a query: {len(people)}; an interval over identities needs at least two")
    rank = np.minimum(per_query["first_match_rank"].to_numpy(), depth + 1)
    found = np.bincount(codes * (depth + 1) + rank - 1, minlength=len(people) * (depth + 1))
    within = found.reshape(-1, depth + 1)[:, :depth].cumsum(1)
    return share_interval(within.astype(np.float64), np.bincount(codes).astype(np.float64))


def evaluate_models(features: Mapping[str, Features], split: Split, *, burst: int = 0) -> list[ProtocolResult]:
    """Evaluate several models by name, that of interest first, trivial baselines last, on each gallery there is."""
    galleries = ("aspect", "all") if "other" in set(split.images["role"]) else ("aspect",)
    return [
        evaluate_split(features[model], split, gallery, model=model, burst=burst)
        for gallery in galleries
        for model in sorted(features, key=is_baseline)
    ]


def headline(results: Sequence[ProtocolResult]) -> dict[str, Any]:
    """The figures a run is known by: the first model on the first gallery, and the better baseline beside it."""
    first, *others = [result.summary() for result in results if result.gallery == results[0].gallery]
    people = {"n_identities": results[0].rank1.n_identities, "n_people": results[0].n_people}
    names = ["model", "gallery", "rank1", "rank1_low", "rank1_high", "map", "map_trapezoid", "minp"]
    best = max((other for other in others if is_baseline(other["model"])), key=lambda o: o["rank1"], default=None)
    # best_floor_rank1: as earlier runs have named it
    baseline = {"best_baseline": best["model"], "best_floor_rank1": best["rank1"]} if best else {}
    return {name: first[name] for name in [*names, "n_query", "n_gallery", "n_unqueryable"]} | people | baseline


def conclusion(results: Sequence[ProtocolResult]) -> str:
    """The headline as a sentence without its full stop, other models on the same gallery beside it."""
    told = headline(results)
    interval = "–".join(in_percent(told[f"rank1_{end}"]) for end in ("low", "high"))
    others = [(other.model, other.summary()["rank1"]) for other in results[1:] if other.gallery == told["gallery"]]
    beside = [f"{model} {in_percent(rank1)} %" for model, rank1 in others if not is_baseline(model)]
    if "best_baseline" in told:
        beside.append(f"the better trivial baseline {in_percent(told['best_floor_rank1'])} %")
    n, people, are = told["n_identities"], told["n_people"], results[0].whose
    whose = "queries" if n == people else f"the queries of {n} {are}"
    found = f"{told['model']} finds {in_percent(told['rank1'])} % ({interval}) of {whose} first among"
    return "; ".join([f"{found} {people}" + f" {are}" * (n == people), *beside])


def cautions(
    results: Sequence[ProtocolResult], split: Split, checks: pd.DataFrame | None = None, learnt: str = "yes",
    unhelped: str = "",
) -> list[str]:  # fmt: skip
    """What must be said with the headline, a sentence each; `checks` are `leak_checks`, where any were made.

    `learnt` and `unhelped` are of a training: `ImageResult.learnt`, `Generalisation.unhelped`.
    """
    told, found = headline(results), [f"Training did not help strangers: {unhelped}."] if unhelped else []
    found += data_cautions(split)
    if learnt != "yes":
        found.append(f"The training did not learn, or only in part ({learnt}).")
    if SELECTED_ON_TEST in told["model"]:
        found.append("Test images chose the epoch: the figure is better than it would be on other people.")
    floor = told.get("best_floor_rank1", -1)
    if told["rank1"] <= floor:
        found.append("The model is no better than a trivial baseline, which knows nothing about identity.")
    elif told["rank1_low"] <= floor:
        found.append("The interval reaches down to a trivial baseline, which knows nothing about identity.")
    found += few_people(told["n_identities"], bool(results[0].rank1.supported))
    if checks is not None and "detail" in checks:  # a share to be judged: said, but where nothing was found
        near = checks.loc[checks["check"] == "near-duplicates", "detail"].tolist()
        found += [said.partition(" (cosine")[0] + "." for said in near if not said.startswith("0 of")]
    for passed, said in (("no", "Leak checks that failed"), ("not checked", "Leaks that were not checked")):
        names = [] if checks is None else checks.loc[checks["passed"] == passed, "check"].tolist()
        found += [f"{said}: {', '.join(names)}."] if names else []
    return found


def few_people(n: int, supported: bool) -> list[str]:
    """What must be said of a rank-1 that so many people do not support, a sentence."""
    if n < FEWEST:
        return [f"Only {n} people have a query: from {FEWEST} on, their interval says something."]
    least = in_percent(RULE_OF_THREE / n)
    return [] if supported else [f"{n} people can show no error rate below {least} %: rank-1 is no claim."]


def bursts_too(burst: int) -> str:
    """What a caption of other figures ends with where the headline leaves queries out: these do not."""
    return f"; of all queries, also those that burst={burst} leaves out of rank-1 above" if burst else ""


def in_burst(draw: Draw, burst: int) -> np.ndarray:
    """True for each query within ± `burst` captures of a gallery image of its own identity; bool (n_query,)."""
    if burst == 0:
        return np.zeros(len(draw.query_paths), bool)
    if burst < 0:
        raise EvaluationError(f"burst={burst}: a number of captures is wanted, 0 or more")
    codes = pd.factorize(np.concatenate([draw.query_ids, draw.gallery_ids]))[0]
    query, own = matches(codes[: len(draw.query_ids)], codes[len(draw.query_ids) :])
    needed = np.unique(own)  # of a distractor the capture number is never asked
    paths = np.concatenate([draw.query_paths, draw.gallery_paths[needed]])
    unknown = np.concatenate([draw.query_captures, draw.gallery_captures[needed]]) < 0
    if unknown.any():
        path = paths[np.argmax(unknown)]
        raise EvaluationError(f"burst={burst}: the file name of {path!r} has no capture number; use burst=0")
    near = np.abs(draw.query_captures[query] - draw.gallery_captures[own]) <= burst
    return np.isin(np.arange(len(draw.query_ids)), query[near])


def burst_shares(features: Mapping[str, Features], split: Split, bursts: Sequence[int] = (0, 1, 2, 5)) -> pd.DataFrame:
    """How much of rank-1 rests on near-duplicates: what is left as queries near their gallery image are left out.

    Columns model, burst, rank1, the share `left_out` of queries, `n_left`, how many are left a draw, and `n_query`, the
    queries a draw that have a match. A burst that leaves no query has rank1 NaN; without capture numbers there is
    burst 0 only.
    """
    known = (split.images.loc[split.images["role"] == "test", "capture"].notna()).all()
    draws = list(split.draws())
    rows = []
    for model, embeddings in features.items():
        rank = np.concatenate([_ranked(embeddings, draw)[0].first_match_rank for draw in draws])
        hit = rank[rank > 0] == 1
        for burst in bursts if known else (0,):
            out = np.concatenate([in_burst(draw, burst) for draw in draws])[rank > 0]
            rank1 = float(hit[~out].mean()) if (~out).any() else float("nan")
            n = len(draws)
            rows.append((model, burst, rank1, float(out.mean()), int((~out).sum()) / n, len(out) / n))
    shown = ("model", "burst", "rank1", "left_out", "n_left")
    return result_table(rows, shown, columns=[*shown, "n_query"])


def near_duplicates(features: Features, split: Split, threshold: float = 0.98, most: int = 1000) -> pd.DataFrame:
    """Pairs of evaluated images, of the split's own aspect, with a cosine (of `pixel_embeddings`) from a threshold.

    Columns path_a, path_b, cosine, same_identity, capture_distance (NA where unknown), the most alike first.
    """
    images = split.images[split.images["role"] == "test"].reset_index(drop=True)
    embeddings = features.of(images["path"])
    found = []
    for start in range(0, len(images), 512):
        cosine = embeddings[start : start + 512] @ embeddings.T
        row, column = np.nonzero(np.triu(cosine >= threshold, start + 1))
        found.append(np.stack([row + start, column, cosine[row, column]]))
    first, second, score = np.concatenate(found, axis=1)
    order = np.argsort(-score, kind="stable")[:most]
    left, right = (images.iloc[place[order].astype(int)].reset_index(drop=True) for place in (first, second))
    return pd.DataFrame(
        {
            "path_a": left["path"], "path_b": right["path"], "cosine": score[order],
            "same_identity": left["identity"] == right["identity"],
            "capture_distance": (left["capture"] - right["capture"]).abs(),
        }
    )  # fmt: skip


def _ranked(features: Features, draw: Draw, exclude: np.ndarray | None = None) -> tuple[RetrievalMetrics, pd.DataFrame]:
    """Metrics of one draw, and the best match and best wrong image of each query that is matched and not left out."""
    query, gallery = features.of(draw.query_paths), features.of(draw.gallery_paths)
    metrics, best, score = best_images(query, gallery, draw.query_ids, draw.gallery_ids, exclude)
    rank = metrics.first_match_rank
    table = pd.DataFrame(
        {
            "path": draw.query_paths, "identity": draw.query_ids, "first_match_rank": rank,
            "average_precision": metrics.average_precision, "hit": (rank == 1).astype(float),
            "match_path": draw.gallery_paths[best[0]], "match_score": score[0],
            "wrong_path": draw.gallery_paths[best[1]], "wrong_score": score[1],
        }
    )  # fmt: skip
    return metrics, table[rank > 0]


def best_images(
    query: np.ndarray, gallery: np.ndarray, query_ids: np.ndarray, gallery_ids: np.ndarray,
    exclude: np.ndarray | None = None,
) -> tuple[RetrievalMetrics, np.ndarray, np.ndarray]:  # fmt: skip
    """Metrics of a ranking, and of each query the best match and the best image of someone else.

    Their places in the gallery, int (2, n_query), which say nothing where the score is -infinity: there is no such
    image; and their scores, float32 (2, n_query).
    """
    n_query = len(query)
    codes = pd.factorize(np.concatenate([query_ids, gallery_ids]))[0]
    place = np.full(codes.max() + 1, -1)
    place[codes[n_query:]] = np.arange(len(gallery))
    asked = np.ones(n_query, bool) if exclude is None else ~exclude
    match = np.where(asked, place[codes[:n_query]], -1)
    if (place >= 0).sum() == len(gallery) and (match >= 0).any():
        check_unit_length("query", query, np.flatnonzero(asked))
        check_unit_length("gallery", gallery)
        found = rank_one_match(query, gallery, match)
        best, score = np.stack([match, found.wrong]), np.stack([found.match_score, found.wrong_score])
        return found.metrics(len(gallery), asked), best, score
    return _ranked_by_all(query, gallery, codes, exclude)


def _ranked_by_all(
    query: np.ndarray, gallery: np.ndarray, codes: np.ndarray, exclude: np.ndarray | None
) -> tuple[RetrievalMetrics, np.ndarray, np.ndarray]:
    """The same where a query may have several matches; places and scores of the best match and wrong image, (2, n)."""
    n = len(query)
    best, score = np.zeros((2, n), int), np.zeros((2, n), np.float32)

    def look(rows: np.ndarray, scores: np.ndarray) -> None:
        own = codes[rows, None] == codes[None, n:]
        for side, kept in enumerate((own, ~own)):
            masked = np.where(kept, scores, np.float32(-np.inf))
            best[side, rows] = masked.argmax(1)
            score[side, rows] = masked[np.arange(len(rows)), best[side, rows]]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TiedScoresWarning)  # the caller sums them up over the draws
        return rank_features(query, gallery, codes[:n], codes[n:], exclude=exclude, look=look), best, score
