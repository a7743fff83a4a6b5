import re
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from handclip_lib.cli import main
from handclip_lib.data.folder import read_folder
from handclip_lib.data.labels import read_hands11k, read_labels, write_labels
from handclip_lib.data.splits import make_split
from handclip_lib.errors import DataError, WriteError

GOOD = {
    "id": "0000000", "age": "27", "gender": "male", "skinColor": "fair", "accessories": "0", "nailPolish": "0",
    "aspectOfHand": "dorsal right", "imageName": "", "irregularities": "0",
}  # fmt: skip


def written(root: Path, *changes: dict[str, str], images: bool = True) -> Path:
    """A data set of a good row a change; each row has an image of its own unless the change names one."""
    (root / "Hands").mkdir(parents=True)
    rows = [GOOD | {"imageName": f"Hand_{i:07d}.jpg"} | change for i, change in enumerate(changes)]
    pd.DataFrame(rows).to_csv(root / "HandInfo.csv", index=False)
    for row in rows:
        if images and re.fullmatch(r"Hand_\d+\.jpg", row["imageName"]):
            Image.new("RGB", (8, 6)).save(root / "Hands" / row["imageName"])
    return root


def reasons(table) -> dict[str, str]:
    return dict(zip(table.left_out["path"], table.left_out["reason"], strict=True))


def test_a_row_becomes_an_image_with_its_attributes(tmp_path):
    change = {"id": "0001057", "aspectOfHand": "palmar left", "imageName": "Hand_0000042.jpg", "accessories": "1"}
    table = read_hands11k(written(tmp_path, change))
    assert table.images.iloc[0].to_dict() == {
        "path": "Hands/Hand_0000042.jpg", "identity": "0001057", "subject": "0001057", "side": "left", "view": "palmar",
        "aspect": "palmar_l", "session": "", "camera": "", "capture": 42,
        "gender": "male", "age": 27, "skin_color": "fair", "accessories": True,
        "nail_polish": False, "irregularities": False,
    }  # fmt: skip
    assert (table.dataset, table.root, len(table.left_out), table.notes) == ("11k", tmp_path, 0, ())


def test_ids_that_differ_only_by_spaces_are_one_subject_and_it_is_noted(tmp_path):
    table = read_hands11k(written(tmp_path, {"id": "1200000 "}, {"id": "1200000"}, {"id": " 1200000"}))
    assert table.images["identity"].unique().tolist() == ["1200000"]
    assert table.notes == ("spaces around the id of 2 images were ignored ('1200000 ' of Hand_0000000.jpg)",)


@pytest.mark.parametrize("identity", ["<script>alert(1)</script>", "../../x", "=1+1", 'naïve, "quoted"'])
def test_an_identity_is_only_text(identity, tmp_path):
    table = read_hands11k(written(tmp_path / "data", {"id": identity}))
    assert table.images["identity"].tolist() == [identity]
    assert table.images["path"].tolist() == ["Hands/Hand_0000000.jpg"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"imageName": "../../../etc/passwd"}, "it names a file outside the data set"),
        ({"imageName": "..\\x.jpg"}, "it names a file outside the data set"),
        ({"imageName": "/etc/passwd"}, "it names a file outside the data set"),
        ({"imageName": ".."}, "it names a file outside the data set"),
        ({"imageName": ""}, "its imageName is empty"),
        ({"id": "  "}, "its id is empty"),
        ({"aspectOfHand": "dorsal"}, "its aspectOfHand 'dorsal' is none of dorsal/palmar right/left"),
        ({"aspectOfHand": "right dorsal"}, "its aspectOfHand 'right dorsal' is none of"),
        ({"accessories": "yes"}, "its accessories 'yes' is neither 0 nor 1"),
    ],
)
def test_a_row_that_cannot_be_used_is_left_out_with_its_reason(change, reason, tmp_path):
    table = read_hands11k(written(tmp_path, {}, change))
    assert len(table.images) == 1
    assert [text.startswith(reason) for text in table.left_out["reason"]] == [True]


def test_rows_without_a_name_are_counted_one_by_one(tmp_path):
    table = read_hands11k(written(tmp_path, {"imageName": "", "id": "1"}, {}, {"imageName": "", "id": "2"}))
    assert table.left_out["path"].tolist() == ["HandInfo.csv, line 2", "HandInfo.csv, line 4"]


def test_files_that_are_absent_of_another_kind_or_unlisted_are_left_out(tmp_path):
    written(tmp_path, {}, {}, {})
    (tmp_path / "Hands" / "Hand_0000001.jpg").unlink()
    (tmp_path / "Hands" / "Hand_0000003.dng").write_bytes(b"raw")
    (tmp_path / "Hands" / "Hand_0000009.jpg").write_bytes(b"more")
    (tmp_path / "Hands" / "Thumbs.db").write_bytes(b"no photograph")
    assert reasons(read_hands11k(tmp_path)) == {
        "Hands/Hand_0000001.jpg": "named in HandInfo.csv but absent from Hands/",
        "Hands/Hand_0000003.dng": "camera raw (.dng) is not read; save it as JPEG, PNG or TIFF",
        "Hands/Hand_0000009.jpg": "not named in HandInfo.csv",
    }


def test_an_image_with_two_ids_is_left_out_and_a_repeated_row_counts_once(tmp_path):
    twice, disputed = {"imageName": "Hand_0000007.jpg"}, {"imageName": "Hand_0000008.jpg"}
    table = read_hands11k(written(tmp_path, twice, twice, disputed | {"id": "5"}, disputed | {"id": "6"}))
    assert table.images["path"].tolist() == ["Hands/Hand_0000007.jpg"]
    assert reasons(table) == {"Hands/Hand_0000008.jpg": "listed 2 times with a different id: 5, 6"}
    assert table.notes == ("1 rows of HandInfo.csv repeat another row and count once",)


def test_an_attribute_that_cannot_be_read_is_unknown_and_costs_no_image(tmp_path):
    table = read_hands11k(written(tmp_path, {"age": "²", "nailPolish": "?"}, {"age": ""}, {"age": "9" * 30}))
    assert table.images["age"].isna().all()
    assert table.images["nail_polish"].isna().tolist() == [True, False, False]
    assert table.notes == (
        "age of 2 images is unknown: '²' cannot be read",
        "nailPolish of 1 images is unknown: '?' cannot be read",
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace(",", ",\t"),
        lambda text: "\n".join('"' + line.replace(",", '","') + '"' for line in text.splitlines()),
        lambda text: text.replace("\n", "\n\n"),
        lambda text: text.replace("irregularities", "irregularities,more").replace("jpg,0", "jpg,0,x"),
        lambda text: text.replace("jpg,0", "jpg,0,"),
        lambda text: "\n" + text,
        lambda text: text.replace("\n", ",,,\n"),
        lambda text: "".join(f"{n or ''},{line}\n" for n, line in enumerate(text.splitlines())),
    ],
    ids=[
        "byte-order mark",
        "CRLF",
        "white space",
        "quoted",
        "blank lines",
        "one more column",
        "last comma",
        "blank line first",
        "a spreadsheet's empty columns",
        "pandas' index",
    ],
)
def test_the_csv_may_be_written_in_any_usual_way(change, tmp_path):
    csv = written(tmp_path, {}, {"id": "1"}) / "HandInfo.csv"
    plain = read_hands11k(tmp_path).images
    csv.write_bytes(change(csv.read_text()).encode())
    pd.testing.assert_frame_equal(read_hands11k(tmp_path).images, plain)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,age,imageName\n1,2,a.jpg\n", "lacks the columns accessories, aspectOfHand; it has id, age, imageName"),
        (b"id:accessories:aspectOfHand:imageName\n", "lacks the columns id, accessories"),
        (b"id,accessories,aspectOfHand,imageName\n", "has a header but no rows"),
        (b"id,accessories,aspectOfHand,imageName, id\n1,0,dorsal right,a.jpg,2\n", "has a column twice"),
        (b"", "it is empty"),
        (b"id,accessories,aspectOfHand,imageName,\n1,0,dorsal right,a.jpg,x\n", "cells in a column without a name"),
        (b"id,accessories,aspectOfHand,imageName\n1,0,dorsal right,a.jpg\n\0\0\0", "line 3 holds zero bytes"),
        (b"\xff\xfe\x00id", "cannot be read as a table"),
        (b"id,accessories,aspectOfHand,imageName\n1,0,dorsal right,a.jpg\n1,2,3,4,5\n", "cannot be read as a table"),
    ],
)
def test_a_csv_that_is_not_one_says_what_is_wrong_and_what_to_do(content, message, tmp_path):
    (written(tmp_path, {}) / "HandInfo.csv").write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_hands11k(tmp_path)
    assert str(tmp_path / "HandInfo.csv") in str(error.value)
    assert "download HandInfo.csv again" in str(error.value)


def test_a_folder_that_is_not_the_data_set_is_told_from_one_near_it(tmp_path):
    root = written(tmp_path / "11k", {})
    (tmp_path / "empty").mkdir()
    for folder, message in {
        tmp_path / "nowhere": "is not a folder",
        tmp_path / "empty": "is empty; 11k Hands needs HandInfo.csv",
        root / "Hands": f"is inside the data set; name the folder above it: {root}",
        tmp_path: f"but {root} does: name that folder",
    }.items():
        with pytest.raises(DataError, match=message):
            read_hands11k(folder)


def test_metadata_without_photographs_is_an_error(tmp_path):
    written(tmp_path, {}, {}, images=False)
    with pytest.raises(DataError, match=r"none of the 2 images that HandInfo.csv names can be used.*absent.*put the"):
        read_hands11k(tmp_path)
    (tmp_path / "Hands").rmdir()
    with pytest.raises(DataError, match=r"has HandInfo\.csv but no folder Hands/"):
        read_hands11k(tmp_path)


def test_the_published_metadata_has_189_subjects(hands11k):
    table = hands11k
    assert len(table.images) == 11_076
    assert table.images["identity"].nunique() == 189
    assert table.images.loc[table.images["path"] == "Hands/Hand_0009853.jpg", "identity"].item() == "1200000"
    assert table.notes == ("spaces around the id of 1 images were ignored ('1200000 ' of Hand_0009853.jpg)",)
    assert not table.images.isna().any(axis=None)


def test_the_real_sample_has_the_counts_of_its_description(hands11k_sample):
    table = read_hands11k(hands11k_sample)
    assert (len(table.images), len(table.left_out), table.images["identity"].nunique()) == (764, 0, 175)
    bare = table.images[~table.images["accessories"]]
    counts = bare.groupby("aspect")["identity"].agg(["size", "nunique"])
    assert counts.loc["dorsal_r"].tolist() == [284, 105]
    assert counts.loc["palmar_r"].tolist() == [241, 109]


@pytest.mark.parametrize(
    ("first", "second"), [("0000002", "2"), ("anna", "Anna"), ("José", unicodedata.normalize("NFD", "José"))]
)
def test_ids_that_a_spreadsheet_or_keyboard_made_two_of_are_refused(tmp_path, first, second):
    with pytest.raises(DataError, match="are told apart by"):
        read_hands11k(written(tmp_path, {"id": first}, {"id": second}))


MANIFEST = """path,identity,side,view,session,camera,capture,gender,age,nail_polish,site
anna/1.png,anna,left,palmar,monday,1,7,female,31,yes,lab
anna/2.png,anna,right,palmar,,,8,,,,lab
b/é 3.png,bert,,,friday,2,,,,no,
"""


def tabled(root: Path, text: str = MANIFEST, *more: str) -> Path:
    for name in ("anna/1.png", "anna/2.png", "b/é 3.png", *more):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(root / name)
    (root / "manifest.csv").write_text(text, encoding="utf-8")
    return root


def test_a_table_of_ones_own_gives_all_that_is_known_and_groups_of_its_own(tmp_path):
    table = read_labels(tabled(tmp_path, MANIFEST, "c/4.png"))
    first, second, third = table.images.where(table.images.notna(), None).to_dict("records")
    assert first == {
        "path": "anna/1.png", "identity": "anna", "subject": "anna", "side": "left", "view": "palmar",
        "aspect": "palmar_l", "session": "monday", "camera": "1", "capture": 7, "gender": "female", "age": 31,
        "skin_color": None, "accessories": None, "nail_polish": True, "irregularities": None, "site": "lab",
    }  # fmt: skip
    assert (second["aspect"], second["session"], second["capture"]) == ("palmar_r", "", 8)
    assert (third["identity"], third["nail_polish"], third["side"], third["site"]) == ("bert", False, "", "")
    assert reasons(table) == {"c/4.png": "not named in manifest.csv"}
    assert table.given_split is None


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("palmar,monday", "palm,monday", r"line 2: view 'palm' is none of dorsal, palmar"),
        ("palmar,monday", 'palm,"mon\nday"', r"line 3: view 'palm'"),
        (",left,", ",l,", "side 'l' is none of left, right"),
        (",31,", ",old,", "age 'old' is no whole number"),
        (",yes,", ",maybe,", "nail_polish 'maybe' is neither yes nor no"),
        ("path,identity", "file,identity", "lacks the column path; it has file, identity"),
        ("gender,age", "gender,gender", "has a column twice"),
        ("b/é 3.png,bert", "anna/1.png,bert", "anna/1.png is listed more than once"),
        ("b/é 3.png,bert", "b/é 3.png,Anna", "'anna' .anna/1.png. and 'Anna'"),
        ("b/é 3.png,bert", "b/é 3.png, anna", "told apart by spaces"),
        ("b/é 3.png,bert", "b/é 3.png,", "'b/é 3.png' has no identity"),
    ],
)  # fmt: skip
def test_a_table_with_a_fault_is_refused_with_the_line(tmp_path, old, new, words):
    assert old in MANIFEST
    with pytest.raises(DataError, match=words):
        read_labels(tabled(tmp_path, MANIFEST.replace(old, new)))


@pytest.mark.parametrize("path", ["../x.png", "/etc/x.png", "C:\\1.png", "gone.png", "", "./anna/1.png", "notes.txt"])
def test_a_path_that_is_no_photograph_of_the_folder_is_left_out_with_the_reason(tmp_path, path):
    (tmp_path / "notes.txt").write_text("x")
    table = read_labels(tabled(tmp_path, MANIFEST + f"{path},carl,,,,,,,,,\n"))
    assert len(table.images) == 3
    assert len(table.left_out) == 1
    assert table.left_out["path"].iloc[0] == (path.replace("\\", "/") or "manifest.csv, line 5")


@pytest.mark.parametrize(
    "as_written",
    [
        lambda text, root: "\n;;\n" + text.replace(",", ";").replace("\n", ";;\n"),
        lambda text, root: "\ufeff" + text.replace(",", "\t").replace("path", "Path").replace("nail_p", "Nail_P"),
        lambda text, root: text.replace("anna/", "anna\\"),
        lambda text, root: text.replace("anna/", f"{root}/anna/"),
        lambda text, root: text.replace(",", "|").replace("identity", '"IDENTITY"'),
    ],
    ids=["semicolons", "tabs and capitals", "backslashes", "whole paths", "bars and quotes"],
)
def test_a_table_reads_alike_as_programs_and_spreadsheets_write_it(tmp_path, as_written):
    plain = read_labels(tabled(tmp_path / "plain"))
    other = tmp_path / "other"
    found = read_labels(tabled(other, as_written(MANIFEST, other)))
    pd.testing.assert_frame_equal(found.images, plain.images)
    assert found.notes == plain.notes


def test_the_metadata_of_11k_hands_reads_alike_as_a_spreadsheet_writes_it(tmp_path):
    plain, again = read_hands11k(written(tmp_path / "a", {}, {})), written(tmp_path / "b", {}, {})
    metadata = again / "HandInfo.csv"
    header, _, rows = metadata.read_text().replace(",", ";").partition("\n")
    metadata.write_text(f"{header.upper()}\n{rows}")
    pd.testing.assert_frame_equal(read_hands11k(again).images, plain.images)


def test_roles_and_draws_of_a_table_are_its_split(tmp_path):
    lines = ["path,identity,role,draw"]
    names = [f"{who}/{n}.png" for who in ("a", "b", "c") for n in range(3)]
    for name in names:
        if name.startswith("a"):
            lines.append(f"{name},a,{'val' if name == 'a/2.png' else 'train'},")
        else:
            roles = ("gallery", "query", "query"), ("query", "gallery", "query")
            lines += [f"{name},{name[0]},{role[int(name[2])]},{draw}" for draw, role in enumerate(roles)]
    table = read_labels(tabled(tmp_path, "\n".join(lines), *names))
    split = make_split(table)
    assert (split.meta["protocol"], split.meta["draws"]) == ("given", 2)
    assert split.paths("val") == ["a/2.png"]
    galleries = [split.draw(trial).gallery_paths.tolist() for trial in (0, 1)]
    assert galleries == [["b/0.png", "c/0.png"], ["b/1.png", "c/1.png"]]
    (tmp_path / "manifest.csv").write_text("\n".join([*lines[:-1], lines[-1].replace("query", "")]))
    with pytest.raises(DataError, match="1 rows have no role"):
        read_labels(tmp_path)


def test_a_manifest_is_written_for_a_folder_and_reads_the_same(tmp_path, capsys):
    names = [f"{who}/session{s}/{n}.png" for who in ("anna", "bert") for s in (1, 2) for n in (1, 2)]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(tmp_path / name)
    assert main(["data", "manifest", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "8 images of 2 people" in said
    assert "people are those of data set 'folder'" in said
    assert "correct it, then: handclip data check" in said
    assert "sessions of people (session1, session2)" in said
    written, read = read_labels(tmp_path).images, read_folder(tmp_path).images
    assert written[["path", "identity", "session", "capture"]].equals(read[["path", "identity", "session", "capture"]])
    assert main(["data", "manifest", str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err


def test_a_manifest_elsewhere_is_to_be_put_into_the_folder(tmp_path, capsys):
    (tmp_path / "set" / "anna").mkdir(parents=True)
    Image.new("RGB", (8, 6)).save(tmp_path / "set" / "anna" / "1.png")
    assert main(["data", "manifest", str(tmp_path / "set"), "--out", str(tmp_path / "m.csv")]) == 0
    assert "put it into the folder as manifest.csv, then: handclip data check" in capsys.readouterr().out


def test_people_of_market_1501_are_guessed_from_names_and_else_left_to_be_filled_in(tmp_path):
    for name in ("bounding_box_train/0002_c1s1_000451_03.jpg", "query/0003_c2s3_000001_00.jpg",
                 "bounding_box_test/-1_c3s1_000401_00.jpg", "gt_bbox/0003_c2s3_000001_00.jpg"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 6)).save(tmp_path / name)
    frame, notes = write_labels(tmp_path, tmp_path / "manifest.csv", lambda: read_folder(tmp_path))
    assert frame[["identity", "camera"]].to_numpy().tolist() == [["0002", "1"], ["0003", "2"]]
    assert "2 images of nobody" in notes[1]
    assert read_labels(tmp_path).images["camera"].tolist() == ["1", "2"]
    flat = tmp_path / "flat"
    flat.mkdir()
    for name in ("hand.jpg", "hand2.jpg"):
        Image.new("RGB", (8, 6)).save(flat / name)
    frame, notes = write_labels(flat, flat / "manifest.csv", lambda: read_folder(flat))
    assert frame["identity"].tolist() == ["", ""]
    assert "fill in the column identity" in notes[0]


def test_without_a_table_the_way_to_one_is_named(tmp_path):
    with pytest.raises(DataError, match="does not exist; write it with `handclip data manifest"):
        read_labels(tmp_path)


def test_a_folder_that_nobody_may_write_into_is_told_of_with_the_way_round(tmp_path):
    (tmp_path / "file").touch()
    for name in ("a/1.png", "b/1.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (8, 6)).save(tmp_path / name)
    with pytest.raises(WriteError, match=r"manifest.csv cannot be written .*name a file of yours: --out FILE"):
        write_labels(tmp_path, tmp_path / "file" / "manifest.csv", lambda: read_folder(tmp_path))
