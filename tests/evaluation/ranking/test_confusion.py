"""Who is taken for whom, against a plain loop over draws, queries and gallery; and people on a map."""

from collections import defaultdict

import numpy as np
import pandas as pd
import pytest

from handclip_lib.data.manifest import Split
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.ranking.confusion import COLUMNS, confusion, embedding_map, most_confused_pairs
from handclip_lib.evaluation.ranking.protocol import evaluate_split


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


def slow_pairs(features: Features, split: Split, gallery: str) -> dict[tuple[str, str], tuple]:
    """Queries, photographs, share and mean margin of each pair, by plain loops."""
    vector = dict(zip(features.paths, features.embeddings.astype(np.float64), strict=True))
    margins, photographs, asked = defaultdict(list), defaultdict(set), defaultdict(int)
    for trial in range(split.meta["draws"]):
        held = []
        for row in split.images.itertuples():
            if row.role == "test" and str(trial) in row.gallery_in.split():
                held.append((row.path, row.identity))
            if row.role == "other" and gallery == "all" and str(trial) in row.gallery_in.split():
                held.append((row.path, f"{row.aspect}/{row.identity}"))
        for row in split.images.itertuples():
            if row.role != "test" or str(trial) in row.gallery_in.split():
                continue
            asked[row.identity] += 1
            own, wrong, owner = -2.0, -2.0, ""
            for path, identity in held:
                score = vector[row.path] @ vector[path]
                if identity == row.identity:
                    own = max(own, score)
                elif score > wrong:
                    wrong, owner = score, identity
            if wrong >= own:
                pair = (row.identity, owner)
                margins[pair].append(own - wrong)
                photographs[pair].add(row.path)
    return {
        pair: (len(found), len(photographs[pair]), len(found) / asked[pair[0]], float(np.mean(found)))
        for pair, found in margins.items()
    }


@pytest.mark.parametrize("gallery", ["aspect", "all"])
def test_pairs_are_those_of_a_plain_loop(saved_runs, gallery):
    split = saved_runs.small_split()
    features = saved_runs.features_of(split, noise=1.5)
    result = evaluate_split(features, split, gallery)
    found = most_confused_pairs(result, split, 1000)
    slow = slow_pairs(features, split, gallery)
    assert len(found) == len(slow) > 8
    for row in found.itertuples():
        queries, photographs, share, margin = slow[row.identity, row.mistaken_for]
        assert (row.queries, row.photographs) == (queries, photographs)
        assert (row.share, row.margin) == pytest.approx((share, margin), abs=1e-6)
    assert found["queries"].sum() == (result.per_query["hit"] == 0).sum()
    order = list(zip(-found["queries"], found["margin"], strict=True))
    assert order == sorted(order)
    assert (found["photographs"] < found["queries"]).any()
    few = most_confused_pairs(result, split, 3)
    pd.testing.assert_frame_equal(few, found.head(3))


def worked() -> tuple[Features, Split]:
    """One draw: 2 has two queries, 10 three; one of 2's and two of 10's look like the other's."""
    rows = [("2a", "2", "0"), ("2b", "2", ""), ("2c", "2", ""), ("10a", "10", "0")]
    rows += [("10b", "10", ""), ("10c", "10", ""), ("10d", "10", "")]
    frame = pd.DataFrame(rows, columns=["path", "identity", "gallery_in"])
    split = Split.build(
        {"dataset": "folder", "draws": 1, "unqueryable": []}, frame.assign(aspect="", capture=pd.NA, role="test")
    )
    angle = {"2a": 0, "2b": 10, "2c": 60, "10a": 90, "10b": 30, "10c": 40, "10d": 80}
    degrees = np.radians([angle[path] for path in frame["path"]])
    return Features.normalised(frame["path"], np.stack([np.cos(degrees), np.sin(degrees)], 1)), split


def test_a_worked_case():
    features, split = worked()
    result = evaluate_split(features, split)
    # 2c is a miss by cos 30 - cos 60; 10b, at 30 degrees, by the same, and 10c by cos 40 - sin 40; 10d and 2b hit.
    lost, less = np.sqrt(3) / 2 - 0.5, np.cos(np.radians(40)) - np.sin(np.radians(40))
    expected = [["10", "2", 2, 2, 2 / 3, -(lost + less) / 2], ["2", "10", 1, 1, 1 / 2, -lost]]
    for row, wanted in zip(most_confused_pairs(result, split).to_numpy().tolist(), expected, strict=True):
        assert row[:4] == wanted[:4] and row[4:] == pytest.approx(wanted[4:], abs=1e-6)


def test_a_model_without_mistakes_has_no_pairs(saved_runs):
    split = saved_runs.small_split()
    result = evaluate_split(saved_runs.features_of(split, noise=0.01), split)
    found = most_confused_pairs(result, split)
    assert found.empty and tuple(found.columns) == COLUMNS


def test_another_split_and_no_pairs_are_refused(saved_runs):
    split = saved_runs.small_split()
    result = evaluate_split(saved_runs.features_of(split, 1.0), split)
    with pytest.raises(EvaluationError, match="n=0: at least one pair"):
        most_confused_pairs(result, split, 0)
    _, other = worked()
    with pytest.raises(EvaluationError, match=r"dorsal_r_\d+_\d+\.jpg is in no gallery of this split"):
        most_confused_pairs(result, other)


def test_people_whose_embeddings_are_apart_are_apart_on_the_map(saved_runs):
    split = saved_runs.small_split()
    frame = embedding_map(saved_runs.features_of(split, 0.05), split)
    test = split.images[split.images["role"] == "test"]
    assert sorted(frame["path"]) == sorted(test["path"])
    assert dict(zip(frame["path"], frame["identity"], strict=True)) == dict(
        zip(test["path"], test["identity"], strict=True)
    )
    points, people = frame[["x", "y"]].to_numpy(), frame["identity"].to_numpy()
    distance = np.linalg.norm(points[:, None] - points[None], axis=2) + np.diag(np.full(len(points), np.inf))
    assert np.mean(people[distance.argmin(axis=1)] == people) > 0.9


def test_the_seed_decides_and_people_with_the_most_images_come_first(saved_runs):
    split = saved_runs.small_split()
    features = saved_runs.features_of(split, 0.5)
    first, again = embedding_map(features, split, seed=3), embedding_map(features, split, seed=3)
    np.testing.assert_array_equal(first[["x", "y"]], again[["x", "y"]])
    assert first.groupby("identity", sort=False).size().is_monotonic_decreasing


def test_whole_people_up_to_the_limit(saved_runs):
    split = saved_runs.small_split()
    frame = embedding_map(saved_runs.features_of(split, 0.5), split, most=12)
    sizes = split.images[split.images["role"] == "test"].groupby("identity").size()
    assert len(frame) <= 12
    assert all(count == sizes[identity] for identity, count in frame.groupby("identity").size().items())


def test_too_few_images_are_refused(saved_runs):
    split = saved_runs.small_split()
    few = split.images["role"].eq("test") & (split.images.groupby("role").cumcount() >= 4)
    small = split.build(split.meta, split.images[~few])
    with pytest.raises(EvaluationError, match="4 test images: a map needs at least 5"):
        embedding_map(saved_runs.features_of(split, 0.5), small)
