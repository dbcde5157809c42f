"""A population's examples in one array, sorted by client: no padding is stored."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite.base import Client, Tree
from fedjax_lite.data.arrays import check_examples, fingerprint, gathered, labels_of, length_of, on_host
from fedjax_lite.data.names import Names, checked_names


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class FederatedData:
    """Examples sorted by client. A pytree: pass it to compiled programs as an argument, never close over it.

    Attributes:
        examples: leaves `[examples, ...]`, client after client.
        start: int32 `[population]`, the row of each client's first example.
        size: int32 `[population]`, the number of each client's examples.
        largest: the largest size, a Python int (static under jit).
        words: the class names, where labels were words: label i was words[i] (static); or None.
        names: the clients' names, row by row (static); or None.
    """

    examples: Tree
    start: Any  # not Int[Array, "population"]: jax also builds this class with stand-ins for arrays
    size: Any
    largest: int = field(metadata={"static": True})
    words: tuple[str, ...] | None = field(default=None, metadata={"static": True})
    names: Names | None = field(default=None, metadata={"static": True})

    @classmethod
    def from_clients(
        cls, clients: Sequence[Tree], *, classes: int | None = None, allow_empty: bool = False, names: Any = None
    ) -> "FederatedData":
        """From one pytree of arrays `[examples of that client, ...]` a client, all of one structure.

        Args:
            clients: row i is client i.
            classes: if given, every label in a leaf named "y" must be a whole number in [0, classes), or a truth value; labels of every
                dtype become integers.
            allow_empty: admit clients without examples, as a held-out part may have; at least one client must have examples.
            names: a name a client, each another, for tables and reports.

        Raises:
            ValueError: naming the client and the leaf: unequal lengths or structures, no examples, NaN or Inf, labels out of range, words,
                masked values, structured dtypes.

        >>> data = FederatedData.from_clients([{"x": np.ones((3, 2))}, {"x": np.zeros((1, 2))}])
        >>> data.population, data.size.tolist()
        (2, [3, 1])
        """
        if not len(clients):
            raise ValueError("clients is empty: a population needs at least one client")
        clients = [on_host(client, f"client {i}") for i, client in enumerate(clients)]
        structure: Any = jax.tree.structure(clients[0])
        for i, client in enumerate(clients):
            if jax.tree.structure(client) != structure:
                raise ValueError(f"client {i} has the structure {jax.tree.structure(client)}, client 0 {structure}: make them equal")
        sizes = np.array([length_of(client, f"client {i}") for i, client in enumerate(clients)], np.int64)
        examples = jax.tree_util.tree_map_with_path(_concatenate, *clients)
        return build(examples, sizes, classes, allow_empty, names)

    @classmethod
    def from_arrays(
        cls,
        arrays: Tree,
        client_ids: Any,
        *,
        population: int | None = None,
        classes: int | None = None,
        allow_empty: bool = False,
        names: Any = None,
    ) -> "FederatedData":
        """From arrays `[examples, ...]` and the client of each example; a client's examples keep their order.

        Args:
            arrays: pytree of arrays of one length.
            client_ids: int `[examples]`, in [0, population).
            population: the number of clients; by default the largest id + 1.
            classes, allow_empty, names: as in `from_clients`.

        >>> data = FederatedData.from_arrays({"x": np.arange(4.0)}, [1, 0, 1, 0])
        >>> data.examples["x"].tolist()
        [1.0, 3.0, 0.0, 2.0]
        """
        arrays = on_host(arrays, "arrays")
        client_ids = on_host(np.asanyarray(client_ids), "client_ids")
        length = length_of(arrays, "arrays")
        if client_ids.shape != (length,):
            raise ValueError(f"client_ids has the shape {client_ids.shape}, the arrays hold {length} examples: give one id an example")
        if not length:
            raise ValueError("arrays hold no examples")
        if not np.issubdtype(client_ids.dtype, np.integer):
            raise ValueError(f"client_ids must be integers, got {client_ids.dtype}: use np.unique(names, return_inverse=True)[1]")
        if population is None:
            population = int(client_ids.max()) + 1
            if population > length and not allow_empty or population >= 2**31:
                raise ValueError(
                    f"client_ids go up to {population - 1}, of {length} examples, so that clients between have none: number them by "
                    "np.unique(client_ids, return_inverse=True)[1], or give population and allow_empty=True"
                )
        if client_ids.min() < 0 or client_ids.max() >= population:
            raise ValueError(f"client_ids must be in [0, {population}), got {client_ids.min()}..{client_ids.max()}")
        sizes = np.bincount(client_ids, minlength=population)
        if (client_ids[1:] < client_ids[:-1]).any():
            order = np.argsort(client_ids, kind="stable")
            return build(jax.tree.map(lambda x: gathered(x, order), arrays), sizes, classes, allow_empty, names, jax.device_put)
        return build(arrays, sizes, classes, allow_empty, names)

    @property
    def population(self) -> int:
        """The number of clients."""
        return self.size.shape[0]

    def locate(self, cohort: Client) -> Client:
        """Return `cohort` with the row of each client's first example here, found by the client's id."""
        return cohort._replace(place=cohort.place._replace(start=jnp.take(self.start, cohort.id, mode="clip")))

    @property
    def example(self) -> Tree:
        """The first example, without a batch axis, for `model.init` to take shapes from."""
        return jax.tree.map(lambda x: x[0], self.examples)

    def take(self, ids: Any) -> "FederatedData":
        """Return a compact copy with the clients `ids` alone, in that order; client ids[i] is row i of the copy."""
        ids, start, size = np.asarray(ids), np.asarray(self.start), np.asarray(self.size)
        if ids.size == 0 or ids.min() < 0 or ids.max() >= self.population:
            raise ValueError(f"ids must name at least one client in [0, {self.population}), got {ids.tolist()}")
        rows = np.concatenate([np.arange(start[i], start[i] + size[i]) for i in ids])
        examples = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[rows]), self.examples)
        names = None if self.names is None or len(np.unique(ids)) < len(ids) else Names(self.names[i] for i in ids.tolist())
        return replace(_place(examples, size[ids]), words=self.words, names=names)

    def client(self, id: SupportsIndex) -> Tree:
        """One client's examples."""
        id = int(id)
        if not 0 <= id < self.population:
            raise ValueError(f"id must be in [0, {self.population}), got {id}")
        start, size = int(self.start[id]), int(self.size[id])
        return jax.tree.map(lambda x: x[start : start + size], self.examples)

    def fingerprint(self) -> dict[str, Any]:
        """Return counts and a hash of every byte, short enough to stand beside every result."""
        return fingerprint(self.examples, self.size)

    def summary(self) -> str:
        """Describe the population in a few lines: clients, examples, sizes, an example's shapes, how labels are spread."""
        size = np.asarray(self.size)
        quantiles = f"min {size.min()}, median {np.median(size):.0f}, mean {size.mean():.1f}, max {size.max()}"
        lines = [f"{self.population} clients, {size.sum()} examples; examples a client: {quantiles}"]
        lines += [] if self.names is None else [f"  names: {_some(self.names)}"]
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.examples):
            lines.append(f"  {jax.tree_util.keystr(path, simple=True, separator='/') or 'array'}: {leaf.dtype}{list(leaf.shape[1:])}")
        labels = labels_of(self.examples)
        if labels is not None and len(labels):
            counts = np.unique(labels, return_counts=True)[1]
            owner = np.repeat(np.arange(self.population), size)
            held = np.unique(np.stack([owner, labels]), axis=1).shape[1] / max((size > 0).sum(), 1)
            named = "" if self.words is None else f" ({_some(self.words)})"
            lines.append(
                f"  labels: {len(counts)} classes{named} of {counts.min()} to {counts.max()} examples; {held:.1f} classes a client"
            )
        return "\n".join(lines)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Piece:
    """The examples of one cohort, in the place of a `FederatedData`, for a round of a population on disk.

    Attributes:
        examples: leaves `[rows, ...]`, or `[devices * rows, ...]` with each device's clients on it; filled up after the last client.
        start: int32 `[clients]`, the row of each slot's first example, among the rows of its device.
        largest, population: of the whole population, static.
        device: int32 `[clients]`, the place of each slot's device along the mesh axis `clients`; None: every device has all rows.
    """

    examples: Tree
    start: Any
    largest: int = field(metadata={"static": True})
    population: int = field(metadata={"static": True})
    device: Any = None

    def locate(self, cohort: Client) -> Client:
        """Return `cohort` with the row of each slot's first example here, and its device, unless it has been located before."""
        if cohort.place.start is not None:
            return cohort
        return cohort._replace(place=cohort.place._replace(start=self.start, device=self.device))


def _some(texts: Sequence[str]) -> str:
    """Write the first three texts."""
    return ", ".join(texts[:3]) + (", ..." if len(texts) > 3 else "")


def _concatenate(path: Any, *leaves: np.ndarray) -> np.ndarray:
    """Concatenate one leaf over clients; empty leaves do not decide the dtype, since np.array([]) is always float."""
    held = [(i, x) for i, x in enumerate(leaves) if len(x)] or [(0, leaves[0])]
    first, model = held[0]
    for i, x in held:
        if x.shape[1:] != model.shape[1:] or np.issubdtype(x.dtype, np.integer) != np.issubdtype(model.dtype, np.integer):
            raise ValueError(
                f"leaf {jax.tree_util.keystr(path)} holds {x.dtype}{list(x.shape[1:])} an example at client {i} and "
                f"{model.dtype}{list(model.shape[1:])} at client {first}: make them equal"
            )
    return np.concatenate([x for _, x in held])


def build(
    examples: Tree,
    sizes: np.ndarray,
    classes: int | None,
    allow_empty: bool,
    names: Any = None,
    move: Callable[[np.ndarray], Any] = jnp.array,
) -> FederatedData:
    """Check sorted host arrays and `move` them to the device: `jax.device_put` if no one else holds them, since it may keep them."""
    names = None if names is None else checked_names(names, len(sizes))
    if not sizes.any():
        raise ValueError("no client has an example: give one client some at least")
    if sizes.sum() >= 2**31:
        raise ValueError(f"{sizes.sum()} examples do not fit 32-bit rows: split the population, or write a store (fl.data.save)")
    placed = _place(jax.tree.map(move, check_examples(examples, sizes, classes, allow_empty)), sizes)
    return placed if names is None else replace(placed, names=names)


def _place(examples: Tree, sizes: np.ndarray) -> FederatedData:
    """Make a FederatedData of examples sorted by client, once they are checked."""
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return FederatedData(examples, jnp.asarray(starts, jnp.int32), jnp.asarray(sizes, jnp.int32), int(sizes.max()))
