"""Clients that never take part, kept apart to be evaluated on."""

from typing import Any

import numpy as np

from fedjax_lite.base import Whole
from fedjax_lite.data.deal import generator, number_of
from fedjax_lite.data.federated import FederatedData
from fedjax_lite.data.train_test import TrainTest

__all__ = ["hold_out_clients"]


def hold_out_clients(data: Any, clients: Any, *, seed: Whole = 0) -> tuple[TrainTest, TrainTest]:
    """Keep clients apart, which never take part: with training examples to fine-tune on and held-out ones to be evaluated on.

    Args:
        data: a `TrainTest`, the population in memory; its test part, if it has one, holds examples of the same clients.
        clients: the fraction of all clients to keep apart, in (0, 1), rounded down; or their number, a whole number.
        seed: `default_rng(seed)` draws them.

    Returns:
        The clients that are left, numbered anew from 0 in their order, and those kept apart, in theirs.

    Raises:
        TypeError: for data that is no TrainTest in memory.
        ValueError: for a number out of range, and a test part that no client holds.

    >>> each = [{"x": np.full(2, k)} for k in range(4)]
    >>> rest, new = hold_out_clients(TrainTest(FederatedData.from_clients(each), None), 0.25)
    >>> rest.population, new.population
    (3, 1)
    """
    if not isinstance(data, TrainTest) or not isinstance(data.train, FederatedData):
        given = data.train if isinstance(data, TrainTest) else data
        raise TypeError(f"hold_out_clients: data must be a TrainTest in memory, and not a {type(given).__name__}: read it into memory")
    if data.test is not None and data.test.population != data.population:
        raise ValueError(
            f"hold_out_clients: the test part has {data.test.population} clients, the population {data.population}: hold out examples of "
            "each client"
        )
    count = number_of("hold_out_clients: clients", clients, data.population)
    if not 1 <= count < data.population:
        raise ValueError(f"hold_out_clients: clients={clients} is {count} of {data.population} clients: at least one each must be left")
    apart = np.zeros(data.population, bool)
    apart[generator(seed).permutation(data.population)[:count]] = True

    def part(mask: np.ndarray) -> TrainTest:
        ids = np.flatnonzero(mask)
        return TrainTest(data.train.take(ids), None if data.test is None else data.test.take(ids))

    return part(~apart), part(apart)
