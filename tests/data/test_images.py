import io
import logging
import multiprocessing
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from handclip_lib.backbone.openai_clip import clip_package
from handclip_lib.data import images as module
from handclip_lib.data.images import compare_fits, decode_file, decode_images
from handclip_lib.data.table import IMAGE_FORMATS, IMAGE_SUFFIXES
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


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "LA", "RGBA", "I;16", "I", "F"])
def test_every_mode_becomes_the_same_picture(mode: str, tmp_path: Path):
    grey = picture().convert("L")
    values = np.asarray(grey)
    if mode == "I;16":
        image = Image.fromarray(values.astype(np.uint16) * 257)
    elif mode in ("I", "F"):
        image = Image.fromarray(values.astype(np.int32 if mode == "I" else np.float32))
    else:
        image = grey.convert("RGB").convert(mode)
    image.save(tmp_path / "x.tif")
    found = decode_file(tmp_path / "x.tif", 32)
    assert isinstance(found, np.ndarray), found
    expected = np.asarray(grey.resize((32, 32), Image.Resampling.BICUBIC).convert("RGB"), int)
    near = 70 if mode == "1" else 12
    assert np.abs(found - expected).mean() < near


def test_what_is_transparent_is_white(tmp_path: Path):
    Image.new("RGBA", (40, 40), (200, 0, 0, 0)).save(tmp_path / "x.png")
    assert (decode_file(tmp_path / "x.png", 32) == 255).all()


def test_the_cameras_orientation_is_honoured(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise
    picture(64, 64).save(tmp_path / "x.jpg", exif=exif, quality=95)
    turned = np.asarray(picture(64, 64).rotate(-90).resize((32, 32), Image.Resampling.BICUBIC), int)
    assert np.abs(decode_file(tmp_path / "x.jpg", 32) - turned).mean() < 4


@pytest.mark.parametrize("size", [(120, 90), (90, 120), (101, 67)])
def test_crop_is_openais_preprocessing(size, tmp_path: Path):
    transform = clip_package().clip._transform(32)
    picture(*size).save(tmp_path / "x.png")
    theirs = transform(picture(*size)).permute(1, 2, 0).numpy() * module.CLIP_STD + module.CLIP_MEAN
    assert np.abs(decode_file(tmp_path / "x.png", 32, "crop") - theirs * 255).max() <= 1


def test_stretch_and_pad_keep_the_whole_picture(tmp_path: Path):
    picture().save(tmp_path / "x.png")
    original, fits = compare_fits(tmp_path / "x.png", 32)
    assert original.shape == (90, 120, 3)
    np.testing.assert_array_equal(fits["stretch"], picture().resize((32, 32), Image.Resampling.BICUBIC))
    assert (fits["pad"][:4] == 255).all()
    np.testing.assert_array_equal(fits["pad"][4:28], picture().resize((32, 24), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("size", [(120, 90), (90, 120), (101, 67)])
def test_a_portrait_is_filled_by_every_fit(size, tmp_path: Path):
    picture(*size).save(tmp_path / "x.png")
    fits = {fit: decode_file(tmp_path / "x.png", (48, 32), fit) for fit in module.FITS}
    assert {seen.shape for seen in fits.values()} == {(48, 32, 3)}
    np.testing.assert_array_equal(fits["stretch"], picture(*size).resize((32, 48), Image.Resampling.BICUBIC))
    scale = max(32 / size[0], 48 / size[1])
    whole = picture(*size).resize((int(size[0] * scale), int(size[1] * scale)), Image.Resampling.BICUBIC)
    left, top = round((whole.width - 32) / 2), round((whole.height - 48) / 2)
    np.testing.assert_array_equal(fits["crop"], whole.crop((left, top, left + 32, top + 48)))
    (tmp_path / "y.jpg").write_bytes(b"")
    images = decode_images(tmp_path, ["x.png", "y.jpg"], (48, 32), cache=tmp_path, progress=False)
    np.testing.assert_array_equal(images.pixels, fits["stretch"][None])


def test_reduced_decoding_does_not_change_what_a_model_sees(hands11k_fullres: Path):
    for path in sorted((hands11k_fullres / "Hands").glob("*.jpg"))[:6]:
        with Image.open(path) as image:
            full = np.asarray(image.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC), float)
        reduced = decode_file(path, 224)
        assert np.abs(reduced - full).mean() < 2
        assert np.corrcoef(reduced.ravel(), full.ravel())[0, 1] > 0.999


def too_large() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def cut_short() -> bytes:
    buffer = io.BytesIO()
    picture(400, 300).save(buffer, "JPEG")
    return buffer.getvalue()[: buffer.tell() // 2]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "0 bytes"),
        (b"<html>not an image</html>", "not an image"),
        (cut_short(), "cut short"),
        (too_large(), "89 megapixels"),
        (None, "absent"),
    ],
)
def test_a_bad_file_is_left_out_with_the_reason(content, words, folder: Path):
    if content is not None:
        (folder / "bad.png").write_bytes(content)
    found = decode(folder, [*NAMES, "bad.png"])
    assert found.paths == tuple(NAMES)
    assert words in found.failures["bad.png"]
    with pytest.raises(DataError, match=words):
        found.rows(["bad.png"])
    with pytest.raises(DataError, match="none of the 1 images"):
        decode(folder, ["bad.png"])


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


OTHER_FORMATS = {
    "GIF": "GIF", "EPS": "PostScript", "PDF": "PDF", "JPEG2000": "JPEG 2000", "AVIF": "AVIF", "TGA": None, "ICO": None,
    "PPM": None, "PCX": None,
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHER_FORMATS)
def test_a_format_that_is_not_named_is_not_opened_under_a_name_that_is(kind: str, tmp_path: Path):
    file = tmp_path / "1.jpg"
    Image.new("RGB", (32, 32), "pink").save(file, kind)
    found = OTHER_FORMATS[kind]
    known = "JPEG, PNG, BMP, TIFF, WebP"
    said = f"its content is {found}, not one of {known}; convert it" if found else f"it is not an image ({known})"
    assert decode_file(file, 8) == said
    with pytest.raises(DataError, match=f"{known}"):
        compare_fits(file, 8)


@pytest.mark.parametrize("kind", IMAGE_FORMATS)
def test_a_format_that_is_named_is_opened_under_any_name_that_is(kind: str, tmp_path: Path):
    for suffix in IMAGE_SUFFIXES:
        Image.new("RGB", (32, 32), "pink").save(tmp_path / f"1{suffix}", kind)
        assert not isinstance(decode_file(tmp_path / f"1{suffix}", 8), str)


def test_no_interpreter_is_started_for_a_photograph(tmp_path: Path, monkeypatch):
    mark, program = tmp_path / "started", tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {mark}\necho 10.0\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    file = tmp_path / "1.jpg"
    Image.new("RGB", (32, 32), "pink").save(file, "EPS")
    assert "PostScript" in decode_file(file, 8)
    assert not mark.exists()
    with pytest.raises(OSError), Image.open(file) as opened:
        opened.load()
    assert mark.exists(), "Pillow by itself would have started it"


def test_the_formats_that_are_opened_are_those_that_the_guide_names():
    guide = " ".join((Path(__file__).parents[2] / "docs" / "data.md").read_text().split())
    assert f"Formats: {', '.join(IMAGE_FORMATS)}, up to 89 megapixels" in guide
