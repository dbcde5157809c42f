"""Examples sorted by label: shards, similarity."""

import numpy as np
import pytest
from partitions import LABELS, assert_cover, class_table, deal, sizes

from fedjax_lite.data import partition


def test_shards_have_few_labels():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 60))
    for count in (1, 2, 3):
        parts = deal(partition.shards(clients=10, shards_per_client=count), labels)
        assert {len(part) for part in parts} == {60}
        assert max(len(np.unique(labels[part])) for part in parts) <= count


def test_shards_of_a_size():
    """By hand: 1000 examples make 14 shards of 70 and one of 20."""
    for keep, counts in ((False, [5, 5, 4]), (True, [5, 5, 5])):
        parts = deal(partition.shards(3, shard_size=70, keep_incomplete=keep))
        expected = np.array(counts) * 70
        assert sum(sizes(parts)) == (1000 if keep else 980)
        assert sum(abs(np.array(sizes(parts)) - expected) == 50) == keep and all(np.isin(sizes(parts), [*expected, 300]))
    assert sizes(deal(partition.shards(3, 2, shard_size=70))) == [140] * 3
    kept = np.concatenate(deal(partition.shards(3, 2, shard_size=70)))
    assert sorted(LABELS[kept].tolist()) == sorted(LABELS.tolist())[:420]  # the first shards in the order of labels
    assert_cover(deal(partition.shards(10, shard_size=100)), 1000)


def test_shards_that_the_examples_do_not_make():
    message = "shards: clients=8 with shard_size=70 need 16 shards, 1000 examples make 14: lower shard_size or clients"
    with pytest.raises(ValueError, match=message):
        deal(partition.shards(8, 2, shard_size=70))
    with pytest.raises(ValueError, match="clients=15 with shard_size=70 need 15 shards, 1000 examples make 14"):
        deal(partition.shards(15, shard_size=70))
    assert len(deal(partition.shards(15, shard_size=70, keep_incomplete=True))) == 15
    with pytest.raises(ValueError, match="clients=5 with shard_size=70 need 15 shards, 1000 examples make 14"):
        deal(partition.shards(5, 3, shard_size=70, keep_incomplete=True))  # which is for shard_size alone


def test_similarity_is_iid_and_sorted_in_its_shares():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 100))
    assert_cover(deal(partition.similarity(7, 0.37), labels), 1000)
    np.testing.assert_array_equal(class_table(labels, deal(partition.similarity(10, 0), labels), 10), 100 * np.eye(10))
    drawn = np.stack([class_table(labels, deal(partition.similarity(10, 0.3), labels, seed), 10) for seed in range(200)])
    # 30 of a client's 100 examples are iid; its piece of the others is its own label's, but for what chance took from the labels before
    off = drawn[:, 0, 5:].mean()
    np.testing.assert_allclose(off, 3, atol=4 * np.sqrt(3 / 200 / 5))
    np.testing.assert_allclose(drawn[:, 0, :2].sum(axis=1).mean(), 70 + 2 * 3, atol=1)
    iid = np.stack([class_table(labels, deal(partition.similarity(10, 1), labels, seed), 10) for seed in range(100)])
    np.testing.assert_allclose(iid.mean(axis=0), 10, atol=4 * np.sqrt(9 / 100))
