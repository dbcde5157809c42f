"""Shuffled epochs: everyone takes part once before anyone takes part twice."""

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite.base import Whole
from fedjax_lite.refuse import a_count
from fedjax_lite.sampling.participation import Sampler, cohort, included, ours
from fedjax_lite.shuffle import permute

__all__ = ["shuffled"]


def shuffled(clients: Whole, seed: Whole = 0) -> Sampler:
    """Clients in a random order that is drawn anew each epoch: everyone takes part once before anyone takes part twice.

    An epoch has ceil(population / clients) rounds. Its last cohort is short if `clients` does not divide the population: the slots that are
    left are empty. A round's cohort is found without the rounds before.

    Args:
        clients: slots of a round.
        seed: names the orders, since an epoch is longer than a round, whose key the sampler is given.

    >>> import fedjax_lite as fl
    >>> sampler, sizes = fl.sampling.shuffled(2), jnp.array([3, 1, 4, 1, 5])
    >>> epoch = [sampler(jax.random.key(t), sizes, jnp.int32(t)) for t in range(3)]
    >>> sorted(int(id) for drawn in epoch for id, weight in zip(drawn.id, drawn.weight) if weight > 0)
    [0, 1, 2, 3, 4]
    """
    clients, seed = a_count("shuffled", "clients", clients), a_count("shuffled", "seed", seed, least=0)

    def sample(key, sizes, round):
        population = sizes.shape[0]
        if clients > population:
            raise ValueError(f"shuffled: clients={clients} is more than the population of {population}: lower it")
        rounds = -(-population // clients)
        order = jax.random.fold_in(jax.random.key(seed), round // rounds)
        positions = round % rounds * clients + jnp.arange(clients)
        return cohort(key, sizes, permute(order, population, jnp.minimum(positions, population - 1)), positions < population)

    def taken(sizes, round):
        population = len(sizes)
        left = population - round % -(-population // clients) * clients
        return np.full(population, min(clients, left) / population)

    return included(ours(sample), taken)
