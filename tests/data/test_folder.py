from pathlib import Path

import pytest
from PIL import Image

from handclip_lib.data.folder import read_folder
from handclip_lib.data.open import read_hd
from handclip_lib.data.table import is_distractor
from handclip_lib.errors import DataError


def put(root: Path, *paths: str, content: bytes = b"photograph") -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two draws of the CLIP-FH tree; 7 and 12 are tested, and 12 comes second in one folder and first in another."""
    return put(
        tmp_path / "train_val_test_split_palmar_l",
        "train/3/Hand_0000001.jpg", "val/3/Hand_0000002.jpg", "train_all/3/Hand_0000001.jpg",
        "query0/12/Hand_0000005.jpg", "query0/7/Hand_0000003.jpg",
        "gallery0/12/Hand_0000006.jpg", "gallery0/7/Hand_0000004.jpg",
        "query1/12/Hand_0000006.jpg", "gallery1/12/Hand_0000005.jpg", "gallery1/7/Hand_0000004.jpg",
        "test/7/Hand_0000003.jpg",
    )  # fmt: skip


@pytest.mark.parametrize("above", [False, True])
def test_the_tree_of_splits_gives_one_row_a_photograph_and_its_draws(tree, above):
    table = read_folder(tree.parent if above else tree)
    images = table.images.set_index(table.images["path"].str[-5:-4])
    assert images["identity"].to_dict() == {"1": "3", "2": "3", "3": "7", "4": "7", "5": "12", "6": "12"}
    assert set(images["aspect"]) == {"palmar_l"}
    assert set(images["side"]) == {"left"}
    assert images.loc["6", "capture"] == 6
    given = table.given_split
    assert {tuple(row) for row in given.assign(path=given["path"].str[-5:-4]).to_numpy()} == {
        ("1", "train", -1), ("2", "val", -1), ("3", "query", 0), ("5", "query", 0), ("4", "gallery", 0),
        ("6", "gallery", 0), ("6", "query", 1), ("5", "gallery", 1), ("4", "gallery", 1),
    }  # fmt: skip
    assert table.left_out.empty
    assert all(path.is_file() for path in map(table.root.joinpath, table.images["path"]))


def test_a_photograph_under_two_identities_is_refused(tree):
    put(tree, "query1/13/Hand_0000005.jpg")
    with pytest.raises(DataError, match=r"Hand_0000005.jpg are one photograph under the identities '1.' and '1.'"):
        read_folder(tree)


def test_photographs_out_of_place_are_left_out(tree):
    put(tree, "train/Hand_0000020.jpg", "test/7/Hand_0000022.jpg", "train/3/a.txt")
    put(tree, "gallery0/7/Hand_0000023.cr2", "test/7/Hand_0000024.CR2")
    left_out = read_folder(tree).left_out
    assert dict(zip(left_out["path"], left_out["reason"], strict=True)) == {
        "train/Hand_0000020.jpg": "it does not lie in train/<identity>/",
        "train/3/a.txt": "its suffix .txt is none of a photograph's; save it as JPEG, PNG or TIFF",
        "test/7/Hand_0000022.jpg": "it lies only in test/, which is neither train, val, query nor gallery",
        "gallery0/7/Hand_0000023.cr2": "camera raw (.cr2) is not read; save it as JPEG, PNG or TIFF",
        "test/7/Hand_0000024.CR2": "camera raw (.cr2) is not read; save it as JPEG, PNG or TIFF",
    }


def test_the_path_is_an_images_name_where_the_content_differs(tree):
    for role, content in (("train", b"one"), ("val", b"another")):
        put(tree, f"{role}/3/same.jpg", content=content)
    put(tree, "query0/7/3_1.jpg", "gallery0/12/3_1.jpg", content=b"of 7")
    put(tree, "gallery0/12/3_1.jpg", content=b"of 12")
    images = read_folder(tree).images.set_index("path")["identity"]
    assert images[["train/3/same.jpg", "val/3/same.jpg"]].tolist() == ["3", "3"]
    assert images[["query0/7/3_1.jpg", "gallery0/12/3_1.jpg"]].tolist() == ["7", "12"]


def test_other_depths_in_a_tree_of_splits_are_refused(tree):
    put(tree, "query0/7/deep/Hand_0000021.jpg")
    with pytest.raises(DataError, match="photographs lie in 12/ and in 7/deep/"):
        read_folder(tree)


def roles_of(table) -> dict[str, str]:
    return {path: f"{role} {trial}" for path, role, trial in table.given_split.to_numpy()}


def test_queries_and_a_gallery_of_equal_file_names_are_a_split_of_one_draw(tmp_path):
    put(tmp_path, *(f"{role}/{who}/{n}.jpg" for role in ("query", "gallery") for who in "ab" for n in (1, 2)))
    table = read_folder(put(tmp_path, "train/c/1.jpg", "train/c/2.jpg", "test/d/1.jpg"))
    assert len(table.images) == 10
    assert roles_of(table) == {
        path: {"query": "query 0", "gallery": "gallery 0", "train": "train -1"}[path.split("/")[0]]
        for path in table.images["path"]
    }
    assert table.left_out["path"].tolist() == ["test/d/1.jpg"]


@pytest.mark.parametrize("folders", [("train", "test"), ("train", "val", "test"), ("train", "val")])
def test_train_val_and_test_are_roles_and_no_people(tmp_path, folders):
    put(tmp_path, *(f"{role}/{role}_{who}/{n}.jpg" for role in folders for who in "ab" for n in (1, 2)))
    table = read_folder(tmp_path)
    assert set(table.images["identity"]) == {f"{role}_{who}" for role in folders for who in "ab"}
    assert set(table.given_split["role"]) == set(folders)


def test_roles_hold_sessions_too(tmp_path):
    put(
        tmp_path, *(f"{role}/{role}_{who}/session{n}/1.jpg" for role in ("train", "test") for who in "ab" for n in "12")
    )
    table = read_folder(tmp_path)
    assert set(table.images["session"]) == {"session1", "session2"}
    assert set(table.images["identity"]) == {"train_a", "train_b", "test_a", "test_b"}


def test_a_draw_without_its_gallery_is_refused(tree):
    put(tree, "query2/7/Hand_0000004.jpg")
    with pytest.raises(DataError, match="holds query2/ but no gallery2/; add it, or remove query2/"):
        read_folder(tree)


def test_several_trees_must_be_told_apart(tree):
    put(tree.parent / "train_val_test_split_dorsal_r", "train/1/a.jpg", "query0/2/b.jpg", "gallery0/2/c.jpg")
    with pytest.raises(DataError, match=r"several splits.*dorsal_r.*palmar_l.*name one"):
        read_folder(tree.parent)


def test_any_folder_of_folders_is_read_by_the_names_of_its_folders(tmp_path):
    put(
        tmp_path, "anna/1.jpg", "anna/2.PNG", "<b>&/hand 3.jpeg", "007/4.jpg", "lost.jpg", ".cache/5.jpg", "read me.txt"
    )
    put(tmp_path, "anna/._1.jpg", "anna/notes.txt")
    table = read_folder(tmp_path)
    assert table.images.set_index("path")["identity"].to_dict() == {
        "anna/1.jpg": "anna", "anna/2.PNG": "anna", "<b>&/hand 3.jpeg": "<b>&", "007/4.jpg": "007",
    }  # fmt: skip
    assert dict(zip(table.left_out["path"], table.left_out["reason"], strict=True)) == {
        "lost.jpg": "it lies in no identity's folder",
        "anna/notes.txt": "its suffix .txt is none of a photograph's; save it as JPEG, PNG or TIFF",
    }
    assert table.given_split is None


def test_folders_named_after_aspects_give_the_aspect_and_share_identities(tmp_path):
    table = read_folder(put(tmp_path, "dorsal_r/5/1.jpg", "hands_palmar_l/5/2.jpg"))
    assert table.images["aspect"].tolist() == ["dorsal_r", "palmar_l"]
    assert table.images["identity"].tolist() == ["5", "5"]


@pytest.mark.parametrize(
    ("files", "message"),
    [((), "no photograph in a folder of its own"), (("a.jpg",), "no photograph in a folder"), (("1/a.txt",), "needs")],
)
def test_a_folder_without_folders_of_photographs_is_refused(files, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_folder(put(tmp_path, *files))


def test_an_absent_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="nowhere does not exist"):
        read_folder(tmp_path / "nowhere")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """HD."""
    names = ("1-501/1_1.jpg", "1-501/1_2.jpg", "1-501/0448_1.bmp", "502-712/502_1.jpg", "502-712/1_9.jpg")
    return put(tmp_path, *(f"Original Images/{name}" for name in names))


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
    put(folder, "nobody.jpg", "readme.txt", "._1_1.jpg")
    put(folder, "2_1.NEF")
    (folder / "3_1.jpg").mkdir()
    table = read_hd(root)
    assert len(table.images) == 5
    assert dict(zip(table.left_out["path"], table.left_out["reason"], strict=True)) == {
        "Original Images/1-501/nobody.jpg": "its name does not begin with a number and an underscore",
        "Original Images/1-501/2_1.NEF": "camera raw (.nef) is not read; save it as JPEG, PNG or TIFF",
        "Original Images/1-501/readme.txt": "its suffix .txt is none of a photograph's; save it as JPEG, PNG or TIFF",
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
        empty: "is empty; name the folder that holds 'Original Images'",
    }.items():
        with pytest.raises(DataError, match=message):
            read_hd(folder)


def test_a_data_set_without_photographs_is_refused(tmp_path):
    (tmp_path / "Original Images" / "1-501").mkdir(parents=True)
    with pytest.raises(DataError, match="holds no usable image"):
        read_hd(tmp_path)


def test_hands_of_one_side_are_no_two_identities_and_one_session_is_one(tmp_path):
    for name in ("left/anna/session1/1.png", "left/bert/session1/1.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        Image.new("RGB", (8, 6)).save(tmp_path / name)
    notes = read_folder(tmp_path).notes
    assert notes == ("folders are read as 1 session of people (session1)",)
