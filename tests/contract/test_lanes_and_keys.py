"""Lanes change nothing, and every random stream of a round has keys of its own."""

import jax
import jax.numpy as jnp
import optax
import pytest
from contract.population import POPULATION, assert_close, contract_data
from contract.rules import AGGREGATORS
from contract.works import WORKS, federate
from problems import softmax_loss, softmax_params

import fedjax_lite as fl
from fedjax_lite import aggregators

pytestmark = pytest.mark.usefixtures("x64")


def a_cohort(state, ids=(2, 0, 6, 4, 1)):
    return fl.sampling.cohort(fl.round_key(state), contract_data().size, jnp.asarray(ids))


OF_LANES = [(lanes, rule) for lanes in (1, 2, 5, 99) for rule in ("weighted_mean", "median")]
FEW = ((2, "weighted_mean"),)


@pytest.mark.parametrize(
    "lanes, aggregator", [*FEW, *(pytest.param(*case, marks=pytest.mark.deep) for case in OF_LANES if case not in FEW)]
)
def test_lanes_do_not_matter(lanes, aggregator):
    data, results = contract_data(), []
    for engine in (fl.packed(lanes), fl.sequential()):
        built = federate(WORKS["adam"](0.1), AGGREGATORS[aggregator], engine=engine)
        state = jax.jit(built.init)(softmax_params(), jax.random.key(0))
        results.append(jax.jit(built.round)(state, data, a_cohort(state)))
    assert_close(*results)


def test_every_random_stream_has_keys_of_its_own():
    """The keys handed to init, loss, optimizer, uplink, aggregator and server all differ, and from those of rounds."""
    seen = {}

    def record(name, key):
        jax.debug.callback(lambda words: seen.setdefault(name, set()).add(tuple(words.tolist())), jax.random.key_data(key))

    def noted(name, factor):
        def update(updates, state, params=None, *, key, **extra):
            record(name, key)
            return jax.tree.map(lambda u: factor * u, updates), state

        return optax.GradientTransformationExtraArgs(lambda params: (), update)

    def loss(params, batch, key):
        record("loss", key)
        return softmax_loss(params, batch, key)

    def init(params, key):
        record("init", key)
        return work.init(params, key)

    def finish(part, state, key):
        record("aggregator", key)
        return mean.finish(part, (), key)

    mean, work = aggregators.mean(), fl.sgd_work(loss, noted("optimizer", -0.1))
    built = federate(
        work._replace(init=init),
        mean._replace(finish=finish),
        fl.optimizer_server(noted("server", -1.0)),
        uplink=noted("uplink", 1.0),
        engine=fl.sequential(),
        batches=fl.Batches(4, steps=2),
    )
    data = contract_data()
    state = built.init(softmax_params(), jax.random.key(0))
    for _ in range(2):
        state, _ = built.round(state, data, a_cohort(state, (0, 1, 2)))
    jax.effects_barrier()
    rounds, clients, steps = 2, 3, 2
    expected = dict(init=POPULATION, loss=rounds * clients * steps, optimizer=rounds * clients * steps)
    assert {name: len(keys) for name, keys in seen.items()} == expected | dict(uplink=rounds * clients, aggregator=rounds, server=rounds)
    every = [key for keys in seen.values() for key in keys]
    every += [tuple(jax.random.key_data(fl.round_key(state._replace(round=jnp.int32(t)))).tolist()) for t in range(8)]
    assert len(set(every)) == len(every)
