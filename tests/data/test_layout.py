"""Layouts that people bring: what each becomes, or why it is refused; and which numbers in names are captures."""

import os
import unicodedata
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handclip_lib.data.folder import read_folder
from handclip_lib.data.layout import aspect_of, kind_of, number_captures
from handclip_lib.data.splits import make_split
from handclip_lib.data.table import HandTable, natural_order
from handclip_lib.errors import DataError

PEOPLE = [f"{number:03d}" for number in range(4)]


def lay(root: Path, template: str, **values: list[str]) -> Path:
    """A photograph at each combination of the names in a template, each of its own content."""
    places = [{}]
    for name, some in {"who": PEOPLE, "n": ["1", "2"], **values}.items():
        if f"{{{name}}}" in template:
            places = [place | {name: value} for place in places for value in some]
    for place in places:
        file = root / template.format(**place)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(str(file).encode())
    return root


def column(table: HandTable, name: str) -> list[str]:
    return sorted(set(table.images[name]))


SESSIONS = ["session1", "session2"]
READ = [
    ("{who}/{n}.jpg", {}, {}),
    ("{who}/{s}/{n}.jpg", {"s": SESSIONS}, {"session": SESSIONS}),
    ("{s}/{who}/{n}.jpg", {"s": ["Visit 1", "Visit 2"]}, {"session": ["Visit 1", "Visit 2"]}),
    ("{who}/{s}/{n}.jpg", {"s": ["2024-01-05", "2024-02-09"]}, {"session": ["2024-01-05", "2024-02-09"]}),
    ("{who}/{h}/{n}.jpg", {"h": ["left", "Right"]}, {"side": ["left", "right"], "aspect": [""]}),
    ("{a}/{who}/{n}.jpg", {"a": ["dorsal right", "Left palm"]}, {"aspect": ["dorsal_r", "palmar_l"]}),
    ("{who}/palmar/{h}/{n}.jpg", {"h": ["left", "right"]}, {"aspect": ["palmar_l", "palmar_r"]}),
    ("photographs/{who}/{n}.jpg", {}, {}),
    ("{who}/photographs/{n}.jpg", {}, {}),
    ("dorsal_r/{who}/{s}/{n}.jpg", {"s": SESSIONS}, {"aspect": ["dorsal_r"], "session": SESSIONS}),
]


@pytest.mark.parametrize(("template", "values", "facts"), READ, ids=[template for template, _, _ in READ])
def test_people_are_people_wherever_their_folders_stand(tmp_path, template, values, facts):
    table = read_folder(lay(tmp_path, template, **values))
    assert column(table, "identity") == PEOPLE
    for name in ("session", "side", "aspect"):
        assert column(table, name) == facts.get(name, column(table, name) if name == "side" else [""])


def test_folders_of_dates_alone_name_people(tmp_path):
    ids = ["20010203", "20010204"]
    assert column(read_folder(lay(tmp_path, "{who}/{n}.jpg", who=ids)), "identity") == ids


REFUSED = [
    (["{site}/{who}/{n}.jpg"], {"site": ["siteA", "siteB"]}, "siteA/000 and siteB/000 may be one person or two"),
    (["{who}/{s}/{n}.jpg"], {"s": ["A", "B"]}, "level 1 .4 names: 000, 001, 002, ….* or level 2 .2 names: A, B"),
    (["{who}/{n}.jpg", "{who}/crops/{n}.jpg"], {}, "photographs lie in 000/ and in 000/crops/"),
    (["000/{n}.jpg", "001/session1/{n}.jpg"], {}, "photographs lie in 000/ and in 001/session1/"),
    (["{h}/{n}.jpg"], {"h": ["left", "right"]}, "no folder names a person: left names hands"),
    (["bounding_box_train/{who}_c1s1_{n}.jpg"], {}, "laid out like Market-1501.*handclip data manifest"),
    (["{s}/0000{n}.jpg"], {"s": SESSIONS}, "laid out like tongji.*-p dataset tongji"),
    (["{h}/00{n}_1.bmp"], {"h": ["Left", "Right"]}, "laid out like iitd.*-p dataset iitd"),
    (["call/{n}.jpg"], {"n": [str(uuid.UUID(int=n)) for n in range(3)]}, "laid out like hagrid"),
    (["{who}/{n}.jpg"], {"who": ["Anna", "anna"]}, "'Anna' .Anna/1.jpg. and 'anna'.*by capital letters alone"),
    (["{who}/{n}.jpg"], {"who": ["007", "7"]}, "by zeros in front alone"),
    (["{who}/{n}.jpg"], {"who": ["007", "007 "]}, "by spaces around them or the form"),
    (
        ["{who}/{n}.jpg"], {"who": [unicodedata.normalize(form, "José") for form in ("NFC", "NFD")]},
        "'Jos.* and 'Jos.*by spaces around them or the form of their letters alone",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("templates", "values", "words"), REFUSED, ids=[words for _, _, words in REFUSED])
def test_what_could_be_read_in_two_ways_is_refused_with_both(tmp_path, templates, values, words):
    for template in templates:
        lay(tmp_path, template, **values)
    with pytest.raises(DataError, match=words):
        read_folder(tmp_path)


def test_photographs_that_a_phone_names_by_codes_are_of_the_people_of_their_folders(tmp_path):
    codes = [str(uuid.uuid5(uuid.NAMESPACE_URL, str(n))) for n in range(3)]
    table = read_folder(lay(tmp_path, "{who}/{n}.jpg", n=codes))
    assert column(table, "identity") == PEOPLE
    assert table.images["capture"].isna().all()
    assert "no capture numbers" in table.notes[0]


def test_levels_that_are_said_are_taken(tmp_path):
    lay(tmp_path, "{site}/{who}/{n}.jpg", site=["siteA", "siteB"])
    by_person = read_folder(tmp_path, identity_level=2, session_level=1)
    assert (column(by_person, "identity"), column(by_person, "session")) == (PEOPLE, ["siteA", "siteB"])
    assert column(read_folder(tmp_path, identity_level=1), "identity") == ["siteA", "siteB"]
    with pytest.raises(DataError, match="no folder of identity_level=3"):
        read_folder(tmp_path, identity_level=3)


def test_of_two_levels_it_is_said_which_names_the_person(tmp_path):
    table = read_folder(lay(tmp_path, "photographs/{who}/{n}.jpg"))
    assert table.notes == ("of photographs/000/ the folder 000 names the person",)


def test_a_session_level_alone_leaves_the_other_to_the_people(tmp_path):
    table = read_folder(lay(tmp_path, "{who}/{s}/{n}.jpg", s=["A", "B"]), session_level=2)
    assert (column(table, "identity"), column(table, "session")) == (PEOPLE, ["A", "B"])


def test_one_form_of_a_name_is_taken_with_a_note(tmp_path):
    table = read_folder(lay(tmp_path, "{who}/{n}.jpg", who=[unicodedata.normalize("NFD", "José"), "Ann "]))
    assert column(table, "identity") == ["Ann", "José"]
    assert any("'Ann ' is 'Ann'" in note and "of 2 people" in note for note in table.notes)


def test_aspects_of_some_people_only_are_said(tmp_path):
    lay(tmp_path, "dorsal_r/{who}/{n}.jpg", who=PEOPLE[:3])
    table = read_folder(lay(tmp_path, "{who}/{n}.jpg", who=PEOPLE[3:]))
    assert column(table, "identity") == PEOPLE
    assert any("2 images of 1 identities record no aspect" in note for note in table.notes)
    assert set(make_split(table, "dorsal_r", "test_only").images["identity"]) == set(PEOPLE[:3])


@pytest.mark.parametrize("folder", ["@eaDir", "thumbs", "Thumbnails", "__MACOSX"])
def test_folders_of_small_copies_are_skipped_and_that_is_said(tmp_path, folder):
    lay(tmp_path, "{who}/{n}.jpg")
    table = read_folder(lay(tmp_path, "{who}/" + folder + "/{n}.jpg/small.jpg"))
    assert len(table.images) == 8
    assert table.notes == (f"4 folders of small copies were not read (000/{folder})",)


def test_links_to_folders_of_people_are_read_and_loops_refused(tmp_path):
    real = lay(tmp_path / "real", "{who}/{n}.jpg")
    (tmp_path / "links").mkdir()
    for who in PEOPLE:
        (tmp_path / "links" / who).symlink_to(real / who)
    (tmp_path / "root").symlink_to(real)
    for root in (tmp_path / "links", tmp_path / "root"):
        assert read_folder(root).images["path"].tolist() == read_folder(real).images["path"].tolist()
    (real / "000" / "again").symlink_to(real)
    with pytest.raises(DataError, match="000/again links back to a folder above it"):
        read_folder(real)


def test_one_folder_under_two_names_is_refused(tmp_path):
    lay(tmp_path, "{who}/{n}.jpg")
    (tmp_path / "anna").symlink_to(tmp_path / "000")
    with pytest.raises(DataError, match="000 and anna are one folder"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "aspect"),
    [("dorsal_r", "dorsal_r"), ("hands_palmar_l", "palmar_l"), ("Right Palm", "palmar_r"), ("back-left", "dorsal_l"),
     ("dorsal", ""), ("right", ""), ("a dorsal right", ""), ("anna", "")],
)  # fmt: skip
def test_a_folder_of_an_aspect_is_told_by_its_name(name, aspect):
    assert aspect_of(name) == aspect


def test_letters_are_people_and_no_hands():
    assert [kind_of(name) for name in ("L", "R", "s1", "day", "2024", "session x")] == ["name"] * 6


CAPTURES = [
    (["IMG_0007.jpg", "IMG_0008.png", "IMG_0011.jpg"], [7, 8, 11]),
    (["1.jpg", "2.jpg", "10.jpg"], [1, 2, 10]),
    ([f"{uuid.uuid5(uuid.NAMESPACE_URL, str(n))}.jpg" for n in range(3)], "differ in more than a number|same number"),
    (["P_F_01.jpg", "P_B_01.jpg"], "end in the same number"),
    (["IMG_0001_1600x1200.jpg", "IMG_0002_1600x1200.jpg"], "end in the same number"),
    (["IMG_20240105_101112.jpg", "IMG_20240105_101113.jpg"], "names a time of day"),
    (["PXL_20240105_101112123.jpg", "PXL_20240105_101113456.jpg"], "names a time of day"),
    (["2024-01-05 10.11.12.jpg", "2024-01-05 10.11.13.jpg"], "names a time of day"),
    (["1704448272123.jpg", "1704448272124.jpg"], "has none"),
    (["left.jpg", "right.jpg"], "has none"),
    (["a_5000.jpg", "a_905000.jpg", "a_1805000.jpg"], "lie 900000 apart"),
]


@pytest.mark.parametrize(("names", "found"), CAPTURES, ids=[names[0] for names, _ in CAPTURES])
def test_a_number_is_a_capture_only_where_it_counts(names, found):
    rows = [{"path": f"anna/{name}", "identity": "anna"} for name in names]
    note = number_captures(rows)
    if isinstance(found, list):
        assert [row["capture"] for row in rows] == found
        assert note == ""
    else:
        assert any(words in note for words in found.split("|"))
        assert not any("capture" in row for row in rows)


def test_captures_of_different_sessions_are_never_neighbours():
    rows = [
        {"path": f"anna/{session}/IMG_{n}.jpg", "identity": "anna", "session": session}
        for session in ("session10", "session2")
        for n in (1, 2)
    ]
    assert number_captures(rows) == ""
    one, two, three, four = sorted(row["capture"] for row in rows)
    assert (two - one, four - three) == (1, 1)
    assert three - two > 10**9
    assert rows[-1]["capture"] == two, "session2 comes first"


@given(st.sampled_from(["", "session", "day 2024-"]), st.lists(st.integers(0, 10**6)))
def test_names_with_numbers_are_ordered_by_them(word, numbers):
    names = [f"{word}{number}" for number in numbers]
    assert sorted(names, key=natural_order) == [f"{word}{number}" for number in sorted(numbers)]


def test_a_file_that_is_no_file_is_passed_over(tmp_path):
    lay(tmp_path, "{who}/{n}.jpg")
    os.mkfifo(tmp_path / "000" / "pipe")
    assert "pipe" in read_folder(tmp_path).left_out["path"].iloc[0]
