"""Noise that is correlated over rounds, so that the sum over rounds holds less noise than with independent noise.

A strategy is a lower-triangular matrix C over rounds, with ones on its diagonal. The rounds' noise is n = C^-1 w with w independent. The
release, G + z C_clip C^-1 w for the rounds' sums G, gives away as much as C G + z C_clip w. That is one Gaussian mechanism, with the norm
by which a client moves C G as sensitivity.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from fedjax_lite.base import Key, Tree
from fedjax_lite.clip import normal_like
from fedjax_lite.refuse import whole

__all__ = ["Strategy", "banded", "independent", "toeplitz", "tree"]


class Strategy(NamedTuple):
    """The correlation of noise over rounds: n = C^-1 w, drawn round after round."""

    init: Callable[[Tree], Tree]  # message -> state: the noise of earlier rounds that later rounds need
    draw: Callable[[Tree, Int[Array, ""], Key, Tree], tuple[Tree, Tree]]  # state, round from 0, key, like -> n of the round, state
    # Most participations of a client, fewest rounds from one to the next (1: every round), number of rounds -> the norm by which the
    # client moves C G with messages of norm at most 1.
    sensitivity: Callable[[int, int, int], float]


def tree(rounds: int) -> Strategy:
    r"""The binary tree over rounds: the first t rounds together hold the noise of one node for each 1 in t's binary digits.

    n_t = w_t - sum_{l < r} w_{t - 2^l} for t = 1, 2, ..., r the zeros at the end of t's digits; w_t is the noise of the node over rounds
    t - 2^r + 1 to t, and (C G)_t that node's sum, so n_1 + ... + n_t has popcount(t) nodes' variance.

    Its sensitivity for one time is sqrt(L), L = floor(log2(rounds)) + 1 levels (other books count ceil(log2(rounds)) + 1, with a root
    that is never released unless it ends). For k times at least s rounds apart it is bounded level by level,
    sum_l a_l min(k, m_l a_l), a_l = min(k, ceil(2^l / s)) times in a node of level l, of which m_l are released.

    Args:
        rounds: T >= 1, the most rounds of the tree; there is no restart. The state holds L trees like a message.

    Raises:
        ValueError: for no rounds; from `sensitivity`, for more rounds than the tree has.

    >>> round(tree(1024).sensitivity(1, 1, 1024) ** 2, 6)
    11.0

    Source: Kairouz et al. 2021, "Practical and private (deep) learning without sampling or shuffling", section 3 and appendix B (without
    Honaker's variance reduction).
    """
    whole("tree", "rounds", rounds, least=1)
    levels = int(rounds).bit_length()

    def draw(state, round, key, like):
        fresh = normal_like(key, like, 1.0)
        lowest = (round + 1) & -(round + 1)
        level = jax.lax.population_count(lowest - 1)
        noise = jax.tree.map(lambda w, kept: w - _mixed(jnp.arange(levels) < level, kept), fresh, state)
        return noise, jax.tree.map(lambda kept, w: kept.at[level].set(w, mode="drop"), state, fresh)

    def sensitivity(times, separation, planned):
        if planned > rounds:
            raise ValueError(f"tree: rounds={rounds} are fewer than the {planned} of the run: build the tree for all of them")
        times, squares = _times_that_fit(times, separation, planned), 0
        for level in range(int(planned).bit_length()):
            inside = min(times, -(-(2**level) // separation))
            squares += inside * min(times, (planned // 2**level + 1) // 2 * inside)
        return math.sqrt(squares)

    return Strategy(lambda message: _rows_like(message, levels), draw, sensitivity)


def toeplitz(coefficients: Sequence[float]) -> Strategy:
    r"""A Toeplitz matrix with a few bands: each round's noise takes back a part of the noise of the rounds before.

    n_t = w_t - sum_{j=1}^{b-1} c_j n_{t-j},   C_{t,t-j} = c_j,   with c divided by c_0.

    Its sensitivity is exact, for any number of times and rounds between: since c doesn't grow, a client moves C G furthest if it takes part
    in round 0 and then as often as it may. That is sqrt(k) ||c|| for k times at least b rounds apart.

    Args:
        coefficients: c_0 >= c_1 >= ... >= c_{b-1} >= 0, with c_0 > 0. The state holds b - 1 trees like a message.

    Raises:
        ValueError: for coefficients that grow, are negative or not finite, or none.

    >>> round(toeplitz([1.0, 0.5]).sensitivity(4, 2, 8) ** 2, 6)
    5.0

    Source: Choquette-Choo et al. 2023, "(Amplified) banded matrix factorization", algorithm 9; Kalinin and Lampert 2024, "Banded square
    root matrix factorization for differentially private model training", theorem 2 (the sensitivity).
    """
    c = np.asarray(coefficients, float)
    if not c.size or not np.isfinite(c).all() or not c[0] > 0 or c[-1] < 0 or (np.diff(c) > 0).any():
        raise ValueError(f"toeplitz: coefficients must be positive first, then never grow nor be negative, got {coefficients!r}")
    c = c / c[0]
    kept_rounds = len(c) - 1

    def init(message):
        return _rows_like(message, kept_rounds) if kept_rounds else ()

    def draw(state, round, key, like):
        fresh = normal_like(key, like, 1.0)
        if not kept_rounds:
            return fresh, state
        slot = round % kept_rounds  # in a ring of rounds: the oldest noise, to be replaced
        ago = (slot - 1 - jnp.arange(kept_rounds)) % kept_rounds + 1
        weights = jnp.asarray(c, jnp.result_type(float))[ago]
        noise = jax.tree.map(lambda w, kept: w - _mixed(weights, kept), fresh, state)
        return noise, jax.tree.map(lambda kept, n: kept.at[slot].set(n), state, noise)

    def sensitivity(times, separation, rounds):
        moved = np.zeros(rounds)
        for time in range(_times_that_fit(times, separation, rounds)):
            here = moved[time * separation :][: len(c)]
            here += c[: len(here)]
        return float(np.linalg.norm(moved))

    return Strategy(init, draw, sensitivity)


def banded(rounds: int, bands: int, optimise: bool = False) -> Strategy:
    r"""The first bands of the square root of the prefix sums; with as many bands as rounds it is the best Toeplitz matrix there is.

    c_j = binom(2j, j) / 4^j for j < b: 1, 1/2, 3/8, ...;   C C = A (the prefix sums) at b = T.

    Args:
        rounds: T >= 1, for which it is made; noise and sensitivity hold for any number.
        bands: b >= 1; more than `rounds` are as many as `rounds`. Best if a client takes part at most every b rounds. The state holds b - 1
            trees like a message.
        optimise: take the coefficients with the least mean squared error of the prefix sums, for clients that take part once, found by
            jax-privacy in seconds. With fewer bands than rounds they have the least error.

    Raises:
        ValueError: for no rounds or bands; to optimise without jax-privacy.

    >>> round(banded(64, bands=8).sensitivity(4, 16, 64) ** 2, 4)
    6.8735

    Source: Fichtenberger et al. 2023, "Constant matters: fine-grained error bound on differentially private continual observation"; Kalinin
    and Lampert 2024 (the bands); Choquette-Choo et al. 2023, "(Amplified) banded matrix factorization" (optimised).
    """
    whole("banded", "rounds", rounds, least=1)
    whole("banded", "bands", bands, least=1)
    bands = min(bands, rounds)
    if optimise:
        return toeplitz(_optimised(rounds, bands))
    j = np.arange(1, bands)
    return toeplitz(np.cumprod(np.append(1.0, (2 * j - 1) / (2 * j))).tolist())


def independent() -> Strategy:
    """Noise that is independent over rounds, C = I, for comparison; its sensitivity for k times is sqrt(k)."""
    return toeplitz([1.0])


def _times_that_fit(times: int, separation: int, rounds: int) -> int:
    """Return how many of `times` participations, `separation` rounds apart, fit into `rounds`."""
    whole("sensitivity", "times", times)
    whole("sensitivity", "separation", separation, least=1)
    return min(times, -(-rounds // separation))


def _rows_like(message: Tree, rows: int) -> Tree:
    """Return zeros `[rows, ...]` for each leaf of `message`, in float32 or wider."""
    return jax.tree.map(lambda x: jnp.zeros((rows, *x.shape), jnp.promote_types(x.dtype, jnp.float32)), message)


def _mixed(weights: Array, rows: Array) -> Array:
    """Sum `rows` with `weights`."""
    return jnp.tensordot(weights.astype(rows.dtype), rows, 1, precision="highest")


@cache
def _optimised(rounds: int, bands: int) -> list[float]:
    """Return the banded Toeplitz coefficients of least error, from jax-privacy."""
    try:
        from jax_privacy.matrix_factorization.toeplitz import optimize_banded_toeplitz
    except ImportError:
        raise ValueError('banded: optimise needs the package jax-privacy: pip install "fedjax_lite[privacy]"') from None
    with jax.ensure_compile_time_eval():  # a study builds its aggregators while tracing
        return np.asarray(optimize_banded_toeplitz(rounds, bands), float).tolist()
