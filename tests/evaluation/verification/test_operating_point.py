"""A threshold chosen on validation people, and its errors on others, against loops."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from handclip_lib.data.manifest import Split
from handclip_lib.data.splits import make_split
from handclip_lib.data.table import HandTable
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.bootstrap import identity_bootstrap, resampled
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.verification.operating_point import (
    at_threshold,
    fixed_on_validation,
    operating_points,
    usable_threshold,
)
from handclip_lib.evaluation.verification.score_pairs import Pairs, compared_pairs, validation_pairs
from handclip_lib.parameters.notebooks import Evaluation

SIZES = (3, 2, 3, 5, 9, 4, 2, 6, 3, 1, 8, 4, 5, 5)


def a_split(protocol="proportional") -> Split:
    rows = [
        {"path": f"{i}_{n}.jpg", "identity": str(i), "aspect": "dorsal_r"}
        for i, size in enumerate(SIZES)
        for n in range(size)
    ]
    return make_split(HandTable.build("folder", Path("/photographs"), rows, {}), "dorsal_r", protocol, draws=4)


def features_of(split: Split, seed=0) -> Features:
    """Embeddings in which people differ, somewhat."""
    rng = np.random.default_rng(seed)
    centre = {identity: rng.normal(size=6) for identity in sorted(set(split.images["identity"]))}
    noise = rng.normal(size=(len(split.images), 6))
    return Features.normalised(split.images["path"], [centre[i] for i in split.images["identity"]] + noise)


def hand_made() -> Pairs:
    """Images a0 a1 b0 b1 c0 c1: genuine 0.9 0.4 0.7; impostors a-b 0.8 0.1, a-c 0.3, b-c 0.6."""
    paths = np.array(["a0", "a1", "b0", "b1", "c0", "c1"], object)
    genuine, impostor = np.array([[0, 1], [2, 3], [4, 5]]), np.array([[0, 2], [1, 3], [0, 4], [2, 5]])
    people = np.array(["a", "a", "b", "b", "c", "c"])
    return Pairs(paths, people, np.array([0.9, 0.4, 0.7]), genuine, np.array([0.8, 0.1, 0.3, 0.6]), impostor)


def test_by_hand():
    # at 0.6: impostors 0.8 and 0.6 of four pass, the genuine 0.4 of three fails
    found = at_threshold(hand_made(), 0.6)
    assert (found.fmr.estimate, found.fnmr.estimate) == (0.5, pytest.approx(1 / 3))
    # three pairs of people support no FMR below 3 / 3 = 1
    assert not found.supported
    assert at_threshold(hand_made(), 0.0).supported


def test_the_threshold_keeps_to_its_fmr_on_validation_and_is_then_left_alone():
    split = a_split()
    features = features_of(split)
    validation, test = validation_pairs(features, split), compared_pairs(features, split)
    chosen = operating_points({"model": features}, split, 0.1, bootstrap=5).iloc[0]
    every = sorted({*validation.genuine.tolist(), *validation.impostor.tolist()})
    assert chosen["threshold"] == next(t for t in every if np.mean(validation.impostor >= t) <= 0.1)
    assert chosen["fmr"] == np.mean(test.impostor >= chosen["threshold"])
    assert chosen["fnmr"] == pytest.approx(np.mean(test.genuine < chosen["threshold"]))


def test_intervals_are_those_of_identities_drawn_again():
    split = a_split()
    pairs = compared_pairs(features_of(split), split)
    names = sorted(split.identities("test"))
    slow = []
    for weights in np.concatenate(list(resampled(len(names), 80, 7))):
        drawn = dict(zip(names, weights, strict=True))
        passed = compared = 0.0
        for score, (a, b) in zip(pairs.impostor, pairs.impostor_images, strict=True):
            weight = drawn[pairs.identities[a]] * drawn[pairs.identities[b]]
            compared += weight
            passed += weight * (score >= 0.3)
        if compared:
            slow.append(passed / compared)
    found = at_threshold(pairs, 0.3, bootstrap=80, seed=7)
    np.testing.assert_allclose([found.fmr.low, found.fmr.high], np.quantile(slow, [0.025, 0.975]), atol=1e-12)
    rejected = (pairs.genuine < 0.3).astype(float)
    expected = identity_bootstrap(rejected, pairs.identities[pairs.genuine_images[:, 0]], 80, 7)
    assert (found.fnmr.low, found.fnmr.high) == (expected.low, expected.high)
    assert found.fmr.low < found.fmr.estimate < found.fmr.high


def test_too_few_people_have_no_interval():
    pairs = hand_made()
    two = at_threshold(pairs.among(np.array([1, 1, 1, 1, 0, 0], bool)), 0.6)
    assert (two.fmr.estimate, two.fnmr.estimate, two.fmr.n_identities) == (0.5, 0.5, 2)
    assert np.isnan([two.fmr.low, two.fmr.high]).all()  # one pair of people, however many images
    assert not np.isnan([two.fnmr.low, two.fnmr.high]).any()
    one = at_threshold(pairs.among(np.array([1, 1, 0, 0, 0, 0], bool)), 0.6)
    assert one.fnmr.estimate == 0
    assert np.isnan([one.fmr.estimate, one.fmr.low, one.fnmr.low, one.fnmr.high]).all()
    assert not one.supported


def test_no_number_is_no_threshold():
    with pytest.raises(EvaluationError, match="threshold=nan"):
        at_threshold(hand_made(), np.nan)


def test_the_table_shows_both_sides_for_each_model():
    split = a_split()
    models = {"one": features_of(split, 1), "two": features_of(split, 2)}
    table = operating_points(models, split, 0.2, bootstrap=50)
    assert table["model"].tolist() == ["one", "two"]
    assert (table["fmr_validation"] <= 0.2).all()
    assert ((table["fnmr_low"] <= table["fnmr"]) & (table["fnmr"] <= table["fnmr_high"])).all()
    for row in table.itertuples():
        test = compared_pairs(models[row.model], split)
        assert row.fmr == np.mean(test.impostor >= row.threshold)
    with pytest.raises(EvaluationError, match="0 validation identities"):
        operating_points(models, a_split("test_only"), 0.2)


def test_a_model_without_a_threshold_takes_no_row_from_the_others():
    split = a_split()
    alike = Features.normalised(split.images["path"], np.ones((len(split.images), 6)))
    models = {"one": features_of(split, 1), "collapsed": alike}
    table = operating_points(models, split, 0.2, bootstrap=50)
    np.testing.assert_equal(
        table[:1].to_dict(), operating_points({"one": models["one"]}, split, 0.2, bootstrap=50).to_dict()
    )
    row = table.iloc[1]
    rates = ["threshold", "fmr_validation", "fnmr_validation", "fmr", "fnmr"]
    assert row[rates].tolist() == [np.inf, 0, 1, 0, 1], "it rejects everybody"
    assert row[["fmr_low", "fmr_high", "fnmr_low", "fnmr_high"]].isna().all()
    assert not row["supported"] and row["n_identities"] == compared_pairs(alike, split).n_identities


def test_the_threshold_of_the_first_model_is_used_where_it_accepts_anybody():
    found = {"model": ["a", "b"], "threshold": [0.3, 0.4]}
    assert usable_threshold(pd.DataFrame(found), 0.5) == 0.3
    assert usable_threshold(pd.DataFrame(found | {"threshold": [np.inf, 0.4]}), 0.5) == 0.5
    nobody = fixed_on_validation(None, None, {}, a_split("test_only"), Evaluation())
    assert usable_threshold(nobody, 0.5) == 0.5
