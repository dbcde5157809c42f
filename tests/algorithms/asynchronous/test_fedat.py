"""FedAT against plain NumPy: tiers with rounds of their own, clients of unequal size, a proximal term, lost clients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import quadratics
from quadratics import A5

import fedjax_lite as fl

SIZES = np.array(A5.sizes)
SPEEDS = fl.clock.given([3.0, 1.0, 2.0, 0.4, 0.5])


def build(tiers=2, buffer=2, **more):
    options = {"batches": quadratics.batches(A5), "population": 5, "tiers": tiers, "buffer": buffer}
    return fl.algorithms.fedat(quadratics.loss_fn, optax.sgd(0.1), **options | more)


def models(algorithm, table, data):
    sampler = fl.clock.arriving(table)

    @jax.jit
    def run(data):
        def one(state, _):
            state, metrics = algorithm.round(state, data, sampler(fl.round_key(state), data.size, state.round))
            return state, (algorithm.params(state), metrics)

        return jax.lax.scan(one, algorithm.init(jnp.zeros(2), jax.random.key(0)), length=len(table.seconds))[1]

    return run(data)


def by_hand(table, tiers, mu):
    """Local steps y <- y - eta (A (y - c) + mu (y - x)), and all models so far, so that ages alone say where a round began."""
    history, of_tier, rounds, found = [np.zeros(2)], np.zeros((tiers, 2)), np.zeros(tiers), []
    for ids, ages, m in zip(table.ids, table.ages, table.tier, strict=True):
        x, changes, weights = history[-1 - ages.max()], [], []
        for k in ids[ids >= 0]:
            y = x
            for _ in range(5):
                y = y - 0.1 * (A5.a[k] * (y - A5.c[k]) + mu * (y - x))
            changes.append(y - x)
            weights.append(SIZES[k])
        of_tier[m] = x + np.average(changes, axis=0, weights=weights)
        rounds[m] += 1
        history.append(sum(rounds[tiers - 1 - i] * of_tier[i] for i in range(tiers)) / rounds.sum())
        found.append(history[-1])
    return np.array(found)


@pytest.mark.parametrize("mu", [0.5, pytest.param(0.0, marks=pytest.mark.deep)])
def test_rounds_equal_the_numpy_loop(mu, x64):
    """Client 2 comes and goes: the fast tier's rounds are of one client or two, or it waits with the model that it has."""
    there = fl.availability.Availability(
        lambda ids, t: jnp.ones(jnp.shape(ids), bool), lambda ids, t: jnp.ones(jnp.shape(ids)),
        lambda population: lambda k, t: k not in (0, 2) or t % 20 < (9 if k == 2 else 15),
    )  # fmt: skip
    algorithm = build(tiers=2, mu=mu)
    table = fl.clock.arrivals(algorithm, SIZES, jnp.zeros(2), SPEEDS, rounds=14, availability=there, pause=2.0, order="queue")
    assert set(table.tier) == {0, 1} and (table.ids < 0).any() and table.ages.max() > 2
    params, metrics = models(algorithm, table, A5.data())
    np.testing.assert_allclose(params, by_hand(table, 2, mu), atol=1e-12)
    assert metrics["clients"].tolist() == (table.ids >= 0).sum(1).tolist()


@pytest.mark.deep
def test_three_tiers_of_one(x64):
    algorithm = build(tiers=3, buffer=1, aggregator=fl.aggregators.mean())
    table = fl.clock.arrivals(algorithm, SIZES, jnp.zeros(2), SPEEDS, rounds=12, order="examples")
    np.testing.assert_allclose(models(algorithm, table, A5.data())[0], by_hand(table, 3, 0.0), atol=1e-12)


REFUSED = {
    "tiers": (dict(tiers=0), "fedat: tiers must be a whole number of at least 1, got 0"),
    "buffer": (dict(buffer=0), "fedat: buffer must be a whole number of at least 1, got 0"),
    "mu": (dict(mu=-1.0), "fedat: mu must be finite and not negative, got -1.0"),
    "private": (
        dict(aggregator=fl.aggregators.dp_mean(clip=1.0, noise_multiplier=1.0, clients_per_round=1)),
        "fedat: clients arrive by their speed",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    more, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        build(**more)


@pytest.mark.parametrize(
    "more, message",
    [
        ({}, "fedat: the cohort has no tiers"),
        ({"uplink": fl.uplink.local_gaussian(1.0, 1.0)}, "fedat: whose round it is is hidden"),
    ],
    ids=["tiers", "hidden"],
)
def test_refusals_of_a_round(more, message):
    """Of a cohort with ages but no tiers; and with both, of clients who hide."""
    algorithm, data = build(**more), A5.data()

    def one_round():
        state = algorithm.init(jnp.zeros(2), jax.random.key(0))
        cohort = fl.sampling.cohort(fl.round_key(state), data.size, jnp.arange(2))._replace(age=jnp.zeros(2, jnp.int32))
        return algorithm.round(state, data, cohort._replace(tier=jnp.zeros(2, jnp.int32)) if more else cohort)

    with pytest.raises(ValueError, match=message):
        jax.eval_shape(one_round)
