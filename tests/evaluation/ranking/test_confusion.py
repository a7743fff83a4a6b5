import numpy as np
import pytest

from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.ranking.confusion import confusion


def test_by_hand():
    # images of a, a, b; taken for a, b, b; c has no image
    scores = np.array([[3.0, 1, 2], [0, 2, 1], [1, 5, 0]])
    found = confusion(scores, np.array([0, 0, 1]), ["a", "b", "c"])
    np.testing.assert_array_equal(found.matrix, [[0.5, 0.5, 0], [0, 1, 0], [0, 0, 0]])
    assert found.accuracy == pytest.approx(2 / 3)
    assert found.mistakes.values.tolist() == [["a", "b", 1]]


def test_against_a_plain_count():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(200, 6)), rng.integers(0, 6, 200)
    found = confusion(scores, labels, list("abcdef"))
    for own in range(6):
        for other in range(6):
            rows = [i for i in range(200) if labels[i] == own]
            share = sum(max(range(6), key=lambda c, i=i: scores[i, c]) == other for i in rows) / len(rows)
            assert found.matrix[own, other] == pytest.approx(share)
    assert found.mistakes["images"].is_monotonic_decreasing
    assert found.mistakes["images"].sum() == round(200 * (1 - found.accuracy))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(EvaluationError, match=r"scores have shape \(2, 3\) for 2 images and 4 identities"):
        confusion(np.zeros((2, 3)), np.array([0, 1]), list("abcd"))
    with pytest.raises(EvaluationError, match="for 0 images"):
        confusion(np.zeros((0, 2)), np.array([], int), ["a", "b"])
