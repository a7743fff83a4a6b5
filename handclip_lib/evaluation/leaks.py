"""What could make a figure better than the model: people, files and choices that the test must not share."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from handclip_lib.data.images import DecodedImages
from handclip_lib.data.manifest import Split
from handclip_lib.data.splits import refuse_leak
from handclip_lib.errors import DataError, EvaluationError
from handclip_lib.evaluation.baselines import BASELINE
from handclip_lib.evaluation.copies import find_copies, seen_photographs
from handclip_lib.evaluation.features import Features
from handclip_lib.models.trained import Training
from handclip_lib.parameters.notebooks import SELECTED_ON_TEST, Evaluation

YES, NO, STATED, UNKNOWN = "yes", "no", "stated", "not checked"
SELECTIONS = {
    "nothing": (YES, "The weights are the backbone's published ones: no image of this split chose them."),
    "tiny": (STATED, "Its recipe was chosen with figures of people tested here in view: see the card of tiny."),
    "unknown": (UNKNOWN, "The weights are a file: what chose them, and on whose images, is not known here."),
    "val": (YES, "The epoch was chosen on validation images of the training; no test image chose it."),
    "test": (NO, f'Test images chose the epoch: every figure is to be labelled "{SELECTED_ON_TEST}".'),
}  # fmt: skip


def leak_checks(
    split: Split,
    *,
    trained: Split | None,
    selected_on: str,
    pixel_features: Features | None,
    images: DecodedImages | None = None,
    seen: DecodedImages | None = None,
    near: float = 0.98,
) -> pd.DataFrame:
    """Check that the test is one, and say in plain sentences what was found.

    Args:
        split: The manifest that is tested on.
        trained: The manifest the weights were trained on; None where there is none.
        selected_on: What chose the weights: "nothing" for published ones, "tiny" for those shipped here, "unknown" for
            a file that says nothing of itself, "val" or "test" as the training's `validation` was.
        pixel_features: `pixel_embeddings` of at least the test images, to count near-duplicates among
            them (other aspects and distractors are not looked at); None: not counted.
        images: Decoded images of at least `split.evaluated_paths()`, to compare the content of files; None: their
            paths alone are compared.
        seen: Photographs that trained, decoded as `images` are, as `seen_photographs` finds them; None: they are not
            at hand.
        near: Cosine from which two images are near-duplicates, -1..1.

    Returns:
        A row a check: check, passed ("yes", "no", "stated" where a count is given to be judged, or "not checked"),
        detail.

    Raises:
        EvaluationError: A tested person or photograph trained the weights, or `selected_on` or `near` is out of range.
    """
    if selected_on not in SELECTIONS:
        raise EvaluationError(f"selected_on={selected_on!r}; choose from {', '.join(SELECTIONS)}")
    if not -1 <= near <= 1:
        raise EvaluationError(f"near={near}: a cosine in -1..1 is wanted")
    rows = {
        "people": _people(split, trained),
        "copies": _copies(split, trained, images, seen),
        "files": _files(split, images),
        "near-duplicates": _near_duplicates(split, pixel_features, near),
        "selection": SELECTIONS[selected_on],
        "labels": (
            YES,
            "Embeddings are made of images alone: the encoder is handed no identity, so none can reach it.",
        ),
    }
    return pd.DataFrame([(name, *found) for name, found in rows.items()], columns=["check", "passed", "detail"])


def check_evaluation(
    config: Evaluation,
    split: Split,
    images: DecodedImages,
    features: Mapping[str, Features],
    training: Training | None,
) -> pd.DataFrame:
    """`leak_checks` of notebook 05.

    Args:
        images: Decoded images of at least `split.evaluated_paths()`.
        features: Of the same images, the pixels' among them, as `embed_with_baselines` makes them.
        training: What made the weights, as far as a run did.
    """
    return leak_checks(
        split,
        trained=training.split if training else manifest_beside(config.weights),
        selected_on=config.selected_on(training.parameters if training else None),
        pixel_features=features[f"{BASELINE}pixels"],
        images=images,
        seen=seen_photographs(training.split, training.parameters, images, config.fit) if training else None,
    )


def _people(split: Split, trained: Split | None) -> tuple[str, str]:
    if trained is None:
        return UNKNOWN, "No training manifest was given: whether the weights saw these people is not known here."
    try:
        known, said = refuse_leak(trained, split)
    except DataError as leak:
        raise EvaluationError(str(leak)) from leak
    return YES if known else UNKNOWN, said


def _copies(
    split: Split, trained: Split | None, images: DecodedImages | None, seen: DecodedImages | None
) -> tuple[str, str]:
    if trained is None or images is None or seen is None:
        return UNKNOWN, (
            "The photographs that trained are not at hand: copies of them in other files, saved again or resized, "
            "were not looked for."
        )
    found = find_copies(images.select(split.paths("test")), seen)
    wanted = int(trained.images["role"].isin(["train", "val"]).sum())
    looked = f"{found.n_seen} of {wanted} photographs that trained were looked at (cosine of fine 32×32 pixels)"
    if found.tested:
        return NO, (
            f"{len(found.tested)} tested photographs are near-duplicates of one that trained, such as "
            f"{found.tested[0]} of {found.seen[0]}: these people are no strangers to the weights. {looked}."
        )
    complete = YES if found.n_seen == wanted else UNKNOWN
    return complete, f"No tested photograph is a near-duplicate of one that trained. {looked}."


def manifest_beside(weights: str) -> Split | None:
    """The manifest of the run whose folder a file of weights lies in; None where there is none."""
    folder = Path(weights).expanduser().parent
    return Split.read(folder) if weights and (folder / "split.csv").is_file() else None


def _files(split: Split, images: DecodedImages | None) -> tuple[str, str]:
    def names(paths: np.ndarray) -> list[str]:
        return list(paths) if images is None else [images.content_keys[row] for row in images.rows(paths)]

    shared: list[tuple[str, str]] = []
    for trial in range(split.meta["draws"]):
        draw = split.draw(trial, "all")
        held = dict(zip(names(draw.gallery_paths), draw.gallery_paths, strict=True))
        asked = zip(names(draw.query_paths), draw.query_paths, strict=True)
        shared += [(path, held[name]) for name, path in asked if name in held]
    compared = "by path alone" if images is None else "by path and content"
    if not shared:
        return YES, f"No query is the same file as a gallery image of its draw, compared {compared}."
    query, gallery = shared[0]
    return NO, (
        f"{len(shared)} queries of all draws are the same file as a gallery image, compared {compared}, such as "
        f"{query} and {gallery}: they are found without recognising anybody. Remove the copies."
    )


def _near_duplicates(split: Split, features: Features | None, near: float) -> tuple[str, str]:
    if features is None:
        return UNKNOWN, "Near-duplicates were not looked for: no pixel features were given."
    test = split.paths("test")
    asked, own, others = 0, 0, 0
    for trial in range(split.meta["draws"]):
        draw = split.draw(trial)
        held = np.isin(draw.gallery_paths, test)  # no distractors: their pixels may not be among the features
        found = features.of(draw.query_paths) @ features.of(draw.gallery_paths[held]).T >= near
        same = draw.query_ids[:, None] == draw.gallery_ids[held]
        asked += len(found)
        own += int((found & same).any(1).sum())
        others += int((found & ~same).any(1).sum())
    return STATED, (
        f"{own} of {asked} queries of all draws ({own / asked:.1%}) have a near-duplicate of their own person in the "
        f"gallery (cosine of 32×32 pixels of {near} or more): they can be found by the photograph alone. {others} "
        f"({others / asked:.1%}) have one of someone else."
    )
