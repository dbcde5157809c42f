"""Every algorithm of the contract's list keeps it, on every engine."""

import functools

import jax
import jax.numpy as jnp
import optax
import pytest
from contract import AGGREGATORS, ALGORITHMS, KINDS, POPULATION, WORKS, assert_close, contract_data, federate
from grouping import grouped
from problems import dealt, simulate, softmax_loss, softmax_params

import fedjax_lite as fl
from fedjax_lite import aggregators
from fedjax_lite.engine.placement import everywhere, mesh_of

pytestmark = pytest.mark.usefixtures("x64")

each_algorithm, each_kind = grouped("name", list(ALGORITHMS)), grouped("name", KINDS)


@functools.lru_cache(maxsize=4)  # those of one algorithm
def compiled(name, engine):
    """An algorithm, its first state, and its jitted round."""
    built = ALGORITHMS[name](ENGINES[engine])
    return built, built.init(softmax_params(), jax.random.key(0)), jax.jit(built.round)


@functools.lru_cache(maxsize=1)
def two_rounds(name):
    """A compiled program of two rounds."""
    built, state, _ = compiled(name, "packed")
    data = contract_data()
    advance = jax.jit(lambda data, state: fl.advance(built, data, state, fl.sampling.uniform(3), rounds=2)[0])
    return advance.lower(data, state).compile()


def kind(x):
    return x.shape, x.dtype, x.weak_type  # a weak type that hardens after one round would compile the round twice


def a_cohort(state, ids=(2, 0, 6, 4, 1), weight=None):
    return fl.sampling.cohort(fl.round_key(state), contract_data().size, jnp.asarray(ids), weight)


ENGINES = {"sequential": fl.sequential(), "padded": fl.padded(), "packed": fl.packed(3)}


@each_algorithm
def test_engines_agree(name):
    data, results = contract_data(), []
    for engine in ENGINES:
        _, state, step = compiled(name, engine)
        state, first = step(state, data, a_cohort(state, (2, 0, 6, 5, 1), jnp.array([1.0, 1, 1, 1, 0])))
        state, second = step(state, data, a_cohort(state, (3, 1, 2, 4, 0)))
        results.append((state, first, second))
    for other in results[1:]:
        assert_close(other, results[0])


@each_algorithm
def test_eight_devices_with_their_clients_examples_only_are_one_with_all(name):
    built, state, step = compiled(name, "packed")
    data = contract_data()
    cohort = a_cohort(state, (2, 0, 6, 4, 1), jnp.array([1.0, 1, 0, 1, 1]))
    with jax.set_mesh(mesh_of(jax.devices())):
        shared = jax.jit(lambda *operands: built.round(*operands))(everywhere(state), dealt(data, cohort.id), everywhere(cohort))
    assert_close(shared, step(state, data, cohort))


@each_kind
def test_jit_equals_eager(name):
    data = contract_data()
    built, state, step = compiled(name, "packed")
    assert_close(built.round(state, data, a_cohort(state)), step(state, data, a_cohort(state)))


@each_algorithm
def test_other_cohorts_do_not_recompile(name):
    data = contract_data()
    _, state, step = compiled(name, "packed")
    for ids in ((0, 1, 2, 3, 4), (6, 5, 4, 1, 0)):
        state, _ = step(state, data, a_cohort(state, ids))
    step(state, data, a_cohort(state, (1, 2, 3, 0, 6), jnp.array([1.0, 0, 1, 0, 0])))
    assert step._cache_size() == 1


@each_algorithm
def test_state_keeps_its_structure(name):
    data = contract_data()
    built, state, _ = compiled(name, "packed")
    after, metrics = jax.eval_shape(built.round, state, data, a_cohort(state))
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert jax.tree.map(kind, after) == jax.tree.map(kind, jax.eval_shape(lambda: state))
    assert all(x.shape == () for x in metrics.values())


@each_algorithm
def test_order_of_the_cohort_does_not_matter(name):
    data = contract_data()
    _, state, step = compiled(name, "packed")
    assert_close(step(state, data, a_cohort(state, (2, 0, 6, 4, 1))), step(state, data, a_cohort(state, (4, 6, 1, 2, 0))))


@each_kind
def test_empty_slots_of_a_cohort_are_inert(name):
    data = contract_data()
    built, state, step = compiled(name, "packed")
    some = jax.jit(built.round)(state, data, a_cohort(state, (2, 6, 4)))
    assert_close(step(state, data, a_cohort(state, (2, 0, 6, 4, 2), jnp.array([1.0, 0, 1, 1, 0]))), some)


@each_algorithm
def test_an_empty_cohort_leaves_everything_as_it_is(name):
    data = contract_data()
    _, state, step = compiled(name, "packed")
    after, metrics = step(state, data, a_cohort(state, weight=jnp.zeros(5)))
    assert_close(after._replace(round=state.round), state, 0)
    assert after.round == 1 and metrics["clients"] == 0 and metrics["update_norm"] == 0


@each_kind
def test_vmap_over_keys_and_rates_equals_the_loop(name):
    data = contract_data()
    keys, rates = jax.random.split(jax.random.key(4), 2), jnp.array([0.05, 0.2])

    def experiment(data, key, rate):
        algorithm = ALGORITHMS[name](None, rate)
        state, history = fl.simulate(algorithm, data, softmax_params(), fl.sampling.uniform(3), rounds=3, key=key)
        return algorithm.params(state), history

    study = jax.jit(jax.vmap(jax.vmap(experiment, (None, None, 0)), (None, 0, None)))(data, keys, rates)
    single = jax.jit(experiment)
    for i in range(2):
        for j in range(2):
            assert_close(jax.tree.map(lambda x, i=i, j=j: x[i, j], study), single(data, keys[i], rates[j]), 1e-9)


@each_kind
def test_runs_without_touching_the_host(name):
    data = contract_data()
    state, program = compiled(name, "packed")[1], two_rounds(name)
    with jax.transfer_guard("disallow"):
        for _ in range(2):
            state = program(data, state)
    # A callback passes the guard, so look for one in the program itself.
    assert "callback" not in program.as_text()


@each_kind
def test_rounds_in_pieces_are_the_same_bits(name):
    data = contract_data()
    built, state, _ = compiled(name, "packed")
    whole, _ = simulate(built, data, softmax_params(), fl.sampling.uniform(3), 4, jax.random.key(0))
    assert_close(two_rounds(name)(data, two_rounds(name)(data, state)), whole, 0)


@pytest.mark.parametrize("lanes", [1, 2, 5, 99])
@pytest.mark.parametrize("aggregator", ["weighted_mean", "median"])
def test_lanes_do_not_matter(lanes, aggregator):
    data, results = contract_data(), []
    for engine in (fl.packed(lanes), fl.sequential()):
        built = federate(WORKS["adam"](0.1), AGGREGATORS[aggregator], engine=engine)
        state = built.init(softmax_params(), jax.random.key(0))
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
        return ()

    def finish(part, state, key):
        record("aggregator", key)
        return mean.finish(part, (), key)

    mean = aggregators.mean()
    built = federate(
        fl.sgd_work(loss, noted("optimizer", -0.1))._replace(init=init),
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
