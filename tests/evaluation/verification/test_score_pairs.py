"""Pairs of images against double loops over draws."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from handclip_lib.data.manifest import Split
from handclip_lib.data.splits import make_split
from handclip_lib.data.table import HandTable
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation import memory
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.verification.score_pairs import (
    Pairs,
    compared_pairs,
    pair_scores,
    similarity_by_identity,
    validation_pairs,
)

SIZES = (1, 2, 3, 5, 9, 4, 2, 6, 3, 1, 8, 4)


def a_split(sizes=SIZES, protocol="proportional", draws=4) -> Split:
    rows = [
        {"path": f"{aspect}_{i}_{n}.jpg", "identity": str(i), "aspect": aspect, "capture": 20 * i + n}
        for aspect in ("dorsal_r", "palmar_r")
        for i, size in enumerate(sizes)
        for n in range(size)
    ]
    return make_split(HandTable.build("folder", Path("/photographs"), rows, {}), "dorsal_r", protocol, 0, draws)


def random_features(split: Split, seed=0) -> Features:
    rng = np.random.default_rng(seed)
    return Features.normalised(split.images["path"], rng.normal(size=(len(split.images), 4)))


def as_dict(pairs: Pairs) -> dict[frozenset, tuple[bool, float]]:
    """Score of each pair of paths, and whether it is genuine."""
    found = {}
    for same, scores, images in (
        (True, pairs.genuine, pairs.genuine_images),
        (False, pairs.impostor, pairs.impostor_images),
    ):
        for score, (a, b) in zip(scores, images, strict=True):
            key = frozenset((pairs.paths[a], pairs.paths[b]))
            assert len(key) == 2 and key not in found
            found[key] = (same, float(score))
    return found


def test_each_pair_that_any_draw_compares_is_there_once():
    split = a_split()
    features = random_features(split)
    vector = dict(zip(features.paths, features.embeddings.astype(float), strict=True))
    wanted = {}
    n_compared = 0
    for trial in range(4):
        draw = split.draw(trial)
        for query, who in zip(draw.query_paths, draw.query_ids, strict=True):
            for path, other in zip(draw.gallery_paths, draw.gallery_ids, strict=True):
                wanted[frozenset((query, path))] = (who == other, pytest.approx(vector[query] @ vector[path], abs=1e-6))
                n_compared += 1
    pairs = compared_pairs(features, split)
    assert as_dict(pairs) == wanted
    assert len(wanted) < n_compared  # the draws repeat pairs
    assert not [path for path in pairs.paths if path.startswith("palmar")]
    genuine, impostor = pair_scores(features, split)
    assert (len(genuine), len(impostor)) == (len(pairs.genuine), len(pairs.impostor))


def test_identities_are_counted_where_a_pair_compares_them():
    split = a_split()
    pairs = compared_pairs(random_features(split), split)
    names = sorted(split.identities("test"))
    n = len(names)
    # two identities of one image are compared with everybody, but not with each other: both are always gallery
    alone = len(split.meta["unqueryable"])
    assert (pairs.n_identities, pairs.n_identity_pairs) == (n, n * (n - 1) // 2 - alone * (alone - 1) // 2)
    assert [names[i] for i in pairs.genuine_identities] == [pairs.identities[a] for a, _ in pairs.genuine_images]
    for (i, j), (a, b) in zip(pairs.impostor_identities, pairs.impostor_images, strict=True):
        assert (names[i], names[j]) == (pairs.identities[a], pairs.identities[b])


def test_a_choice_of_images_keeps_the_pairs_within_it():
    split = a_split()
    pairs = compared_pairs(random_features(split), split)
    chosen = np.random.default_rng(1).random(len(pairs.paths)) < 0.5
    kept = set(pairs.paths[chosen])
    few = pairs.among(chosen)
    assert as_dict(few) == {pair: value for pair, value in as_dict(pairs).items() if pair <= kept}
    people = {i for pair in as_dict(few) for i in (pairs.identities[list(pairs.paths).index(p)] for p in pair)}
    assert few.n_identities == len(people)
    nobody = pairs.among(np.zeros(len(chosen), bool))
    assert (len(nobody.genuine), len(nobody.impostor), nobody.n_identities, nobody.n_identity_pairs) == (0, 0, 0, 0)


def test_distractors_are_impostors_of_queries_only():
    rows = [("a0", "a", "test", "0"), ("a1", "a", "test", ""), ("b0", "b", "test", "0"), ("b1", "b", "test", ""),
            ("d0", "d", "distractor", ""), ("d1", "d", "distractor", "")]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["path", "identity", "role", "gallery_in"]).assign(aspect="", capture=pd.NA)
    split = Split.build({"dataset": "hd", "draws": 1, "unqueryable": []}, frame)
    pairs = compared_pairs(random_features(split), split)
    assert {tuple(sorted(pair)) for pair in as_dict(pairs)} == {
        ("a0", "a1"), ("a1", "b0"), ("a1", "d0"), ("a1", "d1"), ("b0", "b1"), ("a0", "b1"), ("b1", "d0"), ("b1", "d1"),
    }  # fmt: skip
    assert (pairs.n_identities, pairs.n_identity_pairs) == (3, 3)


def test_validation_pairs_are_val_against_train_images():
    split = a_split()
    features = random_features(split)
    vector = dict(zip(features.paths, features.embeddings.astype(float), strict=True))
    identity = dict(zip(split.images["path"], split.images["identity"], strict=True))
    wanted = {
        frozenset((a, b)): (identity[a] == identity[b], pytest.approx(vector[a] @ vector[b], abs=1e-6))
        for a in split.paths("val")
        for b in split.paths("train")
    }
    pairs = validation_pairs(features, split)
    assert as_dict(pairs) == wanted
    assert not set(pairs.identities) & split.identities("test")


def test_pairs_that_the_memory_cannot_hold_are_refused(monkeypatch):
    split = a_split()
    features = random_features(split)
    monkeypatch.setattr(memory, "free_memory", lambda: 2**10)
    with pytest.raises(EvaluationError, match=r"the pairs of \d+ images needs .* free; verify .* fewer draws"):
        compared_pairs(features, split)
    with pytest.raises(EvaluationError, match=r"the pairs of \d+ images needs"):
        validation_pairs(features, split)
    monkeypatch.setattr(memory, "free_memory", lambda: 2**30)
    assert len(compared_pairs(features, split).genuine)


def test_no_validation_identities_says_what_to_do():
    split = a_split(protocol="test_only")
    with pytest.raises(EvaluationError, match=r"0 validation identities.*'test_only'.*choose a protocol"):
        validation_pairs(random_features(split), split)
    one = a_split((1, 1, 4, 1, 1, 5, 1, 1, 1))  # 'proportional' trains four or so; few have a second image
    assert one.images.query("role == 'val'")["identity"].nunique() < 2
    with pytest.raises(EvaluationError, match=r"[01] validation identities"):
        validation_pairs(random_features(one), one)


def test_similarity_by_identity_keeps_whole_identities():
    split = a_split()
    similarity, identities = similarity_by_identity(random_features(split), split, most=12)
    sizes = split.images[split.images["role"] == "test"].groupby("identity").size()
    np.testing.assert_allclose(np.diag(similarity), 1, atol=1e-6)
    assert len(identities) <= 12
    assert all(list(identities).count(name) == sizes[name] for name in set(identities))
    assert list(identities) == sorted(identities, key=int)
