"""Embeddings of images: each file is encoded once, whatever the number of draws, and a killed run resumes."""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
from tqdm.auto import tqdm

from handclip_lib.data.images import DecodedImages
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.memory import check_memory
from handclip_lib.files import UNSEALED, is_sealed, seal, whole_file
from handclip_lib.finite import require_finite
from handclip_lib.places import cache_folder

logger = logging.getLogger("handclip")
BLOCK = 512  # images between two saves
FLOATS = 8  # bytes of a channel as float32, before and after it is normalised: the least that a batch takes


@dataclass(frozen=True)
class Features:
    """Embeddings by path.

    Attributes:
        paths: One a row.
        embeddings: float32 (n, embedding size), each of Euclidean length 1, so that a dot product is the cosine.
        lengths: float32 (n,): what they were divided by, see `raw`; None where that is unknown.
    """

    paths: tuple[str, ...]
    embeddings: np.ndarray
    lengths: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Refuse NaN and infinity, for every figure is made of these."""
        require_finite(self.embeddings, f"embeddings of {len(self.paths)} images")

    @classmethod
    def normalised(cls, paths: Iterable[str], embeddings: np.ndarray) -> "Features":
        """Scale each embedding to length 1; one that holds NaN or infinity, or is all zeros, is refused."""
        paths, embeddings = tuple(paths), np.asarray(embeddings, np.float32)
        if embeddings.ndim != 2 or len(embeddings) != len(paths):
            raise EvaluationError(
                f"embeddings have shape {embeddings.shape} for {len(paths)} images; (n, size) is wanted"
            )
        length = np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)
        bad = ~np.isfinite(length[:, 0]) | (length[:, 0] == 0)
        if bad.any():
            kind = "zero" if length[bad][0, 0] == 0 else "not finite"
            raise EvaluationError(
                f"the embedding of {paths[int(np.argmax(bad))]} is {kind} ({int(bad.sum())} of {len(paths)}); "
                "check the weights, and use float32"
            )
        return cls(paths, (embeddings / length).astype(np.float32), length[:, 0].astype(np.float32))

    @property
    def raw(self) -> "Features":
        """The same as the model gave them, not of length 1: what a loss without normalisation takes."""
        if self.lengths is None:
            raise EvaluationError("the lengths of these embeddings are unknown; extract the features again")
        return Features(self.paths, self.embeddings * self.lengths[:, None])

    def of(self, paths: Iterable[str]) -> np.ndarray:
        """Embeddings of some paths, float32 (n, size); a path without one is refused."""
        row = {path: i for i, path in enumerate(self.paths)}
        try:
            return self.embeddings[[row[path] for path in paths]]
        except KeyError as error:
            raise EvaluationError(
                f"{error.args[0]} has no embedding; extract the features of the whole split"
            ) from error


def joined(*parts: Mapping[str, Features]) -> dict[str, Features]:
    """Features of the same models for several sets of images, each model's in one; a repeated path counts once."""
    names = list(parts[0])
    if any(list(part) != names for part in parts):
        raise EvaluationError(f"features of {[list(part) for part in parts]}: the same models are wanted in each part")
    joint = {}
    for name in names:
        paths = np.array([path for part in parts for path in part[name].paths])
        first = np.sort(np.unique(paths, return_index=True)[1])
        embeddings = np.concatenate([part[name].embeddings for part in parts])[first]
        joint[name] = Features(tuple(paths[first].tolist()), embeddings)
    return joint


def mirrored(encode: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """The encoder of images flipped left to right: a mirrored left hand has the shape of a right one."""
    return lambda pixels: encode(np.ascontiguousarray(pixels[:, :, ::-1]))


def extract_features(
    encode: Callable[[np.ndarray], np.ndarray], images: DecodedImages, *, encoder_key: str, batch_size: int = 32,
    cache: Path | None = None, progress: bool = True,
) -> Features:  # fmt: skip
    """Encode images, each distinct content once, and keep what is done on disk.

    Labels are no argument: test features cannot depend on them.

    Args:
        encode: uint8 (b, r, r, 3) to float (b, size), such as `Backbone.encode_image`.
        encoder_key: Names the encoder's weights, such as `Backbone.fingerprint`: another key is another cache.
        cache: Folder; `cache_folder()/features` by default.

    Raises:
        EvaluationError: An embedding is not finite or zero, a batch is larger than the memory, or the cache cannot be
            written.
    """
    key = blake2b("|".join((encoder_key, *images.content_keys)).encode(), digest_size=16).hexdigest()
    folder = (cache if cache is not None else cache_folder() / "features") / key
    distinct, place = np.unique(np.array(images.content_keys), return_inverse=True)
    first = np.full(len(distinct), -1)
    first[place[::-1]] = np.arange(len(place))[::-1]
    bar = tqdm(total=len(distinct), desc="encoding images", unit="image", disable=not progress)
    blocks = []
    for start in range(0, len(distinct), BLOCK):
        rows = first[start : start + BLOCK]
        file = folder / f"{start:08d}.safetensors"
        block = _kept(file, len(rows))
        if block is None:
            n, (height, width) = min(batch_size, len(rows)), images.pixels.shape[1:3]
            what = f"a batch of {n} images of {height}x{width} pixels"
            check_memory(what, n * height * width * 3 * FLOATS, "lower batch_size, or input_size")
            parts = []
            for i in range(0, len(rows), batch_size):
                parts.append(np.asarray(encode(images.pixels[rows[i : i + batch_size]]), np.float32))
                bar.update(len(parts[-1]))
            block = np.concatenate(parts)
            # Checked before it is kept: a damaged embedding must not come back from the cache.
            Features.normalised([images.paths[row] for row in rows], block)
            _keep(file, block)
        else:
            bar.update(len(rows))
        blocks.append(block)
    bar.close()
    return Features.normalised(images.paths, np.concatenate(blocks)[place.ravel()])


def _kept(file: Path, n: int) -> np.ndarray | None:
    """The block that `_keep` wrote; None where there is none, or it is damaged: it is made again."""
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
    logger.warning("%s of the feature cache is damaged; its images are encoded again", file)
    return None


def _keep(file: Path, block: np.ndarray) -> None:
    with whole_file(file) as private:
        safetensors.numpy.save_file({"embeddings": block}, private, UNSEALED)
        seal(private)
