"""Several enrolled images, and two aspects fused and crossed, against loops over queries and people."""

import re
from pathlib import Path

import numpy as np
import pytest

from handclip_lib.data.manifest import Split
from handclip_lib.data.splits import keyed, make_split
from handclip_lib.data.table import HandTable
from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.intervals import identity_interval
from handclip_lib.evaluation.ranking.protocol import evaluate_split
from handclip_lib.evaluation.ranking.reranking import alpha_query_expansion, rerank_similarity
from handclip_lib.evaluation.ranking.retrieval import retrieval_metrics
from handclip_lib.evaluation.studies.fusion import (
    RULES,
    across_aspects,
    cross_aspect,
    enrol_several,
    enrolled_paths,
    fuse_aspects,
    refined,
)

SIZES = (3, 2, 3, 5, 6, 4, 2, 6, 3, 1, 5, 4, 3, 5, 2, 5, 1, 4, 6, 3, 2, 4, 5, 3)


@pytest.fixture(scope="module")
def split() -> Split:
    rows = [
        {"path": f"{i}/{n}.jpg", "identity": str(i), "aspect": "dorsal_r"}
        for i, size in enumerate(SIZES)
        for n in range(size)
    ]
    return make_split(HandTable.build("folder", Path("/photographs"), rows, {}), "dorsal_r", draws=3)


def features_of(split: Split, seed=0) -> Features:
    rng = np.random.default_rng(seed)
    centre = {identity: rng.normal(size=5) for identity in sorted(set(split.images["identity"]))}
    noise = rng.normal(size=(len(split.images), 5)) * 0.8
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
    table = enrol_several(features, split, (1, 2, 3))
    assert table["name"].tolist() == ["1 image", *(f"{k} images, {rule}" for k in (2, 3) for rule in RULES)]
    for row in table.itertuples():
        size, rule = int(row.name[0]), row.name.partition(", ")[2] or "max"
        slow = slow_ranks(features, split, size, 3, rule)
        ranks = np.array([rank for _, rank in slow])
        assert row.rank1 == pytest.approx((ranks == 1).mean())
        assert row.map == pytest.approx((1 / ranks).mean())
        interval = identity_interval((ranks == 1).astype(float), np.array([who for who, _ in slow]))
        assert (row.rank1_low, row.rank1_high) == pytest.approx((interval.low, interval.high))
    assert table["n_query"].nunique() == 1  # the same queries for every row, so that rows compare
    sizes = split.images[split.images["role"] == "test"].groupby("identity").size()
    # one image of each is left for a query, so k images take k + 1
    assert table["n_short"].tolist() == [0, *[int((sizes < 3).sum())] * 3, *[int((sizes < 4).sum())] * 3]


def test_one_image_is_the_protocol(split):
    features = features_of(split)
    table = enrol_several(features, split, (1,))
    assert table["rank1"].item() == pytest.approx(evaluate_split(features, split).rank1.estimate)


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
    plain, harder = (enrol_several(features, s, (1, 2)) for s in (split, with_distractors))
    assert (plain["n_query"] == harder["n_query"]).all()
    assert (harder["n_gallery"] - plain["n_gallery"] == images.loc[train, "identity"].nunique()).all()
    assert (harder["rank1"] < plain["rank1"]).any()


@pytest.mark.parametrize("sizes", [(0, 2), ()])
def test_sizes_that_enrol_nobody_are_refused(split, sizes):
    with pytest.raises(EvaluationError, match=re.escape(f"sizes={sizes}: one image enrolled, or more")):
        enrol_several(features_of(split), split, sizes)


@pytest.mark.parametrize("people", [8, 40])
def test_each_way_stands_beside_the_plain_figure(people, tmp_path):
    rows = [{"path": f"{i}/{n}.jpg", "identity": str(i), "aspect": "dorsal_r"} for i in range(people) for n in range(4)]
    split = make_split(HandTable.build("folder", tmp_path, rows, {}), "dorsal_r", draws=3)
    rng = np.random.default_rng(0)
    centres = {identity: rng.normal(size=8) for identity in split.images["identity"]}
    noise = rng.normal(size=(len(split.images), 8))
    features = Features.normalised(split.images["path"], [centres[i] for i in split.images["identity"]] + noise)
    found = refined(features, split)
    plain = evaluate_split(features, split)
    assert found["rank1"][0] == plain.rank1.estimate
    assert found["name"].str.split(" ").str[0].tolist() == ["plain", "k-reciprocal", "αQE"]
    precision: tuple[list, list] = ([], [])
    for draw in split.draws():
        query, gallery = features.of(draw.query_paths), features.of(draw.gallery_paths)
        k1 = min(20, len(query) + len(gallery) - 1)
        ways = rerank_similarity(query, gallery, k1, 6), alpha_query_expansion(query, gallery, 3) @ gallery.T
        for kept, way in zip(precision, ways, strict=True):
            kept += retrieval_metrics(way, draw.query_ids, draw.gallery_ids).average_precision.tolist()
    assert found["map"][1:].tolist() == pytest.approx([np.mean(kept) for kept in precision])


ASPECT_SIZES = {
    "dorsal_r": (3, 2, 3, 5, 4, 2, 6, 3, 1, 5, 4, 0, 5, 4),
    "palmar_r": (2, 2, 4, 3, 6, 2, 3, 0, 4, 4, 3, 5, 4, 3),
}


def a_table(first_identity=0, aspects=("dorsal_r", "palmar_r"), dataset="folder") -> HandTable:
    rows = [
        {"path": f"{aspect}_{i + first_identity}_{n}.jpg", "identity": str(i + first_identity), "aspect": aspect}
        for aspect, sizes in zip(aspects, ASPECT_SIZES.values(), strict=False)
        for i, size in enumerate(sizes)
        for n in range(size)
    ]
    return HandTable.build(dataset, Path("/photographs"), rows, {})


def galleries(split: Split, trial: int, aspect: str) -> dict[str, str]:
    chosen = split.images["gallery_in"].map(lambda text: str(trial) in text.split())
    rows = split.images[chosen & (split.images["aspect"] == aspect)]
    return dict(zip(rows["identity"], rows["path"], strict=True))


def queries(split: Split, trial: int, aspect: str) -> list[tuple[str, str]]:
    rows = split.images[(split.images["aspect"] == aspect) & split.images["role"].isin(["test", "other"])]
    taken = set(galleries(split, trial, aspect).values())
    return [(p, i) for p, i in zip(rows["path"], rows["identity"], strict=True) if p not in taken]


@pytest.fixture(scope="module")
def both() -> Split:
    return make_split(a_table(), "dorsal_r", seed=2, draws=3)


def test_cross_aspect_equals_a_loop(both):
    split = both
    features = features_of(split)
    vector = dict(zip(features.paths, features.embeddings.astype(float), strict=True))
    result = cross_aspect(features, split, "palmar_r", "dorsal_r")
    found, unmatched = [], 0
    for trial in range(3):
        gallery = galleries(split, trial, "dorsal_r")
        for path, who in queries(split, trial, "palmar_r"):
            score = {i: vector[path] @ vector[p] for i, p in gallery.items()}
            if who in score:
                found.append(1 + sum(s >= score[who] for i, s in score.items() if i != who))
            unmatched += who not in score
    ranks = np.array(found)
    figures = result["rank1"], result["map"], result["n_query"], result["n_unmatched"]
    assert figures == pytest.approx(((ranks == 1).mean(), (1 / ranks).mean(), len(ranks) / 3, unmatched / 3))
    assert result["name"] == "palmar_r in dorsal_r"


def test_one_aspect_in_its_own_gallery_is_the_protocol(both):
    split = both
    features = features_of(split)
    own = cross_aspect(features, split, "dorsal_r", "dorsal_r")
    assert own["rank1"] == pytest.approx(evaluate_split(features, split).rank1.estimate)


def test_flipped_queries_meet_a_gallery_as_it_is():
    split = make_split(a_table(aspects=("dorsal_r", "dorsal_l")), "dorsal_r", seed=2, draws=3)
    flipped = features_of(split)
    # unflipped left hands look like nobody; flipped ones like the right hand
    strange = np.random.default_rng(9).normal(size=flipped.embeddings.shape)
    is_left = np.array([path.startswith("dorsal_l") for path in flipped.paths])
    as_they_are = Features.normalised(flipped.paths, np.where(is_left[:, None], strange, flipped.embeddings))
    plain = cross_aspect(as_they_are, split, "dorsal_l", "dorsal_r")
    mirrored = cross_aspect(as_they_are, split, "dorsal_l", "dorsal_r", flipped=flipped)
    expected = cross_aspect(flipped, split, "dorsal_l", "dorsal_r")
    assert mirrored["name"] == "dorsal_l flipped in dorsal_r"
    assert mirrored["rank1"] == expected["rank1"] > plain["rank1"] + 0.2


def test_fusion_of_two_aspects_equals_a_loop(both):
    split = both
    features = features_of(split)
    vector = dict(zip(features.paths, features.embeddings.astype(float), strict=True))
    results = fuse_aspects(features, split, ("dorsal_r", "palmar_r"))
    assert [row["name"] for row in results] == [
        "dorsal_r of dorsal_r + palmar_r", "palmar_r of dorsal_r + palmar_r", "dorsal_r + palmar_r, mean",
    ]  # fmt: skip
    ranks = []
    for trial in range(3):
        back, palm = galleries(split, trial, "dorsal_r"), galleries(split, trial, "palmar_r")
        both = set(back) & set(palm)
        for who in both:
            sides = [
                sorted(
                    (p for p, i in queries(split, trial, aspect) if i == who),
                    key=lambda p: keyed(split.meta["seed"], f"pair {trial}|{who}", p),
                )
                for aspect in ASPECT_SIZES
            ]
            for a, b in zip(*sides, strict=False):
                score = {i: (vector[a] @ vector[back[i]] + vector[b] @ vector[palm[i]]) / 2 for i in both}
                ranks.append(1 + sum(s >= score[who] for i, s in score.items() if i != who))
    assert results[2]["rank1"] == pytest.approx(np.mean(np.array(ranks) == 1))
    assert results[2]["map"] == pytest.approx(np.mean(1 / np.array(ranks)))
    assert [(row["n_query"], row["n_gallery"]) for row in results] == [(pytest.approx(len(ranks) / 3), len(both))] * 3


def test_the_published_cutoffs_leak_between_aspects_and_are_refused():
    # cut-offs: dorsal_r 1050, dorsal_l 1037; identities 1040 … 1053: 1040 … 1050 train dorsal_r and test dorsal_l
    split = make_split(a_table(1040, ("dorsal_r", "dorsal_l")), "dorsal_r", "standard", draws=2)
    features = features_of(split)
    words = r"10 people tested on dorsal_l trained in the split of dorsal_r \(1040.*…\).*'proportional'"
    with pytest.raises(EvaluationError, match=words):
        cross_aspect(features, split, "dorsal_r", "dorsal_l")
    with pytest.raises(EvaluationError, match="people tested on dorsal_l trained"):
        fuse_aspects(features, split, ("dorsal_r", "dorsal_l"))
    # palms: cut-off 1051, so that nobody tested on palms trained on backs; the other way round 1051 leaks
    palms = make_split(a_table(1040, ("dorsal_r", "palmar_r")), "dorsal_r", "standard", draws=2)
    assert cross_aspect(features_of(palms), palms, "dorsal_r", "palmar_r")["n_query"] > 0


def test_what_cannot_be_combined_is_refused(both):
    split = both
    features = features_of(split)
    with pytest.raises(EvaluationError, match="unknown aspect 'palm'"):
        cross_aspect(features, split, "palm", "dorsal_r")
    with pytest.raises(EvaluationError, match="tests no image of palmar_l"):
        cross_aspect(features, split, "dorsal_r", "palmar_l")
    rows = [
        {"path": f"{aspect}_{i}_{n}.jpg", "identity": f"{aspect}{i}", "aspect": aspect}
        for aspect in ("dorsal_r", "palmar_r")
        for i in range(6)
        for n in range(3)
    ]
    strangers = make_split(HandTable.build("folder", Path("/x"), rows, {}), "dorsal_r", draws=2)
    with pytest.raises(EvaluationError, match="0 test identities have images of both dorsal_r and palmar_r"):
        fuse_aspects(features_of(strangers), strangers, ("dorsal_r", "palmar_r"))


def test_all_aspects_are_fused_and_crossed_and_the_other_hand_is_mirrored_too():
    split = make_split(a_table(aspects=("dorsal_r", "dorsal_l")), "dorsal_r", seed=2, draws=3)
    features, flipped = features_of(split), features_of(split, seed=1)
    table, refused = across_aspects(features, split, flipped)
    assert refused == {}
    assert table["name"].tolist() == [
        "dorsal_r of dorsal_r + dorsal_l", "dorsal_l of dorsal_r + dorsal_l", "dorsal_r + dorsal_l, mean",
        "dorsal_r in dorsal_l", "dorsal_r flipped in dorsal_l",
    ]  # fmt: skip
    alone = cross_aspect(features, split, "dorsal_r", "dorsal_l", flipped=flipped)
    assert table["map"].iloc[-1] == alone["map"]
    palm = make_split(a_table(), "dorsal_r", seed=2, draws=3)
    others, _ = across_aspects(features_of(palm), palm, features_of(palm))
    assert "dorsal_r flipped in palmar_r" not in others["name"].tolist()


def test_a_split_of_one_aspect_says_that_it_tests_no_other():
    split = make_split(a_table(aspects=("dorsal_r",)), "dorsal_r", draws=2)
    table, refused = across_aspects(features_of(split), split)
    assert (len(table), refused) == (0, {"other aspects": "this split tests none"})
    assert "rank1" in table, "its CSV has a first line, which readers of tables want"
