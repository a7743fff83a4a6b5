"""A model under the protocol, against plain loops over queries and draws."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handclip_lib.data.manifest import Split
from handclip_lib.data.splits import make_split
from handclip_lib.data.table import HandTable
from handclip_lib.errors import DataError, EvaluationError
from handclip_lib.evaluation.features import Features
from handclip_lib.evaluation.intervals import identity_interval
from handclip_lib.evaluation.ranking import retrieval
from handclip_lib.evaluation.ranking.protocol import (
    DETAILS,
    HEADLINE,
    burst_shares,
    bursts_too,
    cautions,
    chance_of_match,
    conclusion,
    evaluate_models,
    evaluate_split,
    headline,
    in_burst,
    near_duplicates,
)
from handclip_lib.evaluation.ranking.retrieval import TiedScoresWarning
from handclip_lib.evaluation.studies.fusion import enrol_several, refined
from handclip_lib.evaluation.tables import readable, summary_table
from handclip_lib.evaluation.verification.thresholds import ATTRIBUTES, group_figures

SIZES = (1, 2, 3, 5, 9, 4, 2, 6, 3, 1, 8, 4)


def a_split(sizes=SIZES, aspects=("dorsal_r", "palmar_r"), seed=0, draws=4, captures=True) -> Split:
    rows = [
        {"path": f"{aspect}_{identity}_{n}.jpg", "identity": str(identity), "aspect": aspect}
        | {"capture": 20 * identity + n if captures else None}
        for aspect in aspects
        for identity, size in enumerate(sizes)
        for n in range(size)
    ]
    table = HandTable.build("folder", Path("/photographs"), rows, {})
    return make_split(table, aspects[0], "proportional", seed, draws)


def tied_features(split: Split, seed=0) -> Features:
    """Embeddings of halves, so that scores are exact quarters and many of them tie."""
    rng = np.random.default_rng(seed)
    images = split.images
    centre = {identity: rng.choice([-0.5, 0.5], 4) for identity in sorted(set(images["identity"]))}
    flips = np.where(rng.random((len(images), 4)) < 0.15, -1, 1)
    return Features.normalised(images["path"], np.array([centre[identity] for identity in images["identity"]]) * flips)


def slow_rows(features: Features, split: Split, gallery: str, burst: int = 0) -> pd.DataFrame:
    """One row a draw and query by plain loops; ties count against the match."""
    vector = dict(zip(features.paths, features.embeddings, strict=True))
    rows = []
    for trial in range(split.meta["draws"]):
        gallery_rows, query_rows = [], []
        for row in split.images.itertuples():
            chosen = str(trial) in row.gallery_in.split()
            if row.role == "test":
                (gallery_rows if chosen else query_rows).append((row, row.identity))
            elif row.role == "other" and chosen and gallery == "all":
                gallery_rows.append((row, f"{row.aspect}/{row.identity}"))
        for query, identity in query_rows:
            own = next(row for row, name in gallery_rows if name == identity)
            if burst and abs(own.capture - query.capture) <= burst:
                continue
            score = vector[query.path] @ vector[own.path]
            wrong = [vector[query.path] @ vector[row.path] for row, name in gallery_rows if name != identity]
            rank = 1 + sum(other >= score for other in wrong)
            rows.append({"draw": trial, "path": query.path, "identity": identity, "rank": rank})
    return pd.DataFrame(rows)


@pytest.mark.filterwarnings("ignore::handclip_lib.evaluation.ranking.retrieval.TiedScoresWarning")
@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(4, 8), min_size=4, max_size=9),  # of four images, a burst of 1 leaves a query
    st.integers(0, 100),
    st.sampled_from(["aspect", "all"]),
    st.sampled_from([0, 1]),
)
def test_every_figure_equals_a_plain_loop(sizes, seed, gallery, burst):
    split = a_split(sizes, seed=seed)
    rng = np.random.default_rng(seed)
    features = Features.normalised(split.images["path"], rng.normal(size=(len(split.images), 3)))
    slow = slow_rows(features, split, gallery, burst)
    result = evaluate_split(features, split, gallery, burst=burst)
    fast = result.per_query.merge(slow, on=["draw", "path", "identity"])
    assert len(fast) == len(slow) == len(result.per_query)
    assert fast["first_match_rank"].tolist() == fast["rank"].tolist()

    rank, figures = slow["rank"], result.summary()
    for name, expected in {
        "rank1": (rank == 1).mean(),
        **{f"rank{k}": (rank <= k).mean() if k < figures["n_gallery"] else float("nan") for k in (5, 10)},
        # with one match, average precision and inverse negative penalty are the reciprocal rank
        "map": (1 / rank).mean(),
        "minp": (1 / rank).mean(),
        "map_trapezoid": ((1 / rank + (rank == 1)) / 2).mean(),
        "rank1_macro": (rank == 1).groupby(slow["identity"]).mean().mean(),
        "map_macro": (1 / rank).groupby(slow["identity"]).mean().mean(),
        "rank1_sd": (rank == 1).groupby(slow["draw"]).mean().std(),
        "n_query": len(rank) / split.meta["draws"],
        "n_unmatched": 0,
    }.items():
        assert figures[name] == pytest.approx(expected, abs=1e-9, nan_ok=True), name
    assert result.rank1.estimate == pytest.approx(figures["rank1"], abs=1e-12)
    np.testing.assert_allclose(result.cmc.estimate, [(rank <= k + 1).mean() for k in range(len(result.cmc.estimate))])


def test_ties_count_against_the_model_in_every_draw():
    split = a_split()
    features = tied_features(split)
    slow = slow_rows(features, split, "all")
    with pytest.warns(TiedScoresWarning, match=r"tied, gallery 'all': [0-9.]+% of the best matches are tied"):
        result = evaluate_split(features, split, "all", model="tied")
    fast = result.per_query.merge(slow, on=["draw", "path"])
    assert fast["first_match_rank"].tolist() == fast["rank"].tolist()
    assert 0 < result.summary()["rank1"] < result.summary()["tied_share"] < 1


def test_a_perfect_model_has_no_spread_and_the_counts_of_the_protocol():
    split = a_split()
    codes = pd.factorize(split.images["identity"] + split.images["aspect"])[0]
    features = Features.normalised(split.images["path"], np.eye(codes.max() + 1)[codes])
    result = evaluate_split(features, split, "all", model="oracle")
    figures = result.summary()
    for name in ("rank1", "rank1_high", "rank5", "map", "map_trapezoid", "minp", "rank1_macro"):
        assert figures[name] == 1, name
    assert 0 < figures["rank1_low"] < 1 and not figures["supported"]  # of so few people another may still be missed
    test, others = split.identities("test"), split.identities("other")
    assert (figures["model"], figures["gallery"], figures["rank1_sd"]) == ("oracle", "all", 0)
    assert figures["n_gallery"] == len(test) + len(others)
    assert figures["n_query"] == len(split.paths("test")) - len(test)
    assert figures["n_unqueryable"] == len(split.meta["unqueryable"]) > 0
    assert not set(result.per_query["identity"]) & set(split.meta["unqueryable"])
    assert (result.per_query["match_score"] > result.per_query["wrong_score"]).all()


def test_the_order_of_the_features_and_images_nobody_needs_do_not_matter():
    split = a_split()
    features = Features.normalised(split.images["path"], np.random.default_rng(0).normal(size=(len(split.images), 8)))
    needed = split.evaluated_paths()[::-1]
    fewer = Features(tuple(needed), features.of(needed))
    one, two = (evaluate_split(f, split, "all").summary() for f in (features, fewer))
    assert one == two
    short = Features(tuple(needed[1:]), features.of(needed[1:]))
    with pytest.raises(EvaluationError, match=f"{needed[0]} has no embedding"):
        evaluate_split(short, split, "all")


def test_rank1_without_bursts_is_the_same_figure_both_ways():
    split = a_split((9,) * 12, draws=5)
    features = Features.normalised(split.images["path"], np.random.default_rng(2).normal(size=(len(split.images), 4)))
    table = burst_shares({"m": features}, split, (0, 1, 3, 8))
    for row in table.itertuples():
        if row.burst < 8:
            figures = evaluate_split(features, split, burst=row.burst).summary()
            assert row.rank1 == pytest.approx(figures["rank1"])
            assert row.left_out * row.n_query == pytest.approx(figures["n_left_out_burst"])
    assert table["left_out"].iloc[0] == 0
    assert table["left_out"].is_monotonic_increasing
    assert np.isnan(table["rank1"].iloc[3])  # nine captures: everything lies within eight of everything
    assert table["left_out"].iloc[3] == 1
    with pytest.raises(EvaluationError, match="every query is left out"):
        evaluate_split(features, split, burst=8)


def test_a_query_without_a_match_is_no_miss_of_the_bursts_either():
    rows = pd.DataFrame(
        [("a0", "a", 1, "0"), ("a1", "a", 2, ""), ("a2", "a", 9, ""), ("b0", "b", 20, "0"), ("b1", "b", 29, ""),
         ("c0", "c", 30, ""), ("c1", "c", 31, "")],  # c is in no gallery, as a folder's own split may have it
        columns=["path", "identity", "capture", "gallery_in"],
    )  # fmt: skip
    meta = {"dataset": "folder", "draws": 1, "aspect": "all", "protocol": "given", "unqueryable": []}
    split = Split.build(meta, rows.assign(role="test", aspect=""))
    features = Features.normalised(rows["path"], np.array([[5, 0], [5, 1], [4, 1], [0, 5], [1, 5], [3, 1], [4, 2]]))
    shares = burst_shares({"m": features}, split, (0, 1))
    # a1, a2 and b1 are found, c0 and c1 have no match; a1 is one capture from a0
    assert shares["rank1"].tolist() == [evaluate_split(features, split).rank1.estimate, 1] == [1, 1]
    assert shares["left_out"].tolist() == [0, 1 / 3]
    assert shares["n_query"].tolist() == [3, 3]


def test_a_burst_is_of_the_own_subject_only():
    split = a_split((4,) * 8)
    draw = split.draw(1, "all")
    expected = [
        any(i == j and abs(c - d) <= 1 for j, d in zip(draw.gallery_ids, draw.gallery_captures, strict=True))
        for i, c in zip(draw.query_ids, draw.query_captures, strict=True)
    ]
    assert in_burst(draw, 1).tolist() == expected
    assert 0 < sum(expected) < len(expected)


def test_a_burst_needs_capture_numbers():
    split = a_split(captures=False)
    features = tied_features(split)
    with pytest.raises(EvaluationError, match=r"burst=2: the file name of 'dorsal_r_.*\.jpg' has no capture number"):
        evaluate_split(features, split, burst=2)
    with pytest.raises(EvaluationError, match="burst=-1: a number of captures is wanted"):
        evaluate_split(features, split, burst=-1)
    assert burst_shares({"a": features, "b": features}, split)[["model", "burst"]].to_numpy().tolist() == [
        ["a", 0],
        ["b", 0],
    ]
    known = a_split()
    draw = known.draw(0, "all")
    unknown = dataclasses.replace(draw, gallery_captures=np.full_like(draw.gallery_captures, -1))
    with pytest.raises(EvaluationError, match="use burst=0"):
        in_burst(unknown, 1)
    foreign = np.array(["/" in identity for identity in draw.gallery_ids])
    others = dataclasses.replace(draw, gallery_captures=np.where(foreign, -1, draw.gallery_captures))
    assert in_burst(others, 1).tolist() == in_burst(draw, 1).tolist()


def test_the_interval_is_that_of_identities():
    split = a_split()
    features = Features.normalised(split.images["path"], np.random.default_rng(5).normal(size=(len(split.images), 3)))
    result = evaluate_split(features, split)
    expected = identity_interval(result.per_query["hit"], result.per_query["identity"])
    assert (result.rank1.low, result.rank1.high) == pytest.approx((expected.low, expected.high))
    assert result.rank1.n_identities == len(split.identities("test")) - len(split.meta["unqueryable"])
    by_query = identity_interval(result.per_query["hit"], np.arange(len(result.per_query)))
    assert (result.rank1.low, result.rank1.high) != (by_query.low, by_query.high)


@pytest.mark.filterwarnings("ignore::handclip_lib.evaluation.ranking.retrieval.TiedScoresWarning")
def test_what_a_query_found_does_not_depend_on_the_blocks(monkeypatch):
    split = a_split()
    signs = np.random.default_rng(0).choice([-1, 1], (len(split.images), 16))  # cosines that float32 holds exactly
    features = Features.normalised(split.images["path"], signs)
    whole = evaluate_split(features, split, "all", burst=1).per_query
    monkeypatch.setattr(retrieval, "PRODUCT_BYTES", 4 * 7 * len(split.draw(0, "all").gallery_paths))
    pd.testing.assert_frame_equal(evaluate_split(features, split, "all", burst=1).per_query, whole)
    assert ((whole["match_score"] > whole["wrong_score"]) == (whole["hit"] == 1)).all()


def test_an_interval_needs_two_people_with_a_query():
    frame = pd.DataFrame(
        [("a0", "a", "0"), ("a1", "a", ""), ("b0", "b", "0")], columns=["path", "identity", "gallery_in"]
    ).assign(aspect="", capture=pd.NA, role="test")
    split = Split.build({"dataset": "folder", "draws": 1, "unqueryable": ["b"]}, frame)
    features = Features.normalised(frame["path"], np.array([[1, 0], [2, 1], [0, 1]]))
    with pytest.raises(EvaluationError, match="identities with a query: 1; an interval"):
        evaluate_split(features, split)


def test_models_are_compared_on_every_gallery_the_split_has():
    split = a_split()
    rng = np.random.default_rng(0)
    models = {
        name: Features.normalised(split.images["path"], rng.normal(size=(len(split.images), 4)))
        for name in ("model", "trivial baseline: pixels", "trivial baseline: histogram")
    }
    results = evaluate_models(models, split)
    table = summary_table(results, HEADLINE)
    assert table[["model", "gallery"]].to_numpy().tolist() == [[m, g] for g in ("aspect", "all") for m in models]
    assert list(table) == list(summary_table(results, DETAILS)) == list(results[0].summary())
    assert list(readable(table))[:4] == ["model", "gallery", "Rank-1 (95 % CI), %", "Rank-1 by chance, %"]
    assert "Rank-1, SD over draws, %" in readable(summary_table(results, DETAILS))
    assert table["rank10"].isna().tolist() == [table["n_gallery"][0] <= 10] * 3 + [table["n_gallery"][3] <= 10] * 3
    of_small = readable(summary_table(results[:3], HEADLINE))
    assert ("Rank-5, %" in of_small, "Rank-10, %" in of_small, "mAP, %" in of_small) == (True, False, True)
    shares = table[["rank1", "rank5", "rank10", "map", "map_trapezoid", "minp"]].fillna(0)
    assert ((shares >= 0) & (shares <= 1)).all(axis=None)
    assert ((table["rank1_low"] <= table["rank1"]) & (table["rank1"] <= table["rank1_high"])).all()
    sizes = [len(split.draw(0, gallery).gallery_ids) for gallery in ("aspect", "all") for _ in models]
    np.testing.assert_allclose(table["rank1_chance"], [1 / size for size in sizes])  # one gallery image a person
    told = headline(results)
    assert told["best_floor_rank1"] == table["rank1"][1:3].max()
    assert told["best_baseline"] == table["model"][1 + table["rank1"][1:3].argmax()]
    assert told["rank1"] == table["rank1"][0]
    assert (told["n_identities"], told["n_people"]) == (results[0].rank1.n_identities, results[0].n_people)
    first, low, high, best = (f"{100 * told[n]:.1f}" for n in ("rank1", "rank1_low", "rank1_high", "best_floor_rank1"))
    found = f"model finds {first} % ({low}–{high}) of the queries of {told['n_identities']} people first among"
    assert conclusion(results) == (f"{found} {told['n_people']}; the better trivial baseline {best} %")
    alone = evaluate_models({"model": models["model"]}, a_split(aspects=("dorsal_r",)))
    assert [result.gallery for result in alone] == ["aspect"]
    assert "best_floor_rank1" not in headline(alone)
    assert "baseline" not in conclusion(alone)


def test_one_figure_has_one_value_and_its_queries_are_counted_alike_in_every_table():
    split = a_split((4, 6, 5, 4, 9, 4, 7, 4))
    rng = np.random.default_rng(3)
    features = Features.normalised(split.images["path"], rng.normal(size=(len(split.images), 3)))
    (result,) = [r for r in evaluate_models({"m": features}, split) if r.gallery == "aspect"]
    figures = result.summary()
    images = pd.DataFrame({"path": split.images["path"], "gender": "female"}).reindex(columns=["path", *ATTRIBUTES])
    groups, _ = group_figures(features, split, images, 0.5)
    bursts, options = burst_shares({"m": features}, split), refined(features, split)
    answered = result.per_query
    for other in (bursts.iloc[0], groups.iloc[0], options.iloc[0]):
        assert other["rank1"] == pytest.approx(figures["rank1"]) and other["n_query"] == figures["n_query"]
    compared = identity_interval(answered["hit"], answered["identity"])  # notebook 06's
    for other in (groups.iloc[0], options.iloc[0], compared.columns("rank1")):
        assert [other[f"rank1_{end}"] for end in ("low", "high")] == pytest.approx(
            [result.rank1.low, result.rank1.high]
        )
    assert bursts["n_left"].tolist() == pytest.approx((bursts["n_query"] * (1 - bursts["left_out"])).tolist())
    enrolled = enrol_several(features, split)
    assert enrolled["n_query"].nunique() == 1 and enrolled["n_query"][0] < figures["n_query"], "its caption says so"


def test_a_figure_that_leaves_bursts_out_is_told_from_those_that_do_not():
    assert bursts_too(0) == ""
    assert bursts_too(2) == "; of all queries, also those that burst=2 leaves out of rank-1 above"


def test_where_an_identity_is_a_hand_the_conclusion_speaks_of_no_people():
    whole = a_split((4,) * 8)
    hands = Split.build(whole.meta, whole.images.assign(subject=whole.images["identity"].str[-1].replace("7", "6")))
    features = Features.normalised(whole.images["path"], np.random.default_rng(0).normal(size=(len(whole.images), 3)))
    of_people, of_hands = (conclusion([evaluate_split(features, split)]) for split in (whole, hands))
    assert of_people.endswith(" people") and of_hands == of_people.removesuffix("people") + "identities"


@pytest.mark.filterwarnings("ignore::handclip_lib.evaluation.ranking.retrieval.TiedScoresWarning")
def test_what_must_be_said_with_a_figure_is_found():
    split = a_split()
    identity = split.images.groupby("identity").ngroup().to_numpy()
    knows, knows_not = np.eye(identity.max() + 1)[identity], np.ones((len(identity), 2))
    models = {
        name: Features.normalised(split.images["path"], values)
        for name, values in (("model", knows), ("trivial baseline: pixels", knows_not))
    }
    good = evaluate_models(models, split)
    few = [f"Only {good[0].rank1.n_identities} people have a query: from 10 on, their interval says something."]
    assert cautions(good, split) == few
    checks = pd.DataFrame({"check": ["people", "files", "labels"], "passed": ["not checked", "no", "yes"]})
    told = cautions(good, split, checks, "in part: loss is not finite")
    assert told[1:] == [*few, "Leak checks that failed: files.", "Leaks that were not checked: people."]
    assert "only in part (in part: loss is not finite)" in told[0]
    told = cautions(good, split, unhelped="rank-1 is 4 %, 5 % by the frozen model")
    assert told == ["Training did not help strangers: rank-1 is 4 %, 5 % by the frozen model.", *few]
    split.meta["dataset"] = "drawn"
    worse = dict(zip(("m, selected on test", "trivial baseline: pixels"), reversed(models.values()), strict=True))
    told = cautions(evaluate_models(worse, split), split)
    assert [text.split(":")[0] for text in told[:2]] == ["Synthetic", "Test images chose the epoch"]
    assert "no better than a trivial baseline" in told[2]


def test_unknown_galleries_are_refused():
    split = a_split()
    features = Features.normalised(split.images["path"], np.random.default_rng(5).normal(size=(len(split.images), 3)))
    with pytest.raises(DataError, match="unknown gallery 'everything'"):
        evaluate_split(features, split, "everything")


@pytest.mark.parametrize("threshold", [-1.0, 0.5, 0.95, 1.1])
def test_near_duplicates_are_the_pairs_a_double_loop_finds(threshold):
    split = a_split((60,) * 22, aspects=("dorsal_r",))  # 660 test images: more than one block
    features = Features.normalised(split.images["path"], np.random.default_rng(3).normal(size=(len(split.images), 6)))
    test = split.images[split.images["role"] == "test"].reset_index(drop=True)
    vectors = features.of(test["path"])
    cosine = vectors @ vectors.T
    first, second = np.triu_indices(len(test), 1)
    near, paths = cosine[first, second] >= threshold, test["path"].to_numpy()
    wanted = set(zip(paths[first[near]], paths[second[near]], strict=True))
    found = near_duplicates(features, split, threshold, most=10**6)
    assert set(zip(found["path_a"], found["path_b"], strict=True)) == wanted
    assert found["cosine"].is_monotonic_decreasing
    assert len(near_duplicates(features, split, threshold, most=7)) == min(7, len(wanted))
    facts = test.set_index("path")
    for row in found.head(50).itertuples():
        a, b = facts.loc[row.path_a], facts.loc[row.path_b]
        assert row.same_identity == (a["identity"] == b["identity"])
        assert row.capture_distance == abs(a["capture"] - b["capture"])


def test_rank1_by_chance_is_what_random_orders_reach():
    rng = np.random.default_rng(0)
    query, gallery = np.array(["a", "b", "c", "none", "zz"]), np.array(["a", "b", "b", "c", "c", "c", "d", "d"])
    firsts = np.array([rng.permutation(gallery)[0] for _ in range(20_000)])
    expected = [(firsts == who).mean() for who in query]
    np.testing.assert_allclose(chance_of_match(query, gallery), expected, atol=0.02)
    assert chance_of_match(query, gallery).tolist() == [1 / 8, 2 / 8, 3 / 8, 0, 0]
