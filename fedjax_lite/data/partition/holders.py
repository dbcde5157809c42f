"""Partitions that decide which clients hold a label, and how its examples are shared out among them."""

import numpy as np

from fedjax_lite.data.partition.parts import Partition, by_counts, enough, examples_by_class, in_proportion, word
from fedjax_lite.refuse import integer, positive

_ASSIGNMENTS = ("first-deterministic", "deterministic", "random")


def labels_per_client(clients: int, labels: int, assignment: str = "first-deterministic") -> Partition:
    """Each client holds a fixed number of labels; a label's examples are split evenly among its holders (NIID-Bench "#C").

    Client i holds label i mod K, where there are K labels (and i + N, i + 2N ... if N < K, so that every label has a holder,
    which the paper's procedure leaves to chance); the rest of its labels are drawn at random.

    Args:
        clients: N.
        labels: C, how many distinct labels a client holds; at most K, and N * C at least K. A label needs an example for each holder.
        assignment: "first-deterministic": the above; "deterministic": client i holds labels i, i + 1 ... i + C - 1, mod K; "random": C
            labels drawn at random. With the latter two, labels that no client holds are left out, and N * C may be less than K.

    >>> y = np.repeat(np.arange(4), 10)
    >>> [len(np.unique(y[part])) for part in labels_per_client(clients=5, labels=3)(np.random.default_rng(0), y)]
    [3, 3, 3, 3, 3]

    Source: Li et al. 2022, "Federated Learning on Non-IID Data Silos: An Experimental Study", section 4; the assignments are those of
    `PathologicalPartitioner` of flwr-datasets 0.6.1.
    """
    integer("labels_per_client", "clients", clients, 1)
    integer("labels_per_client", "labels", labels, 1)
    word("labels_per_client", "assignment", assignment, _ASSIGNMENTS)

    def partition(rng, y):
        enough("labels_per_client", clients, len(y))
        members = examples_by_class("labels_per_client", y)
        call, fewest = f"labels_per_client(clients={clients}, labels={labels})", len(members) / clients
        if not (fewest if assignment == "first-deterministic" else 1) <= labels <= len(members):
            raise ValueError(
                f"{call} cannot share out {len(members)} labels: labels must be at most {len(members)}, and clients * labels at least "
                f"{len(members)}"
            )
        holds = _holders(rng, clients, len(members), labels, assignment)
        _check_held(call, "clients or labels", y, members, holds, 1)
        counts = np.zeros(holds.shape, int)
        for label, rows in enumerate(members):
            holders = np.flatnonzero(holds[:, label])
            counts[holders, label] = len(rows) // max(len(holders), 1)
            counts[holders[: len(rows) - counts[:, label].sum()], label] += 1
        return by_counts(rng, members, counts)

    return partition


def power_law(clients: int, labels: int = 2, sigma: float | int = 2.0, at_least: int = 5) -> Partition:
    """Each client holds a few labels, a few examples of each, and more by lognormal weights: sizes have a heavy tail.

    Client i holds labels i, i + 1 ... i + C - 1, mod K, and `at_least` examples of each. What is left of a label is shared out among its
    holders in proportion to weights ~ LogNormal(0, sigma^2).

    Args:
        clients: N (the paper: 1000 for MNIST).
        labels: C, at most K, the number of labels. Labels that no client holds, of N < K clients, are left out.
        sigma: standard deviation of the weights' logarithms.
        at_least: examples of each of its labels that a client holds, at least 1.

    Raises:
        ValueError: also if a label has too few examples for its holders.

    >>> parts = power_law(clients=6)(np.random.default_rng(0), np.arange(300) % 3)
    >>> [len(part) for part in parts]
    [26, 28, 23, 100, 48, 75]

    Source: Li et al. 2020, "Federated Optimization in Heterogeneous Networks" (FedProx), section 5.1, and its code for MNIST, which drops
    what rounding down leaves; here the largest remainders get it.
    """
    integer("power_law", "clients", clients, 1)
    integer("power_law", "labels", labels, 1)
    positive("power_law", "sigma", sigma, or_zero=True)
    integer("power_law", "at_least", at_least, 1)

    def partition(rng, y):
        enough("power_law", clients, len(y), labels * at_least)
        members = examples_by_class("power_law", y)
        call = f"power_law(clients={clients}, labels={labels}, at_least={at_least})"
        if labels > len(members):
            raise ValueError(f"{call} needs {labels} labels, there are {len(members)}: lower labels")
        holds = _holders(rng, clients, len(members), labels, "deterministic")
        _check_held(call, "clients or labels, a lower at_least", y, members, holds, at_least)
        counts = at_least * holds
        for label, rows in enumerate(members):
            holders = np.flatnonzero(holds[:, label])
            weights = sigma * rng.standard_normal(len(holders))
            if len(holders):
                counts[holders, label] += in_proportion(np.exp(weights - weights.max()), len(rows) - len(holders) * at_least)
        return by_counts(rng, members, counts)

    return partition


def _holders(rng, clients, classes, labels, assignment) -> np.ndarray:
    """Return which labels each client holds, bool `[clients, classes]`."""
    holds = np.zeros((clients, classes), bool)
    for i in range(clients):
        first = {
            "first-deterministic": np.arange(i % classes, classes, clients)[:labels],
            "deterministic": (i + np.arange(labels)) % classes,
            "random": np.arange(0),
        }[assignment]
        others = np.setdiff1d(np.arange(classes), first)
        holds[i, np.concatenate([first, rng.choice(others, labels - len(first), replace=False)])] = True
    return holds


def _check_held(call, fewer, y, members, holds, each) -> None:
    """Refuse a label that has less than `each` examples for each of its holders."""
    for rows, holders in zip(members, holds.sum(axis=0), strict=True):
        if len(rows) < holders * each:
            raise ValueError(
                f"{call} gives label {y[rows[0]]} to {holders} clients, and there are {len(rows)} examples of it: use fewer {fewer}, "
                "or leave that label out"
            )
