"""A cohort with attackers and an empty slot in it, and what a server receives of it: one compiled program an attack."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import fedjax_lite as fl
from fedjax_lite import aggregators, attacks

CLIENTS, WIDTH, F = 9, 7, 3
BAD = np.isin(np.arange(CLIENTS), [1, 4, 7])
EMPTY = np.arange(CLIENTS) == 5  # and it holds NaN
HONEST = ~BAD & ~EMPTY
SIZES = np.arange(3, 3 + CLIENTS)
NO_WORK = fl.ClientWork(None, None, None, None)

everything = aggregators.from_stack(lambda messages, cohort: messages)  # whose aggregate is all that it is given


def stack(seed=0, shift=0.5):
    V = np.random.default_rng(seed).normal(size=(CLIENTS, WIDTH)) + shift
    V[EMPTY] = np.nan
    return V


def mean(V):
    return V[HONEST].mean(0)


def deviation(V):
    return V[HONEST].std(0, ddof=1)


def tree_of(V):
    """Rows `[clients, 7]` as leaves of two shapes."""
    return {"w": V[:, :6].reshape(len(V), 3, 2), "b": V[:, 6]}


def flat(messages):
    """The inverse of `tree_of`."""
    return jnp.concatenate([messages["w"].reshape(len(messages["b"]), -1), messages["b"][:, None]], axis=1)


def one(V):
    """A message to begin with."""
    return jax.tree.map(lambda x: x[0], tree_of(V))


def cohort_of(order):
    weight = jnp.where(jnp.asarray(EMPTY)[order], 0.0, 1.0)
    return fl.sampling.cohort(jax.random.key(0), jnp.asarray(SIZES, jnp.int32), order, weight)


@functools.cache
def program(attack, rule=everything):
    """V `[clients, 7]` by client, who is Byzantine, which client is in which slot, state, key -> aggregate, state."""

    def step(V, bad, order, state, key):
        _, aggregator = attacks.attacked(attack, bad, NO_WORK, rule)
        part = aggregator.collect(tree_of(V[order]), cohort_of(order), state)
        return aggregator.finish(part, state, jax.random.key(key))[:2]

    return jax.jit(step)


@functools.cache
def start(attack):
    """The first state of an attack on a rule that has none."""
    first = jax.eval_shape(attack.init, one(stack()))
    return (jax.jit(lambda: attack.init(one(jnp.zeros((1, WIDTH)))))() if jax.tree.leaves(first) else first), ()


def received(attack, V, bad=BAD, order=None, key=0):
    """What the server receives with these messages, by slot."""
    order = np.arange(CLIENTS) if order is None else order
    messages, _ = program(attack)(V, bad, order, start(attack), key)
    return np.asarray(flat(jax.tree.map(np.asarray, messages)))
