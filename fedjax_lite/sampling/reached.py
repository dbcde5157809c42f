"""Samplers of clients who can be reached: by a law of availability whose time is the round."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from fedjax_lite.availability import Availability, windows
from fedjax_lite.availability.availability import check_law
from fedjax_lite.base import Number, Whole
from fedjax_lite.refuse import a_count, a_share
from fedjax_lite.sampling.ordered import first_there, has_order
from fedjax_lite.sampling.participation import Sampler, cohort, included, like, ours, participation_of, scaled

__all__ = ["availability"]


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

    >>> import fedjax_lite as fl, jax
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
        return _only_there(sampler, windows(share, period))
    if share is not None or period is not None:
        raise ValueError(f"availability: law takes the place of share={share} and period={period}: leave them out")
    check_law("availability", "law", law)
    how = participation_of(sampler)
    refills = has_order(sampler) and not (how is not None and how.kind == "everyone")
    return _first_there(sampler, law) if refills else _only_there(sampler, law)


def _only_there(sampler: Sampler, law: Availability) -> Sampler:
    """Empty the slots of clients who are not there."""

    def sample(key, sizes, round):
        law.check(sizes.shape[0])
        chosen = sampler(key, sizes, round)
        return chosen._replace(weight=jnp.where(law.there(chosen.id, round), chosen.weight, 0))

    return scaled(sampler, like(sampler, sample), _shares(law))


def _first_there(sampler: Sampler, law: Availability) -> Sampler:
    """Take the first clients of an order who are there; how many of an unknown number no accountant knows."""
    clients = getattr(sampler, "clients")

    def sample(key, sizes, round):
        law.check(sizes.shape[0])
        slots = clients(sizes.shape[0])
        ids, found = first_there(sampler, key, sizes, round, lambda ids: law.there(ids, round), slots)
        return cohort(key, sizes, ids, found)

    among, shares = getattr(sampler, "among"), _shares(law)
    return included(ours(sample, sampler), lambda sizes, round: among(sizes, round, shares(sizes, round)))


def _shares(law: Availability) -> Callable[..., np.ndarray]:
    """Return sizes, round -> each client's probability to be there, checked for the population."""

    def shares(sizes, round):
        law.check(len(sizes))
        return np.asarray(law.share(jnp.arange(len(sizes)), round), np.float64)

    return shares
