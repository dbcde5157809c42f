"""Partitions whose clients differ in size alone: labels are iid."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedjax_lite.data.partition.parts import Partition, enough, proportional, until_filled, word
from fedjax_lite.refuse import integer, is_count, positive

_GROWTH = {"linear": lambda i, last: i, "square": lambda i, last: i**2, "exponential": lambda i, last: np.exp(i - last)}


def iid(clients: int) -> Partition:
    """Examples in random order, cut into equal parts (sizes differ by at most one).

    Args:
        clients: N, at least 1 and at most the number of examples.

    >>> [part.tolist() for part in iid(clients=2)(np.random.default_rng(0), np.zeros(5))]
    [[2, 4, 3], [0, 1]]

    Source: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data", section 3.
    """
    integer("iid", "clients", clients, 1)

    def partition(rng, labels):
        enough("iid", clients, len(labels))
        return np.array_split(rng.permutation(len(labels)), clients)

    return partition


def given_sizes(sizes: Sequence[int]) -> Partition:
    """Client i gets sizes[i] random examples; those left over are left out.

    Args:
        sizes: n_1 ... n_N, each at least 1, together at most the number of examples.

    >>> [part.tolist() for part in given_sizes([1, 3])(np.random.default_rng(0), np.zeros(5))]
    [[2], [4, 3, 0]]

    Source: `SizePartitioner` of flwr-datasets 0.6.1.
    """
    wrong = [size for size in sizes if not is_count(size, 1)]
    if wrong or not len(sizes):
        raise ValueError(f"given_sizes: sizes must be one int of at least 1 a client, got {wrong[0] if wrong else sizes!r}")
    cuts = np.cumsum(sizes)

    def partition(rng, labels):
        if cuts[-1] > len(labels):
            raise ValueError(f"given_sizes: sizes add up to {cuts[-1]}, there are {len(labels)} examples: lower them")
        return np.split(rng.permutation(len(labels)), cuts)[:-1]

    return partition


def growing_sizes(clients: int, growth: str = "linear") -> Partition:
    """Sizes grow from client to client: n_i = floor(n g(i) / sum_j g(j)), i = 1 ... N, and the last also gets what rounding leaves.

    Args:
        clients: N.
        growth: "linear": g(i) = i; "square": i^2; "exponential": e^i.

    >>> [len(part) for part in growing_sizes(clients=4)(np.random.default_rng(0), np.zeros(103))]
    [10, 20, 30, 43]

    Source: `LinearPartitioner`, `SquarePartitioner` and `ExponentialPartitioner` of flwr-datasets 0.6.1.
    """
    integer("growing_sizes", "clients", clients, 1)
    word("growing_sizes", "growth", growth, tuple(_GROWTH))
    weight = _GROWTH[growth](np.arange(1.0, clients + 1), clients)

    def partition(rng, labels):
        n = len(labels)
        sizes = (weight * n / weight.sum()).astype(int)
        sizes[-1] += n - sizes.sum()
        if not sizes.all():
            raise ValueError(
                f"growing_sizes: clients={clients} with {growth} growth leave {(sizes == 0).sum()} of them without any of {n} examples: "
                "use fewer clients, or a slower growth"
            )
        return np.split(rng.permutation(n), np.cumsum(sizes)[:-1])

    return partition


def lognormal_sizes(clients: int, sigma: float | int, min_size: int = 1) -> Partition:
    """Sizes are lognormal, n_i ~ n w_i / sum_j w_j with w_i ~ LogNormal(0, sigma^2); redrawn until every client holds `min_size` examples.

    Args:
        clients: N.
        sigma: standard deviation of log w_i; 0 gives equal sizes, up to rounding.
        min_size: fewest examples a client may hold, at least 1.

    Raises:
        ValueError: also if 1000 draws in a row leave a client with fewer than `min_size` examples.

    >>> [len(part) for part in lognormal_sizes(clients=4, sigma=0.5)(np.random.default_rng(0), np.zeros(100))]
    [31, 24, 21, 24]

    Source: Acar et al. 2021, "Federated Learning Based on Dynamic Regularization" (FedDyn), section 4, unbalanced data.
    """
    integer("lognormal_sizes", "clients", clients, 1)
    positive("lognormal_sizes", "sigma", sigma, or_zero=True)
    integer("lognormal_sizes", "min_size", min_size, 1)

    def shares(rng):
        logarithm = sigma * rng.standard_normal(clients)
        weight = np.exp(logarithm - logarithm.max())
        return weight / weight.sum()

    call = f"lognormal_sizes(clients={clients}, sigma={sigma}, min_size={min_size})"
    return _random_sizes(call, clients, min_size, shares, "lower sigma")


def quantity_skew(clients: int, beta: float | int, min_size: int = 1) -> Partition:
    """Sizes are uneven, sizes ~ n * Dir_N(beta), and labels iid; redrawn until every client holds `min_size` examples.

    Args:
        clients: N.
        beta: concentration; smaller is more uneven.
        min_size: fewest examples a client may hold, at least 1.

    Raises:
        ValueError: also if 1000 draws in a row leave a client with fewer than `min_size` examples.

    >>> [len(part) for part in quantity_skew(clients=4, beta=5.0)(np.random.default_rng(0), np.zeros(100))]
    [21, 16, 27, 36]

    Source: Li et al. 2022, "Federated Learning on Non-IID Data Silos: An Experimental Study", section 4.
    """
    integer("quantity_skew", "clients", clients, 1)
    positive("quantity_skew", "beta", beta)
    integer("quantity_skew", "min_size", min_size, 1)

    def shares(rng):
        return rng.dirichlet(np.full(clients, beta))

    call = f"quantity_skew(clients={clients}, beta={beta}, min_size={min_size})"
    return _random_sizes(call, clients, min_size, shares, "raise beta")


def _random_sizes(call: str, clients: int, min_size: int, shares_fn: Any, remedy: str) -> Partition:
    """Make the partition with sizes in proportion to the shares that `shares_fn(rng)` draws."""

    def partition(rng, labels):
        n = len(labels)
        enough(call.partition("(")[0], clients, n, min_size)

        def draw():
            owner = np.empty(n, int)
            counts = proportional(shares_fn(rng), n)
            owner[rng.permutation(n)] = np.repeat(rng.permutation(clients), counts)  # a random client gets rounding's rest
            return owner

        return until_filled(draw, clients, min_size, call, f"{remedy}, or lower clients or min_size")

    return partition
