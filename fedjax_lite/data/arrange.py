"""From what a file's reader found to a population: natural clients or dealt ones, a test part from the files or held out."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from fedjax_lite.data.deal import check_fraction, deal, gather, generator, held_out
from fedjax_lite.data.error import DataError
from fedjax_lite.data.federated import FederatedData
from fedjax_lite.data.names import in_order
from fedjax_lite.data.train_test import TrainTest

__all__ = ["Part", "arrange"]


class Part(NamedTuple):
    """One part of a data set as a reader found it: its examples, and whose they are."""

    examples: dict[str, np.ndarray]  # leaves [examples, ...]
    client: np.ndarray | None = None  # int [examples], the place of each example's client in `names`; None: the files name no clients
    names: Sequence[str] = ()
    where: str = "the test part"  # the file or folder, for errors


def arrange(
    train: Part, test: Part | None = None, *, partition: Any = None, share: Any = 0.2, seed: Any = 0, words: Sequence[str] | None = None
) -> TrainTest:
    """Make a population of what was read.

    Natural clients are sorted by name (`in_order`), and client i of both parts is one name. A test part none of whose clients trains is
    one central set (population 1), and so is one that names no clients, or whose training part is dealt.

    Args:
        train, test: what the files hold; test None: they have no test part.
        partition: deals the training examples anew, by whose they are if it deals by "client"; None: keep the natural clients.
        share: of its examples that each client holds out where there is no test part.
        seed: of the partition, and of what is held out.
        words: the class names.

    Raises:
        ValueError: for files that name no clients, without a partition.
        DataError: for a test part of which only some clients train.
    """
    check_fraction(share)
    words = None if words is None else tuple(words)
    if partition is not None:
        beside = {} if train.client is None else {"client": np.asarray(train.names)[train.client]}
        dealt = deal(train.examples, partition, seed=seed, test=share if test is None else 0, beside=beside)
        parts = dealt if test is None else dealt._replace(test=_central(test))
    elif train.client is None:
        raise ValueError("partition: these files name no clients, so give a partition that deals their examples, such as iid(clients=10)")
    else:
        names = in_order(_held(train))
        parts = TrainTest(_named(train, names), _aligned(test, names)) if test is not None else _split(train, names, share, seed)
    return TrainTest(*(part and replace(part, words=words) for part in parts))


def _held(part: Part) -> list[str]:
    """Return the names of the clients that have examples."""
    return [part.names[i] for i in np.flatnonzero(np.bincount(np.asarray(part.client))).tolist()]


def _named(part: Part, names: Sequence[str]) -> FederatedData:
    """Make a population with the clients `names`; one that the part lacks has 0 examples."""
    return FederatedData.from_arrays(part.examples, _rows(part, names), population=len(names), allow_empty=True, names=names)


def _rows(part: Part, names: Sequence[str]) -> np.ndarray:
    """Return the place of each example's client in `names`."""
    row = {name: i for i, name in enumerate(names)}
    small = np.min_scalar_type(-len(names))  # NumPy sorts small integers in one pass
    return np.array([row.get(name, -1) for name in part.names], small)[np.asarray(part.client)]


def _split(part: Part, names: Sequence[str], share: Any, seed: Any) -> TrainTest:
    """Hold a share of each client's examples out: `split` of the population, without a copy of it."""
    if share == 0:
        return TrainTest(_named(part, names), None)
    rows = _rows(part, names)
    of_clients = np.split(np.argsort(rows, kind="stable"), np.cumsum(np.bincount(rows))[:-1])

    def some(rows: list[np.ndarray]) -> FederatedData:
        return gather(part.examples, rows, names=names)

    return TrainTest(*map(some, held_out(generator(seed), of_clients, share)))


def _central(part: Part) -> FederatedData:
    """Make a population of one client, which has all examples."""
    return FederatedData.from_clients([part.examples])


def _aligned(test: Part, names: Sequence[str]) -> FederatedData:
    """Return the test part with a client for each of `names`; if it has none of them, as one central set."""
    if test.client is None:
        return _central(test)
    held = _held(test)
    strangers = in_order(set(held) - set(names))
    if len(strangers) == len(held):
        return _central(test)
    if strangers:
        raise DataError(
            f"{test.where}: {len(strangers)} of {len(held)} clients, such as {strangers[0]!r}, are not in the training part: "
            "add the files that are missing there, or move those clients' away"
        )
    return _named(test, names)
