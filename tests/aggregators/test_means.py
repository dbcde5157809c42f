"""The means against NumPy, over random cohorts with empty slots; and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from robust_trials import of_rows

import fedjax_lite as fl
from fedjax_lite import aggregators

SIZES = np.array([3, 9, 1, 4, 6])


@functools.cache
def compiled(aggregator):
    def aggregate(stack, weight, ids):
        cohort = fl.sampling.cohort(jax.random.key(0), jnp.asarray(SIZES, jnp.int32), ids, weight)
        return aggregator.finish(aggregator.collect(stack, cohort, ()), (), jax.random.key(1))[0]

    return jax.jit(aggregate)


def aggregate(aggregator, stack, weight, ids=None):
    """The aggregate of a stack `[5, 4]`."""
    return np.asarray(compiled(aggregator)(stack, np.asarray(weight, stack.dtype), np.arange(5) if ids is None else ids))


RULES = {
    "mean": (aggregators.mean(), lambda x, w, n: oracles.weighted_mean(x, np.ones(len(x)))),
    "weighted_mean": (aggregators.weighted_mean(), lambda x, w, n: oracles.weighted_mean(x, w * n)),
    "uniform": (aggregators.weighted_mean("uniform"), lambda x, w, n: oracles.weighted_mean(x, w)),
    "capped": (aggregators.weighted_mean(cap=4), lambda x, w, n: oracles.weighted_mean(x, w * np.minimum(n, 4))),
    "function": (aggregators.weighted_mean(lambda c: c.size**2), lambda x, w, n: oracles.weighted_mean(x, w * n**2)),
}


@pytest.mark.parametrize("rule", RULES)
def test_rules_equal_numpy(rule, x64):
    aggregator, oracle = RULES[rule]

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 10**6), st.lists(st.sampled_from([0.0, 1.0, 2.5]), min_size=5, max_size=5).filter(any))
    def holds(seed, present):
        weight = np.array(present)
        stack, some = np.random.default_rng(seed).normal(size=(5, 4)), weight > 0
        actual = aggregate(aggregator, np.where(some[:, None], stack, np.nan), weight)
        np.testing.assert_allclose(actual, oracle(stack[some], weight[some], SIZES[some]), atol=1e-12)

    holds()


@pytest.mark.parametrize("rule, withstands", [("median", True), ("trimmed_mean", True), ("mean", False)])
@pytest.mark.parametrize("poison", [1e10, -1e18])
def test_one_huge_message_moves_only_the_mean(rule, withstands, poison):
    honest = np.random.default_rng(0).normal(size=(4, 3))
    result = of_rows(rule, np.vstack([honest, np.full(3, poison)]), 1)
    inside = (result >= honest.min(0)).all() and (result <= honest.max(0)).all()
    assert inside == withstands


TABLE = aggregators.weighted_mean(np.array([5.0, 0.0, 1.0]))  # of clients 0, 1 and 2


def test_own_weights_follow_the_client_not_the_slot():
    stack = np.repeat([[6.0], [0.0], [7.0], [8.0], [9.0]], 4, axis=1)
    assert (aggregate(TABLE, stack, [1, 1, 0, 0, 0], np.array([2, 0, 1, 3, 4])) == 1).all()  # (1 * 6 + 5 * 0) / 6


def test_examples_without_weight_leave_the_mean_at_zero():
    assert (aggregate(TABLE, np.ones((5, 4)), [0, 1, 0, 0, 0]) == 0).all()


def test_a_client_without_a_weight_of_its_own_shows():
    """An array shorter than the population must not lend a client the weight of another."""
    assert np.isnan(aggregate(TABLE, np.ones((5, 4)), np.ones(5))).all()


ADDING = {
    "mean": (aggregators.mean("propagate"), [4.5, 3]),
    "weighted_mean": (aggregators.weighted_mean(np.array([0.5, 0.25]), non_finite="propagate"), [4, 10 / 3]),
    "norm_bounding": (
        aggregators.norm_bounding(2.5, non_finite="propagate"),
        [(1.5 + 6 * 2.5 / np.sqrt(40)) / 2, (2 + 2 * 2.5 / np.sqrt(40)) / 2],
    ),
    "rlr": (aggregators.rlr(2, weights=np.array([0.5, 0.25]), non_finite="propagate"), [4, 10 / 3]),
    "sign_majority": (aggregators.sign_majority(0.5, "propagate"), [0.5, 0.5]),
    "dp_mean": (aggregators.dp_mean(100.0, 0.0, 1.0, weights=np.array([0.5, 0.25])), [3, 2.5]),
    "dp_mean capped": (aggregators.dp_mean(100.0, 0.0, 1.0, weights="examples", cap=4), [2.25 + 6, 3 + 2]),
}


@pytest.mark.parametrize("rule", ADDING)
def test_whole_numbers_are_weighed_as_fractions(rule):
    """Messages (3, 4) and (6, 2) of int32, clients of 3 and 9 examples: weights below 1, and lengths cut, are not rounded to 0."""
    np.testing.assert_allclose(added()[rule], ADDING[rule][1], rtol=1e-6)


@functools.cache
def added():
    def aggregates(stack):
        cohort, key = fl.sampling.cohort(jax.random.key(0), jnp.asarray(SIZES[:2], jnp.int32), jnp.arange(2)), jax.random.key(1)
        return {name: rule.finish(rule.collect(stack, cohort, ()), (), key)[0] for name, (rule, _) in ADDING.items()}

    return jax.tree.map(np.asarray, jax.jit(aggregates)(np.array([[3, 4], [6, 2]])))


WEIGHED = {
    "weighted_mean": aggregators.weighted_mean,
    "weighted_median": aggregators.weighted_median,
    "geometric_median": lambda weights: aggregators.geometric_median(weights=weights),
    "rlr": lambda weights: aggregators.rlr(1, weights=weights),
    "dp_mean": lambda weights: aggregators.dp_mean(1.0, 1.0, 4.0, weights=weights),
}


@pytest.mark.parametrize("rule", WEIGHED)
def test_weights_that_are_known_and_no_weights_are_refused(rule):
    for weights, message in (
        (-np.ones(6), "weights must be finite and not negative, got -1.0 for client 0"),
        ([1.0, 2.0, -0.5], "got -0.5 for client 2"),
        (jnp.array([1, -3]), "got -3.0 for client 1"),
        (np.array([1.0, np.nan]), "got nan for client 1"),
        (np.array(["uniform"]), "an array of weights must hold numbers"),
        (["examples", "uniform"], "an array of weights must hold numbers"),
    ):
        with pytest.raises(ValueError, match=f"{rule}: .*{message}"):
            WEIGHED[rule](weights)


@functools.cache
def shown():
    """What the rules make of weights that are computed: negative for one client of five, missing for it, and neither; one program."""

    def aggregates(table):
        cohort, stack = fl.sampling.cohort(jax.random.key(0), jnp.asarray(SIZES, jnp.int32), jnp.arange(5)), jnp.ones((5, 2))
        ways = {
            "function": lambda client: table[client.id],
            "tracer": table,
            "short": np.array([1, 2, 3, 4], np.int32),
            "short and unsigned": np.array([1, 2, 3, 4], np.uint8),
            "whole": np.array([1, 2, 3, 4, 5]),
        }
        rules = {(rule, way): WEIGHED[rule](weights) for rule in list(WEIGHED)[:4] for way, weights in ways.items()}
        return {name: rule.finish(rule.collect(stack, cohort, ()), (), None)[0] for name, rule in rules.items()}

    return jax.tree.map(np.asarray, jax.jit(aggregates)(np.array([1.0, 1.0, 1.0, 1.0, -2.0], np.float32)))


@pytest.mark.parametrize("rule", list(WEIGHED)[:4])
def test_weights_that_turn_out_to_be_none_show(rule):
    for way in ("function", "tracer", "short", "short and unsigned"):
        assert np.isnan(shown()[rule, way]).all(), way
    np.testing.assert_allclose(shown()[rule, "whole"], 1)


def test_bad_arguments():
    with pytest.raises(ValueError, match='needs weights="examples"'):
        aggregators.weighted_mean("uniform", cap=3)
    with pytest.raises(ValueError, match="cap must be positive and finite, got 0"):
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
