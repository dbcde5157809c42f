"""Dirichlet draws: over clients for each class, over classes for each client; against the distributions that the papers name."""

import numpy as np
import pytest
from partitions import assert_cover, class_table, deal, shares, sizes
from scipy import stats

from fedjax_lite.data import partition


def test_dirichlet_is_the_class_procedure():
    assert partition.dirichlet is partition.dirichlet_class


def test_dirichlet_class_first_class_has_dirichlet_moments():
    """The class dealt first meets no balance rule: a client's share of it is Beta(alpha, (N - 1) alpha)."""
    clients, alpha = 5, 1.0
    labels = np.repeat(np.arange(2), [1000, 2000])
    draws = [deal(partition.dirichlet(clients, alpha), labels, seed) for seed in range(300)]
    share = np.array([[np.sum(part < 1000) for part in parts] for parts in draws]) / 1000
    assert stats.kstest(share[:, 0], stats.beta(alpha, (clients - 1) * alpha).cdf).pvalue > 1e-3
    np.testing.assert_allclose(share.mean(axis=0), 1 / clients, atol=4 * np.sqrt(0.2 * 0.8 / 6 / 300))
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
    draws = [deal(partition.dirichlet(4, 100.0), labels, seed) for seed in range(150)]
    first = np.array([[0 in part for part in parts] for parts in draws])
    assert min(min(sizes(parts)) for parts in draws) >= 1
    assert stats.chisquare(first.sum(axis=0)).pvalue > 1e-3


def test_dirichlet_class_is_almost_iid_at_large_alpha():
    labels = np.repeat(np.arange(10), 1000)
    np.testing.assert_allclose(shares(labels, deal(partition.dirichlet(10, 1e5), labels), 10), 0.1, atol=0.01)


def test_dirichlet_class_keeps_min_size():
    assert min(len(part) for part in deal(partition.dirichlet(20, 0.5, min_size=10))) >= 10


def test_dirichlet_class_gives_up_with_a_remedy():
    with pytest.raises(ValueError, match=r"clients=20, alpha=1e-06, min_size=1.*raise alpha, or lower clients or min_size"):
        deal(partition.dirichlet(20, 1e-6), np.arange(100) % 2)


def test_dirichlet_hsu_has_dirichlet_moments():
    """E[share] = prior; Var = prior (1 - prior) / (alpha + 1) of q, plus the multinomial's own for `size` draws."""
    alpha, clients, size = 2.0, 10, 100
    prior = np.array([0.1, 0.2, 0.3, 0.4])
    labels = np.repeat(np.arange(4), (prior * clients * size).astype(int))
    # the first client meets no exhausted class
    first = np.concatenate([shares(labels, deal(partition.dirichlet_hsu(clients, alpha), labels, seed)[:1], 4) for seed in range(400)])
    variance = prior * (1 - prior) / (alpha + 1) * (1 + alpha / size)
    np.testing.assert_allclose(first.mean(axis=0), prior, atol=4 * np.sqrt(variance.max() / 400))
    np.testing.assert_allclose(first.var(axis=0), variance, rtol=0.25)
    np.testing.assert_allclose((first.var(axis=0) / variance).mean(), 1, rtol=0.1)


def test_dirichlet_hsu_with_tiny_alpha_gives_one_label_each():
    labels = np.repeat(np.arange(4), 50)
    parts = deal(partition.dirichlet_hsu(8, 1e-6), labels)
    assert [len(part) for part in parts] == [25] * 8
    assert np.mean([len(np.unique(labels[part])) == 1 for part in parts]) >= 0.5
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(200))


def test_dirichlet_hsu_has_the_moments_of_its_prior():
    """Dir(alpha * 1) of K classes: E[q] = 1 / K and Var[q] = (1/K) (1 - 1/K) / (K alpha + 1), whatever the data's shares are."""
    alpha, clients, size = 0.5, 10, 100
    labels = np.repeat(np.arange(4), [150, 200, 300, 350])
    function = partition.dirichlet_hsu(clients, alpha, prior="ones")
    first = np.concatenate([shares(labels, deal(function, labels, seed)[:1], 4) for seed in range(400)])
    variance = 0.25 * 0.75 / (4 * alpha + 1) * (1 + 4 * alpha / size)
    np.testing.assert_allclose(first.mean(axis=0), 0.25, atol=4 * np.sqrt(variance / 400))
    np.testing.assert_allclose(first.var(axis=0), variance, rtol=0.25)


def test_dirichlet_hsu_of_equal_classes_has_two_names():
    labels = np.repeat(np.arange(8), 50)
    two = deal(partition.dirichlet_hsu(10, 4.0), labels), deal(partition.dirichlet_hsu(10, 0.5, prior="ones"), labels)
    assert all(map(np.array_equal, *two))


def test_inner_dirichlet_has_dirichlet_moments_and_the_sizes_of_inner():
    """As above, of clients so small that no class runs out; with the data's prior E[q] is the class shares."""
    alpha, size, clients = 0.5, 100, 10
    prior = np.array([0.1, 0.2, 0.3, 0.4])
    labels = np.repeat(np.arange(4), (prior * 20_000).astype(int))
    for name, mean, strength in (("ones", np.full(4, 0.25), 4 * alpha), ("data", prior, alpha)):
        function = partition.inner_dirichlet(partition.given_sizes([size] * clients), alpha, prior=name)
        drawn = np.concatenate([shares(labels, deal(function, labels, seed), 4) for seed in range(50)])
        variance = mean * (1 - mean) / (strength + 1) * (1 + strength / size)
        np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=4 * np.sqrt(variance.max() / 500))
        np.testing.assert_allclose(drawn.var(axis=0), variance, rtol=0.25)


def test_inner_dirichlet_runs_out_for_all_at_a_time():
    """With `dirichlet_hsu` the last clients get what the others left, fewer labels; here all clients are alike."""
    labels = np.repeat(np.arange(4), 100)
    more = {}
    for name, function in (("turns", partition.inner_dirichlet(partition.iid(20), 0.3)), ("in order", partition.dirichlet_hsu(20, 1.2))):
        largest = np.mean([shares(labels, deal(function, labels, seed), 4).max(axis=1) for seed in range(40)], axis=0)
        more[name] = largest[-3:].mean() - largest[:10].mean()
    assert abs(more["turns"]) < 0.035 < 0.06 < more["in order"]


def test_inner_dirichlet_takes_what_is_left():
    labels = np.repeat(np.arange(4), 50)
    parts = deal(partition.inner_dirichlet(partition.given_sizes([150, 50]), 1e-6), labels)
    assert sizes(parts) == [150, 50]
    assert_cover(parts, 200)


def test_inner_dirichlet_refuses_parts_that_overlap():
    with pytest.raises(ValueError, match="inner_dirichlet: the parts of inner hold 2000 examples, there are 1000: make them disjoint"):
        deal(partition.inner_dirichlet(lambda rng, labels: [np.arange(1000)] * 2, 1.0))


def test_dirichlet_feddf_deals_within_groups():
    """Each group of 10 has its part of the examples; each client at least half of its group's mean, and nobody much more than the mean."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 230))
    for seed in range(3):
        parts = deal(partition.dirichlet_feddf(23, 0.5), labels, seed)
        held = np.array(sizes(parts))
        assert [held[:10].sum(), held[10:20].sum(), held[20:].sum()] == [1000, 1000, 300]
        assert held.min() >= 50 and held.max() < 100 + 100
        assert_cover(parts, 2300)


def test_dirichlet_feddf_has_dirichlet_moments_in_a_group():
    """The class dealt first meets no balance rule, and few draws of alpha = 5 are repeated: its share is Beta(alpha, (G - 1) alpha)."""
    labels = np.repeat(np.arange(5), 200)
    draws = [deal(partition.dirichlet_feddf(8, 5.0, group_size=4), labels, seed) for seed in range(200)]
    of_first = np.array([class_table(labels, parts, 5)[:, 0] for parts in draws]).reshape(200, 2, 4)
    share = of_first / of_first.sum(axis=2, keepdims=True)
    np.testing.assert_allclose(share.mean(axis=(0, 1)), 0.25, atol=4 * np.sqrt(0.25 * 0.75 / 21 / 400))
    np.testing.assert_allclose(share.var(axis=(0, 1)).mean(), 0.25 * 0.75 / 21, rtol=0.15)


def test_dirichlet_feddf_recut_is_the_same_order_in_equal_parts():
    parts, equal = (deal(partition.dirichlet_feddf(20, 0.5, recut=recut)) for recut in (False, True))
    assert set(sizes(equal)) == {50}
    np.testing.assert_array_equal(np.concatenate(parts), np.concatenate(equal))


def test_dirichlet_feddf_gives_up_with_a_remedy():
    """Two labels, each of which goes to one client, are not enough for a group of ten."""
    message = r"dirichlet_feddf\(clients=20, alpha=1e-06, group_size=10\): 1000 draws of 50 .*fewer than 2: raise alpha, or lower clients"
    with pytest.raises(ValueError, match=message):
        deal(partition.dirichlet_feddf(20, 1e-6), np.arange(100) % 2)
