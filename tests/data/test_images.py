import logging
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from handclip_lib.data import images as module
from handclip_lib.data.images import compare_fits, decode_images
from handclip_lib.data.survey import survey
from handclip_lib.errors import DataError, WriteError


def picture(width: int = 120, height: int = 90, seed: int = 0) -> Image.Image:
    """A smooth colourful image."""
    noise = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(5):
        picture(seed=number).save(tmp_path / f"{number}.png")
    return tmp_path


NAMES = [f"{number}.png" for number in range(5)]


def decode(folder: Path, names=NAMES, **options):
    return decode_images(folder, names, 32, cache=folder / "cache", progress=False, **options)


def test_stretch_and_pad_keep_the_whole_picture(folder: Path):
    original, stretch, _, pad = compare_fits(decode(folder), "0.png", 32).items()
    assert (original[0], original[1].shape) == ("photograph 120×90", (90, 120, 3))
    np.testing.assert_array_equal(stretch[1], picture().resize((32, 32), Image.Resampling.BICUBIC))
    assert (pad[1][:4] == 255).all()
    np.testing.assert_array_equal(pad[1][4:28], picture().resize((32, 24), Image.Resampling.BICUBIC))


@pytest.mark.parametrize(("content", "words"), [(b"", "0 bytes"), (b"no image", "not an image"), (None, "absent")])
def test_a_bad_file_is_left_out_with_the_reason(content, words, folder: Path):
    if content is not None:
        (folder / "bad.png").write_bytes(content)
    found = decode(folder, [*NAMES, "bad.png"])
    assert found.paths == tuple(NAMES)
    assert words in found.failures["bad.png"]
    with pytest.raises(DataError, match=words):
        found.rows(["bad.png"])
    with pytest.raises(DataError, match=f"none of the 1 images can be decoded; bad.png: .*{words}"):
        decode(folder, ["bad.png"])


def deep(folder: Path, bits: int, seeds=range(5)) -> list[str]:
    """Grey pictures of some bits a sample, each of which reaches white."""
    for seed in seeds:
        grey = np.asarray(picture(seed=seed).convert("L"), np.float64)
        grey = (grey - grey.min()) / (grey.max() - grey.min()) * (2**bits - 1)
        Image.fromarray(grey.round().astype(np.uint16)).save(folder / f"{bits}-{seed}.png")
    return [f"{bits}-{seed}.png" for seed in seeds]


def test_part_of_a_data_set_is_decoded_as_in_the_whole(tmp_path: Path):
    names = deep(tmp_path, 12)
    dark = np.asarray(Image.open(tmp_path / names[0])).astype(np.uint16) // 3
    Image.fromarray(dark).save(tmp_path / names[0])  # by itself it would be of 10 bits and dark, or refused
    seen = survey(tmp_path, names)
    whole, part, back = (decode(tmp_path, some, seen=seen) for some in (names, names[:1], names[::-1]))
    np.testing.assert_array_equal(part.pixels[0], whole.pixels[0])
    np.testing.assert_array_equal(back.pixels[::-1], whole.pixels)
    assert part.content_keys[0] == whole.content_keys[0] == back.content_keys[-1]
    given = decode(tmp_path, names, seen=survey(tmp_path, names, 4095))
    assert given.content_keys == whole.content_keys
    assert decode(tmp_path, names, seen=survey(tmp_path, names, 65_535)).content_keys != whole.content_keys


def test_what_is_white_and_how_a_jpeg_is_decoded_are_in_the_cache_key(folder: Path):
    fast, exact = decode(folder), decode(folder, exact=True)
    assert not set(fast.content_keys) & set(exact.content_keys)
    with pytest.raises(DataError, match="sample_range"):
        decode(folder, deep(folder, 11))


def test_what_was_decoded_is_not_decoded_again(folder: Path, monkeypatch):
    first = decode(folder)
    monkeypatch.setattr(module, "decode_file", lambda *_: pytest.fail("decoded again"))
    second = decode(folder)
    np.testing.assert_array_equal(first.pixels, second.pixels)
    assert isinstance(second.pixels, np.memmap)


def test_a_changed_file_of_the_same_name_is_decoded_anew(folder: Path):
    before = decode(folder).pixels[2].copy()
    picture(seed=77).save(folder / "2.png")
    assert not np.array_equal(decode(folder).pixels[2], before)


@pytest.mark.parametrize("damage", ["flip", "cut", "facts"])
@pytest.mark.matrix("damaged file", "decoded images in the cache", "built again")
def test_a_damaged_cache_is_built_again(damage: str, folder: Path, caplog):
    expected = np.array(decode(folder).pixels)
    (pixels,), (facts,) = (list((folder / "cache").glob(f"*{suffix}")) for suffix in (".npy", ".json"))
    content = bytearray(pixels.read_bytes())
    if damage == "flip":
        content[-100] ^= 255
        pixels.write_bytes(content)
    elif damage == "cut":
        pixels.write_bytes(content[:-100])
    else:
        facts.write_text("{")
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(decode(folder).pixels, expected)
    assert "damaged" in caplog.text


def _decode_elsewhere(folder: Path) -> int:
    return int(decode(folder).pixels.astype(int).sum())


def test_two_processes_may_build_it_at_once(folder: Path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        sums = pool.map(_decode_elsewhere, [folder] * 4)
    assert set(sums) == {int(decode(folder).pixels.astype(int).sum())}
    assert [path for path in (folder / "cache").iterdir() if path.name.startswith("building-")] == []


def test_a_cache_that_cannot_be_written_names_the_remedy(folder: Path):
    (folder / "cache").write_text("a file in the place of the folder")
    with pytest.raises(WriteError, match="HANDCLIP_CACHE"):
        decode(folder)


def test_bad_arguments_are_named(folder: Path):
    with pytest.raises(DataError, match="unknown fit 'squash'; choose from stretch, crop, pad"):
        decode(folder, fit="squash")
    with pytest.raises(DataError, match="no images"):
        decode(folder, [])
