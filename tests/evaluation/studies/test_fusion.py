"""Several enrolled images against loops over queries, identities and their images."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from handclip_lib.data.manifest import Split
from handclip_lib.data.splits import make_split
from handclip_lib.data.table import HandTable
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.bootstrap import identity_bootstrap
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.ranking.protocol import evaluate_split
from handclip_lib.evaluation.ranking.reranking import alpha_query_expansion, rerank_similarity
from handclip_lib.evaluation.ranking.retrieval import retrieval_metrics
from handclip_lib.evaluation.studies.fusion import RULES, enrol_several, enrolled_paths, fusion_table, refined

SIZES = (3, 2, 3, 5, 6, 4, 2, 6, 3, 1, 5, 4, 3, 5, 2, 5, 1, 4, 6, 3, 2, 4, 5, 3)


@pytest.fixture(scope="module")
def split() -> Split:
    rows = [
        {"path": f"{i}/{n}.jpg", "identity": str(i), "aspect": "dorsal_r"}
        for i, size in enumerate(SIZES)
        for n in range(size)
    ]
    return make_split(HandTable.build("folder", Path("/photographs"), rows, {}), "dorsal_r", draws=3)


def features_of(split: Split) -> Features:
    rng = np.random.default_rng(0)
    centre = {identity: rng.normal(size=4) for identity in sorted(set(split.images["identity"]))}
    noise = rng.normal(size=(len(split.images), 4))
    return Features.normalised(split.images["path"], [centre[i] for i in split.images["identity"]] + noise)


def slow_ranks(features: Features, split: Split, size: int, most: int, rule: str) -> list[tuple[str, int]]:
    """Identity and rank of each query of each draw."""
    vector = dict(zip(features.paths, features.embeddings.astype(float), strict=True))
    rows = split.images[split.images["role"] == "test"]
    found = []
    for trial in range(split.meta["draws"]):
        enrolled = enrolled_paths(rows, trial, split.meta["seed"], most)
        taken = {path for paths in enrolled.values() for path in paths}
        for path, who in zip(rows["path"], rows["identity"], strict=True):
            if path in taken:
                continue
            score = {}
            for identity, paths in enrolled.items():
                each = [float(vector[path] @ vector[p]) for p in paths[:size]]
                mean = np.mean([vector[p] for p in paths[:size]], axis=0)
                score[identity] = {
                    "max": max(each), "mean": sum(each) / len(each),
                    "feature mean": float(vector[path] @ mean / np.linalg.norm(mean)),
                }[rule]  # fmt: skip
            found.append((who, 1 + sum(s >= score[who] for i, s in score.items() if i != who)))
    return found


def test_every_rule_and_size_equals_a_loop(split):
    features = features_of(split)
    results = enrol_several(features, split, (1, 2, 3), bootstrap=30, seed=4)
    assert [r.name for r in results] == ["1 image", *(f"{k} images, {rule}" for k in (2, 3) for rule in RULES)]
    for result in results:
        size, rule = int(result.name[0]), result.name.partition(", ")[2] or "max"
        slow = slow_ranks(features, split, size, 3, rule)
        ranks = np.array([rank for _, rank in slow])
        assert np.concatenate([draw.first_match_rank for draw in result.draws]).tolist() == ranks.tolist()
        assert result.rank1.estimate == pytest.approx((ranks == 1).mean())
        assert result.map.estimate == pytest.approx((1 / ranks).mean())
        interval = identity_bootstrap((ranks == 1).astype(float), np.array([who for who, _ in slow]), 30, 4)
        assert (result.rank1.low, result.rank1.high) == pytest.approx((interval.low, interval.high))
    table = fusion_table(results)
    assert table["n_query"].nunique() == 1  # the same queries for every row, so that rows compare
    sizes = split.images[split.images["role"] == "test"].groupby("identity").size()
    # one image of each is left for a query, so k images take k + 1
    assert table["n_short"].tolist() == [0, *[int((sizes < 3).sum())] * 3, *[int((sizes < 4).sum())] * 3]


def test_one_image_is_the_protocol(split):
    features = features_of(split)
    (result,) = enrol_several(features, split, (1,), bootstrap=30)
    assert result.rank1.estimate == pytest.approx(evaluate_split(features, split, bootstrap=30).rank1.estimate)


def test_enrolment_is_nested_keyed_and_leaves_a_query(split):
    rows = split.images[split.images["role"] == "test"]
    for trial in range(3):
        draw = split.draw(trial)
        first = dict(zip(draw.gallery_ids, draw.gallery_paths, strict=True))
        sizes = rows.groupby("identity").size()
        small, large = (enrolled_paths(rows, trial, 0, most) for most in (2, 4))
        for identity, paths in large.items():
            assert paths[0] == first[identity]
            assert paths[:2] == small[identity]
            assert len(paths) == max(1, min(4, sizes[identity] - 1)) == len(set(paths))
        assert enrolled_paths(rows.iloc[::-1], trial, 0, 4) == large  # the order of the rows does not matter
    assert enrolled_paths(rows, 0, 1, 4) != enrolled_paths(rows, 0, 0, 4)


def test_distractors_are_enrolled_alike_and_never_ask(split):
    images = split.images.copy()
    train = images["role"].isin(["train", "val"])
    images.loc[train, "role"] = "distractor"
    with_distractors = Split.build(split.meta, images)
    features = features_of(split)
    plain, harder = (fusion_table(enrol_several(features, s, (1, 2), bootstrap=5)) for s in (split, with_distractors))
    assert (plain["n_query"] == harder["n_query"]).all()
    assert (harder["n_gallery"] - plain["n_gallery"] == images.loc[train, "identity"].nunique()).all()
    assert (harder["rank1"] < plain["rank1"]).any()


def test_more_images_help_where_each_is_noisy():
    rows = [{"path": f"{i}/{n}.jpg", "identity": str(i), "aspect": "dorsal_r"} for i in range(40) for n in range(8)]
    split = make_split(HandTable.build("folder", Path("/photographs"), rows, {}), "dorsal_r", draws=3)
    table = fusion_table(enrol_several(features_of(split), split, (1, 6), bootstrap=5))
    assert table["rank1"][2:].min() > table["rank1"][0] + 0.1  # the mean of scores, and of embeddings


@pytest.mark.parametrize("sizes", [(0, 2), ()])
def test_sizes_that_enrol_nobody_are_refused(split, sizes):
    with pytest.raises(EvaluationError, match=re.escape(f"sizes={sizes}: one image enrolled, or more")):
        enrol_several(features_of(split), split, sizes)


def test_a_table_is_of_shares_and_counts(split):
    table = fusion_table(enrol_several(features_of(split), split, (2,), bootstrap=5))
    assert isinstance(table, pd.DataFrame)
    assert ((table[["rank1", "map"]] >= 0) & (table[["rank1", "map"]] <= 1)).all(axis=None)
    assert table["n_gallery"][0] == len(split.identities("test"))


@pytest.mark.parametrize("people", [8, 40])
def test_each_way_stands_beside_the_plain_figure(people, tmp_path):
    rows = [{"path": f"{i}/{n}.jpg", "identity": str(i), "aspect": "dorsal_r"} for i in range(people) for n in range(4)]
    split = make_split(HandTable.build("folder", tmp_path, rows, {}), "dorsal_r", draws=3)
    rng = np.random.default_rng(0)
    centres = {identity: rng.normal(size=8) for identity in split.images["identity"]}
    noise = rng.normal(size=(len(split.images), 8))
    features = Features.normalised(split.images["path"], [centres[i] for i in split.images["identity"]] + noise)
    found = refined(features, split, bootstrap=50)
    plain = evaluate_split(features, split, bootstrap=50)
    np.testing.assert_array_equal(found[0].rank1.estimate, plain.rank1.estimate)
    table = fusion_table(found)
    assert table["name"].str.split(" ").str[0].tolist() == ["plain", "k-reciprocal", "αQE"]
    for trial in range(3):
        draw = split.draw(trial)
        query, gallery = features.of(draw.query_paths), features.of(draw.gallery_paths)
        k1 = min(20, len(query) + len(gallery) - 1)
        ranked = retrieval_metrics(rerank_similarity(query, gallery, k1, 6), draw.query_ids, draw.gallery_ids)
        assert ranked.map == found[1].draws[trial].map
        moved = alpha_query_expansion(query, gallery, 3) @ gallery.T
        assert retrieval_metrics(moved, draw.query_ids, draw.gallery_ids).map == found[2].draws[trial].map
