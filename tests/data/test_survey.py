import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from handclip_lib.data import survey as module
from handclip_lib.data.content import read_record
from handclip_lib.data.survey import in_threads, measure_quality, quality_of, reasons, survey
from handclip_lib.drawn.dataset import draw_image
from handclip_lib.errors import DataError
from handclip_lib.places import cache_folder


def save(folder: Path, values: np.ndarray, name: str) -> str:
    Image.fromarray(values).save(folder / name)
    return name


def hands(folder: Path, reach: float, dtype: type, n: int = 6, kind: str = "png") -> list[str]:
    """Grey ramps; the brightest reaches `reach`, the others somewhat less."""
    ramp = np.linspace(0, 1, 400).reshape(20, 20)
    values = [ramp * reach * (1 - 0.05 * i) for i in range(n)]
    whole = np.issubdtype(dtype, np.integer)
    return [save(folder, (v.round() if whole else v).astype(dtype), f"{dtype.__name__}{reach}-{i}.{kind}")
            for i, v in enumerate(values)]  # fmt: skip


@pytest.mark.parametrize(
    ("reach", "dtype", "kind", "white"),
    [
        (250, np.uint16, "png", 255), (1023, np.uint16, "png", 1023), (4000, np.uint16, "png", 4095),
        (16_000, np.uint16, "png", 16_383), (65_535, np.uint16, "tif", 65_535), (0.97, np.float32, "tif", 1),
        (255, np.float32, "tif", 255), (65_535, np.float32, "tif", 65_535), (4000, np.int32, "tif", 4095),
        (60_000, np.int32, "tif", 65_535), (16_000_000, np.int32, "tif", 2**24 - 1),
    ],
)  # fmt: skip
def test_white_is_measured_over_the_data_set(reach, dtype, kind, white, tmp_path: Path):
    names = hands(tmp_path, reach, dtype, kind=kind)
    seen = survey(tmp_path, names, progress=False)
    assert set(seen.whites.values()) == {white} == {seen.white(name) for name in names}
    assert f"to {reach:,.6g}: {white:,.6g} is white" in seen.notes[0]
    assert not seen.failures
    assert survey(tmp_path, names[::-1], progress=False).whites == seen.whites


@pytest.mark.parametrize(("reach", "dtype"), [(1500, np.uint16), (6000, np.int32), (0.4, np.float32), (900, np.int32)])
def test_what_is_not_plain_is_refused_and_can_be_said(reach, dtype, tmp_path: Path):
    names = hands(tmp_path, reach, dtype, kind="tif")
    if reach == 900:
        save(tmp_path, np.full((4, 4), -900, dtype), names[0])
    with pytest.raises(DataError, match=r"photographs of .* samples from .* sample_range, or save them with 8 bits"):
        survey(tmp_path, names, progress=False)
    if reach != 900:
        assert set(survey(tmp_path, names, 4095, progress=False).whites.values()) == {4095}


def test_two_cameras_are_refused_and_one_dark_photograph_is_left_out(tmp_path: Path):
    twelve, sixteen = hands(tmp_path, 4095, np.uint16, 12), hands(tmp_path, 65_535, np.uint16, 12)
    with pytest.raises(DataError, match=r"12 of them reach .* at most, such as uint164095-0.png: two kinds of camera"):
        survey(tmp_path, [*twelve, *sixteen], progress=False)
    seen = survey(tmp_path, [twelve[0], *sixteen], progress=False)
    assert list(seen.failures) == [twelve[0]]
    assert "nearly black, or of fewer bits; give sample_range" in seen.failures[twelve[0]]
    assert twelve[0] not in seen.headers
    given = survey(tmp_path, [*twelve, *sixteen], 4095, progress=False)
    assert "above sample_range=4,095; give the right one" in given.failures[sixteen[0]]


def test_samples_that_are_no_numbers_leave_their_file_out(tmp_path: Path):
    names = hands(tmp_path, 1.0, np.float32, kind="tif")
    save(tmp_path, np.full((4, 4), np.nan, np.float32), names[2])
    assert survey(tmp_path, names, progress=False).failures == {
        names[2]: "it holds samples that are no numbers; save it again"
    }


def test_eight_bits_are_neither_measured_nor_noted(tmp_path: Path):
    names = [save(tmp_path, np.full((20, 20), 3, np.uint8), "dark.png")]
    seen = survey(tmp_path, names, 4095, progress=False)
    assert (seen.whites, seen.notes, seen.white("dark.png")) == ({}, (), 0)


def test_an_orientation_that_cannot_be_read_is_said(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 77
    Image.new("RGB", (9, 9)).save(tmp_path / "a.jpg", exif=exif)
    Image.new("RGB", (9, 9)).save(tmp_path / "b.jpg")
    (note,) = survey(tmp_path, ["b.jpg", "a.jpg"], progress=False).notes
    assert note == "1 photographs stay turned as their pixels lie, such as a.jpg: its EXIF gives the orientation 77"


def test_what_was_looked_at_is_not_looked_at_again_until_it_changes(tmp_path: Path, monkeypatch):
    names = hands(tmp_path, 4095, np.uint16)
    first = survey(tmp_path, names, progress=False)
    with monkeypatch.context() as patched:
        for name in ("read_header", "sample_extremes"):
            patched.setattr(module, name, lambda path: pytest.fail(f"{path} is read again"))
        assert survey(tmp_path, names, progress=False) == first
    save(tmp_path, np.full((7, 9), 4000, np.uint16), names[1])
    assert survey(tmp_path, names, progress=False).headers[names[1]].width == 9


def test_a_damaged_record_is_made_again_and_reasons_are_not_kept(tmp_path: Path):
    names = hands(tmp_path, 4095, np.uint16)
    (tmp_path / "bad.png").write_bytes(b"no image")
    first = survey(tmp_path, [*names, "bad.png"], progress=False)
    assert list(first.failures) == ["bad.png"]
    records = list((cache_folder() / "content").glob("*.json"))
    for record in records:
        if first.contents[names[0]] in record.read_text():
            record.write_text("{")
    assert survey(tmp_path, [*names, "bad.png"], progress=False) == first
    again = [found for found in map(read_record, records) if first.contents[names[0]] in found]
    assert again
    assert all(first.contents["bad.png"] not in found for found in again)


@pytest.mark.parametrize(("need", "at_once"), [(10, 4), (60, 1), (30, 1), (25, 2), (0, 4)])
def test_only_as_many_work_at_once_as_cores_and_half_of_the_memory_allow(need, at_once, monkeypatch):
    monkeypatch.setattr(module, "cores", lambda: 4)
    monkeypatch.setattr(module, "free_memory", lambda: 100)
    now, most, lock, meeting = 0, 0, threading.Lock(), threading.Barrier(at_once)

    def work(row: int) -> int:
        nonlocal now, most
        with lock:
            now, most = now + 1, max(most, now + 1)
        meeting.wait(timeout=60)  # so many do work together
        with lock:
            now -= 1
        return row * row

    assert list(in_threads(work, [need] * 12, "x", progress=False)) == [row * row for row in range(12)]
    assert most <= at_once


def test_sharpness_is_the_variance_of_the_laplacian():
    grey = np.random.default_rng(0).integers(0, 255, (12, 9), np.uint8)
    rows, columns, values = *grey.shape, grey.astype(float)
    bends = [
        values[r - 1, c] + values[r + 1, c] + values[r, c - 1] + values[r, c + 1] - 4 * values[r, c]
        for r in range(1, rows - 1) for c in range(1, columns - 1)
    ]  # fmt: skip
    found = quality_of(np.repeat(grey[..., None], 3, axis=2))
    np.testing.assert_allclose(found, [np.var(bends), values.mean() / 255, values.std() / 255], atol=1e-6)
    assert quality_of(np.zeros((1, 2, 3), np.uint8)) == [0, 0, 0]


def test_the_poor_are_named_and_nothing_else(tmp_path: Path):
    hand = Image.fromarray(draw_image(3, "dorsal_r", 0))
    hand.save(tmp_path / "good.png")
    hand.resize((1600, 1200), Image.Resampling.BICUBIC).save(tmp_path / "large.jpg", quality=95)
    hand.filter(ImageFilter.GaussianBlur(4)).save(tmp_path / "blurred.png")
    hand.resize((80, 60)).save(tmp_path / "small.png")
    Image.new("RGB", (240, 180), "white").save(tmp_path / "blank.png")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "large.jpg").read_bytes()[:20_000])
    (tmp_path / "none.jpg").write_bytes(b"")
    names = ["good.png", "large.jpg", "blurred.png", "small.png", "blank.png", "cut.jpg", "none.jpg"]
    measured = measure_quality(survey(tmp_path, names, progress=False), names, progress=False)
    faults = ["", "", "unfocused", "too small", "blank", "unreadable", "unreadable"]
    assert measured["fault"].tolist() == faults
    assert measured["path"].tolist() == names
    assert measured.loc[1, ["width", "height"]].tolist() == [1600, 1200]
    assert reasons(measured, "blank", "unfocused") == {
        "blurred.png": "unfocused: its sharpness is below 6", "blank.png": "blank: its contrast is below 0.02",
    }  # fmt: skip
    assert "cut short" in reasons(measured, "unreadable")["cut.jpg"]


def test_real_photographs_are_not_poor_and_blurred_ones_are(hands11k_sample: Path, tmp_path: Path):
    names = sorted(path.name for path in (hands11k_sample / "Hands").glob("*.jpg"))[::8]
    root = hands11k_sample / "Hands"
    good = measure_quality(survey(root, names, progress=False), names, progress=False)
    assert (good["fault"] == "").all()
    for name in names[:20]:
        with Image.open(root / name) as image:
            image.filter(ImageFilter.GaussianBlur(3)).save(tmp_path / name, quality=95)
    poor = measure_quality(survey(tmp_path, names[:20], progress=False), names[:20], progress=False)
    assert (poor["fault"] == "unfocused").all()
