"""Files of scores: what is written is read again, names are text, and what is wrong is told with its line."""

import csv
from pathlib import Path

import numpy as np
import pytest

from handclip_lib.data.splits import make_split
from handclip_lib.data.table import HandTable
from handclip_lib.errors import DataError
from handclip_lib.evaluation.exchange.score_files import BOB, PLAIN, Comparisons, read_scores, write_scores
from handclip_lib.evaluation.features import Features

PEOPLE = ("NA", "007", "8", "1e5", "100000", "0x10", "2024-01-02", "null", "TRUE", "é", "a,b", '"q"')
HEAD = "probe,probe_subject,reference,reference_subject,score\n"


def a_case(people=PEOPLE, images=3, draws=3):
    rows = [{"path": f"{who}/{n}.jpg", "identity": who, "aspect": "dorsal_r"} for who in people for n in range(images)]
    split = make_split(HandTable.build("folder", Path("/photographs"), rows, {}), "dorsal_r", "test_only", 0, draws)
    rng = np.random.default_rng(0)
    paths = split.images["path"].tolist()
    return split, Features.normalised(paths, rng.normal(size=(len(paths), 5)))


def rows_of(found: Comparisons) -> dict:
    """Score by draw, probe, its subject, reference, its subject."""
    sides = [(found.names[side], found.subjects[side]) for side in (found.probe, found.reference)]
    keys = zip(found.draw.tolist(), *sides[0], *sides[1], strict=True)
    return dict(zip(((d, str(a), str(b), str(c), str(e)) for d, a, b, c, e in keys), found.score.tolist(), strict=True))


def test_what_is_written_is_read_again_to_the_bit_whatever_people_are_called(tmp_path):
    split, features = a_case()
    file = tmp_path / "scores.csv"
    n = write_scores(file, features, split)
    found = read_scores(file)
    expected = {}
    for number, draw in enumerate(split.draws()):
        scores = features.of(draw.query_paths) @ features.of(draw.gallery_paths).T
        for row, (probe, who) in enumerate(zip(draw.query_paths, draw.query_ids, strict=True)):
            for column, (held, other) in enumerate(zip(draw.gallery_paths, draw.gallery_ids, strict=True)):
                expected[number, probe, str(who), held, str(other)] = scores[row, column]
    assert n == len(found.score) == len(expected)
    assert found.has_draws
    read = rows_of(found)
    assert read.keys() == expected.keys()
    for key, score in expected.items():
        assert read[key] == pytest.approx(float(score), abs=1e-6)  # another block of a product may round otherwise
    assert set(found.subjects) == set(PEOPLE)


@pytest.mark.parametrize("form", ["bob", "four-column"])
def test_one_draw_in_the_forms_of_others(tmp_path, form):
    split, features = a_case(tuple(f"p{i}" for i in range(6)))
    plain, other = tmp_path / "plain.csv", tmp_path / ("scores.csv" if form == "bob" else "scores.txt")
    assert write_scores(plain, features, split, draw=1) == write_scores(other, features, split, form, 1)
    ours, theirs = read_scores(plain), read_scores(other)
    np.testing.assert_array_equal(ours.score, theirs.score)
    for side in ("probe", "reference"):
        np.testing.assert_array_equal(ours.subjects[getattr(ours, side)], theirs.subjects[getattr(theirs, side)])
    np.testing.assert_array_equal(ours.names[ours.probe], theirs.names[theirs.probe])
    assert not theirs.has_draws


def test_two_columns_are_mated_or_not_and_the_score_and_name_nobody(tmp_path):
    split, features = a_case(tuple(f"p{i}" for i in range(6)))
    plain, two = tmp_path / "plain.csv", tmp_path / "two.txt"
    assert write_scores(plain, features, split, draw=1) == write_scores(two, features, split, "two-column", 1)
    ours = read_scores(plain)
    mated = ours.subjects[ours.probe] == ours.subjects[ours.reference]
    np.testing.assert_array_equal(np.loadtxt(two), np.stack([np.where(mated, 1, -1), ours.score], 1))
    with pytest.raises(DataError, match=r"two\.txt, line 1 has 2 fields"):
        read_scores(two)


def test_the_columns_are_those_that_bob_reads(tmp_path):
    split, features = a_case(("a", "b", "c"))
    write_scores(tmp_path / "bob.csv", features, split, "bob", 0)
    with (tmp_path / "bob.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == BOB
    write_scores(tmp_path / "four.txt", features, split, "four-column", 0)
    claimed, real, label, score = (tmp_path / "four.txt").read_text().splitlines()[0].split(" ")
    first = rows[0]
    assert (claimed, real, label, score) == (
        first["bio_ref_subject_id"], first["probe_subject_id"], first["probe_key"], first["score"],
    )  # fmt: skip
    write_scores(tmp_path / "plain.csv", features, split)
    assert (tmp_path / "plain.csv").read_text().splitlines()[0] == ",".join(PLAIN)


@pytest.mark.parametrize(
    ("people", "said"),
    [(("John Smith", "b", "c"), "'John Smith/"), (("#1", "b", "c"), "'#1/"), (("a'b", "b", "c"), "a'b/")],
)
def test_names_that_columns_of_spaces_cannot_hold_are_refused(tmp_path, people, said):
    split, features = a_case(people)
    with pytest.raises(DataError, match=f"{said}.*cannot stand between spaces.*--form csv"):
        write_scores(tmp_path / "four.txt", features, split, "four-column", 0)
    assert not list(tmp_path.iterdir())


def test_draws_are_told_apart_by_the_plain_csv_alone(tmp_path):
    split, features = a_case(("a", "b", "c"))
    with pytest.raises(DataError, match="bob cannot tell draws apart"):
        write_scores(tmp_path / "bob.csv", features, split, "bob")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEAD + "x,a,y,b,nan\n", "line 2: the score 'nan' is no finite number"),
        (HEAD + "x,a,y,b,0.5\nx,a,z,b,inf\n", "line 3: the score 'inf'"),
        (HEAD + "x,a,y,b,1e999\n", "line 2: the score '1e999'"),
        (HEAD + "x,a,y,b,1_000\n", "line 2: the score '1_000'"),
        (HEAD + "x,a,y,b,0x10\n", "line 2: the score '0x10'"),
        (HEAD + 'x,a,y,b,"0,5"\n', "line 2: the score '0,5' is no finite number; write it with a decimal point"),
        ("probe," + HEAD + "z,x,a,y,b,0.5\n", "has 2 columns probe"),
        (HEAD + "x,a,y,b,0.5\nx,a,y,b,0.6\n", "line 3 compares 'x' with 'y' again"),
        (HEAD + "x,a,y,b,0.5\n\nx,b,z,b,0.6\n", "line 4: 'x' is of 'b', and of 'a' above"),
        (HEAD + "x,a,y,,0.5\n", "line 2: reference_subject is empty"),
        (HEAD + "x,a,x,a,1\n", "line 2 compares 'x' with itself"),
        (HEAD + "x,a,y,0.5\n", "line 2 has 4 fields, and the first line 5"),
        (HEAD, "holds no score"),
        ("probe,reference,score\nx,y,1\n", "no column probe_subject, but probe, reference, score"),
        ("0.5\n0.6\n", "line 1 has 1 fields"),
        ("a a x 0.5\na b y\n", "line 2 has 3 fields"),
        ("a a x 0.5\na a x 0.5\n", "line 2 compares 'x' with 'a' again"),
        ("", "holds no score"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path, text, said):
    file = tmp_path / "scores"
    file.write_text(text)
    with pytest.raises(DataError) as refused:
        read_scores(file)
    assert said in str(refused.value)


def test_what_is_no_text_or_not_there_is_refused(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00score")
    for name, said in (("binary", "cannot be read as text"), ("absent", "cannot be read"), ("", "cannot be read")):
        with pytest.raises(DataError, match=said):
            read_scores(tmp_path / name)


def test_others_files_are_taken_as_they_come(tmp_path):
    """Mark of byte order, Windows line ends, semicolons, bars, tabs, capitals, spaces, more columns, five columns."""
    wanted = {(0, "x", "a", "y", "b"): 0.5}
    for text in (
        "\ufeff" + HEAD.replace("\n", "\r\n") + "x,a,y,b,0.5\r\n",
        "score;probe;note;probe_subject;reference;reference_subject\n.5;x;?;a;y;b\n",
        HEAD.replace(",", "|").title() + "x|a|y|b|0.5\n",
        HEAD.replace(",", "\t") + " x\ta \t y\tb\t+5e-1\n",
        "# remark\n\nb y a x 0.50\n",
    ):
        (tmp_path / "scores").write_text(text, newline="", encoding="utf-8")
        assert rows_of(read_scores(tmp_path / "scores")) == wanted
    (tmp_path / "scores").write_text("b a x 0.5\n")  # without a name of its own, the reference is its subject
    assert rows_of(read_scores(tmp_path / "scores")) == {(0, "x", "a", "b", "b"): 0.5}


def test_distances_are_turned_round(tmp_path):
    (tmp_path / "scores").write_text(HEAD + "x,a,y,b,2.5\n")
    assert read_scores(tmp_path / "scores", distances=True).score.tolist() == [-2.5]


def test_a_subject_and_a_probe_of_one_name_are_two_things_in_bobs_files(tmp_path):
    (tmp_path / "scores").write_text("7 7 7 0.5\n8 7 7 0.1\n")
    found = read_scores(tmp_path / "scores")
    assert (found.names[found.probe].tolist(), found.names[found.reference].tolist()) == (["7", "7"], ["7", "8"])
