"""What a run gives away with the sampling that its sampler does, and with each kind of mechanism."""

import math
from functools import partial

import dp_accounting
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from accounting import steps_of

import fedjax_lite as fl
from fedjax_lite import privacy
from fedjax_lite.base import Mechanism
from fedjax_lite.privacy.accountant import noise_for


@pytest.fixture(scope="module", autouse=True)
def coarse():
    with steps_of():
        yield


def account(sampler, z=1.0, population=10_000, rounds=1000, delta=1e-5):
    return privacy.account(fl.aggregators.dp_mean(1.0, z, 100).privacy, sampler, population, rounds, delta)


@pytest.mark.parametrize(
    ("capacity", "epsilon"),
    [
        (130, 3.684075),
        (160, 1.82827),
        *(pytest.param(*row, marks=pytest.mark.deep) for row in ((110, 7.68), (140, 1.971), (150, 1.8305), (200, 1.82824))),
    ],
)
def test_what_a_full_cohort_leaves_out_is_accounted_for(capacity, epsilon):
    found = account(fl.sampling.poisson(0.01, capacity))
    assert found.pld == pytest.approx(epsilon, rel=1e-3)
    assert (found.rdp is None) == (capacity < 160)  # mean 100, standard deviation 9.95: room for six is 160


def test_by_default_there_is_room_for_six_deviations():
    sampler = fl.sampling.poisson(0.01)
    cohort = jax.eval_shape(sampler, jax.random.key(0), jax.ShapeDtypeStruct((10_000,), jnp.int32), 0)
    assert len(cohort.id) == 160 == math.ceil(100 + 6 * math.sqrt(99))
    assert account(sampler) == account(fl.sampling.poisson(0.01, 160))
    assert "room for 160" in account(sampler).sampling


def test_a_fixed_number_is_accounted_for_a_replaced_client():
    found = account(fl.sampling.uniform(100))
    assert found.rdp == pytest.approx(20.987, rel=1e-4) and found.pld is None
    assert found.relation == "one client replaced by another"
    assert "PLD" not in str(found) and "20.99 (RDP)" in str(found)


@pytest.mark.parametrize(
    ("sampler", "times"),
    [
        (fl.sampling.everyone(), 30),
        (fl.sampling.cyclic(10), 3),
        (fl.sampling.cyclic(9), 3),
        (fl.sampling.cyclic(11), 4),
        (fl.sampling.poisson(1.0), 30),
    ],
)
def test_without_chance_a_client_gives_as_often_as_it_takes_part(sampler, times):
    found = account(sampler, z=4.0, population=100, rounds=30)
    exact = dp_accounting.get_epsilon_gaussian(4.0 / math.sqrt(times), 1e-5)
    assert found.pld == pytest.approx(exact, rel=1e-3) and found.rdp >= found.pld
    in_turn = sampler.participation.kind == "cyclic"  # one client more would shift everybody's turn
    assert found.relation == ("one client's messages or zeros" if in_turn else "one client added or removed")


@pytest.mark.deep
def test_renyi_divergences_do_not_stand_for_a_cohort_that_is_often_full():
    """A mean of one client, whose binomial tail is no Gaussian's: six deviations leave clients out in 8e-6 of the rounds."""
    found = account(fl.sampling.poisson(0.002), z=2.0, population=500, rounds=10)
    assert found.rdp is None and found.pld > 0
    z = noise_for(0.3, Mechanism, fl.sampling.poisson(0.1, 12).participation, 100, 5, 1e-3, "pld")
    tight = account(fl.sampling.poisson(0.1, 12), z=z, population=100, rounds=5, delta=1e-3)
    assert 0.299 < tight.pld <= 0.3 and z > privacy.calibrate(0.3, 0.1, 5, 1e-3) * 1.001


def test_numbers_of_numpy_and_jax_are_numbers():
    expected = privacy.epsilon(2.0, 0.5, 10, 1e-5, "rdp")
    for kind in (np.float64, np.float32, jnp.float32, jnp.asarray, np.asarray):
        given = float(kind(1e-5))
        assert privacy.epsilon(kind(2.0), kind(0.5), np.int64(10), kind(1e-5), "rdp") == privacy.epsilon(2.0, 0.5, 10, given, "rdp")
    assert privacy.epsilon(2, 0.5, jnp.int32(10), 1e-5, "rdp") == expected
    assert privacy.calibrate(np.float32(expected), 0.5, np.int32(10), 1e-5, "rdp") == pytest.approx(2.0, rel=1e-5)
    half = lambda order: order / 2  # noqa: E731
    assert privacy.epsilon_of(half, jnp.int32(1), np.float64(1e-5)) == privacy.epsilon_of(half, 1, 1e-5)
    mechanism, sampler = fl.aggregators.dp_mean(1.0, 2.0, 5.0).privacy, fl.sampling.everyone()
    assert privacy.account(mechanism, sampler, 10, np.int64(10), np.float32(0.5)) == privacy.account(mechanism, sampler, 10, 10, 0.5)


@pytest.mark.parametrize("wrong", ["1", None, True, float("nan"), -1.0, float("inf"), np.float32(-1)])
def test_what_is_no_number_is_refused_by_name(wrong):
    names = "noise_multiplier", "sampling_rate", "rounds", "delta"
    with pytest.raises(ValueError, match="target_epsilon must be positive and finite"):
        privacy.calibrate(wrong, 0.5, 1, 1e-5)
    for i, name in enumerate(names):
        arguments = [1.0, 0.5, 1, 1e-5]
        arguments[i] = wrong
        with pytest.raises(ValueError, match=f"{name} must be"):
            privacy.epsilon(*arguments)


def test_without_protection_no_losses_are_computed():
    found = account(fl.sampling.poisson(0.2), z=0.02, population=60, rounds=6, delta=1e-3)
    assert found.rdp > 1000 and found.pld is None


def test_cyclic_meets_no_client_more_often_than_is_accounted_for():
    for clients, population, rounds in [(3, 10, 7), (4, 10, 5), (5, 10, 4), (7, 10, 13)]:
        cohort = partial(fl.sampling.cyclic(clients), jax.random.key(0), jnp.ones(population, jnp.int32))
        ids = jax.jit(jax.vmap(lambda t, cohort=cohort: cohort(t).id))(np.arange(rounds))
        met = np.bincount(ids.ravel(), minlength=population)
        assert met.max() <= -(-rounds * clients // population)


@pytest.mark.parametrize(
    "wrap",
    [lambda s: fl.sampling.dropout(s, 0.3), lambda s: fl.sampling.stragglers(s, 0.5, 2), lambda s: fl.sampling.availability(s, 0.5, 10)],
)
def test_wrappers_that_take_nobody_in_are_accounted_for_as_what_they_wrap(wrap):
    sampler = fl.sampling.poisson(0.05)
    assert account(wrap(sampler), 4.0, 1000) == account(sampler, 4.0, 1000)


def custom(key, sizes, round):
    return fl.sampling.cohort(key, sizes, jnp.arange(3))


@pytest.mark.parametrize("sampler", [fl.sampling.weighted(3), fl.sampling.including(fl.sampling.uniform(3), [1]), custom])
def test_a_sampler_that_no_accountant_covers_is_refused(sampler):
    with pytest.raises(ValueError, match="no accountant covers this sampler.*fl.sampling.poisson"):
        account(sampler)


def test_nothing_private_has_no_account():
    with pytest.raises(ValueError, match="nothing here is private"):
        privacy.account(fl.aggregators.mean().privacy, fl.sampling.everyone(), 10, 1, 1e-5)


def test_without_noise_an_account_is_infinite():
    assert account(fl.sampling.poisson(0.01), z=0.0).pld == math.inf


def test_a_mechanism_with_a_traced_multiplier_is_built_under_vmap():
    def released(z):
        aggregator = fl.aggregators.dp_mean(1.0, z, 2)
        assert isinstance(aggregator.privacy, Mechanism)
        cohort = fl.sampling.cohort(jax.random.key(0), jnp.ones(2, jnp.int32), jnp.arange(2))
        return aggregator.finish(aggregator.collect(jnp.array([3.0, 0.5]), cohort, ()), (), jax.random.key(1))[0]

    found = jax.jit(jax.vmap(released))(np.array([0.0, 1.0, 2.0], np.float32))
    np.testing.assert_allclose(found[1], jax.jit(lambda: released(1.0))(), rtol=1e-6)  # a number that is checked when it is built
    np.testing.assert_allclose(found[0], (1.0 + 0.5) / 2, rtol=1e-6)
    np.testing.assert_allclose(found[2] - found[0], 2 * (found[1] - found[0]), rtol=1e-4)


def test_correlated_noise_is_one_release():
    """Of eight bands, a client that comes every ten rounds moves the whole by sqrt(times) ||c||, c_k = binom(2k, k) / 4^k."""
    mechanism = fl.aggregators.dp_ftrl(1.0, 4.0, 10.0, rounds=100, strategy="banded", bands=8).privacy
    found = privacy.account(mechanism, fl.sampling.cyclic(10), 100, 100, 1e-5)
    squares = sum((math.comb(2 * k, k) / 4**k) ** 2 for k in range(8))
    assert found.pld == pytest.approx(dp_accounting.get_epsilon_gaussian(4.0 / math.sqrt(10 * squares), 1e-5), rel=1e-3)
    assert found.rdp > found.pld
    once = privacy.account(mechanism, fl.sampling.cyclic(10), 100, 10, 1e-5)
    assert once.pld == pytest.approx(dp_accounting.get_epsilon_gaussian(4.0 / math.sqrt(squares), 1e-5), rel=1e-3)
    with pytest.raises(ValueError, match="rounds=100 of the aggregator are fewer than the 101 of the run: raise them"):
        privacy.account(mechanism, fl.sampling.cyclic(10), 100, 101, 1e-5)
    for sampler in (fl.sampling.poisson(0.1), fl.sampling.uniform(10)):
        with pytest.raises(ValueError, match="a bound on how often a client takes part.*cyclic or everyone"):
            privacy.account(mechanism, sampler, 100, 100, 1e-5)


def test_noise_that_clients_draw_is_accounted_for_where_all_of_them_are_there():
    mechanism = fl.aggregators.ddgauss(1.0, 1.0, 100, dimension=4096, granularity=1e-2).privacy
    assert privacy.account(mechanism, fl.sampling.everyone(), 100, 1, 1e-5).rdp == pytest.approx(5.041728, rel=1e-4)
    in_turn = privacy.account(mechanism, fl.sampling.cyclic(100), 1000, 10, 1e-5)
    assert in_turn.pld is None and in_turn.relation == "one client's messages or zeros"
    for sampler in (fl.sampling.cyclic(99), fl.sampling.cyclic(101), fl.sampling.dropout(fl.sampling.cyclic(100), 0.1)):
        with pytest.raises(ValueError, match="only where clients_per_round = 100 of them are there, neither fewer nor more"):
            privacy.account(mechanism, sampler, 1000, 1, 1e-5)
    privacy.account(mechanism, fl.sampling.stragglers(fl.sampling.cyclic(100), 0.5, 1), 1000, 1, 1e-5)
    with pytest.raises(ValueError, match="no accountant covers this sampler with this mechanism"):
        privacy.account(mechanism, fl.sampling.poisson(0.1), 1000, 1, 1e-5)
