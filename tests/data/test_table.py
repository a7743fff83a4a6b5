import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handclip_lib.data.table import COLUMNS, HandTable, capture_number, copied_names, identity_order
from handclip_lib.errors import DataError
from handclip_lib.places import cache_folder, find_data_root


def a_table(*rows: dict, left_out: dict | None = None) -> HandTable:
    return HandTable.build("folder", Path("/data"), rows, left_out or {})


def test_a_table_has_every_column_whatever_the_rows_record():
    table = a_table({"path": "a.jpg", "identity": "1"}, {"path": "b.jpg", "identity": "2", "age": 30})
    assert tuple(table.images.columns) == COLUMNS
    assert table.images["age"].isna().tolist() == [True, False]
    assert table.images["aspect"].tolist() == ["", ""]
    assert str(table.images["accessories"].dtype) == "boolean"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no usable image: 1 × gone"),
        ([{"path": "a.jpg", "identity": "1"}] * 2, "'a.jpg' is listed more than once"),
        ([{"path": "a.jpg", "identity": " "}], "'a.jpg' has no identity"),
        ([{"path": "a.jpg"}], "'a.jpg' has no identity"),
        ([{"path": "a.jpg", "identity": "1", "aspect": "dorsal"}], "unknown aspect 'dorsal'; choose from dorsal_r"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(rows, message):
    with pytest.raises(DataError, match=message):
        a_table(*rows, left_out={"b.jpg": "gone"})


def test_images_that_fail_move_to_left_out_with_their_reason():
    table = a_table({"path": "a.jpg", "identity": "1"}, {"path": "b.jpg", "identity": "2"})
    fewer = table.without({"a.jpg": "cut short"})
    assert fewer.images["path"].tolist() == ["b.jpg"]
    assert fewer.left_out[["path", "reason", "identity"]].to_numpy().tolist() == [["a.jpg", "cut short", "1"]]
    assert len(table.images) == 2
    with pytest.raises(DataError, match="no usable image: 2 × cut short"):
        table.without({"a.jpg": "cut short", "b.jpg": "cut short"})


def test_a_file_name_that_is_not_utf8_is_left_out_and_can_be_written():
    table = a_table({"path": "1/a\udce9.jpg", "identity": "1"}, {"path": "1/b.jpg", "identity": "1"})
    assert table.images["path"].tolist() == ["1/b.jpg"]
    assert table.left_out["path"].iloc[0].encode("utf-8") == b"1/a\\udce9.jpg"


def test_identities_are_ordered_as_numbers_then_as_text():
    assert sorted(["b", "0000010", "9", "a", "1200000", "../x"], key=identity_order) == [
        "9", "0000010", "1200000", "../x", "a", "b",
    ]  # fmt: skip
    assert sorted(["9" * 5000, "1" + "0" * 5000], key=identity_order)[0] == "9" * 5000


@given(st.lists(st.integers(0, 10**12).map(str)))
def test_the_order_of_numbers_is_that_of_integers(numbers):
    assert [int(n) for n in sorted(numbers, key=identity_order)] == sorted(map(int, numbers))


@pytest.mark.parametrize(
    ("name", "number"),
    [("Hand_0000002.jpg", 2), ("12_34.png", 34), ("hand.jpg", None), ("9" * 30 + ".jpg", None), ("a/7.5/x3.jpg", 3)],
)
def test_the_capture_is_the_last_number_of_the_file_name(name, number):
    assert capture_number(name) == number


def test_a_relative_data_root_is_sought_here_and_then_in_the_project(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "study.toml").touch()
    (tmp_path / "photographs").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert find_data_root("photographs") == tmp_path / "photographs"
    assert find_data_root("../photographs") == (tmp_path / "photographs").resolve()
    (tmp_path / "notebooks" / "photographs").mkdir()
    assert find_data_root("photographs") == tmp_path / "notebooks" / "photographs"
    with pytest.raises(DataError) as error:
        find_data_root("nowhere")
    assert str(tmp_path / "nowhere") in str(error.value)
    assert str(tmp_path / "notebooks" / "nowhere") in str(error.value)


@pytest.mark.parametrize("typed", ["", " ", "~no-such-user/x", "x" * 5000, "a\0b", "file.csv"])
def test_a_data_root_that_cannot_be_is_refused_by_name(typed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.csv").touch()
    with pytest.raises(DataError, match=r"data_root.*name (the|a) folder"):
        find_data_root(typed)


def test_the_way_up_from_a_link_is_the_file_systems(tmp_path):
    (tmp_path / "disk" / "inner").mkdir(parents=True)
    (tmp_path / "disk" / "photographs").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "inner")
    assert find_data_root(str(tmp_path / "link" / ".." / "photographs")) == tmp_path / "disk" / "photographs"


def test_the_cache_can_be_moved(tmp_path, monkeypatch):
    monkeypatch.setenv("HANDCLIP_CACHE", str(tmp_path / "elsewhere"))
    assert cache_folder() == tmp_path / "elsewhere"
    monkeypatch.delenv("HANDCLIP_CACHE")
    assert cache_folder().is_absolute()
    assert "handclip" in str(cache_folder())


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        (["session 1", "Session 1", "session01", "session_1"], {"Session 1"}),
        (["2024-1-11", "2024-11-1", "2024-01-11"], {"2024-1-11", "2024-11-1"}),
        (["1 11", "11 1", "A1", "A 2"], {"1 11", "11 1", "A1", "A 2"}),
    ],
)
def test_sessions_that_differ_in_capitals_spaces_or_zeros_alone_are_one(names: list[str], kept: set[str]):
    rows = [{"path": f"a/{number}.jpg", "identity": "a", "session": name} for number, name in enumerate(names)]
    table = HandTable.build("csv", Path("/x"), rows, {})
    assert set(table.images["session"]) == kept
    assert any("sessions are taken for others" in note for note in table.notes) == (len(kept) < len(names))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["Anna (1)", "Anna (2)", "Bert"], "1 person may .* called: 'Anna \\(1\\)' and 'Anna \\(2\\)'; move"),
        (["7 - Copy (2)", "7", "Anna(3)", "Anna"], "2 people may .*: '7' and '7 - Copy \\(2\\)'; move"),
        (
            ["Ulla copy", "ulla", "Anna (1)", "(1)", "(2)", "Ann", "Anna"],
            "1 person .*: 'Anna' and 'Anna \\(1\\)'; move",
        ),
        (["Anna (1)", "Bert (2)", "copy", "anna"], ""),
    ],
)
def test_people_who_may_be_copies_of_one_folder_are_named(names, said):
    told = "".join(copied_names(names))
    assert re.match(said, told) if said else told == ""
    table = HandTable.build("folder", Path("/x"), [{"path": f"{n}/1.jpg", "identity": n} for n in names], {})
    assert "".join(table.notes) == told
