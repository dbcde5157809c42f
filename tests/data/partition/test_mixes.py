"""Matrices of clients and classes: counts as asked, up to one; what cannot be is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from partitions import assert_cover, class_table, deal, sizes

from fedjax_lite.data import partition
from fedjax_lite.data.partition.parts import in_proportion


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=12).filter(any), st.integers(0, 5000))
def test_rounding_keeps_the_sum_and_is_within_one(weights, n):
    counts = in_proportion(np.array(weights), n)
    exact = np.array(weights) / max(weights)
    exact = exact / exact.sum() * n
    assert counts.sum() == n and (abs(counts - exact) < 1 + 1e-9).all()
    assert not counts[np.array(weights) == 0].any()


def test_rounding_gives_the_largest_remainders():
    assert in_proportion(np.array([0.5, 0.3, 0.2]), 4).tolist() == [2, 1, 1]  # 2, 1.2, 0.8
    assert in_proportion(np.array([1.0, 1.0, 1.0]), 2).tolist() == [1, 1, 0]  # ties: the first


def test_class_shares_are_as_given():
    labels = np.random.default_rng(0).permutation(np.repeat([3, 5, 9], [100, 50, 10]))
    weights = [[1, 0, 0], [3, 1, 0], [0, 1, 1], [6, 0, 1]]
    parts = deal(partition.class_shares(weights), labels)
    assert_cover(parts, 160)
    assert class_table(labels, parts, 10)[:, [3, 5, 9]].tolist() == [[10, 0, 0], [30, 25, 0], [0, 25, 5], [60, 0, 5]]


def test_class_shares_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="shares have 2 columns, there are 3 classes: give one weight a class"):
        deal(partition.class_shares([[1, 1]]), np.arange(9) % 3)
    with pytest.raises(ValueError, match="row 1 of shares brings no example of 9: raise it, or leave it out"):
        deal(partition.class_shares([[1, 1, 1], [0.001, 0, 0]]), np.arange(9) % 3)


def test_label_mixes_are_as_given():
    labels = np.random.default_rng(0).permutation(np.repeat([3, 5], 50))
    parts = deal(partition.label_mix(partition.given_sizes([10, 20, 4]), [[0.7, 0.3], [0, 1], [1, 1]]), labels)
    assert sizes(parts) == [10, 20, 4]
    assert class_table(labels, parts, 6)[:, [3, 5]].tolist() == [[7, 3], [0, 20], [2, 2]]
    assert len(np.unique(np.concatenate(parts))) == 34


def test_label_mix_refuses_what_does_not_fit():
    labels = np.arange(20) % 2
    with pytest.raises(ValueError, match="mix wants 12 examples of label 1, there are 10: lower column 1 of mix, or the sizes of inner"):
        deal(partition.label_mix(partition.iid(2), [[1, 1], [3, 7]]), labels)
    with pytest.raises(ValueError, match="mix has 2 rows of 2, there are 3 clients and 2 labels: give one row a client"):
        deal(partition.label_mix(partition.iid(3), [[1, 1], [1, 1]]), labels)
