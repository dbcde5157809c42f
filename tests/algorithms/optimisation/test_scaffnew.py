"""Scaffnew against its table on every engine and plain NumPy on ragged minibatches; its limits, its contract, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quadratics
from problems import softmax_data, softmax_loss, softmax_params
from quadratics import A4, trajectory
from ragged import BATCH, POPULATION, RATE, assert_same, gradient, start, states, taking_part
from rounds import NOBODY

import fedjax_lite as fl
from fedjax_lite import checks

pytestmark = pytest.mark.usefixtures("x64")
# Coins 0,0,1,0,1,1: rounds of three, two steps and one. The models, and the h_k after the first and the last.
STEPS = fl.on_round(lambda t: jnp.array([3, 2, 1])[t])
MODELS = [(-0.1286666667, -0.0806666667), (-0.2198127778, -0.1691577778), (-0.2535075278, -0.1963542963)]
CONTROLS = [
    [(-1.9983333333, -0.4033333333), (2.6416666667, -3.1133333333), (-0.6433333333, 3.5166666667)],
    [(-1.5923204167, -0.6191348148), (2.0830168056, -2.5079392593), (-0.4906963889, 3.1270740741)],
]


def build(steps=5, **more):
    options = {"batches": fl.Batches(None, steps=steps, shuffle=False), "population": 3, "learning_rate": 0.1}
    return fl.algorithms.scaffnew(quadratics.loss_fn, **options | more)


@pytest.mark.parametrize("engine", ["packed", *(pytest.param(name, marks=pytest.mark.deep) for name in ("padded", "sequential"))])
def test_the_table(engine):
    engine = {"packed": fl.packed(2), "padded": fl.padded(3), "sequential": fl.sequential()}[engine]
    found, x, _ = trajectory(build(STEPS, p=0.5, engine=engine), A4)
    np.testing.assert_allclose(x, MODELS, atol=1.1e-9, rtol=0)
    controls = 0.5 / 0.1 * (x[:, None] - found.own.shifted)
    np.testing.assert_allclose(controls[::2], CONTROLS, atol=1.1e-9, rtol=0)
    np.testing.assert_allclose(controls.sum(axis=1), 0, atol=1e-14)


def by_hand(steps, p, cohorts):
    """The model and all clients' x - (eta / p) h_k after each round; a client whose message does not arrive counts as without a step."""
    x = start()
    controls = np.zeros((POPULATION, *x.shape))
    for ids in cohorts:
        models, arrived = np.tile(x, (POPULATION, 1, 1)), []
        for k, batches in taking_part(ids, (steps,) * POPULATION, epochs=steps):
            for batch in batches:
                models[k] = models[k] - RATE * (gradient(models[k], batch) - controls[k])
            arrived.append(k)
        x = np.mean((models - RATE / p * controls)[arrived], axis=0)
        controls = controls + p / RATE * (x - models)
        yield x, x - RATE / p * controls


def test_rounds_equal_the_numpy_loop():
    """A client that drops out for a round, and one that is never finite, keep their z_k, and x is the mean of the others'."""
    everyone = tuple(range(POPULATION))
    cohorts = everyone, tuple(NOBODY if k == 2 else k for k in everyone), everyone
    batches = fl.Batches(BATCH, steps=3, shuffle=False)
    found, params = states("scaffnew", cohorts=cohorts, limits=(99,) * POPULATION, batches=batches, p=0.4)
    assert_same([(params(state), state.own.shifted) for state in found], list(by_hand(3, 0.4, cohorts)))


@pytest.mark.deep
def test_the_limit_is_the_optimum():
    """With a fixed number of steps, and with coins drawn in the run."""
    coins = fl.on_round(lambda t: jax.random.geometric(jax.random.fold_in(jax.random.key(0), t), 0.4))
    for steps, p in ((4, None), (coins, 0.4)):
        found = trajectory(build(steps, p=p), A4._replace(steps=(99, 99, 99)), 900)[1]
        np.testing.assert_allclose(found[-1], (-4 / 9, -2 / 7), atol=1e-12)


@pytest.mark.deep
def test_it_keeps_the_contract_where_all_take_part():
    options = {"batches": fl.Batches(4, steps=3, shuffle=False), "population": 3}
    make = lambda engine, rate: fl.algorithms.scaffnew(softmax_loss, learning_rate=rate, engine=engine, **options)  # noqa: E731
    report = checks.algorithm(make, softmax_data((5, 3, 7)), softmax_params(), clients=3, values=(0.1, 0.2))
    expected = {"several devices equal one": "not applicable"} if len(jax.devices()) == 1 else {}
    assert {row.property: row.holds for row in report.rows if row.holds != "yes"} == expected, report


REFUSED = {
    "epochs": ({"batches": fl.Batches(1)}, r"scaffnew: all clients toss one coin.*give fl.Batches\(..., steps=\)"),
    "coins without p": ({"steps": STEPS}, "scaffnew: p must be the probability that the schedule .* got None"),
    "p": ({"p": 0.0}, r"scaffnew: p must be in \(0, 1\], got 0.0"),
    "schedule": ({"learning_rate": fl.on_round(lambda t: 0.1)}, "scaffnew: learning_rate must be one number.* got .*: take .*scaffold"),
    "rate": ({"learning_rate": 0}, "scaffnew: learning_rate must be positive and finite, got 0"),
    "weights": ({"aggregator": fl.aggregators.weighted_mean()}, "scaffnew: x is the mean of all.*take fl.aggregators.mean"),
    "private": (
        {"aggregator": fl.aggregators.dp_mean(clip=1.0, noise_multiplier=1.0, clients_per_round=2)},
        "scaffnew: clients keep control variates.*take a method without such state",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    arguments, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        build(**arguments)


def test_a_cohort_of_some_is_refused_and_data_of_another_population():
    with pytest.raises(ValueError, match="scaffnew: all clients must take part.*cohort has 2 of 3: take fl.sampling.everyone"):
        jax.eval_shape(lambda: fl.simulate(build(), A4.data(), jnp.zeros(2), fl.sampling.uniform(2), rounds=1, key=jax.random.key(0)))
    with pytest.raises(ValueError, match="the algorithm was built for population=4, the data has 3 clients: make them equal"):
        built = build(population=4)
        jax.eval_shape(lambda: fl.simulate(built, A4.data(), jnp.zeros(2), fl.sampling.everyone(), rounds=1, key=jax.random.key(0)))
