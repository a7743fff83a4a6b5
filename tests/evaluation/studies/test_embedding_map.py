import numpy as np
import pytest

from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.studies.embedding_map import embedding_map


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
