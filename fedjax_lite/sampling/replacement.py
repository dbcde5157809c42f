"""Draws with replacement: a client that is drawn twice trains once and counts twice."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fedjax_lite.base import Key, Number, Whole
from fedjax_lite.refuse import a_count, is_number, plain, positive
from fedjax_lite.sampling.chances import checked, drawn, shares
from fedjax_lite.sampling.marginal import at_least_once
from fedjax_lite.sampling.participation import Participation, Sampler, cohort, included, ours, slots_of
from fedjax_lite.streams import HIGH_STREAM, sample_key

__all__ = ["importance", "with_replacement"]


def with_replacement(clients: Whole, by: str | Any = "uniform") -> Sampler:
    """`clients` independent draws; a client that is drawn twice is in one slot, with the weight 2, and the other slots are empty.

    `fl.aggregators.weighted_mean("uniform")` is then the mean over the draws; `fl.aggregators.mean` would count each client once.

    Args:
        clients: the number of draws.
        by: the probability of a client in each draw: "uniform", "examples" (n_k / n), or an array `[population]` of relative numbers.

    Raises:
        ValueError: for another word, numbers that are negative or not finite, and as many as there are no clients.

    >>> import fedjax_lite as fl
    >>> drawn = fl.sampling.with_replacement(6, by="examples")(jax.random.key(0), jnp.array([3, 0, 1]), jnp.int32(0))
    >>> drawn.weight.shape, float(drawn.weight.sum()), int(jnp.sum(drawn.weight > 0))
    ((6,), 6.0, 2)

    Source: Li et al. 2020, "On the convergence of FedAvg on non-IID data", scheme I, by examples.
    """
    clients, by = a_count("with_replacement", "clients", clients), checked("with_replacement", "by", by)

    def sample(key, sizes, round):
        del round
        ids, times = _times(drawn("with_replacement", "by", by, _draw_key(key), sizes, clients))
        return cohort(key, sizes, ids, times)

    return included(ours(sample), lambda sizes, round: at_least_once(shares("with_replacement", "by", by, sizes, np), clients))


def importance(
    clients: Number, probabilities: str | Any = "examples", weights: str | Any = "examples", replace: bool = True, cap: Number | None = None
) -> Sampler:
    r"""Clients drawn by any probabilities and weighted so that `fl.aggregators.weighted_sum` estimates sum_k p_k m_k without bias.

    With replacement: M draws with probabilities q_k; a client that is drawn c times counts c p_k / (M q_k). Without: each client takes part
    independently with probability pi_k = min(1, M q_k), and counts p_k / pi_k. The fewest variance has q_k proportional to p_k |m_k|.

    Args:
        clients: M; without replacement the clients of a round on average, where no pi_k is cut off at 1.
        probabilities: q_k: "uniform", "examples" (n_k / n), or an array `[population]` of relative, positive numbers.
        weights: p_k, likewise; a client of weight 0 is drawn and does not count.
        replace: whether draws are with replacement.
        cap: the largest weight of a client; the estimate then is biased, and has less variance.

    Raises:
        ValueError: for numbers out of range, or of another number of clients.

    >>> import fedjax_lite as fl
    >>> sampler = fl.sampling.importance(1, probabilities=[0.5, 0.25, 0.25], weights="uniform")
    >>> drawn = sampler(jax.random.key(0), jnp.array([3, 5, 1]), jnp.int32(0))
    >>> float(drawn.weight[0]) * [0.5, 0.25, 0.25][int(drawn.id[0])]  # 1/3
    0.3333333432674408

    Source: Horvitz and Thompson 1952; Chen, Horvath and Richtarik 2022, "Optimal client sampling for federated learning".
    """
    name = "importance"
    probabilities, weights = checked(name, "probabilities", probabilities, or_zero=False), checked(name, "weights", weights)
    number: Any = plain(clients)
    if not isinstance(replace, bool):
        raise ValueError(f"importance: replace must be True or False, got {replace!r}")
    if replace:
        number = a_count(name, "clients", clients)
    elif not is_number(number) or not 0 < number:
        raise ValueError(f"importance: clients must be positive, got {clients!r}")
    if cap is not None:
        positive(name, "cap", cap)

    def sample(key, sizes, round):
        del round
        sums: dict[str, Array] = {}
        p, q = shares(name, "weights", weights, sizes), shares(name, "probabilities", probabilities, sizes)
        if replace:
            ids, times = _times(drawn(name, "probabilities", probabilities, _draw_key(key), sizes, number))
            found = times * (p / jnp.where(q > 0, number * q, 1))[ids]
        else:
            pi = jnp.minimum(number * q, 1.0)
            ids, there, sums = _independent(_draw_key(key), pi, number)
            found = there * (p / jnp.where(pi > 0, pi, 1))[ids]
        found = found if cap is None else jnp.minimum(found, cap)
        return cohort(key, sizes, ids, found)._replace(sums=sums)

    def taken(sizes, round):
        del round
        p, q = (shares(name, argument, given, sizes, np) for argument, given in (("weights", weights), ("probabilities", probabilities)))
        return np.where(p > 0, at_least_once(q, number) if replace else np.minimum(number * q, 1.0), 0.0)

    return included(ours(sample), taken)


def _draw_key(key: Key) -> Key:
    """Return the key of a round's draws, apart from its clients' keys."""
    return jax.random.fold_in(sample_key(key), np.uint32(HIGH_STREAM))


def _times(ids: Int[Array, " n"]) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """Return ids in order, and in the first slot of each how often it is there, 0 in the others."""
    ids = jnp.sort(ids)
    first, after = jnp.searchsorted(ids, ids, side="left"), jnp.searchsorted(ids, ids, side="right")
    return ids, jnp.where(first == jnp.arange(len(ids)), after - first, 0).astype(float)


def _independent(key: Key, pi: Float[Array, " population"], number: Number) -> tuple[Array, Array, dict[str, Array]]:
    """Draw clients independently: ids in slots for the mean and six standard deviations, which are taken, and who was left out."""
    population = pi.shape[0]
    slots = slots_of(Participation("poisson", rate=min(number / population, 1.0)), population)
    comes = jax.random.uniform(key, pi.shape) < pi
    ids = jnp.nonzero(comes, size=slots, fill_value=population)[0]
    past = jnp.maximum(jnp.sum(comes, dtype=jnp.int32) - slots, 0)
    left_out = jnp.where(jnp.arange(slots) == 0, past, 0).astype(jnp.float32)
    return jnp.minimum(ids, population - 1).astype(jnp.int32), ids < population, {"left_out": left_out}
