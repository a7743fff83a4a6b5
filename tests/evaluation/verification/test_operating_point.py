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
    ATTRIBUTES,
    at_threshold,
    fixed_on_validation,
    group_figures,
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


PEOPLE = (3, 2, 3, 5, 6, 4, 2, 6, 3, 1, 5, 4, 3, 5, 2, 5, 4, 4, 6, 3, 2, 4, 5, 3)
AGES = (18, 19, 20, 29, 30, 39, 40, 75)


def a_table() -> HandTable:
    rows = [
        {"path": f"{i}_{n}.jpg", "identity": str(i), "aspect": "dorsal_r", "accessories": False}
        | {"gender": "male" if i % 7 == 1 else "female", "age": AGES[i % 8] if i % 9 else None}
        | {"nail_polish": i % 3 == 0 and n % 2 == 0}
        for i, size in enumerate(PEOPLE)
        for n in range(size)
    ]
    return HandTable.build("folder", Path("/photographs"), rows, {})


@pytest.fixture(scope="module")
def table() -> HandTable:
    return a_table()


@pytest.fixture(scope="module")
def split(table: HandTable) -> Split:
    return make_split(table, "dorsal_r", seed=3, draws=4)


@pytest.fixture(scope="module")
def features(split: Split) -> Features:
    rng = np.random.default_rng(0)
    centre = {identity: rng.normal(size=4) for identity in sorted(set(split.images["identity"]))}
    noise = rng.normal(size=(len(split.images), 4)) * 0.7
    return Features.normalised(split.images["path"], [centre[i] for i in split.images["identity"]] + noise)


def slow_groups(table: HandTable) -> pd.DataFrame:
    """The group of every image in every attribute, as text."""
    images = table.images.set_index("path")
    age = images["age"].map(
        lambda a: "unknown" if pd.isna(a) else "<20" if a < 20 else "20-29" if a < 30 else "30-39" if a < 40 else "40+"
    )
    polish = images["nail_polish"].map({True: "yes", False: "no"})
    return pd.DataFrame({"gender": images["gender"], "age": age, "nail_polish": polish})


def slow_queries(features: Features, split: Split) -> pd.DataFrame:
    """Draw, path, identity and rank of each query with a match."""
    vector = dict(zip(features.paths, features.embeddings, strict=True))
    rows = []
    for trial in range(split.meta["draws"]):
        draw = split.draw(trial)
        gallery = list(zip(draw.gallery_paths, draw.gallery_ids, strict=True))
        for path, who in zip(draw.query_paths, draw.query_ids, strict=True):
            own = [vector[path] @ vector[p] for p, i in gallery if i == who]
            if own:
                rank = 1 + sum(vector[path] @ vector[p] >= own[0] for p, i in gallery if i != who)
                rows.append({"draw": trial, "path": path, "identity": who, "rank": rank})
    return pd.DataFrame(rows)


def slow_pairs(features: Features, split: Split) -> pd.DataFrame:
    vector = dict(zip(features.paths, features.embeddings, strict=True))
    rows = {}
    for trial in range(split.meta["draws"]):
        draw = split.draw(trial)
        for path, who in zip(draw.query_paths, draw.query_ids, strict=True):
            for other, whose in zip(draw.gallery_paths, draw.gallery_ids, strict=True):
                a, b = sorted((path, other))
                rows[a, b] = (a, b, who == whose, float(vector[path] @ vector[other]), who, whose)
    return pd.DataFrame(rows.values(), columns=["a", "b", "same", "score", "who", "whose"])


def test_every_figure_equals_plain_pandas(table, split, features):
    threshold = 0.6
    result = group_figures(features, split, table.images, threshold, bootstrap=40, seed=2)
    groups, queries, pairs = slow_groups(table), slow_queries(features, split), slow_pairs(features, split)
    seen = set()
    for row in result.table.itertuples():
        labels = groups[row.attribute] if row.attribute else pd.Series("everybody", groups.index)
        own = queries[queries["path"].map(labels) == row.group]
        inside = pairs[(pairs["a"].map(labels) == row.group) & (pairs["b"].map(labels) == row.group)]
        seen.add((row.attribute, row.group))
        assert row.n_identities == own["identity"].nunique()
        assert row.n_query == len(own) / 4
        assert row.rank1 == pytest.approx((own["rank"] == 1).mean())
        assert row.map == pytest.approx((1 / own["rank"]).mean())
        genuine, impostor = inside[inside["same"]], inside[~inside["same"]]
        assert (row.n_genuine, row.n_impostor) == (len(genuine), len(impostor))
        assert row.fnmr == pytest.approx((genuine["score"] < threshold).mean())
        assert row.fmr == pytest.approx((impostor["score"] >= threshold).mean(), nan_ok=True)
        assert row.small == (own["identity"].nunique() < 5)
        n_pairs = len({frozenset(p) for p in zip(impostor["who"], impostor["whose"], strict=True)})
        assert row.supported == (n_pairs > 0 and row.fmr >= 3 / n_pairs)
        if row.n_identities > 1:
            interval = identity_bootstrap((own["rank"] == 1).to_numpy(float), own["identity"].to_numpy(), 40, 2)
            assert (row.rank1_low, row.rank1_high) == pytest.approx((interval.low, interval.high))
            assert row.map_low <= row.map <= row.map_high
    present = groups.loc[split.paths("test")]
    assert seen == {("", "everybody")} | {(a, g) for a in groups.columns for g in set(present[a])}
    assert ("age", "unknown") in seen


def test_ratios_are_to_everybody_and_groups_are_in_order(table, split, features):
    found = group_figures(features, split, table.images, 0.6, bootstrap=10).table
    for rate in ("fmr", "fnmr"):
        np.testing.assert_allclose(found[f"{rate}_ratio"], found[rate] / found[rate][0])
    assert found["group"][found["attribute"] == "nail_polish"].tolist() == ["no", "yes"]
    ages = found["group"][found["attribute"] == "age"].tolist()
    assert ages == [band for band in ("<20", "20-29", "30-39", "40+", "unknown") if band in ages]
    no_errors = group_figures(features, split, table.images, -1.0, bootstrap=10).table
    assert no_errors["fnmr"].max() == 0 and no_errors["fnmr_ratio"].isna().all()


def test_what_has_no_groups_is_left_out_and_said(table, split, features):
    images = table.images.drop(columns="irregularities")
    result = group_figures(features, split, images, 0.6, bootstrap=10)
    assert result.left_out == {
        "skin_color": "the data set does not record it",
        "accessories": "of every test image it is 'no'",
        "irregularities": "the data set does not record it",
    }
    assert set(result.table["attribute"]) | set(result.left_out) == {"", *ATTRIBUTES}
    images["accessories"] = images["accessories"].where(images["path"] != split.paths("test")[0])
    again = group_figures(features, split, images, 0.6, ["accessories"], bootstrap=10)
    assert again.left_out == {"accessories": "of every test image it is 'no' or unknown"}


def test_a_group_of_one_person_is_shown_without_interval(table, split, features):
    images = table.images.copy()
    one = next(i for i in sorted(split.identities("test")) if PEOPLE[int(i)] > 2)
    images["skin_color"] = np.where(images["identity"] == one, "dark", "fair")
    found = group_figures(features, split, images, 0.6, ["skin_color"], bootstrap=10).table.set_index("group")
    dark = found.loc["dark"]
    assert (dark["n_identities"], dark["n_impostor"], dark["small"], dark["supported"]) == (1, 0, True, False)
    assert 0 <= dark["rank1"] <= 1 and 0 <= dark["fnmr"] <= 1
    assert np.isnan(dark[["rank1_low", "rank1_high", "map_low", "fnmr_low", "fmr", "fmr_low"]].astype(float)).all()
    assert not found.loc["fair", "small"]


def test_a_test_image_that_the_table_lacks_is_named(table, split, features):
    few = table.images[table.images["path"] != split.paths("test")[0]]
    with pytest.raises(EvaluationError, match=r"\.jpg is no row of the images table"):
        group_figures(features, split, few, 0.6)


@pytest.mark.parametrize(("people", "small"), [(4, True), (5, False)])
def test_small_is_fewer_than_five_people(table, split, features, people, small):
    images = table.images.copy()
    asking = sorted(split.identities("test") - set(split.meta["unqueryable"]))
    images["skin_color"] = np.where(images["identity"].isin(asking[:people]), "dark", "fair")
    found = group_figures(features, split, images, 0.6, ["skin_color"], bootstrap=10).table.set_index("group")
    assert (found.loc["dark", "n_identities"], found.loc["dark", "small"]) == (people, small)
