"""Sizes: as given, as a formula says, as a distribution says; labels iid."""

import numpy as np
import pytest
from partitions import deal, sizes
from scipy import stats

from fedjax_lite.data import partition


def test_iid_sizes_and_order():
    assert sorted(sizes(deal(partition.iid(7)))) == [142] * 1 + [143] * 6
    # which client an example lands at is uniform: pool 200 seeds of 40 examples over 4 clients
    owner = np.stack([np.argsort(np.concatenate(deal(partition.iid(4), np.zeros(40), seed))) // 10 for seed in range(200)])
    counts = np.stack([np.bincount(column, minlength=4) for column in owner.T])
    assert stats.chi2.sf(((counts - 50) ** 2 / 50).sum(), 40 * 3) > 1e-3


def test_quantity_skew_prefers_no_client():
    """4 examples each in the mean; rounding down at the cuts took half of one from the first, for the last."""
    drawn = np.array([sizes(deal(partition.quantity_skew(5, 5), np.zeros(20), seed)) for seed in range(300)])
    assert (abs(drawn.mean(axis=0) - 4) < 4 * drawn.std(axis=0) / np.sqrt(300)).all()


def test_quantity_skew_sizes_are_dirichlet_and_labels_are_iid():
    clients, beta = 4, 2.0
    labels = np.repeat(np.arange(2), 1000)
    draws = [deal(partition.quantity_skew(clients, beta), labels, seed) for seed in range(250)]
    drawn = np.array([sizes(parts) for parts in draws]) / 2000
    assert stats.kstest(drawn[:, 0], stats.beta(beta, (clients - 1) * beta).cdf).pvalue > 1e-3
    np.testing.assert_allclose(drawn.var(axis=0).mean(), 0.25 * 0.75 / (clients * beta + 1), rtol=0.15)
    scores = [(np.mean(labels[part]) - 0.5) / np.sqrt(0.25 / len(part) * (1 - len(part) / 2000)) for parts in draws for part in parts]
    assert abs(np.std(scores) - 1) < 0.1


def test_lognormal_sizes_differ_by_the_factors_of_their_law():
    """The common factor of rescaling cancels: log n_i - log n_j ~ N(0, 2 sigma^2); sigma = 0 is equal sizes."""
    drawn = np.array([sizes(deal(partition.lognormal_sizes(4, 0.7), np.zeros(20_000), seed)) for seed in range(150)])
    ratios = np.log(drawn[:, ::2] / drawn[:, 1::2]).ravel()  # of disjoint pairs
    assert stats.kstest(ratios, stats.norm(0, 0.7 * np.sqrt(2)).cdf).pvalue > 1e-3
    assert set(sizes(deal(partition.lognormal_sizes(20, 0)))) <= {49, 50, 51}
    assert min(sizes(deal(partition.lognormal_sizes(20, 1.0, min_size=10)))) >= 10


def test_sizes_that_are_redrawn_give_up_with_a_remedy():
    with pytest.raises(ValueError, match=r"quantity_skew\(clients=50, beta=0.01, min_size=1\).*raise beta, or lower clients or min_size"):
        deal(partition.quantity_skew(50, 0.01))
    with pytest.raises(ValueError, match=r"lognormal_sizes\(clients=50, sigma=1e\+300, min_size=1\): 1000 draws .*: lower sigma, or lower"):
        deal(partition.lognormal_sizes(50, 1e300))


def test_growing_sizes():
    """By hand: 200 i / 55, rounded down, and the last gets the 9 that are left; i^2 of 385, e^i of 34843.77."""
    assert sizes(deal(partition.growing_sizes(10), np.zeros(200))) == [3, 7, 10, 14, 18, 21, 25, 29, 32, 41]
    squares = sizes(deal(partition.growing_sizes(10, "square"), np.zeros(385_000)))
    assert squares == [1000 * i**2 for i in range(1, 11)]
    powers = sizes(deal(partition.growing_sizes(10, "exponential"), np.zeros(100_000)))
    np.testing.assert_allclose(powers, 100_000 / 34843.77 * np.exp(np.arange(1, 11)), atol=6)
    with pytest.raises(ValueError, match="clients=10 with exponential growth leave 5 of them without any of 200 examples"):
        deal(partition.growing_sizes(10, "exponential"), np.zeros(200))


def test_exponential_sizes_do_not_overflow():
    with pytest.raises(ValueError, match="clients=1000 with exponential growth leave"):
        deal(partition.growing_sizes(1000, "exponential"), np.zeros(5000))


def test_given_sizes_are_random_examples():
    first = np.array([deal(partition.given_sizes([2, 5]), np.zeros(10), seed)[0] for seed in range(500)])
    assert stats.chisquare(np.bincount(first.ravel(), minlength=10)).pvalue > 1e-3
    assert sizes(deal(partition.given_sizes(np.array([400, 600]).tolist()))) == [400, 600]
    with pytest.raises(ValueError, match="given_sizes: sizes add up to 11, there are 10 examples: lower them"):
        deal(partition.given_sizes([5, 6]), np.zeros(10))
