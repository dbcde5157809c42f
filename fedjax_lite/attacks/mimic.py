"""Mimic: attackers copy one honest client, and so give its data more weight."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from fedjax_lite.aggregators.sums import difference, inner, mix
from fedjax_lite.attacks.attack import Attack
from fedjax_lite.attacks.send import all_send, mean_of
from fedjax_lite.base import Number, Tree
from fedjax_lite.refuse import whole
from fedjax_lite.tree import squared_norm


class _Learned(NamedTuple):
    """The attackers' state: their estimates from the honest messages."""

    round: Int[Array, ""]
    mean: Tree  # mu, of the honest messages of all rounds of the warm-up
    direction: Tree  # z, of the largest variance, of length 1


def mimic(warmup: Number = 10) -> Attack:
    """All send a copy of the honest message that lies furthest along the direction in which honest clients differ most.

    During the warm-up t = 0 .. T0-1 attackers send their own messages and learn z: mu <- t/(1+t) mu + 1/(1+t) mean_i V_i, then by
    Oja's rule z <- t/(1+t) z + 1/(1+t) sum_i <V_i - mu, z> (V_i - mu), scaled to length 1. From then on i* = argmax_i <V_i, z>. It
    hurts where clients differ, even rules that withstand outliers: the copies are no outliers.

    Args:
        warmup: T0, rounds.

    Raises:
        ValueError: for a warm-up that is negative or no whole number.

    >>> import fedjax_lite as fl
    >>> seen = fl.attacks.Seen(jnp.array([1.0, 3.0, 5.0, 9.0]), jnp.arange(4) == 3, jnp.arange(4) < 3, jnp.ones(4))
    >>> attack = fl.attacks.mimic(warmup=0)
    >>> sent, _ = attack.messages(seen, attack.init(jnp.zeros(())))
    >>> sent[3].item() in (1.0, 5.0)
    True

    Source: Karimireddy, He and Jaggi 2022, "Byzantine-robust learning on heterogeneous datasets via bucketing", appendix.
    """
    whole("mimic", "warmup", warmup)

    def init(message):
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.promote_types(x.dtype, jnp.float32)), message)
        draws = optax.tree.random_like(jax.random.key(0), zeros, jax.random.normal)
        return _Learned(jnp.int32(0), zeros, _unit(draws))

    def learned(seen, state):
        """Update mean and direction by one round's honest messages."""
        old, new = state.round / (1 + state.round), 1 / (1 + state.round)
        mean = jax.tree.map(lambda x, y: old.astype(x.dtype) * x + new.astype(x.dtype) * y, state.mean, mean_of(seen))
        spread = difference(seen.messages, mean)
        along = mix(inner(spread, state.direction, seen.honest), spread, seen.honest)
        turned = jax.tree.map(lambda z, y: old.astype(z.dtype) * z + new.astype(z.dtype) * y, state.direction, along)
        # Without honest clients, or where they all agree, there is nothing to learn.
        some = squared_norm(along) > 0
        turned = jax.tree.map(lambda z, y: jnp.where(some, y, z), state.direction, _unit(turned))
        return state._replace(mean=mean, direction=turned)

    def send(seen, state):
        warm = state.round < warmup
        after = jax.tree.map(lambda x, y: jnp.where(warm, x, y), learned(seen, state), state)
        place = jnp.argmax(jnp.where(seen.honest, inner(seen.messages, state.direction, seen.honest), -jnp.inf))
        copied = all_send(jax.tree.map(lambda x: x[place], seen.messages), seen)
        alone = warm | ~jnp.any(seen.honest)
        sent = jax.tree.map(lambda x, y: jnp.where(alone, x, y), seen.messages, copied)
        return sent, after._replace(round=state.round + 1)

    return Attack(send, init)


def _unit(direction: Tree) -> Tree:
    """Scale `direction` to length 1; zeros stay zeros."""
    square = squared_norm(direction)
    return jax.tree.map(lambda x: x / jnp.sqrt(jnp.where(square > 0, square, 1)).astype(x.dtype), direction)
