"""A split on disk: whole, the same after a round trip, and refused when someone changed it."""

import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handclip_lib.data.manifest import Split
from handclip_lib.errors import DataError, WriteError

META = {"dataset": "folder", "protocol": "proportional", "aspect": "dorsal_r", "seed": 0, "draws": 3, "notes": ["é"]}


def split_of(rows: list[tuple], meta=META) -> Split:
    columns = ["path", "identity", "aspect", "capture", "role", "gallery_in"]
    return Split.build(dict(meta), pd.DataFrame(rows, columns=columns))


SMALL = [
    ("a/1.jpg", "a", "dorsal_r", 1, "train", ""),
    ("b/2.jpg", "007", "dorsal_r", 2, "test", "0 2"),
    ("b/3.jpg", "007", "dorsal_r", None, "test", "1"),
    ("c/9.jpg", "007", "palmar_r", 9, "other", "0"),
    ("c/8.jpg", "007", "palmar_r", 8, "other", "1 2"),
    ("d/4.jpg", "1502", "", 4, "distractor", ""),
    ("e/5.jpg", "e", "dorsal_r", 5, "val", ""),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    split_of(SMALL).write(tmp_path)
    return tmp_path


def test_a_draw_holds_what_its_gallery_says():
    split = split_of(SMALL)
    draw = split.draw(2)
    assert draw.query_paths.tolist() == ["b/3.jpg"]
    assert (draw.query_ids.tolist(), draw.query_captures.tolist()) == (["007"], [-1])
    assert draw.gallery_paths.tolist() == ["b/2.jpg", "d/4.jpg"]
    assert draw.gallery_ids.tolist() == ["007", "1502"]
    everyone = split.draw(2, "all")
    assert everyone.gallery_ids.tolist() == ["007", "palmar_r/007", "1502"]
    assert everyone.gallery_captures.tolist() == [2, 8, 4]


def test_draw_ten_is_not_draw_one():
    split = split_of([("a", "1", "", 1, "test", "10"), ("b", "1", "", 2, "test", "1")], {**META, "draws": 11})
    assert (split.draw(1).gallery_paths.tolist(), split.draw(10).gallery_paths.tolist()) == (["b"], ["a"])


def test_only_images_that_some_draw_needs_are_embedded():
    rows = [*SMALL, ("c/7.jpg", "007", "palmar_r", 7, "other", "")]
    assert split_of(rows).evaluated_paths() == ["b/2.jpg", "b/3.jpg", "c/8.jpg", "c/9.jpg", "d/4.jpg"]


def test_the_checksum_depends_on_content_and_not_on_order():
    split = split_of(SMALL)
    assert split_of(SMALL[::-1]).checksum == split.checksum
    assert split_of(SMALL[1:]).checksum != split.checksum
    assert split_of(SMALL, {**META, "seed": 1}).checksum != split.checksum


NAMES = st.sampled_from(["NA", "nan", "null", "", '"', "a,b", "l\nf", "c\rr", "é", "007", "1e5", "<script>", "../x"])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(NAMES, NAMES, st.none() | st.integers(0, 10**15 - 1)), min_size=1, max_size=6))
def test_awkward_names_survive_the_disk(tmp_path_factory, names):
    rows = [(f"{n}/{name}", identity, "", capture, "test", "0") for n, (name, identity, capture) in enumerate(names)]
    split = split_of(rows)
    csv = split.write(tmp_path_factory.mktemp("split"))
    for path in (csv, csv.parent):
        read = Split.read(path)
        assert (read.checksum, read.meta) == (split.checksum, split.meta)
        there = read.images.drop(columns=["subject", "session", "content"]).astype(object)
        assert [tuple(row) for row in there.where(there.notna(), None).to_numpy()] == rows


def test_the_checksum_covers_what_is_in_the_files(tmp_path):
    unknown = split_of(SMALL)
    one, other = (
        Split.build(dict(META), unknown.images.assign(content=[f"{n + shift:032x}" for n in range(len(SMALL))]))
        for shift in (0, 1)
    )
    assert len({unknown.checksum, one.checksum, other.checksum}) == 3
    read = Split.read(one.write(tmp_path))
    assert (read.checksum, read.images["content"].tolist()) == (one.checksum, one.images["content"].tolist())


def test_a_manifest_of_before_contents_were_recorded_is_read_and_checked(tmp_path):
    csv = "path,identity,aspect,capture,role,gallery_in\na,1,,1,test,0\nb,1,,,test,\n"
    (tmp_path / "split.csv").write_text(csv)
    facts = {"checksum": "e8817c5c76416a04915725dae220b13af965a0db3c883e88bc71e83417f4b0b6", "seed": 0, "draws": 1}
    (tmp_path / "split.json").write_text(json.dumps(facts))
    split = Split.read(tmp_path)
    assert (split.checksum, set(split.images["content"])) == (facts["checksum"], {""})
    (tmp_path / "split.csv").write_text(csv.replace("b,1", "b,2"))
    with pytest.raises(DataError, match="was changed after it was made"):
        Split.read(tmp_path)


def test_the_files_are_the_same_bytes_on_every_system(folder):
    rows = (folder / "split.csv").read_bytes()
    assert rows.startswith(b"path,identity,aspect,capture,role,gallery_in\na/1.jpg,a,dorsal_r,1,train,\n")
    assert b"\r" not in rows + (folder / "split.json").read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == ["split.csv", "split.json"]


def test_a_row_or_fact_edited_by_hand_is_refused(folder):
    csv, facts = folder / "split.csv", folder / "split.json"
    whole = csv.read_text()
    for old, new in (("007,dorsal_r,2", "7,dorsal_r,2"), ("train", "test"), ("a/1.jpg,a,dorsal_r,1,train,\n", "")):
        assert old in whole
        csv.write_text(whole.replace(old, new))
        with pytest.raises(DataError, match=r"split\.csv was changed after it was made"):
            Split.read(folder)
    csv.write_text(whole)
    facts.write_text(facts.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(DataError, match="was changed"):
        Split.read(folder)


def test_lines_ended_by_another_system_are_no_change(folder):
    csv = folder / "split.csv"
    csv.write_bytes(csv.read_bytes().replace(b"\n", b"\r\n"))
    assert Split.read(csv).checksum == split_of(SMALL).checksum


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("split.csv", b""),
        ("split.csv", b"\xff\xfe\x00"),
        ("split.csv", b"path,identity\na,b\n"),
        ("split.csv", b"path,identity,aspect,capture,role,gallery_in\na,b,,x,test,\n"),
        ("split.csv", b"path,identity,aspect,capture,role,gallery_in\na,b,,1,test,,,,\n" * 2),
        ("split.json", b""),
        ("split.json", b"[1]"),
        ("split.json", b'"text"'),
        ("split.json", b"{}"),
        ("split.json", b'{"checksum": '),
    ],
)
@pytest.mark.matrix("damaged file", "the split of an earlier run", "refused by name")
def test_a_damaged_manifest_is_named(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=r"split\.csv (is not a split manifest|was changed).*make the split again"):
        Split.read(folder)


@pytest.mark.parametrize("name", ["split.csv", "split.json"])
def test_half_a_manifest_is_refused(folder, name):
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"{name} does not exist; a split is the pair"):
        Split.read(folder)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"file/split\.csv cannot be written .*name another place"):
        split_of(SMALL).write(tmp_path / "file")


def test_unknown_roles_galleries_and_draws_are_refused():
    split = split_of(SMALL)
    with pytest.raises(DataError, match="unknown role 'query'; choose from train"):
        split.paths("query")
    with pytest.raises(DataError, match="unknown gallery 'both'; choose from aspect, all"):
        split.draw(0, "both")
    for trial in (-1, 3):
        with pytest.raises(DataError, match=f"draw {trial} does not exist; this split has 3"):
            split.draw(trial)


def test_the_facts_are_plain_json(folder):
    facts = json.loads((folder / "split.json").read_text())
    assert facts.pop("checksum") == split_of(SMALL).checksum
    assert facts == META
