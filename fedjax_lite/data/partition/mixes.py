"""Partitions whose clients each draw their own label mix from a Dirichlet distribution."""

from bisect import bisect_right
from typing import Any

import numpy as np

from fedjax_lite.data.partition.parts import Partition, check_inner, checked_sizes, enough, examples_by_class, word
from fedjax_lite.refuse import integer, positive


def dirichlet_hsu(clients: int, alpha: float | int, prior: str = "data") -> Partition:
    """Each CLIENT draws its own label mix; all clients are of one size.

    q_k ~ Dir(alpha * prior), prior = the data set's class shares. Client k draws floor(n / N) labels from q_k and one unused
    example for each; a class that runs out is removed and q_k renormalised. So E[q] = prior and
    Var[q] = prior (1 - prior) / (alpha + 1) until classes run out, and the last clients get what is left.

    Args:
        clients: N. The n mod N examples left over are left out.
        alpha: concentration.
        prior: "data", the class shares; or "ones": Dir(alpha * 1), whose concentration is alpha times the number of classes.

    >>> parts = dirichlet_hsu(clients=4, alpha=0.5)(np.random.default_rng(0), np.arange(30) % 5)
    >>> [len(part) for part in parts]
    [7, 7, 7, 7]

    Source: Hsu, Qi, Brown 2019, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification".
    """
    integer("dirichlet_hsu", "clients", clients, 1)
    positive("dirichlet_hsu", "alpha", alpha)
    word("dirichlet_hsu", "prior", prior, ("data", "ones"))

    def partition(rng, labels):
        enough("dirichlet_hsu", clients, len(labels))
        size = len(labels) // clients
        pools = [rng.permutation(members) for members in examples_by_class("dirichlet_hsu", labels)]
        left = np.array([len(pool) for pool in pools])
        concentration = _concentration(alpha, prior, left)
        parts = []
        for _ in range(clients):
            taken = _draw_labels(rng, concentration, left, size)
            left = left - taken
            parts.append(np.concatenate([pool[a : a + k] for pool, a, k in zip(pools, left, taken, strict=True)]))
        return parts

    return partition


def inner_dirichlet(inner: Any, alpha: float | int, prior: str = "ones") -> Partition:
    """Each client draws its own label mix, its size is given, and clients fill up in turns.

    q_k ~ Dir(alpha * 1). Until all are full, a random client that is not takes an unused example of a label drawn from q_k; a class
    that runs out is removed from every q and these renormalised. Classes so run out for all clients at a time, and not, as in
    `dirichlet_hsu`, for the last.

    Args:
        inner: a partition with the sizes wanted, such as iid(clients=100), lognormal_sizes(clients=100, sigma=0.3), given_sizes([...]);
            what it leaves out is left out.
        alpha: concentration.
        prior: "ones", or "data": Dir(alpha * the data set's class shares).

    >>> from fedjax_lite.data import partition
    >>> sizes = partition.given_sizes([4, 20])
    >>> parts = inner_dirichlet(sizes, alpha=0.5)(np.random.default_rng(0), np.arange(30) % 5)
    >>> [len(part) for part in parts]
    [4, 20]

    Source: Acar et al. 2021, "Federated Learning Based on Dynamic Regularization" (FedDyn), section 4, and its code;
    `InnerDirichletPartitioner` of flwr-datasets 0.6.1.
    """
    check_inner("inner_dirichlet", inner)
    positive("inner_dirichlet", "alpha", alpha)
    word("inner_dirichlet", "prior", prior, ("data", "ones"))

    def partition(rng, labels):
        pools = [rng.permutation(members) for members in examples_by_class("inner_dirichlet", labels)]
        sizes = checked_sizes("inner_dirichlet", inner, rng, labels)
        return _in_turns(rng, sizes, pools, _concentration(alpha, prior, np.array([len(pool) for pool in pools])))

    return partition


def _concentration(alpha, prior, counts) -> np.ndarray:
    """Return the parameters of a Dirichlet distribution over classes."""
    return alpha * counts / counts.sum() if prior == "data" else np.full(len(counts), float(alpha))


def _draw_labels(rng, concentration, left, size) -> np.ndarray:
    """Draw the number of examples of each class that a client takes: in bulk with redraws, which equals one after another."""
    share = rng.dirichlet(concentration)
    taken = np.zeros_like(left)
    while need := size - taken.sum():
        share = _of_available(rng, share, concentration, taken < left)
        taken = np.minimum(taken + rng.multinomial(need, share / share.sum()), left)
    return taken


def _of_available(rng, share, concentration, available) -> np.ndarray:
    """Set the shares of classes that have run out to 0."""
    share = np.where(available, share, 0)
    if not share.any():
        # Shares too small for a float: parts of a Dirichlet are Dirichlet, independent of the parts removed.
        share[available] = rng.dirichlet(concentration[available])
    return share


def _in_turns(rng, sizes, pools, concentration) -> list[np.ndarray]:
    """Give examples to random clients that are not full, one by one, each of a label drawn from the client's mix."""
    mixes = rng.dirichlet(concentration, len(sizes))
    left, wanted = np.array([len(pool) for pool in pools]), sizes.tolist()
    parts: list[list[int]] = [[] for _ in sizes]
    hungry, edges = np.flatnonzero(sizes).tolist(), None
    for which, what in rng.random((sum(wanted), 2)).tolist():
        if edges is None:
            mixes = np.stack([_of_available(rng, mix, concentration, left > 0) for mix in mixes])
            edges = np.cumsum(mixes, axis=1)
            edges = (edges / edges[:, -1:]).tolist()
        place = int(which * len(hungry))
        client = hungry[place]
        label = bisect_right(edges[client], what)
        left[label] -= 1
        parts[client].append(pools[label][left[label]])
        if len(parts[client]) == wanted[client]:
            hungry.pop(place)
        if not left[label]:
            edges = None  # so that this class is removed
    return [np.array(part, int) for part in parts]
