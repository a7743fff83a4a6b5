import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.ranking import retrieval
from handclip_lib.evaluation.ranking.retrieval import TiedScoresWarning, retrieval_metrics

pytestmark = pytest.mark.filterwarnings("ignore::handclip_lib.evaluation.ranking.retrieval.TiedScoresWarning")


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(1)
    similarity = rng.integers(0, 9, (40, 30)).astype(np.float32)
    ids = rng.integers(0, 6, 40), rng.integers(0, 6, 30)
    whole = retrieval_metrics(similarity, *ids)
    monkeypatch.setattr(retrieval, "BLOCK_BYTES", 30 * 4 * 3)
    blocks = retrieval_metrics(similarity, *ids)
    np.testing.assert_array_equal(whole.average_precision, blocks.average_precision)
    assert whole.tied_share == blocks.tied_share > 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31))
def test_equals_sklearn_where_no_scores_are_tied(seed):
    rng = np.random.default_rng(seed)
    gallery_ids = np.repeat(np.arange(4), 3)
    similarity = rng.permuted(np.tile(np.linspace(-1, 1, 12), (4, 1)), axis=1)
    metrics = retrieval_metrics(similarity, np.arange(4), gallery_ids)
    expected = [average_precision_score(gallery_ids == q, similarity[q]) for q in range(4)]
    np.testing.assert_allclose(metrics.average_precision, expected, rtol=1e-12)


def test_three_identities_by_hand():
    # Query a sees a 0.9 (match), b 0.8, a 0.1 (match), c 0.5: matches at ranks 1 and 4, AP = (1 + 2/4) / 2 = 0.75.
    # Query b sees a 0.6, b 0.6 (tied with a: comes after it), b 0.2, c 0.1: ranks 2, 3, AP = (1/2 + 2/3) / 2 = 7/12.
    gallery = np.array(["a", "b", "a", "c"]), np.array(["a", "b", "b", "c"])
    first = retrieval_metrics(np.array([[0.9, 0.8, 0.1, 0.5]]), np.array(["a"]), gallery[0])
    second = retrieval_metrics(np.array([[0.6, 0.6, 0.2, 0.1]]), np.array(["b"]), gallery[1])
    assert (first.map, first.rank(1), first.minp) == (0.75, 1.0, 0.5)
    assert second.map == pytest.approx(7 / 12)
    assert (second.rank(1), second.rank(2), second.tied_share) == (0.0, 1.0, 1.0)


def test_identities_above_two_to_the_24_stay_apart():
    metrics = retrieval_metrics(np.array([[0.1, 0.9]]), np.array([2**24 + 1]), np.array([2**24, 2**24 + 1]))
    assert metrics.rank(1) == 1
    with pytest.raises(EvaluationError, match="floats merge ids"):
        retrieval_metrics(np.eye(2), np.array([1.0, 2.0]), np.array([1, 2]))


def test_whole_numbers_of_different_kinds_stay_apart():
    ids = [2**53, 2**53 + 1]  # as float64, which is what numpy compares int64 with uint64 in, these are one number
    metrics = retrieval_metrics(np.eye(2), np.array(ids, np.uint64), np.array(ids, np.int64))
    assert metrics.rank(1) == 1


def test_text_in_any_form_is_text():
    similarity = np.array([[0.9, 0.1], [0.2, 0.8]])
    for query, gallery in (
        (["a", "b"], np.array(["a", "b"], object)),
        (pd.Series(["a", "b"]), np.array(["a", "b"], np.dtypes.StringDType())),
    ):
        assert retrieval_metrics(similarity, query, gallery).rank(1) == 1


def test_a_share_of_ties_up_to_one_percent_is_no_warning():
    similarity = np.eye(100)
    similarity[0, 1] = 1  # one query of a hundred
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = retrieval_metrics(similarity, np.arange(100), np.arange(100))
    assert (metrics.tied_share, metrics.rank(1)) == (0.01, 0.99)
    similarity[1, 2] = 1
    with pytest.warns(TiedScoresWarning, match="2 of 100"):
        retrieval_metrics(similarity, np.arange(100), np.arange(100))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8])
def test_every_real_type_ranks_alike_and_the_input_is_not_changed(dtype):
    rng = np.random.default_rng(2)
    similarity = rng.integers(-50, 50, (30, 20)).astype(dtype)
    before, ids = similarity.copy(), (rng.integers(0, 5, 30), rng.integers(0, 5, 20))
    metrics = retrieval_metrics(similarity, *ids)
    expected = retrieval_metrics(similarity.astype(np.float64), *ids)
    np.testing.assert_array_equal(metrics.average_precision, expected.average_precision)
    np.testing.assert_array_equal(similarity, before)


def test_collapsed_embeddings_are_warned_of():
    with pytest.warns(TiedScoresWarning, match="collapsed"):
        metrics = retrieval_metrics(np.ones((5, 5)), np.arange(5), np.arange(5))
    assert metrics.rank(1) == 0, "a tie never helps"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((np.array([[np.nan, 1.0]]), [1], [1, 2]), r"similarity\[0, 0\] is nan"),
        ((np.zeros((0, 2)), [], [1, 2]), "neither empty"),
        ((np.zeros(3), [1], [1, 2]), "shape"),
        ((np.zeros((1, 2)), [1, 2], [1, 2]), r"query_ids has shape \(2,\)"),
        ((np.zeros((1, 2)), ["1"], [1, 2]), "one kind"),
        ((np.zeros((1, 2)), [3], [1, 2]), "all query identities are missing"),
        ((np.zeros((1, 2)), [1], [1, 2], [0]), "gallery_cameras is missing"),
        ((np.zeros((1, 2)), [1], [1, 2], [0], [0, 0]), "Leave the cameras out"),
        ((np.zeros((1, 2)), None, [1, 2]), r"query_ids has shape \(\)"),
        ((np.array([["a", "b"]]), [1], [1, 2]), "similarity is <U1; real numbers"),
        ((np.ones((1, 2), complex), [1], [1, 2]), "similarity is complex128; real numbers"),
        ((np.zeros((1, 2)), ["a"], ["a", np.nan]), r"gallery_ids\[1\] is nan"),
        ((np.zeros((1, 2)), ["a"], ["a", 1]), r"gallery_ids\[1\] is 1; all whole numbers or all text"),
        ((np.zeros((1, 2)), [1], [1, True]), r"gallery_ids\[1\] is True"),
        ((np.zeros((1, 2)), [1], [1, 2**70]), "gallery_ids are object; int64"),
        ((np.zeros((2, 2)), [1, 1], [[1], [1, 2]]), r"gallery_ids\[0\] is \[1\]"),
        (([[1, 2], [3]], [1, 1], [1, 2]), "similarity cannot be read as a numpy array"),
        ((np.zeros((1, 2)), [1], [1, 2], None, None, [0]), r"exclude is int64 \(1,\); bool \(1,\)"),
        ((np.zeros((1, 2)), [1], [1, 2], None, None, [True]), "every query is left out by `exclude`"),
    ],
)
def test_bad_input_is_named(arguments, words):
    with pytest.raises(EvaluationError, match=words):
        retrieval_metrics(*arguments)
