"""The weighted median where sums of weights meet half of the total, against fractions."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_lite as fl
from fedjax_lite import aggregators

SLOTS = 64


def oracle(weights):
    """The least k for which the weights up to it are at least half; exactly, of the ratios that the decimals mean."""
    total, so_far = sum(weights), 0
    for k, weight in enumerate(weights):
        so_far += weight
        if 2 * so_far >= total:
            return k
    return None


@jax.jit
def found(weights, present):
    cohort = fl.sampling.cohort(jax.random.key(0), jnp.ones(SLOTS, jnp.int32), jnp.arange(SLOTS), present)
    rule = aggregators.weighted_median(weights)
    part = rule.collect(jnp.arange(SLOTS, dtype=jnp.float32), cohort, ())
    return rule.finish(part, (), None)[0]


def of(weights):
    """The value k is client k's."""
    padded = np.zeros(SLOTS, np.float32)
    padded[: len(weights)] = [float(weight) for weight in weights]
    return float(found(padded, (np.arange(SLOTS) < len(weights)).astype(np.float32)))


TENTHS = [Fraction(1, 10), Fraction(1, 7), Fraction(1, 3), Fraction(3, 10), Fraction(11, 10), Fraction(1)]


@pytest.mark.parametrize("weight", TENTHS, ids=str)
def test_equal_weights_that_are_no_binary_fractions(weight):
    for clients in (1, 2, 3, 6, 8, 10, 12, 20, 30, 31, 50, 64):
        assert of([weight] * clients) == oracle([weight] * clients), clients


def test_other_weights_that_meet_half_exactly():
    rng = np.random.default_rng(0)
    for _ in range(60):
        half = [Fraction(int(x), 30) for x in rng.integers(1, 20, rng.integers(1, 20))]
        other = [Fraction(int(x), 30) for x in rng.integers(1, 20, rng.integers(1, 20))]
        weights = [x / sum(half) for x in half] + [x / sum(other) for x in other]
        assert of(weights) == oracle(weights)


def test_whole_weights_count_exactly():
    rng = np.random.default_rng(1)
    for largest in (3, 1000, 2**23):
        for _ in range(20):
            weights = [int(x) for x in rng.integers(1, largest, SLOTS)]
            assert of(weights) == oracle(weights)
    assert of([2**20, 2**20 + 1]) == 1 and of([2**20, 2**20]) == 0 and of([2**20 + 1, 2**20]) == 0


def test_no_weight_at_all_is_zero():
    assert of([0, 0, 0]) == 0 and of([0, 0, 1]) == 2
