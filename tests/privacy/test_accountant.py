"""Epsilons against the reference tables, an independent formula and the closed form."""

import math

import dp_accounting
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import fedjax_lite as fl
from fedjax_lite import privacy
from fedjax_lite.base import Mechanism
from fedjax_lite.privacy.accountant import noise_for

# sampling rate, noise multiplier, rounds, delta: epsilon by RDP, by PLD
TABLE = [
    (0.01, 1.0, 1000, 1e-5, 2.101367, 1.828244),
    (0.01, 0.7, 500, 1e-6, 5.153499, 4.352508),
    (0.001, 0.5, 2000, 1e-7, 6.744272, 5.609430),
    (0.05, 2.0, 100, 1e-5, 1.222196, 1.097232),
    (0.1, 1.0, 200, 1e-5, 11.063104, 9.971275),
    (1.0, 4.0, 10, 1e-5, 3.617100, 3.341410),
    (1.0, 1.0, 1, 1e-5, 4.728507, 4.377178),
]


@pytest.mark.parametrize(("rate", "z", "rounds", "delta", "rdp", "pld"), TABLE)
def test_epsilon_is_that_of_the_table(rate, z, rounds, delta, rdp, pld):
    assert privacy.epsilon(z, rate, rounds, delta, "rdp") == pytest.approx(rdp, rel=1e-6)
    assert privacy.epsilon(z, rate, rounds, delta) == pytest.approx(pld, rel=1e-3)


@pytest.mark.parametrize(
    ("epsilon", "delta", "rate", "rounds", "rdp", "pld"),
    [(1.0, 1e-5, 0.01, 1000, 1.513122, 1.414631), (8.0, 1e-6, 0.01, 500, 0.602711, 0.572581), (4.0, 1e-5, 0.05, 100, 1.004565, 0.939450)],
)
def test_noise_for_an_epsilon_is_that_of_the_table(epsilon, delta, rate, rounds, rdp, pld):
    assert privacy.calibrate(epsilon, rate, rounds, delta, "rdp") == pytest.approx(rdp, rel=1e-4)
    z = privacy.calibrate(epsilon, rate, rounds, delta)
    assert z == pytest.approx(pld, rel=1e-3)
    assert privacy.epsilon(z, rate, rounds, delta) == pytest.approx(epsilon, rel=1e-3)


def test_rdp_is_that_of_the_binomial_formula():
    """At whole orders a: log sum_j C(a, j) q^j (1-q)^(a-j) exp(j (j-1) / (2 z^2)) / (a - 1), and the smallest epsilon over them."""
    q, z, rounds, delta = 0.01, 1.0, 1000, 1e-5
    orders = np.arange(2, 64)
    spent = []
    for a in orders:
        j = np.arange(a + 1)
        terms = np.log(scipy.special.comb(a, j)) + j * math.log(q) + (a - j) * math.log(1 - q) + j * (j - 1) / (2 * z**2)
        spent.append(rounds * scipy.special.logsumexp(terms) / (a - 1))
    bounds = np.array(spent) + np.log1p(-1 / orders) - np.log(delta * orders) / (orders - 1)
    assert privacy.epsilon(z, q, rounds, delta, "rdp") == pytest.approx(bounds.min(), rel=4e-3)  # fractional orders find a little less
    assert privacy.epsilon(z, q, rounds, delta, "rdp") <= bounds.min()


def account(sampler, z=1.0, population=10_000, rounds=1000, delta=1e-5):
    return privacy.account(fl.aggregators.dp_mean(1.0, z, 100).privacy, sampler, population, rounds, delta)


@pytest.mark.parametrize(
    ("capacity", "epsilon"), [(110, 7.68), (130, 3.684075), (140, 1.971), (150, 1.8305), (160, 1.82827), (200, 1.82824)]
)
def test_what_a_full_cohort_leaves_out_is_accounted_for(capacity, epsilon):
    found = account(fl.sampling.poisson(0.01, capacity))
    assert found.pld == pytest.approx(epsilon, rel=1e-3)
    assert (found.rdp is None) == (capacity < 160)  # mean 100, standard deviation 9.95: room for six is 160


def test_by_default_there_is_room_for_six_deviations():
    sampler = fl.sampling.poisson(0.01)
    cohort = sampler(jax.random.key(0), jnp.ones(10_000, jnp.int32), jnp.int32(0))
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


def test_renyi_divergences_do_not_stand_for_a_cohort_that_is_often_full():
    """A mean of one client, whose binomial tail is no Gaussian's: six deviations leave clients out in 8e-6 of the rounds."""
    found = account(fl.sampling.poisson(0.002), z=2.0, population=500, rounds=10)
    assert found.rdp is None and found.pld > 0
    z = noise_for(3.0, Mechanism, fl.sampling.poisson(0.1, 12).participation, 100, 20, 1e-4, "pld")
    tight = account(fl.sampling.poisson(0.1, 12), z=z, population=100, rounds=20, delta=1e-4)
    assert 2.99 < tight.pld <= 3.0 and z > privacy.calibrate(3.0, 0.1, 20, 1e-4) * 1.001


def test_without_protection_no_losses_are_computed():
    found = account(fl.sampling.poisson(0.2), z=0.02, population=60, rounds=6, delta=1e-3)
    assert found.rdp > 1000 and found.pld is None


def test_cyclic_meets_no_client_more_often_than_is_accounted_for():
    for clients, population, rounds in [(3, 10, 7), (4, 10, 5), (5, 10, 4), (7, 10, 13)]:
        met = np.zeros(population, int)
        for t in range(rounds):
            np.add.at(met, fl.sampling.cyclic(clients)(jax.random.key(0), jnp.ones(population, jnp.int32), jnp.int32(t)).id, 1)
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


def test_without_noise_no_epsilon_is_finite():
    assert account(fl.sampling.poisson(0.01), z=0.0).pld == math.inf
    with pytest.raises(ValueError, match="noise_multiplier must be positive and finite, got 0.0"):
        privacy.epsilon(0.0, 0.1, 10, 1e-5)


def test_no_rounds_give_nothing_away():
    assert privacy.epsilon(1.0, 0.1, 0, 1e-5, "rdp") == privacy.epsilon(1.0, 0.1, 0, 1e-5) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"delta": 0.0}, "delta must be between 0 and 1, got 0.0"),
        ({"delta": 1.0}, "delta must be"),
        ({"sampling_rate": 0.0}, r"sampling_rate must be in \(0, 1\], got 0.0"),
        ({"sampling_rate": 1.5}, "sampling_rate must be"),
        ({"rounds": -1}, "rounds must be a whole number of at least 0, got -1"),
        ({"accountant": "prv"}, 'accountant must be "pld" or "rdp", got \'prv\''),
    ],
)
@pytest.mark.parametrize("function", [privacy.epsilon, privacy.calibrate])
def test_bad_numbers_are_refused(function, change, message):
    with pytest.raises(ValueError, match=message):
        function(
            **(
                {"sampling_rate": 0.1, "rounds": 10, "delta": 1e-5}
                | ({"noise_multiplier": 1.0} if function is privacy.epsilon else {"target_epsilon": 1.0})
                | change
            )
        )


@pytest.mark.parametrize("target", [0.0, -1.0, math.inf])
def test_a_target_that_is_none_is_refused(target):
    with pytest.raises(ValueError, match="target_epsilon must be positive and finite"):
        privacy.calibrate(target, 0.1, 10, 1e-5)


def test_without_the_package_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "dp_accounting", None)
    with pytest.raises(ValueError, match=r'pip install "fedjax_lite\[privacy\]"'):
        privacy.epsilon(1.23, 0.1, 10, 1e-5)


def test_a_mechanism_with_a_traced_multiplier_is_built_under_vmap():
    def released(z):
        aggregator = fl.aggregators.dp_mean(1.0, z, 2)
        assert isinstance(aggregator.privacy, Mechanism)
        cohort = fl.sampling.cohort(jax.random.key(0), jnp.ones(2, jnp.int32), jnp.arange(2))
        return aggregator.finish(aggregator.collect(jnp.array([3.0, 0.5]), cohort, ()), (), jax.random.key(1))[0]

    zs = jnp.array([0.0, 1.0, 2.0])
    found = jax.vmap(released)(zs)
    np.testing.assert_allclose(found, [released(float(z)) for z in zs], rtol=1e-6)
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
