"""Samplers around another sampler: its clients may be lost, slow or out of reach, and others always take part."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from fedjax_lite.availability import Availability, windows
from fedjax_lite.base import Client, Key, Number, Whole
from fedjax_lite.refuse import a_count, a_share
from fedjax_lite.sampling.ordered import first_there, has_order
from fedjax_lite.sampling.participation import Sampler, cohort, known, ours, participation_of


def dropout(sampler: Sampler, rate: Number) -> Sampler:
    """Each sampled client is lost before its upload arrives with probability `rate`: its slot becomes empty.

    >>> import fedjax_lite as fl
    >>> left = fl.sampling.dropout(fl.sampling.everyone(), rate=0.1)(jax.random.key(0), jnp.ones(1000, int), jnp.int32(0))
    >>> left.weight.shape, round(float(left.weight.sum()), -2)  # slots, about so many clients in them
    ((1000,), 900.0)
    """
    rate = a_share("dropout", "rate", rate, "[0, 1)")

    def sample(key, sizes, round):
        chosen = sampler(key, sizes, round)
        chosen, keys = _own_draw(chosen)
        kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate))(keys)
        return chosen._replace(weight=jnp.where(kept, chosen.weight, 0))

    return _as(sampler, sample)


def stragglers(
    sampler: Sampler, share: Number, most_steps: Whole | None = None, *, most_epochs: Whole | None = None, batch_size: Whole | None = None
) -> Sampler:
    """A random share of the cohort is cut off after 1 to `most_steps` local steps, uniformly; their messages still count.

    Args:
        sampler: chooses the clients.
        share: the probability of each of them to be slow, in [0, 1].
        most_steps: cut off after 1 to so many steps.
        most_epochs, batch_size: in place of most_steps: after 1 to so many passes over its own examples in such batches. FedProx's
            protocol of E epochs has most_epochs = E - 1.

    Raises:
        ValueError: for numbers out of range; both ways, or none.

    >>> import fedjax_lite as fl
    >>> sampler = fl.sampling.stragglers(fl.sampling.everyone(), share=1.0, most_steps=3)
    >>> sorted(set(sampler(jax.random.key(0), jnp.ones(100, int), jnp.int32(0)).steps.tolist()))
    [1, 2, 3]

    Source: Li et al. 2020, "Federated optimization in heterogeneous networks" (FedProx), systems heterogeneity.
    """
    share = a_share("stragglers", "share", share, "[0, 1]")
    if (most_steps is None) == (most_epochs is None) or (most_epochs is None) != (batch_size is None):
        raise ValueError(
            f"stragglers: give most_steps, or most_epochs with batch_size, got most_steps={most_steps}, most_epochs={most_epochs} and "
            f"batch_size={batch_size}"
        )
    by_steps = most_steps is not None
    most = a_count("stragglers", "most_steps", most_steps) if by_steps else a_count("stragglers", "most_epochs", most_epochs)
    batch = None if by_steps else a_count("stragglers", "batch_size", batch_size)

    def sample(key, sizes, round):
        chosen = sampler(key, sizes, round)
        chosen, keys = _own_draw(chosen)
        slow_keys, limit_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
        slow = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 * share))(slow_keys)
        limit = jax.vmap(lambda key: jax.random.randint(key, (), 1, most + 1, jnp.int32))(limit_keys)
        limit = limit if batch is None else limit * -(-chosen.size // batch)
        return chosen._replace(steps=jnp.where(slow, jnp.minimum(limit, chosen.steps), chosen.steps))

    return _as(sampler, sample, loses=False)


def availability(sampler: Sampler, share: Number | None = None, period: Whole | None = None, *, law: Availability | None = None) -> Sampler:
    """Clients can be reached only at some times: in a part of every `period` rounds, each at its own, or by any law. Time is the round.

    With `share` and `period` client k is reached in round t if (t / period + u_k) mod 1 < share, with u_k uniform in [0, 1), a function of
    k alone; the sampler's choices of other clients are empty slots. With a law, what chooses the first clients of an order (uniform,
    cyclic, weighted) takes the first of that order who can be reached, and has empty slots only where the whole population has
    fewer; other samplers' choices of clients who can't be reached are empty slots.

    Args:
        sampler: chooses the clients that the server asks.
        share: the part of the clients that can be reached in a round, in (0, 1]. A client can be reached in share * period rounds of a
            day, rounded down or up. If that is less than one round, only that part of the clients is ever reached: 15 % with share=0.05
            and period=3.
        period: rounds a day.
        law: in their place, one of `fl.availability`, for instance `fl.availability.markov(share=0.5, mean_on=10)`.

    Raises:
        ValueError: for numbers out of range; both ways, or none; a population of which the law refuses a client.

    >>> import fedjax_lite as fl
    >>> sampler = fl.sampling.availability(fl.sampling.everyone(), share=0.5, period=4)
    >>> sum(sampler(jax.random.key(t), jnp.array([3, 1, 4]), jnp.int32(t)).weight for t in range(4)).tolist()  # half of a day each
    [2.0, 2.0, 2.0]
    >>> sampler = fl.sampling.availability(fl.sampling.cyclic(2), law=fl.availability.trace([(0, 0, 9), (1, 5, 9), (2, 0, 9)]))
    >>> sampler(jax.random.key(0), jnp.array([3, 1, 4]), jnp.int32(0)).id.tolist()  # client 1 is not there before round 5
    [0, 2]
    """
    if law is None:
        if share is None or period is None:
            raise ValueError(f"availability: give share and period, or law, got share={share} and period={period}")
        period, share = a_count("availability", "period", period), a_share("availability", "share", share, "(0, 1]")
        windowed = _only_there(sampler, windows(share, period))
        setattr(windowed, "availability", (sampler, windows(share, period), False))
        return windowed
    if share is not None or period is not None:
        raise ValueError(f"availability: law takes the place of share={share} and period={period}: leave them out")
    if not isinstance(law, Availability):
        raise TypeError(f"availability: law must be a law of fl.availability, got {law!r}: call the function that makes one")
    how = participation_of(sampler)
    refills = has_order(sampler) and not (how is not None and how.kind == "everyone")
    found = _first_there(sampler, law) if refills else _only_there(sampler, law)
    setattr(found, "availability", (sampler, law, refills))
    return found


def _only_there(sampler: Sampler, law: Availability) -> Sampler:
    """Empty the slots of clients who are not there."""

    def sample(key, sizes, round):
        law.check(sizes.shape[0])
        chosen = sampler(key, sizes, round)
        return chosen._replace(weight=jnp.where(law.there(chosen.id, round), chosen.weight, 0))

    return _as(sampler, sample)


def _first_there(sampler: Sampler, law: Availability) -> Sampler:
    """Take the first clients of an order who are there; how many of an unknown number no accountant knows."""
    clients = getattr(sampler, "clients")

    def sample(key, sizes, round):
        law.check(sizes.shape[0])
        slots = clients(sizes.shape[0])
        ids, found = first_there(sampler, key, sizes, round, lambda ids: law.there(ids, round), slots)
        return cohort(key, sizes, ids, found)

    return ours(sample, sampler)


def including(sampler: Sampler, clients: Sequence[Whole]) -> Sampler:
    """The given clients take part in every round, beside the clients that another sampler chooses.

    Args:
        sampler: chooses the other clients; a client of `clients` that it chooses too takes part once.
        clients: ids, each once. For rules such as `fl.aggregators.fltrust`: the client that holds the server's own data.

    Raises:
        ValueError: for ids that are negative, not whole numbers, given twice, none at all, or outside the population.

    >>> from fedjax_lite.sampling import uniform
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
        always = always._replace(sums={name: jnp.zeros(always.id.shape) for name in chosen.sums})
        if chosen.age is not None:
            always = always._replace(age=jnp.zeros_like(always.id))
        return jax.tree.map(lambda x, y: jnp.concatenate([x, y]), chosen, always)

    return ours(sample, sampler)


def _as(sampler: Sampler, sample: Sampler, loses: bool = True) -> Sampler:
    """Give the wrapper `sample` the participation of `sampler`: wrappers choose without data, and no client more often."""
    participation = participation_of(sampler)
    if participation is None:
        return ours(sample, sampler)
    return known(sample, participation._replace(some_lost=participation.some_lost or loses), sampler)


def _own_draw(chosen: Client) -> tuple[Client, Key]:
    """Split each client's key: return the cohort with keys for the next wrapper, and keys `[clients]` for this wrapper."""
    keys, next_keys = jax.vmap(jax.random.split, out_axes=1)(chosen.key)
    return chosen._replace(key=next_keys), keys
