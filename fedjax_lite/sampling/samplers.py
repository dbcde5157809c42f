"""Samplers that choose cohorts: a fixed number, everyone, in turn, by size, by probability, from a table."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from fedjax_lite.base import Key, Number, Whole
from fedjax_lite.refuse import a_count, a_share
from fedjax_lite.sampling.marginal import capped, first_of_race, in_turn
from fedjax_lite.sampling.participation import Participation, Sampler, cohort, included, known, ordered, ours, slots_of
from fedjax_lite.shuffle import permute
from fedjax_lite.streams import HIGH_STREAM, sample_key

MANY = 100_000  # clients up to which jax's draws in float32 are right to a thousandth; with more they are off by percents


def uniform(clients: Whole) -> Sampler:
    """`clients` different clients, each set equally likely; O(clients) however large the population.

    >>> sampler = uniform(2)
    >>> len(set(sampler(jax.random.key(0), jnp.array([3, 1, 4]), jnp.int32(0)).id.tolist()))
    2
    """
    clients = a_count("uniform", "clients", clients)

    def order(key, sizes, round):
        del round
        return partial(permute, sample_key(key), _population("uniform", clients, sizes))

    def sample(key, sizes, round):
        return cohort(key, sizes, order(key, sizes, round)(jnp.arange(clients)))

    included(
        sample, lambda sizes, round: _rate(clients, sizes), lambda sizes, round, there: first_of_race(np.ones(len(there)), there, clients)
    )
    return ordered(known(sample, Participation("fixed", clients)), lambda population: clients, order)


def everyone() -> Sampler:
    """Every client in every round (full participation).

    >>> import fedjax_lite as fl
    >>> fl.sampling.everyone()(jax.random.key(0), jnp.array([3, 1, 4]), jnp.int32(0)).id.tolist()
    [0, 1, 2]
    """

    def sample(key, sizes, round):
        del round
        return cohort(key, sizes, jnp.arange(sizes.shape[0]))

    included(sample, lambda sizes, round: np.ones(len(sizes)), lambda sizes, round, there: there)
    return ordered(known(sample, Participation("everyone")), lambda population: population, lambda key, sizes, round: jnp.asarray)


def cyclic(clients: Whole) -> Sampler:
    """Clients in turn: round t takes ids t * clients, t * clients + 1, ... modulo the population (rounds * clients below 2^31).

    >>> import fedjax_lite as fl
    >>> sampler = fl.sampling.cyclic(2)
    >>> [sampler(jax.random.key(0), jnp.array([3, 1, 4, 1, 5]), jnp.int32(t)).id.tolist() for t in range(3)]
    [[0, 1], [2, 3], [4, 0]]
    """
    clients = a_count("cyclic", "clients", clients)

    def order(key, sizes, round):
        del key
        population = _population("cyclic", clients, sizes)
        return lambda positions: (round * clients % population + positions) % population

    def sample(key, sizes, round):
        return cohort(key, sizes, order(key, sizes, round)(jnp.arange(clients)))

    def among(sizes, round, there):
        population = _population("cyclic", clients, sizes)
        return in_turn((round * clients + np.arange(population)) % population, there, clients)

    included(sample, lambda sizes, round: among(sizes, round, np.ones(len(sizes))), among)
    return ordered(known(sample, Participation("cyclic", clients)), lambda population: clients, order)


def weighted(clients: Whole) -> Sampler:
    """Different clients drawn one after another with probability proportional to their size (Gumbel top-k, O(population)).

    With few clients of many, averaging with the plain `fl.aggregators.mean()` estimates the mean over all examples. The
    draw is without replacement, so as `clients` nears the population each counts the same whatever its size. Of ten million clients a
    round's draw takes about half a second on a CPU, and 32 bytes a client while it lasts.

    >>> import fedjax_lite as fl
    >>> sorted(fl.sampling.weighted(2)(jax.random.key(0), jnp.array([3, 0, 4]), jnp.int32(0)).id.tolist())
    [0, 2]

    Source: Li et al. 2020, "On the convergence of FedAvg on non-IID data", scheme II, there with replacement.
    """
    clients = a_count("weighted", "clients", clients)

    def best(key, sizes, number):
        _population("weighted", clients, sizes)
        # With the usual 23 bits of a float32 the best scores of millions tie, and a tie goes to the lower id.
        scores = jnp.log(sizes) + jax.random.gumbel(sample_key(key), sizes.shape, mode="high" if len(sizes) > MANY else "low")
        return jax.lax.top_k(scores, number)[1]

    def sample(key, sizes, round):
        del round
        return cohort(key, sizes, best(key, sizes, clients))

    def among(sizes, round, there):
        _population("weighted", clients, sizes)
        return first_of_race(np.asarray(sizes, float), there, clients)

    included(sample, lambda sizes, round: among(sizes, round, np.ones(len(sizes))), among)
    return ordered(ours(sample), lambda population: clients, lambda key, sizes, round: best(key, sizes, len(sizes)).__getitem__)


def poisson(rate: Number, capacity: Whole | None = None) -> Sampler:
    """Each client takes part independently with probability `rate`; slots past the draw are empty.

    The size of the cohort is binomial, and given its size every set is equally likely: two draws, O(capacity). Clients drawn past the
    capacity are left out; the metric "left_out" counts them. In float32 `jax.random.binomial` is off by percents for a million clients,
    so the size is the sum of one draw for each 100,000: within a total variation of 0.002 of the binomial. That function accepts a draw by
    comparing rounded numbers: one cohort in some millions has another size where it is compiled in another way or for another device.

    Args:
        rate: probability in (0, 1]; may be a tracer if a capacity is given.
        capacity: slots of a cohort; by default the mean and 6 standard deviations.

    >>> import fedjax_lite as fl
    >>> drawn = fl.sampling.poisson(0.1)(jax.random.key(0), jnp.ones(1000, int), jnp.int32(0))
    >>> drawn.weight.shape, round(float(drawn.weight.sum()), -2)  # slots, about so many clients in them
    ((157,), 100.0)
    """
    rate = a_share("poisson", "rate", rate, "(0, 1]")
    if capacity is not None:
        capacity = a_count("poisson", "capacity", capacity)
    elif isinstance(rate, jax.core.Tracer):
        raise ValueError("poisson: give capacity where rate is traced, since it sets the shape of a cohort")

    def sample(key, sizes, round):
        del round
        population = sizes.shape[0]
        # High streams, since the low streams of this key are the clients'.
        count_key, order_key = (jax.random.fold_in(sample_key(key), np.uint32(HIGH_STREAM + i)) for i in range(2))
        count = _binomial(count_key, population, 1.0 * rate)
        slots = jnp.arange(slots_of(Participation("poisson", rate=rate, capacity=capacity), population))
        drawn = cohort(key, sizes, permute(order_key, population, slots), slots < count)
        past = jnp.maximum(count - len(slots), 0)
        return drawn._replace(sums={"left_out": jnp.where(slots == 0, past, 0).astype(jnp.float32)})

    def taken(sizes, round):
        del round
        if isinstance(rate, jax.core.Tracer):
            raise ValueError("inclusion: the rate of poisson is traced, so its number is not known here")
        how = Participation("poisson", rate=rate, capacity=capacity)
        return np.full(len(sizes), capped(len(sizes), float(rate), slots_of(how, len(sizes))))

    return included(known(sample, Participation("poisson", rate=rate, capacity=capacity)), taken)


def scheduled(ids: Any, ages: Any = None) -> Sampler:
    """Each round's cohort is a row of a table, made beforehand by a virtual clock of arrivals, or from a log.

    Args:
        ids: whole numbers `[rounds, clients]`; a negative id is an empty slot, and after the last row all slots are empty.
        ages: whole numbers `[rounds, clients]`, `Client.age`: how many rounds old the model is that a client starts from.

    Raises:
        ValueError: for `ids` of another form, a client twice in a round, ages of another shape or below 0.

    >>> sampler = scheduled([[2, 0], [1, -1]])
    >>> sampler(jax.random.key(0), jnp.array([3, 1, 4]), jnp.int32(1)).weight.tolist()
    [1.0, 0.0]
    """
    table = np.asarray(ids)
    if table.ndim != 2 or table.dtype.kind not in "iu" or not table.size:
        raise ValueError(f"scheduled: ids must be whole numbers [rounds, clients], got {table.dtype}{list(table.shape)}")
    for t, row in enumerate(table):
        named, times = np.unique(row[row >= 0], return_counts=True)
        if (times > 1).any():
            raise ValueError(f"scheduled: ids name client {named[times.argmax()]} twice in round {t}: name each once")
    old = None if ages is None else np.asarray(ages)
    if old is not None and (old.shape != table.shape or old.dtype.kind not in "iu" or (old < 0).any()):
        raise ValueError(
            f"scheduled: ages must be whole numbers from 0 on, of the shape {list(table.shape)} of ids, got {old.dtype}{list(old.shape)}"
        )

    def sample(key, sizes, round):
        if table.max() >= sizes.shape[0]:
            raise ValueError(f"scheduled: ids name client {table.max()}, and there are {sizes.shape[0]}, counted from 0")
        t = jnp.minimum(round, len(table) - 1)
        row = jnp.asarray(table, jnp.int32)[t]
        drawn = cohort(key, sizes, jnp.maximum(row, 0), (row >= 0) & (round < len(table)))
        return drawn if old is None else drawn._replace(age=jnp.asarray(old, jnp.int32)[t])

    return included(ours(sample), lambda sizes, round: np.isin(np.arange(len(sizes)), table[round : round + 1]) * 1.0)


def _binomial(key: Key, number: int, rate: Any, at_once: int = MANY) -> Int[Array, ""]:
    """Draw the number of successes in `number` trials of probability `rate`, as a sum of draws of at most `at_once` trials."""
    parts = -(-number // at_once)
    if parts == 1:
        return jax.random.binomial(key, number, rate).astype(jnp.int32)
    ends = np.arange(parts + 1) * number // parts
    return jnp.sum(jax.random.binomial(key, np.diff(ends), rate).astype(jnp.int32), dtype=jnp.int32)


def _rate(clients: int, sizes: Any) -> Any:
    """Return the probability of each client if all sets of `clients` are equally likely."""
    return np.full(len(sizes), clients / _population("uniform", clients, sizes))


def _population(sampler: str, clients: int, sizes: Any) -> int:
    """Return the size of the population; refuse more `clients` than that."""
    population = sizes.shape[0]
    if clients > population:
        raise ValueError(f"{sampler}: clients={clients} is more than the population of {population}: lower it")
    return population
