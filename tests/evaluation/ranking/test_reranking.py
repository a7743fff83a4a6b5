import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handclip_lib.errors import EvaluationError
from handclip_lib.evaluation import features as features_module
from handclip_lib.evaluation.ranking import counting, reranking
from handclip_lib.evaluation.ranking.reranking import alpha_query_expansion, rerank_similarity

pytestmark = pytest.mark.filterwarnings("ignore::handclip_lib.evaluation.ranking.retrieval.TiedScoresWarning")


def exact_features(rng, n, size=16):
    """Embeddings of length 1 whose cosines float32 holds exactly, and of which many are equal: every entry is ±1/4."""
    return (rng.integers(0, 2, (n, size)) * 2 - 1).astype(np.float32) / np.float32(size**0.5)


def unit(values):
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def oracle(query, gallery, k1, k2, share):
    """The paper's steps one by one, on whole matrices in float64."""
    images = np.concatenate([query, gallery]).astype(np.float64)
    n = len(images)
    distance = np.array([[((a - b) ** 2).sum() for b in images] for a in images])
    own_first = distance - 10 * np.eye(n)
    nearest = np.argsort(own_first, axis=1, kind="stable")
    distance /= np.maximum(distance.max(axis=1, keepdims=True), 1e-6)

    def reciprocal(i, k):  # R(i, k), equation 2
        return {j for j in nearest[i, : k + 1] if i in nearest[j, : k + 1]}

    weights = np.zeros((n, n))
    for i in range(n):
        expanded = set(reciprocal(i, k1))
        for j in reciprocal(i, k1):  # R*(i, k), equation 3
            theirs = reciprocal(j, round(k1 / 2))
            if len(theirs & reciprocal(i, k1)) * 3 > len(theirs) * 2:
                expanded |= theirs
        for j in expanded:  # equation 7
            weights[i, j] = np.exp(-distance[i, j])
        weights[i] /= weights[i].sum()
    weights = np.array([weights[nearest[i, :k2]].mean(axis=0) for i in range(n)])  # equation 11
    result = np.zeros((len(query), len(gallery)))
    for i in range(len(query)):
        for j in range(len(gallery)):
            a, b = weights[i], weights[len(query) + j]
            jaccard = 1 - np.minimum(a, b).sum() / np.maximum(a, b).sum()  # equation 10
            result[i, j] = 1 - ((1 - share) * jaccard + share * distance[i, len(query) + j])  # equation 12
    return result


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 6), st.integers(2, 24), st.sampled_from([4, 16]), st.sampled_from([1, 2, 3, 4, 7, 20]),
    st.integers(1, 6), st.sampled_from([0.0, 0.3, 1.0]), st.integers(0, 2**31),
)  # fmt: skip
def test_equals_the_dense_algorithm(n_query, n_gallery, size, k1, k2, share, seed):
    rng = np.random.default_rng(seed)
    k1 = min(k1, n_query + n_gallery - 1)
    k2 = min(k2, k1 + 1)
    # Many distances are equal, and of size 4 many images are.
    query, gallery = exact_features(rng, n_query, size), exact_features(rng, n_gallery, size)
    found = rerank_similarity(query, gallery, k1, k2, share)
    np.testing.assert_allclose(found, oracle(query, gallery, k1, k2, share), atol=3e-6)


def test_equals_the_dense_algorithm_on_clusters():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(12, 16))
    query, gallery = (
        unit(centres + rng.normal(size=(12, 16))),
        unit(np.repeat(centres, 9, 0) + rng.normal(size=(108, 16))),
    )
    np.testing.assert_allclose(rerank_similarity(query, gallery), oracle(query, gallery, 20, 6, 0.3), atol=3e-6)


def test_the_compiled_overlap_is_the_plain_one_to_the_bit(monkeypatch):
    pytest.importorskip("numba", reason="numba is not installed (handclip[fast])")
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(15, 16))
    query, gallery = (unit(np.repeat(centres, n, 0) + 0.6 * rng.normal(size=(15 * n, 16))) for n in (2, 7))
    monkeypatch.setattr(reranking, "BLOCK_BYTES", 4 * len(gallery) * 7)  # the same blocks, so the same products
    with monkeypatch.context() as patch:
        patch.setattr(reranking, "kernel", lambda _: None)
        plain = rerank_similarity(query, gallery, 8, 3)
    monkeypatch.setattr(counting, "COMPILED_FROM", 0)
    assert reranking.kernel(0) is not None, "it compiles"
    np.testing.assert_array_equal(rerank_similarity(query, gallery, 8, 3), plain)


def test_two_pairs_by_hand():
    # Directions 0° (query), 10°, 90°, 100°; k1 = 1, so each pair are each other's only neighbours; k2 = 1.
    # Squared distances 2 - 2 cos: 0.030384 (10°), 2 (90°), 2.347296 (100°). The query's largest is 2.347296, its
    # pair's 2. Weights: of the query exp(0) = 1 and exp(-0.030384 / 2.347296) = 0.987139, so 0.503236 and 0.496764;
    # of its pair exp(-0.030384 / 2) = 0.984923 and 1, so 0.496202 and 0.503798.
    # Jaccard: 1 - (0.496202 + 0.496764) / (0.503236 + 0.503798) = 0.013970, and 1 to the other pair.
    # Distances 0.7 × 0.013970 + 0.3 × 0.012944 = 0.013662; 0.7 + 0.3 × 2 / 2.347296 = 0.955613; 0.7 + 0.3 = 1.
    angle = np.deg2rad([0, 10, 90, 100])
    images = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    found = rerank_similarity(images[:1], images[1:], k1=1, k2=1)
    np.testing.assert_allclose(found, [[1 - 0.013662, 1 - 0.955613, 0]], atol=2e-6)


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(1)
    query, gallery = exact_features(rng, 30), exact_features(rng, 80)
    whole = rerank_similarity(query, gallery, 6, 3)
    monkeypatch.setattr(reranking, "BLOCK_BYTES", 4 * 80 * 7)
    np.testing.assert_allclose(rerank_similarity(query, gallery, 6, 3), whole, atol=1e-6)


def test_the_nearest_are_those_of_a_stable_sort():
    rng = np.random.default_rng(2)
    for m, k in ((5, 5), (9, 2), (300, 3), (301, 20), (1000, 7)):
        similarity = rng.integers(0, 40, (12, m)).astype(np.float32)
        expected = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        np.testing.assert_array_equal(reranking.nearest(similarity, k), expected)


@pytest.mark.parametrize("spread", [0, 1e-8, 1e-7, 1e-6, 1e-5, 1e-3])
def test_images_that_are_nearly_the_same_stay_in_bounds(spread):
    for seed in range(12):
        rng = np.random.default_rng(seed)
        images = rng.normal(size=(1, 40 * (seed + 1))) + spread * rng.normal(size=(60, 40 * (seed + 1)))
        images = (images / np.linalg.norm(images, axis=1, keepdims=True)).astype(np.float32)
        found = rerank_similarity(images[:20], images[20:], 20, 6)
        assert found.min() >= 0 and found.max() <= 1


def test_images_that_are_all_the_same_are_all_equally_alike():
    same = np.full((8, 4), 0.5, np.float32)
    assert np.ptp(rerank_similarity(same[:2], same[2:], 3, 2, distance_share=1)) == 0
    assert np.isfinite(rerank_similarity(same[:2], same[2:], 3, 2)).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 12), st.sampled_from([0, 1, 3.0]), st.integers(0, 2**31))
def test_query_expansion_equals_loops(n_query, n_gallery, alpha, seed):
    rng = np.random.default_rng(seed)
    query, gallery = unit(rng.normal(size=(n_query, 6))), unit(rng.normal(size=(n_gallery, 6)))
    k = int(rng.integers(1, n_gallery + 1))
    expected = []
    for one in query.astype(np.float64):
        ranked = sorted(gallery.astype(np.float64), key=lambda other: -(one @ other))
        total = one.copy()
        for other in ranked[:k]:
            if one @ other > 0:
                total += (one @ other) ** alpha * other
        expected.append(total / np.sqrt((total**2).sum()))
    np.testing.assert_allclose(alpha_query_expansion(query, gallery, k, alpha), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"k1": 6}, "k1=6 neighbours of each of 6 images; choose from 1 to 5"),
        ({"k1": 2, "k2": 4}, r"k2=4; choose from 1 to k1 \+ 1 = 3"),
        ({"k1": 2, "k2": 1, "distance_share": 1.5}, "distance_share=1.5"),
        ({"query": 2 * np.eye(2, 4)}, r"query\[0\] has length 2"),
        ({"gallery": np.full((4, 4), np.nan)}, r"gallery\[0\] has length nan"),
        ({"gallery": np.eye(5)}, "size 4, gallery ones 5"),
    ],
)
def test_bad_input_to_re_ranking_is_named(arguments, words):
    arguments = {"query": np.eye(2, 4), "gallery": np.eye(4), "k1": 2, "k2": 1} | arguments
    with pytest.raises(EvaluationError, match=words):
        rerank_similarity(**arguments)


@pytest.mark.parametrize(("k", "alpha", "words"), [(0, 3, "k=0"), (5, 3, "gallery's 4"), (1, -1, "alpha=-1")])
def test_bad_input_to_query_expansion_is_named(k, alpha, words):
    with pytest.raises(EvaluationError, match=words):
        alpha_query_expansion(np.eye(2, 4), np.eye(4), k, alpha)


def test_re_ranking_beyond_the_memory_is_refused(monkeypatch):
    monkeypatch.setattr(features_module, "free_memory", lambda: 2**20)
    with pytest.raises(EvaluationError, match=r"re-ranking 6 images needs .* MiB"):
        rerank_similarity(np.eye(2, 4), np.eye(4), k1=2, k2=1)
