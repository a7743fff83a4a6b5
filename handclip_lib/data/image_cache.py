"""Decoded pixels on disk: memory-mapped, built by one process at a time, checked when opened, rebuilt when damaged."""

import json
import logging
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

import numpy as np
from tqdm.auto import tqdm

from handclip_lib.errors import DataError
from handclip_lib.files import file_lock, make_folder, whole_file, writing

logger = logging.getLogger(__name__)
Decode = Callable[[int], "np.ndarray | str"]


def kept_pixels(
    folder: Path, keys: Sequence[str], size: tuple[int, int], decode: Decode, pool: ThreadPoolExecutor, progress: bool
) -> tuple[np.ndarray, dict[int, str]]:
    """The pixels of the images with these keys, from the cache or decoded into it.

    Args:
        folder: The cache's folder.
        keys: A key of each image's content and transform.
        size: Height and width in pixels.
        decode: Decodes image `i` to uint8 (height, width, 3), or returns the reason it cannot.
        pool: Threads to decode in.
        progress: Show a progress bar.

    Returns:
        uint8 (n decoded, height, width, 3), memory-mapped, and the reason for each image not decoded, by its
        place in `keys`.

    Raises:
        WriteError: The folder cannot be written.
    """
    name = blake2b("".join(keys).encode(), digest_size=16).hexdigest()
    pixels_file, facts_file = folder / f"{name}.npy", folder / f"{name}.json"
    with writing(folder):
        make_folder(folder)
        kept = _open(pixels_file, facts_file)
        if kept is not None:
            return kept
        with file_lock(folder / f"{name}.lock"):
            kept = _open(pixels_file, facts_file)  # another process may have built it while this one waited
            if kept is not None:
                return kept
            _build(pixels_file, facts_file, len(keys), size, decode, pool, progress)
            kept = _open(pixels_file, facts_file)
    if kept is None:
        raise DataError(f"the image cache {pixels_file} was damaged while it was written; check that disk")
    return kept


def _build(
    pixels_file: Path,
    facts_file: Path,
    n: int,
    size: tuple[int, int],
    decode: Decode,
    pool: ThreadPoolExecutor,
    progress: bool,
) -> None:
    failed: dict[int, str] = {}
    checksum = 0
    bar = tqdm(total=n, desc="decoding images", unit="image", disable=not progress)
    with whole_file(pixels_file) as private:
        with private.open("wb") as file:
            _write_header(file, (n, *size, 3))
            for row, decoded in enumerate(pool.map(decode, range(n))):
                bar.update()
                if isinstance(decoded, str):
                    failed[row] = decoded
                    continue
                block = np.ascontiguousarray(decoded).data
                checksum = zlib.crc32(block, checksum)
                file.write(block)
            shape = (n - len(failed), *size, 3)
            file.seek(0)
            _write_header(file, shape)
        bar.close()
        with whole_file(facts_file) as facts:
            facts.write_text(json.dumps({"crc32": checksum, "shape": shape, "failed": failed}))


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """The head of a .npy file; numpy leaves room in it, so another count of images takes as many bytes."""
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _open(pixels_file: Path, facts_file: Path) -> tuple[np.ndarray, dict[int, str]] | None:
    """What is kept, or None when there is nothing or it is damaged."""
    try:
        facts = json.loads(facts_file.read_text())
        failed = {int(row): reason for row, reason in facts["failed"].items()}
        shape = tuple(facts["shape"])
        if not shape[0]:
            return np.empty(shape, np.uint8), failed
        pixels = np.load(pixels_file, mmap_mode="r")
        sound = pixels.dtype == np.uint8 and pixels.shape == shape and _checksum(pixels) == facts["crc32"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, EOFError):
        sound = False
    if sound:
        return pixels, failed
    logger.warning("the image cache %s is damaged; it is built again", pixels_file)
    return None


def _checksum(pixels: np.ndarray) -> int:
    checksum = 0
    for start in range(0, len(pixels), 64):
        checksum = zlib.crc32(np.ascontiguousarray(pixels[start : start + 64]).data, checksum)
    return checksum
