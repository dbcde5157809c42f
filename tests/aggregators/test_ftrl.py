"""Correlated noise against dense matrices, an explicit binary tree, jax-privacy and dp-accounting; and the aggregator that adds it."""

import functools
import itertools
import math
import sys

import dp_accounting
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from dp_accounting import rdp
from jax_privacy.matrix_factorization import toeplitz as oracle

import fedjax_lite as fl
from fedjax_lite import privacy
from fedjax_lite.aggregators.ftrl import dp_ftrl
from fedjax_lite.privacy import correlated
from fedjax_lite.privacy.norms import normal_like

LIKE = {"w": jnp.zeros((3, 2)), "b": jnp.zeros(())}
KEYS = jax.random.split(jax.random.key(7), 64)


def flat(tree):
    """[rounds, coordinates] in float64."""
    return np.concatenate([np.asarray(x, float).reshape(len(x), -1) for x in jax.tree.leaves(tree)], axis=1)


DRAWN = jax.vmap(lambda key: normal_like(key, LIKE, 1.0))(KEYS)
W = flat(DRAWN)  # the independent noise of each round


def streamed(strategy, rounds=64):
    def step(state, each):
        noise, state = strategy.draw(state, *each, LIKE)
        return state, noise

    return jax.jit(lambda keys: jax.lax.scan(step, strategy.init(LIKE), (jnp.arange(rounds), keys))[1])(KEYS[:rounds])


def square_root(bands):
    return np.array([math.comb(2 * j, j) / 4**j for j in range(bands)])


def banded_matrix(rounds, c):
    return sum(np.diag(np.full(rounds - j, c[j]), -j) for j in range(min(rounds, len(c))))


def tree_matrix(rounds):
    """Row t sums the rounds under the node that ends with round t, the largest that the prefixes use."""
    return np.array([[float(t - (t & -t) < i <= t) for i in range(1, rounds + 1)] for t in range(1, rounds + 1)])


@pytest.mark.parametrize("bands", [1, 2, 3, 8, 64])
def test_banded_noise_is_that_of_the_dense_inverse(bands):
    dense = np.linalg.solve(banded_matrix(64, square_root(bands)), W)
    np.testing.assert_allclose(flat(streamed(correlated.banded(64, bands))), dense, rtol=1e-5, atol=1e-5)


def test_banded_noise_is_that_of_jax_privacy():
    theirs = oracle.inverse_as_streaming_matrix(jnp.asarray(square_root(8), jnp.float32)) @ DRAWN["w"]
    np.testing.assert_allclose(streamed(correlated.banded(64, 8))["w"], theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rounds", [1, 37, 64])
def test_the_noise_of_a_prefix_is_that_of_its_nodes_in_the_tree(rounds):
    noise = np.cumsum(flat(streamed(correlated.tree(rounds), rounds)), axis=0)
    for t in range(1, rounds + 1):
        first, nodes = 0, []  # the prefix cut into whole nodes, the largest first; each node's noise is drawn in the round that it ends
        for width in (64, 32, 16, 8, 4, 2, 1):
            if first + width <= t:
                first += width
                nodes.append(W[first - 1])
        assert len(nodes) == t.bit_count()  # so the prefix has that many variances
        np.testing.assert_allclose(noise[t - 1], sum(nodes), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.cumsum(np.linalg.solve(tree_matrix(rounds), W[:rounds]), axis=0), noise, rtol=1e-5, atol=1e-5)


def errors(matrix, squared):
    """Of the prefix sums, the largest and the mean over rounds of the noise's variance, for noise as large as the sensitivity."""
    each = squared * (np.cumsum(np.linalg.inv(matrix), axis=0) ** 2).sum(axis=1)
    return each.max(), each.mean()


@pytest.mark.parametrize(("rounds", "best", "tree", "plain"), [
    (200, (7.576, 6.710), (63, 33.07), (200, 100.5)),
    (1024, (10.710, 9.671), (110, 55.01), (1024, 512.5)),
])  # fmt: skip
def test_errors_are_those_of_the_table(rounds, best, tree, plain):
    makers = correlated.banded(rounds, rounds), correlated.independent(), correlated.tree(rounds)
    full, same, nodes = (maker.sensitivity(1, 1, rounds) ** 2 for maker in makers)
    np.testing.assert_allclose(errors(banded_matrix(rounds, square_root(rounds)), full), best, rtol=1e-4)
    np.testing.assert_allclose(errors(np.eye(rounds), same), plain, rtol=1e-4)
    # The table counts a level more where the rounds are no power of two: a root that never ends, so is never released.
    counted = math.ceil(math.log2(rounds)) + 1
    np.testing.assert_allclose(errors(tree_matrix(rounds), counted), tree, rtol=1e-3)
    assert nodes == pytest.approx((tree_matrix(rounds) ** 2).sum(axis=0).max()) == pytest.approx({200: 8, 1024: 11}[rounds])


def test_optimised_coefficients_have_the_least_error():
    correlated._optimised.cache_clear()
    jax.eval_shape(lambda: correlated.banded(200, 8, optimise=True).init(LIKE))  # a study builds its aggregators while tracing
    strategy, c = correlated.banded(200, 8, optimise=True), np.asarray(correlated._optimised(200, 8))
    matrix = banded_matrix(200, c / c[0])
    assert errors(matrix, strategy.sensitivity(1, 1, 200) ** 2)[1] == pytest.approx(16.835, rel=1e-3)
    np.testing.assert_allclose(flat(streamed(strategy)), np.linalg.solve(matrix[:64, :64], W), rtol=1e-4, atol=1e-4)


def test_sensitivities_are_those_of_the_reference():
    assert correlated.banded(64, 64).sensitivity(4, 16, 64) ** 2 == pytest.approx(15.6865, rel=1e-5)
    assert correlated.banded(64, 8).sensitivity(4, 16, 64) ** 2 == pytest.approx(6.8735, rel=1e-5)  # 4 ||c||^2
    assert correlated.independent().sensitivity(9, 3, 100) == pytest.approx(3)
    for bands, times, separation in itertools.product((1, 5, 20), (1, 2, 7), (1, 4, 9)):
        found = oracle.minsep_sensitivity_squared(jnp.asarray(square_root(bands)), separation, times, n=20)
        assert correlated.banded(20, bands).sensitivity(times, separation, 20) ** 2 == pytest.approx(float(found), rel=1e-5)


def furthest(matrix, times, separation):
    """The norm of the columns' sum, over every choice of rounds for a client."""
    chosen = (c for k in range(times + 1) for c in itertools.combinations(range(len(matrix)), k))
    allowed = (list(c) for c in chosen if all(b - a >= separation for a, b in itertools.pairwise(c)))
    return max(np.linalg.norm(matrix[:, c].sum(axis=1)) for c in allowed)


@pytest.mark.parametrize(("times", "separation"), [(0, 1), (1, 1), (2, 1), (3, 1), (12, 1), (2, 3), (4, 3), (3, 4), (9, 5)])
def test_no_choice_of_rounds_moves_more(times, separation):
    for bands in (1, 2, 4, 12):
        exact = furthest(banded_matrix(12, square_root(bands)), times, separation)
        assert correlated.banded(12, bands).sensitivity(times, separation, 12) == pytest.approx(exact)
    for rounds in (5, 8, 11, 12):  # a tree for 16 serves fewer rounds too
        exact, bound = furthest(tree_matrix(rounds), times, separation), correlated.tree(16).sensitivity(times, separation, rounds)
        assert exact <= bound * (1 + 1e-9) and bound <= (1 if times < 2 else 1.5) * exact * (1 + 1e-9)


@pytest.mark.parametrize("rounds", [200, 1023, 1024])
def test_a_tree_costs_what_dp_accounting_says(rounds):
    orders = rdp.RdpAccountant(neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_SPECIAL)
    orders.compose(dp_accounting.SingleEpochTreeAggregationDpEvent(2.0, rounds))
    assert rounds != 1024 or orders.get_epsilon(1e-5) == pytest.approx(8.5519, abs=1e-4)
    mechanism = dp_ftrl(1.0, 2.0, 10, rounds, "tree").privacy
    ours = rdp.RdpAccountant()
    ours.compose(dp_accounting.GaussianDpEvent(2.0 / mechanism.sensitivity(1, rounds)))
    assert ours.get_epsilon(1e-5) == pytest.approx(orders.get_epsilon(1e-5), rel=1e-9)
    found = privacy.account(mechanism, fl.sampling.cyclic(1), rounds, rounds, 1e-5)
    assert found.pld < found.rdp == pytest.approx(orders.get_epsilon(1e-5), rel=1e-9)


@pytest.mark.parametrize("strategy", ["tree", "banded", "independent"])
def test_epsilon_is_that_of_the_gaussian_formula(strategy):
    mechanism, sampler = dp_ftrl(0.1, 3.0, 10, 64, strategy).privacy, fl.sampling.cyclic(10)  # of 160: 4 times, 16 rounds apart
    found, s = privacy.account(mechanism, sampler, 160, 64, 1e-5).pld, 3.0 / mechanism.sensitivity(4, 16)
    phi = scipy.stats.norm.cdf
    assert phi(0.5 / s - found * s) - math.exp(found) * phi(-0.5 / s - found * s) == pytest.approx(1e-5, rel=1e-3)
    assert privacy.account(mechanism, sampler, 160, 0, 1e-5).pld == 0
    assert privacy.account(dp_ftrl(0.1, 0.0, 10, 64, strategy).privacy, sampler, 160, 64, 1e-5).pld == math.inf


ROUNDS, CLIP, Z, M = 10, 0.7, 3.0, 8
STRATEGIES = {name: name for name in ("tree", "banded", "independent")} | {"own": correlated.toeplitz([2.0, 1.0])}
PRIVATE = {name: dp_ftrl(CLIP, Z, M, ROUNDS, strategy) for name, strategy in STRATEGIES.items()}
MATRICES = dict(zip(PRIVATE, (tree_matrix(ROUNDS), banded_matrix(ROUNDS, square_root(8)), np.eye(ROUNDS), banded_matrix(ROUNDS, [1, 0.5]))))
names = pytest.mark.parametrize("name", PRIVATE)


def cohort_of(weight):
    sizes = jnp.ones(len(weight), jnp.int32)
    return fl.sampling.cohort(jax.random.key(0), sizes, jnp.arange(len(weight)), jnp.asarray(weight, jnp.float32))


def messages(seed, scale=1.0):
    return jax.vmap(lambda key: normal_like(key, LIKE, scale))(jax.random.split(jax.random.key(seed), 4))


@functools.partial(jax.jit, static_argnums=0)
def rounds_of(aggregator, state, stack, cohort, keys):
    def step(state, key):
        aggregate, state, metrics = aggregator.finish(aggregator.collect(stack, cohort, state), state, key)
        return state, (aggregate, metrics)

    return jax.lax.scan(step, state, keys)


def released(aggregator, stack, weight):
    """The aggregates of rounds with the same messages `[rounds, coordinates]`, and the metrics."""
    aggregates, metrics = rounds_of(aggregator, aggregator.init(LIKE), stack, cohort_of(weight), KEYS[:ROUNDS])[1]
    return flat(aggregates), metrics


@names
def test_a_release_is_the_clipped_sum_and_its_noise_over_a_fixed_number(name):
    stack, weight = messages(1), np.array([1, 1, 0, 1])
    rows = flat(stack)
    cut = rows * np.minimum(1, CLIP / np.linalg.norm(rows, axis=1, keepdims=True))
    noise = Z * CLIP * np.linalg.solve(MATRICES[name], W[:ROUNDS])
    found, metrics = released(PRIVATE[name], stack, weight)
    np.testing.assert_allclose(found, (weight @ cut + noise) / M, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(metrics["noise_to_signal"], np.linalg.norm(noise, axis=1) / np.linalg.norm(weight @ cut), rtol=1e-4)
    assert (metrics["clip_norm"] == np.float32(CLIP)).all()
    np.testing.assert_allclose(metrics["clipped"], (np.linalg.norm(rows[weight > 0], axis=1) > CLIP).mean())


@names
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, 1e30, 0.0])
def test_a_client_moves_all_rounds_together_by_the_sensitivity_at_most(name, bad):
    """Of C G, with the matrix of each strategy, for a client in rounds 0, 4 and 8; the noise of both runs is the same."""
    stack = messages(2, scale=10.0)
    stack["w"] = stack["w"].at[0, 0].set(bad)
    there, away = (released(PRIVATE[name], stack, weight)[0] for weight in ([1, 1, 1, 0], [0, 1, 1, 0]))
    moved = np.where(np.arange(ROUNDS)[:, None] % 4 == 0, M * (there - away), 0)
    assert np.linalg.norm(moved, axis=1).max() <= CLIP * (1 + 1e-5)
    assert np.linalg.norm(MATRICES[name] @ moved) <= CLIP * PRIVATE[name].privacy.sensitivity(3, 4) * (1 + 1e-5)


@names
def test_empty_slots_do_not_matter_and_empty_rounds_release_noise(name):
    aggregator, stack = PRIVATE[name], messages(3)
    garbage = jax.tree.map(lambda x: x.at[2:].set(jnp.nan), stack)
    np.testing.assert_array_equal(released(aggregator, garbage, [1, 1, 0, 0])[0], released(aggregator, stack, [1, 1, 0, 0])[0])
    nobody, metrics = released(aggregator, garbage, [0, 0, 0, 0])
    assert (np.abs(nobody) > 0).all() and (metrics["clipped"] == 0).all()
    np.testing.assert_array_equal(nobody, released(aggregator, jax.tree.map(jnp.zeros_like, stack), [1, 1, 1, 1])[0])


@names
def test_parts_of_groups_add_and_half_precision_is_summed_in_float32(name):
    aggregator, stack, cohort = PRIVATE[name], messages(4), cohort_of([1, 0, 1, 1])
    state = aggregator.init(LIKE)
    halves = [jax.tree.map(lambda x, i=i: x[i : i + 2], (stack, cohort)) for i in (0, 2)]
    parts = jax.tree.map(jnp.add, *(aggregator.collect(*half, state) for half in halves))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), aggregator.collect(stack, cohort, state), parts)
    assert aggregator.additive
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), stack)
    state = aggregator.init(jax.tree.map(lambda x: x[0], half))
    mean, after, _ = aggregator.finish(aggregator.collect(half, cohort, state), state, KEYS[0])
    assert mean["w"].dtype == jnp.float32 and jax.tree.map(jax.typeof, after) == jax.tree.map(jax.typeof, state)


@names
def test_resuming_is_not_stopping_and_after_the_last_round_nothing_is_released(name):
    aggregator, stack, found = PRIVATE[name], messages(5), []
    whole, state = released(aggregator, stack, [1, 1, 1, 1])[0], aggregator.init(LIKE)
    for first in (0, 6):
        state, (aggregates, _) = rounds_of(aggregator, state, stack, cohort_of([1, 1, 1, 1]), KEYS[first : first + 6])
        found.append(flat(aggregates))
        state = jax.tree.map(lambda x: jnp.asarray(np.array(x)), state)  # saved and loaded
    np.testing.assert_array_equal(whole, np.concatenate(found)[:ROUNDS])
    assert np.isfinite(whole).all() and np.isnan(found[1][ROUNDS - 6 :]).all()


def test_a_traced_multiplier_scales_the_noise():
    def sums(z):
        aggregator = dp_ftrl(1.0, z, 2, rounds=12, bands=3)
        part, state = aggregator.collect(messages(6), cohort_of([1, 1, 0, 1]), ()), aggregator.init(LIKE)
        return aggregator.finish(part, state, KEYS[0])[0]["w"]

    found = jax.jit(jax.vmap(sums))(jnp.array([0.0, 1.0, 2.0]))
    np.testing.assert_allclose(found[1], sums(1.0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[2] - found[0], 2 * (found[1] - found[0]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("strategy", "variance"), [("independent", 64), ("tree", 1), ("banded", (square_root(64) ** 2).sum())])
def test_sgd_is_moved_by_little_noise(strategy, variance):
    """Of the sum of 64 rounds: one node's; that of the best Toeplitz matrix, whose inverse's prefix sums it is."""
    aggregator = dp_ftrl(1.0, 1.0, 1, 64, strategy, bands=64)
    sums = jnp.sum(rounds_of(aggregator, aggregator.init(jnp.zeros(4000)), jnp.zeros((1, 4000)), cohort_of([1]), KEYS)[1][0], axis=0)
    assert float(jnp.var(sums)) == pytest.approx(variance, rel=0.12)  # five standard deviations


@pytest.mark.parametrize(("change", "message"), [
    ({"clip": 0.0}, "dp_ftrl: clip must be positive and finite, got 0.0"),
    ({"noise_multiplier": -1.0}, "dp_ftrl: noise_multiplier must be finite and not negative, got -1.0"),
    ({"rounds": 0}, "dp_ftrl: rounds must be a whole number of at least 1, got 0"),
    ({"bands": 0}, "dp_ftrl: bands must be a whole number of at least 1, got 0"),
    ({"strategy": correlated.tree(9)}, "tree: rounds=9 are fewer than the 10 of the run: build the tree for all of them"),
])  # fmt: skip
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dp_ftrl(**{"clip": 1.0, "noise_multiplier": 1.0, "clients_per_round": 2, "rounds": 10} | change)


def test_bad_strategies_are_refused_and_remedies_named(monkeypatch):
    for bad in ([], [0.0], [1.0, 2.0], [1.0, -0.5], [1.0, math.nan]):
        with pytest.raises(ValueError, match="coefficients must be positive first"):
            correlated.toeplitz(bad)
    for times, separation, name in [(-1, 1, "times"), (1, 0, "separation")]:
        with pytest.raises(ValueError, match=f"{name} must be a whole number"):
            correlated.banded(8, 2).sensitivity(times, separation, 8)
    with pytest.raises(ValueError, match="delta must be between 0 and 1, got 0.0"):
        privacy.account(PRIVATE["tree"].privacy, fl.sampling.cyclic(1), 4, 1, 0.0)
    for package in ("dp_accounting", "jax_privacy.matrix_factorization.toeplitz"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=r'dp-accounting: pip install "fedjax_lite\[privacy\]"'):
        privacy.account(PRIVATE["tree"].privacy, fl.sampling.cyclic(1), 3, 1, 0.123)
    with pytest.raises(ValueError, match=r'jax-privacy: pip install "fedjax_lite\[privacy\]"'):
        correlated.banded(17, 3, optimise=True)
