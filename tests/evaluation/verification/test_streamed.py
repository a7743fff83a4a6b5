"""Pairs that are counted by blocks say what the list of the same pairs says, to the bit."""

import numpy as np
import pandas as pd
import pytest

from handclip_lib.data.manifest import Split
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation import features as features_module
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.verification import differentials, error_rates, streamed, sweep
from handclip_lib.evaluation.verification.error_rates import compared_pairs, verification_of_pairs
from handclip_lib.evaluation.verification.menagerie import menagerie
from handclip_lib.evaluation.verification.streamed import StreamedPairs
from handclip_lib.evaluation.verification.tallies import Tallies, at_threshold
from handclip_lib.evaluation.verification.thresholds import group_figures

TARGETS = (0.1, 0.01, 0.001)


def a_split(sizes, draws: int, seed=0, distractors=0) -> Split:
    """People with so many images each; every draw holds one image of each, drawn at random."""
    rng = np.random.default_rng(seed)
    held = {(who, int(rng.integers(size)), draw) for who, size in enumerate(sizes) for draw in range(draws)}
    rows = [
        {"path": f"{who:03d}_{image:03d}.jpg", "identity": f"{who:03d}", "aspect": "dorsal_r", "role": "test",
         "capture": image, "gallery_in": " ".join(str(d) for d in range(draws) if (who, image, d) in held)}
        for who, size in enumerate(sizes) for image in range(size)
    ] + [{"path": f"z{i}.jpg", "identity": f"z{i}", "aspect": "", "role": "distractor", "capture": pd.NA,
          "gallery_in": ""} for i in range(distractors)]  # fmt: skip
    return Split.build({"dataset": "folder", "draws": draws, "unqueryable": []}, pd.DataFrame(rows))


def embedded(split: Split, apart=1.0, decimals=9, seed=0) -> Features:
    """People differ; rounded to few decimals many images are the same, and their scores tie."""
    rng = np.random.default_rng(seed)
    codes = pd.factorize(split.images["identity"])[0]
    centres = apart * rng.normal(size=(codes.max() + 1, 8))
    found = (centres[codes] + rng.normal(size=(len(codes), 8))).round(decimals)
    return Features.normalised(split.images["path"], found + 1e-3)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    for name, value in {"ROWS": 64, "COLUMNS": 160, "BUFFERED": 1000, "PATTERNS": 37}.items():
        monkeypatch.setattr(streamed, name, value)


@pytest.fixture
def both(monkeypatch, request):
    """The same pairs by blocks, and in a list."""

    def of(sizes, draws, distractors=0, **how) -> tuple[StreamedPairs, error_rates.Pairs]:
        split = a_split(sizes, draws, distractors=distractors)
        features = embedded(split, **how)
        monkeypatch.setattr(error_rates, "LISTED", 0)
        found = compared_pairs(features, split)
        assert isinstance(found, StreamedPairs)
        return found, found.listed()

    return of


MANY_OF_ONE = (90, *[2, 3, 1, 4] * 12)
CASES = {
    "few draws": ([3, 4] * 60, 3, {}),
    "more draws than a word has bits": ([3, 5, 2] * 12, 40, {}),
    "a person with most images": (MANY_OF_ONE, 5, {}),
    "ties": ([3, 4] * 40, 4, {"decimals": 0}),
    "distractors": ([3] * 40, 3, {"distractors": 50}),
}


@pytest.mark.parametrize("name", CASES)
def test_counts_are_those_of_the_list(both, name):
    sizes, draws, how = CASES[name]
    some, listed = both(sizes, draws, **how)
    back = np.argsort(some.place)
    for each in ("n_impostor", "n_identities", "n_identity_pairs"):
        assert getattr(some, each) == getattr(listed, each), each
    np.testing.assert_array_equal(some.people[back], listed.people)
    np.testing.assert_array_equal(some.compared_with_all[back], listed.compared_with_all)
    assert sorted(some.genuine.tolist()) == sorted(listed.genuine.tolist())
    np.testing.assert_allclose(some.impostor_sums(), listed.impostor_sums(), atol=1e-4)
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, (len(back), 2)) + np.array([0, 3])
    for ours, theirs in zip(some.counts(0.4, labels[some.place], 6), listed.counts(0.4, labels, 6), strict=True):
        np.testing.assert_array_equal(ours[back], theirs)
    choices = labels[:, 0] == 0, labels[:, 0] == 1
    for first in choices:
        for second in choices:
            expected = listed.identity_pairs(first, second)
            assert some.identity_pairs(first[some.place], second[some.place]) == expected
    for ours, theirs in zip(some.between_people(0.4), listed.between_people(0.4), strict=True):
        np.testing.assert_array_equal(ours + ours.T, theirs + theirs.T)
    assert set(some.shown.tolist()) <= set(listed.impostor.tolist())


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("apart", [0.3, 2.0])
def test_error_rates_are_those_of_the_list(both, name, apart):
    sizes, draws, how = CASES[name]
    some, listed = (verification_of_pairs(pairs, targets=TARGETS) for pairs in both(sizes, draws, apart=apart, **how))
    assert some.points == listed.points
    for each in ("eer", "eer_threshold", "lowest_supported"):
        assert getattr(some.curve, each) == getattr(listed.curve, each)
    np.testing.assert_array_equal(
        [some.eer.low, some.eer.high, *some.fnmr_at_targets.low, *some.fnmr_at_targets.high],
        [listed.eer.low, listed.eer.high, *listed.fnmr_at_targets.low, *listed.fnmr_at_targets.high],
    )
    # at every threshold of ours the whole curve is as exact
    place = np.searchsorted(listed.curve.thresholds, some.curve.thresholds)
    np.testing.assert_array_equal(some.curve.false_positive, listed.curve.false_positive[place])
    np.testing.assert_array_equal(some.curve.false_negative, listed.curve.false_negative[place])
    # in bins: mated and non-mated scores of one bin are taken for a tie
    assert float(some.auc.estimate) == pytest.approx(float(listed.auc.estimate), abs=1e-4)
    assert (some.auc.low, some.auc.high) == pytest.approx((listed.auc.low, listed.auc.high), abs=1e-4)
    assert some.d_prime == pytest.approx(listed.d_prime, abs=1e-3)
    assert some.summary().keys() == listed.summary().keys()


def test_only_what_is_near_a_threshold_is_kept_and_a_wrong_guess_is_mended(both, monkeypatch):
    kept, seen = [], sweep._pass

    def watched(*arguments):
        found = seen(*arguments)
        kept.append(len(found.scores))
        return found

    monkeypatch.setattr(sweep, "_pass", watched)
    some, listed = both([3] * 300, 3)
    expected = verification_of_pairs(listed, targets=(0.01,))
    assert verification_of_pairs(some, targets=(0.01,)).points == expected.points
    assert len(kept) == 1 and kept[0] < some.n_impostor / 4
    monkeypatch.setattr(sweep, "SURE", 1e-9)
    monkeypatch.setattr(sweep, "APART", 1e-9)
    again = verification_of_pairs(some, targets=(0.01,))
    assert len(kept) > 2 and again.points == expected.points
    assert (again.eer, again.fnmr_at_targets) == (expected.eer, expected.fnmr_at_targets) or (
        again.eer.low == expected.eer.low and (again.fnmr_at_targets.low == expected.fnmr_at_targets.low).all()
    )


def test_groups_and_people_are_those_of_the_list(both):
    some, listed = both(MANY_OF_ONE, 4)
    images = pd.DataFrame({"path": listed.paths, "identity": listed.identities})
    number = images["identity"].astype(int)
    images["gender"] = np.where(number % 3 == 0, "male", "female")
    images["skin_color"] = np.where(number % 5 < 2, "dark", "fair")
    images["nail_polish"] = np.arange(len(images)) % 4 == 0  # of an image, not of a person
    for threshold in (0.2, 0.6, np.inf):
        assert str(at_threshold(some, threshold)) == str(at_threshold(listed, threshold))
    tables = [
        differentials.cross_group_fmr(pairs, images, 0.4, ("gender", "skin_color", "nail_polish"))
        for pairs in (some, listed)
    ]
    pd.testing.assert_frame_equal(*tables)
    groups = images["gender"].to_numpy(str)
    dealt = [
        differentials._dealt_garbe(pairs, pairs.between_people(0.4), of_image, ["male", "female"], 0.4, 100, 0)
        for pairs, of_image in ((some, groups[some.place]), (listed, groups))
    ]
    np.testing.assert_allclose(*dealt, rtol=1e-12)
    animals = [menagerie(pairs, 0.4).sort_values("identity", ignore_index=True) for pairs in (some, listed)]
    pd.testing.assert_frame_equal(*animals, atol=1e-6)


def test_group_figures_do_not_ask_how_pairs_are_kept(monkeypatch):
    split = a_split([2, 3, 4] * 12, 3, distractors=7)
    features, images = embedded(split), split.images.copy()
    images["gender"] = np.where(images["identity"].str[-1].isin(list("0123")), "male", "female")
    expected = group_figures(features, split, images, 0.5, ["gender"])[0]
    monkeypatch.setattr(error_rates, "LISTED", 0)
    pd.testing.assert_frame_equal(group_figures(features, split, images, 0.5, ["gender"])[0], expected)


def test_across_two_groups_a_pair_counts_whichever_image_is_the_query(both):
    _, listed = both([3] * 12, 2)
    labels = np.where(np.arange(len(listed.paths)) % 3 == 0, "a", "b")
    found = Tallies(listed, 0.3, {"letter": labels}).of("letter", "a", "b")
    first, second = labels[listed.impostor_images].T
    across = first != second
    assert found.n_impostor == across.sum()
    assert found.passed.sum() == 2 * (listed.impostor[across] >= 0.3).sum()
    assert len(found.rejected) == 0


def test_mated_pairs_that_the_memory_cannot_hold_are_refused(monkeypatch):
    split = a_split([3] * 12, 2)
    monkeypatch.setattr(features_module, "free_memory", lambda: 2**10)
    with pytest.raises(EvaluationError, match=r"the pairs of 36 images needs .* free; verify fewer people"):
        compared_pairs(embedded(split), split)
