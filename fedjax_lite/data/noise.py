"""Public examples, taken out of a population or made of noise; and counts of each client's labels."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite.base import Number, Tree, Whole
from fedjax_lite.data.arrays import stranger
from fedjax_lite.data.deal import generator, number_of
from fedjax_lite.data.federated import FederatedData
from fedjax_lite.refuse import a_count

__all__ = ["class_counts", "hold_out", "noise"]


def hold_out(data: FederatedData, share: Number, *, seed: Whole = 0) -> tuple[FederatedData, FederatedData]:
    """Take examples out of a population, for a public set or a test set that no client holds.

    Args:
        data: the population.
        share: the fraction of all examples to take, in (0, 1), rounded down; or their number, a whole number.
        seed: `default_rng(seed)` draws examples one after another, each remaining example with the same probability. An example that
            is its client's last stays there, and the next is drawn.

    Returns:
        The population without the examples taken, and these examples as a population of one client.

    Raises:
        ValueError: for a share out of range, or more examples than clients can spare while each keeps one.

    >>> data = FederatedData.from_clients([{"x": np.arange(6.0)}, {"x": np.arange(4.0)}])
    >>> rest, public = hold_out(data, 0.3)
    >>> int(rest.size.sum()), public.size.tolist()
    (7, [3])
    """
    size, examples = np.asarray(data.size), jax.tree.map(np.asarray, data.examples)
    total = int(size.sum())
    count = number_of("hold_out: share", share, total)
    owner = np.repeat(np.arange(data.population), size)
    order = generator(seed).permutation(total)
    last = total - 1 - np.unique(owner[order[::-1]], return_index=True)[1]  # the place in `order` of each client's last example
    spare = np.delete(order, last)
    if not 1 <= count <= len(spare):
        raise ValueError(f"hold_out: share={share} is {count} of {total} examples, of which {len(spare)} can be spared: change it")
    taken = np.zeros(total, bool)
    taken[spare[:count]] = True

    def part(mask, ids, population):
        some = jax.tree.map(lambda x: x[:total][mask], examples)
        return replace(FederatedData.from_arrays(some, ids, population=population, allow_empty=True), words=data.words)

    rest = replace(part(~taken, owner[~taken], data.population), names=data.names)
    return rest, part(taken, np.zeros(count, np.int32), 1)


def noise(example: Tree, examples: Whole, *, low: float = 0.0, high: float = 1.0, seed: Whole = 0) -> Tree:
    """Make public examples of noise: independent uniform numbers, and for whole numbers 0 or 1 with equal probability.

    Args:
        example: one example with the shapes and dtypes to make; a label "y" is left out.
        examples: the number of examples.
        low, high: bounds of the uniform distribution.
        seed: of `default_rng(seed)`.

    Returns:
        Leaves `[examples, ...]`.

    Raises:
        ValueError: for less than one example, or bounds that are not in order.

    >>> noise({"x": np.zeros(2, np.float32), "y": 3}, examples=4)["x"].shape
    (4, 2)

    Source: Lin et al. 2020, "Ensemble distillation for robust model fusion in federated learning", section 4.2 (made-up data).
    """
    examples = a_count("noise", "examples", examples)
    if not low < high:
        raise ValueError(f"noise: low must be below high, got low={low}, high={high}")
    rng = generator(seed)
    inputs = {name: x for name, x in example.items() if name != "y"} if isinstance(example, dict) else example

    def leaf(x):
        x = np.asarray(x)
        drawn = rng.uniform(low, high, (examples, *x.shape))
        return drawn.astype(x.dtype) if np.issubdtype(x.dtype, np.inexact) else (drawn > (low + high) / 2).astype(x.dtype)

    return jax.tree.map(leaf, inputs)


def class_counts(data: FederatedData, classes: int | None = None) -> Any:
    """Count the examples of each class that each client has.

    Args:
        data: with labels "y", whole numbers from 0, ints or floats.
        classes: the number of classes; by default the highest label plus 1.

    Returns:
        int32 `[population, classes]`.

    Raises:
        ValueError: for data without labels.

    >>> class_counts(FederatedData.from_clients([{"y": np.array([0, 2])}, {"y": np.array([1])}])).tolist()
    [[1, 0, 1], [0, 1, 0]]
    """
    labels = data.examples.get("y") if isinstance(data.examples, dict) else None
    traced = isinstance(labels, jax.core.Tracer)
    whole = labels is not None and (jnp.issubdtype(labels.dtype, jnp.integer) or not traced and not stranger(np.asarray(labels)))
    if labels is None or not whole or labels.ndim != 1:
        raise ValueError('class_counts: the data has no whole numbers "y" as labels')
    labels = jnp.asarray(labels, jnp.int32)
    classes = int(np.asarray(labels).max()) + 1 if classes is None else classes  # a study, where labels are tracers, gives `classes`
    return counted(data, labels, classes)


def counted(data: FederatedData, labels: Any, classes: int) -> Any:
    """Count labels `[examples, ...]` of each client: int32 `[population, classes]`; what is no class from 0 counts nowhere.

    >>> counted(FederatedData.from_clients([{"y": np.zeros(2)}, {"y": np.zeros(1)}]), jnp.array([[0, 2], [-1, 2], [1, 1]]), 3).tolist()
    [[1, 0, 2], [0, 2, 0]]
    """
    rows = jnp.arange(len(labels)).reshape(-1, *[1] * (labels.ndim - 1))
    owner = jnp.searchsorted(data.start + data.size, rows, side="right")  # a row after the last client's has no owner, and is dropped
    column = jnp.where(labels < 0, classes, labels).astype(jnp.int32)  # past the end: dropped
    return jnp.zeros((data.population, classes), jnp.int32).at[jnp.broadcast_to(owner, labels.shape), column].add(1, mode="drop")
