"""What could make a figure better than the model: people, files and choices that the test must not share."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from handclip_lib.data.content import content_keys
from handclip_lib.data.images import DecodedImages
from handclip_lib.data.manifest import Split
from handclip_lib.data.open import OPENED_BY, decode_table, open_table
from handclip_lib.data.splits import TRAIN_ONLY, refuse_leak
from handclip_lib.drawn.dataset import TINY_SEED
from handclip_lib.errors import DataError, EvaluationError
from handclip_lib.evaluation.features import BASELINE, Features
from handclip_lib.evaluation.tables import in_percent
from handclip_lib.models.lineage import lineage_beside
from handclip_lib.models.trained import Training
from handclip_lib.parameters.notebooks import SELECTED_ON_TEST, Evaluation
from handclip_lib.parameters.parts import Data
from handclip_lib.terminal import counted

YES, NO, STATED, UNKNOWN = "yes", "no", "stated", "not checked"
SELECTIONS = {
    "nothing": (YES, "The weights are the backbone's published ones: no image of this split chose them."),
    "tiny": (STATED, "Their recipe was chosen with figures of drawn hands and of 11k Hands in view: see their card."),
    "unknown": (UNKNOWN, "The weights are a file: what chose them, and on whose images, is not known here."),
    "embeddings": (UNKNOWN, "Another program made the embeddings: what chose its weights is not known here."),
    "people": (YES, "The epoch was chosen on training people held out of the training; no test image chose it."),
    "val": (YES, "The epoch was chosen on validation images of the training; no test image chose it."),
    "test": (NO, f'Test images chose the epoch: every figure is to be labelled "{SELECTED_ON_TEST}".'),
}  # fmt: skip
LABELS = YES, "Embeddings are made of images alone: the encoder is handed no identity, so none can reach it."
UNSEEN = UNKNOWN, "Another program made the embeddings: whether labels reached it is not known here."
SIDE, COARSE = 32, 8  # pixels; what is seen at the coarse side, light and outline, is taken away
COPY = 0.9
"""Cosine of `prints` from which two photographs are one.

Measured: of 0.29 million pairs of different people of the 11k Hands sample (764 photographs, 175 people) the nearest
has 0.864, of 1.3 million pairs of drawn hands 0.820: none is taken for a copy. Copies saved as JPEG of quality 75 and
30, and at half the size, have 0.96 and more, of quality 10 at least 0.88, brightened by a tenth 0.96. Plain 32×32
pixels cannot tell them apart: people reach 0.977, and a copy of quality 10 has 0.979.
"""
AT_ONCE = 1024


def leak_checks(
    split: Split, *, trained: Sequence[Split], selected_on: str, pixel_features: Features,
    images: DecodedImages, seen: Sequence[DecodedImages | None] = (), near: float = 0.98,
) -> pd.DataFrame:  # fmt: skip
    """Check that the test is one, and say in plain sentences what was found.

    Args:
        trained: The manifests the weights were trained on; none where it is not known.
        selected_on: What chose the weights: "nothing" for published ones, "tiny" for those shipped here, "unknown" for
            a file that says nothing of itself, "embeddings" for those of another program, "people",
            "val" or "test" as the training's `validation` was.
        pixel_features: `pixel_embeddings` of at least the test images, to count near-duplicates among them.
        images: Decoded images of at least `split.evaluated_paths()`, to compare the content of files.
        seen: Photographs that trained, of each manifest, decoded as `images` are; None: they are not at hand.
        near: Cosine from which two images are near-duplicates, -1..1.

    Returns:
        A row a check: check, passed ("yes", "no", "stated": a count to be judged, or "not checked"), detail. A tested
        person or photograph that trained the weights is an error.
    """
    if selected_on not in SELECTIONS:
        raise EvaluationError(f"selected_on={selected_on!r}; choose from {', '.join(SELECTIONS)}")
    if not -1 <= near <= 1:
        raise EvaluationError(f"near={near}: a cosine in -1..1 is wanted")
    rows = {
        "people": _of_tiny(split) if selected_on == "tiny" else _people(split, trained),
        "copies": _of_tiny(split) if selected_on == "tiny" else _copies(split, trained, images, seen),
        "files": _files(split, images), "near-duplicates": _near_duplicates(split, pixel_features, near),
        "selection": SELECTIONS[selected_on], "labels": UNSEEN if selected_on == "embeddings" else LABELS,
    }  # fmt: skip
    return pd.DataFrame([(name, *answer) for name, answer in rows.items()], columns=["check", "passed", "detail"])


def check_evaluation(
    config: Evaluation, split: Split, images: DecodedImages, features: Mapping[str, Features], training: Training | None
) -> pd.DataFrame:
    """`leak_checks` of notebook 05, of features of all models; `training` made the weights, as far as a run did."""
    lineage = training.lineage if training else lineage_beside(config.weights)
    return leak_checks(
        split,
        trained=[one.split for one in lineage],
        selected_on=training.selected_on if training else config.selected_on,
        pixel_features=features[f"{BASELINE}pixels"],
        images=images,
        seen=[seen_photographs(one.split, one.opened, images, config) for one in lineage],
    )


def _of_tiny(split: Split) -> tuple[str, str]:
    if split.meta["dataset"] == "drawn" and split.meta["seed"] == TINY_SEED:
        return NO, f"The weights learnt of the very people that seed={TINY_SEED} draws: choose another seed."
    return YES, "The weights learnt of drawn hands alone, and of other people than are tested here: see their card."


def _people(split: Split, trained: Sequence[Split]) -> tuple[str, str]:
    if not trained:
        return UNKNOWN, "No training manifest was given: whether the weights saw these people is not known here."
    try:
        found = [refuse_leak(one, split) for one in trained]
    except DataError as leak:
        raise EvaluationError(str(leak)) from leak
    return YES if all(known for known, _ in found) else UNKNOWN, " ".join(said for _, said in found)


def _copies(
    split: Split, trained: Sequence[Split], images: DecodedImages, seen: Sequence[DecodedImages | None]
) -> tuple[str, str]:
    there = [one for one in seen if one is not None]
    if not there:
        said = "copies of them in other files, saved again or resized, were not looked for."
        return UNKNOWN, f"The photographs that trained are not at hand: {said}"
    tests, copies = images.select(split.paths("test")), dict[str, str]()
    for one in there:
        copies = find_copies(tests, one) | copies
    wanted = sum(int(one.images["role"].isin(["train", "val"]).sum()) for one in trained)
    n_seen = sum(len(one.paths) for one in there)
    looked = f"Looked at: {n_seen:,} of {counted(wanted, 'photograph')} that trained (cosine of fine 32×32 pixels)"
    if copies:
        tested, trained_on = next(iter(copies.items()))
        return NO, (
            f"Tested photographs that are near-duplicates of one that trained: {len(copies):,}, such as "
            f"{tested} of {trained_on}: these people are no strangers to the weights. {looked}."
        )
    complete = YES if n_seen == wanted else UNKNOWN
    return complete, f"No tested photograph is a near-duplicate of one that trained. {looked}."


def _files(split: Split, images: DecodedImages) -> tuple[str, str]:
    def names(paths: np.ndarray) -> list[str]:
        return [images.content_keys[row] for row in images.rows(paths)]

    shared: list[tuple[str, str]] = []
    for draw in split.draws("all"):
        gallery = dict(zip(names(draw.gallery_paths), draw.gallery_paths, strict=True))
        queries = zip(names(draw.query_paths), draw.query_paths, strict=True)
        shared += [(path, gallery[name]) for name, path in queries if name in gallery]
    if not shared:
        return YES, "No query is the same file as a gallery image of its draw, compared by path and content."
    query, copy = shared[0]
    return NO, (
        f"Queries that are the same file as a gallery image of their draw, compared by path and content: "
        f"{len(shared):,} over all draws, such as {query} and {copy}. They are found without recognising anybody: "
        "remove the copies."
    )


def _near_duplicates(split: Split, features: Features, near: float) -> tuple[str, str]:
    test = split.paths("test")
    asked, own, others = 0, 0, 0
    for draw in split.draws():
        known = np.isin(draw.gallery_paths, test)  # no distractors: their pixels may not be among the features
        alike = features.of(draw.query_paths) @ features.of(draw.gallery_paths[known]).T >= near
        same = draw.query_ids[:, None] == draw.gallery_ids[known]
        asked += len(alike)
        own += int((alike & same).any(1).sum())
        others += int((alike & ~same).any(1).sum())
    return STATED, (
        f"{own:,} of the {asked:,} queries of all draws ({in_percent(own / asked)} %) have a near-duplicate of their "
        f"own person in the gallery (cosine of 32×32 pixels of {near} or more): they can be found by the photograph "
        "alone. "
        f"{others:,} ({in_percent(others / asked)} %) have one of someone else."
    )


def prints(pixels: np.ndarray) -> np.ndarray:
    """What photographs, uint8 (n, height, width, 3), show beside light and outline.

    float32 (n, 3072), of length 1, or 0 where one shows nothing.
    """
    rows = np.empty((len(pixels), SIDE * SIDE * 3), np.float32)
    for row, image in zip(rows, map(Image.fromarray, pixels), strict=True):
        coarse = image.resize((COARSE, COARSE), Image.Resampling.BOX).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        fine = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32) - np.asarray(coarse, np.float32)
        row[:] = (fine - fine.mean()).ravel()
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=rows, where=length > 0)


def find_copies(tested: DecodedImages, seen: DecodedImages, near: float = COPY) -> dict[str, str]:
    """Tested photographs with a cosine of `prints` from `near` to one that trained, and that one; all decoded alike."""
    asked = prints(tested.pixels)
    best, place = np.full(len(asked), -np.inf, np.float32), np.zeros(len(asked), np.int64)
    for start in range(0, len(seen.paths), AT_ONCE):
        block = prints(seen.pixels[start : start + AT_ONCE])
        cosine = asked @ block.T
        better = cosine.max(axis=1) > best
        best, place = np.maximum(best, cosine.max(axis=1)), np.where(better, start + cosine.argmax(axis=1), place)
    return {tested.paths[row]: seen.paths[place[row]] for row in np.flatnonzero(best >= near)}


def seen_photographs(
    trained: Split, parameters: Mapping[str, Any], like: DecodedImages, config: Data
) -> DecodedImages | None:
    """The photographs a training saw, where its parameters say, if their content is still the recorded one.

    Decoded in the size and by the interpolation of the images they are to be `like`, as `config` has those decoded;
    None where there is none.
    """
    rows = trained.images[trained.images["role"].isin(["train", "val"]) & (trained.images["content"] != "")]
    if "dataset" not in parameters:  # its record is gone
        return None
    given = {name: parameters[name] for name in (*OPENED_BY, "sample_range") if name in parameters}
    size = like.pixels.shape[1:3]
    try:
        asked = Data(fit=config.fit, decode=config.decode, **given)
        table = open_table(asked)
        if trained.meta["protocol"] == TRAIN_ONLY:  # no other photograph of it was decoded
            own = table.images["path"].isin(rows["path"])
            table = replace(table, images=table.images[own].reset_index(drop=True))
        same = np.array(content_keys(table.root, rows["path"], progress=False)) == rows["content"].to_numpy()
        if not same.any():
            return None
        # all of them, as the training decoded them: then they are in the cache
        _, images = decode_table(table, asked, size[0] if size[0] == size[1] else size, like.interpolation)
    except DataError:
        return None
    decoded = set(images.paths)
    return images.select([path for path in rows["path"][same] if path in decoded])
