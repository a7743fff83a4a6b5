"""From files to the pixels a model sees: one path for training and evaluation, decoded once and kept.

What is kept is memory-mapped, built by one process at a time, checked when opened, and rebuilt when damaged.
"""

import json
import logging
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm.auto import tqdm

from handclip_lib.data.content import content_keys
from handclip_lib.data.table import IMAGE_FORMATS
from handclip_lib.errors import DataError
from handclip_lib.files import file_lock, make_folder, whole_file, writing
from handclip_lib.machine import cores
from handclip_lib.places import cache_folder

CLIP_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
CLIP_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
FITS = ("stretch", "crop", "pad")
DECODER = 2  # goes into the cache's key: raise it when the pixels of some file would change
MOST_PIXELS = 89_478_485  # Pillow's own limit, a quarter of a gigabyte of RGB
WHITE = (255, 255, 255)
_OTHER_FORMATS = (  # that people have under such names, by place and bytes
    (4, b"ftypheic", "HEIC"), (4, b"ftypheix", "HEIC"), (4, b"ftypmif1", "HEIF"), (4, b"ftypavif", "AVIF"),
    (0, b"GIF8", "GIF"), (0, b"%!PS", "PostScript"), (0, b"\xc5\xd0\xd3\xc6", "PostScript"), (0, b"%PDF", "PDF"),
    (0, b"8BPS", "Photoshop"), (4, b"jP  ", "JPEG 2000"),
)  # fmt: skip
logger = logging.getLogger(__name__)
Resolution = int | tuple[int, int]
"""Side in pixels of a square, or height and width."""


@dataclass(frozen=True)
class DecodedImages:
    """Decoded images of one size.

    Attributes:
        paths: The images that could be decoded, in the order given.
        pixels: uint8 (n, height, width, 3), RGB, memory-mapped.
        failures: Reason for each image that could not be decoded.
        content_keys: A key of each image's file content and transform.
    """

    paths: tuple[str, ...]
    pixels: np.ndarray
    failures: dict[str, str]
    content_keys: tuple[str, ...]

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
    root: Path | str,
    paths: Iterable[str],
    resolution: Resolution,
    fit: str = "stretch",
    cache: Path | None = None,
    progress: bool = True,
    interpolation: str = "bicubic",
) -> DecodedImages:
    """Decode images to RGB of one size, in threads; what was decoded before is read from the cache.

    The cache is keyed by the files' content and the transform, so a changed file is decoded anew. A large JPEG is
    decoded at a reduced size, never below the size wanted, and then resized (bicubic, antialiased).

    Args:
        root: Folder the paths are relative to.
        paths: Images.
        resolution: See `Resolution`.
        fit: "stretch" keeps the whole hand and changes its proportions (the habit of re-identification), "crop"
            resizes until the size is covered and cuts the rest (OpenAI's preprocessing), "pad" adds white.
        cache: Folder of the cache; `cache_folder()/images` by default.
        progress: Show a progress bar.
        interpolation: "bicubic" or "bilinear", as the backbone was trained with.

    Raises:
        DataError: No image can be decoded, or `fit` is unknown.
        WriteError: The cache cannot be written.
    """
    root, paths = Path(root), tuple(paths)
    if fit not in FITS:
        raise DataError(f"unknown fit {fit!r}; choose from {', '.join(FITS)}")
    if not paths:
        raise DataError(f"{root}: no images to decode")
    transform = f"{DECODER}|{resolution}|{fit}|" + ("" if interpolation == "bicubic" else f"{interpolation}|")
    contents = content_keys(root, paths, progress)
    keys = [blake2b(f"{transform}{key}".encode(), digest_size=16).hexdigest() for key in contents]

    def decode(row: int) -> np.ndarray | str:
        return decode_file(root / paths[row], resolution, fit, interpolation)

    folder = cache if cache is not None else cache_folder() / "images"
    pixels, failed = kept_pixels(folder, keys, height_and_width(resolution), decode, progress)
    if len(failed) == len(paths):
        first = next(iter(failed.values()))
        raise DataError(f"{root}: none of the {len(paths)} images can be decoded; {paths[0]}: {first}")
    good = [row for row in range(len(paths)) if row not in failed]
    return DecodedImages(
        tuple(paths[row] for row in good), pixels,
        {paths[row]: reason for row, reason in failed.items()}, tuple(keys[row] for row in good),
    )  # fmt: skip


def kept_pixels(
    folder: Path, keys: Sequence[str], size: tuple[int, int], decode: Callable[[int], np.ndarray | str], progress: bool
) -> tuple[np.ndarray, dict[int, str]]:
    """The pixels of images, from the cache or decoded into it.

    Args:
        folder: The cache's.
        keys: A key of each image's content and transform.
        size: Height and width in pixels.
        decode: Decodes image `i` to uint8 (height, width, 3), or returns the reason it cannot; called in threads.
        progress: Show a progress bar.

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
                    _build(file, len(keys), size, decode, progress)
                    kept = _open(file)
    if kept is None:
        raise DataError(f"the image cache {file} was damaged while it was written; check that disk")
    return kept


def _build(
    file: Path, n: int, size: tuple[int, int], decode: Callable[[int], np.ndarray | str], progress: bool
) -> None:
    failed: dict[int, str] = {}
    checksum = 0
    with whole_file(file) as private:
        bar = tqdm(total=n, desc="decoding images", unit="image", disable=not progress)
        with private.open("wb") as written, ThreadPoolExecutor(cores()) as pool, bar:
            _write_header(written, (n, *size, 3))
            for row, decoded in enumerate(pool.map(decode, range(n))):
                bar.update()
                if isinstance(decoded, str):
                    failed[row] = decoded
                    continue
                block = np.ascontiguousarray(decoded).data
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


def height_and_width(resolution: Resolution) -> tuple[int, int]:
    """Of a square by its side, or as they are."""
    return (resolution, resolution) if isinstance(resolution, int) else resolution


def open_image(source: Path | BytesIO) -> Image.Image:
    """Open an image of one of `IMAGE_FORMATS`, whatever its name; everything that opens an image does it here.

    Pillow knows forty more formats. A reader that nobody needs is a way in, and one of them starts Ghostscript.

    Raises:
        UnidentifiedImageError: It is of another format, or none.
        OSError, Image.DecompressionBombError: It cannot be read, or is too large.
    """
    return Image.open(source, formats=[name.upper() for name in IMAGE_FORMATS])


def decode_file(
    path: Path, resolution: Resolution, fit: str = "stretch", interpolation: str = "bicubic"
) -> np.ndarray | str:
    """Decode one file to uint8 (height, width, 3), or say why it cannot be done and what to do."""
    try:
        with open_image(path) as image:
            if image.width * image.height > MOST_PIXELS:
                return f"{image.width}×{image.height} pixels are too many (at most 89 megapixels); make it smaller"
            image.draft("RGB", _draft_size(image.size, resolution, fit))
            return np.asarray(_fitted(_rgb(ImageOps.exif_transpose(image)), resolution, fit, interpolation))
    except FileNotFoundError:
        return "the file is absent"
    except Image.DecompressionBombError:
        return "its pixels are too many (at most 89 megapixels); make it smaller"
    except UnidentifiedImageError:
        return _unidentified(path)
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        return f"it is damaged or cut short ({error}); copy it again"


def _unidentified(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(16)
    if not start:
        return "the file is empty (0 bytes); copy it again"
    known = ", ".join(IMAGE_FORMATS)
    found = next((name for at, mark, name in _OTHER_FORMATS if start[at:].startswith(mark)), None)
    return f"its content is {found}, not one of {known}; convert it" if found else f"it is not an image ({known})"


def compare_fits(path: Path, resolution: Resolution) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A photograph as it is, uint8 (height, width, 3), and as a model sees it under each fit, or a DataError."""
    results = {fit: decode_file(path, resolution, fit) for fit in FITS}
    for seen in results.values():
        if isinstance(seen, str):
            raise DataError(f"{path}: {seen}")
    with open_image(path) as image:
        original = np.asarray(_rgb(ImageOps.exif_transpose(image)))
    return original, {fit: np.asarray(seen) for fit, seen in results.items()}


def _draft_size(size: tuple[int, int], resolution: Resolution, fit: str) -> tuple[int, int]:
    """The smallest width and height a JPEG may be decoded to: the result's sides stay at or above what is wanted."""
    height, width = height_and_width(resolution)
    if fit == "stretch":
        return width, height
    scale = (max if fit == "crop" else min)(width / size[0], height / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode as 8-bit RGB; transparency lies over white, as the hands do."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, np.float64)
        deep = values.max(initial=0) > 255 or image.mode.startswith("I;16")
        image = Image.fromarray(np.clip(values / (257 if deep else 1), 0, 255).round().astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        over = image.convert("RGBA")
        white = Image.new("RGBA", over.size, (*WHITE, 255))
        image = Image.alpha_composite(white, over)
    return image.convert("RGB")


def _fitted(image: Image.Image, resolution: Resolution, fit: str, interpolation: str) -> Image.Image:
    (height, width), by = height_and_width(resolution), Image.Resampling[interpolation.upper()]
    if fit == "stretch":
        return image.resize((width, height), by)
    if fit == "pad":
        return ImageOps.pad(image, (width, height), by, WHITE)
    # The side that needs the larger scale is met exactly: OpenAI's way, for any proportions.
    if width * image.height >= height * image.width:
        size = (width, int(width * image.height / image.width))
    else:
        size = (int(height * image.width / image.height), height)
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    return image.resize(size, by).crop((left, top, left + width, top + height))
