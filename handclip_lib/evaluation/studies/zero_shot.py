"""Zero-shot classification accuracy: view and side of a hand, told from prompts with nothing learnt."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from handclip_lib.evaluation.bootstrap import identity_bootstrap
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.tables import result_table
from handclip_lib.finite import require_finite

PROMPTS = {
    f"{view}_{side[0]}": (f"a photo of a {side} {view} hand", f"a photo of the {face} of a {side} hand")
    for side in ("right", "left")
    for view, face in (("dorsal", "back"), ("palmar", "palm"))
}
"""Prompts of each aspect; their embeddings are averaged."""
VIEW_PROMPTS = {
    "dorsal": ("a photo of a dorsal hand", "a photo of the back of a hand"),
    "palmar": ("a photo of a palmar hand", "a photo of the palm of a hand"),
}
"""The same of each view. The side has none of its own: whose thumb it is cannot be said without the view."""
COLUMNS = ("question", "accuracy", "accuracy_low", "accuracy_high", "majority", "n_images")


def zero_shot(
    images: np.ndarray, encode_text: Callable[[Sequence[str]], np.ndarray], prompts: Mapping[str, Sequence[str]]
) -> np.ndarray:
    """The class whose prompts each image is nearest to by the cosine.

    Args:
        images: Embeddings of length 1, float32 (n, size).
        encode_text: Texts to embeddings (n, size), such as `Backbone.encode_text`.
        prompts: Those of each class, such as `PROMPTS`; their embeddings of length 1 are averaged.

    Returns:
        Keys of `prompts`, shape (n,).

    Raises:
        EvaluationError: An embedding of an image or text is not finite.

    Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021, §3.1.4.
    """
    require_finite(images, "embeddings of the images")
    classes = []
    for texts in prompts.values():
        embedded = np.asarray(encode_text(texts), np.float64)
        require_finite(embedded, f"embeddings of the texts {', '.join(texts)}")
        classes.append((embedded / np.linalg.norm(embedded, axis=1, keepdims=True)).mean(axis=0))
    directions = np.stack(classes)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return np.array(list(prompts))[(images @ directions.T).argmax(axis=1)]


def zero_shot_table(
    features: Features,
    images: pd.DataFrame,
    encode_text: Callable[[Sequence[str]], np.ndarray] | None,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """How often view (by `VIEW_PROMPTS`), side and both (by `PROMPTS`) are right; interval over identities.

    Args:
        images: Columns path, identity, aspect; only rows with an embedding and a known aspect count.
        encode_text: Texts to embeddings; None for a model that reads no text.

    Returns:
        Columns `COLUMNS`, shares in 0..1: majority is the share of the commonest class, what one fixed answer would
        reach; no row where the model reads no text, or fewer than two identities have a known aspect.
    """
    known = images[images["path"].isin(features.paths) & images["aspect"].isin(PROMPTS)]
    if encode_text is None or known["identity"].nunique() < 2:
        return result_table([], columns=COLUMNS)
    embeddings = features.of(known["path"])
    aspect, true = zero_shot(embeddings, encode_text, PROMPTS), known["aspect"].to_numpy(str)
    answers = {
        "view (dorsal or palmar)": (zero_shot(embeddings, encode_text, VIEW_PROMPTS), _part(true, 0)),
        "side (right or left)": (_part(aspect, 1), _part(true, 1)),
        "both": (aspect, true),
    }
    rows = []
    for name, (guess, truth) in answers.items():
        hit = (guess == truth).astype(np.float64)
        interval = identity_bootstrap(hit, known["identity"].to_numpy(), bootstrap, seed)
        majority = float(np.unique(truth, return_counts=True)[1].max() / len(truth))
        rows.append((name, hit.mean(), float(interval.low), float(interval.high), majority, len(known)))
    return result_table(rows, columns=COLUMNS)


def _part(aspects: np.ndarray, place: int) -> np.ndarray:
    """View (0) or side (1) of aspects such as "dorsal_r"."""
    return np.array([aspect.split("_")[place] for aspect in aspects])
