"""Choose the examples of each local step by a permutation function, without sorting or storing an order."""

import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from fedjax_lite import tree
from fedjax_lite.base import HIGH_STREAM, Batch, Client
from fedjax_lite.data.federated import FederatedData, Piece
from fedjax_lite.refuse import a_count, is_count
from fedjax_lite.schedules import Clock, Scheduled
from fedjax_lite.shuffle import permute


class _Batches(NamedTuple):
    size: int | None
    epochs: Any
    steps: Any
    shuffle: bool
    before: int
    after: int


class Batches(_Batches):
    """Local batches: each epoch reshuffles a client's examples, and its short last batch is kept.

    Args:
        size: examples a batch; None takes all of a client's examples at once.
        epochs: local passes over the client's examples: int, or `fl.on_round(schedule)` (rounded to the nearest int).
        steps: a fixed number of local steps instead of epochs, the same for every client: int or `fl.on_round(schedule)`.
        shuffle: False takes a client's examples in their order, in every epoch.
        before, after: numbers of passes over all of a client's examples, in their order, before and after training. Nothing is learned
            in a pass (`Batch.learning` is False; `step` and `epoch` count from 0 before, in and after training): client work may take a
            full gradient there, the loss of the model as received, or outputs to send. Passes are no local steps: a client whose steps
            are cut short makes whole passes.

    Raises:
        ValueError: for numbers that are not whole or below 1, epochs together with steps, a schedule on another clock.

    >>> Batches(size=20, epochs=2).steps_of(jnp.array([50, 7])).tolist()
    [6, 2]
    """

    __slots__ = ()

    def __new__(
        cls, size: int | None, epochs: Any = 1, steps: Any = None, *, shuffle: bool = True, before: int = 0, after: int = 0
    ) -> "Batches":
        if size is not None:
            size = _whole("size", size, "None for all of a client's examples")
        if steps is not None:
            if isinstance(epochs, Scheduled) or epochs != 1:
                raise ValueError(f"Batches: steps={steps!r} takes the place of epochs={epochs!r}: give one of them")
            steps = _whole("steps", steps, "fl.on_round(schedule)")
        if not isinstance(shuffle, bool):
            raise ValueError(f"Batches: shuffle must be True or False, got {shuffle!r}")
        passes = [a_count("Batches", name, value, least=0) for name, value in (("before", before), ("after", after))]
        return super().__new__(cls, size, _whole("epochs", epochs, "fl.on_round(schedule)"), steps, shuffle, *passes)

    def steps_of(self, size: Int[Array, "..."], round: Int[Array, ""] | int = 0) -> Int[Array, "..."]:
        """Return the local steps of clients of the given sizes in a round; 0 for a client without examples."""
        if self.steps is not None:
            steps = jnp.full_like(size, _at(self.steps, round))
        else:
            steps = _at(self.epochs, round) * self._an_epoch(size)
        return jnp.where(size > 0, steps, 0).astype(jnp.int32)

    def with_passes(self, client: Client, sign: int = 1) -> Client:
        """Add the batches of all passes to the steps of a client or a cohort; sign=-1 subtracts them again."""
        if not self.before + self.after:
            return client
        passes = (self.before + self.after) * self._an_epoch(client.size)
        return client._replace(steps=jnp.where(client.steps > 0, client.steps + sign * passes, 0))

    def most_batches(self, data: FederatedData | Piece) -> int | None:
        """Return a static bound on a client's batches in a round, with the batches of passes; None where a schedule decides."""
        an_epoch = 1 if self.size is None else -(-data.largest // self.size)
        passes = (self.before + self.after) * an_epoch
        if isinstance(self.steps, int):
            return self.steps + passes
        if self.steps is None and isinstance(self.epochs, int):
            return self.epochs * an_epoch + passes
        return None

    def take(self, data: FederatedData | Piece, client: Client, step: Int[Array, ""] | int, round: Int[Array, ""] | int = 0) -> Batch:
        """Return the batch of a client's local step; with passes, `step` counts from the first batch of the first pass."""
        width = max(1, data.largest if self.size is None else min(self.size, data.largest))
        step, round = jnp.asarray(step, jnp.int32), jnp.asarray(round, jnp.int32)
        an_epoch = jnp.maximum(self._an_epoch(client.size), 1)
        learning: Any = True
        if self.before or self.after:
            place = step - self.before * an_epoch  # the local step
            learning = (place >= 0) & (place < client.steps)
            step = jnp.where(learning, place, jnp.where(place < 0, step, place - client.steps))
        # With one epoch, the common case, no step has to divide: integer divisions are kernels of their own.
        once = self.steps is None and isinstance(self.epochs, int) and self.epochs == 1 and learning is True
        epoch, within = (jnp.zeros_like(step), step) if once else (jax.lax.div(step, an_epoch), jax.lax.rem(step, an_epoch))
        position = within * width + jnp.arange(width, dtype=jnp.int32)
        mask = position < client.size
        # Positions past the end repeat a real example, so that a masked gradient is finite wherever a real gradient is.
        position = jnp.minimum(position, jnp.maximum(client.size - 1, 0))
        if self.shuffle:
            # The upper half of the client key's streams: local steps draw from the lower half.
            order = jax.random.fold_in(client.key, epoch.astype(jnp.uint32) | jnp.uint32(HIGH_STREAM))
            shuffled = permute(order, client.size, position)
            position = shuffled if learning is True else jnp.where(learning, shuffled, position)
        rows = (data.start[client.id] if client.place.start is None else client.place.start) + position
        return Batch(tree.take(data.examples, rows), mask, step, epoch, round, client, position, learning)

    def _an_epoch(self, size):
        """Return the batches of an epoch for clients of the given sizes."""
        return (size > 0).astype(jnp.int32) if self.size is None else -(-size // self.size)


def _whole(name: str, value: Any, other: str) -> Any:
    """Return a whole number of at least 1 as an int; a schedule on the round's clock, or a study's array, as it is."""
    if isinstance(value, Scheduled) and name != "size":
        if value.clock != "round":
            raise ValueError(f"Batches: {name} is fixed when a client starts, so only fl.on_round can schedule it, not {value.clock!r}")
        return value
    if callable(value):
        raise ValueError(f"Batches: {name} is a schedule without a clock: wrap it in fl.on_round")
    if isinstance(value, jax.Array) and name != "size":
        return value
    if not is_count(value, 1):
        raise ValueError(f"Batches: {name} must be a whole number of at least 1, or {other}, got {value!r}")
    if operator.index(value) >= 2**31:
        raise ValueError(f"Batches: {name} must be below 2^31, which is what a step is counted in, got {value!r}")
    return operator.index(value)


def _at(value, round):
    """Return a schedule's value in a round, rounded; a number as it is."""
    return jnp.round(value(Clock(round))).astype(jnp.int32) if isinstance(value, Scheduled) else value
