"""Pairs of images, FMR and FNMR: against loops over draws and thresholds, scikit-learn, and repetition."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import det_curve, roc_auc_score, roc_curve

from handclip_lib.data.manifest import Split
from handclip_lib.data.splits import make_split
from handclip_lib.data.table import HandTable
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation import features as features_module
from handclip_lib.evaluation.error_curve import ErrorCurve, Remaining
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.intervals import Interval, mean_of_two, share_interval
from handclip_lib.evaluation.ranking.confusion import similarity_by_identity
from handclip_lib.evaluation.tables import summary_table
from handclip_lib.evaluation.verification.error_rates import (
    EQUAL_ERRORS,
    Pairs,
    area_under_roc,
    auc_interval,
    compared_pairs,
    d_prime,
    target_table,
    validation_pairs,
    verification,
    verification_of,
    verify_models,
)
from handclip_lib.evaluation.verification.tallies import Tallies, at_threshold
from tests.simulated_people import pairs_of_people, true_rates

SIZES = (1, 2, 3, 5, 9, 4, 2, 6, 3, 1, 8, 4)
scores = st.lists(st.integers(-3, 3), min_size=1, max_size=25).map(lambda values: np.array(values) / 4)


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


def some_people(n: int, images: int, mated: float) -> Pairs:
    """Every pair of the images of some people, normal scores, mated ones so much higher."""
    people = np.repeat([f"{i:02d}" for i in range(n)], images)
    both = np.stack(np.triu_indices(n * images, 1), 1)
    same = people[both[:, 0]] == people[both[:, 1]]
    score = np.random.default_rng(0).normal(size=len(both)) + mated * same
    return Pairs(np.arange(n * images).astype(object), people, score[same], both[same], score[~same], both[~same])


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
    within = {pair: value for pair, value in as_dict(pairs).items() if pair <= kept}
    few = Tallies(pairs, 0.2, {"chosen": chosen.astype(str)}).of("chosen", "True")
    impostors, mated = ([score for same, score in within.values() if same == kind] for kind in (False, True))
    assert (few.n_impostor, few.passed.sum()) == (len(impostors), 2 * sum(score >= 0.2 for score in impostors))
    assert sorted(few.rejected) == sorted(score < 0.2 for score in mated)
    person = dict(zip(pairs.paths, pairs.identities, strict=True))
    assert few.n_identities == len({person[path] for pair in within for path in pair})
    people = {frozenset(person[path] for path in pair) for pair, (same, _) in within.items() if not same}
    assert few.n_identity_pairs == len(people)


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
    monkeypatch.setattr(features_module, "free_memory", lambda: 2**10)
    with pytest.raises(EvaluationError, match=r"the pairs of \d+ images needs .* free; verify .* fewer draws"):
        compared_pairs(features, split)
    with pytest.raises(EvaluationError, match=r"the pairs of \d+ images needs"):
        validation_pairs(features, split)
    monkeypatch.setattr(features_module, "free_memory", lambda: 2**30)
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


def slow_rates(genuine, impostor) -> list[tuple[float, float, float]]:
    """Threshold, FMR, FNMR at every distinct score and beyond all, rising."""
    return [
        (t, sum(s >= t for s in impostor) / len(impostor), sum(s < t for s in genuine) / len(genuine))
        for t in [*sorted({*genuine.tolist(), *impostor.tolist()}), np.inf]
    ]


def slow_eer(genuine, impostor) -> float:
    """Where the polygon through the operating points crosses FMR = FNMR."""
    rates = slow_rates(genuine, impostor)
    for (_, fmr0, fnmr0), (_, fmr1, fnmr1) in pairwise(rates):
        if fnmr0 <= fmr0 and fnmr1 >= fmr1:
            gap0, gap1 = fmr0 - fnmr0, fnmr1 - fmr1
            return fmr0 if gap0 == 0 else (fmr0 * gap1 + fmr1 * gap0) / (gap0 + gap1)
    raise AssertionError("the curve begins with FMR 1, FNMR 0 and ends with FMR 0, FNMR 1")


def slow_fnmr(genuine, impostor, target) -> tuple[float, float, float]:
    """The lowest FNMR of all thresholds with FMR at most the target: FNMR, FMR, lowest such threshold."""
    return min((fnmr, fmr, t) for t, fmr, fnmr in slow_rates(genuine, impostor) if fmr <= target)


def tied_scores(seed: int, n_genuine=300, n_impostor=2000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return np.round(rng.normal(1, 1, n_genuine), 1), np.round(rng.normal(0, 1, n_impostor), 1)


@given(scores, scores)
@settings(max_examples=150, deadline=None)
def test_the_curve_counts_at_every_distinct_score(genuine, impostor):
    found = verification(genuine, impostor, 10)
    slow = slow_rates(genuine, impostor)
    assert found.thresholds.tolist() == [t for t, _, _ in slow]
    assert found.false_positive.tolist() == [fmr for _, fmr, _ in slow]
    assert found.false_negative.tolist() == [fnmr for _, _, fnmr in slow]


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_roc_and_det_of_scikit_learn(seed):
    genuine, impostor = tied_scores(seed)
    labels = np.r_[np.ones(len(genuine), int), np.zeros(len(impostor), int)]
    found = verification(genuine, impostor, 2485)
    fpr, tpr, thresholds = roc_curve(labels, np.r_[genuine, impostor], drop_intermediate=False)
    np.testing.assert_array_equal(found.thresholds[::-1], thresholds)
    np.testing.assert_allclose(found.false_positive[::-1], fpr, atol=1e-12)
    np.testing.assert_allclose(1 - found.false_negative[::-1], tpr, atol=1e-12)
    fpr, fnr, thresholds = det_curve(labels, np.r_[genuine, impostor])
    place = np.searchsorted(found.thresholds, thresholds)
    np.testing.assert_array_equal(found.thresholds[place], thresholds)
    np.testing.assert_allclose(found.false_positive[place], fpr, atol=1e-12)
    np.testing.assert_allclose(found.false_negative[place], fnr, atol=1e-12)


@given(scores, scores)
@settings(max_examples=150, deadline=None)
def test_eer_is_where_the_polygon_crosses(genuine, impostor):
    assert verification(genuine, impostor, 10).eer == pytest.approx(slow_eer(genuine, impostor), abs=1e-12)


def test_eer_by_hand():
    # threshold  0.2  0.4  0.5  0.6  0.8  0.9  inf      accept when score >= threshold
    # FMR  (/4)    4    3    2    1    1    0    0      impostors 0.2 0.4 0.5 0.8
    # FNMR (/3)    0    0    0    0    1    1    3      genuine 0.6 0.9 0.9
    # between 0.6 (FMR 1/4, FNMR 0) and 0.8 (1/4, 1/3) only FNMR moves: they are equal at 1/4
    found = verification(np.array([0.6, 0.9, 0.9]), np.array([0.2, 0.4, 0.5, 0.8]), 4)
    assert (found.eer, found.eer_threshold) == (pytest.approx(1 / 4), 0.8)
    # threshold  0.1  0.5  0.7  inf: a tie of both kinds at 0.5
    # FMR  (/2)    2    1    0    0      impostors 0.1 0.5
    # FNMR (/2)    0    0    1    2      genuine 0.5 0.7
    # from (1/2, 0) to (0, 1/2) on a straight line: equal in the middle, at 1/4
    found = verification(np.array([0.5, 0.7]), np.array([0.1, 0.5]), 4)
    assert (found.eer, found.eer_threshold) == (0.25, 0.7)
    assert verification(np.array([0.8, 0.9]), np.array([0.1, 0.2]), 4).eer == 0
    assert verification(np.array([0.1, 0.2]), np.array([0.8, 0.9]), 4).eer == 1
    assert verification(np.ones(3), np.ones(5), 4).eer == 0.5  # collapsed: accept all or nothing


@given(scores, scores, st.sampled_from([0, 0.001, 0.1, 0.2, 0.25, 1 / 3, 0.5, 0.9, 1]))
@settings(max_examples=200, deadline=None)
def test_fnmr_at_fmr_is_the_best_of_all_thresholds_that_keep_to_the_target(genuine, impostor, target):
    point = verification(genuine, impostor, 10).operating_point(target)
    fnmr, fmr, threshold = slow_fnmr(genuine, impostor, target)
    assert point.false_negative == fnmr
    assert point.false_positive <= target
    assert (impostor >= point.threshold).mean() == point.false_positive
    assert (genuine < point.threshold).mean() == point.false_negative
    assert point.threshold <= threshold or point.false_positive > fmr
    # the FMR reached is the largest that keeps to the target
    assert point.false_positive == max(f for _, f, _ in slow_rates(genuine, impostor) if f <= target)


def test_few_people_cannot_support_a_small_fmr():
    # rule of three: 71 people are 71 · 70 / 2 = 2485 pairs, and 3 / 2485 = 1.207e-3
    genuine, impostor = tied_scores(0)
    found = verification(genuine, impostor, 2485)
    assert found.lowest_supported == pytest.approx(1.2072e-3, rel=1e-4)
    assert [found.operating_point(t).supported for t in (0.1, 0.01, 1.21e-3, 1.2e-3, 1e-3)] == [True] * 3 + [False] * 2
    assert not verification(genuine, impostor, 200).operating_point(0.01).supported  # 3 / 200 = 0.015


def test_d_prime_by_hand_and_undefined_where_nothing_varies():
    # means 3 and 0, variances 1 and 4: d' = 3 / sqrt(2.5)
    assert d_prime(np.array([2.0, 4.0]), np.array([-2.0, 2.0])) == pytest.approx(3 / np.sqrt(2.5))
    assert d_prime(np.array([-2.0, 2.0]), np.array([2.0, 4.0])) < 0
    assert np.isnan(d_prime(np.ones(2), np.zeros(2)))
    assert d_prime(np.array([2e300, 4e300]), np.array([-2e300, 2e300])) == pytest.approx(3 / np.sqrt(2.5))


def test_millions_of_pairs_of_float32_lose_nothing():
    rng = np.random.default_rng(0)
    genuine, impostor = (rng.normal(m, 1, n).astype(np.float32) for m, n in ((1, 10**5), (0, 10**6)))
    found = verification(genuine, impostor, 2485)
    point = found.operating_point(1e-3)
    assert np.count_nonzero(impostor >= point.threshold) == point.false_positive * 10**6 == 1000
    assert np.count_nonzero(genuine < point.threshold) == round(point.false_negative * 10**5)


@pytest.mark.parametrize(
    ("genuine", "impostor", "words"),
    [
        ([], [0.1], r"genuine scores are float64 \(0,\)"),
        ([0.1], [[0.1]], r"impostor scores are float64 \(1, 1\)"),
        ([0.1], [0.1, np.nan], r"impostor\[1\] is nan"),
        ([np.inf], [0.1], r"genuine\[0\] is inf"),
    ],
)
def test_bad_scores_are_named(genuine, impostor, words):
    with pytest.raises(EvaluationError, match=words):
        verification(np.array(genuine, float), np.array(impostor, float), 3)


def test_a_percentage_is_no_target():
    with pytest.raises(EvaluationError, match="rate of 10 was asked for"):
        verification(np.array([0.1]), np.array([0.2]), 2).operating_point(10)


def test_what_remains_of_the_first_is_counted():
    rng = np.random.default_rng(0)
    for n in (1, 9, 40):
        gone = np.flatnonzero(rng.random(n) < 0.3)
        remains = np.cumsum(np.append(0, ~np.isin(np.arange(n), gone)))
        found = Remaining(n, gone)
        assert [found.first(k) for k in range(n + 1)] == remains.tolist()
        assert found.total == n - len(gone)
        # places are listed of the second of three spans alone: exact there, and at the ends
        ends = [0, n // 3, 2 * n // 3, n]
        before = [end - int(remains[end]) for end in ends]
        some = gone[(gone >= ends[1]) & (gone < ends[2])]
        found = Remaining(n, some, (ends, before, [False, True, False]))
        firsts = [found.first(k) for k in range(n + 1)]
        assert firsts[ends[1] : ends[2] + 1] == remains[ends[1] : ends[2] + 1].tolist()
        assert [firsts[end] for end in ends] == remains[ends].tolist() and np.all(np.diff(firsts) >= 0)


@given(scores, scores, st.integers(0, 9))
@settings(max_examples=100, deadline=None)
def test_without_some_scores_the_curve_is_that_of_the_others(genuine, impostor, seed):
    rng = np.random.default_rng(seed)
    gone = rng.random(len(genuine)) < 0.4, rng.random(len(impostor)) < 0.4
    gone[0][0] = gone[1][0] = False
    curve = ErrorCurve.of(genuine, impostor, 10)
    orders = curve.mated_order, curve.non_mated_order
    weights = tuple(Remaining(len(o), np.flatnonzero(g[o])) for o, g in zip(orders, gone, strict=True))
    others = genuine[~gone[0]], impostor[~gone[1]]
    assert curve.equal(weights)[0] == pytest.approx(slow_eer(*others), abs=1e-12)
    for target in (0, 0.2, 0.5):
        assert curve.negatives_at([target], weights) == [slow_fnmr(*others, target)[0]]


def test_intervals_are_those_of_identities_left_out_in_turn():
    split = a_split()
    features = random_features(split, 3)
    result = verification_of(features, split, targets=(0.1, 0.3))
    pairs = compared_pairs(features, split)
    names = sorted(split.identities("test"))
    people = pairs.identities
    owners = [people[a] for a, _ in pairs.genuine_images]

    def figures(without=None):
        genuine = np.array([s for s, who in zip(pairs.genuine, owners, strict=True) if who != without], float)
        both = zip(pairs.impostor, pairs.impostor_images, strict=True)
        impostor = np.array([s for s, (a, b) in both if without not in (people[a], people[b])], float)
        return np.array([slow_eer(genuine, impostor), *(slow_fnmr(genuine, impostor, t)[0] for t in (0.1, 0.3))])

    estimate, n = figures(), len(names)
    having = [name for name in names if name in owners]
    variance = (n - 1) / n * sum((figures(name) - estimate) ** 2 for name in names)
    thresholds = [result.curve.eer_threshold, *(point.threshold for point in result.points)]
    scores = {
        name: np.array([s for s, who in zip(pairs.genuine, owners, strict=True) if who == name]) for name in having
    }
    rejected = np.array([[(scores[name] < t).sum() for t in thresholds] for name in having])
    counts = np.array([len(scores[name]) for name in having])
    expected = share_interval(rejected, counts, estimate=estimate, variance=variance)
    np.testing.assert_allclose([result.eer.low, *result.fnmr_at_targets.low], expected.low, atol=1e-12)
    np.testing.assert_allclose([result.eer.high, *result.fnmr_at_targets.high], expected.high, atol=1e-12)
    assert result.eer.estimate == pytest.approx(slow_eer(pairs.genuine, pairs.impostor))
    assert result.eer.low < result.eer.estimate < result.eer.high
    assert result.eer.n_identities == len(having)


def test_tables_hold_every_model_and_mark_what_is_unsupported():
    split = a_split()
    people = dict(split.images[["path", "identity"]].itertuples(index=False))
    oracle = random_features(split)
    codes = pd.factorize(np.array([people[path] for path in oracle.paths]))[0]
    models = {"oracle": Features.normalised(oracle.paths, np.eye(codes.max() + 1)[codes]), "noise": oracle}
    results = verify_models(models, split)
    table, targets = summary_table(results, EQUAL_ERRORS), target_table(results)
    assert table["model"].tolist() == ["oracle", "noise"]
    assert table["eer"][0] == 0 and not table["supported"][0]  # six people prove no error rate of 0
    assert 0.3 < table["eer"][1] < 0.7 and not table["supported"].any()
    assert ((table["eer_low"] <= table["eer"]) & (table["eer"] <= table["eer_high"])).all()
    assert targets["target"].tolist() == [0.1, 0.01, 0.001] * 2
    assert targets["fnmr"][:3].tolist() == [0] * 3 and targets["tar"][:3].tolist() == [1] * 3
    limit = table["lowest_supported_fmr"][0]
    assert [point.supported for result in results for point in result.points] == [t >= limit for t in targets["target"]]
    assert not targets["supported"].any() and set(targets["n_identities"]) == {results[0].eer.n_identities}


@pytest.mark.parametrize("decimals", [1, 8])  # with many ties, and with none
def test_area_under_roc_is_scikit_learns(decimals):
    rng = np.random.default_rng(0)
    genuine, impostor = rng.normal(1, 1, 80).round(decimals), rng.normal(0, 1, 300).round(decimals)
    labels = np.repeat([1, 0], [len(genuine), len(impostor)])
    expected = roc_auc_score(labels, np.concatenate([genuine, impostor]))
    assert area_under_roc(verification(genuine, impostor, 10)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("decimals", [1, 8])
def test_the_interval_of_auc_leaves_out_each_person_with_all_their_pairs(decimals):
    split = a_split()
    pairs = compared_pairs(random_features(split), split)
    pairs = replace(pairs, genuine=pairs.genuine.round(decimals), impostor=pairs.impostor.round(decimals))

    def auc(of_genuine, of_impostor) -> float:
        scores = pairs.genuine[of_genuine], pairs.impostor[of_impostor]
        return roc_auc_score(np.repeat([1, 0], [len(side) for side in scores]), np.concatenate(scores))

    n, owner, people = pairs.n_identities, pairs.genuine_identities, pairs.impostor_identities
    found = auc_interval(pairs, verification(pairs.genuine, pairs.impostor, pairs.n_identity_pairs))
    whole = auc(owner >= 0, people[:, 0] >= 0)
    without = [auc(owner != person, (people != person).all(1)) for person in range(n)]
    variance = (n - 1) / n * sum((one - whole) ** 2 for one in without)
    won = np.zeros(n)
    for person, score in zip(owner, pairs.genuine, strict=True):
        won[person] += np.mean((pairs.impostor < score) + (pairs.impostor == score) / 2)
    expected = share_interval(
        won[:, None], np.bincount(owner, minlength=n), estimate=[whole], variance=np.array([variance])
    )
    assert (found.estimate, found.low, found.high) == pytest.approx((whole, expected.low[0], expected.high[0]))
    assert found.low < found.estimate < found.high and found.n_identities == len(np.unique(owner))


def test_an_auc_of_1_has_the_interval_of_so_many_people_who_are_all_right():
    pairs = some_people(10, 3, mated=9.0)
    found = auc_interval(pairs, verification(pairs.genuine, pairs.impostor, pairs.n_identity_pairs))
    assert (found.estimate, found.low, found.high) == pytest.approx((1, 0.6615, 1), abs=5e-5)


def test_one_person_in_every_pair_leaves_nothing_when_left_out():
    paths, people = np.array(["a0", "a1", "b", "c"], object), np.array(["a", "a", "b", "c"])
    pairs = Pairs(paths, people, np.array([0.9]), np.array([[0, 1]]), np.array([0.1, 0.95]), np.array([[0, 2], [1, 3]]))
    found = auc_interval(pairs, verification(pairs.genuine, pairs.impostor, 2))
    assert found.estimate == 0.5 and np.isnan([found.low, found.high]).all()  # one person has mated pairs


@pytest.mark.slow
@pytest.mark.parametrize(("n", "data_sets"), [(10, 150), (20, 60)])
def test_intervals_of_auc_and_hter_cover_the_truth(n, data_sets):
    threshold = 2.326  # an FMR of 1 %
    for counts in ("even", "11k"):
        for mean, alike, goats, dependent in ((1.2, 0.1, 0, 0), (2.3, 0.5, 0, -0.7), (3.3, 0.3, 3, 0)):
            auc, fmr, fnmr = true_rates(threshold, mean, goats)
            rng, covered = np.random.default_rng([n, int(10 * mean)]), []
            for _ in range(data_sets):
                pairs = pairs_of_people(n, counts, mean, alike, goats, dependent, rng)
                found = auc_interval(pairs, verification(pairs.genuine, pairs.impostor, pairs.n_identity_pairs))
                rates, _ = at_threshold(pairs, threshold)
                both = mean_of_two(
                    *(Interval(rates[x], rates[f"{x}_low"], rates[f"{x}_high"], n) for x in ("fmr", "fnmr"))
                )
                truths = (found, auc), (both, (fmr + fnmr) / 2)
                covered.append([interval.low <= truth <= interval.high for interval, truth in truths])
            # three standard errors of so many data sets; of 20 people one sample in eight holds nobody who scores low
            assert np.mean(covered, axis=0).min() >= (0.8 if goats and n == 20 else 0.87), (counts, mean, covered)
