"""Robust rules on messages that are very long, equal or zero, and their derivatives there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import robust_oracles as oracles
from robust_rules import (
    ONCE,
    RULES,
    SLOTS,
    TRUSTED,
    WIDTH,
    WITH_F,
    Who,
)
from robust_trials import (
    apply,
    case,
    each,
    each_rule,
    normal,
    run,
    split,
)

from fedjax_lite.aggregators.gram import squared_distances


def very_long(name, dtype, length):
    """Of a length whose square just fits: nothing may overflow on the way."""
    f = 2 if name in WITH_F and name != "bulyan" else 1
    n = SLOTS
    values = normal(np.random.default_rng(11), n, f)
    given = case(n, values, seed=2)
    bad = [slot for slot in given.some if given.ids[slot] != TRUSTED][:f]
    given.V[bad] = np.array([1.0, -1.0])[:f, None] * length
    left, who = given.who()
    V = given.V.astype(dtype)
    result, metrics = run(name, V, given.ids, given.weight, f)
    expected = RULES[name].oracle(V[left].astype(float), f, who)
    assert metrics["non_finite"] == 0
    np.testing.assert_allclose(result, expected, 1e-4, 1e-4 + 1e-6 * np.abs(expected).max())


@each_rule
def test_very_long_messages(name):
    very_long(name, np.float64, 6e152)  # the oracle's sums of squares fit, too


@pytest.mark.deep
@each(ONCE)
def test_very_long_messages_in_single_precision(name):
    very_long(name, np.float32, 2e18)  # norm 6e18, squared 3.6e37


def test_caf_withstands_very_long_messages_that_agree():
    values = normal(np.random.default_rng(12), SLOTS, 2)
    values[:2] = 1e12 + values[:2]
    result, _ = run("caf", values, np.arange(SLOTS), np.ones(SLOTS), 2)
    np.testing.assert_allclose(result, oracles.caf(values, 2), 1e-3, 1e-3)


def test_bulyan_does_not_depend_on_the_order_of_clients():
    """The last message it selects has one neighbour, whose score is the same: the lowest id wins, wherever it stands."""
    rng = np.random.default_rng(19)
    for _ in range(20):
        V, order = rng.normal(size=(SLOTS, WIDTH)), rng.permutation(SLOTS)
        expected, _ = run("bulyan", V, np.arange(SLOTS), np.ones(SLOTS), 2)
        result, _ = run("bulyan", V[order], np.arange(SLOTS)[order], np.ones(SLOTS), 2)
        np.testing.assert_allclose(result, expected, 1e-5, 1e-6)


def test_distances_of_equal_messages_are_zero_however_long():
    """Not what the products of their coordinates leave of the last digits, which can be negative."""
    rng = np.random.default_rng(18)
    V = (rng.normal(size=(4, WIDTH)) * [[1], [1e3], [1e6], [1e9]]).astype(np.float32)[[0, 1, 2, 3, 0, 1, 2, 3, 0]]
    distances = np.asarray(jax.jit(lambda V: squared_distances(split(V), jnp.arange(9) < 8))(V))
    for i in range(8):
        for j in range(8):
            assert (distances[i, j] == 0) == ((i - j) % 4 == 0)
            np.testing.assert_allclose(distances[i, j], oracles.squared_distance(V[i].astype(float), V[j].astype(float)), 1e-5)
    assert (distances[8] == np.inf).all() and (distances[:, 8] == np.inf).all()


BY_DISTANCE = ["krum", "multi_krum", "bulyan", "mda", "nnm krum byzfl"]


@each(BY_DISTANCE, deep=BY_DISTANCE[1:4])
def test_distances_beside_a_common_part_decide_in_single_precision(name):
    """An outlier of 1 beside 1000 in every coordinate, and spreads of 1 there: as in double precision."""
    alone = np.zeros((SLOTS, WIDTH))
    alone[0] = 1
    for V in (alone, *(np.random.default_rng(seed).normal(size=(SLOTS, WIDTH)) for seed in range(4))):
        V = (1000 + V).astype(np.float32)
        result, _ = run(name, V, np.arange(SLOTS), np.ones(SLOTS), 1)
        expected = RULES[name].oracle(V.astype(float), 1, Who(np.ones(SLOTS), 0, np.arange(SLOTS)))
        np.testing.assert_allclose(result, expected, atol=1e-3)


# What has a derivative of its own; the others choose messages, or values, and average. In every run one of each: of values, of messages, by
# weights, by clips.
OWN = ["median", "krum", "geometric_median", "arc mean"]


@each(ONCE, deep=[name for name in ONCE if name not in OWN])
def test_derivatives_are_those_of_finite_differences_and_finite_at_the_edges(name, x64):
    rng, n, f = np.random.default_rng(16), 8, 1
    direction = rng.normal(size=WIDTH)
    aggregator = RULES[name].make(f, "drop")
    program = jax.jit(jax.value_and_grad(lambda V, ids, weight: apply(aggregator, V, ids, weight)[0] @ direction))
    given = case(n, normal(rng, n, f), seed=0)
    V = np.array(given.V)
    value, gradient = map(np.asarray, program(V, given.ids, given.weight))
    empty = np.setdiff1d(np.arange(SLOTS), given.some)
    assert (gradient[empty] == 0).all()
    if name != "caf":  # whose weights count as constants
        step = np.zeros_like(V)
        step[given.some] = rng.normal(size=(n, WIDTH))
        ahead, behind = (float(program(V + sign * 1e-6 * step, given.ids, given.weight)[0]) for sign in (1, -1))
        np.testing.assert_allclose(np.sum(gradient * step), (ahead - behind) / 2e-6, 1e-6, 1e-6)
    for kind, values in edges(n).items():
        V[given.some] = values
        value, gradient = map(np.asarray, program(V, given.ids, given.weight))
        assert np.isfinite(value) and np.isfinite(gradient).all(), kind
        if kind == "NaN":
            assert (gradient[given.some[:2]] == 0).all()


def edges(n):
    rng = np.random.default_rng(17)
    one = rng.normal(size=(1, WIDTH))
    spoiled = rng.normal(size=(n, WIDTH))
    spoiled[0], spoiled[1, 3] = np.nan, np.inf
    return {
        "equal": np.repeat(one, n, axis=0),
        "zero": np.zeros((n, WIDTH)),
        "some zero": np.vstack([np.zeros((n - 2, WIDTH)), one, -one]),
        "two": np.vstack([np.repeat(one, n - 3, axis=0), np.repeat(2 * one, 3, axis=0)]),
        "NaN": spoiled,
    }
