"""Who holds a label, and how its examples are shared out."""

import numpy as np
import pytest
from partitions import assert_cover, class_table, deal, sizes
from scipy import stats

from fedjax_lite.data import partition


def test_labels_per_client_holds_exactly_that_many():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(6), 100))
    for seed, (clients, count) in enumerate([(9, 2), (6, 1), (3, 2), (3, 2), (3, 2), (4, 3), (2, 6), (20, 5)]):
        parts = deal(partition.labels_per_client(clients, count), labels, seed)
        assert {len(np.unique(labels[part])) for part in parts} == {count}
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(600))
        held = np.stack([np.bincount(labels[part], minlength=6) for part in parts])
        for column in held.T:
            assert np.ptp(column[column > 0]) <= 1


def test_labels_per_client_rejects_what_cannot_cover():
    with pytest.raises(ValueError, match=r"clients=3, labels=2\) cannot share out 10 labels.*at least 10"):
        deal(partition.labels_per_client(3, 2))
    with pytest.raises(ValueError, match=r"labels=11\) cannot share out 10 labels: labels must be at most 10"):
        deal(partition.labels_per_client(3, 11))
    with pytest.raises(ValueError, match="gives label 0 to 6 clients, and there are 1 examples of it: use fewer clients"):
        deal(partition.labels_per_client(12, 1), np.array([0] + [1] * 30))
    with pytest.raises(ValueError, match=r"labels_per_client\(clients=4, labels=2\) gives label 2 to 3 clients, and there are 1 examples"):
        deal(partition.labels_per_client(4, 2), np.repeat([0, 1, 2], [10, 10, 1]))


def test_labels_are_assigned_in_turn_or_at_random():
    labels = np.repeat(np.arange(6), 40)
    held = class_table(labels, deal(partition.labels_per_client(8, 2, "deterministic"), labels), 6) > 0
    assert [np.flatnonzero(row).tolist() for row in held] == [[0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [0, 5], [0, 1], [1, 2]]
    drawn = [class_table(labels, deal(partition.labels_per_client(8, 2, "random"), labels, seed), 6) > 0 for seed in range(200)]
    held = np.stack(drawn)
    assert (held.sum(axis=2) == 2).all()
    # each pair of labels is as likely for every client; clients of one draw are independent
    pairs = np.bincount((held @ (2 ** np.arange(6))).ravel())
    assert stats.chisquare(pairs[pairs > 0]).pvalue > 1e-3 and (pairs > 0).sum() == 15


@pytest.mark.parametrize("assignment", ["random", "deterministic"])
def test_labels_that_nobody_holds_are_left_out(assignment):
    labels = np.repeat(np.arange(6), 40)
    parts = deal(partition.labels_per_client(2, 2, assignment), labels)
    held = np.unique(labels[np.concatenate(parts)])
    assert len(held) < 6 and sum(sizes(parts)) == 40 * len(held)
    with pytest.raises(ValueError, match="labels=7\\) cannot share out 6 labels: labels must be at most 6"):
        deal(partition.labels_per_client(2, 7, assignment), labels)


def test_power_law_is_fedproxs_procedure():
    """Of client i, labels i and i + 1 mod K; `at_least` of each; the rest in proportion to lognormal weights, a label at a time."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 2000))
    parts = deal(partition.power_law(100), labels)
    held = class_table(labels, parts, 10)
    assert_cover(parts, 20_000)
    assert [np.flatnonzero(row).tolist() for row in held] == [sorted([i % 10, (i + 1) % 10]) for i in range(100)]
    assert held[held > 0].min() >= 5
    assert sizes(deal(partition.power_law(100, sigma=0), labels)) == [200] * 100


def test_power_law_weights_are_lognormal():
    """Of one label, log (n_i - m) - log (n_j - m) ~ N(0, 2 sigma^2) for the holders i, j of a label."""
    labels = np.repeat(np.arange(2), 10_000)
    drawn = [class_table(labels, deal(partition.power_law(4, 1, 0.7, 5), labels, seed), 2) for seed in range(100)]
    above = np.stack(drawn).sum(axis=2) - 5  # clients 0 and 2 share label 0, clients 1 and 3 label 1
    ratios = np.log(above[:, :2] / above[:, 2:]).ravel()
    assert stats.kstest(ratios, stats.norm(0, 0.7 * np.sqrt(2)).cdf).pvalue > 1e-3


def test_power_law_refuses_what_cannot_be():
    labels = np.repeat(np.arange(3), [100, 100, 20])
    with pytest.raises(ValueError, match=r"at_least=5\) gives label 2 to 8 clients, and there are 20 examples of it: use fewer clients"):
        deal(partition.power_law(12), labels)
    with pytest.raises(ValueError, match=r"power_law\(clients=4, labels=4, at_least=5\) needs 4 labels, there are 3: lower labels"):
        deal(partition.power_law(4, 4), labels)
    assert [np.unique(labels[part]).tolist() for part in deal(partition.power_law(1), labels)] == [[0, 1]]  # and leaves label 2 out
