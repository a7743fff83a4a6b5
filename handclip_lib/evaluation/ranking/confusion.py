"""What the classifier of training takes for what: the validation images against all training identities."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from handclip_lib.errors import EvaluationError


@dataclass(frozen=True)
class Confusion:
    """Predictions by identity.

    Attributes:
        matrix: Share of each identity's images that were taken for each, rows sum to 1 (0 for one without an image),
            float64 (n_identities, n_identities).
        accuracy: Share of images taken for their own identity, 0..1.
        mistakes: A row for each pair that was confused, the most frequent first: identity, taken_for, images.
    """

    matrix: np.ndarray
    accuracy: float
    mistakes: pd.DataFrame


def confusion(scores: np.ndarray, labels: np.ndarray, identities: Sequence[str]) -> Confusion:
    """Count what images are taken for.

    Args:
        scores: Logits, larger is more alike, shape (n, n_identities).
        labels: Place of each image's identity, int (n,).
        identities: Names.

    Raises:
        EvaluationError: The shapes do not fit, or there is no image.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    if not len(labels) or scores.shape != (len(labels), len(identities)):
        raise EvaluationError(
            f"scores have shape {scores.shape} for {len(labels)} images and {len(identities)} identities; one row an "
            "image and one column an identity are wanted"
        )
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
