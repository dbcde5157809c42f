"""Partitions deal a central data set to clients. Each factory returns a pure function of (rng, labels).

The function returns one int array of example indices a client: disjoint, and together all examples (a factory that may leave some out
says which). Every function with that signature is a partition; write your own freely. `labels` has one label an example; of more labels,
choose `labels[:, 0]`, or `np.unique(labels, axis=0, return_inverse=True)[1]`.
"""

from fedjax_lite.data.partition.by import by, continuous, natural
from fedjax_lite.data.partition.dirichlet import dirichlet, dirichlet_class, dirichlet_feddf
from fedjax_lite.data.partition.holders import labels_per_client, power_law
from fedjax_lite.data.partition.matrices import class_shares, label_mix
from fedjax_lite.data.partition.mixes import dirichlet_hsu, inner_dirichlet
from fedjax_lite.data.partition.parts import Partition as Partition
from fedjax_lite.data.partition.sizes import given_sizes, growing_sizes, iid, lognormal_sizes, quantity_skew
from fedjax_lite.data.partition.sorted import shards, similarity

__all__ = [
    "by",
    "class_shares",
    "continuous",
    "dirichlet",
    "dirichlet_class",
    "dirichlet_feddf",
    "dirichlet_hsu",
    "given_sizes",
    "growing_sizes",
    "iid",
    "inner_dirichlet",
    "label_mix",
    "labels_per_client",
    "lognormal_sizes",
    "natural",
    "power_law",
    "quantity_skew",
    "shards",
    "similarity",
]
