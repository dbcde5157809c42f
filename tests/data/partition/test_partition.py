"""Partitions: disjoint cover, sizes, label shares against the distributions their papers name."""

from inspect import unwrap  # bad types must reach our own messages, as they do for users, not beartype's

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedjax_lite.data import partition

LABELS = np.random.default_rng(7).integers(0, 10, 1000)
COVERING = {
    "iid": partition.iid(20),
    "dirichlet": partition.dirichlet(20, 0.5),
    "dirichlet_class": partition.dirichlet_class(20, 0.5, min_size=5),
    "dirichlet_hsu": partition.dirichlet_hsu(20, 0.5),
    "shards": partition.shards(20),
    "labels_per_client": partition.labels_per_client(20, 3),
    "quantity_skew": partition.quantity_skew(20, 1.0),
}


def deal(function, labels=LABELS, seed=0):
    return function(np.random.default_rng(seed), labels)


def shares(labels, parts, classes):
    counts = np.stack([np.bincount(labels[part], minlength=classes) for part in parts])
    return counts / counts.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("name", COVERING)
def test_parts_are_a_disjoint_cover(name):
    parts = deal(COVERING[name])
    assert len(parts) == 20
    assert all(len(part) and np.issubdtype(part.dtype, np.integer) for part in parts)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(1000))


@pytest.mark.parametrize("name", COVERING)
def test_parts_are_a_function_of_the_seed(name):
    labels = LABELS.copy()
    first, again, other = deal(COVERING[name], labels), deal(COVERING[name], labels), deal(COVERING[name], labels, seed=1)
    assert all(map(np.array_equal, first, again))
    assert not all(map(np.array_equal, first, other))
    np.testing.assert_array_equal(labels, LABELS)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 30), st.integers(0, 200), st.integers(1, 12), st.integers(0, 2**32))
def test_cover_holds_for_any_size(clients, extra, classes, seed):
    n = clients * 2 + extra
    labels = np.random.default_rng(seed).integers(0, classes, n)
    for function in (partition.iid(clients), partition.dirichlet(clients, 100.0), partition.shards(clients)):
        np.testing.assert_array_equal(np.sort(np.concatenate(deal(function, labels, seed))), np.arange(n))
    parts = deal(partition.dirichlet_hsu(clients, 0.1), labels, seed)
    assert {len(part) for part in parts} == {n // clients}
    assert len(np.unique(np.concatenate(parts))) == clients * (n // clients)


def test_iid_sizes_and_order():
    assert sorted(len(part) for part in deal(partition.iid(7))) == [142] * 1 + [143] * 6
    # which client an example lands at is uniform: pool 200 seeds of 40 examples over 4 clients
    owner = np.stack([np.argsort(np.concatenate(deal(partition.iid(4), np.zeros(40), seed))) // 10 for seed in range(200)])
    counts = np.stack([np.bincount(column, minlength=4) for column in owner.T])
    assert stats.chi2.sf(((counts - 50) ** 2 / 50).sum(), 40 * 3) > 1e-3


def test_dirichlet_is_the_class_procedure():
    assert partition.dirichlet is partition.dirichlet_class


def test_dirichlet_class_first_class_has_dirichlet_moments():
    """The class dealt first meets no balance rule: a client's share of it is Beta(alpha, (N - 1) alpha)."""
    clients, alpha = 5, 1.0
    labels = np.repeat(np.arange(2), [2000, 4000])
    draws = [deal(partition.dirichlet(clients, alpha), labels, seed) for seed in range(400)]
    share = np.array([[np.sum(part < 2000) for part in parts] for parts in draws]) / 2000
    assert stats.kstest(share[:, 0], stats.beta(alpha, (clients - 1) * alpha).cdf).pvalue > 1e-3
    np.testing.assert_allclose(share.mean(axis=0), 1 / clients, atol=4 * np.sqrt(0.2 * 0.8 / 6 / 400))
    np.testing.assert_allclose(share.var(axis=0).mean(), 0.2 * 0.8 / (clients * alpha + 1), rtol=0.1)


def test_dirichlet_class_gives_no_more_to_full_clients():
    """Who holds n / N gets no further class, so nobody ends above n / N plus one class."""
    labels = np.repeat(np.arange(20), 10)
    for seed in range(20):
        parts = deal(partition.dirichlet(10, 0.05), labels, seed)
        assert max(len(part) for part in parts) < 20 + 10
    labels = np.repeat(np.arange(4), 25)
    parts = deal(partition.dirichlet(4, 1e-6, min_size=20), labels)
    assert [len(np.unique(labels[part])) for part in parts] == [1, 1, 1, 1]


def test_dirichlet_class_rounding_favours_nobody():
    """40 classes of one example each: rounding down alone decides who gets it, and over seeds all clients get the same."""
    labels = np.arange(40)
    sizes = np.array([[len(part) for part in deal(partition.dirichlet(4, 100.0), labels, seed)] for seed in range(100)])
    first = np.array([[0 in part for part in deal(partition.dirichlet(4, 100.0), labels, seed)] for seed in range(200)])
    assert sizes.min() >= 1
    assert stats.chisquare(first.sum(axis=0)).pvalue > 1e-3


def test_dirichlet_class_is_almost_iid_at_large_alpha():
    labels = np.repeat(np.arange(10), 1000)
    np.testing.assert_allclose(shares(labels, deal(partition.dirichlet(10, 1e5), labels), 10), 0.1, atol=0.01)


def test_dirichlet_class_keeps_min_size():
    assert min(len(part) for part in deal(partition.dirichlet(20, 0.5, min_size=10))) >= 10


def test_dirichlet_class_gives_up_with_a_remedy():
    with pytest.raises(ValueError, match=r"clients=20, alpha=1e-06, min_size=1.*raise alpha, or lower clients or min_size"):
        deal(partition.dirichlet(20, 1e-6))


def test_dirichlet_hsu_has_dirichlet_moments():
    """E[share] = prior; Var = prior (1 - prior) / (alpha + 1) of q, plus the multinomial's own for `size` draws."""
    alpha, clients, size = 2.0, 40, 100
    prior = np.array([0.1, 0.2, 0.3, 0.4])
    labels = np.repeat(np.arange(4), (prior * clients * size).astype(int))
    # the first client meets no exhausted class
    first = np.concatenate([shares(labels, deal(partition.dirichlet_hsu(clients, alpha), labels, seed)[:1], 4) for seed in range(600)])
    variance = prior * (1 - prior) / (alpha + 1) * (1 + alpha / size)
    np.testing.assert_allclose(first.mean(axis=0), prior, atol=4 * np.sqrt(variance.max() / 600))
    np.testing.assert_allclose(first.var(axis=0), variance, rtol=0.25)
    np.testing.assert_allclose((first.var(axis=0) / variance).mean(), 1, rtol=0.1)


def test_dirichlet_hsu_with_tiny_alpha_gives_one_label_each():
    labels = np.repeat(np.arange(4), 50)
    parts = deal(partition.dirichlet_hsu(8, 1e-6), labels)
    assert [len(part) for part in parts] == [25] * 8
    assert np.mean([len(np.unique(labels[part])) == 1 for part in parts]) >= 0.5
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(200))


def test_shards_have_few_labels():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 60))
    for count in (1, 2, 3):
        parts = deal(partition.shards(clients=10, shards_per_client=count), labels)
        assert {len(part) for part in parts} == {60}
        assert max(len(np.unique(labels[part])) for part in parts) <= count


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


def test_quantity_skew_prefers_no_client():
    """4 examples each in the mean; rounding down at the cuts took half of one from the first, for the last."""
    sizes = np.array([[len(part) for part in deal(partition.quantity_skew(5, 5), np.zeros(20), seed)] for seed in range(500)])
    assert (abs(sizes.mean(axis=0) - 4) < 4 * sizes.std(axis=0) / np.sqrt(500)).all()


@pytest.mark.parametrize(
    "function", [partition.dirichlet(2, 1), partition.dirichlet_hsu(2, 1), partition.shards(2), partition.labels_per_client(2, 1)]
)
def test_several_labels_an_example_are_not_flattened(function):
    wrong = r"deals by one label an example, got labels of the shape \[6, 2\]: give the one to deal by, such as labels\[:, 0\], or iid"
    with pytest.raises(ValueError, match=wrong):
        deal(function, np.zeros((6, 2), int))
    for others in (partition.iid(3), partition.quantity_skew(2, 5)):  # these look at no label
        assert sum(len(part) for part in deal(others, np.zeros((6, 2), int))) == 6


def test_quantity_skew_sizes_are_dirichlet_and_labels_are_iid():
    clients, beta = 4, 2.0
    labels = np.repeat(np.arange(2), 5000)
    draws = [deal(partition.quantity_skew(clients, beta), labels, seed) for seed in range(300)]
    sizes = np.array([[len(part) for part in parts] for parts in draws]) / 10000
    assert stats.kstest(sizes[:, 0], stats.beta(beta, (clients - 1) * beta).cdf).pvalue > 1e-3
    np.testing.assert_allclose(sizes.var(axis=0).mean(), 0.25 * 0.75 / (clients * beta + 1), rtol=0.15)
    scores = [(np.mean(labels[part]) - 0.5) / np.sqrt(0.25 / len(part) * (1 - len(part) / 10000)) for parts in draws for part in parts]
    assert abs(np.std(scores) - 1) < 0.1


def test_quantity_skew_gives_up_with_a_remedy():
    with pytest.raises(ValueError, match=r"quantity_skew\(clients=50, beta=0.01, min_size=1\).*raise beta"):
        deal(partition.quantity_skew(50, 0.01))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: partition.iid(0), "iid: clients must be an int of at least 1, got 0"),
        (lambda: unwrap(partition.iid)(2.0), "clients must be an int"),
        (lambda: unwrap(partition.iid)(True), "clients must be an int"),
        (lambda: partition.dirichlet(0, 1.0), "dirichlet: clients"),
        (lambda: partition.dirichlet(5, 0.0), "alpha must be a finite number above 0, got 0.0"),
        (lambda: partition.dirichlet(5, float("nan")), "alpha must be a finite number above 0, got nan"),
        (lambda: partition.dirichlet(5, float("inf")), "got inf"),
        (lambda: unwrap(partition.dirichlet)(5, "0.3"), "alpha must be a finite number above 0, got '0.3'"),
        (lambda: partition.dirichlet(5, 1.0, min_size=0), "min_size must be an int of at least 1"),
        (lambda: partition.dirichlet_hsu(-1, 1.0), "dirichlet_hsu: clients"),
        (lambda: partition.dirichlet_hsu(5, -1.0), "dirichlet_hsu: alpha"),
        (lambda: partition.shards(5, 0), "shards_per_client must be an int of at least 1"),
        (lambda: partition.labels_per_client(5, 0), "labels must be an int of at least 1"),
        (lambda: partition.quantity_skew(5, 0.0), "beta must be a finite number above 0"),
    ],
)
def test_bad_arguments_are_named_before_any_data_is_read(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "function",
    [
        partition.iid(6),
        partition.dirichlet(6, 1.0),
        partition.dirichlet(3, 1.0, min_size=2),
        partition.dirichlet_hsu(6, 1.0),
        partition.shards(3),
        partition.labels_per_client(6, 2),
        partition.quantity_skew(6, 1.0),
    ],
)
def test_more_clients_than_examples(function):
    with pytest.raises(ValueError, match=r"clients=\d with at least .* need 6, there are 5: use fewer clients"):
        deal(function, np.arange(5) % 2)
