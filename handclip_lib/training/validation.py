"""Validation: of the val images against the train images, in which test identities have no part, or on test."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from handclip_lib.data.images import DecodedImages
from handclip_lib.data.manifest import Split
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.ranking.retrieval import TIE, cosines, retrieval_metrics
from handclip_lib.evaluation.studies.prompts import labelled
from handclip_lib.parameters.notebooks import Validation


@dataclass(frozen=True)
class TrainingImages:
    """The training half of a split, decoded.

    Attributes:
        identities: Training identities in their order; a label is a place in it.
        pixels, labels: Training images, uint8 (n, side, side, 3), and their labels, int64 (n,).
        val_pixels, val_labels: The same of the validation images, one for each identity that has two or more.
        compared: What `validate` ranks: pixels and identities of the queries, and of the gallery.
    """

    identities: tuple[str, ...]
    pixels: np.ndarray
    labels: np.ndarray
    val_pixels: np.ndarray
    val_labels: np.ndarray
    compared: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]

    def validate(self, encode: Callable[[np.ndarray], np.ndarray]) -> dict[str, float]:
        """Rank-1 and mAP that choose the epoch, of what encodes uint8 images to embeddings (n, size)."""
        queries, query_ids, held, held_ids = self.compared
        similarity = cosines(_unit(encode(queries)), _unit(encode(held)))
        found = retrieval_metrics(similarity, query_ids, held_ids, tie=TIE)
        return {"val_rank1": found.rank(1), "val_map": found.map}


def training_images(images: DecodedImages, split: Split, validation: Validation = "val") -> TrainingImages:
    """Take the training and validation images of a split, which are among the decoded ones.

    With `validation` "val" the validation images are ranked against the training images; with "test" the queries of
    the first draw against its gallery, as CLIP-FH's training did: what is chosen so was selected on test.

    Raises:
        EvaluationError: Fewer than two identities train, or none has a validation image.
    """
    identities, (paths, labels), (val_paths, val_labels) = labelled(split)
    if not val_paths:
        raise EvaluationError(
            f"{len(identities)} identities train in this split (protocol {split.meta['protocol']!r}), 0 with a "
            "validation image; choose another protocol or more data"
        )
    pixels, val_pixels = (np.array(images.pixels[images.rows(list(part))]) for part in (paths, val_paths))
    compared = val_pixels, val_labels, pixels, labels
    if validation == "test":
        draw = split.draw(0)
        queries, held = (images.pixels[images.rows(list(part))] for part in (draw.query_paths, draw.gallery_paths))
        compared = queries, draw.query_ids, held, draw.gallery_ids
    return TrainingImages(identities, pixels, labels, val_pixels, val_labels, compared)


def _unit(embeddings: np.ndarray) -> np.ndarray:
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
