"""From files to the pixels a model sees: one path for training and evaluation, decoded once and kept.

What is kept is memory-mapped, built by one process at a time, checked when opened, and rebuilt when damaged.
"""

import json
import logging
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

import numpy as np

from handclip_lib.data.decoder import DECODER, Resolution, decode_file, decoding_bytes, height_and_width
from handclip_lib.data.survey import Survey, in_threads, survey
from handclip_lib.errors import DataError
from handclip_lib.files import file_lock, make_folder, whole_file, writing
from handclip_lib.places import cache_folder

CLIP_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
CLIP_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
FITS = ("stretch", "crop", "pad")
SHOWN = 1024  # pixels
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DecodedImages:
    """Decoded images of one size.

    Attributes:
        paths: The images that could be decoded, in the order given.
        pixels: uint8 (n, height, width, 3), RGB, memory-mapped.
        failures: Reason for each image that could not be decoded.
        content_keys: A key of each image's file content and transform.
        seen: What their files are.
        interpolation: As `decode_images` has it.
    """

    paths: tuple[str, ...]
    pixels: np.ndarray
    failures: dict[str, str]
    content_keys: tuple[str, ...]
    seen: Survey = field(default_factory=Survey)
    interpolation: str = "bicubic"

    def rows(self, paths: Iterable[str]) -> np.ndarray:
        """Rows of `pixels` for some paths; a DataError for one that is not among them."""
        row = {path: i for i, path in enumerate(self.paths)}
        try:
            return np.array([row[path] for path in paths], np.int64)
        except KeyError as error:
            why = self.failures.get(error.args[0], "it was not among the images to decode")
            raise DataError(f"{error.args[0]} is not decoded: {why}") from error

    def select(self, paths: Sequence[str]) -> "DecodedImages":
        """The images of some paths, in that order."""
        rows = self.rows(paths)
        keys = tuple(self.content_keys[i] for i in rows)
        return replace(self, paths=tuple(paths), pixels=self.pixels[rows], content_keys=keys)


def decode_images(
    root: Path | str, paths: Iterable[str], resolution: Resolution, fit: str = "stretch", cache: Path | None = None,
    progress: bool = True, *, exact: bool = False, seen: Survey | None = None, interpolation: str = "bicubic",
) -> DecodedImages:  # fmt: skip
    """Decode images to RGB of one size, in threads; what was decoded before is read from the cache.

    The cache is keyed by the files' content and the transform, so a changed file is decoded anew. A large JPEG is
    decoded at a reduced size, never below the size wanted, and then resized (bicubic, antialiased).

    Args:
        fit: "stretch" keeps the whole hand and changes its proportions (the habit of re-identification), "crop"
            resizes until the size is covered and cuts the rest (OpenAI's preprocessing), "pad" adds white.
        cache: Folder of the cache; `cache_folder()/images` by default.
        exact: Decode each JPEG in full, as OpenAI's preprocessing does.
        seen: Of the whole data set, where `paths` are a part of it: what is white in deep samples is measured there.
        interpolation: "bicubic" or "bilinear", as the backbone was trained with.

    Raises:
        DataError: No image can be decoded, `fit` is unknown, or what is white in deep samples is not plain.
        WriteError: The cache cannot be written.
    """
    root, paths = Path(root), tuple(paths)
    if fit not in FITS:
        raise DataError(f"unknown fit {fit!r}; choose from {', '.join(FITS)}")
    if not paths:
        raise DataError(f"{root}: no images to decode")
    seen = seen or survey(root, paths, progress=progress)
    failures = {path: seen.failures[path] for path in paths if path in seen.failures}
    good = [path for path in paths if path not in failures]
    transform = f"{DECODER}|{resolution}|{fit}|{exact}" + ("" if interpolation == "bicubic" else f"|{interpolation}")
    keys = [
        blake2b(f"{transform}|{seen.white(path) or ''}|{seen.contents[path]}".encode(), digest_size=16).hexdigest()
        for path in good
    ]

    def decode(row: int) -> np.ndarray | str:
        path, by = good[row], interpolation
        return decode_file(root / path, resolution, fit, white=seen.white(path), exact=exact, interpolation=by)

    folder = cache if cache is not None else cache_folder() / "images"
    needs = [decoding_bytes(seen.headers[path], resolution, fit, exact) for path in good]
    pixels, failed = kept_pixels(folder, keys, height_and_width(resolution), decode, progress, needs)
    failures |= {good[row]: reason for row, reason in failed.items()}
    if len(failures) == len(paths):
        first, reason = next(iter(failures.items()))
        raise DataError(f"{root}: none of the {len(paths)} images can be decoded; {first}: {reason}")
    rows = [row for row in range(len(good)) if row not in failed]
    return DecodedImages(
        tuple(good[row] for row in rows), pixels, failures, tuple(keys[row] for row in rows), seen, interpolation
    )  # fmt: skip


def kept_pixels(
    folder: Path, keys: Sequence[str], size: tuple[int, int], decode: Callable[[int], np.ndarray | str],
    progress: bool, needs: Sequence[int] | None = None,
) -> tuple[np.ndarray, dict[int, str]]:  # fmt: skip
    """The pixels of images, from the cache or decoded into it.

    Args:
        folder: The cache's.
        keys: A key of each image's content and transform.
        size: Height and width in pixels.
        decode: Decodes image `i` to uint8 (height, width, 3), or returns the reason it cannot; called in threads.
        needs: Bytes that decoding each takes.

    Returns:
        uint8 (n decoded, height, width, 3), memory-mapped, and the reason for each image not decoded, by its
        place in `keys`.

    Raises:
        WriteError: The folder cannot be written.
    """
    file = folder / f"{blake2b(''.join(keys).encode(), digest_size=16).hexdigest()}.npy"
    with writing(folder):
        make_folder(folder)
        if (kept := _open(file)) is None:
            with file_lock(file.with_suffix(".lock")):
                if (kept := _open(file)) is None:  # no other process built it while this one waited
                    decoded = in_threads(decode, needs or [0] * len(keys), "decoding", progress)
                    _build(file, len(keys), size, decoded)
                    kept = _open(file)
    if kept is None:
        raise DataError(f"the image cache {file} was damaged while it was written; check that disk")
    return kept


def _build(file: Path, n: int, size: tuple[int, int], decoded: Iterator[np.ndarray | str]) -> None:
    failed: dict[int, str] = {}
    checksum = 0
    with whole_file(file) as private:
        with private.open("wb") as written:
            _write_header(written, (n, *size, 3))
            for row, image in enumerate(decoded):
                if isinstance(image, str):
                    failed[row] = image
                    continue
                block = np.ascontiguousarray(image).data
                checksum = zlib.crc32(block, checksum)
                written.write(block)
            shape = (n - len(failed), *size, 3)
            written.seek(0)
            _write_header(written, shape)
        with whole_file(file.with_suffix(".json")) as facts:
            facts.write_text(json.dumps({"crc32": checksum, "shape": shape, "failed": failed}))


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """The head of a .npy file; numpy leaves room in it, so another count of images takes as many bytes."""
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _open(file: Path) -> tuple[np.ndarray, dict[int, str]] | None:
    """What is kept, or None when there is nothing or it is damaged."""
    try:
        facts = json.loads(file.with_suffix(".json").read_text())
        failed = {int(row): reason for row, reason in facts["failed"].items()}
        shape = tuple(facts["shape"])
        if not shape[0]:
            return np.empty(shape, np.uint8), failed
        pixels = np.load(file, mmap_mode="r")
        sound = pixels.dtype == np.uint8 and pixels.shape == shape and zlib.crc32(pixels) == facts["crc32"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, EOFError):
        sound = False
    if sound:
        return pixels, failed
    logger.warning("the image cache %s is damaged; it is built again", file)
    return None


def compare_fits(
    images: DecodedImages, path: str, resolution: Resolution, exact: bool = False
) -> dict[str, np.ndarray]:
    """A photograph, and what a model sees of it under each fit: uint8 (height, width, 3), by title.

    The photograph itself has at most `SHOWN` pixels a side here.
    """
    width, height = images.seen.headers[path].upright
    scale = min(1.0, SHOWN / max(width, height))
    whole = (max(1, round(height * scale)), max(1, round(width * scale)))
    wanted = {f"photograph {width}×{height}": (whole, "stretch")} | {fit: (resolution, fit) for fit in FITS}
    pictures = {}
    for title, (size, fit) in wanted.items():
        decoded = decode_file(images.seen.root / path, size, fit, white=images.seen.white(path), exact=exact)
        if isinstance(decoded, str):
            raise DataError(f"{path}: {decoded}")
        pictures[title] = decoded
    return pictures
