import sys
import tracemalloc
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation import features as features_module
from handclip_lib.evaluation.ranking import cosines as cosines_module
from handclip_lib.evaluation.ranking import counting, retrieval
from handclip_lib.evaluation.ranking.cosines import TIE, cosines
from handclip_lib.evaluation.ranking.retrieval import TiedScoresWarning, rank_features, retrieval_metrics

pytestmark = pytest.mark.filterwarnings("ignore::handclip_lib.evaluation.ranking.retrieval.TiedScoresWarning")

try:
    import numba
except ImportError:
    numba = None
WAYS = [
    "numpy",
    pytest.param("compiled", marks=pytest.mark.skipif(numba is None, reason="numba is not installed (handclip[fast])")),
]
PER_QUERY = ("first_match_rank", "average_precision", "average_precision_trapezoid", "inverse_negative_penalty")


def exact_features(rng, n, size=16):
    """Embeddings of length 1 whose cosines float32 holds exactly, and of which many are equal: every entry is ±1/4."""
    return (rng.integers(0, 2, (n, size)) * 2 - 1).astype(np.float32) / np.float32(size**0.5)


@contextmanager
def counted_by(way):
    """One of the two ways of counting, whatever the size."""
    with pytest.MonkeyPatch.context() as patch:
        if way == "numpy":
            patch.setattr(counting, "kernel", lambda *_: None)
            patch.setattr(cosines_module, "compiled", lambda *_, **__: None)
        else:
            patch.setattr(counting, "COMPILED_FROM", 0)
            assert counting.kernel(np.dtype(np.float32), 0) is not None, "it compiles"
        yield


def reference(similarity, query_ids, gallery_ids, query_cameras=None, gallery_cameras=None, exclude=None):
    """A float64 stable sort of each row, other identities first among ties; None where no query has a match."""
    results, tied = [], 0
    for q, scores in enumerate(similarity.astype(np.float64)):
        match = gallery_ids == query_ids[q]
        kept = np.ones(len(match), bool) if query_cameras is None else ~(match & (gallery_cameras == query_cameras[q]))
        order = np.argsort(match[kept], kind="stable")
        order = order[np.argsort(-scores[kept][order], kind="stable")]
        places = np.flatnonzero(match[kept][order]) + 1
        if (exclude is not None and exclude[q]) or not len(places):
            results.append((0, np.nan, np.nan, np.nan))
            continue
        standard = trapezoid = 0.0
        for found, place in enumerate(places.tolist(), 1):
            before = 1.0 if place == 1 else (found - 1) / (place - 1)
            standard += found / place
            trapezoid += (found / place + before) / 2
        n = len(places)
        results.append((places[0], standard / n, trapezoid / n, n / places[-1]))
        best = scores[kept][order][places[0] - 1]
        tied += bool((scores[kept & ~match] == best).any())
    matched = sum(row[0] > 0 for row in results)
    return (np.array(results).T, tied / matched) if matched else None


def check(metrics, expected):
    for name, values in zip(PER_QUERY, expected[0], strict=True):
        np.testing.assert_array_equal(getattr(metrics, name), values, err_msg=name)
    rank = expected[0][0]
    n_unmatched = (rank == 0).sum() - metrics.n_excluded
    assert (metrics.tied_share, metrics.n_unmatched) == (expected[1], n_unmatched)
    assert [metrics.rank(k) for k in (1, 2, 5)] == [(rank[rank > 0] <= k).mean() for k in (1, 2, 5)]


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 8), st.integers(1, 30), st.integers(1, 6), st.sampled_from([4, 16])),
    st.booleans(), st.booleans(), st.integers(0, 2**31),
)  # fmt: skip
def test_equals_a_stable_sort_to_the_bit(way, sizes, with_cameras, with_exclude, seed):
    n_query, n_gallery, n_identity, size = sizes
    rng = np.random.default_rng(seed)
    query, gallery = exact_features(rng, n_query, size), exact_features(rng, n_gallery, size)
    ids = rng.integers(0, n_identity, n_query), rng.integers(0, n_identity, n_gallery)
    cameras = (rng.integers(0, 2, n_query), rng.integers(0, 2, n_gallery)) if with_cameras else (None, None)
    exclude = rng.random(n_query) < 0.3 if with_exclude else None
    labels = (*ids, *cameras, exclude)
    expected = reference(query @ gallery.T, *labels)
    with counted_by(way):
        for rank in (
            lambda: rank_features(query, gallery, *labels),
            lambda: retrieval_metrics(query @ gallery.T, *labels),
        ):
            if expected is None:
                with pytest.raises(EvaluationError, match=r"all query identities are missing|every query is left out"):
                    rank()
            else:
                check(rank(), expected)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_identity", [2, 40])  # of 2, each query has more matches than are counted one by one
def test_real_scores_and_many_matches_equal_a_stable_sort_to_the_bit(way, dtype, n_identity):
    rng = np.random.default_rng(n_identity)
    similarity = rng.normal(size=(6, 2500)).astype(dtype).round(2)
    ids = np.arange(6) % n_identity, np.arange(2500) % n_identity
    with counted_by(way):
        check(retrieval_metrics(similarity, *ids), reference(similarity, *ids))
    assert 2500 / 2 > counting.MANY_MATCHES > 2500 / 40


@pytest.mark.parametrize("way", WAYS)
def test_embeddings_equal_a_stable_sort_of_the_same_products_to_the_bit(way, monkeypatch):
    rng = np.random.default_rng(0)
    query, gallery = (rng.normal(size=(n, 24)).astype(np.float32) for n in (50, 70))
    query, gallery = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (query, gallery))
    ids = rng.integers(0, 9, 50), rng.integers(0, 9, 70)
    monkeypatch.setattr(retrieval, "PRODUCT_BYTES", 70 * 4 * 16)
    products = (query.astype(np.float64) @ gallery.T.astype(np.float64)).astype(np.float32)  # none within a tie
    with counted_by(way):
        check(rank_features(query, gallery, *ids), reference(products, *ids))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [3, 333])
@pytest.mark.parametrize("kind", ["random", "collapsed", "equal", "duplicates", "few people"])
def test_what_a_fast_product_leaves_open_is_decided_by_the_exact_cosines(way, kind, size, monkeypatch):
    rng = np.random.default_rng(size)
    people = 3 if kind == "few people" else 90
    centre = rng.normal(size=(people, size))
    ids, gallery_ids = rng.integers(0, people + 1, 60), np.append(rng.integers(0, people, 399), 0)
    query = centre[ids % people] + 1.5 * rng.normal(size=(60, size))
    gallery = centre[gallery_ids] + rng.normal(size=(400, size))
    if kind == "collapsed":
        query, gallery = 1 + 1e-5 * query, 1 + 1e-5 * gallery
    elif kind == "equal":
        query, gallery = np.ones_like(query), np.ones_like(gallery)
    elif kind == "duplicates":  # two thirds of the gallery are one of 40 photographs, and half of the queries are too
        gallery[:260] = gallery[rng.integers(360, 400, 260)]
        query[::2] = gallery[rng.integers(0, 260, 30)]
    query, gallery = (np.float32(part / np.linalg.norm(part, axis=1, keepdims=True)) for part in (query, gallery))
    exact, best = cosines(query, gallery), []

    def look(rows, scores):
        own = ids[rows, None] == gallery_ids
        best.extend(np.where(kept, scores, -np.inf) for kept in (own, ~own))

    monkeypatch.setattr(retrieval, "PRODUCT_BYTES", 400 * 4 * 60)
    with counted_by(way):
        found = rank_features(query, gallery, ids, gallery_ids, look=look)
        unseen = rank_features(query, gallery, ids, gallery_ids)
    plain = retrieval_metrics(exact, ids, gallery_ids, tie=TIE)
    for name in (*PER_QUERY, "tied_share"):
        np.testing.assert_array_equal(getattr(found, name), getattr(plain, name), err_msg=name)
        np.testing.assert_array_equal(getattr(unseen, name), getattr(plain, name), err_msg=name)
    own = ids[:, None] == gallery_ids
    for scores, kept in zip(best, (own, ~own), strict=True):
        expected = np.where(kept, exact, -np.inf)
        np.testing.assert_array_equal(scores.argmax(1), expected.argmax(1))
        np.testing.assert_array_equal(scores.max(1), expected.max(1))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rows", [1, 7, 40])
def test_blocks_of_any_size_and_threads_change_nothing(way, rows, monkeypatch):
    rng = np.random.default_rng(1)
    query, gallery = exact_features(rng, 40), exact_features(rng, 90)
    ids = rng.integers(0, 6, 40), rng.integers(0, 6, 90)
    expected = reference(query @ gallery.T, *ids)
    monkeypatch.setattr(retrieval, "PRODUCT_BYTES", 90 * 4 * rows)
    monkeypatch.setattr(counting, "NUMPY_BYTES", 90 * 4 * max(1, rows // 3))
    monkeypatch.setattr(counting, "THREADED_FROM", 0)
    with counted_by(way):
        check(rank_features(query, gallery, *ids), expected)


def test_the_inputs_are_not_changed_and_other_types_rank_alike():
    rng = np.random.default_rng(2)
    query, gallery, ids = exact_features(rng, 20), exact_features(rng, 30), (np.arange(20) % 4, np.arange(30) % 4)
    before = query.copy(), gallery.copy()
    expected = rank_features(query, gallery, *ids)
    np.testing.assert_array_equal(query, before[0])
    np.testing.assert_array_equal(gallery, before[1])
    for dtype in (np.float16, np.float64):
        found = rank_features(np.asfortranarray(query.astype(dtype)), gallery.astype(dtype), *ids)
        np.testing.assert_array_equal(found.average_precision, expected.average_precision)


def test_working_memory_stays_below_200_megabytes_even_if_all_are_matches(monkeypatch):
    product, features = retrieval.PRODUCT_BYTES, exact_features(np.random.default_rng(3), 24_000, 4)
    monkeypatch.setattr(retrieval, "PRODUCT_BYTES", product // 8)  # less to count; what it would have held is added
    n_query = 1 + product // 8 // (4 * 24_000)  # more than one block
    tracemalloc.start()
    with counted_by("numpy"):
        rank_features(features[:n_query], features, np.zeros(n_query, int), np.zeros(24_000, int))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak + product - product // 8 < 200e6


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [64, 333, 512])
def test_a_person_filed_twice_is_never_found_whatever_the_order_and_the_rounding(way, size):
    rng = np.random.default_rng(size)
    exact = rng.normal(size=(40, size))
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    photographs = exact.astype(np.float32)
    # the same photographs under other names: to the bit, and once more scaled to length 1 from other numbers
    turned = (3 * photographs).astype(np.float32)
    turned /= np.linalg.norm(turned, axis=1, keepdims=True)
    query = np.repeat(exact, 3, axis=0) + rng.normal(size=(120, size)) / size
    query = (query / np.linalg.norm(query, axis=1, keepdims=True)).astype(np.float32)
    asked = np.repeat(np.arange(40), 3)
    with counted_by(way):
        for again in (photographs, turned):
            for _ in range(3):
                order = rng.permutation(80)
                gallery, ids = np.concatenate([photographs, again])[order], np.arange(80)[order]
                metrics = rank_features(query, gallery, asked, ids)
                assert (metrics.rank(1), metrics.rank(2), metrics.tied_share) == (0, 1, 1)
        assert rank_features(query, photographs, asked, np.arange(40)).rank(1) == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_up_to_a_tie_apart_are_equal_and_others_are_not(way, dtype):
    tie = 2.0**-10
    scores = np.array([[0.5, 0.5 - tie, 0.5 - 2 * tie], [0.5, 0.5 + tie, 0.1], [0.5, 0.5 + 2 * tie, 0.5]], dtype)
    with counted_by(way):
        metrics = retrieval_metrics(scores, np.zeros(3, int), np.arange(3), tie=tie)
        plain = retrieval_metrics(scores, np.zeros(3, int), np.arange(3))
    assert metrics.first_match_rank.tolist() == [2, 2, 3]
    assert metrics.tied_share == 1  # the third by its last image alone: the second is ahead
    assert plain.first_match_rank.tolist() == [1, 2, 3]
    assert plain.tied_share == pytest.approx(1 / 3)


def test_ties_are_warned_of():
    same = np.ones((5, 1), np.float32)
    with pytest.warns(TiedScoresWarning, match="5 of 5") as caught:
        metrics = rank_features(same, same, np.arange(5), np.arange(5))
    assert metrics.rank(1) == 0
    assert caught[0].filename == __file__


def test_an_excluded_embedding_is_not_looked_at():
    features = np.eye(3, dtype=np.float32)
    query = features.copy()
    query[1] = np.nan
    metrics = rank_features(query, features, np.arange(3), np.arange(3), exclude=np.array([False, True, False]))
    assert (metrics.rank(1), metrics.n_excluded) == (1, 1)


def changed(row, value):
    features = np.eye(3, dtype=np.float32)
    features[row, row] = value
    return features


@pytest.mark.parametrize(
    ("query", "gallery", "words"),
    [
        (changed(1, np.nan), np.eye(3), r"query\[1\] has length nan.*1 of 3.*encode it in float32"),
        (np.eye(3), changed(2, 1.5), r"gallery\[2\] has length 1.5.*scale it"),
        (changed(0, 0), np.eye(3), r"query\[0\] has length 0"),
        (changed(0, np.inf), np.eye(3), r"query\[0\] has length inf"),
        (np.eye(3)[:, :2], np.eye(3), "size 2, gallery ones 3"),
        (np.eye(3, dtype=int), np.eye(3), "query is int64; embeddings in float32"),
        (np.ones(3), np.eye(3), r"query has shape \(3,\)"),
        (np.eye(3), np.zeros((0, 3)), r"gallery has shape \(0, 3\)"),
        ([[1.0], [0.5, 0.5]], np.eye(3), "query cannot be read"),
        (np.eye(3)[:2], np.eye(3), r"query_ids has shape \(3,\); \(2,\)"),
    ],
)
def test_bad_input_is_named(query, gallery, words):
    with pytest.raises(EvaluationError, match=words):
        rank_features(query, gallery, np.arange(3), np.arange(3))


def test_a_gallery_beyond_the_memory_is_refused_with_numbers(monkeypatch):
    monkeypatch.setattr(features_module, "free_memory", lambda: 2**21)
    features = exact_features(np.random.default_rng(4), 20_000, 4)
    # 13 queries × 20,000 × 4 bytes, 16 bytes an image for the counting, and 16 a number in float64: 2.5 MiB
    with pytest.raises(
        EvaluationError, match=r"20,000 images needs 3 MiB beside .* 2 MiB are free; rank against a part"
    ):
        rank_features(features[:13], features, np.zeros(13, int), np.zeros(20_000, int))
    assert rank_features(features[:5], features, np.zeros(5, int), np.zeros(20_000, int)).rank(1) == 1


def test_nothing_is_compiled_before_it_is_of_use(monkeypatch):
    monkeypatch.setattr(counting, "_compiled", {})
    monkeypatch.setattr(counting, "_compile", lambda *_: pytest.fail("numba is imported"))
    assert retrieval_metrics(np.eye(3), np.arange(3), np.arange(3)).rank(1) == 1


@pytest.mark.skipif(numba is None, reason="numba is not installed (handclip[fast])")
def test_a_cache_that_cannot_be_written_is_done_without(monkeypatch):
    asked = []

    def njit(signature, cache, **options):
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function  # uncompiled, so that the test takes no time

    monkeypatch.setattr(numba, "njit", njit)
    monkeypatch.setattr(counting, "_compiled", {})
    monkeypatch.setattr(counting, "COMPILED_FROM", 0)
    rng = np.random.default_rng(5)
    similarity, ids = rng.integers(0, 5, (6, 20)).astype(np.float32), (np.arange(6) % 3, np.arange(20) % 3)
    check(retrieval_metrics(similarity, *ids), reference(similarity, *ids))
    assert asked == [True, False]


def test_without_numba_the_plain_way_counts(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)  # an import of it fails
    monkeypatch.setattr(counting, "_compiled", {})
    monkeypatch.setattr(counting, "COMPILED_FROM", 0)
    assert counting.kernel(np.dtype(np.float32), 0) is None
    assert retrieval_metrics(np.eye(3), np.arange(3), np.arange(3)).rank(1) == 1
