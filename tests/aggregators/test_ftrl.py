"""The private mean with correlated noise: what a run releases, and what it costs."""

import functools
import math
import sys

import dp_accounting
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from correlated_noise import DRAWN, KEYS, LIKE, W, banded_matrix, flat, square_root, tree_matrix
from dp_accounting import rdp

import fedjax_lite as fl
from fedjax_lite import privacy
from fedjax_lite.aggregators.ftrl import dp_ftrl
from fedjax_lite.privacy import correlated


@pytest.mark.parametrize("rounds", [200, pytest.param(1023, marks=pytest.mark.deep), pytest.param(1024, marks=pytest.mark.deep)])
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


PART = 6  # rounds in one program; a run is two of them
TWICE = KEYS[:PART], KEYS[PART : 2 * PART]


def cohort_of(weight):
    sizes = jnp.ones(len(weight), jnp.int32)
    return fl.sampling.cohort(jax.random.key(0), sizes, jnp.arange(len(weight)), jnp.asarray(weight, jnp.float32))


@functools.cache
def messages(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: np.asarray(scale * rng.normal(size=(4, *x.shape)), np.float32), LIKE)


@functools.cache
def start(name):
    return jax.jit(lambda: PRIVATE[name].init(LIKE))()


@functools.partial(jax.jit, static_argnums=0)
def rounds_of(name, state, stack, weight, keys):
    aggregator, cohort = PRIVATE[name], cohort_of(weight)

    def step(state, key):
        aggregate, state, metrics = aggregator.finish(aggregator.collect(stack, cohort, state), state, key)
        return state, (aggregate, metrics)

    return jax.lax.scan(step, state, keys)


def released(name, stack, weight, rounds=ROUNDS):
    """The aggregates of rounds with the same messages `[rounds, coordinates]`, and the metrics; halfway the state is saved and loaded."""
    state, parts = start(name), []
    for keys in TWICE:
        state, part = rounds_of(name, state, stack, np.asarray(weight, np.float32), keys)
        state, parts = jax.tree.map(lambda x: jnp.asarray(np.array(x)), state), [*parts, part]
    aggregates, metrics = jax.tree.map(lambda *x: np.concatenate(x)[:rounds], *parts)
    return flat(aggregates), metrics


@names
def test_a_release_is_the_clipped_sum_and_its_noise_over_a_fixed_number(name):
    stack, weight = messages(1), np.array([1, 1, 0, 1])
    rows = flat(stack)
    cut = rows * np.minimum(1, CLIP / np.linalg.norm(rows, axis=1, keepdims=True))
    noise = Z * CLIP * np.linalg.solve(MATRICES[name], W[:ROUNDS])
    found, metrics = released(name, stack, weight)
    np.testing.assert_allclose(found, (weight @ cut + noise) / M, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(metrics["noise_to_signal"], np.linalg.norm(noise, axis=1) / np.linalg.norm(weight @ cut), rtol=1e-4)
    assert (metrics["clip_norm"] == np.float32(CLIP)).all()
    np.testing.assert_allclose(metrics["clipped"], (np.linalg.norm(rows[weight > 0], axis=1) > CLIP).mean())


@names
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30, 0.0])
def test_a_client_moves_all_rounds_together_by_the_sensitivity_at_most(name, bad):
    """Of C G, with the matrix of each strategy, for a client in rounds 0, 4 and 8; the noise of both runs is the same."""
    stack = jax.tree.map(np.array, messages(2, scale=10.0))
    stack["w"][0, 0] = bad
    there, away = (released(name, stack, weight)[0] for weight in ([1, 1, 1, 0], [0, 1, 1, 0]))
    moved = np.where(np.arange(ROUNDS)[:, None] % 4 == 0, M * (there - away), 0)
    assert np.linalg.norm(moved, axis=1).max() <= CLIP * (1 + 1e-5)
    assert np.linalg.norm(MATRICES[name] @ moved) <= CLIP * PRIVATE[name].privacy.sensitivity(3, 4) * (1 + 1e-5)


@names
def test_empty_slots_do_not_matter_and_empty_rounds_release_noise(name):
    stack, garbage = messages(3), jax.tree.map(np.array, messages(3))
    for leaf in garbage.values():
        leaf[2:] = np.nan
    np.testing.assert_array_equal(released(name, garbage, [1, 1, 0, 0])[0], released(name, stack, [1, 1, 0, 0])[0])
    nobody, metrics = released(name, garbage, [0, 0, 0, 0])
    assert (np.abs(nobody) > 0).all() and (metrics["clipped"] == 0).all()
    np.testing.assert_array_equal(nobody, released(name, jax.tree.map(np.zeros_like, stack), [1, 1, 1, 1])[0])


@names
def test_parts_of_groups_add_and_half_precision_is_summed_in_float32(name):
    """What is collected does not depend on the state: one program tells for all."""
    aggregator, stack, weight = PRIVATE[name], messages(4), [1, 0, 1, 1]
    assert aggregator.additive

    def parts(stack):
        cohort = cohort_of(weight)
        halves = [jax.tree.map(lambda x, i=i: x[i : i + 2], (stack, cohort)) for i in (0, 2)]
        return aggregator.collect(stack, cohort, ()), jax.tree.map(jnp.add, *(aggregator.collect(*half, ()) for half in halves))

    if name == "tree":
        whole, sums = jax.jit(parts)(stack)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), whole, sums)
    half = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16), stack)
    state = jax.eval_shape(aggregator.init, jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), half))
    once = lambda stack, state, key: aggregator.finish(aggregator.collect(stack, cohort_of(weight), state), state, key)  # noqa: E731
    mean, after, _ = jax.eval_shape(once, half, state, KEYS[0])
    assert mean["w"].dtype == jnp.float32 and jax.tree.map(jax.typeof, after) == jax.tree.map(jax.typeof, state)


@names
def test_after_the_last_round_nothing_is_released(name):
    aggregates, _ = released(name, messages(5), [1, 1, 1, 1], rounds=2 * PART)
    assert np.isfinite(aggregates[:ROUNDS]).all() and np.isnan(aggregates[ROUNDS:]).all()


@pytest.mark.deep
@names
def test_resuming_is_not_stopping(name):
    whole = rounds_of(name, start(name), messages(5), np.ones(4, np.float32), KEYS[: 2 * PART])[1][0]
    np.testing.assert_array_equal(released(name, messages(5), [1, 1, 1, 1], rounds=2 * PART)[0], flat(whole))


def test_a_traced_multiplier_scales_the_noise():
    def sums(z):
        aggregator = dp_ftrl(1.0, z, 2, rounds=12, bands=3)
        part, state = aggregator.collect(messages(6), cohort_of([1, 1, 0, 1]), ()), aggregator.init(LIKE)
        return aggregator.finish(part, state, KEYS[0])[0]["w"]

    found = np.asarray(jax.jit(jax.vmap(sums))(np.array([0.0, 1.0, 2.0], np.float32)))
    for z in (1, 2):  # over two clients a round
        np.testing.assert_allclose(found[z] - found[0], z * np.asarray(DRAWN["w"])[0] / 2, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("strategy", "variance"), [
    ("tree", 1),
    ("banded", (square_root(64) ** 2).sum()),
    pytest.param("independent", 64, marks=pytest.mark.deep),
])  # fmt: skip
def test_sgd_is_moved_by_little_noise(strategy, variance):
    """Of the sum of 64 rounds: one node's; that of the best Toeplitz matrix, whose inverse's prefix sums it is."""
    aggregator = dp_ftrl(1.0, 1.0, 1, 64, strategy, bands=64)

    @jax.jit
    def moved(keys, zeros):
        def step(state, key):
            aggregate, state, _ = aggregator.finish(aggregator.collect(zeros, cohort_of([1]), state), state, key)
            return state, aggregate

        return jax.lax.scan(step, aggregator.init(zeros[0]), keys)[1].sum(axis=0)

    assert np.var(moved(KEYS, np.zeros((1, 4000), np.float32))) == pytest.approx(variance, rel=0.12)  # five standard deviations


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
