"""Photographs in other files and under other names: copies are found, other people are not taken for them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from handclip_lib.data.images import DecodedImages, decode_images
from handclip_lib.data.open import open_dataset
from handclip_lib.data.splits import make_split
from handclip_lib.drawn.dataset import draw_image, subject_seed
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation import leaks as module
from handclip_lib.evaluation.leaks import COPY, find_copies, leak_checks, prints, seen_photographs

PEOPLE, IMAGES = 4, 2


def photographs(root: Path, first: int, name: str = "{:03d}") -> Path:
    """A folder a person, of drawn hands from the person `first` on."""
    for number in range(PEOPLE):
        folder = root / name.format(number + 1)
        folder.mkdir(parents=True)
        for image in range(IMAGES):
            drawn = draw_image(subject_seed(0, first + number), "dorsal_r", image, 0.5)
            Image.fromarray(np.asarray(drawn)).resize((256, 256)).save(folder / f"{image}.png")
    return root


@pytest.fixture(scope="module")
def a(tmp_path_factory) -> Path:
    return photographs(tmp_path_factory.mktemp("a") / "photographs", 1)


@pytest.fixture(scope="module")
def b(tmp_path_factory) -> Path:
    """Other people, who have the same numbers."""
    return photographs(tmp_path_factory.mktemp("b") / "photographs", 101)


def checked(trained_on: Path, tested_on: Path, here: Path | None = None, **options):
    """Leak checks of what trained in one folder, and is tested on everybody in another."""
    folders = {"dataset": "folder", "data_root": str(trained_on)}
    trained = make_split(open_dataset(**folders), "all", seed=3, draws=1)
    table = open_dataset(options.pop("dataset", "folder"), str(tested_on))
    split = make_split(table, "all", "test_only", draws=1, **options)
    images = decode_images(table.root, split.evaluated_paths(), 128, progress=False)
    if here is not None:
        folders["data_root"] = str(here)
    seen = seen_photographs(trained, folders, images, "stretch")
    found = leak_checks(split, trained=trained, selected_on="val", pixel_features=None, images=images, seen=seen)
    return found.set_index("check")


def test_the_same_photographs_under_another_layout_are_a_leak(a, tmp_path):
    hd = tmp_path / "Original Images" / "1-501"
    hd.mkdir(parents=True)
    for file in a.rglob("*.png"):
        shutil.copy(file, hd / f"{900 - int(file.parent.name)}_{file.stem}.jpg")
    words = (
        rf"{PEOPLE // 2 * IMAGES} of {PEOPLE * IMAGES} tested photographs trained the model, such as .*89\d_\d\.jpg "
    )
    with pytest.raises(EvaluationError, match=words + r"of 89\d, which trained as 00\d/\d\.png of 00\d"):
        checked(a, tmp_path, dataset="hd")


def test_other_people_who_share_numbers_are_no_leak_and_it_says_why(a, b):
    found = checked(a, b)
    assert found.loc["people", "passed"] == "yes"
    assert (
        "the two data sets (folder, folder) share none: their people are taken for others" in found["detail"]["people"]
    )
    assert "2 people have the same names there (00" in found["detail"]["people"]
    assert found.loc["copies", "passed"] == "yes", found.loc["copies", "detail"]
    assert "4 of 4 photographs that trained were looked at" in found.loc["copies", "detail"]


def test_photographs_saved_again_are_found(a, tmp_path):
    for number, file in enumerate(sorted(a.rglob("*.png"))):
        copy = tmp_path / "p" / f"person {file.parent.name}" / f"{file.stem}.jpg"
        copy.parent.mkdir(parents=True, exist_ok=True)
        image = Image.open(file)
        image.resize((150, 150) if number % 2 else image.size).save(copy, quality=30 if number % 3 else 80)
    found = checked(a, tmp_path / "p")
    assert found.loc["people", "passed"] == "yes", "no byte is the same"
    passed, detail = found.loc["copies"]
    assert passed == "no"
    assert detail.startswith("4 tested photographs are near-duplicates of one that trained, such as person 00")


def test_photographs_that_are_gone_or_changed_are_not_checked(a, b, tmp_path):
    found = checked(a, b, here=tmp_path / "gone")
    assert found.loc["copies", "passed"] == "not checked" and "not at hand" in found.loc["copies", "detail"]
    assert found.loc["people", "passed"] == "yes", "the contents are in the manifests"
    assert checked(a, b, here=b).loc["copies", "passed"] == "not checked", "the same names hold others now"
    some = tmp_path / "some"
    shutil.copytree(a, some)
    for file in some.glob("*/0.png"):
        file.unlink()
    passed, detail = checked(a, b, here=some).loc["copies"]
    assert passed == "not checked" and "2 of 4 photographs that trained were looked at" in detail


def decoded(pixels: np.ndarray, kind: str) -> DecodedImages:
    names = tuple(f"{kind}{n}" for n in range(len(pixels)))
    return DecodedImages(names, pixels, {}, names)


def test_blocks_find_what_the_whole_matrix_does(monkeypatch):
    rng = np.random.default_rng(0)
    seen = rng.integers(0, 256, (23, 40, 40, 3), np.uint8)
    tested = np.concatenate([seen[[20, 3, 3]], rng.integers(0, 256, (9, 40, 40, 3), np.uint8)])
    tested[1] //= 2
    monkeypatch.setattr(module, "AT_ONCE", 5)
    cosine = prints(tested) @ prints(seen).T
    for near in (0.9, 0.05):
        found = find_copies(decoded(tested, "t"), decoded(seen, "s"), near)
        rows = np.flatnonzero(cosine.max(axis=1) >= near)
        assert found == {f"t{row}": f"s{cosine[row].argmax()}" for row in rows}
    assert list(find_copies(decoded(tested, "t"), decoded(seen, "s")).values()) == ["s20", "s3", "s3"]


def test_what_shows_nothing_is_like_nothing():
    flat = np.full((3, 50, 50, 3), 200, np.uint8)
    assert find_copies(decoded(flat, "t"), decoded(flat, "s")) == {}


def test_no_two_people_of_the_real_sample_are_taken_for_one(hands11k_sample):
    table = open_dataset("11k", str(hands11k_sample))
    images = decode_images(table.root, table.images["path"], 128, progress=False)
    who = table.images.set_index("path").loc[list(images.paths), "identity"].to_numpy()
    shown = prints(images.pixels)
    cosine = np.where(who[:, None] == who, 0, shown @ shown.T)
    assert cosine.max() < COPY - 0.02
