"""FPIR and FNIR against the formula as a double loop over draws, probes and gallery."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from handclip_lib.data.manifest import Split
from handclip_lib.data.splits import make_split
from handclip_lib.data.table import HandTable
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.bootstrap import resampled
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.verification.open_set import n_held_out, open_set, open_set_models, open_set_table

pytestmark = pytest.mark.filterwarnings("ignore::handclip_lib.evaluation.ranking.retrieval.TiedScoresWarning")
SIZES = (1, 2, 3, 5, 9, 4, 2, 6, 3, 1, 8, 4, 3, 7, 2, 5)


def a_split(sizes=SIZES) -> Split:
    rows = [
        {"path": f"{i}_{n}.jpg", "identity": str(i), "aspect": "dorsal_r"}
        for i, size in enumerate(sizes)
        for n in range(size)
    ]
    return make_split(HandTable.build("folder", Path("/photographs"), rows, {}), "dorsal_r", draws=4)


def features_of(split: Split, seed=0) -> Features:
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
    features = features_of(split, seed)
    result = open_set(features, split, rank=rank, seed=seed, targets=(0.05, 0.1, 0.5), bootstrap=20)
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


def by_hand() -> tuple[Split, Features]:
    """Four people with one query each; the gallery image of each has its own axis."""
    rows = [(f"{p}{n}", p, "0" if n == 0 else "") for p in "abcd" for n in (0, 1)]
    frame = pd.DataFrame(rows, columns=["path", "identity", "gallery_in"]).assign(aspect="", capture=pd.NA, role="test")
    split = Split.build({"dataset": "folder", "draws": 1, "unqueryable": [], "seed": 0}, frame)
    queries = {
        "a": [0.9, 0.1, 0.2, 0.3],
        "b": [0.6, 0.5, 0.1, 0.2],
        "c": [0.1, 0.4, 0.35, 0.2],
        "d": [0.2, 0.1, 0.3, 0.8],
    }
    rest = [np.sqrt(1 - np.dot(v, v)) for v in queries.values()]
    vectors = [row for i, (_, v) in enumerate(queries.items()) for row in ([*np.eye(5)[i]], [*v, rest[i]])]
    return split, Features.normalised(frame["path"], np.array(vectors))


@pytest.mark.parametrize("seed", range(6))
def test_by_hand(seed):
    split, features = by_hand()
    result = open_set(features, split, seed=seed, targets=(0.5, 0.4), bootstrap=10)
    out = "".join(result.held_out)
    # scores of each query with galleries a b c d: a 0.9 0.1 0.2 0.3 · b 0.6 0.5 0.1 0.2 · c 0.1 0.4 0.35 0.2 ·
    # d 0.2 0.1 0.3 0.8; two of the four are held out
    expected = {
        # held out: best scores of the two non-mated; mated: what each found (x: another is ahead)
        "ab": ([0.3, 0.2], ["c 0.35", "d 0.8"]),
        "ac": ([0.3, 0.4], ["b 0.5", "d 0.8"]),
        "ad": ([0.2, 0.3], ["b 0.5", "c x"]),  # c finds b with 0.4
        "bc": ([0.6, 0.2], ["a 0.9", "d 0.8"]),
        "bd": ([0.6, 0.3], ["a 0.9", "c 0.35"]),
        "cd": ([0.4, 0.2], ["a 0.9", "b x"]),  # b finds a with 0.6
    }
    non_mated, mated = expected[out]
    scores = [np.inf if text.endswith("x") else float(text.split()[1]) for text in mated]
    for threshold in (0.1, 0.25, 0.45, 0.55, 0.7, 0.85):
        place = np.searchsorted(result.curve.thresholds, threshold)  # the rates change at scores only
        assert result.curve.false_positive[place] == np.mean([best >= threshold for best in non_mated])
        assert result.curve.false_negative[place] == np.mean([score == np.inf or score < threshold for score in scores])
    # at most half of the non-mated: the threshold lies above the lower of the two; at most 0.4: above both
    for point, floor in zip(result.points, (min(non_mated), max(non_mated)), strict=True):
        assert point.threshold > floor
        assert point.false_negative == np.mean([score == np.inf or score <= floor for score in scores])


def test_the_same_people_are_held_out_in_every_draw_and_for_every_model():
    split = a_split()
    results = open_set_models({"a": features_of(split), "b": features_of(split, 1)}, split, share=0.4, bootstrap=20)
    queryable = split.identities("test") - set(split.meta["unqueryable"])
    assert results[0].held_out == results[1].held_out
    assert len(results[0].held_out) == round(0.4 * len(queryable)) == results[0].n_non_mated_identities
    assert set(results[0].held_out) < queryable
    assert results[0].n_mated_identities == len(queryable) - len(results[0].held_out)
    assert results[0].n_gallery == len(split.identities("test")) - len(results[0].held_out)
    others = {open_set(features_of(split), split, share=0.4, seed=seed, bootstrap=2).held_out for seed in range(8)}
    assert len(others) > 2
    assert open_set_table(results)["model"].tolist() == ["a", "a", "b", "b"]


def test_few_people_held_out_support_no_small_fpir():
    split = a_split((4,) * 90)
    result = open_set(features_of(split), split, share=0.8, bootstrap=20)
    # 45 people are tested and 36 of them held out: 3 / 36 = 0.083
    assert len(result.held_out) == 36
    assert result.lowest_supported_fpir == pytest.approx(3 / 36)
    assert [(row["target"], row["supported"]) for row in result.at_targets()] == [(0.1, True), (0.01, False)]


def test_the_interval_resamples_mated_and_non_mated_people_apart():
    split = a_split()
    features = features_of(split)
    result = open_set(features, split, targets=(0.2, 0.5), bootstrap=60, seed=2)
    mated, non_mated = slow_probes(features, split, result.held_out, 1)
    names = [sorted({who for who, _ in probes}) for probes in (mated, non_mated)]
    slow = []
    often = (np.concatenate(list(resampled(len(people), 60, seed))) for people, seed in zip(names, (2, 3), strict=True))
    for with_mate, without in zip(*often, strict=True):
        often = dict(zip(names[0] + names[1], [*with_mate.astype(int), *without.astype(int)], strict=True))
        drawn = [[probe for probe in probes for _ in range(often[probe[0]])] for probes in (mated, non_mated)]
        rates = [slow_rates(*drawn, t) for t in result.curve.thresholds]
        slow.append([min(fnir for fpir, fnir in rates if fpir <= target) for target in (0.2, 0.5)])
    low, high = np.quantile(slow, [0.025, 0.975], axis=0)
    np.testing.assert_allclose(result.fnir_at_targets.low, low, atol=1e-12)
    np.testing.assert_allclose(result.fnir_at_targets.high, high, atol=1e-12)
    assert (low < high).any()


def test_a_probe_whose_gallery_image_is_absent_is_non_mated():
    split, features = by_hand()
    images = split.images.copy()
    images.loc[images["path"] == "a0", "role"] = "other"  # nobody enrolled a
    result = open_set(features, Split.build(split.meta, images), seed=0, bootstrap=5)
    assert result.n_non_mated_identities == len({*result.held_out, "a"})
    assert len(result.curve.non_mated_order) == len({*result.held_out, "a"})


def test_a_share_of_few_people_holds_out_nobody():
    split = a_split()
    result = open_set(features_of(split), split, share=0.5, bootstrap=10)
    assert n_held_out(split, 0.5) == len(result.held_out) >= 2
    assert [n_held_out(split, share) for share in (0.0, 0.01, 0.99, 1.0, float("nan"))] == [0] * 5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"share": 0.0}, "share=0.0 .* two must be held out"),
        ({"share": 1.0}, "share=1.0 .* two must be held out"),
        ({"share": 0.95}, "at least two must be held out and two stay"),
        ({"rank": 0}, "rank=0"),
        ({"targets": (10,)}, "FPIR of 10"),
    ],
)
def test_what_cannot_be_measured_is_refused(options, words):
    split = a_split()
    with pytest.raises(EvaluationError, match=words):
        open_set(features_of(split), split, **options)
