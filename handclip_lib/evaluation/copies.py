"""Photographs that trained and are tested in another file: saved again, resized, or a moment apart."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from handclip_lib.data.content import content_keys
from handclip_lib.data.images import DecodedImages, decode_images
from handclip_lib.data.manifest import Split
from handclip_lib.data.open import open_dataset
from handclip_lib.errors import DataError

SIDE, COARSE = 32, 8  # pixels; what is seen at the coarse side, light and outline, is taken away
COPY = 0.9
"""Cosine of `prints` from which two photographs are one.

Measured: of 0.29 million pairs of different people of the 11k Hands sample (764 photographs, 175 people) the nearest
has 0.864, of 1.3 million pairs of drawn hands 0.820: none is taken for a copy. Copies saved as JPEG of quality 75 and
30, and at half the size, have 0.96 and more, of quality 10 at least 0.88, brightened by a tenth 0.96. Plain 32×32
pixels cannot tell them apart: people reach 0.977, and a copy of quality 10 has 0.979.
"""
AT_ONCE = 1024


@dataclass(frozen=True)
class Copies:
    """Which tested photographs have a copy among those that trained.

    Attributes:
        tested: Paths of the tested ones.
        seen: Of each, the path of the nearest one that trained.
        n_seen: Photographs that were looked at among those that trained.
    """

    tested: tuple[str, ...]
    seen: tuple[str, ...]
    n_seen: int


def prints(pixels: np.ndarray) -> np.ndarray:
    """What a photograph shows beside light and outline: float32 (n, 3072), of length 1, or 0 where it shows nothing.

    Args:
        pixels: uint8 (n, height, width, 3).
    """
    rows = np.empty((len(pixels), SIDE * SIDE * 3), np.float32)
    for row, image in zip(rows, map(Image.fromarray, pixels), strict=True):
        coarse = image.resize((COARSE, COARSE), Image.Resampling.BOX).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        fine = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32) - np.asarray(coarse, np.float32)
        row[:] = (fine - fine.mean()).ravel()
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=rows, where=length > 0)


def find_copies(tested: DecodedImages, seen: DecodedImages, near: float = COPY) -> Copies:
    """Copies of tested photographs among those that trained, a block at a time: no matrix of all pairs is made.

    Args:
        tested, seen: Decoded alike.
        near: Cosine of `prints` from which two are one.
    """
    asked = prints(tested.pixels)
    best, place = np.full(len(asked), -np.inf, np.float32), np.zeros(len(asked), np.int64)
    for start in range(0, len(seen.paths), AT_ONCE):
        held = prints(seen.pixels[start : start + AT_ONCE])
        for first in range(0, len(asked), AT_ONCE):
            rows = slice(first, first + AT_ONCE)
            cosine = asked[rows] @ held.T
            nearest, height = cosine.argmax(axis=1), cosine.max(axis=1)
            better = height > best[rows]
            best[rows] = np.where(better, height, best[rows])
            place[rows] = np.where(better, start + nearest, place[rows])
    found = np.flatnonzero(best >= near)
    return Copies(
        tuple(tested.paths[row] for row in found), tuple(seen.paths[place[row]] for row in found), len(seen.paths)
    )


def seen_photographs(
    trained: Split, parameters: Mapping[str, Any], like: DecodedImages, fit: str
) -> DecodedImages | None:
    """The photographs a training saw, if they are still where it found them, and still the same.

    Args:
        trained: The training's manifest.
        parameters: The training's, which say where its data set is.
        like: Images of the size they are wanted in.
        fit: See `decode_images`.

    Returns:
        Those whose content is the recorded one; None where there is none.
    """
    rows = trained.images[trained.images["role"].isin(["train", "val"]) & (trained.images["content"] != "")]
    names = ("drawn_subjects", "drawn_images")
    size = like.pixels.shape[1:3]
    try:
        table = open_dataset(
            parameters["dataset"], parameters["data_root"], **{n: parameters[n] for n in names if n in parameters}
        )
        same = np.array(content_keys(table.root, rows["path"], progress=False)) == rows["content"].to_numpy()
        if not same.any():
            return None
        # all of them, as the training decoded them: then they are in the cache
        images = decode_images(table.root, table.images["path"], size[0] if size[0] == size[1] else size, fit)
    except DataError:
        return None
    decoded = set(images.paths)
    return images.select([path for path in rows["path"][same] if path in decoded])
