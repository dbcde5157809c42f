"""Samplers: who takes part in a round. Pure functions of (key, sizes, round), evaluated inside the compiled program."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from fedjax_lite.base import HIGH_STREAM, NO_LIMIT, Client, Key, Number, Participation, Whole, client_keys, sample_key
from fedjax_lite.refuse import a_count, a_share
from fedjax_lite.shuffle import permute

__all__ = [
    "Sampler",
    "availability",
    "cohort",
    "cyclic",
    "dropout",
    "everyone",
    "including",
    "poisson",
    "stragglers",
    "uniform",
    "weighted",
]

SPREAD = 6  # standard deviations of room in a Poisson cohort
MANY = 100_000  # clients up to which jax's usual draws in float32 are good to a thousandth; beyond, they go astray by percents

Sampler = Callable[[Key, Int[Array, " population"], Int[Array, ""]], Client]  # round key, sizes, round -> cohort


def cohort(key: Key, sizes: Int[Array, " population"], ids: Int[Array, " clients"], weight: Array | None = None) -> Client:
    """The cohort of the clients `ids`: what a hand-written sampler returns.

    The keys in it are for samplers that wrap this one; the round gives every client its own, fold_in(round key, id).

    Args:
        key: as given to the sampler.
        sizes: int32 `[population]`, examples a client.
        ids: int32 `[clients]`, each at most once. An id outside the population is an empty slot.
        weight: float `[clients]`, 0 for an empty slot, never negative or NaN; ones by default.
    """
    ids = ids.astype(jnp.int32)
    weight = jnp.ones(ids.shape) if weight is None else jnp.asarray(weight, jnp.result_type(float))
    size = sizes.at[ids].get(mode="fill", fill_value=0, wrap_negative_indices=False)
    return Client(ids, client_keys(sample_key(key), ids), size, jnp.full(ids.shape, NO_LIMIT), weight)


def uniform(clients: Whole) -> Sampler:
    """`clients` different clients, each set equally likely; O(clients) however large the population.

    >>> sampler = uniform(2)
    >>> len(set(sampler(jax.random.key(0), jnp.array([3, 1, 4]), jnp.int32(0)).id.tolist()))
    2
    """
    clients = a_count("uniform", "clients", clients)

    def sample(key, sizes, round):
        del round
        population = _population("uniform", clients, sizes)
        return cohort(key, sizes, permute(sample_key(key), population, jnp.arange(clients)))

    return _known(sample, Participation("fixed", clients))


def everyone() -> Sampler:
    """Every client in every round (full participation)."""

    def sample(key, sizes, round):
        del round
        return cohort(key, sizes, jnp.arange(sizes.shape[0]))

    return _known(sample, Participation("everyone"))


def cyclic(clients: Whole) -> Sampler:
    """Clients in turn: round t takes ids t*clients, t*clients + 1, ... modulo the population (rounds * clients below 2^31)."""
    clients = a_count("cyclic", "clients", clients)

    def sample(key, sizes, round):
        population = _population("cyclic", clients, sizes)
        return cohort(key, sizes, (round * clients + jnp.arange(clients)) % population)

    return _known(sample, Participation("cyclic", clients))


def weighted(clients: Whole) -> Sampler:
    """Different clients drawn one after another with probability proportional to their size (Gumbel top-k, O(population)).

    With few clients of many, averaging with the plain `fl.aggregators.mean()` estimates the mean over all examples. The
    draw is without replacement, so as `clients` nears the population each counts the same whatever its size. Of ten million clients a
    round's draw takes about half a second on a CPU, and 32 bytes a client while it lasts.

    Source: Li et al. 2020, "On the convergence of FedAvg on non-IID data", scheme II, there with replacement.
    """
    clients = a_count("weighted", "clients", clients)

    def sample(key, sizes, round):
        del round
        _population("weighted", clients, sizes)
        # With the usual 23 bits of a float32 the best of millions tie, and a tie goes to the lower id.
        scores = jnp.log(sizes) + jax.random.gumbel(sample_key(key), sizes.shape, mode="high" if len(sizes) > MANY else "low")
        return cohort(key, sizes, jax.lax.top_k(scores, clients)[1])

    return _ours(sample)


def poisson(rate: Number, capacity: Whole | None = None) -> Sampler:
    """Each client takes part on its own with probability `rate`; slots past the draw are empty.

    The size of the cohort is binomial, and given its size every set is equally likely: two draws, O(capacity). Clients drawn past the
    capacity are left out; the metric "left_out" counts them. In float32 `jax.random.binomial` is off by percents for a million clients,
    so the size is the sum of one draw for each 100,000: within a total variation of 0.002 of the binomial. Its test of a draw compares
    rounded numbers: one cohort in some millions has another size where the same function is compiled in another way or for another device.

    Args:
        rate: probability in (0, 1]; may be a tracer if a capacity is given.
        capacity: slots of a cohort; by default the mean and 6 standard deviations.
    """
    rate = a_share("poisson", "rate", rate, "(0, 1]")
    if capacity is not None:
        capacity = a_count("poisson", "capacity", capacity)
    elif isinstance(rate, jax.core.Tracer):
        raise ValueError("poisson: give capacity where rate is traced, since it sets the shape of a cohort")

    def sample(key, sizes, round):
        del round
        population = sizes.shape[0]
        count_key, order_key = (jax.random.fold_in(sample_key(key), np.uint32(HIGH_STREAM + i)) for i in range(2))  # low ones are clients'
        count = _binomial(count_key, population, 1.0 * rate)
        slots = jnp.arange(slots_of(Participation("poisson", rate=rate, capacity=capacity), population))
        drawn = cohort(key, sizes, permute(order_key, population, slots), slots < count)
        past = jnp.maximum(count - len(slots), 0)
        return drawn._replace(left_out=jnp.where(slots == 0, past, 0))

    return _known(sample, Participation("poisson", rate=rate, capacity=capacity))


def dropout(sampler: Sampler, rate: Number) -> Sampler:
    """Each sampled client is lost before its upload arrives with probability `rate`: its slot becomes empty."""
    rate = a_share("dropout", "rate", rate, "[0, 1)")

    def sample(key, sizes, round):
        chosen = sampler(key, sizes, round)
        chosen, keys = _own_draw(chosen)
        kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate))(keys)
        return chosen._replace(weight=jnp.where(kept, chosen.weight, 0))

    return _as(sampler, sample)


def stragglers(sampler: Sampler, share: Number, most_steps: Whole) -> Sampler:
    """A random share of the cohort takes only 1 to `most_steps` local steps, uniformly; what they did still counts.

    Source: Li et al. 2020, "Federated optimization in heterogeneous networks" (FedProx), systems heterogeneity.
    """
    most_steps, share = a_count("stragglers", "most_steps", most_steps), a_share("stragglers", "share", share, "[0, 1]")

    def sample(key, sizes, round):
        chosen = sampler(key, sizes, round)
        chosen, keys = _own_draw(chosen)
        who, how_many = jax.vmap(jax.random.split, out_axes=1)(keys)
        slow = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 * share))(who)
        limit = jax.vmap(lambda key: jax.random.randint(key, (), 1, most_steps + 1, jnp.int32))(how_many)
        return chosen._replace(steps=jnp.where(slow, jnp.minimum(limit, chosen.steps), chosen.steps))

    return _as(sampler, sample, loses=False)


def availability(sampler: Sampler, share: Number, period: Whole) -> Sampler:
    """Clients can be reached only in a part of every `period` rounds, each at a time of its own: slots of the others are empty.

    Client k is reached in round t if (t / period + u_k) mod 1 < share, with u_k uniform in [0, 1), a function of k alone.

    Args:
        sampler: whom the server asks.
        share: the part of the clients that can be reached in a round, in (0, 1]; a client can in share * period rounds of a day, rounded
            down or up. So of less than one round a day only that part of the clients is ever reached, with share=0.05 and period=3
            15 % of them.
        period: rounds a day.
    """
    period, share = a_count("availability", "period", period), a_share("availability", "share", share, "(0, 1]")

    def sample(key, sizes, round):
        chosen = sampler(key, sizes, round)
        offset = jax.vmap(lambda id: jax.random.uniform(jax.random.fold_in(jax.random.key(0), id)))(chosen.id)
        reached = (round % period / period + offset) % 1 < share
        return chosen._replace(weight=jnp.where(reached, chosen.weight, 0))

    return _as(sampler, sample)


def including(sampler: Sampler, clients: Sequence[Whole]) -> Sampler:
    """Some clients take part in every round, beside those that another sampler chooses.

    Args:
        sampler: whom else; one of `clients` that it chooses too takes part once.
        clients: ids, each once. For rules such as `fl.aggregators.fltrust`: the client that holds the server's own data.

    Raises:
        ValueError: for ids that are negative, not whole numbers, given twice, none at all, or outside the population.

    >>> sampler = including(uniform(2), clients=[4])
    >>> sampler(jax.random.key(0), jnp.array([3, 1, 4, 1, 5]), jnp.int32(0)).id.tolist()[2:]
    [4]
    """
    try:
        ids = [a_count("including", "clients", i, least=0) for i in clients]
    except (TypeError, ValueError):
        ids = []
    if not ids or len(set(ids)) < len(ids):
        raise ValueError(f"including: clients must be a list of different client ids, got {clients!r}")

    def sample(key, sizes, round):
        if max(ids) >= sizes.shape[0]:
            raise ValueError(f"including: clients={ids} are not all in the population, whose ids are 0 to {sizes.shape[0] - 1}")
        chosen, always = sampler(key, sizes, round), cohort(key, sizes, jnp.asarray(ids))
        twice = jnp.any(chosen.id[:, None] == always.id[None, :], axis=1)
        chosen = chosen._replace(weight=jnp.where(twice, 0, chosen.weight))
        if chosen.left_out is not None:
            always = always._replace(left_out=jnp.zeros_like(always.id))
        return jax.tree.map(lambda x, y: jnp.concatenate([x, y]), chosen, always)

    return _ours(sample, sampler)


def participation_of(sampler: Sampler) -> Participation | None:
    """How a sampler of this module chooses; None for one that no accountant covers.

    >>> participation_of(dropout(uniform(10), 0.1))
    Participation(kind='fixed', clients=10, rate=1.0, capacity=None, some_lost=True)
    """
    return getattr(sampler, "participation", None)


def slots_of(participation: Participation, population: int) -> int:
    """The slots of a Poisson cohort.

    >>> slots_of(Participation("poisson", rate=0.1), 1000)
    157
    """
    rate, capacity = participation.rate, participation.capacity
    if capacity is None:
        capacity = math.ceil(population * rate + SPREAD * math.sqrt(population * rate * (1 - rate)))
    return max(1, min(capacity, population))


def _binomial(key: Key, number: int, rate: Any, at_once: int = MANY) -> Int[Array, ""]:
    """How many of `number` coins fall on a side of probability `rate`, drawn for at most `at_once` of them at a time and added up."""
    parts = -(-number // at_once)
    if parts == 1:
        return jax.random.binomial(key, number, rate).astype(jnp.int32)
    ends = np.arange(parts + 1) * number // parts
    return jnp.sum(jax.random.binomial(key, np.diff(ends), rate).astype(jnp.int32), dtype=jnp.int32)


def _ours(sample: Sampler, *inner: Sampler) -> Sampler:
    """A sampler of this module, around others or not: what nobody wrote by hand need not be asked for a cohort first."""
    setattr(sample, "ours", all(getattr(each, "ours", False) for each in inner))
    return sample


def _known(sample: Sampler, participation: Participation, *inner: Sampler) -> Sampler:
    setattr(sample, "participation", participation)
    return _ours(sample, *inner)


def _as(sampler: Sampler, sample: Sampler, loses: bool = True) -> Sampler:
    """A wrapper's choice, which no data decides and which takes nobody in more often: accounted for as the sampler's own."""
    participation = participation_of(sampler)
    if participation is None:
        return _ours(sample, sampler)
    return _known(sample, participation._replace(some_lost=participation.some_lost or loses), sampler)


def _own_draw(chosen: Client) -> tuple[Client, Key]:
    """Keys `[clients]` for one wrapper to draw from, by client and not by slot, and the cohort with other keys for the next."""
    mine, next_one = jax.vmap(jax.random.split, out_axes=1)(chosen.key)
    return chosen._replace(key=next_one), mine


def _population(sampler: str, clients: int, sizes: Array) -> int:
    population = sizes.shape[0]
    if clients > population:
        raise ValueError(f"{sampler}: clients={clients} is more than the population of {population}: lower it")
    return population
