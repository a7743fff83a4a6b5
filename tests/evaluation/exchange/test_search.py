"""A search of files is what sorting all cosines gives."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from handclip_lib.cli import main
from handclip_lib.evaluation.exchange import search as module


def written(folder, **files):
    for name, (paths, embeddings) in files.items():
        np.savez(folder / f"{name}.npz", paths=np.array(paths, str), embeddings=np.asarray(embeddings, np.float32))


def test_a_search_is_what_sorting_every_cosine_gives(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    query, gallery = rng.normal(size=(7, 5)), rng.normal(size=(30, 5))
    gallery[4] = 3 * gallery[9]  # two of one direction: the first in the file comes first
    gallery[2] = query[1]
    names = [f"g{i:02d}" for i in range(30)]
    names[2] = "007"
    probes = ["a,b", "007", *"cdefg"]
    written(tmp_path, q=(probes, query), g=(names, gallery))
    monkeypatch.setattr(module, "PRODUCT_BYTES", 4 * 30 * 3)  # three queries at a time
    monkeypatch.setattr(module, "AT_ONCE", 1)
    files = [str(tmp_path / name) for name in ("q.npz", "g.npz", "found.csv")]
    assert main(["search", *files[:2], "--out", files[2], "-k", "30"]) == 0
    assert "209 rows" in capsys.readouterr().out
    expected = []
    for name, one in zip(probes, query, strict=True):
        cosines = [float(one @ other / np.linalg.norm(one) / np.linalg.norm(other)) for other in gallery]
        order = [i for i in sorted(range(30), key=lambda i: (-round(cosines[i], 6), i)) if names[i] != name]
        expected += [(name, rank, names[i], cosines[i]) for rank, i in enumerate(order, 1)]
    with Path(files[2]).open(newline="") as opened:
        titles, *rows = csv.reader(opened)
    assert titles == ["query", "rank", "gallery", "cosine"]
    assert [(a, int(b), c) for a, b, c, _ in rows] == [row[:3] for row in expected]
    np.testing.assert_allclose([float(row[3]) for row in rows], [row[3] for row in expected], atol=1e-6)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"q": (["a"], [[1.0, 0, 0]])}, "query embeddings have size 3, gallery ones 2; embed both by one model"),
        ({"q": (["a"], [[0.0, 0]])}, "the embedding of a is zero"),
        ({"k": "3"}, "k=3; choose from 1 to the 2 images of"),
        ({"k": "0"}, "k=0"),
        ({"out": "g.npz"}, "is one of the files that are read"),
        ({"out": ""}, "is a folder; name a file in it"),
    ],
)
def test_what_cannot_be_searched_is_named(tmp_path, capsys, changed, words):
    written(tmp_path, q=changed.get("q", (["a"], [[1.0, 0]])), g=(["b", "c"], np.eye(2)))
    before = (tmp_path / "g.npz").read_bytes()
    out = str(tmp_path / changed.get("out", "found.csv"))
    asked = ["search", str(tmp_path / "q.npz"), str(tmp_path / "g.npz"), "--out", out, "-k", changed.get("k", "1")]
    assert main(asked) == 2
    assert words in capsys.readouterr().err
    assert (tmp_path / "g.npz").read_bytes() == before and not (tmp_path / "found.csv").exists()


def test_a_search_waits_for_no_torch():
    told = "import sys, handclip_lib.evaluation.exchange.search; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", told], capture_output=True, text=True).stdout == "False\n"
