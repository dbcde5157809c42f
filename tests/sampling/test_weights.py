"""Weights that make a sum unbiased, and draws with replacement: the numbers of five clients, by enumeration."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fedjax_lite as fl
from fedjax_lite import sampling
from fedjax_lite.aggregators import mean, weighted_mean, weighted_sum

SIZES = np.array([10, 20, 30, 40, 100], np.int32)
MESSAGES = np.array([[1, 0], [-1, 2], [0, -1], [2, 1], [-0.5, 0.5]])
SHARES = SIZES / 200
BEST = SHARES * np.linalg.norm(MESSAGES, axis=1)
PI = np.array([0.2, 0.4, 0.4, 0.6, 0.8])
SAMPLERS = {
    "uniform": sampling.importance(1, "uniform"),
    "examples": sampling.importance(1),
    "best": sampling.importance(1, BEST),
    "independent": sampling.importance(PI.sum(), PI, replace=False),
    "three": sampling.importance(3, BEST),
    "uniform weights": sampling.importance(3, "examples", "uniform"),
    "own weights": sampling.importance(3, "uniform", [1, 0, 2, 3, 4]),
    "capped": sampling.importance(3, "uniform", cap=0.25),
    "draws": sampling.with_replacement(6, "examples"),
}


@functools.cache
def drawn():
    """Weights [rounds, clients] of each sampler."""

    def one(t):
        found = {name: sampler(jax.random.fold_in(jax.random.key(5), t), jnp.asarray(SIZES), t) for name, sampler in SAMPLERS.items()}
        return {name: jnp.zeros(5).at[each.id].add(each.weight) for name, each in found.items()}

    return jax.device_get(jax.jit(jax.vmap(one))(np.arange(3000)))


def weight_of(name):
    """Each client's weight when it is drawn once."""
    weights = drawn()[name]
    return np.array([np.unique(column[column > 0])[0] for column in weights.T])


@pytest.mark.parametrize(
    "name, variance",
    [*(pytest.param(*case, marks=pytest.mark.deep) for case in (("uniform", 1.74), ("examples", 1.69))), ("best", 1.2390911626)],
)
def test_of_one_draw_mean_and_variance_are_those_of_the_catalogue(name, variance):
    q, estimates = sampling.inclusion(SAMPLERS[name], SIZES), weight_of(name)[:, None] * MESSAGES
    average = q @ estimates
    np.testing.assert_allclose(average, [0.1, 0.5], rtol=1e-6)
    np.testing.assert_allclose(q @ ((estimates - average) ** 2).sum(axis=1), variance, rtol=1e-6)


def test_of_independent_draws_too():
    pi, weight = sampling.inclusion(SAMPLERS["independent"], SIZES), weight_of("independent")
    np.testing.assert_allclose(pi, PI, rtol=1e-12)
    who = np.array(list(itertools.product([0, 1], repeat=5)))
    chance = np.prod(np.where(who, pi, 1 - pi), axis=1)
    estimates = (who * weight) @ MESSAGES
    np.testing.assert_allclose(chance @ estimates, [0.1, 0.5], rtol=1e-6)
    np.testing.assert_allclose(chance @ ((estimates - [0.1, 0.5]) ** 2).sum(axis=1), 0.2833333333, rtol=1e-6)


@pytest.mark.parametrize(
    "name, goal", [("three", SHARES), ("uniform weights", np.full(5, 0.2)), ("own weights", np.array([0.1, 0, 0.2, 0.3, 0.4]))]
)
def test_of_several_draws_every_weight_is_right_on_average(name, goal):
    weights = drawn()[name]
    error = weights.std(axis=0) / np.sqrt(len(weights))
    assert (np.abs(weights.mean(axis=0) - goal) <= 4.5 * error).all() and (error[goal > 0] > 0).all()


def test_a_cap_cuts_weights_off():
    weights = drawn()["capped"]
    assert weights.max() == 0.25 and set(np.round(weights[:, 3][weights[:, 3] > 0], 6)) == {0.25}
    np.testing.assert_allclose(np.unique(weights[:, 0])[1:3], [1 / 12, 2 / 12], rtol=1e-6)  # 0.05 / (3 * 0.2), once and twice


def test_draws_with_replacement_are_whole_numbers_that_sum_to_their_number():
    weights = drawn()["draws"]
    assert (weights.sum(axis=1) == 6).all() and (weights == np.round(weights)).all() and weights.max() > 3
    counts = weights.sum(axis=0)
    assert (np.abs(counts - 18000 * SHARES) < 4.5 * np.sqrt(18000 * SHARES * (1 - SHARES))).all()


def test_a_client_drawn_twice_counts_twice_and_trains_once():
    data = fl.FederatedData.from_clients([{"x": np.array([x])} for x in (2.0, 8.0)])
    twice = lambda key, sizes, round: sampling.cohort(key, sizes, jnp.array([0, 1]), jnp.array([3.0, 1.0]))  # noqa: E731
    work = fl.sgd_work(lambda params, batch, key: (params - batch["x"]) ** 2 / 2, optax.sgd(1.0))
    for rule, goal in ((weighted_mean("uniform"), 3.5), (mean(), 5.0), (weighted_sum(), 14.0)):
        algorithm = fl.federate(work, rule, fl.optimizer_server(optax.sgd(1.0)), batches=fl.Batches(None), population=2)
        state, history = fl.simulate(algorithm, data, jnp.zeros(()), twice, rounds=1, key=jax.random.key(0))
        assert float(algorithm.params(state)) == goal and history["clients"].tolist() == [2]


@pytest.mark.parametrize("policy, goal", [("drop", [2.5, 0.5]), ("zero", [2.5, 0.5]), ("propagate", None)])
def test_a_weighted_sum_adds_what_is_finite(policy, goal):
    rule = weighted_sum(policy)
    stack = jnp.array([[1.0, 1.0], [4.0, 0.0], [jnp.nan, 1.0], [jnp.inf, 7.0]])
    cohort = sampling.cohort(jax.random.key(0), jnp.ones(4, jnp.int32), jnp.arange(4), jnp.array([0.5, 0.5, 2.0, 0.0]))
    found, _, metrics = rule.finish(rule.collect(stack, cohort, ()), (), None)
    if goal is None:
        assert np.isnan(found[0]) and float(found[1]) == 2.5 and not metrics
    else:
        assert found.tolist() == goal and float(metrics["non_finite"]) == 1


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: sampling.with_replacement(0), "with_replacement: clients must be a whole number of at least 1"),
        (lambda: sampling.with_replacement(2, "size"), 'with_replacement: by must be "uniform", "examples" or a number for each client'),
        (lambda: sampling.with_replacement(2, [[1.0]]), "with_replacement: by must be"),
        (lambda: sampling.with_replacement(2, [1.0, -1.0]), "with_replacement: by must be finite and not negative.* got -1 for client 1"),
        (lambda: sampling.importance(2, [1.0, 0.0]), "importance: probabilities must be positive and finite, got 0 for client 1"),
        (lambda: sampling.importance(2, weights=[0.0, 0.0]), "importance: weights must be finite and not negative, and one positive"),
        (lambda: sampling.importance(1.5), "importance: clients must be a whole number of at least 1, got 1.5"),
        (lambda: sampling.importance(-1.5, replace=False), "importance: clients must be positive, got -1.5"),
        (lambda: sampling.importance(1, cap=0), "importance: cap must be positive"),
        (lambda: sampling.importance(1, [1, 2])(jax.random.key(0), jnp.ones(3), 0), "probabilities has 2 numbers for 3 clients"),
        (lambda: weighted_sum("nothing"), "weighted_sum: non_finite must be"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
