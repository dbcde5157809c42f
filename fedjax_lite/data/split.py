"""Hold out a part of every client's examples."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np

from fedjax_lite.base import Whole
from fedjax_lite.data.deal import check_fraction, gather, generator, held_out
from fedjax_lite.data.federated import FederatedData
from fedjax_lite.data.train_test import TrainTest

__all__ = ["split"]


def split(data: Any, test: Any = 0.2, *, seed: Whole = 0) -> TrainTest:
    """Hold the share `test` of each client's examples out; both parts have the same clients.

    Args:
        data: the population, a `FederatedData`.
        test: share of its examples that each client holds out, in [0, 1), rounded down: of 4 examples and 0.2 none.
        seed: `default_rng(seed)` draws one permutation of each client's examples, client after client; its first are held out.

    Returns:
        The training examples and those held out, None for `test=0`.

    Raises:
        TypeError: for what is no population in memory.
        ValueError: for a share out of range, or one that holds nothing out.

    >>> data = FederatedData.from_clients([{"x": np.arange(10.0)}, {"x": np.arange(5.0)}])
    >>> parts = split(data, test=0.2)
    >>> parts.train.size.tolist(), parts.test.size.tolist()
    ([8, 4], [2, 1])
    """
    if not isinstance(data, FederatedData):
        raise TypeError(f"split: data must be a FederatedData in memory, got a {type(data).__name__}")
    check_fraction(test)
    if test == 0:
        return TrainTest(data, None)
    start, size = np.asarray(data.start), np.asarray(data.size)
    rows = [np.arange(first, first + count) for first, count in zip(start, size, strict=True)]
    examples = jax.tree.map(np.asarray, data.examples)

    def part(rows: list[np.ndarray]) -> FederatedData:
        return replace(gather(examples, rows, names=data.names), words=data.words)

    return TrainTest(*map(part, held_out(generator(seed), rows, test)))
