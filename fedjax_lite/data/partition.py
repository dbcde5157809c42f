"""Partitions deal a central data set to clients. Each factory returns a pure function of (rng, labels).

The function returns one int array of example indices a client: disjoint, and together all examples
(only `dirichlet_hsu` may leave a remainder). Every function with that signature is a partition; write your own freely.
`labels` has one label an example; of more labels, choose `labels[:, 0]`, or `np.unique(labels, axis=0, return_inverse=True)[1]`.
"""

from collections.abc import Callable

import numpy as np

__all__ = ["dirichlet", "dirichlet_class", "dirichlet_hsu", "iid", "labels_per_client", "quantity_skew", "shards"]

Partition = Callable[[np.random.Generator, np.ndarray], list[np.ndarray]]

_TRIES = 1000  # a draw that fails this often will practically never succeed


def iid(clients: int) -> Partition:
    """Examples in random order, cut into equal parts (sizes differ by at most one).

    Args:
        clients: N, at least 1 and at most the number of examples.

    >>> [part.tolist() for part in iid(clients=2)(np.random.default_rng(0), np.zeros(5))]
    [[2, 4, 3], [0, 1]]

    Source: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data", section 3.
    """
    _check_count("iid", "clients", clients)

    def partition(rng, labels):
        _check_enough("iid", clients, len(labels))
        return np.array_split(rng.permutation(len(labels)), clients)

    return partition


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
    _check_count("dirichlet", "clients", clients)
    _check_positive("dirichlet", "alpha", alpha)
    _check_count("dirichlet", "min_size", min_size)

    def partition(rng, labels):
        n = len(labels)
        _check_enough("dirichlet", clients, n, min_size)
        classes = _examples_by_class("dirichlet", labels)

        def draw():
            owner, held = np.empty(n, int), np.zeros(clients, int)
            for members in classes:
                # The last client gets the examples that rounding down leaves over: a random order makes that a random client.
                open_clients = rng.permutation(np.flatnonzero((held < n / clients) | (not balance)))
                counts = _proportional(rng.dirichlet(np.full(len(open_clients), alpha)), len(members))
                owner[rng.permutation(members)] = np.repeat(open_clients, counts)
                held[open_clients] += counts
            return owner

        return _until_filled(draw, clients, min_size, f"dirichlet(clients={clients}, alpha={alpha}, min_size={min_size})", "alpha")

    return partition


dirichlet = dirichlet_class


def dirichlet_hsu(clients: int, alpha: float | int) -> Partition:
    """Each CLIENT draws its own label mix; all clients are of one size.

    q_k ~ Dir(alpha * prior), prior = the data set's class shares. Client k draws floor(n / N) labels from q_k and one unused
    example for each; a class that runs out is removed and q_k renormalised. So E[q] = prior and
    Var[q] = prior (1 - prior) / (alpha + 1) until classes run out, and the last clients get what is left.

    Args:
        clients: N. The n mod N examples left over are left out.
        alpha: concentration.

    >>> parts = dirichlet_hsu(clients=4, alpha=0.5)(np.random.default_rng(0), np.arange(30) % 5)
    >>> [len(part) for part in parts]
    [7, 7, 7, 7]

    Source: Hsu, Qi, Brown 2019, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification".
    """
    _check_count("dirichlet_hsu", "clients", clients)
    _check_positive("dirichlet_hsu", "alpha", alpha)

    def partition(rng, labels):
        _check_enough("dirichlet_hsu", clients, len(labels))
        size = len(labels) // clients
        pools = [rng.permutation(members) for members in _examples_by_class("dirichlet_hsu", labels)]
        left = np.array([len(pool) for pool in pools])
        concentration = alpha * left / len(labels)
        parts = []
        for _ in range(clients):
            taken = _draw_labels(rng, concentration, left, size)
            left = left - taken
            parts.append(np.concatenate([pool[a : a + k] for pool, a, k in zip(pools, left, taken, strict=True)]))
        return parts

    return partition


def shards(clients: int, shards_per_client: int = 2) -> Partition:
    """Examples sorted by label, cut into equal shards, and a few random shards a client.

    Args:
        clients: N.
        shards_per_client: S; there are N * S shards. A shard that straddles two labels brings both.

    >>> labels = np.repeat(np.arange(4), 10)
    >>> [np.unique(labels[part]).tolist() for part in shards(clients=2)(np.random.default_rng(0), labels)]
    [[0, 2], [1, 3]]

    Source: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data", section 3.
    """
    _check_count("shards", "clients", clients)
    _check_count("shards", "shards_per_client", shards_per_client)

    def partition(rng, labels):
        _check_enough("shards", clients, len(labels), shards_per_client)
        cut = np.array_split(np.argsort(_one_each("shards", labels), kind="stable"), clients * shards_per_client)
        dealt = rng.permutation(len(cut)).reshape(clients, shards_per_client)
        return [np.concatenate([cut[shard] for shard in row]) for row in dealt]

    return partition


def labels_per_client(clients: int, labels: int) -> Partition:
    """Each client holds a fixed number of labels; a label's examples are split evenly among its holders (NIID-Bench "#C").

    Client i holds label i mod K, where there are K labels (and i + N, i + 2N ... if N < K, so that every label has a holder,
    which the paper's procedure leaves to chance); the rest of its labels are drawn at random.

    Args:
        clients: N.
        labels: C, how many distinct labels a client holds; at most K, and N * C at least K. A label needs an example for each holder.

    >>> y = np.repeat(np.arange(4), 10)
    >>> [len(np.unique(y[part])) for part in labels_per_client(clients=5, labels=3)(np.random.default_rng(0), y)]
    [3, 3, 3, 3, 3]

    Source: Li et al. 2022, "Federated Learning on Non-IID Data Silos: An Experimental Study", section 4.
    """
    _check_count("labels_per_client", "clients", clients)
    _check_count("labels_per_client", "labels", labels)

    def partition(rng, y):
        _check_enough("labels_per_client", clients, len(y))
        members = _examples_by_class("labels_per_client", y)
        if not len(members) / clients <= labels <= len(members):
            raise ValueError(
                f"labels_per_client(clients={clients}, labels={labels}) cannot share out {len(members)} labels: "
                f"labels must be at most {len(members)}, and clients * labels at least {len(members)}"
            )
        holds = np.zeros((clients, len(members)), bool)
        for i in range(clients):
            first = np.arange(i % len(members), len(members), clients)[:labels]
            others = np.setdiff1d(np.arange(len(members)), first)
            holds[i, np.concatenate([first, rng.choice(others, labels - len(first), replace=False)])] = True
        owner = np.empty(len(y), int)
        for label, rows in enumerate(members):
            holders = np.flatnonzero(holds[:, label])
            if len(rows) < len(holders):
                raise ValueError(
                    f"labels_per_client(clients={clients}, labels={labels}) gives label {y[rows[0]]} to {len(holders)} clients, "
                    f"and there are {len(rows)} examples of it: use fewer clients or labels, or leave that label out"
                )
            for client, part in zip(holders, np.array_split(rng.permutation(rows), len(holders)), strict=True):
                owner[part] = client
        return _by_owner(owner, clients)

    return partition


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
    _check_count("quantity_skew", "clients", clients)
    _check_positive("quantity_skew", "beta", beta)
    _check_count("quantity_skew", "min_size", min_size)

    def partition(rng, labels):
        n = len(labels)
        _check_enough("quantity_skew", clients, n, min_size)

        def draw():
            owner = np.empty(n, int)
            counts = _proportional(rng.dirichlet(np.full(clients, beta)), n)
            owner[rng.permutation(n)] = np.repeat(rng.permutation(clients), counts)  # a random client gets rounding's rest
            return owner

        return _until_filled(draw, clients, min_size, f"quantity_skew(clients={clients}, beta={beta}, min_size={min_size})", "beta")

    return partition


def _examples_by_class(factory, labels) -> list[np.ndarray]:
    classes, label = np.unique(_one_each(factory, labels), return_inverse=True)
    return _by_owner(label, len(classes))


def _one_each(factory, labels) -> np.ndarray:
    """Return `labels` as an array `[examples]`; refuse more than one label an example."""
    if np.ndim(labels) != 1:
        raise ValueError(
            f"{factory}: deals by one label an example, got labels of the shape {list(np.shape(labels))}: give the one to deal by, such as "
            "labels[:, 0], or iid"
        )
    return np.asarray(labels)


def _by_owner(owner, owners) -> list[np.ndarray]:
    """Return the indices, ascending, at which `owner` is 0, 1, ..., owners - 1."""
    return np.split(np.argsort(owner, kind="stable"), np.cumsum(np.bincount(owner, minlength=owners))[:-1])


def _proportional(share, n) -> np.ndarray:
    """Cut n into whole numbers proportional to `share`, whose sum is 1, rounding each cut down."""
    cuts = (np.cumsum(share) * n).astype(int)
    cuts[-1] = n
    return np.diff(cuts, prepend=0)


def _until_filled(draw, clients, min_size, call, concentration) -> list[np.ndarray]:
    """Draw owners until each client has `min_size` examples; return each client's examples, or raise after `_TRIES` draws."""
    for _ in range(_TRIES):
        owner = draw()
        if np.bincount(owner, minlength=clients).min() >= min_size:
            return _by_owner(owner, clients)
    raise ValueError(
        f"{call}: {_TRIES} draws of {len(owner)} examples all left a client with fewer than {min_size}: "
        f"raise {concentration}, or lower clients or min_size"
    )


def _draw_labels(rng, concentration, left, size) -> np.ndarray:
    """Draw the number of examples of each class that a client takes: in bulk with redraws, which equals one after another."""
    share = rng.dirichlet(concentration)
    taken = np.zeros_like(left)
    while need := size - taken.sum():
        available = taken < left
        share = np.where(available, share, 0)
        if not share.any():
            # Shares too small for a float: parts of a Dirichlet are Dirichlet, independent of the parts removed.
            share[available] = rng.dirichlet(concentration[available])
        taken = np.minimum(taken + rng.multinomial(need, share / share.sum()), left)
    return taken


def _check_count(factory, name, value):
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{factory}: {name} must be an int of at least 1, got {value!r}")


def _check_positive(factory, name, value):
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 < value < np.inf:
        raise ValueError(f"{factory}: {name} must be a finite number above 0, got {value!r}")


def _check_enough(factory, clients, n, each=1):
    if clients * each > n:
        raise ValueError(
            f"{factory}: clients={clients} with at least {each} example(s) each need {clients * each}, there are {n}: use fewer clients"
        )
