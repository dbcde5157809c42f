"""Stratified sampling: of each kind of client a fixed number."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from fedjax_lite.base import Whole
from fedjax_lite.refuse import a_count
from fedjax_lite.sampling.participation import Sampler, cohort, included, ours
from fedjax_lite.shuffle import permute
from fedjax_lite.streams import HIGH_STREAM, sample_key

__all__ = ["Strata", "stratified"]


class Strata(NamedTuple):
    """Clients by label: those of stratum h are members[start[h]] to members[start[h] + size[h] - 1], of whom number[h] take part."""

    members: Int[np.ndarray, " population"]
    start: Int[np.ndarray, " strata"]
    size: Int[np.ndarray, " strata"]
    number: Int[np.ndarray, " strata"]


def stratified(clients: Whole, labels: Sequence[Any] | Any, allocation: str = "proportional") -> Sampler:
    """Of the clients of each label a fixed number, uniformly and without replacement, independently of the other labels.

    Args:
        clients: of a round, in all.
        labels: a label of each client, `[population]`: its region, its kind of device, the class that it has most of.
        allocation: "proportional" (as many of each as its part of the population, remainders to the largest fractions) or "equal" (as many
            of each; what does not divide goes to the first labels). Equal numbers over-represent small strata: weigh by
            one over `fl.sampling.inclusion`.

    Raises:
        ValueError: for a label of which nobody would take part, one with fewer clients than its number, and labels of another number than
            there are clients.

    >>> import fedjax_lite as fl
    >>> sampler = fl.sampling.stratified(3, labels=["city", "city", "land", "city", "land", "city"])
    >>> drawn = sampler(jax.random.key(0), jnp.ones(6, int), jnp.int32(0))
    >>> sorted("city land".split()[int(id) in (2, 4)] for id in drawn.id)
    ['city', 'city', 'land']
    """
    clients = a_count("stratified", "clients", clients)
    strata = _strata(clients, labels, allocation)
    stratum = np.repeat(np.arange(len(strata.size)), strata.number)
    place = np.arange(clients) - np.repeat(np.cumsum(strata.number) - strata.number, strata.number)

    def sample(key, sizes, round):
        del round
        if sizes.shape[0] != len(strata.members):
            raise ValueError(f"stratified: labels are of {len(strata.members)} clients, the population has {sizes.shape[0]}: give one each")
        keys = jax.vmap(lambda h: jax.random.fold_in(sample_key(key), h))(jnp.asarray(stratum.astype(np.uint32) + np.uint32(HIGH_STREAM)))
        drawn = jax.vmap(permute)(keys, jnp.asarray(strata.size[stratum]), jnp.asarray(place, jnp.int32))
        return cohort(key, sizes, jnp.asarray(strata.members)[strata.start[stratum] + drawn])

    shares = np.empty(len(strata.members))
    shares[strata.members] = np.repeat(strata.number / strata.size, strata.size)
    return included(ours(sample), lambda sizes, round: shares)


def _strata(clients: int, labels: Any, allocation: str) -> Strata:
    """Sort clients by label, and allot each label its number."""
    found = np.asarray(labels)
    if found.ndim != 1 or not len(found):
        raise ValueError(f"stratified: labels must be a list with a label of each client, got {str(labels)[:80]}")
    names, which = np.unique(found, return_inverse=True)
    size = np.bincount(which)
    if clients > len(found):
        raise ValueError(f"stratified: clients={clients} is more than the population of {len(found)}: lower it")
    if allocation == "proportional":
        exact = clients * size / len(found)
        number = np.floor(exact).astype(int)
        number[np.argsort(number - exact, kind="stable")[: clients - number.sum()]] += 1
    elif allocation == "equal":
        number = np.full(len(size), clients // len(size))
        number[: clients % len(size)] += 1
    else:
        raise ValueError(f'stratified: allocation must be "proportional" or "equal", got {allocation!r}')
    for name, most, some in zip(names.tolist(), size, number, strict=True):
        if not some:
            raise ValueError(f"stratified: of clients={clients} none has the label {name!r}, so that these never take part: raise it")
        if some > most:
            raise ValueError(f"stratified: {some} of clients={clients} would have the label {name!r}, which {most} have: lower it")
    start = np.cumsum(size) - size
    return Strata(*(each.astype(np.int32) for each in (np.argsort(which, kind="stable"), start, size, number)))
