"""Two aspects of a hand: recognised by both together, or one in a gallery of the other."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from handclip_lib.data.manifest import Split
from handclip_lib.data.table import ASPECTS, identity_order
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.studies.enrolment import (
    FusionResult,
    enrolled_paths,
    fused_scores,
    fusion_result,
    keyed,
    known_rules,
    left_over,
)

SCORE_RULES = ("mean", "max")


def fuse_aspects(
    features: Features,
    split: Split,
    aspects: tuple[str, str] = ("dorsal_r", "palmar_r"),
    rules: Sequence[str] = ("mean",),
    *,
    trained: Sequence[Split] = (),
    bootstrap: int = 1000,
    seed: int = 0,
) -> list[FusionResult]:
    """Recognise a person by images of two aspects at once, beside either alone, on the same probes and identities.

    A probe is a query image of each aspect of one person, paired in the order of a keyed hash, each image once; an
    identity without both aspects is left out. The gallery holds one image of each aspect of each identity, and the
    score is the rule over the two aspects' cosines.

    Args:
        features: Embeddings of the images of both aspects (of two models, if each has its own).
        split: A manifest that tests both aspects, such as any proportional one of data with both.
        aspects: Two of `ASPECTS`.
        rules: "mean" or "max".
        trained: Splits that the models were trained with, where that is not `split`.
        bootstrap: Resamples of the identities.
        seed: Seed of the resampling.

    Raises:
        EvaluationError: A person that is tested trained, an aspect has no image, or nobody has both.
    """
    known_rules(rules, SCORE_RULES)
    if len(set(aspects)) != 2:
        raise EvaluationError(f"aspects={aspects}: two different ones are wanted; for one, see `enrol_several`")
    first, second = (_of_aspect(split, aspect, trained) for aspect in aspects)
    names = (aspects[0], aspects[1], *(f"{aspects[0]} + {aspects[1]}, {rule}" for rule in rules))
    trials: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {name: [] for name in names}
    for trial in range(split.meta["draws"]):
        galleries = [enrolled_paths(rows, trial, split.meta["seed"], 1) for rows in (first, second)]
        both = sorted(set(galleries[0]) & set(galleries[1]), key=identity_order)
        probes = _paired([left_over(r, g) for r, g in zip((first, second), galleries, strict=True)], trial, split)
        if len(both) < 2 or probes.empty:
            raise EvaluationError(
                f"{len(both)} test identities have images of both {aspects[0]} and {aspects[1]}, with {len(probes)} "
                "probes; choose aspects that are photographed of the same people, twice or more"
            )
        enrolled = [{identity: gallery[identity] for identity in both} for gallery in galleries]
        scores = np.stack([fused_scores(features.of(probes[side]), features, enrolled[side], "max") for side in (0, 1)])
        together = [scores.max(0) if rule == "max" else scores.mean(0) for rule in rules]
        for name, similarity in zip(names, (*scores, *together), strict=True):
            trials[name].append((similarity, probes["identity"].to_numpy(str), np.array(both)))
    return [fusion_result(name, found, bootstrap, seed) for name, found in trials.items()]


def cross_aspect(
    features: Features,
    split: Split,
    query: str = "dorsal_r",
    gallery: str = "dorsal_l",
    *,
    query_features: Features | None = None,
    trained: Sequence[Split] = (),
    bootstrap: int = 1000,
    seed: int = 0,
) -> FusionResult:
    """Recognise images of one aspect in a gallery of another: palm against back, left against right.

    The queries are those of the draws of the query's own aspect, so that figures compare; the gallery holds one image
    of each person of the other aspect. A query whose person is not there is unmatched and counted.

    Args:
        features: Embeddings of the images of both aspects.
        split: A manifest that tests both aspects, such as any proportional one of data with both.
        query: Aspect of the queries.
        gallery: Aspect of the gallery.
        query_features: Embeddings of the *flipped* query images, under the same paths: a mirrored left hand has the
            shape of a right one. The images as they are by default.
        trained: Splits that the model was trained with, where that is not `split`.
        bootstrap: Resamples of the identities.
        seed: Seed of the resampling.

    Raises:
        EvaluationError: A person that is tested trained, an aspect has no image, or nobody has both.
    """
    asked, held = (_of_aspect(split, aspect, trained) for aspect in (query, gallery))
    trials = []
    for trial in range(split.meta["draws"]):
        enrolled = enrolled_paths(held, trial, split.meta["seed"], 1)
        queries = left_over(asked, enrolled_paths(asked, trial, split.meta["seed"], 1))
        similarity = fused_scores((query_features or features).of(queries["path"]), features, enrolled, "max")
        trials.append((similarity, queries["identity"].to_numpy(str), np.array(list(enrolled))))
    flipped = " flipped" if query_features is not None else ""
    return fusion_result(f"{query}{flipped} in {gallery}", trials, bootstrap, seed)


def across_aspects(
    features: Features, split: Split, mirrored: Features | None = None, *, bootstrap: int = 1000, seed: int = 0
) -> tuple[list[FusionResult], dict[str, str]]:
    """What a split's own aspect gives together with each other aspect, and in its gallery.

    Args:
        features: Embeddings of the tested images of all aspects: roles "test" and "other".
        split: The manifest.
        mirrored: Embeddings of the own aspect's images flipped, under the same paths, for the other hand's gallery.
        bootstrap: Resamples of the identities.
        seed: Seed of the resampling.

    Returns:
        The results, and the reason for each aspect that could not be had, such as people who trained.
    """
    own = split.meta["aspect"]
    view, _, side = own.partition("_")
    images = split.images
    others = sorted(set(images.loc[images["role"] == "other", "aspect"]) - {own})
    results: list[FusionResult] = []
    refused = {}
    options: dict[str, Any] = {"bootstrap": bootstrap, "seed": seed}
    for other in others:
        try:
            found = fuse_aspects(features, split, (own, other), **options)
            found.append(cross_aspect(features, split, own, other, **options))
            if mirrored is not None and other.startswith(view) and not other.endswith(f"_{side}"):
                found.append(cross_aspect(features, split, own, other, query_features=mirrored, **options))
            results += found
        except EvaluationError as error:
            refused[other] = str(error)
    return results, refused or ({} if others else {"other aspects": "this split tests none"})


def _of_aspect(split: Split, aspect: str, trained: Sequence[Split]) -> pd.DataFrame:
    """The tested images of an aspect; refused when a person of them trained, as the published cut-offs make happen."""
    if aspect not in ASPECTS:
        raise EvaluationError(f"unknown aspect {aspect!r}; choose from {', '.join(ASPECTS)}")
    images = split.images
    rows = images[images["role"].isin(["test", "other"]) & (images["aspect"] == aspect)]
    if rows.empty:
        raise EvaluationError(f"this split tests no image of {aspect}; make it from data that has both aspects")
    for other in (split, *trained):
        if other.meta["dataset"] == split.meta["dataset"]:
            both = set(rows["identity"]) & (other.identities("train") | other.identities("val"))
            if both:
                some = ", ".join(sorted(both, key=identity_order)[:5])
                raise EvaluationError(
                    f"{len(both)} people tested on {aspect} trained in the split of {other.meta['aspect']} "
                    f"({some}{', …' if len(both) > 5 else ''}): the cut-offs of protocol {other.meta['protocol']!r} "
                    "differ between aspects. Train and test on one split of protocol='proportional'"
                )
    return rows


def _paired(queries: list[pd.DataFrame], trial: int, split: Split) -> pd.DataFrame:
    """The n-th query of each identity in one aspect with its n-th in the other: columns 0 and 1, and identity."""
    sides = []
    for side, rows in enumerate(queries):
        keys = [
            keyed(split.meta["seed"], f"pair {trial}|{identity}", path)
            for identity, path in zip(rows["identity"], rows["path"], strict=True)
        ]
        ranked = rows.assign(key=keys).sort_values(["identity", "key"])[["identity", "path"]]
        sides.append(ranked.assign(nth=ranked.groupby("identity").cumcount()).rename(columns={"path": side}))
    return sides[0].merge(sides[1], on=["identity", "nth"])
