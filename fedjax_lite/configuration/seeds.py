"""The data of a study's seeds as one stack, so that a seed is an operand of the study's programs."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite.base import Tree
from fedjax_lite.data.federated import FederatedData
from fedjax_lite.data.train_test import Source, TrainTest


class SeedData(NamedTuple):
    """Data by seed: one data set for all seeds, a stack, or separate data sets whose shapes differ."""

    each: tuple[Source, ...]  # one data set for all seeds, or a data set for each; empty where they are stacked
    stack: Tree  # leaves [seeds, ...]; None where they are not stacked
    facts: tuple[Any, ...]  # for each seed, the facts given with its data

    def of(self, seed: Any) -> tuple[Source, Any]:
        """Return data and facts of the seed with the index `seed`, which may be a tracer unless data sets are separate.

        Raises:
            TypeError: for a tracer, if data sets are separate.
        """
        if self.stack is not None:
            return jax.tree.map(lambda x: x[seed], self.stack), self.facts[0]
        if len(self.each) == 1:
            return self.each[0], self.facts[0]
        if not isinstance(seed, int):
            raise TypeError("the seeds' data differ in shape: each seed needs a program of its own")
        return self.each[seed], self.facts[seed]


def stack_seeds(sources: Sequence[tuple[Source, Any]]) -> SeedData:
    """Stack the data of a study's seeds if they differ only in their numbers of examples; fill up after the last client's examples.

    The static `largest` becomes the largest of all.

    >>> data = [FederatedData.from_clients([{"x": np.arange(n)}, {"x": np.arange(2)}]) for n in (3, 4)]
    >>> train, _ = stack_seeds([(Source(each, None), None) for each in data]).of(jnp.int32(0))
    >>> train.train.examples["x"].tolist(), train.train.size.tolist(), train.train.largest
    ([0, 1, 2, 0, 1, 1], [3, 2], 4)
    """
    data, facts = (tuple(column) for column in zip(*sources, strict=True))
    if all(fact == facts[0] for fact in facts) and len({source.test is None for source in data}) == 1:
        if all(_equal(source, data[0]) for source in data[1:]):
            return SeedData(data[:1], None, facts)
        train = _filled([source.train for source in data])
        test = [None] * len(data) if data[0].test is None else _filled([source.test for source in data])
        new = _filled_pairs([source.new for source in data])
        filled = [Source(*parts) for parts in zip(train, test, [source.public for source in data], new, strict=True)]
        kinds = [_kind(source) for source in filled]
        if all(kind == kinds[0] for kind in kinds):
            return SeedData((), jax.tree.map(lambda *leaves: jnp.stack(leaves), *filled), facts)
    return SeedData(data, None, facts)


def _filled(parts: list[Any]) -> list[Any]:
    """Fill populations up to the same number of rows, and give them the same `largest`."""
    rows, largest = max(len(jax.tree.leaves(part.examples)[0]) for part in parts), max(part.largest for part in parts)

    def fill(x):
        return jnp.concatenate([x, jnp.repeat(x[-1:], rows - len(x), axis=0)])

    return [FederatedData(jax.tree.map(fill, part.examples), part.start, part.size, largest) for part in parts]


def _filled_pairs(pairs: list[Any]) -> list[Any]:
    """Fill up training and test parts of clients apart; None where there are none."""
    if pairs[0] is None:
        return pairs
    tests = [pair.test for pair in pairs]
    filled = tests if tests[0] is None else _filled(tests)
    return [TrainTest(*pair) for pair in zip(_filled([pair.train for pair in pairs]), filled, strict=True)]


def _kind(data: Source) -> Any:
    """Return the structure, shapes and dtypes, which must be equal for data to be rows of one stack."""
    return jax.tree.structure(data), [(x.shape, x.dtype) for x in jax.tree.leaves(data)]


def _equal(a: Source, b: Source) -> bool:
    """Return whether two data sets hold equal arrays."""
    return _kind(a) == _kind(b) and all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))
