"""Choose the examples of each local step by a permutation function, without sorting or storing an order."""

import operator
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from fedjax_lite import tree
from fedjax_lite.base import Batch, Client
from fedjax_lite.data.federated import FederatedData, Piece
from fedjax_lite.refuse import a_count, is_count
from fedjax_lite.schedules import Clock, Scheduled
from fedjax_lite.shuffle import permute
from fedjax_lite.streams import HIGH_STREAM

FINEST = 10_000  # the largest denominator of a number of epochs: a part of a batch times this is below 2^31


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
        epochs: local passes over the client's examples: a number, or `fl.on_round(schedule)` (rounded to the nearest int). A part of a pass
            is rounded up to whole batches of the client: ceil(epochs * the batches of a pass).
        steps: a fixed number of local steps instead of epochs, the same for every client: int or `fl.on_round(schedule)`.
        shuffle: False takes a client's examples in their order, in every epoch.
        before, after: numbers of passes over all of a client's examples, in their order, before and after training. Nothing is learned
            in a pass (`Batch.learning` is False; `step` and `epoch` count from 0 before, in and after training): client work may take a
            full gradient there, the loss of the model as received, or outputs to send. Passes are no local steps: a client whose steps
            are cut short makes whole passes.

    Raises:
        ValueError: for other numbers that are not whole or below 1, epochs together with steps, a schedule on another clock.

    >>> Batches(size=20, epochs=2).steps_of(jnp.array([50, 7])).tolist()
    [6, 2]
    >>> Batches(size=20, epochs=0.5).steps_of(jnp.array([50, 7])).tolist()
    [2, 1]
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
        return super().__new__(cls, size, _passes(epochs), steps, shuffle, *passes)

    def steps_of(self, size: Int[Array, "..."], round: Int[Array, ""] | int = 0) -> Int[Array, "..."]:
        """Return the local steps of clients of the given sizes in a round; 0 for a client without examples."""
        if self.steps is not None:
            steps = jnp.full_like(size, _at(self.steps, round))
        else:
            steps = _times(_at(self.epochs, round), self._an_epoch(size))
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
        if self.steps is None and isinstance(self.epochs, int | float):
            return _times(self.epochs, an_epoch) + passes
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
        # With one epoch at most, the common case, no step has to divide: integer divisions are kernels of their own.
        once = self.steps is None and isinstance(self.epochs, int | float) and self.epochs <= 1 and learning is True
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


def _passes(epochs: Any) -> Any:
    """Return a number of epochs as an int, or as a float where a part is left; a schedule, or a study's array, as it is."""
    if not isinstance(epochs, float | np.floating):
        return _whole("epochs", epochs, "a part such as 0.5, or fl.on_round(schedule)")
    if not 1 / FINEST <= epochs < 2**31:
        raise ValueError(f"Batches: epochs must be a number of at least {1 / FINEST:g}, or fl.on_round(schedule), got {epochs!r}")
    return int(epochs) if epochs == int(epochs) else float(epochs)


def _times(epochs: Any, batches: Any) -> Any:
    """Return ceil(epochs * batches), with a Python number of epochs exactly: 0.1 of 10 batches is one."""
    if isinstance(epochs, float):
        whole, part = divmod(Fraction(epochs).limit_denominator(FINEST), 1)
        many, rest = batches // part.denominator, batches % part.denominator
        return whole * batches + part.numerator * many - (-part.numerator * rest // part.denominator)
    product = epochs * batches
    return product if isinstance(product, int) or jnp.issubdtype(product.dtype, jnp.integer) else jnp.ceil(product * (1 - 1e-6))


def _at(value, round):
    """Return a schedule's value in a round, rounded; a number as it is."""
    return jnp.round(value(Clock(round))).astype(jnp.int32) if isinstance(value, Scheduled) else value
