import pandas as pd
import pytest
from PIL import Image

from handclip_lib.data.open import READERS, open_dataset
from handclip_lib.drawn import dataset as drawn
from handclip_lib.errors import DataError
from handclip_lib.places import cache_folder


@pytest.mark.parametrize(
    ("typed", "hint"),
    [("11K", "did you mean '11k'"), ("fodler", "did you mean 'folder'"), ("Drawn", "did you mean 'drawn'"), ("", "")],
)
def test_an_unknown_data_set_is_refused_with_the_nearest_name(typed, hint):
    with pytest.raises(DataError, match=f"unknown dataset '{typed}'; {hint}.*choose from drawn, 11k, hd, folder"):
        open_dataset(typed)


@pytest.mark.parametrize("dataset", READERS)
def test_a_missing_or_empty_data_root_is_named(dataset, tmp_path):
    with pytest.raises(DataError, match="nowhere' does not exist; tried"):
        open_dataset(dataset, str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="data_root is empty"):
        open_dataset(dataset, "")
    with pytest.raises(DataError, match=str(tmp_path)):
        open_dataset(dataset, str(tmp_path))


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def refused(root):
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
