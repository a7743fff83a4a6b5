"""Who is like whom: the gallery that each query ranks, who is taken for whom, and the embeddings laid out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from handclip_lib.data.manifest import Draw, Split
from handclip_lib.data.table import identity_order
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.ranking.cosines import TIE, cosines
from handclip_lib.evaluation.ranking.protocol import ProtocolResult, best_images
from handclip_lib.evaluation.tables import result_table

CHOICES = ("worst", "wrong", "random", "all")
FEWEST = 5  # images that a map needs
COLUMNS = ("identity", "mistaken_for", "queries", "photographs", "share", "margin")


def most_confused_pairs(result: ProtocolResult, split: Split, n: int = 10) -> pd.DataFrame:
    """The n pairs that were confused most, over all draws.

    A query is a confusion where the gallery's best image is someone else's, ties included; it counts for the owner
    of the best wrong image alone, though others may lie ahead of the match too.

    Returns:
        A row a pair, the most queries first, at equal counts the most negative margin: identity; mistaken_for (in
        gallery "all" "<aspect>/<identity>" for other aspects' images, which may be the same person's); `queries` (a
        photograph is one in each draw); distinct `photographs`; `share` of all queries of the identity in 0..1; and
        the mean `margin`, best match less best wrong image in units of the cosine, not above 0.
    """
    if n < 1:
        raise EvaluationError(f"n={n}: at least one pair is wanted")
    rows = result.per_query
    people = _gallery_identities(split)
    unknown = rows.loc[~rows["wrong_path"].isin(people.index), "wrong_path"]
    if len(unknown):
        raise EvaluationError(f"{unknown.iloc[0]} is in no gallery of this split; give the split of the result")
    missed = rows[rows["hit"] == 0]
    lead = missed["match_score"].astype(float) - missed["wrong_score"].astype(float)
    missed = missed.assign(mistaken_for=missed["wrong_path"].map(people), margin=np.minimum(lead, 0))
    asked: dict[Any, int] = rows["identity"].value_counts().to_dict()
    pairs: list[tuple[Any, ...]] = [
        (own, other, len(group), group["path"].nunique(), len(group) / asked[own], group["margin"].mean())
        for (own, other), group in missed.groupby(["identity", "mistaken_for"], sort=False)
    ]
    pairs.sort(key=lambda row: (-row[2], row[5], identity_order(row[0]), row[1]))
    return result_table(pairs[:n], columns=COLUMNS)


def _gallery_identities(split: Split) -> pd.Series:
    """Identity by path, as the gallery names it: another aspect's images are other identities."""
    rows = split.images[split.images["role"].isin(["test", "other", "distractor"])]
    names = rows["identity"].where(rows["role"] != "other", rows["aspect"] + "/" + rows["identity"])
    return pd.Series(names.to_numpy(), index=rows["path"])


@dataclass(frozen=True)
class Confusion:
    """Predictions by identity, and the share of all that are right, 0..1.

    Attributes:
        matrix: Share of each identity's images that were taken for each, rows sum to 1 (0 for one without an image),
            float64 (n_identities, n_identities).
        mistakes: A row for each pair that was confused, the most frequent first: identity, taken_for, images.
    """

    matrix: np.ndarray
    accuracy: float
    mistakes: pd.DataFrame


def confusion(scores: np.ndarray, labels: np.ndarray, identities: Sequence[str]) -> Confusion:
    """Count what images are taken for: logits (n, n_identities), and the place of each image's identity, int (n,)."""
    scores, labels = np.asarray(scores), np.asarray(labels)
    if not len(labels) or scores.shape != (len(labels), len(identities)):
        given = f"scores have shape {scores.shape} for {len(labels)} images and {len(identities)} identities"
        raise EvaluationError(f"{given}; one row an image and one column an identity are wanted")
    taken = scores.argmax(axis=1)
    counts = np.zeros((len(identities), len(identities)))
    np.add.at(counts, (labels, taken), 1)
    total = counts.sum(1, keepdims=True)
    matrix = np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)
    wrong = counts * ~np.eye(len(identities), dtype=bool)
    pairs = sorted(np.argwhere(wrong).tolist(), key=lambda pair: -wrong[tuple(pair)])
    rows = [(identities[own], identities[other], int(wrong[own, other])) for own, other in pairs]
    mistakes = pd.DataFrame(rows, columns=["identity", "taken_for", "images"])
    return Confusion(matrix, float((taken == labels).mean()), mistakes)


class RankedQueries:
    """The gallery of one draw, ranked for each of its queries; someone else's image comes first at equal scores."""

    def __init__(self, features: Features, draw: Draw):
        self.draw = draw
        self._query, self._gallery = features.of(draw.query_paths), features.of(draw.gallery_paths)
        metrics, _, self._best = best_images(self._query, self._gallery, draw.query_ids, draw.gallery_ids)
        self._first = metrics.first_match_rank

    def row(self, query: int) -> tuple[np.ndarray, np.ndarray]:
        """Cosines of a query with the gallery, float32 (n_gallery,), and whether each is a match."""
        scores = cosines(self._query[query : query + 1], self._gallery)[0]
        return scores, self.draw.query_ids[query] == self.draw.gallery_ids

    def order(self, queries: str) -> np.ndarray:
        """Rows of the queries to show, in the order to show them; those without a match only in "all".

        "worst" is by the rank of the first match; "wrong" are those whose best image is someone else's, the most
        confident mistakes first.
        """
        first = self._first
        if queries == "all":
            return np.arange(len(first))
        matched = np.flatnonzero(first > 0)
        if queries == "random":
            return np.random.default_rng(0).permutation(matched)
        if queries == "worst":
            return matched[np.argsort(-first[matched], kind="stable")]
        wrong = matched[first[matched] > 1]
        match, other = self._best[:, wrong]
        return wrong[np.argsort(match - np.maximum(match, other), kind="stable")]

    def best(self, query: int, top_k: int) -> tuple[np.ndarray, np.ndarray]:
        """Columns of the `top_k` best gallery images, and of the first match where it comes later; and their ranks."""
        scores, is_match = self.row(query)
        ranked = np.lexsort((is_match, is_match * TIE - scores))
        matches = np.flatnonzero(is_match[ranked])[:1]
        places = np.append(np.arange(min(top_k, len(ranked))), matches[matches >= top_k])
        return ranked[places], places + 1


def similarity_by_identity(features: Features, split: Split, most: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Cosine between test images of the split's own aspect, ordered by identity and capture: float32 (n, n), -1..1.

    And the identities, (n,): whole ones, up to about `most` images.
    """
    test = split.images[split.images["role"] == "test"]
    test = test.assign(order=test["identity"].map(identity_order))
    test = _whole_identities(test.sort_values(["order", "capture", "path"], kind="stable"), "order", most)
    embeddings = features.of(test["path"])
    return embeddings @ embeddings.T, test["identity"].to_numpy(str)


def _whole_identities(images: pd.DataFrame, identity: str, most: int) -> pd.DataFrame:
    """The first images, in order of the column that tells people apart: whole people, one or up to `most` images."""
    ends = images.groupby(identity, sort=False).size().cumsum()
    return images.head(int(ends[ends <= max(most, *ends.head(1))].max()) if len(ends) else 0)


def embedding_map(features: Features, split: Split, most: int = 800, seed: int = 0) -> pd.DataFrame:
    """Test images of the split's own aspect in two dimensions by t-SNE of the cosine, started from the two main axes.

    Neighbours on the map are neighbours in the embedding; distances between groups, and the groups' sizes, mean
    nothing. Columns path, identity, x, y: whole identities, those with the most images first, up to `most` images.

    Source: van der Maaten & Hinton, "Visualizing Data using t-SNE", JMLR, 2008.
    """
    test = split.images[split.images["role"] == "test"]
    size = test.groupby("identity")["path"].transform("size")
    test = test.assign(size=size).sort_values(["size", "identity", "path"], ascending=[False, True, True])
    shown = _whole_identities(test, "identity", most)
    if len(shown) < FEWEST:
        raise EvaluationError(f"{len(shown)} test images: a map needs at least {FEWEST}; take more data")
    from sklearn.manifold import TSNE  # slow to import, and whoever browses a ranking does without

    # scaled to length 1, the squared Euclidean distance is 2 - 2 cosine: the same neighbours
    layout = TSNE(perplexity=min(30.0, (len(shown) - 1) / 3), init="pca", random_state=seed)
    points = layout.fit_transform(np.asarray(features.of(shown["path"]), np.float32))
    return shown[["path", "identity"]].reset_index(drop=True).assign(x=points[:, 0], y=points[:, 1])
