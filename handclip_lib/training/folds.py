"""Folds by people: how many epochs help those who never trained, measured before everybody trains for so many."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from handclip_lib.backbone.load import Backbone
from handclip_lib.data.folds import Folds
from handclip_lib.data.images import DecodedImages
from handclip_lib.data.manifest import Split
from handclip_lib.evaluation.studies.prompts import labelled
from handclip_lib.models.trained import PROMPTS, TRAINING, image_encoder, read_texts
from handclip_lib.parameters.notebooks import ImageFinetune
from handclip_lib.training.image import fit_image
from handclip_lib.training.launch import Processes
from handclip_lib.training.sets import ExtraSet
from handclip_lib.training.state import History, keep_history
from handclip_lib.training.validation import STRANGERS, TRAINED, training_images

PLACE = "folds"


@dataclass(frozen=True)
class FoldHistory:
    """What the trainings without a fold measured.

    Attributes:
        history: One row an epoch that all of them reached: means over the folds of all that `fit_image` measures; the
            ends of an interval are those of the mean of independent figures.
        each: Rows of all, with the column fold, from 1. Both are empty where there was no fold.
        best_epoch: The epoch whose mean `select_by` is the highest (the loss: the lowest), 0 where it is the frozen
            model; None where there was no fold.
    """

    history: pd.DataFrame
    each: pd.DataFrame
    best_epoch: int | None


def fit_folds(
    backbone: Backbone, images: DecodedImages, split: Split, folds: Folds, options: ImageFinetune, *,
    texts: np.ndarray | None = None, folder: Path | None = None, extra: Sequence[ExtraSet] = (), progress: bool = True,
) -> FoldHistory:  # fmt: skip
    """Train without each fold's people in turn, and measure every epoch on them; nothing where nobody trains after it.

    Args:
        backbone: Stays as it is: each training begins with a copy.
        texts: Text features of all training identities; a fold whose folder has `fold_prompts` takes those.
        folder: Where each keeps its checkpoint, `folds/1` …: of one that has ended the history alone. A killed one
            goes on.
        extra: Data sets that train in each.
    """
    if not folds.trains_all:
        return FoldHistory(pd.DataFrame(), pd.DataFrame(), None)
    everybody = (*labelled(split)[0], *(name for one in extra for name in one.identities))
    found = []
    for number in range(len(folds.held_out)):
        part = training_images(images, split, folds.only(number), extra)
        own = np.isin(everybody, part.identities)
        place = None if folder is None else folder / PLACE / str(number + 1)
        text = None if texts is None else texts[own]
        if place is not None and texts is not None and (place / PROMPTS).exists():
            text = read_texts(place / PROMPTS, backbone, part.identities)
        encoder = image_encoder(backbone.copy(), len(part.identities), options)
        result = fit_image(
            encoder, part.pixels, part.labels, options, text=text, validate=part.validate, folder=place,
            progress=progress,
        )  # fmt: skip
        if place is not None and Processes(encoder.classifier.device).is_main:
            keep_history(place / TRAINING)
        found.append(result.history)
    history = mean_history(found)
    return FoldHistory(
        history,
        pd.concat(dict(enumerate(found, 1)), names=["fold"]).reset_index("fold"),
        choose(history, options.select_by),
    )


def mean_history(found: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Means of some histories over the epochs that all have reached; see `FoldHistory.history`."""
    rows = min(map(len, found))
    values = np.stack([one[:rows].to_numpy(np.float64) for one in found])
    mean = pd.DataFrame(values.mean(axis=0), columns=found[0].columns).astype({"epoch": int})
    for name in (f"{kind}_rank1" for kind in (STRANGERS, TRAINED)):
        for end in ("low", "high"):
            if f"{name}_{end}" in mean:
                away = np.stack([(one[f"{name}_{end}"] - one[name])[:rows] for one in found])
                sign = -1 if end == "low" else 1
                mean[f"{name}_{end}"] = mean[name] + sign * np.sqrt(np.square(away).sum(axis=0)) / len(found)
    return mean


def choose(history: pd.DataFrame, select_by: str) -> int:
    """The best epoch of a history, as a training chooses."""
    chosen = History(select_by)
    for row in history.to_dict("records"):
        chosen.add({str(name): value for name, value in row.items() if value == value})  # before training no loss is
    return chosen.best_epoch
