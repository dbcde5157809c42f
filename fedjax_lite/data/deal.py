"""Deal a central data set to clients, then hold out a share of each client's examples."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from fedjax_lite.base import Tree, Whole
from fedjax_lite.data.arrays import gathered
from fedjax_lite.data.federated import FederatedData, build
from fedjax_lite.data.partition.parts import By
from fedjax_lite.data.train_test import TrainTest
from fedjax_lite.refuse import a_count, is_number


def deal(
    examples: dict[str, np.ndarray],
    partition: Any,
    *,
    seed: Whole,
    test: Any,
    classes: int | None = None,
    beside: Mapping[str, np.ndarray] | None = None,
) -> TrainTest:
    """Deal `examples` to clients by `partition`, then hold out the share `test` of each client's; both parts have the same clients.

    default_rng(seed) draws first for `partition`, then one permutation of each client's examples, client after client. The first
    floor(n_k * test) examples of a permutation are held out. `beside` has values `[examples]` that a partition may deal by and clients do
    not get, such as the names of whom examples are.
    """
    if not callable(partition):
        raise TypeError(f"partition must be a function such as fl.partition.iid(clients=10), got {partition!r}")
    check_fraction(test)
    rng = generator(seed)
    values = _dealt_by(partition, examples, beside or {})
    parts = _checked(partition(rng, values), len(next(iter(examples.values()))))
    if test == 0:
        return TrainTest(gather(examples, parts, classes), None)
    left, held = held_out(rng, parts, test)
    return TrainTest(gather(examples, left, classes), gather(examples, held, classes))


def held_out(rng: np.random.Generator, parts: Sequence[np.ndarray], test: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Permute each client's rows and hold the first floor(n_k * test) of them out; return the rows that are left, and those held out.

    Raises:
        ValueError: for a share that holds nothing out.
    """
    parts = [rng.permutation(part) for part in parts]
    held = [int(len(part) * test + 1e-9) for part in parts]  # 100 * 0.29 is 28.999...
    if not any(held):
        raise ValueError(
            f"test={test:.3g} holds nothing out, the largest client has {max(map(len, parts))} examples: "
            "raise test, use fewer clients, or set test=0 to hold nothing out"
        )
    return [part[k:] for part, k in zip(parts, held, strict=True)], [part[:k] for part, k in zip(parts, held, strict=True)]


def number_of(argument: str, value: Any, total: int) -> int:
    """Return how many of `total` a value asks for: a fraction, rounded down, or a whole number.

    Raises:
        ValueError: for neither; names the argument.

    >>> number_of("hold_out: share", 0.29, 100), number_of("hold_out: share", 3, 100)
    (29, 3)
    """
    whole = is_number(value) and not isinstance(value, float | np.floating)
    if not (whole and value >= 1) and not (is_number(value) and 0 < value < 1):
        raise ValueError(f"{argument} must be a fraction in (0, 1), or a whole number of at least 1, got {value!r}")
    return int(value if whole else total * value + 1e-9)


def generator(seed: Any) -> np.random.Generator:
    """Make NumPy's generator from a seed.

    Raises:
        ValueError: if `seed` is no whole number of at least 0.
    """
    return np.random.default_rng(a_count("data", "seed", seed, least=0))


def check_fraction(test: Any) -> None:
    """Refuse a share `test` outside [0, 1)."""
    if not is_number(test) or not 0 <= test < 1:
        raise ValueError(f"test must be a fraction in [0, 1), got {test!r}; 0 holds nothing out")


def _dealt_by(partition, examples, beside):
    """Return the values by which a partition deals: a leaf that it names, or the labels."""
    leaf, known = partition.leaf if isinstance(partition, By) else "y", {**beside, **examples}
    if leaf not in known:
        raise ValueError(f"partition deals by {leaf!r}, which the examples do not have; they have {', '.join(map(repr, known))}")
    return known[leaf]


def gather(examples: Tree, parts: Sequence[np.ndarray], classes: int | None = None, names: Sequence[str] | None = None) -> FederatedData:
    """Make the population whose client i has the examples `parts[i]`."""
    sizes, rows = np.array([len(part) for part in parts]), np.concatenate(parts)
    arrays = jax.tree.map(lambda x: gathered(x, rows), examples)
    return build(arrays, sizes, classes, allow_empty=True, names=names, move=jax.device_put)


def _checked(parts, n):
    """Return a partition's parts as arrays; refuse wrong parts, since a partition may be a user's function."""
    if not isinstance(parts, Iterable) or isinstance(parts, str | dict):
        raise ValueError(f"partition must return one array of example indices a client, got {parts!r}")
    try:
        parts = [np.asarray(part) for part in parts]
    except ValueError as error:
        raise ValueError(f"partition must return one array of example indices a client, got what is no array ({error})") from None
    if not parts:
        raise ValueError("partition made no clients: it must return one index array a client")
    for client, part in enumerate(parts):
        if part.ndim != 1 or not len(part) or not np.issubdtype(part.dtype, np.integer):
            raise ValueError(
                f"partition gave client {client} {part.dtype}{list(part.shape)}: it must be a list of at least one example's index"
            )
        if part.min() < 0 or part.max() >= n:
            raise ValueError(f"partition gave client {client} the examples {part.min()}..{part.max()}, the data has 0..{n - 1}")
    copies = np.bincount(np.concatenate(parts))
    if copies.max() > 1:
        raise ValueError(f"partition gave example {copies.argmax()} to {copies.max()} clients: parts must be disjoint")
    return parts
