"""Partitions of examples sorted by label."""

import numpy as np

from fedjax_lite.data.partition.parts import Partition, enough, one_each
from fedjax_lite.refuse import a_share, integer


def shards(clients: int, shards_per_client: int | None = None, shard_size: int | None = None, keep_incomplete: bool = False) -> Partition:
    """Examples sorted by label, cut into equal shards, and a few random shards a client.

    Args:
        clients: N.
        shards_per_client: S, 2 by default: there are N * S shards. A shard that straddles two labels brings both.
        shard_size: examples a shard; by default n / (N * S), and sizes differ by at most one. With both, the examples after the first
            N * S shards are left out; with shard_size alone, there are as many shards as it makes, and some clients get one more.
        keep_incomplete: with shard_size alone, make a smaller last shard of the examples that are left over; they are left out otherwise.

    >>> labels = np.repeat(np.arange(4), 10)
    >>> [np.unique(labels[part]).tolist() for part in shards(clients=2)(np.random.default_rng(0), labels)]
    [[0, 2], [1, 3]]

    Source: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data", section 3; `shard_size` and
    `keep_incomplete` as in `ShardPartitioner` of flwr-datasets 0.6.1.
    """
    each = 2 if shards_per_client is None else shards_per_client
    integer("shards", "clients", clients, 1)
    integer("shards", "shards_per_client", each, 1)
    if shard_size is not None:
        integer("shards", "shard_size", shard_size, 1)

    def partition(rng, labels):
        n = len(labels)
        order = np.argsort(one_each("shards", labels), kind="stable")
        if shard_size is None:
            enough("shards", clients, n, each)
            cut = np.array_split(order, clients * each)
        else:
            cut = np.split(order, np.arange(shard_size, n, shard_size))
            if len(cut[-1]) < shard_size and not (keep_incomplete and shards_per_client is None):
                cut = cut[:-1]
            wanted = clients if shards_per_client is None else clients * each
            if len(cut) < wanted:
                raise ValueError(
                    f"shards: clients={clients} with shard_size={shard_size} need {wanted} shards, {n} examples make {len(cut)}: "
                    "lower shard_size or clients"
                )
            cut = cut if shards_per_client is None else cut[:wanted]
        dealt = np.array_split(rng.permutation(len(cut)), clients)
        return [np.concatenate([cut[shard] for shard in some]) for some in dealt]

    return partition


def similarity(clients: int, share: float | int) -> Partition:
    """A share s of each client's examples is iid, the rest is a piece of all the rest, sorted by label ("s% similarity").

    Client i gets a part of floor(s n) random examples, and piece i of the others in the order of their labels. Sizes differ by at most one.

    Args:
        clients: N.
        share: s in [0, 1]; 0: a client has one label or a few, 1: iid.

    >>> y = np.repeat(np.arange(4), 10)
    >>> [np.bincount(y[part], minlength=4).tolist() for part in similarity(clients=4, share=0.2)(np.random.default_rng(0), y)]
    [[7, 2, 1, 0], [1, 8, 1, 0], [1, 0, 8, 1], [1, 0, 0, 9]]

    Source: Karimireddy et al. 2020, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", section 7.
    """
    integer("similarity", "clients", clients, 1)
    a_share("similarity", "share", share, "[0, 1]")

    def partition(rng, labels):
        n = len(labels)
        enough("similarity", clients, n)
        order = rng.permutation(n)
        common = np.array_split(order[: int(share * n + 1e-9)], clients)  # 0.29 * 100 is 28.999...
        rest = order[int(share * n + 1e-9) :]
        rest = rest[np.argsort(one_each("similarity", labels)[rest], kind="stable")]
        size = [len(part) for part in np.array_split(order, clients)]
        ends = np.cumsum([whole - len(part) for whole, part in zip(size, common, strict=True)])
        return [np.concatenate(pair) for pair in zip(common, np.split(rest, ends[:-1]), strict=True)]

    return partition
