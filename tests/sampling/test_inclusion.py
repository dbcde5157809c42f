"""How often clients take part, against the probability that the library tells: every sampler and every law, in one compiled program."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import fedjax_lite as fl
from fedjax_lite import sampling
from fedjax_lite.availability import day_night, markov, trace, windows
from fedjax_lite.sampling.marginal import first_of_race, in_turn

SIZES = np.array([5, 1, 12, 3, 8, 2, 7, 4, 6, 9], np.int32)
POPULATION, ROUNDS, ROUND = len(SIZES), 4000, 3
APART = 840  # rounds: whole days of every law, whole epochs, and far enough for a chain to forget
CHANCES = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 10.0])
LABELS = list("aabbbbcccc")
MARKOV, DAY = markov(0.6, 4.0), day_night(0.5, 0.4, day=24, step=1, seed=3)
HALVES = trace([(k, start, start + 12) for k, start in enumerate((0, 0, 0, 0, 0, 0, 12, 12, 12, 12))], repeat=24)
SAMPLERS = {
    "uniform": sampling.uniform(3),
    "everyone": sampling.everyone(),
    "cyclic": sampling.cyclic(3),
    "weighted": sampling.weighted(3),
    "poisson": sampling.poisson(0.3),
    "poisson with few slots": sampling.poisson(0.3, 3),
    "scheduled": sampling.scheduled([[0, 1], [2, 3], [4, 5]]),
    "with_replacement": sampling.with_replacement(4),
    "with_replacement by examples": sampling.with_replacement(4, "examples"),
    "with_replacement given": sampling.with_replacement(4, CHANCES),
    "importance": sampling.importance(3, CHANCES),
    "importance by examples": sampling.importance(3, weights="uniform"),
    "importance without replacement": sampling.importance(2.4, CHANCES, replace=False),
    "shuffled": sampling.shuffled(4, seed=1),  # of which round 3 is the first of an epoch
    "shuffled at an epoch's end": sampling.shuffled(3),  # of which round 3 is the last of an epoch
    "stratified": sampling.stratified(5, LABELS),
    "stratified equally": sampling.stratified(5, LABELS, "equal"),
    "dropout": sampling.dropout(sampling.weighted(3), 0.4),
    "stragglers": sampling.stragglers(sampling.weighted(3), 0.4, 2),
    "including": sampling.including(sampling.uniform(3), [4]),
    "availability": sampling.availability(sampling.uniform(3), 0.5, 24),
    "uniform on and off": sampling.availability(sampling.uniform(3), law=MARKOV),
    "weighted on and off": sampling.availability(sampling.weighted(3), law=MARKOV),
    "poisson on and off": sampling.availability(sampling.poisson(0.3), law=MARKOV),
    "everyone on and off": sampling.availability(sampling.everyone(), law=MARKOV),
    "uniform by day": sampling.availability(sampling.uniform(3), law=DAY),
    "cyclic by day": sampling.availability(sampling.cyclic(3), law=DAY),
    "weighted by day": sampling.availability(sampling.weighted(3), law=DAY),
    "uniform in windows": sampling.availability(sampling.uniform(3), law=windows(0.4, 24)),
    "uniform of a trace": sampling.availability(sampling.uniform(4), law=HALVES),
    "weighted of a trace": sampling.availability(sampling.weighted(4), law=HALVES),
    "all of a trace": sampling.availability(sampling.uniform(7), law=HALVES),  # six are there
    "strata by day": sampling.availability(sampling.stratified(5, LABELS), law=DAY),
    "shuffled by day": sampling.availability(sampling.shuffled(4), law=DAY),
    "dropout by day": sampling.dropout(sampling.availability(sampling.uniform(3), law=DAY), 0.3),
}
ALWAYS = (  # the others are asked in the deeper tests, since most of the time goes into compiling
    "poisson with few slots", "with_replacement by examples", "importance without replacement", "shuffled at an epoch's end",
    "stratified equally", "weighted on and off", "poisson on and off", "cyclic by day", "uniform of a trace", "dropout by day",
)  # fmt: skip


@functools.cache
def came(names):
    """How many slots each client had in many rounds of each sampler."""

    def one(sizes, t):
        found = {name: SAMPLERS[name](jax.random.fold_in(jax.random.key(1), t), sizes, t) for name in names}
        return {name: jnp.zeros(POPULATION, jnp.int32).at[drawn.id].add(drawn.weight > 0) for name, drawn in found.items()}

    many = jax.jit(lambda sizes, t: jax.vmap(one, (None, 0))(sizes, t))
    return jax.device_get(many(SIZES, ROUND + APART * np.arange(ROUNDS)))


def test_of_every_sampler_of_the_library_it_is_known_but_of_those_that_ask_more():
    known = {name for name in sampling.__all__ if callable(getattr(sampling, name)) and name[0].islower()}
    others = {"oort", "power_of_choice"}  # which look at losses
    tested = {name.split()[0] for name in SAMPLERS}
    assert known - {"cohort", "inclusion"} - others <= tested


@pytest.mark.parametrize("name", [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.deep) for name in SAMPLERS])
def test_clients_take_part_as_often_as_is_told(name):
    names = ALWAYS if name in ALWAYS else tuple(name for name in SAMPLERS if name not in ALWAYS)
    taken, told = came(names)[name], sampling.inclusion(SAMPLERS[name], SIZES, ROUND)
    assert taken.max() <= 1 and told.dtype == np.float64 and told.shape == (POPULATION,)
    counts, chance = taken.sum(axis=0), (told > 1e-12) & (told < 1 - 1e-12)
    np.testing.assert_array_equal(counts[~chance], np.round(told[~chance]) * ROUNDS)
    z = (counts - ROUNDS * told)[chance] / np.sqrt(ROUNDS * told * (1 - told))[chance]
    assert (np.abs(z) < 4.5).all()
    if chance.sum() > 1:
        assert stats.chi2.ppf(1e-5, chance.sum() - 1) / 2 < (z**2).sum() < 2 * stats.chi2.ppf(1 - 1e-5, chance.sum())


def successive(weights, clients):
    """Probability to be among different clients drawn one after another, by enumeration."""
    found = np.zeros(len(weights))
    for order in itertools.permutations(np.flatnonzero(weights), min(clients, int(np.count_nonzero(weights)))):
        left, p = weights.sum(), 1.0
        for k in order:
            p, left = p * weights[k] / left, left - weights[k]
        found[list(order)] += p
    return found


def of_those_there(weights, there, clients):
    """The same among clients who are there independently, by enumeration."""
    found = np.zeros(len(weights))
    for who in itertools.product([0, 1], repeat=len(weights)):
        who = np.array(who)
        found += np.prod(np.where(who, there, 1 - there)) * successive(weights * who, clients)
    return found


@pytest.mark.parametrize("clients", [1, 3, 6])
def test_a_race_is_the_draw_one_after_another(clients):
    weights = np.array([1, 1e6, 1, 3e3, 5, 0, 7.0])
    np.testing.assert_allclose(first_of_race(weights, np.ones(7), clients), successive(weights, clients), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "weights, there",
    [
        ([5, 1, 12, 3, 8.0], [0.3, 0.9, 1, 0, 0.5]),
        ([1, 1, 1, 1, 1.0], [0.3, 0.9, 1, 0, 0.5]),
        ([1, 1, 1, 1, 1.0], [0.4, 0.4, 0.4, 0.4, 0.4]),
        ([1, 2, 3, 4, 0.0], [1, 1, 0, 0, 1]),
    ],
)
def test_of_clients_who_may_be_away_too(weights, there):
    weights, there = np.array(weights), np.array(there, float)
    np.testing.assert_allclose(first_of_race(weights, there, 2), of_those_there(weights, there, 2), rtol=0, atol=1e-12)


def test_in_turn_is_counted_too():
    there, order, found = np.array([0.3, 0.9, 1, 0, 0.5]), [2, 4, 0, 1, 3], np.zeros(5)
    for who in itertools.product([0, 1], repeat=5):
        first = [k for k in order if who[k]][:2]
        found[first] += np.prod(np.where(who, there, 1 - there))
    np.testing.assert_allclose(in_turn(np.array(order), there, 2), found, rtol=0, atol=1e-14)


def test_clients_without_examples_take_no_part():
    sizes = np.array([3, 0, 4, 0])
    assert sampling.inclusion(sampling.weighted(3), sizes).tolist() == [1, 0, 1, 0]
    assert sampling.inclusion(sampling.uniform(2), sizes).tolist() == [0.5, 0, 0.5, 0]


def test_what_is_not_known_is_refused():
    by_hand = lambda key, sizes, round: sampling.cohort(key, sizes, jnp.arange(2))  # noqa: E731
    looking = sampling.power_of_choice(lambda params, batch, key: batch["x"], 1, 2)
    for sampler in (by_hand, looking, sampling.dropout(by_hand, 0.1), sampling.including(by_hand, [1])):
        with pytest.raises(ValueError, match="inclusion: of this sampler nobody knows"):
            sampling.inclusion(sampler, SIZES)
    with pytest.raises(ValueError, match="inclusion: round must be a whole number of at least 0, got -1"):
        sampling.inclusion(sampling.everyone(), SIZES, -1)
    with pytest.raises(ValueError, match=r"inclusion: sizes must be whole numbers \[population\], got float64\[2\]"):
        sampling.inclusion(sampling.weighted(1), [1.0, np.nan])
    with pytest.raises(ValueError, match="inclusion: 20000 clients, of whom 1000"):
        sampling.inclusion(sampling.weighted(1000), np.arange(1, 20001))
    with pytest.raises(ValueError, match="rate of poisson is traced"):
        jax.eval_shape(lambda rate: jnp.asarray(sampling.inclusion(sampling.poisson(rate, 3), SIZES)), 0.5)


def test_accountants_cover_what_they_did_and_not_the_first_of_those_there():
    poisson = sampling.availability(sampling.poisson(0.3), law=MARKOV)
    assert poisson.participation == sampling.poisson(0.3).participation._replace(some_lost=True)
    mechanism = fl.aggregators.dp_mean(1.0, 1.0, 3).privacy
    assert fl.privacy.account(mechanism, poisson, 10, rounds=2, delta=1e-3).sampling.startswith("Poisson")
    for sampler in (SAMPLERS["uniform by day"], SAMPLERS["cyclic by day"], SAMPLERS["importance"], SAMPLERS["shuffled"]):
        with pytest.raises(ValueError, match="no accountant covers this sampler"):
            fl.privacy.account(mechanism, sampler, 10, rounds=2, delta=1e-3)
