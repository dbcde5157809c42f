"""Noise that is correlated over rounds, as dense matrices and as the independent draws behind it."""

import math

import jax
import numpy as np

from fedjax_lite.clip import normal_like

LIKE = {"w": np.zeros((3, 2), np.float32), "b": np.zeros((), np.float32)}
KEYS = jax.random.split(jax.random.key(7), 64)


def flat(tree):
    """[rounds, coordinates] in float64."""
    return np.concatenate([np.asarray(x, float).reshape(len(x), -1) for x in jax.tree.leaves(tree)], axis=1)


DRAWN = jax.jit(jax.vmap(lambda key: normal_like(key, LIKE, 1.0)))(KEYS)
W = flat(DRAWN)  # the independent noise of each round


def square_root(bands):
    return np.array([math.comb(2 * j, j) / 4**j for j in range(bands)])


def banded_matrix(rounds, c):
    return sum(np.diag(np.full(rounds - j, c[j]), -j) for j in range(min(rounds, len(c))))


def tree_matrix(rounds):
    """Row t sums the rounds under the node that ends with round t, the largest that the prefixes use."""
    return np.array([[float(t - (t & -t) < i <= t) for i in range(1, rounds + 1)] for t in range(1, rounds + 1)])
