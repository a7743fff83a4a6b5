"""Trivial baselines, which know nothing about identity: what any figure on hands has to be read against."""

import numpy as np
from PIL import Image

from handclip_lib.backbone.load import Backbone
from handclip_lib.data.images import DecodedImages
from handclip_lib.evaluation.features import Features, extract_features
from handclip_lib.models.trained import Trained

BASELINE = "trivial baseline: "  # what their names begin with
PIXEL_SIDE = 32
HUES, SATURATIONS, VALUES = 16, 8, 8
SKIN_SATURATION = 0.15  # the background is white: what has colour is the hand


def pixel_embeddings(images: DecodedImages) -> Features:
    """The image itself at 32×32 RGB, less its mean: float32 (n, 3072), to be compared by the cosine."""
    size = PIXEL_SIDE, PIXEL_SIDE
    small = np.stack(
        [np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX)) for pixels in images.pixels]
    ).reshape(len(images.paths), -1)
    centred = small.astype(np.float32) - small.mean(1, keepdims=True)
    # An image of one colour has no pattern; a constant direction stands for it, alike to nothing but its kind.
    centred[np.abs(centred).max(1) == 0] = 1e-6
    return Features.normalised(images.paths, centred)


def histogram_embeddings(images: DecodedImages) -> Features:
    """Histogram of hue, saturation and value of the skin pixels, square root: float32 (n, 1024), by the cosine.

    The cosine of two square-rooted histograms is their Bhattacharyya coefficient.
    """
    rows = []
    for pixels in images.pixels:
        hsv = np.asarray(Image.fromarray(pixels).convert("HSV"), np.int64).reshape(-1, 3)
        skin = hsv[hsv[:, 1] > SKIN_SATURATION * 255]
        hsv = skin if len(skin) else hsv
        hue, saturation, value = (hsv * (HUES, SATURATIONS, VALUES) // 256).T
        bins = (hue * SATURATIONS + saturation) * VALUES + value
        rows.append(np.sqrt(np.bincount(bins, minlength=HUES * SATURATIONS * VALUES)))
    return Features.normalised(images.paths, np.stack(rows))


def is_baseline(model: str) -> bool:
    """Whether the name of a model is a trivial baseline's; earlier runs have called them floors."""
    return model.startswith((BASELINE, "floor: "))


def embed_with_baselines(
    model: Backbone | Trained, images: DecodedImages, batch_size: int = 32, name: str = ""
) -> dict[str, Features]:
    """Embed images by a model (first), by their pixels, and by their histogram; see `extract_features`.

    Args:
        name: What tables call the model; empty: its own name.
    """
    return {
        name or model.name: extract_features(
            model.encode_image, images, encoder_key=model.fingerprint, batch_size=batch_size
        ),
        f"{BASELINE}pixels": pixel_embeddings(images),
        f"{BASELINE}histogram": histogram_embeddings(images),
    }
