"""The models of an evaluation: the encoder in question, and the two floors every table carries."""

from collections.abc import Callable

import numpy as np

from handclip_lib.data.images import DecodedImages
from handclip_lib.evaluation.baselines import histogram_embeddings, pixel_embeddings
from handclip_lib.evaluation.features import Features, extract_features

FLOOR = "floor: "
"""What the name of a model begins with that knows nothing about identity."""


def embed_with_floors(
    name: str,
    encode: Callable[[np.ndarray], np.ndarray],
    images: DecodedImages,
    *,
    encoder_key: str,
    batch_size: int = 32,
) -> dict[str, Features]:
    """Embed images by an encoder (first), by their pixels, and by their histogram; see `extract_features`."""
    return {
        name: extract_features(encode, images, encoder_key=encoder_key, batch_size=batch_size),
        f"{FLOOR}pixels": pixel_embeddings(images),
        f"{FLOOR}histogram": histogram_embeddings(images),
    }
