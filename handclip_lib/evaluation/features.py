"""Embeddings of images, by a model and by trivial baselines: each file is encoded once, and a killed run resumes."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import safetensors
import safetensors.numpy
from PIL import Image
from tqdm.auto import tqdm

from handclip_lib.data.images import DecodedImages
from handclip_lib.errors import EvaluationError
from handclip_lib.files import UNSEALED, is_sealed, seal, whole_file
from handclip_lib.finite import require_finite
from handclip_lib.machine import free_memory
from handclip_lib.models.embeddings import GivenEmbeddings
from handclip_lib.places import cache_folder

if TYPE_CHECKING:
    from handclip_lib.backbone.load import Backbone
    from handclip_lib.models.trained import Encoder, Trained  # with torch, which a search of embeddings does without

logger = logging.getLogger("handclip")
BLOCK = 512  # images between two saves
AT_ONCE = 2**14  # embeddings scaled at once
BASELINE = "trivial baseline: "  # what their names begin with
PIXEL_SIDE = 32
HUES, SATURATIONS, VALUES = 16, 8, 8
SKIN_SATURATION = 0.15  # the background is white: what has colour is the hand
FLOATS = 8  # bytes of a channel as float32, before and after it is normalised: the least that a batch takes


@dataclass(frozen=True)
class Features:
    """Embeddings by path: float32 (n, embedding size), each of Euclidean length 1, so a dot product is the cosine.

    `lengths` are what they were divided by, float32 (n,), see `raw`; None where that is unknown.
    """

    paths: tuple[str, ...]
    embeddings: np.ndarray
    lengths: np.ndarray | None = None

    @cached_property
    def _row(self) -> dict[str, int]:
        return {path: i for i, path in enumerate(self.paths)}

    def __post_init__(self) -> None:
        """Refuse NaN and infinity, for every figure is made of these."""
        require_finite(self.embeddings, f"embeddings of {len(self.paths)} images")

    @classmethod
    def normalised(cls, paths: Iterable[str], embeddings: np.ndarray) -> "Features":
        """Scale each embedding to length 1; one that holds NaN or infinity, or is all zeros, is refused."""
        paths, embeddings = tuple(paths), np.asarray(embeddings, np.float32)
        if embeddings.ndim != 2 or len(embeddings) != len(paths):
            said = f"embeddings have shape {embeddings.shape} for {len(paths)} images"
            raise EvaluationError(f"{said}; (n, size) is wanted")
        length, scaled = np.empty((len(paths), 1)), np.empty_like(embeddings)
        blocks = [slice(start, start + AT_ONCE) for start in range(0, len(paths), AT_ONCE)]
        for rows in blocks:  # float64 of all would take four times the memory
            length[rows] = np.linalg.norm(embeddings[rows].astype(np.float64), axis=1, keepdims=True)
        bad = ~np.isfinite(length[:, 0]) | (length[:, 0] == 0)
        if bad.any():
            kind = "zero" if length[bad][0, 0] == 0 else "not finite"
            said = f"the embedding of {paths[int(np.argmax(bad))]} is {kind} ({int(bad.sum())} of {len(paths)})"
            raise EvaluationError(f"{said}; check the weights, or the file it is of, and use float32")
        for rows in blocks:
            scaled[rows] = embeddings[rows] / length[rows]
        return cls(paths, scaled, length[:, 0].astype(np.float32))

    @property
    def raw(self) -> "Features":
        """The same as the model gave them, not of length 1: what a loss without normalisation takes."""
        if self.lengths is None:
            raise EvaluationError("the lengths of these embeddings are unknown; extract the features again")
        return Features(self.paths, self.embeddings * self.lengths[:, None])

    def of(self, paths: Iterable[str]) -> np.ndarray:
        """Embeddings of some paths, float32 (n, size); a path without one is refused."""
        try:
            return self.embeddings[[self._row[path] for path in paths]]
        except KeyError as error:
            said = f"{error.args[0]} has no embedding; extract the features of the whole split"
            raise EvaluationError(said) from error


def mirrored(encode: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """The encoder of images flipped left to right: a mirrored left hand has the shape of a right one."""
    return lambda pixels: encode(np.ascontiguousarray(pixels[:, :, ::-1]))


def extract_features(
    encode: Callable[[np.ndarray], np.ndarray], images: DecodedImages, *, encoder_key: str, batch_size: int = 32,
    cache: Path | None = None, progress: bool = True,
) -> Features:  # fmt: skip
    """Encode images, each distinct content once, and keep what is done on disk.

    Args:
        encode: uint8 (b, r, r, 3) to float (b, size), such as `Backbone.encode_image`. What it is given is overwritten
            later: it must copy images that it keeps.
        encoder_key: Names the encoder's weights, see `key_of`: another key is another cache.
        cache: Folder; `cache_folder()/features` by default.
    """
    key = blake2b("|".join((encoder_key, *images.content_keys)).encode(), digest_size=16).hexdigest()
    folder = (cache if cache is not None else cache_folder() / "features") / key
    _, first, place = np.unique(np.array(images.content_keys), return_index=True, return_inverse=True)
    bar = tqdm(total=len(first), desc="encoding images", unit="image", disable=not progress)
    blocks, buffers = [], list[np.ndarray]()
    for start in range(0, len(first), BLOCK):
        rows = first[start : start + BLOCK]
        file = folder / f"{start:08d}.safetensors"
        block = _kept(file, len(rows))
        if block is None:
            n, (height, width) = min(batch_size, len(rows)), images.pixels.shape[1:3]
            what = f"a batch of {n} images of {height}x{width} pixels"
            check_memory(what, n * height * width * 3 * FLOATS, "lower batch_size, or input_size")
            parts = []
            batches = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
            buffers = buffers or [np.empty((n, height, width, 3), np.uint8) for _ in range(2)]
            for pixels in _ahead(images.pixels, batches, buffers):
                parts.append(np.asarray(encode(pixels), np.float32))
                bar.update(len(parts[-1]))
            # in C order: safetensors writes the memory as it lies, and would scramble a Fortran array
            block = np.ascontiguousarray(np.concatenate(parts))
            # Checked before it is kept: a damaged embedding must not come back from the cache.
            Features.normalised([images.paths[row] for row in rows], block)
            _keep(file, block)
        else:
            bar.update(len(rows))
        blocks.append(block)
    bar.close()
    return Features.normalised(images.paths, np.concatenate(blocks)[place.ravel()])


def remembered(key: str, n: int, make: Callable[[], np.ndarray]) -> np.ndarray:
    """What `make` makes, (n, m), kept in the feature cache; `key` names all that it is made of."""
    digest = blake2b(key.encode(), digest_size=16).hexdigest()
    file = cache_folder() / "features" / digest / f"{0:08d}.safetensors"
    if (found := _kept(file, n)) is None:
        _keep(file, found := make())
    return found


def _keep(file: Path, block: np.ndarray) -> None:
    with whole_file(file) as private:
        safetensors.numpy.save_file({"embeddings": block}, private, UNSEALED)
        seal(private)


def _ahead(pixels: np.ndarray, batches: list[np.ndarray], buffers: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Images of each batch, in two buffers by turns: one is read while the other is encoded, which a GPU waits for."""

    def read(number: int) -> np.ndarray:
        rows = batches[number]
        return np.take(pixels, rows, axis=0, out=buffers[number % 2][: len(rows)], mode="clip")

    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(read, 0)
        for number in range(1, len(batches) + 1):
            now = coming.result()
            if number < len(batches):
                coming = reader.submit(read, number)
            yield now


def _kept(file: Path, n: int) -> np.ndarray | None:
    """The block of n rows that was written; None where there is none, or it is damaged: it is made again."""
    if not file.exists():
        return None
    try:
        whole = is_sealed(file)
        block = safetensors.numpy.load_file(file)["embeddings"]
        whole = whole and block.ndim == 2 and len(block) == n and bool(np.isfinite(block).all())
    except (OSError, KeyError, ValueError, safetensors.SafetensorError):
        whole = False
    if whole:
        return block
    logger.warning("%s of the feature cache is damaged; what it held is computed again", file)
    return None


def pixel_embeddings(images: DecodedImages) -> Features:
    """The image itself at 32×32 RGB, less its mean: float32 (n, 3072), to be compared by the cosine."""
    size = PIXEL_SIDE, PIXEL_SIDE
    resized = [np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX)) for pixels in images.pixels]
    small = np.stack(resized).reshape(len(images.paths), -1)
    centred = small.astype(np.float32) - small.mean(1, keepdims=True)
    # An image of one colour has no pattern; a constant direction stands for it, alike to nothing but its kind.
    centred[np.abs(centred).max(1) == 0] = 1e-6
    return Features.normalised(images.paths, centred)


def histogram_embeddings(images: DecodedImages) -> Features:
    """Histogram of hue, saturation and value of the skin pixels, square root: float32 (n, 1024), by the cosine.

    The cosine of two square-rooted histograms is their Bhattacharyya coefficient.
    """
    rows = []
    counts = (HUES, SATURATIONS, VALUES)
    hue, saturation, value = ((np.arange(256) * n // 256).astype(np.uint16) for n in counts)  # the bin of each byte
    hue, saturation = hue * (SATURATIONS * VALUES), saturation * VALUES
    for pixels in images.pixels:
        sides = [np.asarray(side).ravel() for side in Image.fromarray(pixels).convert("HSV").split()]
        skin = sides[1] > SKIN_SATURATION * 255
        h, s, v = (side[skin] for side in sides) if skin.any() else sides
        bins = hue[h] + saturation[s] + value[v]
        rows.append(np.sqrt(np.bincount(bins, minlength=math.prod(counts))))
    return Features.normalised(images.paths, np.stack(rows))


def is_baseline(model: str) -> bool:
    """Whether the name of a model is a trivial baseline's; earlier runs have called them floors."""
    return model.startswith((BASELINE, "floor: "))


def key_of(model: "Backbone | Trained") -> str:
    """What a model's embeddings are kept under: those of another precision are others."""
    return model.fingerprint if model.precision == "fp32" else f"{model.fingerprint} {model.precision}"


def embed(model: "Encoder", images: DecodedImages, batch_size: int = 32) -> Features:
    """Embed images by a model, or take what another program made of them."""
    if isinstance(model, GivenEmbeddings):
        return Features.normalised(images.paths, model.of(images.paths))
    return extract_features(model.encode_image, images, encoder_key=key_of(model), batch_size=batch_size)


def embed_with_baselines(
    model: "Encoder", images: DecodedImages, batch_size: int = 32, name: str = ""
) -> dict[str, Features]:
    """Embed images by a model, first and called `name` or its own, by their pixels, and by their histogram."""
    own = embed(model, images, batch_size)
    baselines = {"pixels": pixel_embeddings(images), "histogram": histogram_embeddings(images)}
    return {name or model.name: own} | {BASELINE + kind: found for kind, found in baselines.items()}


def check_memory(what: str, needed: int, remedy: str) -> None:
    """Refuse work, named in words, that needs more bytes than are free, with what to do instead."""
    free = free_memory()
    if needed > free:
        mib = f"{needed / 2**20:,.0f} MiB beside the embeddings, and {free / 2**20:,.0f} MiB are free"
        raise EvaluationError(f"{what} needs {mib}; {remedy}")
