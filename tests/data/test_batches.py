import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handclip_lib.data.batches import SmallBatchWarning, identity_batches, warn_if_few


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=80), st.integers(2, 6), st.integers(1, 5), st.integers(0, 99))
def test_an_epoch_holds_every_image_once_and_a_batch_at_most_p_times_k(labels, p, k, seed):
    labels = np.array(labels)
    batches = identity_batches(labels, p, k, np.random.default_rng(seed))
    assert sorted(np.concatenate(batches)) == list(range(len(labels)))
    over = 0  # a last image alone joins another batch
    for batch in batches:
        _, counts = np.unique(labels[batch], return_counts=True)
        over += max(len(batch) - p * k, max(counts) - k, len(counts) - p, 0)
    assert over <= 1


def test_large_identities_are_spread_over_the_epoch():
    labels = np.repeat(np.arange(20), [40] + [4] * 19)
    batches = identity_batches(labels, 4, 4, np.random.default_rng(0))
    assert [len(np.unique(labels[batch])) for batch in batches].count(4) == 6
    assert sum((labels[batch] == 0).any() for batch in batches) == 10, "one group of the large one a batch"


def test_the_generator_decides():
    labels = np.repeat(np.arange(10), 5)
    one, again, other = (identity_batches(labels, 4, 2, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=False))


def test_a_batch_of_one_identity_is_refused():
    with pytest.raises(ValueError, match="1 identities × 4 images"):
        identity_batches([0, 1], 1, 4, np.random.default_rng(0))


def test_no_batch_is_a_single_image():
    for seed in range(20):
        for count in (2, 3, 5, 7, 9):
            batches = identity_batches([0] * count + [1, 2], 3, 2, np.random.default_rng(seed))
            assert min(map(len, batches)) > 1
            assert sorted(np.concatenate(batches)) == list(range(count + 2))


def test_fewer_identities_than_a_batch_is_to_hold_are_told():
    with pytest.warns(SmallBatchWarning, match="n_identities=4: a batch holds the 3 identities"):
        warn_if_few([7, 7, 8, 9], 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_few([7, 7, 8, 9], 3)
