import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from handclip_lib.drawn import dataset
from handclip_lib.drawn.dataset import (
    DRAWN_ASPECTS,
    draw_dataset,
    draw_image,
    is_drawn,
    shot_of,
    subject_of,
    subject_seed,
)
from handclip_lib.errors import DataError

REPOSITORY = Path(__file__).parents[2]


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "HandInfo.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def pixels_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "Hands").iterdir())}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_dataset(tmp_path_factory.mktemp("drawn") / "set", 3, 2, seed=3, progress=False, workers=1)


def test_the_data_set_has_the_layout_and_the_words_of_11k_hands(small: Path):
    rows = rows_of(small)
    assert (
        (small / "HandInfo.csv")
        .read_bytes()
        .startswith(
            b'id,age,gender,skinColor,accessories,nailPolish,aspectOfHand,imageName,irregularities\r\n"0000000",'
        )
    )
    assert [row["imageName"] for row in rows] == [f"Hand_{n:07d}.jpg" for n in range(1, 3 * 4 * 2 + 1)]
    assert [row["id"] for row in rows] == [f"{n // 8:07d}" for n in range(24)], "captures are consecutive"
    assert {row["aspectOfHand"] for row in rows} == {
        "dorsal right", "dorsal left", "palmar right", "palmar left"
    }  # fmt: skip
    assert {row["gender"] for row in rows} <= {"male", "female"}
    assert {row["skinColor"] for row in rows} <= {"very fair", "fair", "medium", "dark"}
    for flag in ("accessories", "nailPolish", "irregularities"):
        assert {row[flag] for row in rows} <= {"0", "1"}
    assert all(18 <= int(row["age"]) <= 75 for row in rows)
    for path in (small / "Hands").iterdir():
        with Image.open(path) as image:
            assert (image.size, image.mode, image.format) == ((240, 180), "RGB", "JPEG")


def test_the_words_match_the_published_metadata(small: Path, hands11k_metadata: Path):
    with hands11k_metadata.open(newline="") as file:
        published = list(csv.DictReader(file))
    assert list(rows_of(small)[0]) == list(published[0])
    for column in ("gender", "skinColor", "accessories", "nailPolish", "aspectOfHand", "irregularities"):
        assert {row[column] for row in rows_of(small)} <= {row[column] for row in published}, column


def test_attributes_occur_and_every_subject_keeps_photographs_without_accessories():
    subjects = [subject_of(subject_seed(0, number)) for number in range(140)]
    worn = [[shot_of(s, aspect, k).worn for k in range(5)] for s in subjects for aspect in DRAWN_ASPECTS]
    accessories = {shot.accessory for shots in worn for shot in shots}
    assert accessories == {"", "ring", "watch", "sleeve"}
    assert 0.03 < np.mean([shot.polish >= 0 for shots in worn for shot in shots]) < 0.25
    assert all(any(shot.accessory == "" for shot in shots) for shots in worn)
    assert {subject.skin_color for subject in subjects} == {"very fair", "fair", "medium", "dark"}


def test_what_is_written_is_what_was_drawn(small: Path):
    read = np.asarray(Image.open(small / "Hands" / "Hand_0000012.jpg")).astype(int)  # subject 1, second aspect
    drawn_again = draw_image(subject_seed(3, 1), DRAWN_ASPECTS[1], 1)
    assert np.abs(read - drawn_again).mean() < 3


def test_one_and_two_processes_write_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dataset, "_WORTH_PROCESSES", 8)
    one = draw_dataset(tmp_path / "one", 3, 1, progress=False, workers=1)
    two = draw_dataset(tmp_path / "two", 3, 1, progress=False, workers=2)
    assert pixels_of(one) == pixels_of(two)
    assert (one / "HandInfo.csv").read_bytes() == (two / "HandInfo.csv").read_bytes()


def test_an_unguarded_script_draws_too(tmp_path: Path):
    script = tmp_path / "script.py"
    call = f"dataset.draw_dataset({str(tmp_path / 'set')!r}, 3, 1, progress=False, workers=2)"
    script.write_text(f"from handclip_lib.drawn import dataset\ndataset._WORTH_PROCESSES = 8\n{call}\n")
    subprocess.run([sys.executable, script], check=True, cwd=REPOSITORY, env=_environment(), timeout=120)
    assert len(pixels_of(tmp_path / "set")) == 3 * 4


def test_a_complete_folder_is_kept_and_any_other_is_redrawn(tmp_path: Path):
    folder = draw_dataset(tmp_path / "set", 2, 1, progress=False)
    before = (folder / "drawn.json").stat().st_mtime_ns
    draw_dataset(folder, 2, 1, progress=False)
    assert (folder / "drawn.json").stat().st_mtime_ns == before
    (folder / "Hands" / "Hand_0000003.jpg").unlink()
    draw_dataset(folder, 2, 1, progress=False)
    assert len(pixels_of(folder)) == 8
    first = pixels_of(folder)
    draw_dataset(folder, 2, 1, seed=1, progress=False)
    assert json.loads((folder / "drawn.json").read_text())["seed"] == 1
    assert pixels_of(folder) != first
    assert [path.name for path in tmp_path.iterdir() if path.name != ".set.lock"] == ["set"], "nothing left over"


def test_an_error_midway_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fails_at_the_second(hands: Path, seed: int, number: int, *rest):
        if number == 1:
            raise OSError("No space left on device")
        return original(hands, seed, number, *rest)

    original = dataset._draw_subject
    monkeypatch.setattr(dataset, "_draw_subject", fails_at_the_second)
    with pytest.raises(DataError, match=r"cannot draw into .*No space left"):
        draw_dataset(tmp_path / "set", 3, 1, progress=False, workers=1)
    assert [path.name for path in tmp_path.iterdir()] in ([".set.lock"], [])


@pytest.mark.matrix("killed", "drawing hands", "no half folder; the next run clears up")
def test_a_killed_process_leaves_no_folder_and_the_next_one_clears_up(tmp_path: Path):
    call = f"draw_dataset(Path({str(tmp_path / 'set')!r}), 400, 5, progress=False, workers=1)"
    code = f"from pathlib import Path; from handclip_lib.drawn.dataset import draw_dataset; {call}"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, env=_environment())
    try:
        patience = time.monotonic() + 60
        while not list(tmp_path.glob(".set.drawing-*/new/Hands/*.jpg")):
            assert process.poll() is None
            assert time.monotonic() < patience
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    assert not (tmp_path / "set").exists()
    draw_dataset(tmp_path / "set", 1, 1, progress=False)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != ".set.lock") == ["set"]


def test_a_folder_with_something_else_in_it_is_refused_and_untouched(tmp_path: Path):
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs" / "mine.jpg").write_bytes(b"precious")
    with pytest.raises(DataError, match="not drawn here"):
        draw_dataset(tmp_path / "photographs", 1, 1, progress=False)
    assert (tmp_path / "photographs" / "mine.jpg").read_bytes() == b"precious"


@pytest.mark.parametrize("recipe", [b"", b"[1]", b"\xff\xfe{", b'{"version": 1}'])
def test_a_damaged_recipe_means_not_drawn(tmp_path: Path, recipe: bytes):
    folder = draw_dataset(tmp_path / "set", 1, 1, progress=False)
    good = json.loads((folder / "drawn.json").read_text())
    assert is_drawn(folder, good)
    (folder / "drawn.json").write_bytes(recipe)
    assert not is_drawn(folder, good)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"subjects": 0}, "subjects=0, .*: give at least 1, 1 and 0"),
        ({"images_per_aspect": -1}, "images_per_aspect=-1, "),
        ({"seed": -1}, "seed=-1, "),
        ({"stays": float("nan")}, "stays=nan: give .* a share in 0..1"),
    ],
)
def test_counts_out_of_bounds_are_refused(tmp_path: Path, arguments: dict[str, int], message: str):
    with pytest.raises(DataError, match=message):
        draw_dataset(tmp_path / "set", **arguments)
    assert not (tmp_path / "set").exists()


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}
