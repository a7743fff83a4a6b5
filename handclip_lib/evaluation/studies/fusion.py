"""More of the same images, beside the plain ranking: several enrolled, two aspects fused, neighbours that re-rank."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from handclip_lib.data.images import DecodedImages
from handclip_lib.data.manifest import Split
from handclip_lib.data.splits import keyed
from handclip_lib.data.table import ASPECTS, identity_order
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.features import Features, embed, extract_features, key_of, mirrored
from handclip_lib.evaluation.intervals import identity_interval
from handclip_lib.evaluation.ranking.cosines import TIE, cosines
from handclip_lib.evaluation.ranking.protocol import best_images
from handclip_lib.evaluation.ranking.reranking import alpha_query_expansion, rerank_similarity
from handclip_lib.evaluation.ranking.retrieval import RetrievalMetrics, rank_scores, retrieval_metrics
from handclip_lib.evaluation.tables import result_table
from handclip_lib.models.embeddings import GivenEmbeddings
from handclip_lib.models.trained import Encoder
from handclip_lib.parameters.notebooks import Evaluation

RULES = ("max", "mean", "feature mean")
K1, K2 = 20, 6  # the paper's, or as many as there are
EXPANDED_BY = 3  # gallery images: each identity has one there, so more would be other people
SHOWN = ("name", "rank1", "map", "n_query", "n_gallery", "n_short")
Ranked = tuple[RetrievalMetrics, np.ndarray]
"""Of one draw: the ranking of a gallery whose entries are identities, and the identities of its queries."""


def _row(name: str, ranked: Sequence[Ranked], n_short: int = 0) -> dict[str, Any]:
    """One way to combine images as a row of a table, the gallery's entries being identities.

    Shares in 0..1 are means over the queries of all draws with their intervals over identities, counts are means a
    draw. `n_short` are the identities that enrol fewer images than was asked for, having no more to spare.
    """
    draws = [metrics for metrics, _ in ranked]
    rank = np.concatenate([draw.first_match_rank for draw in draws])
    precision = np.concatenate([draw.average_precision for draw in draws])
    values = np.stack([np.where(rank > 0, rank == 1, np.nan), precision], 1)
    means = identity_interval(values, np.concatenate([ids for _, ids in ranked]))
    return {
        "name": name, **means[0].columns("rank1"), **means[1].columns("map"),
        "n_query": int((rank > 0).sum()) / len(draws), "n_unmatched": float(np.mean([d.n_unmatched for d in draws])),
        "n_gallery": draws[0].n_gallery, "n_identities": means.n_identities, "n_short": n_short,
    }  # fmt: skip


def enrol_several(features: Features, split: Split, sizes: Sequence[int] = (1, 2, 4)) -> pd.DataFrame:
    """Enrol k images of each test identity and fuse them by each rule, for each k, always with the same queries.

    `RULES`: "max" or "mean" of the query's scores with the enrolled images, or "feature mean": the score with the mean
    of their embeddings, scaled to length 1. With one image all three are the same.

    The first image enrolled is the draw's own, the others follow by a keyed hash, so that a larger gallery holds the
    smaller one. The queries are the images that the largest k leaves over. An identity with too few images enrols all
    but one (and its only one, where it has one), and is counted in `n_short`. Distractors are enrolled alike.

    Source: Kittler et al., "On combining classifiers", PAMI 1998, for the max and mean rules.
    """
    if not sizes or min(sizes) < 1:
        raise EvaluationError(f"sizes={tuple(sizes)}: one image enrolled, or more, is wanted for each")
    rows = split.images[split.images["role"].isin(["test", "distractor"])]
    meta, across = split.meta, split.crosses_sessions
    drawn = [enrolled_paths(rows, trial, meta["seed"], max(sizes), across) for trial in range(meta["draws"])]
    asked = [_left_over(rows, enrolled, across)[["path", "identity"]] for enrolled in drawn]
    table = []
    for size in sizes:
        short = sum(len(paths) < size for paths in drawn[0].values())
        for rule in RULES if size > 1 else RULES[:1]:
            ranked = []
            for enrolled, query in zip(drawn, asked, strict=True):
                gallery = {identity: paths[:size] for identity, paths in enrolled.items()}
                fused = _Fused.of(features.of(query["path"]), features, gallery, rule)
                ranked.append(fused.ranked(query["identity"]))
            name = f"{size} images, {rule}" if size > 1 else "1 image"
            table.append(_row(name, ranked, short))
    return result_table(table, SHOWN)


def refined(features: Features, split: Split) -> pd.DataFrame:
    """Gallery "aspect" ranked plainly, by k-reciprocal re-ranking, and by alpha query expansion; all draws.

    Re-ranking looks at all queries of a draw together: such figures assume that the probes come as a batch.
    """
    draws = list(split.draws())
    pairs = [(features.of(draw.query_paths), features.of(draw.gallery_paths)) for draw in draws]
    expanded_by = min(EXPANDED_BY, *(len(gallery) for _, gallery in pairs))
    k1 = min(K1, *(len(query) + len(gallery) - 1 for query, gallery in pairs))
    k2 = min(K2, k1 + 1)
    ways = {
        "plain cosine": cosines,
        f"k-reciprocal (k1 {k1}, k2 {k2}, λ 0.3)": lambda query, gallery: rerank_similarity(query, gallery, k1, k2),
        f"αQE (k {expanded_by}, α 3)": lambda query, gallery: cosines(
            alpha_query_expansion(query, gallery, expanded_by), gallery
        ),
    }
    table = []
    for name, way in ways.items():
        ranked = []
        for pair, draw in zip(pairs, draws, strict=True):
            metrics = retrieval_metrics(way(*pair), draw.query_ids, draw.gallery_ids, tie=TIE)
            ranked.append((metrics, draw.query_ids))
        table.append(_row(name, ranked))
    return result_table(table, SHOWN[:-1])


def cross_view(
    model: Encoder, images: DecodedImages, split: Split, config: Evaluation
) -> tuple[pd.DataFrame, dict[str, str]]:
    """`across_aspects` of notebook 05: the tested images of all aspects are embedded here, as they are and mirrored.

    Another program's embeddings are of images as they are.
    """
    tested = images.select(split.paths("test") + split.paths("other"))
    flipped = None
    if not isinstance(model, GivenEmbeddings):
        key, encode = f"{key_of(model)} mirrored", mirrored(model.encode_image)
        flipped = extract_features(encode, tested, encoder_key=key, batch_size=config.batch_size)
    elif not model.covers(tested.paths):
        return result_table([], SHOWN, columns=SHOWN), {"other aspects": f"not all their images are in {model.source}"}
    return across_aspects(embed(model, tested, config.batch_size), split, flipped)


def across_aspects(
    features: Features, split: Split, flipped: Features | None = None
) -> tuple[pd.DataFrame, dict[str, str]]:
    """What a split's own aspect gives together with each other aspect, and in its gallery; and what cannot be had, why.

    `flipped` are the own aspect's images flipped, under the same paths, for the other hand's gallery.
    """
    own, images = split.meta["aspect"], split.images
    view, _, side = own.partition("_")
    others = sorted(set(images.loc[images["role"] == "other", "aspect"]) - {own})
    table: list[dict[str, Any]] = []
    refused = {}
    for other in others:
        ways = [None, flipped] if flipped and other.startswith(view) and not other.endswith(f"_{side}") else [None]
        try:
            fused = fuse_aspects(features, split, (own, other))
            table += fused + [cross_aspect(features, split, own, other, way) for way in ways]
        except EvaluationError as error:
            refused[other] = str(error)
    return result_table(table, SHOWN[:-1], columns=None if table else SHOWN), refused or (
        {} if others else {"other aspects": "this split tests none"}
    )


def fuse_aspects(features: Features, split: Split, aspects: tuple[str, str]) -> list[dict[str, Any]]:
    """Recognise a person by images of two aspects at once, beside either alone, on the same probes and identities.

    A probe is a query image of each aspect of one person, paired in the order of a keyed hash, each image once; an
    identity without both aspects is left out. The gallery holds one image of each aspect of each identity, and the
    score is the mean of the two aspects' cosines.
    """
    rows = [_of_aspect(split, aspect) for aspect in aspects]
    both = " + ".join(aspects)
    ranked: dict[str, list[Ranked]] = {name: [] for name in (*(f"{one} of {both}" for one in aspects), f"{both}, mean")}
    across = split.crosses_sessions
    for trial in range(split.meta["draws"]):
        galleries = [enrolled_paths(own, trial, split.meta["seed"], 1, across) for own in rows]
        everybody = sorted(set(galleries[0]) & set(galleries[1]), key=identity_order)
        asked = [_left_over(own, gallery, across) for own, gallery in zip(rows, galleries, strict=True)]
        probes = _paired(asked, trial, split.meta["seed"])
        if len(everybody) < 2 or probes.empty:
            found = f"{len(everybody)} test identities have images of both {aspects[0]} and {aspects[1]}"
            remedy = "choose aspects that are photographed of the same people, twice or more"
            raise EvaluationError(f"{found}, with {len(probes)} probes; {remedy}")
        alone = []
        for side, gallery in enumerate(galleries):
            enrolled = {identity: gallery[identity] for identity in everybody}
            alone.append(_Fused.of(features.of(probes[side]), features, enrolled, "max"))
        for name, way in zip(ranked, (*alone, alone[0].beside(alone[1])), strict=True):
            ranked[name].append(way.ranked(probes["identity"]))
    return [_row(name, found) for name, found in ranked.items()]


def cross_aspect(
    features: Features, split: Split, query: str, gallery: str, flipped: Features | None = None
) -> dict[str, Any]:
    """Recognise images of one aspect in a gallery of another: palm against back, left against right.

    The queries are those of the draws of their own aspect, so that figures compare, or the same `flipped`, under the
    same paths; the gallery holds one image of each person. A query whose person is not there is unmatched and counted.
    """
    asked, others = _of_aspect(split, query), _of_aspect(split, gallery)
    ranked = []
    for trial in range(split.meta["draws"]):
        enrolled = enrolled_paths(others, trial, split.meta["seed"], 1)
        of_own = enrolled_paths(asked, trial, split.meta["seed"], 1, split.crosses_sessions)
        queries = _left_over(asked, of_own, split.crosses_sessions)
        embeddings = (flipped or features).of(queries["path"])
        ranked.append(_Fused.of(embeddings, features, enrolled, "max").ranked(queries["identity"]))
    return _row(f"{query}{' flipped' if flipped else ''} in {gallery}", ranked)


def enrolled_paths(rows: pd.DataFrame, trial: int, seed: int, most: int, across: bool = False) -> dict[str, list[str]]:
    """Paths to enrol of each identity, at most `most`, the draw's own gallery image first; one is left for a query.

    Across sessions all are of that image's session, and the queries are of the others (`_left_over`).
    """
    chosen = [str(trial) in text.split() for text in rows["gallery_in"].tolist()]
    keys = _image_keys(rows, seed, f"enrol {trial}")
    order = sorted(range(len(rows)), key=lambda row: (not chosen[row], keys[row]))
    path, identity, role, session = (rows[name].tolist() for name in ("path", "identity", "role", "session"))
    images = dict[str, list[int]]()
    for row in order:
        images.setdefault(str(identity[row]), []).append(row)
    galleries = {}
    for who in sorted(images):
        own = images[who]
        if across:
            own = [row for row in own if session[row] == session[own[0]]]
        spare = len(own) - (role[own[0]] != "distractor" and not across)
        galleries[who] = [path[row] for row in own[: max(1, min(most, spare))]]
    return galleries


def _image_keys(rows: pd.DataFrame, seed: int, purpose: str) -> list[bytes]:
    """A hash to order each image by, of its identity and file name."""
    names = (path.rsplit("/", 1)[-1] for path in rows["path"].tolist())
    return [keyed(seed, f"{purpose}|{who}", name) for who, name in zip(rows["identity"].tolist(), names, strict=True)]


def _left_over(rows: pd.DataFrame, enrolled: Mapping[str, list[str]], across: bool = False) -> pd.DataFrame:
    """The images that may be queries: not enrolled (across: nor of the session enrolled from), and no distractors."""
    held = {path for paths in enrolled.values() for path in paths}
    taken = np.array([path in held for path in rows["path"].tolist()])
    if across:
        session = rows.set_index("path")["session"]
        of_person = rows["identity"].map({who: session[paths[0]] for who, paths in enrolled.items()})
        taken = (rows["session"] == of_person).to_numpy(bool)
    return rows[~taken & (rows["role"] != "distractor").to_numpy(bool)]


@dataclass(frozen=True)
class _Fused:
    """Queries and a gallery of identities, whose images are fused by a rule.

    Attributes:
        enrolled: Of the first, second … images of the identities that have so many, which are the first ones.
        identities: Text (n_gallery,), those with the most images first.
        count: Images of each.
    """

    query: np.ndarray
    enrolled: list[np.ndarray]
    identities: np.ndarray
    count: np.ndarray
    rule: str

    @classmethod
    def of(cls, query: np.ndarray, features: Features, gallery: Mapping[str, list[str]], rule: str) -> "_Fused":
        """Embeddings of queries, (n_query, size), and the paths of the images of each identity."""
        ordered = sorted(gallery.items(), key=lambda item: -len(item[1]))
        names, count = np.array([name for name, _ in ordered]), np.array([len(paths) for _, paths in ordered])
        nth = [[paths[place] for _, paths in ordered if len(paths) > place] for place in range(count[0])]
        enrolled = [features.of(paths) for paths in nth]
        if rule == "feature mean":
            for more in enrolled[1:]:
                enrolled[0][: len(more)] += more
            enrolled = [enrolled[0] / np.linalg.norm(enrolled[0], axis=1, keepdims=True)]
        return cls(query, enrolled, names, count, rule)

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """Score of some queries with each identity, float32 (n_rows, n_gallery)."""
        found = cosines(self.query[rows], self.enrolled[0])
        for more in self.enrolled[1:]:
            part, scores = found[:, : len(more)], cosines(self.query[rows], more)
            (np.maximum if self.rule == "max" else np.add)(part, scores, out=part)
        return found / self.count.astype(np.float32) if self.rule == "mean" else found

    def beside(self, other: "_Fused") -> "_Fused":
        """Of the same queries and identities, one image each: side by side, whose cosine is the mean of both."""
        sides = ((self.query, other.query), (self.enrolled[0], other.enrolled[0]))
        query, enrolled = (np.concatenate(both, 1) * np.float32(0.5**0.5) for both in sides)
        return replace(self, query=query, enrolled=[enrolled])

    def ranked(self, identities: pd.Series) -> Ranked:
        """The ranking, of queries of some identities."""
        names = identities.to_numpy(str)
        if len(self.enrolled) == 1:
            return best_images(self.query, self.enrolled[0], names, self.identities)[0], names
        return rank_scores(self.scores, names, self.identities, 3 * len(self.identities)), names


def _of_aspect(split: Split, aspect: str) -> pd.DataFrame:
    """The tested images of an aspect; refused when a person of them trained, as the published cut-offs make happen."""
    if aspect not in ASPECTS:
        raise EvaluationError(f"unknown aspect {aspect!r}; choose from {', '.join(ASPECTS)}")
    rows = split.images[split.images["role"].isin(["test", "other"]) & (split.images["aspect"] == aspect)]
    if rows.empty:
        raise EvaluationError(f"this split tests no image of {aspect}; make it from data that has both aspects")
    both = set(rows["identity"]) & (split.identities("train") | split.identities("val"))
    if both:
        some = ", ".join([*sorted(both, key=identity_order)[:5], *["…"] * (len(both) > 5)])
        found = f"{len(both)} people tested on {aspect} trained in the split of {split.meta['aspect']} ({some})"
        raise EvaluationError(
            f"{found}: the cut-offs of protocol {split.meta['protocol']!r} differ between aspects. Train and test on "
            "one split of protocol='proportional'"
        )
    return rows


def _paired(queries: list[pd.DataFrame], trial: int, seed: int) -> pd.DataFrame:
    """The n-th query of each identity in one aspect with its n-th in the other: columns 0 and 1, and identity."""
    sides = []
    for side, rows in enumerate(queries):
        ranked = rows.assign(key=_image_keys(rows, seed, f"pair {trial}")).sort_values(["identity", "key"])
        nth = ranked.groupby("identity").cumcount()
        sides.append(ranked[["identity", "path"]].assign(nth=nth).rename(columns={"path": side}))
    return sides[0].merge(sides[1], on=["identity", "nth"])
