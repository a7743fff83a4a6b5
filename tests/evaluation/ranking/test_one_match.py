"""The protocol's ranking, against sorting each row of the cosines computed in float64."""

import numpy as np
import pytest

from handclip_lib.evaluation.ranking import one_match
from handclip_lib.evaluation.ranking.cosines import TIE, cosines, rounding
from handclip_lib.evaluation.ranking.one_match import OneMatch, rank_one_match


def slowly(query: np.ndarray, gallery: np.ndarray, match: np.ndarray) -> OneMatch:
    rows = []
    for scores, own in zip(cosines(query, gallery), match, strict=True):
        others = scores.copy()
        others[own if own >= 0 else []] = -np.inf
        ahead = others >= scores[own] - np.float32(TIE)
        tied = (ahead & (others <= scores[own] + np.float32(TIE))).any()
        best = int(others.argmax())
        known = (1 + int(ahead.sum()), tied, scores[own]) if own >= 0 else (0, False, -np.inf)
        rows.append((*known, best, others[best]))
    return OneMatch(*(np.array(values) for values in zip(*rows, strict=True)))


def unit(values: np.ndarray) -> np.ndarray:
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True), np.float32)


@pytest.mark.parametrize("blocks", [(512, 4096), (7, 16)])
@pytest.mark.parametrize("size", [3, 64, 512])
@pytest.mark.parametrize("kind", ["random", "collapsed", "equal", "duplicates", "one image"])
def test_equals_sorting(monkeypatch, kind, size, blocks):
    monkeypatch.setattr(one_match, "ROWS", blocks[0])
    monkeypatch.setattr(one_match, "COLUMNS", blocks[1])
    monkeypatch.setattr(one_match, "THREADED_FROM", 0)
    rng = np.random.default_rng(size)
    people = 1 if kind == "one image" else 90
    centre, match = rng.normal(size=(people, size)), rng.integers(-1, people, 200)
    query, gallery = centre[match] + 1.5 * rng.normal(size=(200, size)), centre + rng.normal(size=centre.shape)
    if kind == "collapsed":
        query, gallery = 1 + 1e-5 * query, 1 + 1e-5 * gallery
    elif kind == "equal":
        query, gallery = np.ones_like(query), np.ones_like(gallery)
    elif kind == "duplicates":
        gallery = gallery[rng.integers(0, 9, people)]
        query = gallery[match] + 0.3 * rng.normal(size=(200, size)) * (rng.random((200, 1)) < 0.5)
    query, gallery = unit(query), unit(gallery)
    found, expected = rank_one_match(query, gallery, match), slowly(query, gallery, match)
    for name, values in vars(expected).items():
        np.testing.assert_array_equal(getattr(found, name), values, err_msg=name)


def test_the_bound_of_the_rounding_holds():
    rng = np.random.default_rng(0)
    for size in (8, 128, 1024):
        query, gallery = unit(rng.random((50, size))), unit(rng.random((60, size)))  # all positive: the worst to sum
        in_turn = np.zeros((50, 60), np.float32)
        for a, b in zip(query.T, gallery.T, strict=True):  # one after the other, the order that rounds most
            in_turn += a[:, None] * b[None, :]
        assert 0 < np.abs(in_turn.astype(np.float64) - cosines(query, gallery)).max() < rounding(size)
