import json
import uuid
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest
from PIL import Image

from handclip_lib.data.open import DATASETS, READERS, identified_by, open_dataset, recognised
from handclip_lib.data.splits import make_split
from handclip_lib.drawn import dataset as drawn
from handclip_lib.errors import DataError
from handclip_lib.parameters.parts import Dataset
from handclip_lib.places import cache_folder


@pytest.mark.parametrize(
    ("typed", "hint"),
    [("11K", "did you mean '11k'"), ("fodler", "did you mean 'folder'"), ("Drawn", "did you mean 'drawn'"), ("", "")],
)
def test_an_unknown_data_set_is_refused_with_the_nearest_name(typed, hint):
    with pytest.raises(DataError, match=f"unknown dataset '{typed}'; {hint}.*choose from drawn, 11k, hd, folder"):
        open_dataset(typed)


def test_every_data_set_is_a_choice_and_every_choice_a_data_set():
    assert get_args(Dataset) == DATASETS


@pytest.mark.parametrize("dataset", READERS)
def test_a_missing_or_empty_data_root_is_named(dataset, tmp_path):
    with pytest.raises(DataError, match="nowhere' does not exist; tried"):
        open_dataset(dataset, str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="data_root is empty"):
        open_dataset(dataset, "")
    with pytest.raises(DataError, match=str(tmp_path)):
        open_dataset(dataset, str(tmp_path))


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def refused(root, **levels):
        raise PermissionError(13, "Permission denied", str(root))

    monkeypatch.setitem(READERS, "folder", refused)
    with pytest.raises(DataError, match=r"cannot be read \(.*Permission denied.*\); make its files readable"):
        open_dataset("folder", str(tmp_path))


def test_data_sets_are_opened_by_name(tmp_path):
    (tmp_path / "anna").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "anna" / "1.png")
    table = open_dataset("folder", str(tmp_path))
    assert (table.dataset, table.root, table.images["identity"].tolist()) == ("folder", tmp_path, ["anna"])


def test_drawn_hands_are_drawn_into_the_cache_by_their_parameters(monkeypatch):
    asked = []

    def draw(folder, subjects, images_per_aspect, seed):
        asked.append((folder, subjects, images_per_aspect, seed))
        (folder / "Hands").mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(folder / "Hands" / "Hand_0000001.jpg")
        row = {"id": "0000001", "accessories": 0, "aspectOfHand": "dorsal right", "imageName": "Hand_0000001.jpg"}
        pd.DataFrame([row]).to_csv(folder / "HandInfo.csv", index=False)
        return folder

    monkeypatch.setattr(drawn, "draw_dataset", draw)
    table = open_dataset("drawn", "ignored", drawn_subjects=3, drawn_images=2, seed=7)
    assert table.dataset == "drawn"
    assert asked == [(table.root, 3, 2, 7)]
    assert table.root.is_relative_to(cache_folder())
    open_dataset("drawn", drawn_subjects=3, drawn_images=2, seed=8)
    assert asked[1][0] != asked[0][0]


KEYS = [str(uuid.UUID(int=number)) for number in range(4)]


def tongji(root: Path) -> Path:
    """600 palms in two sessions of ten, numbered through; here the first three."""
    return put(root, *(f"session{s}/{n:05d}.bmp" for s in (1, 2) for n in range(1, 31)))


def iitd(root: Path) -> Path:
    """The whole photographs, and what was cut out of them."""
    names = [f"{n:03d}_{k}" for n in (1, 2, 230) for k in (1, 2)]
    put(root, *(f"{side} Hand/{name}.JPG" for side in ("Left", "Right") for name in names))
    return put(root, *(f"Segmented/{side}/{name}.bmp" for side in ("Left", "Right") for name in names), "user.txt")


def casia(root: Path) -> Path:
    """A folder a person; gender and hand are in the names."""
    who = {"0001": "m", "0002": "f", "0312": "m"}
    return put(root, *(f"{i}/{i}_{g}_{h}_{k:02d}.jpg" for i, g in who.items() for h in "lr" for k in (1, 2)))


def hagrid(root: Path) -> Path:
    """A folder a gesture; JSON files say who is who."""
    put(root, *(f"{gesture}/{key}.jpg" for gesture, key in zip(("call", "fist", "call", "like"), KEYS, strict=True)))
    for gesture, keys in (("call", KEYS[::2]), ("fist", KEYS[1:2])):
        facts = {key: {"bboxes": [[0, 0, 1, 1]], "labels": [gesture], "leading_hand": "left", "leading_conf": 1.0,
                       "user_id": f"{KEYS.index(key) // 2:040x}"} for key in keys}  # fmt: skip
        (root / "ann_train_val").mkdir(exist_ok=True)
        (root / "ann_train_val" / f"{gesture}.json").write_text(json.dumps(facts))
    return root


def put(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())
    return root


TREES = {"tongji": tongji, "iitd": iitd, "casia": casia, "hagrid": hagrid}


@pytest.mark.parametrize("name", TREES)
def test_a_set_is_recognised_and_read_by_its_name_alone(name, tmp_path):
    root = TREES[name](tmp_path)
    assert recognised(root) == name
    assert open_dataset(name, str(root)).dataset == name
    if name != "casia":  # its folders name people, so it can be read as a folder too, without hands
        with pytest.raises(DataError, match=f"laid out like {name}"):
            open_dataset("folder", str(root))


def test_tongji_numbers_ten_photographs_of_a_palm_in_each_session(tmp_path):
    images = open_dataset("tongji", str(tongji(tmp_path))).images
    assert images.groupby(["identity", "session"]).size().to_dict() == {
        (f"{palm:03d}", f"session{s}"): 10 for palm in (1, 2, 3) for s in (1, 2)
    }
    palms = images.set_index("path")["identity"]
    assert palms[["session1/00010.bmp", "session1/00011.bmp", "session2/00030.bmp"]].tolist() == ["001", "002", "003"]
    assert images["capture"].isna().all()


def test_iitd_has_two_palms_a_subject_and_each_photograph_once(tmp_path):
    table = open_dataset("iitd", str(iitd(tmp_path)))
    assert sorted(set(table.images["identity"])) == [
        f"{n} {h}" for n in ("001", "002", "230") for h in ("left", "right")
    ]
    assert set(table.images["subject"]) == {"001", "002", "230"}
    assert set(table.images["aspect"]) == {"palmar_l", "palmar_r"}
    assert not table.images["path"].str.contains("Segmented").any()
    assert set(table.left_out["reason"].str[:14]) == {"it was cut out"}
    cut = open_dataset("iitd", str(tmp_path / "Segmented"))
    assert cut.images["identity"].tolist() == table.images["identity"].tolist()


def test_casia_says_gender_and_hand(tmp_path):
    images = open_dataset("casia", str(casia(tmp_path))).images.set_index("path")
    row = images.loc["0002/0002_f_r_01.jpg"]
    assert row[["identity", "subject", "side", "aspect", "gender"]].tolist() == [
        "0002 right", "0002", "right", "palmar_r", "female",
    ]  # fmt: skip


def test_hagrid_is_read_by_its_users_and_not_by_gestures(tmp_path):
    table = open_dataset("hagrid", str(hagrid(tmp_path)))
    images = table.images.set_index("path").loc[[f"call/{KEYS[0]}.jpg", f"fist/{KEYS[1]}.jpg", f"call/{KEYS[2]}.jpg"]]
    assert images["identity"].str[-1].tolist() == ["0", "0", "1"]
    assert images["gesture"].tolist() == ["call", "fist", "call"]
    assert table.left_out.to_dict("records") == [
        {"path": f"like/{KEYS[3]}.jpg", "reason": "no annotation says whom it shows"}
    ]
    assert any("faces and rooms" in note for note in table.notes)
    (tmp_path / "ann_train_val" / "call.json").write_text("{")
    with pytest.raises(DataError, match=r"call\.json cannot be read as JSON"):
        open_dataset("hagrid", str(tmp_path))


def test_a_hand_or_a_subject_is_the_identity_and_people_are_parted_either_way(tmp_path):
    names = [f"{n:03d}_{k}.bmp" for n in range(12) for k in (1, 2)]
    root = str(put(tmp_path, *(f"{side}/{name}" for side in ("Left", "Right") for name in names)))
    for identity, count in (("auto", 24), ("hand", 24), ("subject", 12)):
        split = make_split(open_dataset("iitd", root, identity=identity), "all")
        assert split.images["identity"].nunique() == count
        people = {role: {name.split()[0] for name in split.identities(role)} for role in ("train", "test")}
        assert (len(people["train"]), people["train"] & people["test"]) == (6, set())
    tongji_table = open_dataset("tongji", str(tongji(tmp_path / "palms")))
    with pytest.raises(DataError, match=r"identity='hand': of session1/00001\.bmp it is not known which hand"):
        identified_by(tongji_table, "hand")
