import sys

import numpy as np
import pytest

from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.ranking.index import GalleryIndex, recall_at_k


def embeddings(n, seed):
    values = np.random.default_rng(seed).normal(size=(n, 8)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.fixture
def faiss():
    return pytest.importorskip("faiss", reason="faiss is not installed (handclip[fast])")


@pytest.mark.parametrize(
    ("kind", "effort"), [("flat", None), ("ivf", 10**6), ("hnsw", 1000)], ids=["flat", "every list", "all candidates"]
)
def test_a_search_of_everything_equals_brute_force(faiss, kind, effort):
    query, gallery = embeddings(20, 0), embeddings(400, 1)
    similarity = query @ gallery.T
    expected = np.argsort(-similarity, axis=1)[:, :7]
    found = GalleryIndex(gallery, kind, effort).search(query, 7)
    np.testing.assert_array_equal(found.rows, expected)
    np.testing.assert_allclose(found.similarity, np.take_along_axis(similarity, expected, 1), atol=1e-6)
    assert (found.recall, found.n_sampled) == (1, 20)


def test_recall_by_hand():
    # The first query finds 2 of its 3 nearest (in another order), the second none, the third all: (2/3 + 0 + 1) / 3.
    found = np.array([[3, 1, 9], [5, -1, -1], [4, 5, 6]])
    exact = np.array([[1, 2, 3], [6, 7, 8], [6, 5, 4]])
    assert recall_at_k(found, exact) == pytest.approx(5 / 9)


def test_the_recall_of_an_approximate_search_is_what_brute_force_says(faiss):
    query, gallery = embeddings(50, 2), embeddings(3000, 3)
    found = GalleryIndex(gallery, "ivf", effort=1).search(query, 5, sample=10)
    exact = np.argsort(-(query @ gallery.T), axis=1)[:, :5]
    asked = [0, 5, 10, 16, 21, 27, 32, 38, 43, 49]  # ten of fifty, evenly spread
    shares = [len(set(found.rows[q]) & set(exact[q])) / 5 for q in asked]
    assert found.recall == pytest.approx(np.mean(shares))
    assert found.n_sampled == 10
    assert found.recall < 1, "one list of 76 cannot hold all"


def test_what_is_not_found_is_marked(faiss):
    found = GalleryIndex(embeddings(80, 4), "ivf", effort=1).search(embeddings(3, 5), 80)
    assert (found.rows == -1).any()
    assert (found.similarity[found.rows == -1] < -1).all()
    assert found.recall == pytest.approx((found.rows >= 0).mean())


@pytest.mark.parametrize(
    ("build", "search", "words"),
    [
        ({"kind": "lsh"}, {}, "kind='lsh'; choose from flat, ivf, hnsw"),
        ({"effort": 4}, {}, "effort=4 with kind='flat'"),
        ({"kind": "ivf", "effort": 0}, {}, "effort=0"),
        ({"gallery": 2 * np.eye(8)}, {}, r"gallery\[0\] has length 2"),
        ({}, {"k": 9}, "k=9, sample=100; choose k from 1 to the gallery's 8"),
        ({}, {"query": np.eye(8) * np.nan}, r"query\[0\] has length nan"),
        ({}, {"query": np.eye(7)}, "size 7, gallery ones 8"),
        ({}, {"sample": 0}, "sample=0; choose .* a sample of 1"),
    ],
)
def test_bad_input_is_named(faiss, build, search, words):
    with pytest.raises(EvaluationError, match=words):
        GalleryIndex(**{"gallery": np.eye(8)} | build).search(**{"query": np.eye(8), "k": 2} | search)


def test_without_faiss_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)  # an import of it fails
    with pytest.raises(EvaluationError, match=r"pip install handclip\[fast\]"):
        GalleryIndex(np.eye(3))
