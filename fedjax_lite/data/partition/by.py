"""Partitions by something else than labels: whose examples they are, a number that each has."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedjax_lite.data.names import in_order
from fedjax_lite.data.partition.parts import By, Partition, by_owner, check_inner, enough, one_each, word
from fedjax_lite.refuse import a_share, integer

_MODES = ("allow-smaller", "allow-bigger", "drop-remainder", "strict")


def by(values: str | Sequence[Any] | np.ndarray, inner: Any) -> Partition:
    """The partition `inner`, of other values than the labels.

    Args:
        values: the name of a leaf of the examples, or one value an example; "client" is whose they are, where files say that.
        inner: a partition, such as dirichlet(clients=10, alpha=0.3), or your own.

    >>> from fedjax_lite.data import partition
    >>> sorted_by = by(["a", "b", "b", "a"], partition.shards(clients=2, shards_per_client=1))
    >>> [part.tolist() for part in sorted_by(np.random.default_rng(0), np.arange(4))]
    [[0, 3], [1, 2]]
    """
    check_inner("by", inner)
    if isinstance(values, str):
        return By(values, inner)
    fixed = np.asarray(values)

    def partition(rng, labels):
        if len(fixed) != len(labels):
            raise ValueError(f"by: values are {len(fixed)}, there are {len(labels)} examples: give one an example")
        return inner(rng, fixed)

    return partition


def natural(ids: str | Sequence[Any] | np.ndarray, group_size: int = 1, mode: str = "allow-smaller") -> Partition:
    """Examples of one id, a writer or a hospital, are one client; or those of a group of ids.

    Ids are sorted, numbers as numbers; group 0 is the first `group_size` of them.

    Args:
        ids: the name of a leaf of the examples, such as "writer", or one id an example; "client" is whose they are, where files say that.
        group_size: ids a client.
        mode: if group_size does not divide the number of ids, the last group is smaller ("allow-smaller"); or there is one group less,
            and some are bigger ("allow-bigger"); or its examples are left out ("drop-remainder"); or that is refused ("strict").

    >>> y = np.zeros(5)
    >>> [part.tolist() for part in natural(["b", "a", "b", "c", "a"])(np.random.default_rng(0), y)]
    [[1, 4], [0, 2], [3]]
    >>> [part.tolist() for part in natural(["b", "a", "b", "c", "a"], group_size=2)(np.random.default_rng(0), y)]
    [[0, 1, 2, 4], [3]]

    Source: Caldas et al. 2018, "LEAF: A Benchmark for Federated Settings"; groups as in `GroupedNaturalIdPartitioner` of flwr-datasets
    0.6.1.
    """
    integer("natural", "group_size", group_size, 1)
    word("natural", "mode", mode, _MODES)

    def partition(rng, values):
        known, place = np.unique(one_each("natural", values), return_inverse=True)
        if known.dtype.kind == "f" and np.isnan(known).any():
            raise ValueError("natural: ids hold NaN: every example needs an id")
        if known.dtype.kind == "U":
            rank = {name: i for i, name in enumerate(in_order(known.tolist()))}
            place = np.array([rank[name] for name in known.tolist()])[place]
        sizes = _group_sizes(len(known), group_size, mode)
        group = np.full(len(known), len(sizes))  # no client's
        group[: sum(sizes)] = np.repeat(np.arange(len(sizes)), sizes)
        return by_owner(group[place], len(sizes) + 1)[:-1]

    return by(ids, partition)


def continuous(clients: int, values: str | Sequence[Any] | np.ndarray, strictness: float | int = 1.0) -> Partition:
    """Clients hold ranges of a number that each example has, an age or an hour, more or less strictly.

    Examples are sorted by s z + (1 - s) e, with z the standardised number and e ~ N(0, 1), and cut into equal parts.

    Args:
        clients: N.
        values: the name of a leaf of the examples, one number each, or one number an example.
        strictness: s in [0, 1]; 1: disjoint ranges, 0: iid.

    Raises:
        ValueError: also for numbers that are not finite, or all equal.

    >>> parts = continuous(clients=2, values=[0.3, 0.1, 0.9, 0.5])(np.random.default_rng(0), np.zeros(4))
    >>> [sorted(part.tolist()) for part in parts]
    [[0, 1], [2, 3]]

    Source: `ContinuousPartitioner` of flwr-datasets 0.6.1.
    """
    integer("continuous", "clients", clients, 1)
    a_share("continuous", "strictness", strictness, "[0, 1]")

    def partition(rng, numbers):
        enough("continuous", clients, len(numbers))
        numbers = one_each("continuous", numbers)
        if numbers.dtype.kind not in "biuf" or not np.isfinite(numbers).all():
            raise ValueError("continuous: values must be finite numbers: clean or drop the other examples")
        numbers = numbers.astype(float)
        spread = numbers.std()
        if not spread and strictness:
            raise ValueError(f"continuous: values are all {numbers[0]}: deal by another leaf, or set strictness=0")
        standard = (numbers - numbers.mean()) / (spread or 1)
        order = np.argsort(strictness * standard + (1 - strictness) * rng.standard_normal(len(numbers)), kind="stable")
        return np.array_split(order, clients)

    return by(values, partition)


def _group_sizes(ids, group_size, mode) -> list[int]:
    """Return the number of ids of each group."""
    groups, rest = divmod(ids, group_size)
    if rest and mode == "strict" or not groups and mode != "allow-smaller":
        raise ValueError(f"natural: group_size={group_size} with mode {mode!r} does not fit {ids} ids: choose another size or mode")
    if mode == "allow-bigger":
        return [len(part) for part in np.array_split(np.arange(ids), groups)]
    return [group_size] * groups + [rest] * (rest > 0 and mode == "allow-smaller")
