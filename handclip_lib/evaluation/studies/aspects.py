"""Cross-view matching and fusion: two aspects of a hand together, or one in a gallery of the other."""

import numpy as np
import pandas as pd

from handclip_lib.backbone.load import Backbone
from handclip_lib.data.images import DecodedImages
from handclip_lib.data.manifest import Split
from handclip_lib.data.table import ASPECTS, identity_order
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.features import Features, extract_features, mirrored
from handclip_lib.evaluation.studies.enrolment import (
    FusionResult,
    Trial,
    enrolled_paths,
    fused_trial,
    fusion_result,
    image_keys,
    left_over,
)
from handclip_lib.models.trained import Trained
from handclip_lib.parameters.notebooks import Evaluation


def cross_view(
    model: Backbone | Trained, images: DecodedImages, split: Split, config: Evaluation
) -> tuple[list[FusionResult], dict[str, str]]:
    """`across_aspects` of notebook 05: the tested images of all aspects are embedded here, as they are and mirrored."""
    tested = images.select(split.paths("test") + split.paths("other"))
    plain, flipped = (
        extract_features(encode, tested, encoder_key=model.fingerprint + kind, batch_size=config.batch_size)
        for encode, kind in ((model.encode_image, ""), (mirrored(model.encode_image), " mirrored"))
    )
    return across_aspects(plain, split, flipped, bootstrap=config.bootstrap, seed=config.seed)


def across_aspects(
    features: Features, split: Split, flipped: Features | None = None, *, bootstrap: int = 1000, seed: int = 0
) -> tuple[list[FusionResult], dict[str, str]]:
    """What a split's own aspect gives together with each other aspect, and in its gallery.

    Args:
        features: Embeddings of the tested images of all aspects: roles "test" and "other".
        flipped: Embeddings of the own aspect's images flipped, under the same paths, for the other hand's gallery.

    Returns:
        The results, and the reason for each aspect that could not be had, such as people who trained.
    """
    own, images = split.meta["aspect"], split.images
    view, _, side = own.partition("_")
    others = sorted(set(images.loc[images["role"] == "other", "aspect"]) - {own})
    results: list[FusionResult] = []
    refused = {}
    for other in others:
        try:
            found = fuse_aspects(features, split, (own, other), bootstrap, seed)
            found.append(cross_aspect(features, split, own, other, None, bootstrap, seed))
            if flipped is not None and other.startswith(view) and not other.endswith(f"_{side}"):
                found.append(cross_aspect(features, split, own, other, flipped, bootstrap, seed))
            results += found
        except EvaluationError as error:
            refused[other] = str(error)
    return results, refused or ({} if others else {"other aspects": "this split tests none"})


def fuse_aspects(
    features: Features, split: Split, aspects: tuple[str, str], bootstrap: int = 1000, seed: int = 0
) -> list[FusionResult]:
    """Recognise a person by images of two aspects at once, beside either alone, on the same probes and identities.

    A probe is a query image of each aspect of one person, paired in the order of a keyed hash, each image once; an
    identity without both aspects is left out. The gallery holds one image of each aspect of each identity, and the
    score is the mean of the two aspects' cosines.

    Args:
        features: Embeddings of the images of both aspects.
        split: A manifest that tests both aspects, such as any proportional one of data with both.
        aspects: Two of `ASPECTS`.

    Raises:
        EvaluationError: A person that is tested trained, an aspect has no image, or nobody has both.
    """
    rows = [_of_aspect(split, aspect) for aspect in aspects]
    trials: dict[str, list[Trial]] = {name: [] for name in (*aspects, f"{' + '.join(aspects)}, mean")}
    for trial in range(split.meta["draws"]):
        galleries = [enrolled_paths(own, trial, split.meta["seed"], 1) for own in rows]
        both = sorted(set(galleries[0]) & set(galleries[1]), key=identity_order)
        asked = [left_over(own, gallery) for own, gallery in zip(rows, galleries, strict=True)]
        probes = _paired(asked, trial, split.meta["seed"])
        if len(both) < 2 or probes.empty:
            raise EvaluationError(
                f"{len(both)} test identities have images of both {aspects[0]} and {aspects[1]}, with {len(probes)} "
                "probes; choose aspects that are photographed of the same people, twice or more"
            )
        alone = []
        for side, gallery in enumerate(galleries):
            enrolled = {identity: gallery[identity] for identity in both}
            alone.append(fused_trial(features.of(probes[side]), probes["identity"], features, enrolled, "max"))
        together = np.stack([similarity for similarity, _, _ in alone]).mean(0)
        for name, found in zip(trials, (*alone, (together, *alone[0][1:])), strict=True):
            trials[name].append(found)
    return [fusion_result(name, found, bootstrap, seed) for name, found in trials.items()]


def cross_aspect(
    features: Features, split: Split, query: str, gallery: str, flipped: Features | None = None,
    bootstrap: int = 1000, seed: int = 0,
) -> FusionResult:  # fmt: skip
    """Recognise images of one aspect in a gallery of another: palm against back, left against right.

    The queries are those of the draws of the query's own aspect, so that figures compare; the gallery holds one image
    of each person of the other aspect. A query whose person is not there is unmatched and counted.

    Args:
        features: Embeddings of the images of both aspects.
        split: A manifest that tests both aspects, such as any proportional one of data with both.
        flipped: Embeddings of the *flipped* query images, under the same paths: a mirrored left hand has the shape of
            a right one. The images as they are by default.

    Raises:
        EvaluationError: A person that is tested trained, or an aspect has no image.
    """
    asked, held = _of_aspect(split, query), _of_aspect(split, gallery)
    trials = []
    for trial in range(split.meta["draws"]):
        enrolled = enrolled_paths(held, trial, split.meta["seed"], 1)
        queries = left_over(asked, enrolled_paths(asked, trial, split.meta["seed"], 1))
        embeddings = (flipped or features).of(queries["path"])
        trials.append(fused_trial(embeddings, queries["identity"], features, enrolled, "max"))
    return fusion_result(f"{query}{' flipped' if flipped else ''} in {gallery}", trials, bootstrap, seed)


def _of_aspect(split: Split, aspect: str) -> pd.DataFrame:
    """The tested images of an aspect; refused when a person of them trained, as the published cut-offs make happen."""
    if aspect not in ASPECTS:
        raise EvaluationError(f"unknown aspect {aspect!r}; choose from {', '.join(ASPECTS)}")
    rows = split.images[split.images["role"].isin(["test", "other"]) & (split.images["aspect"] == aspect)]
    if rows.empty:
        raise EvaluationError(f"this split tests no image of {aspect}; make it from data that has both aspects")
    both = set(rows["identity"]) & (split.identities("train") | split.identities("val"))
    if both:
        some = ", ".join(sorted(both, key=identity_order)[:5])
        raise EvaluationError(
            f"{len(both)} people tested on {aspect} trained in the split of {split.meta['aspect']} "
            f"({some}{', …' if len(both) > 5 else ''}): the cut-offs of protocol {split.meta['protocol']!r} "
            "differ between aspects. Train and test on one split of protocol='proportional'"
        )
    return rows


def _paired(queries: list[pd.DataFrame], trial: int, seed: int) -> pd.DataFrame:
    """The n-th query of each identity in one aspect with its n-th in the other: columns 0 and 1, and identity."""
    sides = []
    for side, rows in enumerate(queries):
        ranked = rows.assign(key=image_keys(rows, seed, f"pair {trial}")).sort_values(["identity", "key"])
        nth = ranked.groupby("identity").cumcount()
        sides.append(ranked[["identity", "path"]].assign(nth=nth).rename(columns={"path": side}))
    return sides[0].merge(sides[1], on=["identity", "nth"])
