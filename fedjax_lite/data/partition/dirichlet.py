"""Partitions that share each class out by a Dirichlet draw over clients."""

import numpy as np

from fedjax_lite.data.partition.parts import Partition, enough, examples_by_class, one_each, proportional, until_filled
from fedjax_lite.refuse import integer, positive


def dirichlet_class(clients: int, alpha: float | int, min_size: int = 1, balance: bool = True) -> Partition:
    """Each CLASS is shared out by its own Dirichlet draw; labels and sizes are both uneven. `dirichlet` is this function.

    For each class in turn, p ~ Dir_N(alpha) over the clients, and the class is cut at cumsum(p) * n_class, rounded down.
    Clients that already hold n / N examples get no more (the papers set their p to 0 and renormalise; drawing p over the
    other clients has the same distribution and cannot divide by 0). The whole draw is repeated until every
    client holds `min_size` examples.

    Args:
        clients: N.
        alpha: concentration; 100 is almost iid, 0.1 gives a client few labels.
        min_size: fewest examples a client may hold, at least 1 (NIID-Bench uses 10).
        balance: False lets clients that hold n / N examples get more: sizes differ more, and labels less.

    Raises:
        ValueError: also if 1000 draws in a row leave a client with fewer than `min_size` examples.

    >>> parts = dirichlet(clients=3, alpha=1.0)(np.random.default_rng(0), np.arange(30) % 5)
    >>> sorted(np.concatenate(parts).tolist()) == list(range(30))
    True

    Source: Yurochkin et al. 2019, "Bayesian Nonparametric Federated Learning of Neural Networks"; with the balance rule and
    the retries of Li et al. 2022, "Federated Learning on Non-IID Data Silos" (NIID-Bench).
    """
    integer("dirichlet", "clients", clients, 1)
    positive("dirichlet", "alpha", alpha)
    integer("dirichlet", "min_size", min_size, 1)

    def partition(rng, labels):
        enough("dirichlet", clients, len(labels), min_size)
        call = f"dirichlet(clients={clients}, alpha={alpha}, min_size={min_size})"
        return _dealt(rng, examples_by_class("dirichlet", labels), clients, alpha, balance, min_size, call, "clients or min_size")

    return partition


dirichlet = dirichlet_class


def dirichlet_feddf(clients: int, alpha: float | int, group_size: int = 10, recut: bool = False) -> Partition:
    """`dirichlet_class` within groups of clients, each of which shares its own random part of the examples out.

    Examples in random order are cut into parts of floor(G n / N), one a group of G clients; the last group has the clients and examples
    that are left. In each, classes are dealt as in `dirichlet_class`, until all its clients hold half of their mean, rounded down.

    Args:
        clients: N.
        alpha: concentration.
        group_size: G. A class goes mainly to a few clients of every group, whatever N is.
        recut: join the parts and cut them into equal ones, as the authors' code goes on to do: a client gets the end of one part and the
            beginning of the next.

    Raises:
        ValueError: also if 1000 draws in a row leave a client of a group with fewer examples.

    >>> parts = dirichlet_feddf(clients=4, alpha=1.0, group_size=2)(np.random.default_rng(0), np.arange(40) % 5)
    >>> [len(part) for part in parts]
    [12, 8, 10, 10]

    Source: Lin et al. 2020, "Ensemble Distillation for Robust Model Fusion in Federated Learning", section 4.1, and its code.
    """
    integer("dirichlet_feddf", "clients", clients, 1)
    positive("dirichlet_feddf", "alpha", alpha)
    integer("dirichlet_feddf", "group_size", group_size, 1)

    def partition(rng, labels):
        n = len(labels)
        enough("dirichlet_feddf", clients, n)
        labels = one_each("dirichlet_feddf", labels)
        groups = -(-clients // group_size)
        parts = []
        for group, rows in enumerate(np.split(rng.permutation(n), group_size * n // clients * np.arange(1, groups))):
            members = min(group_size, clients - group * group_size)
            min_size = max(1, len(rows) // (2 * members))
            classes = [rows[places] for places in examples_by_class("dirichlet_feddf", labels[rows])]
            call = f"dirichlet_feddf(clients={clients}, alpha={alpha}, group_size={group_size})"
            parts += _dealt(rng, classes, members, alpha, True, min_size, call, "clients or group_size")
        return np.array_split(np.concatenate(parts), clients) if recut else parts

    return partition


def _dealt(rng, classes, clients, alpha, balance, min_size, call, other) -> list[np.ndarray]:
    """Share each class, an array of examples, out by its own draw, until every client has `min_size` examples."""
    members = np.concatenate(classes)
    places = np.split(np.arange(len(members)), np.cumsum([len(each) for each in classes])[:-1])

    def draw():
        owner, held = np.empty(len(members), int), np.zeros(clients, int)
        for each in places:
            # The last client gets the examples that rounding down leaves over: a random order makes that a random client.
            open_clients = rng.permutation(np.flatnonzero((held < len(members) / clients) | (not balance)))
            counts = proportional(rng.dirichlet(np.full(len(open_clients), alpha)), len(each))
            owner[rng.permutation(each)] = np.repeat(open_clients, counts)
            held[open_clients] += counts
        return owner

    return [np.sort(members[part]) for part in until_filled(draw, clients, min_size, call, f"raise alpha, or lower {other}")]
