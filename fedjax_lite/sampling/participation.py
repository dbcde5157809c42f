"""The cohort of a round, and how a sampler chooses it, in a privacy accountant's terms."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int

from fedjax_lite.base import NO_LIMIT, Client, Key, Number, Tree
from fedjax_lite.engine.pace import Demand
from fedjax_lite.streams import client_keys, sample_key

SPREAD = 6  # standard deviations above the mean for which a Poisson cohort has slots

Sampler = Callable[[Key, Int[Array, " population"], Int[Array, ""]], Client]  # round key, sizes, round -> cohort


class Remembering(NamedTuple):
    """A sampler that keeps a memory between rounds, `State.sampling`: the time that has passed, or what clients' losses were."""

    init: Callable[[Int[Array, " population"]], Tree]  # sizes -> memory
    # round key, sizes, round, memory, (cohort -> Demand) -> cohort, memory
    sample: Callable[[Key, Any, Any, Tree, Callable[[Client], Demand]], tuple[Client, Tree]]
    # params, data, cohort, memory -> cohort, memory; called before the cohort trains. None: it looks at no client's examples
    look: Callable[[Tree, Any, Client, Tree], tuple[Client, Tree]] | None = None
    # Refuses, given all clients' sizes and what a round asks of each. None: it asks for no demand, of any algorithm.
    check: Callable[[Any, Callable[[], Demand]], None] | None = None
    participation: "Participation | None" = None
    inner: Sampler | None = None  # the sampler that it wraps; None: it chooses clients itself
    clocked: bool = False  # True: it keeps the time

    def __call__(self, key: Key, sizes: Any, round: Any) -> Client:
        """Refuse to be called: whoever does has no memory for it."""
        raise TypeError(
            "a sampler with a memory cannot stand inside another, nor be called by hand: let it wrap the other, as "
            "fl.clock.timed(sampler, ...) does, and run rounds by fl.simulate, fl.advance or fl.run"
        )


class Participation(NamedTuple):
    """How a sampler chooses cohorts, in an accountant's terms."""

    kind: str  # "poisson", "fixed" (a fixed number, at random), "cyclic" or "everyone"
    clients: int = 0  # clients a round; for "fixed" and "cyclic"
    rate: Number = 1.0  # a client's probability to take part in a round; for "poisson"
    capacity: int | None = None  # the most clients of a round, for "poisson"; None: mean + 6 standard deviations
    some_lost: bool = False  # whether clients that were chosen may be missing


def cohort(key: Key, sizes: Int[Array, " population"], ids: Int[Array, " clients"], weight: Array | None = None) -> Client:
    """Make the cohort of the clients `ids`, for a sampler of your own to return.

    The cohort's keys are for samplers that wrap yours; the round gives every client its own key, fold_in(round key, id).

    Args:
        key: as given to the sampler.
        sizes: int32 `[population]`, examples a client.
        ids: int32 `[clients]`, each at most once. An id outside the population is an empty slot.
        weight: float `[clients]`, 0 for an empty slot, never negative or NaN; ones by default.

    >>> import fedjax_lite as fl, jax
    >>> found = fl.sampling.cohort(jax.random.key(0), jnp.array([3, 1, 4]), jnp.array([2, 9]))  # there is no client 9
    >>> found.size.tolist(), found.weight.tolist()
    ([4, 0], [1.0, 0.0])
    """
    ids = ids.astype(jnp.int32)
    weight = jnp.ones(ids.shape) if weight is None else jnp.asarray(weight, jnp.result_type(float))
    weight = jnp.where((ids >= 0) & (ids < len(sizes)), weight, 0)
    size = sizes.at[ids].get(mode="fill", fill_value=0, wrap_negative_indices=False)
    return Client(ids, client_keys(sample_key(key), ids), size, jnp.full(ids.shape, NO_LIMIT), weight)


def participation_of(sampler: Sampler) -> Participation | None:
    """Return how a sampler chooses cohorts; None for a sampler that no accountant covers.

    >>> import fedjax_lite as fl
    >>> participation_of(fl.sampling.dropout(fl.sampling.uniform(10), 0.1))
    Participation(kind='fixed', clients=10, rate=1.0, capacity=None, some_lost=True)
    """
    return getattr(sampler, "participation", None)


def slots_of(participation: Participation, population: int) -> int:
    """Return the number of slots of a Poisson cohort.

    >>> slots_of(Participation("poisson", rate=0.1), 1000)
    157
    """
    rate, capacity = participation.rate, participation.capacity
    if capacity is None:
        capacity = math.ceil(population * rate + SPREAD * math.sqrt(population * rate * (1 - rate)))
    return max(1, min(capacity, population))


def ours(sample: Sampler, *inner: Sampler) -> Sampler:
    """Mark `sample` as the library's own, unless it wraps a user's sampler; `check_sampler` calls only unmarked samplers."""
    setattr(sample, "ours", all(getattr(each, "ours", False) for each in inner))
    return sample


def ordered(sample: Sampler, clients: Callable[[int], int], order: Callable[..., Callable[[Array], Array]]) -> Sampler:
    """Attach to `sample` a permutation of the population whose first `clients` positions are its cohort, for who must be there.

    Args:
        clients: the size of the population -> the number of clients of a cohort.
        order: round key, sizes, round -> (int32 positions -> int32 ids).
    """
    setattr(sample, "clients", clients)
    setattr(sample, "order", order)
    return sample


def included(sample: Sampler, inclusion: Callable[..., Any], among: Callable[..., Any] | None = None) -> Sampler:
    """Attach to `sample` the probability that each client takes part, in NumPy, for `fl.sampling.inclusion`.

    Args:
        inclusion: sizes, round -> `[population]`.
        among: sizes, round, probabilities to be there -> `[population]`, if the first of an order who are there take part.
    """
    setattr(sample, "inclusion", inclusion)
    setattr(sample, "among", among)
    return sample


def like(sampler: Sampler, sample: Sampler, loses: bool = True) -> Sampler:
    """Give the wrapper `sample` the participation of `sampler`: wrappers choose without data, and no client more often."""
    participation = participation_of(sampler)
    if participation is None:
        return ours(sample, sampler)
    return known(sample, participation._replace(some_lost=participation.some_lost or loses), sampler)


def scaled(sampler: Sampler, sample: Sampler, factor: Callable[..., Any]) -> Sampler:
    """Give the wrapper `sample` the inclusion of `sampler`, if that is known, times sizes, round -> a factor."""
    inner = getattr(sampler, "inclusion", None)
    return sample if inner is None else included(sample, lambda sizes, round: inner(sizes, round) * factor(sizes, round))


def known(sample: Sampler, participation: Participation, *inner: Sampler) -> Sampler:
    """Attach `participation` to `sample` for accountants, and mark `sample` as `ours` does."""
    setattr(sample, "participation", participation)
    return ours(sample, *inner)
