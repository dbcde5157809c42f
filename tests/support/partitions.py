"""Partitions to ask something of each, and what tests count of their parts."""

import numpy as np

from fedjax_lite.data import partition

LABELS = np.random.default_rng(7).integers(0, 10, 1000)
AGES = np.random.default_rng(8).normal(size=1000)
WRITERS = np.random.default_rng(9).permutation(np.arange(1000) % 20)
MIX = np.random.default_rng(10).dirichlet(np.ones(10), 20)

# Every name, with 20 clients; these hold all 1000 examples.
COVERING = {
    "by": partition.by(WRITERS, partition.shards(20)),
    "class_shares": partition.class_shares(MIX.tolist()),
    "continuous": partition.continuous(20, AGES, 0.5),
    "dirichlet": partition.dirichlet(20, 0.5),
    "dirichlet_class": partition.dirichlet_class(20, 0.5, min_size=5),
    "dirichlet_feddf": partition.dirichlet_feddf(20, 0.5),
    "dirichlet_hsu": partition.dirichlet_hsu(20, 0.5),
    "growing_sizes": partition.growing_sizes(20),
    "iid": partition.iid(20),
    "inner_dirichlet": partition.inner_dirichlet(partition.quantity_skew(20, 1.0), 0.5),
    "labels_per_client": partition.labels_per_client(20, 3),
    "lognormal_sizes": partition.lognormal_sizes(20, 1.0),
    "natural": partition.natural(WRITERS),
    "power_law": partition.power_law(20),
    "quantity_skew": partition.quantity_skew(20, 1.0),
    "shards": partition.shards(20),
    "similarity": partition.similarity(20, 0.3),
}
# And these hold those that they are asked for: 10 each.
SOME = {
    "given_sizes": partition.given_sizes([10] * 20),
    "label_mix": partition.label_mix(partition.given_sizes([10] * 20), MIX.tolist()),
}
EVERY = COVERING | SOME


def deal(function, labels=LABELS, seed=0):
    return function(np.random.default_rng(seed), labels)


def sizes(parts):
    return [len(part) for part in parts]


def class_table(labels, parts, classes):
    """How many examples of each class each client has, `[clients, classes]`."""
    return np.stack([np.bincount(labels[part], minlength=classes) for part in parts])


def shares(labels, parts, classes):
    counts = class_table(labels, parts, classes)
    return counts / counts.sum(axis=1, keepdims=True)


def assert_cover(parts, n):
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(n))
