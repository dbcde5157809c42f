"""Samplers around another sampler: its clients may be lost or slow, and others always take part."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite.base import Client, Key, Number, Whole
from fedjax_lite.refuse import a_count, a_share
from fedjax_lite.sampling.participation import Sampler, cohort, included, like, ours, scaled


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

    return scaled(sampler, like(sampler, sample), lambda sizes, round: 1 - rate)


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

    return scaled(sampler, like(sampler, sample, loses=False), lambda sizes, round: 1.0)


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

    inner = getattr(sampler, "inclusion", None)
    if inner is None:
        return ours(sample, sampler)
    return included(ours(sample, sampler), lambda sizes, round: np.where(np.isin(np.arange(len(sizes)), ids), 1.0, inner(sizes, round)))


def _own_draw(chosen: Client) -> tuple[Client, Key]:
    """Split each client's key: return the cohort with keys for the next wrapper, and keys `[clients]` for this wrapper."""
    keys, next_keys = jax.vmap(jax.random.split, out_axes=1)(chosen.key)
    return chosen._replace(key=next_keys), keys
