from pathlib import Path

import pytest

from handclip_lib.data.folder import read_hd
from handclip_lib.data.table import is_distractor
from handclip_lib.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("1-501/1_1.jpg", "1-501/1_2.jpg", "1-501/0448_1.bmp", "502-712/502_1.jpg", "502-712/1_9.jpg"):
        file = tmp_path / "Original Images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"photograph")
    return tmp_path


def test_the_identity_is_the_number_before_the_underscore(root):
    images = read_hd(root).images.set_index("path")
    assert images["identity"].to_dict() == {
        "Original Images/1-501/0448_1.bmp": "448",
        "Original Images/1-501/1_1.jpg": "1",
        "Original Images/1-501/1_2.jpg": "1",
        "Original Images/502-712/1_9.jpg": "1001",
        "Original Images/502-712/502_1.jpg": "1502",
    }
    assert set(images["view"]) == {"dorsal"}
    assert set(images["side"]) == set(images["aspect"]) == {""}
    assert images.loc["Original Images/1-501/1_2.jpg", "capture"] == 2


def test_the_distractors_are_the_images_of_the_second_folder(root):
    images = read_hd(root).images
    assert images["identity"][is_distractor(images)].tolist() == ["1001", "1502"]


def test_files_that_cannot_be_used_are_left_out_and_others_ignored(root):
    folder = root / "Original Images" / "1-501"
    (folder / "nobody.jpg").write_bytes(b"photograph")
    (folder / "2_1.jpg").write_bytes(b"")
    (folder / "readme.txt").write_bytes(b"text")
    (folder / "3_1.jpg").mkdir()
    table = read_hd(root)
    assert len(table.images) == 5
    assert dict(zip(table.left_out["path"], table.left_out["reason"], strict=True)) == {
        "Original Images/1-501/nobody.jpg": "its name does not begin with a number and an underscore",
        "Original Images/1-501/2_1.jpg": "the file is empty (0 bytes)",
    }


def test_a_gallery_without_distractors_is_noted(root):
    assert read_hd(root).notes == ()
    for file in (root / "Original Images" / "502-712").iterdir():
        file.unlink()
    (root / "Original Images" / "502-712").rmdir()
    assert "no distractors" in read_hd(root).notes[0]


def test_a_folder_that_is_not_the_data_set_is_told_from_one_near_it(root, tmp_path_factory):
    above = tmp_path_factory.mktemp("above")
    root = root.rename(above / "hd")
    empty = tmp_path_factory.mktemp("empty")
    for folder, message in {
        root / "nowhere": "is not a folder",
        root / "Original Images" / "1-501": f"is inside the data set; name the folder above it: {root}$",
        root / "Original Images": f"is inside the data set; name the folder above it: {root}$",
        above: f"but {root} does",
        empty: "holds no folder 'Original Images/1-501'; name the folder that holds",
    }.items():
        with pytest.raises(DataError, match=message):
            read_hd(folder)


def test_a_data_set_without_photographs_is_refused(tmp_path):
    (tmp_path / "Original Images" / "1-501").mkdir(parents=True)
    with pytest.raises(DataError, match="holds no usable image"):
        read_hd(tmp_path)
