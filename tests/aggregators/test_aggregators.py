"""Each rule against NumPy, over random cohorts with empty slots; and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fedjax_lite as fl
from fedjax_lite import aggregators

SIZES = np.array([3, 9, 1, 4, 6])


@functools.cache
def compiled(aggregator):
    return jax.jit(lambda stack, cohort: aggregator.finish(aggregator.collect(stack, cohort, ()), (), jax.random.key(1))[0])


def aggregate(aggregator, stack, weight, sizes=SIZES):
    """The aggregate of a stack `[clients, ...]`."""
    cohort = fl.sampling.cohort(jax.random.key(0), jnp.asarray(sizes, jnp.int32), jnp.arange(len(weight)), jnp.asarray(weight, float))
    return compiled(aggregator)(stack, cohort)


def trimmed(x, f):
    return oracles.trimmed_mean(x, f) if len(x) > 2 * f else np.zeros(x.shape[1])


RULES = {
    "mean": (aggregators.mean(), lambda x, w, n: oracles.weighted_mean(x, np.ones(len(x)))),
    "weighted_mean": (aggregators.weighted_mean(), lambda x, w, n: oracles.weighted_mean(x, w * n)),
    "uniform": (aggregators.weighted_mean("uniform"), lambda x, w, n: oracles.weighted_mean(x, w)),
    "capped": (aggregators.weighted_mean(cap=4), lambda x, w, n: oracles.weighted_mean(x, w * np.minimum(n, 4))),
    "function": (aggregators.weighted_mean(lambda c: c.size**2), lambda x, w, n: oracles.weighted_mean(x, w * n**2)),
    "median": (aggregators.median(), lambda x, w, n: np.median(x, axis=0)),
    "trimmed_mean(0)": (aggregators.trimmed_mean(0), lambda x, w, n: x.mean(axis=0)),
    "trimmed_mean(1)": (aggregators.trimmed_mean(1), lambda x, w, n: trimmed(x, 1)),
    "trimmed_mean(2)": (aggregators.trimmed_mean(2), lambda x, w, n: trimmed(x, 2)),
}


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6), present=st.lists(st.sampled_from([0.0, 1.0, 2.5]), min_size=5, max_size=5).filter(any), ties=st.booleans()
)
def test_rules_equal_numpy(rule, seed, present, ties):
    aggregator, oracle = RULES[rule]
    rng, weight = np.random.default_rng(seed), np.array(present)
    stack = rng.integers(-2, 3, (5, 4)).astype(float) if ties else rng.normal(size=(5, 4))
    some = weight > 0
    with jax.enable_x64(True):
        actual = aggregate(aggregator, jnp.where(some[:, None], stack, np.nan), weight)
    np.testing.assert_allclose(actual, oracle(stack[some], weight[some], SIZES[some]), atol=1e-12)


@pytest.mark.parametrize("rule, withstands", [("median", True), ("trimmed_mean(1)", True), ("mean", False)])
@pytest.mark.parametrize("poison", [1e10, -1e18])
def test_one_huge_message_moves_only_the_mean(rule, withstands, poison):
    honest = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    result = np.asarray(aggregate(RULES[rule][0], jnp.asarray(np.vstack([honest, np.full(3, poison, np.float32)])), np.ones(5)))
    inside = (result >= honest.min(0)).all() and (result <= honest.max(0)).all()
    assert inside == withstands


def test_own_weights_follow_the_client_not_the_slot():
    table = jnp.array([5.0, 0.0, 1.0])
    cohort = fl.sampling.cohort(jax.random.key(0), jnp.array([1, 1, 1]), jnp.array([2, 0]))
    aggregator = aggregators.weighted_mean(table)
    result = aggregator.finish(aggregator.collect(jnp.array([6.0, 0.0]), cohort, ()), (), None)[0]
    assert float(result) == 1.0  # (1 * 6 + 5 * 0) / 6


def test_examples_without_weight_leave_the_mean_at_zero():
    assert float(aggregate(aggregators.weighted_mean(jnp.zeros(5)), jnp.ones(5), np.ones(5))) == 0


def test_bad_arguments():
    with pytest.raises(ValueError, match='needs weights="examples"'):
        aggregators.weighted_mean("uniform", cap=3)
    with pytest.raises(ValueError, match="cap must be positive, got 0"):
        aggregators.weighted_mean(cap=0)
    with pytest.raises(ValueError, match="'example'"):
        aggregators.weighted_mean("example")
    with pytest.raises(ValueError, match=r"shape \[population\]"):
        aggregators.weighted_mean(np.ones((2, 2)))
    with pytest.raises(ValueError, match="whole number of at least 0, got -1"):
        aggregators.trimmed_mean(-1)


def test_a_fractional_number_of_byzantine_clients_is_refused():
    with pytest.raises(ValueError, match="whole number of at least 0, got 1.5"):
        aggregators.trimmed_mean(1.5)


def test_a_client_without_a_weight_of_its_own_shows():
    """An array shorter than the population must not lend a client the weight of another."""
    assert np.isnan(aggregate(aggregators.weighted_mean(np.array([1.0, 3.0])), jnp.ones(5), np.ones(5)))
