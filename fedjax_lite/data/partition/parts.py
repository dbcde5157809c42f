"""What partitions are made of: examples by class, whole numbers in proportion, draws repeated until every client has enough."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "By",
    "Partition",
    "by_counts",
    "by_owner",
    "check_inner",
    "checked_sizes",
    "enough",
    "examples_by_class",
    "in_proportion",
    "one_each",
    "proportional",
    "until_filled",
    "word",
]

Partition = Callable[[np.random.Generator, np.ndarray], list[np.ndarray]]

_TRIES = 1000  # a draw that fails this often will practically never succeed


@dataclass(frozen=True)
class By:
    """A partition that is handed another leaf of the examples in the place of their labels."""

    leaf: str
    partition: Partition

    def __call__(self, rng: np.random.Generator, labels: np.ndarray) -> list[np.ndarray]:
        """Deal by `labels`, which are this leaf's values."""
        return self.partition(rng, labels)


def examples_by_class(factory: str, labels: Any) -> list[np.ndarray]:
    """Return the indices of each class's examples, the classes in order."""
    classes, label = np.unique(one_each(factory, labels), return_inverse=True)
    return by_owner(label, len(classes))


def one_each(factory: str, labels: Any) -> np.ndarray:
    """Return `labels` as an array `[examples]`; refuse more than one label an example."""
    if np.ndim(labels) != 1:
        raise ValueError(
            f"{factory}: deals by one label an example, got labels of the shape {list(np.shape(labels))}: give the one to deal by, such as "
            "labels[:, 0], or iid"
        )
    return np.asarray(labels)


def by_owner(owner: np.ndarray, owners: int) -> list[np.ndarray]:
    """Return the indices, ascending, at which `owner` is 0, 1, ..., owners - 1."""
    return np.split(np.argsort(owner, kind="stable"), np.cumsum(np.bincount(owner, minlength=owners))[:-1])


def by_counts(rng: np.random.Generator, members: list[np.ndarray], counts: np.ndarray) -> list[np.ndarray]:
    """Give each client random examples of each class, as many as `counts`, int `[clients, classes]`, says."""
    clients = len(counts)
    owner = np.full(sum(map(len, members)), clients)  # nobody
    for rows, column in zip(members, counts.T, strict=True):
        owner[rng.permutation(rows)[: column.sum()]] = np.repeat(np.arange(clients), column)
    return by_owner(owner, clients + 1)[:clients]


def in_proportion(weights: np.ndarray, n: int) -> np.ndarray:
    """Cut n into whole numbers in proportion to `weights`; what rounding down leaves goes to the largest remainders (Hamilton's method)."""
    exact = weights / weights.max()
    exact = exact / exact.sum() * n
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: n - counts.sum()]] += 1
    return counts


def proportional(share: np.ndarray, n: int) -> np.ndarray:
    """Cut n into whole numbers proportional to `share`, whose sum is 1, rounding each cut down."""
    cuts = (np.cumsum(share) * n).astype(int)
    cuts[-1] = n
    return np.diff(cuts, prepend=0)


def until_filled(draw: Callable[[], np.ndarray], clients: int, min_size: int, call: str, remedy: str) -> list[np.ndarray]:
    """Draw owners until each client has `min_size` examples; return each client's examples, or raise after `_TRIES` draws."""
    for _ in range(_TRIES):
        owner = draw()
        if np.bincount(owner, minlength=clients).min() >= min_size:
            return by_owner(owner, clients)
    raise ValueError(f"{call}: {_TRIES} draws of {len(owner)} examples all left a client with fewer than {min_size}: {remedy}")


def check_inner(factory: str, inner: Any) -> None:
    """Refuse what is no partition by labels."""
    if not callable(inner) or isinstance(inner, By):
        raise TypeError(f"{factory}: inner must be a partition by labels, such as fl.partition.iid(clients=10), got {inner!r}")


def checked_sizes(factory: str, inner: Any, rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Return the sizes of the parts that `inner` makes, int `[clients]`."""
    sizes = np.array([len(part) for part in inner(rng, labels)], int)
    if sizes.sum() > len(labels):
        raise ValueError(f"{factory}: the parts of inner hold {sizes.sum()} examples, there are {len(labels)}: make them disjoint")
    return sizes


def enough(factory: str, clients: int, n: int, each: int = 1) -> None:
    """Refuse clients that n examples cannot fill with `each` examples."""
    if clients * each > n:
        raise ValueError(
            f"{factory}: clients={clients} with at least {each} example(s) each need {clients * each}, there are {n}: use fewer clients"
        )


def word(factory: str, argument: str, value: Any, words: tuple[str, ...]) -> None:
    """Refuse a value that is none of `words`."""
    if value not in words:
        raise ValueError(f"{factory}: {argument} must be one of {', '.join(map(repr, words))}, got {value!r}")
