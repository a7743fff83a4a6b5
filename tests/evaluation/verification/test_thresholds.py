"""A threshold on validation people, on groups of others, and on people who are not enrolled, against loops."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from handclip_lib.data.manifest import Split
from handclip_lib.data.splits import make_split
from handclip_lib.data.table import HandTable
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.intervals import identity_interval, share_interval
from handclip_lib.evaluation.verification import thresholds
from handclip_lib.evaluation.verification.error_rates import Pairs, compared_pairs, validation_pairs
from handclip_lib.evaluation.verification.tallies import Tallies, at_threshold
from handclip_lib.evaluation.verification.thresholds import (
    ATTRIBUTES,
    fixed_on_validation,
    group_figures,
    held_out_identities,
    open_set,
    open_set_models,
    open_set_table,
    operating_points,
    usable_threshold,
)
from handclip_lib.models.embeddings import GivenEmbeddings
from handclip_lib.parameters.notebooks import Evaluation

pytestmark = pytest.mark.filterwarnings("ignore::handclip_lib.evaluation.ranking.retrieval.TiedScoresWarning")
SIZES = (1, 2, 3, 5, 9, 4, 2, 6, 3, 1, 8, 4, 3, 7, 2, 5)


def a_split(protocol="proportional", sizes=SIZES) -> Split:
    rows = [
        {"path": f"{i}_{n}.jpg", "identity": str(i), "aspect": "dorsal_r"}
        for i, size in enumerate(sizes)
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
    found, supported = at_threshold(hand_made(), 0.6)
    assert (found["fmr"], found["fnmr"]) == (0.5, pytest.approx(1 / 3))
    # three pairs of people support no FMR below 3 / 3 = 1
    assert not supported


def test_the_threshold_keeps_to_its_fmr_on_validation_and_is_then_left_alone():
    split = a_split()
    features = features_of(split)
    validation, test = validation_pairs(features, split), compared_pairs(features, split)
    chosen = operating_points({"model": features}, {"model": features}, split, 0.1).iloc[0]
    every = sorted({*validation.genuine.tolist(), *validation.impostor.tolist()})
    assert chosen["threshold"] == next(t for t in every if np.mean(validation.impostor >= t) <= 0.1)
    assert chosen["fmr"] == np.mean(test.impostor >= chosen["threshold"])
    assert chosen["fnmr"] == pytest.approx(np.mean(test.genuine < chosen["threshold"]))
    assert chosen["hter"] == (chosen["fmr"] + chosen["fnmr"]) / 2
    assert (chosen["n_genuine"], chosen["n_impostor"]) == (len(test.genuine), len(test.impostor))


def test_intervals_are_those_of_identities_left_out_in_turn():
    split = a_split()
    pairs = compared_pairs(features_of(split), split)
    names = sorted(split.identities("test"))
    impostors = [
        (pairs.identities[a], pairs.identities[b], score >= 0.3)
        for score, (a, b) in zip(pairs.impostor, pairs.impostor_images, strict=True)
    ]
    passed = [sum(hit for *both, hit in impostors if name in both) for name in names]
    compared = [sum(name in both for *both, _ in impostors) for name in names]
    fmr = np.mean([hit for *_, hit in impostors])
    without = [np.mean([hit for *both, hit in impostors if name not in both]) for name in names]
    variance = (len(names) - 1) / len(names) * sum((rate - fmr) ** 2 for rate in without)
    expected = share_interval(
        np.array(passed)[:, None], np.array(compared), estimate=[fmr], variance=np.array([variance]),
        units=len({frozenset(both) for *both, _ in impostors}),
    )  # fmt: skip
    found, _ = at_threshold(pairs, 0.3)
    assert (found["fmr_low"], found["fmr_high"]) == (pytest.approx(expected.low[0]), pytest.approx(expected.high[0]))
    rejected = (pairs.genuine < 0.3).astype(float)
    rates = identity_interval(rejected, pairs.identities[pairs.genuine_images[:, 0]])
    assert (found["fnmr_low"], found["fnmr_high"]) == (rates.low, rates.high)
    assert found["fmr_low"] < found["fmr"] < found["fmr_high"]


def test_too_few_people_have_no_interval():
    pairs = hand_made()
    some = Tallies(pairs, 0.6, {"two": np.array([1, 1, 1, 1, 0, 0], str), "one": np.array([1, 1, 0, 0, 0, 0], str)})
    fmr, fnmr, _ = some.of("two", "1").rates(0.6)
    assert (fmr.estimate, fnmr.estimate) == (0.5, 0.5)
    assert np.isnan([fmr.low, fmr.high]).all()  # one pair of people, however many images
    assert not np.isnan([fnmr.low, fnmr.high]).any()
    fmr, fnmr, supported = some.of("one", "1").rates(0.6)
    assert fnmr.estimate == 0
    assert np.isnan([fmr.estimate, fmr.low, fnmr.low, fnmr.high]).all()
    assert not supported


def test_no_number_is_no_threshold():
    with pytest.raises(EvaluationError, match="threshold=nan"):
        at_threshold(hand_made(), np.nan)


def test_the_table_shows_both_sides_for_each_model():
    split = a_split()
    models = {"one": features_of(split, 1), "two": features_of(split, 2)}
    table = operating_points(models, models, split, 0.2)
    assert table["model"].tolist() == ["one", "two"]
    assert (table["fmr_validation"] <= 0.2).all()
    assert ((table["fnmr_low"] <= table["fnmr"]) & (table["fnmr"] <= table["fnmr_high"])).all()
    for row in table.itertuples():
        test = compared_pairs(models[row.model], split)
        assert row.fmr == np.mean(test.impostor >= row.threshold)
    with pytest.raises(EvaluationError, match="0 validation identities"):
        operating_points(models, models, a_split("test_only"), 0.2)


def test_a_model_without_a_threshold_takes_no_row_from_the_others():
    split = a_split()
    alike = Features.normalised(split.images["path"], np.ones((len(split.images), 6)))
    models = {"one": features_of(split, 1), "collapsed": alike}
    table = operating_points(models, models, split, 0.2)
    np.testing.assert_equal(table[:1].to_dict(), operating_points(models, {"one": models["one"]}, split, 0.2).to_dict())
    row = table.iloc[1]
    rates = ["threshold", "fmr_validation", "fnmr_validation", "fmr", "fnmr"]
    assert row[rates].tolist() == [np.inf, 0, 1, 0, 1], "it rejects everybody"
    assert row[["fmr_low", "fmr_high", "fnmr_low", "fnmr_high"]].isna().all()
    assert not row["supported"] and row["n_identities"] == compared_pairs(alike, split).n_identities


def test_the_threshold_of_the_first_model_is_used_where_it_accepts_anybody():
    found = {"model": ["a", "b"], "threshold": [0.3, 0.4]}
    assert usable_threshold(pd.DataFrame(found), 0.5) == (0.3, "fixed on validation")
    threshold, said = usable_threshold(pd.DataFrame(found | {"threshold": [np.inf, 0.4]}), 0.5)
    assert threshold == 0.5 and said.endswith(
        "which the test pairs chose themselves (the one fixed on validation rejects everybody)"
    )
    nobody = fixed_on_validation(None, None, {}, a_split("test_only"), Evaluation())
    threshold, said = usable_threshold(nobody, 0.5)
    assert threshold == 0.5 and said.endswith("(nobody validates)")
    split = a_split()
    tested = split.evaluated_paths()  # another program embedded these alone: no threshold can be fixed on others
    given = GivenEmbeddings("embeddings e", tuple(tested), np.ones((len(tested), 2), np.float32), "f", "file e.npz")
    assert fixed_on_validation(given, None, {}, split, Evaluation()).empty


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
    found, _ = group_figures(features, split, table.images, threshold)
    groups, queries, pairs = slow_groups(table), slow_queries(features, split), slow_pairs(features, split)
    seen = set()
    for row in found.itertuples():
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
        interval = identity_interval((own["rank"] == 1).to_numpy(float), own["identity"].to_numpy())
        people = genuine["who"].nunique()
        rejected = people >= 10 and 3 / people <= row.fnmr <= 1 - 3 / people
        assert row.supported == (n_pairs > 0 and row.fmr >= 3 / n_pairs and rejected and interval.supported)
        if row.n_identities > 1:
            assert (row.rank1_low, row.rank1_high) == pytest.approx((interval.low, interval.high))
            assert row.map_low <= row.map <= row.map_high
    present = groups.loc[split.paths("test")]
    assert seen == {("", "everybody")} | {(a, g) for a in groups.columns for g in set(present[a])}
    assert ("age", "unknown") in seen


def test_ratios_are_to_everybody_and_groups_are_in_order(table, split, features):
    found = group_figures(features, split, table.images, 0.6)[0]
    for rate in ("fmr", "fnmr"):
        np.testing.assert_allclose(found[f"{rate}_ratio"], found[rate] / found[rate][0])
    assert found["group"][found["attribute"] == "nail_polish"].tolist() == ["no", "yes"]
    ages = found["group"][found["attribute"] == "age"].tolist()
    assert ages == [band for band in ("<20", "20-29", "30-39", "40+", "unknown") if band in ages]
    no_errors = group_figures(features, split, table.images, -1.0)[0]
    assert no_errors["fnmr"].max() == 0 and no_errors["fnmr_ratio"].isna().all()


def test_what_has_no_groups_is_left_out_and_said(table, split, features):
    images = table.images.drop(columns="irregularities")
    found, left_out = group_figures(features, split, images, 0.6)
    assert left_out == {
        "skin_color": "the data set does not record it",
        "accessories": "of every test image it is 'no'",
        "irregularities": "the data set does not record it",
    }
    assert set(found["attribute"]) | set(left_out) == {"", *ATTRIBUTES}
    images["accessories"] = images["accessories"].where(images["path"] != split.paths("test")[0])
    _, again = group_figures(features, split, images, 0.6, ["accessories"])
    assert again == {"accessories": "of every test image it is 'no' or unknown"}


def test_a_group_of_one_person_is_shown_without_interval(table, split, features):
    images = table.images.copy()
    one = next(i for i in sorted(split.identities("test")) if PEOPLE[int(i)] > 2)
    images["skin_color"] = np.where(images["identity"] == one, "dark", "fair")
    found = group_figures(features, split, images, 0.6, ["skin_color"])[0].set_index("group")
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
    found = group_figures(features, split, images, 0.6, ["skin_color"])[0].set_index("group")
    assert (found.loc["dark", "n_identities"], found.loc["dark", "small"]) == (people, small)


def exact_features(split: Split, seed=0) -> Features:
    """Embeddings of eighths, so that scores are exact in any order of summation, and some of them tie."""
    rng = np.random.default_rng(seed)
    centre = {identity: rng.choice([-0.125, 0.125], 64) for identity in sorted(set(split.images["identity"]))}
    flips = np.where(rng.random((len(split.images), 64)) < 0.33, -1, 1)
    return Features.normalised(split.images["path"], np.array([centre[i] for i in split.images["identity"]]) * flips)


def slow_probes(features: Features, split: Split, held_out, rank: int) -> tuple[list, list]:
    """(identity, score that finds it) of mated probes, None where the rank is too low; (identity, best) of others."""
    vector = dict(zip(features.paths, features.embeddings, strict=True))
    mated, non_mated = [], []
    for trial in range(split.meta["draws"]):
        draw = split.draw(trial)
        gallery = [(p, i) for p, i in zip(draw.gallery_paths, draw.gallery_ids, strict=True) if i not in held_out]
        for path, who in zip(draw.query_paths, draw.query_ids, strict=True):
            score = {i: vector[path] @ vector[p] for p, i in gallery}
            if who in held_out:
                non_mated.append((who, max(score.values())))
            else:
                ahead = sum(other >= score[who] for i, other in score.items() if i != who)
                mated.append((who, score[who] if ahead < rank else None))
    return mated, non_mated


def slow_rates(mated, non_mated, threshold) -> tuple[float, float]:
    fpir = sum(score >= threshold for _, score in non_mated) / len(non_mated)
    found = sum(score is not None and score >= threshold for _, score in mated)
    return fpir, 1 - found / len(mated)


@pytest.mark.parametrize("rank", [1, 2, 4])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_formula_at_every_threshold(rank, seed):
    split = a_split()
    features = exact_features(split, seed)
    result = open_set(features, split, rank=rank, seed=seed, targets=(0.05, 0.1, 0.5))
    mated, non_mated = slow_probes(features, split, result.held_out, rank)
    assert len(result.curve.thresholds) == len({s for _, s in mated + non_mated if s is not None}) + 1
    for threshold, fpir, fnir in zip(
        result.curve.thresholds, result.curve.false_positive, result.curve.false_negative, strict=True
    ):
        assert (fpir, fnir) == pytest.approx(slow_rates(mated, non_mated, threshold), abs=1e-12)
    for point in result.points:
        keeping = [slow_rates(mated, non_mated, t) for t in result.curve.thresholds]
        assert point.false_negative == pytest.approx(min(fnir for fpir, fnir in keeping if fpir <= point.target))
        assert (point.false_positive, point.false_negative) == pytest.approx(
            slow_rates(mated, non_mated, point.threshold)
        )
    assert result.curve.false_negative[0] == pytest.approx(np.mean([score is None for _, score in mated]))


def test_a_probe_whose_gallery_image_is_absent_is_non_mated():
    rows = [(f"{who}{n}", who, "" if n else "0") for who in "abcd" for n in (0, 1)]
    frame = pd.DataFrame(rows, columns=["path", "identity", "gallery_in"]).assign(aspect="", capture=pd.NA, role="test")
    frame.loc[frame["path"] == "a0", "role"] = "other"  # nobody enrolled a
    split = Split.build({"dataset": "folder", "draws": 1, "unqueryable": [], "seed": 0}, frame)
    features = Features.normalised(frame["path"], np.random.default_rng(0).normal(size=(8, 5)))
    result = open_set(features, split, seed=0)
    assert result.n_non_mated_identities == len({*result.held_out, "a"})
    assert len(result.curve.non_mated_order) == len({*result.held_out, "a"})


def test_the_same_people_are_held_out_in_every_draw_and_for_every_model():
    split = a_split()
    results = open_set_models({"a": exact_features(split), "b": exact_features(split, 1)}, split, share=0.4)
    queryable = split.identities("test") - set(split.meta["unqueryable"])
    assert results[0].held_out == results[1].held_out
    assert len(results[0].held_out) == round(0.4 * len(queryable)) == results[0].n_non_mated_identities
    assert set(results[0].held_out) < queryable
    assert results[0].n_mated_identities == len(queryable) - len(results[0].held_out)
    assert results[0].n_gallery == len(split.identities("test")) - len(results[0].held_out)
    others = {open_set(exact_features(split), split, share=0.4, seed=seed).held_out for seed in range(8)}
    assert len(others) > 2
    assert open_set_table(results)["model"].tolist() == ["a", "a", "b", "b"]


def test_few_people_held_out_support_no_small_fpir():
    split = a_split(sizes=(4,) * 90)
    result = open_set(exact_features(split), split, share=0.8)
    # 45 people are tested and 36 of them held out: 3 / 36 = 0.083
    assert len(result.held_out) == 36
    assert result.curve.lowest_supported == pytest.approx(3 / 36)
    table = open_set_table([result])
    assert table["target"].tolist() == [0.1, 0.01]
    assert [point.supported for point in result.points] == [True, False]
    assert not table["supported"].any() and set(table["n_identities"]) == {9}  # nine people can show no FNIR


def test_the_interval_leaves_out_mated_and_non_mated_people_in_turn():
    split = a_split()
    features = exact_features(split)
    result = open_set(features, split, targets=(0.2, 0.5), seed=2)
    mated, non_mated = slow_probes(features, split, result.held_out, 1)

    def figures(mated, non_mated):
        rates = [slow_rates(mated, non_mated, t) for t in result.curve.thresholds]
        return np.array([min(fnir for fpir, fnir in rates if fpir <= target) for target in (0.2, 0.5)])

    estimate, variance = figures(mated, non_mated), 0
    for probes in (mated, non_mated):
        names = {who for who, _ in probes}
        for name in names:
            without = [[probe for probe in side if probe[0] != name] for side in (mated, non_mated)]
            variance = variance + (len(names) - 1) / len(names) * (figures(*without) - estimate) ** 2
    names = sorted({who for who, _ in mated})
    missed = [
        [sum(who == name and (s is None or s < p.threshold) for who, s in mated) for p in result.points]
        for name in names
    ]
    counts = np.array([sum(who == name for who, _ in mated) for name in names])
    expected = share_interval(np.array(missed), counts, estimate=estimate, variance=variance)
    np.testing.assert_allclose(result.fnir_at_targets.low, expected.low, atol=1e-12)
    np.testing.assert_allclose(result.fnir_at_targets.high, expected.high, atol=1e-12)
    assert (expected.low < expected.high).all()
    assert result.fnir_at_targets.n_identities == len(names) == result.n_mated_identities


def test_a_share_of_few_people_holds_out_nobody():
    split = a_split()
    assert len(held_out_identities(split, 0.5, 0)) >= 2
    assert [held_out_identities(split, share, 0) for share in (0.0, 0.01, 0.99, 1.0, float("nan"))] == [()] * 5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"share": 0.0}, "share=0.0 .* two must be held out"),
        ({"share": 1.0}, "share=1.0 .* two must be held out"),
        ({"share": 0.95}, "at least two must be held out and two stay"),
        ({"rank": 0}, "rank=0"),
        ({"targets": (10,)}, "rate of 10 was"),
    ],
)
def test_what_cannot_be_measured_is_refused(options, words):
    split = a_split()
    with pytest.raises(EvaluationError, match=words):
        open_set(exact_features(split), split, **options)


def test_the_caption_of_a_fixed_threshold_is_made_of_its_figures_and_says_who_trained():
    fixed = pd.DataFrame({"model": ["tiny", "pixels"], "fmr_validation": [0.01, 0.5], "fmr": [0.034, 0.5]})
    told = thresholds.kept_promise(fixed, trained=False)
    assert told == "tiny accepts 1.0 % of non-mated pairs at the threshold fixed on validation, 3.4 % on test"
    assert thresholds.kept_promise(fixed, trained=True) == f"{told}; the people who validate also trained it"
    assert "fewer than two people" in thresholds.kept_promise(fixed.iloc[:0], trained=True)
