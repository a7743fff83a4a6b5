import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from handclip_lib.backbone.openai_clip import clip_package
from handclip_lib.data import decoder
from handclip_lib.data.decoder import IMAGE_FORMATS, ONLY_KNOWN, decode_file, file_fault, is_image, read_header
from handclip_lib.data.images import CLIP_MEAN, CLIP_STD, FITS

HEIF_IS_HERE = "HEIF" in decoder.readable_formats()


def picture(width: int = 120, height: int = 90, seed: int = 0) -> Image.Image:
    """A smooth colourful image."""
    noise = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def png(values: np.ndarray, colour: int, claimed: int = 0) -> bytes:
    """A PNG of 16 bits a sample, which Pillow cannot write in colour; of another side where one is claimed."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", claimed or width, claimed or height, 16, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*part) for part in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    )


def turned(tag: object = 6, kind: int = 3) -> bytes:
    """EXIF with an orientation, as a value of some TIFF type."""
    value = struct.pack("<H2x", tag) if isinstance(tag, int) else bytes(tag)[:4].ljust(4, b"\0")
    return b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHI", 0x0112, kind, 1) + value + b"\0\0\0\0"


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


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_samples_of_any_depth_become_those_of_8_bits(bits: int, channels: int, suffix: str, tmp_path: Path):
    eight = np.asarray(picture(seed=bits))
    eight = eight[..., 0] if channels == 1 else eight
    deep = (eight.astype(np.float64) / 255 * (2**bits - 1)).round().astype(np.uint16)
    if channels == 4:  # opaque, whatever the colours reach
        deep = np.concatenate([deep, np.full((*eight.shape[:2], 1), 65_535, np.uint16)], axis=2)
    file = tmp_path / f"x{suffix}"
    if suffix == ".png":
        file.write_bytes(png(deep, {1: 0, 3: 2, 4: 6}[channels]))
    elif channels == 1:
        Image.fromarray(deep).save(file, compression="tiff_lzw")
    else:
        file.write_bytes(tiff(deep))
    found = decode_file(file, eight.shape[:2], white=2**bits - 1)
    np.testing.assert_array_equal(found, np.asarray(Image.fromarray(eight).convert("RGB")))
    header = read_header(file)
    assert (header.samples, header.width, header.height) == ("16-bit", 120, 90)
    colours = deep if channels == 1 else deep[..., :3]
    assert decoder.sample_extremes(file) == [colours.min(), colours.max()]


def tiff(values: np.ndarray, photometric: int = 2, bits: int = 16, kind: int = 1) -> bytes:
    """A plain TIFF of one strip, little-endian, of samples that Pillow cannot write."""
    height, width, samples = (*values.shape, 1)[:3]
    data = values.astype(values.dtype.newbyteorder("<")).tobytes()
    facts = [
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, samples, bits if samples == 1 else None), (259, 3, 1, 1),
        (262, 3, 1, photometric), (273, 4, 1, 8), (277, 3, 1, samples), (278, 3, 1, height), (279, 4, 1, len(data)),
        *([(338, 3, 1, 2)] if samples == 4 else []), (339, 3, samples, kind if samples == 1 else None),
    ]  # fmt: skip
    after = 8 + len(data)
    directory = after + 2 + 12 * len(facts) + 4
    extra, entries = b"", b""
    for tag, form, count, value in facts:
        if value is None:
            value, extra = directory + len(extra), extra + struct.pack("<H", bits if tag == 258 else kind) * count
        entries += struct.pack("<HHII", tag, form, count, value)
    return b"II*\0" + struct.pack("<I", after) + data + struct.pack("<H", len(facts)) + entries + b"\0" * 4 + extra


def test_white_that_is_zero_is_white_in_deep_samples_too(tmp_path: Path):
    values = np.asarray(picture().convert("L")).astype(np.uint16) * 257
    (tmp_path / "x.tif").write_bytes(tiff(65_535 - values, photometric=0))
    found = decode_file(tmp_path / "x.tif", (90, 120), white=65_535)
    np.testing.assert_array_equal(found[..., 0], values // 257)


def test_grey_of_16_bits_with_transparency_is_refused_for_its_low_bytes_cannot_be_had(tmp_path: Path):
    (tmp_path / "x.png").write_bytes(png(np.full((4, 4, 2), 4095), colour=4))
    assert "not read exactly; save it as JPEG, PNG or TIFF without them" in read_header(tmp_path / "x.png")


@pytest.mark.parametrize(
    ("peak", "whole", "white"),
    [
        (1, True, 1), (255, True, 255), (700, True, 1023), (1024, True, 0), (2048, True, 4095), (4095, True, 4095),
        (4096, True, 0), (60_000, True, 65_535), (65_536, True, 0), (2.0**30, True, 2**31 - 1), (0.98, False, 1),
        (1.04, False, 1), (1.5, False, 0), (0.3, False, 0), (254.6, False, 255), (60_000.5, False, 65_535),
    ],
)  # fmt: skip
def test_what_samples_may_reach_is_plain_from_the_upper_half_on(peak: float, whole: bool, white: float):
    assert decoder.white_of(peak, whole) == white


def test_what_is_transparent_is_white(tmp_path: Path):
    Image.new("RGBA", (40, 40), (200, 0, 0, 0)).save(tmp_path / "x.png")
    assert (decode_file(tmp_path / "x.png", 32) == 255).all()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".avif", ".heic"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_the_cameras_orientation_is_honoured_once(turn: int, suffix: str, tmp_path: Path):
    if suffix == ".heic" and not HEIF_IS_HERE:
        pytest.skip("pillow-heif is not here")
    upright = picture(64, 48)
    to_file = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    lying = upright.transpose(to_file.get(turn, decoder.TURNS[turn])) if turn > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = turn
    lying.save(tmp_path / f"x{suffix}", exif=exif.tobytes(), quality=95)
    found = decode_file(tmp_path / f"x{suffix}", (48, 64))
    assert np.abs(found - np.asarray(upright, int)).mean() < 8
    assert read_header(tmp_path / f"x{suffix}").upright == (64, 48)


@pytest.mark.parametrize("turn", [1, 6])
@pytest.mark.parametrize("fit", FITS)
def test_a_turned_jpeg_is_decoded_at_the_size_that_is_needed(turn: int, fit: str, tmp_path: Path):
    lying = np.random.default_rng(0).integers(0, 255, (96, 192, 3), np.uint8)  # details of 5 pixels
    exif = Image.Exif()
    exif[0x0112] = turn
    photograph = Image.fromarray(lying).resize((1024, 512), Image.Resampling.BICUBIC)
    photograph.save(tmp_path / "x.jpg", exif=exif, quality=95)
    fast, exact = (decode_file(tmp_path / "x.jpg", (128, 256), fit, exact=exact) for exact in (False, True))
    assert np.abs(fast.astype(int) - exact).mean() < 4.5  # at half the size: 5.2, and 9.5 cropped
    upright = photograph.transpose(Image.Transpose.ROTATE_270) if turn == 6 else photograph
    whole = decoder._fitted(upright, (128, 256), fit, "bicubic")
    assert np.abs(exact - np.asarray(whole, int)).mean() < 6  # what JPEG loses of such noise


@pytest.mark.parametrize("size", [(120, 90), (90, 120), (101, 67)])
def test_crop_is_openais_preprocessing(size, tmp_path: Path):
    transform = clip_package().clip._transform(32)
    picture(*size).save(tmp_path / "x.png")
    theirs = transform(picture(*size)).permute(1, 2, 0).numpy() * CLIP_STD + CLIP_MEAN
    assert np.abs(decode_file(tmp_path / "x.png", 32, "crop") - theirs * 255).max() <= 1


def test_exact_decoding_is_openais_preprocessing_of_large_jpegs(hands11k_fullres: Path):
    transform = clip_package().clip._transform(224)
    for path in sorted((hands11k_fullres / "Hands").glob("*.jpg"))[:3]:
        with Image.open(path) as image:
            theirs = (transform(image).permute(1, 2, 0).numpy() * CLIP_STD + CLIP_MEAN) * 255
        assert np.abs(decode_file(path, 224, "crop", exact=True) - theirs).max() <= 1
        fast = np.abs(decode_file(path, 224, "crop") - theirs)
        assert 1 < fast.max() < 40
        assert fast.mean() < 1


def test_reduced_decoding_does_not_change_what_a_model_sees(hands11k_fullres: Path):
    for path in sorted((hands11k_fullres / "Hands").glob("*.jpg"))[:6]:
        full, reduced = decode_file(path, 224, exact=True), decode_file(path, 224)
        assert np.abs(reduced.astype(int) - full).mean() < 2
        assert np.corrcoef(reduced.ravel(), full.ravel())[0, 1] > 0.999


@pytest.mark.parametrize("size", [(120, 90), (90, 120), (101, 67)])
def test_a_portrait_is_filled_by_every_fit(size, tmp_path: Path):
    picture(*size).save(tmp_path / "x.png")
    fits = {fit: decode_file(tmp_path / "x.png", (48, 32), fit) for fit in FITS}
    assert {seen.shape for seen in fits.values()} == {(48, 32, 3)}
    np.testing.assert_array_equal(fits["stretch"], picture(*size).resize((32, 48), Image.Resampling.BICUBIC))
    scale = max(32 / size[0], 48 / size[1])
    whole = picture(*size).resize((int(size[0] * scale), int(size[1] * scale)), Image.Resampling.BICUBIC)
    left, top = round((whole.width - 32) / 2), round((whole.height - 48) / 2)
    np.testing.assert_array_equal(fits["crop"], whole.crop((left, top, left + 32, top + 48)))


def huge(side: int, kind: str) -> bytes:
    """A file whose head claims many pixels."""
    buffer = io.BytesIO()
    if kind == "PNG":
        return png(np.zeros((1, 1), np.uint16), 0, side)
    Image.new("L", (16, 16)).save(buffer, kind)
    return buffer.getvalue().replace(struct.pack(">HH", 16, 16), struct.pack(">HH", side, side), 1)


@pytest.mark.parametrize(("side", "kind"), [(10_000, "PNG"), (30_000, "PNG"), (17_000, "JPEG"), (40_000, "JPEG")])
def test_too_many_pixels_are_refused_with_the_remedy_before_they_are_decoded(side, kind, tmp_path: Path):
    (tmp_path / "x.jpg").write_bytes(huge(side, kind))
    for found in (decode_file(tmp_path / "x.jpg", 32), read_header(tmp_path / "x.jpg")):
        assert "too many (at most 89 megapixels, in a JPEG 256); make it smaller" in found


@pytest.mark.slow
def test_a_jpeg_of_108_megapixels_is_read_at_a_reduced_size(tmp_path: Path):
    small = picture(1500, 1125)
    small.resize((12_000, 9000), Image.Resampling.NEAREST).save(tmp_path / "x.jpg", quality=80)
    header = read_header(tmp_path / "x.jpg")
    assert decoder.decoding_bytes(header, 224) < 10**9
    found = decode_file(tmp_path / "x.jpg", 224)
    assert np.abs(found - np.asarray(small.resize((224, 224), Image.Resampling.BICUBIC), int)).mean() < 3
    assert "too many to decode in full (at most 89 megapixels); make it smaller, or decode=fast" in decode_file(
        tmp_path / "x.jpg", 224, exact=True
    )


def cut_short() -> bytes:
    buffer = io.BytesIO()
    picture(400, 300).save(buffer, "JPEG")
    return buffer.getvalue()[: buffer.tell() // 2]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "0 bytes"), (b"<html>not an image</html>", "not an image"), (cut_short(), "cut short"),
        (None, "absent"), (b"\0\0\0\x18ftypcrx ", "its content is camera raw"), (b"\0\0\0\x18ftypqt  ", "is film"),
    ],
)  # fmt: skip
def test_a_bad_file_has_its_reason(content, words, tmp_path: Path):
    if content is not None:
        (tmp_path / "bad.png").write_bytes(content)
    assert words in decode_file(tmp_path / "bad.png", 32)
    (tmp_path / "folder.jpg").mkdir()
    assert decode_file(tmp_path / "folder.jpg", 32) == "it cannot be read (Is a directory); make it readable"


@pytest.mark.parametrize(("tag", "kind"), [(b"\x06\0\0\0", 7), (b"6\0", 2), (9, 3), (0xFFFF, 13), (6, 99), (6, 5)])
def test_a_mistyped_orientation_leaves_the_pixels_as_they_lie(tag, kind: int, tmp_path: Path):
    picture(64, 48).save(tmp_path / "x.jpg", exif=turned(tag, kind), quality=95)
    picture(64, 48).save(tmp_path / "plain.jpg", quality=95)
    found, plain = (decode_file(tmp_path / name, 32) for name in ("x.jpg", "plain.jpg"))
    np.testing.assert_array_equal(found, plain)


@pytest.mark.parametrize("tag", [0x829A, 0x9286, 0x011A, 0x8769])
def test_a_mistyped_tag_beside_the_orientation_does_no_harm(tag: int, tmp_path: Path):
    exif = turned().replace(b"\x01\0" + struct.pack("<HH", 0x0112, 3), b"\x02\0" + struct.pack("<HH", 0x0112, 3), 1)
    exif = exif[:-4] + struct.pack("<HHII", tag, 2, 3, 0x41424344) + b"\0" * 4
    lying = picture(64, 48).transpose(Image.Transpose.ROTATE_90)
    lying.save(tmp_path / "x.jpg", exif=exif, quality=95)
    found = decode_file(tmp_path / "x.jpg", (48, 64))
    assert isinstance(found, np.ndarray)
    assert np.abs(found - np.asarray(picture(64, 48), int)).mean() < 4


def seeds_of_mutation() -> list[bytes]:
    """Small files of every format, with EXIF and without, and of deep samples."""
    made = []
    small = picture(24, 18)
    for kind, options in {
        "JPEG": {"quality": 80}, "PNG": {}, "BMP": {}, "WEBP": {}, "TIFF": {"compression": "tiff_lzw"}, "AVIF": {},
    }.items():  # fmt: skip
        for exif in ({}, {"exif": turned()}) if kind != "BMP" else ({},):
            buffer = io.BytesIO()
            small.save(buffer, kind, **options, **exif)
            made.append(buffer.getvalue())
    buffer = io.BytesIO()
    small.convert("P").save(buffer, "TIFF")
    deep = np.asarray(small).astype(np.uint16) * 257
    return [*made, buffer.getvalue(), png(deep, 2), png(deep[..., 0], 0), tiff(deep), tiff(deep[..., 0], 1)]


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """The same with some bytes changed, most of them in the head, or cut, or doubled in part."""
    changed = bytearray(content)
    reach = len(changed) if rng.random() < 0.3 else min(len(changed), 200)
    for place in rng.integers(0, reach, rng.integers(1, 6)):
        changed[place] = rng.choice([0, 1, 2, 255, 127, int(rng.integers(256)), changed[place] ^ 1 << rng.integers(8)])
    if rng.random() < 0.1:
        del changed[int(rng.integers(1, len(changed))) :]
    return bytes(changed)


@pytest.mark.parametrize("n", [300, pytest.param(3_000, marks=pytest.mark.slow)])
def test_no_mutated_file_raises_what_a_reader_raises(n: int, tmp_path: Path):
    rng, seeds, read = np.random.default_rng(n), seeds_of_mutation(), 0
    for number in range(n):
        file = tmp_path / "x.jpg"
        file.write_bytes(mutated(seeds[number % len(seeds)], rng))
        header, found = read_header(file), decode_file(file, 8)
        extremes = decoder.sample_extremes(file)
        assert isinstance(header, decoder.Header | str)
        assert isinstance(extremes, list | str)
        assert found.shape == (8, 8, 3) if isinstance(found, np.ndarray) else found
        read += isinstance(found, np.ndarray)
    assert 0.2 * n < read < 0.9 * n, "neither all harmless nor all refused"


OTHER_FORMATS = {
    "GIF": "GIF", "EPS": "PostScript", "PDF": "PDF", "JPEG2000": "JPEG 2000", "TGA": None, "ICO": None, "PPM": None,
    "PCX": None,
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHER_FORMATS)
def test_a_format_that_is_not_named_is_not_opened_under_a_name_that_is(kind: str, tmp_path: Path):
    file = tmp_path / "1.jpg"
    Image.new("RGB", (32, 32), "pink").save(file, kind)
    found, known = OTHER_FORMATS[kind], ", ".join(decoder.readable_formats())
    said = f"its content is {found}, not one of {known}; save it as JPEG, PNG or TIFF"
    assert decode_file(file, 8) == (said if found else f"it is not an image ({known})")


@pytest.mark.parametrize("kind", IMAGE_FORMATS)
def test_a_format_that_is_named_is_opened_under_any_name_that_is(kind: str, tmp_path: Path):
    if kind not in decoder.readable_formats():
        pytest.skip(f"{kind} cannot be read here")
    for suffix in (suffix for suffixes in IMAGE_FORMATS.values() for suffix in suffixes):
        Image.new("RGB", (32, 32), "pink").save(tmp_path / f"1{suffix}", kind)
        assert not isinstance(decode_file(tmp_path / f"1{suffix}", 8), str)


def test_the_first_of_several_pictures_in_a_jpeg_is_the_photograph(tmp_path: Path):
    picture(640, 480).save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=[picture(80, 60, 1)], quality=95)
    assert read_header(tmp_path / "x.jpg").format == "MPO"
    expected = np.asarray(picture(640, 480).resize((32, 32), Image.Resampling.BICUBIC), int)
    assert np.abs(decode_file(tmp_path / "x.jpg", 32) - expected).mean() < 3


def test_a_kind_that_is_known_and_not_read_says_what_to_do(monkeypatch):
    assert is_image("a/IMG_1.JPG")
    assert file_fault("a/IMG_1.JPG") == file_fault("x.jfif") == file_fault("x.JPE") == ""
    assert file_fault("IMG_1.CR2") == "camera raw (.cr2) is not read; save it as JPEG, PNG or TIFF"
    assert file_fault("IMG_1.MOV") == "film (.mov) is not read; save a frame of it as JPEG or PNG"
    assert all(is_image(f"x{suffix}") for suffixes in ONLY_KNOWN.values() for suffix in suffixes)
    assert not any(map(is_image, ("notes.txt", "HandInfo.csv", "IMG_1.AAE", "IMG_1.xmp", "Thumbs.db", "jpg", ".jpg")))
    assert file_fault("IMG_1") == "its suffix (none) is none of a photograph's; save it as JPEG, PNG or TIFF"
    monkeypatch.setattr(decoder, "readable_formats", lambda: ("JPEG",))
    remedy = 'HEIF (.heic) is not read; install pillow-heif: pip install "handclip[heif]"'
    assert file_fault("IMG_1.HEIC") == remedy


def test_heif_without_its_reader_names_the_package(tmp_path: Path, monkeypatch):
    (tmp_path / "x.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    monkeypatch.setattr(decoder, "readable_formats", lambda: ("JPEG", "PNG"))
    said = 'its content is HEIF, not one of JPEG, PNG; install pillow-heif: pip install "handclip[heif]"'
    assert decode_file(tmp_path / "x.jpg", 8) == said


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
    assert all(f"`{suffix}`" in guide for suffixes in IMAGE_FORMATS.values() for suffix in suffixes)
    assert "89 megapixels" in guide
