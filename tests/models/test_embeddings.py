"""Another program's embeddings: taken whole under the right photographs, or refused with name and remedy."""

import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from handclip_lib.data.splits import make_split
from handclip_lib.data.table import HandTable
from handclip_lib.errors import DataError
from handclip_lib.models.embeddings import GivenEmbeddings, read_embeddings, under_paths, write_embeddings

PATHS = ["NA/007.jpg", "1e5/0x10.jpg", "é/2024-01-02.jpg"]
RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(3, 4)).astype(np.float32)
KINDS = [
    "npz",
    pytest.param("parquet", marks=pytest.mark.skipif("not __import__('importlib').util.find_spec('pyarrow')")),
]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read_again_to_the_bit(tmp_path, kind):
    file = tmp_path / f"e.{kind}"
    write_embeddings(file, PATHS, ["NA", "1e5", "é"], VECTORS)
    found = read_embeddings(file)
    assert found.paths == tuple(PATHS)
    np.testing.assert_array_equal(found.embeddings, VECTORS)
    assert found.name == "embeddings e"
    np.testing.assert_array_equal(found.of(PATHS[:0:-1]), VECTORS[:0:-1])


def test_one_vector_an_image_under_its_name(tmp_path):
    np.savez(tmp_path / "e.npz", **dict(zip(PATHS, VECTORS, strict=True)))
    found = read_embeddings(tmp_path / "e.npz")
    np.testing.assert_array_equal(found.of(PATHS), VECTORS)


def write(file: Path, **arrays) -> Path:
    np.savez(file, **arrays)
    return file


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"paths": np.array([1, 2, 3]), "embeddings": VECTORS}, "not text: numbers lose their zeros"),
        ({"paths": np.array(PATHS, object), "embeddings": VECTORS}, "Python objects, which are not opened"),
        ({"paths": np.array(PATHS[:2]), "embeddings": VECTORS}, "shape (3, 4) for 2 paths"),
        ({"paths": np.array([*PATHS[:2], PATHS[0]]), "embeddings": VECTORS}, "two embeddings of 'NA/007.jpg'"),
        ({"paths": np.array(PATHS), "embeddings": np.where(VECTORS[1, 2] == VECTORS, np.nan, VECTORS)},
         "'1e5/0x10.jpg' holds NaN or infinity"),
        ({"paths": np.array(PATHS), "embeddings": VECTORS.astype(str)}, "no real numbers"),
        ({"a.jpg": VECTORS[0], "b.jpg": VECTORS[0, :3]}, "'b.jpg' has 3 numbers, and 'a.jpg' 4"),
        ({"features": VECTORS, "names": np.array(PATHS)}, "'features' has shape (3, 4)"),
        ({}, "holds no embeddings"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused(tmp_path, arrays, said):
    with pytest.raises(DataError) as refused:
        read_embeddings(write(tmp_path / "e.npz", **arrays))
    assert said in str(refused.value)
    assert "e.npz" in str(refused.value)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "e.npz").write_text("path,embedding")
    np.save(tmp_path / "e.npy", VECTORS)
    for name, said in (
        ("e.npz", "holds no embeddings"),
        ("e.npy", "it is no .npz"),
        ("no.npz", "is no file"),
    ):
        with pytest.raises(DataError, match=said):
            read_embeddings(tmp_path / name)
    with pytest.raises(DataError, match=r"\.npz or \.parquet, not '\.csv'"):
        write_embeddings(tmp_path / "e.csv", PATHS, PATHS, VECTORS)


def test_parquet_without_pyarrow_is_refused_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "e.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"pip install 'handclip\[parquet\]', or use \.npz"):
        read_embeddings(tmp_path / "e.parquet")


def test_parquet_of_another_shape_is_refused(tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    lists = [[1.0, 2.0], [3.0]]
    for columns, said in (
        ({"path": ["a", "b"], "embedding": lists}, "'b' has 1 numbers, and 'a' 2"),
        ({"path": [7, 8], "embedding": lists}, "path is int64 and not text"),
        ({"path": ["a", None], "embedding": lists}, "missing (null)"),
        ({"path": ["a", "b"], "embedding": [1.0, 2.0]}, "no list of numbers"),
        ({"name": ["a", "b"], "embedding": lists}, "no column path, but name, embedding"),
        ({"path": ["a", "b"], "embedding": [[1.0, None], [1.0, 2.0]]}, "missing (null)"),
    ):
        parquet.write_table(pa.table(columns), tmp_path / "e.parquet")
        with pytest.raises(DataError) as refused:
            read_embeddings(tmp_path / "e.parquet")
        assert said in str(refused.value)


def a_table() -> HandTable:
    rows = [
        {"path": f"{who}/{n}.jpg" if n else f"{who}/{who}.jpg", "identity": who, "aspect": "dorsal_r"}
        for who in ("a", "b", "c", "d")
        for n in range(3)
    ]
    return HandTable.build("folder", Path("/photographs"), rows, {"a/left.jpg": "it is damaged"})


def given(names) -> GivenEmbeddings:
    return GivenEmbeddings(
        "embeddings e", tuple(names), RNG.normal(size=(len(names), 4)).astype(np.float32), "f", "file e.npz"
    )


def test_names_are_paths_whatever_folder_stands_before_them_or_names_of_one_file():
    table = a_table()
    split = make_split(table, "dorsal_r", "test_only", 0, 2)
    names = [f"/elsewhere/photographs/{path}" for path in table.images["path"]]
    names[0], names[3] = "a.jpg", "b/b.jpg"
    model = given([*names, "a/left.jpg"])
    found = under_paths(model, table, split)
    np.testing.assert_array_equal(found.of(table.images["path"].tolist()), model.embeddings[:-1])
    assert under_paths("any other model", table, split) == "any other model"


def test_names_are_known_as_a_mac_and_windows_write_them():
    rows = [{"path": f"{who}/{n}.jpg", "identity": who, "aspect": "dorsal_r"} for who in ("é", "ü") for n in range(2)]
    table = HandTable.build("folder", Path("/photographs"), rows, {})
    split = make_split(table, "dorsal_r", "test_only", 0, 1)
    given = [unicodedata.normalize("NFD", f"C:\\x\\{row['path']}".replace("/", "\\")) for row in rows]
    model = GivenEmbeddings("e", tuple(given), RNG.normal(size=(4, 3)).astype(np.float32), "", "file e.npz")
    np.testing.assert_array_equal(under_paths(model, table, split).of([row["path"] for row in rows]), model.embeddings)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda names: [*names, "z/9.jpg"], "'z/9.jpg' is the name of no photograph of /photographs"),
        (
            lambda names: [*names[1:], "1.jpg"],
            "'1.jpg' is the name of several photographs, such as a/1.jpg and b/1.jpg",
        ),
        (lambda names: [*names, "a.jpg"], "'a/a.jpg' and 'a.jpg' both are a/a.jpg"),
        (lambda names: names[1:], "no embedding of a/a.jpg (1 of 12 evaluated photographs)"),
    ],
)
def test_unknown_ambiguous_double_and_missing_names_are_refused(change, said):
    table = a_table()
    split = make_split(table, "dorsal_r", "test_only", 0, 2)
    model = given(change(table.images["path"].tolist()))
    with pytest.raises(DataError) as refused:
        under_paths(replace(model, embeddings=model.embeddings), table, split)
    assert said in str(refused.value)
    assert "e.npz" in str(refused.value)
