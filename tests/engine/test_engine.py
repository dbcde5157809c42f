"""Engines: lanes, devices, studies and measured lanes change where clients run, not what comes out."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import SIZES, softmax_data, softmax_loss, softmax_params

import fedjax_lite as fl
from fedjax_lite.engine import tune
from fedjax_lite.engine.devices import deal, queues
from fedjax_lite.engine.placement import everywhere, mesh_of

ENGINES = {"packed(1)": fl.packed(1), "packed(3)": fl.packed(3), "padded": fl.padded(), "sequential": fl.sequential()}


def mesh(devices):
    return mesh_of(jax.devices()[:devices])


def experiment(engine, aggregator=None, rounds=2):
    """Two rounds with a stateful uplink: everything a round returns depends on which row belongs to whom."""

    def run(data, key, rate):
        algorithm = fl.federate(
            fl.sgd_work(softmax_loss, optax.sgd(rate)),
            aggregator or fl.aggregators.weighted_mean(),
            fl.optimizer_server(optax.sgd(1.0)),
            batches=fl.Batches(4, epochs=2),
            population=len(SIZES),
            uplink=optax.trace(0.5),
            engine=engine,
        )
        state, history = fl.simulate(algorithm, data, softmax_params(), fl.sampling.uniform(5), rounds=rounds, key=key)
        return algorithm.params(state), state.uplink, history

    return run


def assert_same(one, other, **tolerance):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


@functools.cache
def one_after_another():
    return jax.jit(experiment(fl.sequential()))(softmax_data(), jax.random.key(3), 0.2)


@pytest.fixture
def expected(x64):
    """One device, one client after another."""
    return one_after_another()


@pytest.mark.parametrize(("name", "devices"), [*((name, 2) for name in ENGINES), ("packed(3)", 8)])
def test_devices_change_nothing(name, devices, expected):
    with jax.set_mesh(mesh(devices)):
        assert_same(jax.jit(experiment(ENGINES[name]))(softmax_data(), jax.random.key(3), 0.2), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["packed(3)", "padded"])
def test_devices_gather_what_does_not_add(name, x64):
    median = fl.aggregators.median()
    alone = jax.jit(experiment(fl.sequential(), median))(softmax_data(), jax.random.key(3), 0.2)
    with jax.set_mesh(mesh(2)):
        assert_same(jax.jit(experiment(ENGINES[name], median))(softmax_data(), jax.random.key(3), 0.2), alone, rtol=1e-10, atol=1e-12)


def test_devices_share_an_evaluation(x64):
    data = softmax_data()
    alone = fl.evaluate(softmax_loss, softmax_params(), data, batch=4)
    with jax.set_mesh(mesh(8)):
        assert_same(jax.jit(lambda data: fl.evaluate(softmax_loss, softmax_params(), data, batch=4))(data), alone, rtol=1e-12)


@pytest.mark.parametrize("engine", ENGINES)
def test_arrays_that_lie_on_all_devices_already(engine):
    """As `fl.run` places them: zeros like one of them, of an optimizer's start, must be a device's own."""
    algorithm = fl.algorithms.fedavg(
        softmax_loss, optax.sgd(0.1, momentum=0.9), batches=fl.Batches(4), population=len(SIZES), engine=ENGINES[engine]
    )
    state, data = algorithm.init(softmax_params(), jax.random.key(0)), softmax_data()
    cohort = fl.sampling.uniform(3)(jax.random.key(0), data.size, 0)
    alone = algorithm.round(state, data, cohort)
    with jax.set_mesh(mesh(2)):
        together = jax.jit(lambda *operands: algorithm.round(*operands))(*everywhere((state, data, cohort)))
    assert_same(together[1], alone[1], rtol=1e-6)


def test_an_explicit_mesh_is_refused():
    with jax.set_mesh(jax.make_mesh((2,), ("clients",), axis_types=(jax.sharding.AxisType.Explicit,))):
        with pytest.raises(ValueError, match="explicit axis 'clients': make it with axis_types"):
            jax.jit(experiment(fl.packed(1)))(softmax_data(), jax.random.key(3), 0.2)


@pytest.mark.parametrize("steps", [[3], [5, 5, 5, 5], [0, 0], [9, 1, 1, 1, 1, 1, 1, 1, 1], list(range(17))])
@pytest.mark.parametrize("devices", [2, 3])
def test_clients_are_dealt_longest_first_to_the_idlest_device(steps, devices):
    each = -(-len(steps) // devices)
    expected = [[] for _ in range(devices)]
    for slot in sorted(range(len(steps)), key=lambda k: (-steps[k], k)):
        min((queue for queue in expected if len(queue) < each), key=lambda queue: sum(steps[k] for k in queue)).append(slot)
    dealt = np.asarray(queues(deal(jnp.asarray(steps), devices), devices))
    assert dealt.shape == (devices, each)
    assert [[slot for slot in queue if slot < len(steps)] for queue in dealt.tolist()] == [sorted(queue) for queue in expected]
    assert len(set(dealt.ravel().tolist())) == dealt.size


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("devices", [1, 2])
def test_a_study_is_its_runs(backend, devices, x64, monkeypatch):
    """Vmapped over keys and rates, run by run as on a CPU and all at once as on an accelerator."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    run, data = experiment(fl.packed(3)), softmax_data()
    keys, rates = jax.random.split(jax.random.key(0), 2), jnp.array([0.1, 0.3, 0.5])
    with jax.set_mesh(mesh(devices)):
        study = jax.jit(jax.vmap(jax.vmap(run, (None, None, 0)), (None, 0, None)))(data, keys, rates)
        for i, j in [(0, 0), (1, 2)]:
            one = jax.jit(run)(data, keys[i], rates[j])
            assert_same([x[i, j] for x in jax.tree.leaves(study)], one, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("axes", [{"runs": 2}, {"runs": 2, "clients": 2}, {"clients": 2, "runs": 3}])
def test_a_study_s_runs_on_several_devices(axes, backend, x64, monkeypatch):
    """Five seeds, which divide by neither number of devices, by two rates; also of an aggregator whose parts do not add."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    data, keys, rates = softmax_data(), jax.random.split(jax.random.key(0), 5), jnp.array([0.1, 0.5])

    def run(data, key, rate):
        params, *rest = experiment(fl.packed(3), fl.aggregators.median() if len(axes) > 1 else None)(data, key, rate)
        return params, rest, fl.evaluate(softmax_loss, params, data, batch=4)

    over_rates = jax.vmap(run, (None, None, 0))
    expected = jax.jit(jax.vmap(over_rates, (None, 0, None)))(data, keys, rates)
    number = int(np.prod(list(axes.values())))
    types = (jax.sharding.AxisType.Auto,) * len(axes)
    with jax.set_mesh(jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=types, devices=jax.devices()[:number])):
        study = jax.jit(fl.over_runs(over_rates, (None, 0, None)))(data, keys, rates)
    assert_same(study, expected, rtol=1e-10, atol=1e-12)


def test_a_study_of_arguments_that_do_not_go_together_is_refused():
    with jax.set_mesh(jax.make_mesh((2,), ("runs",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])):
        with pytest.raises(ValueError, match="inconsistent sizes"):
            fl.over_runs(lambda a, b: a + b)(jnp.ones(4), jnp.ones(2))
        with pytest.raises(ValueError, match="at least one"):
            fl.over_runs(jnp.sum, None)(jnp.ones(4))


def test_a_study_of_other_axes_is_refused():
    with jax.set_mesh(jax.make_mesh((2,), ("runs",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])):
        with pytest.raises(ValueError, match="in_axes must be 0 or None for each argument, got 1"):
            fl.over_runs(jnp.sum, 1)(jnp.ones((2, 2)))


def test_a_study_over_data(x64):
    run = experiment(fl.packed(2))
    several = [softmax_data(seed=seed) for seed in (0, 1)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *several)
    study = jax.jit(jax.vmap(run, (0, None, None)))(stacked, jax.random.key(0), 0.2)
    for i, data in enumerate(several):
        one = jax.jit(run)(data, jax.random.key(0), 0.2)
        assert_same([x[i] for x in jax.tree.leaves(study)], one, rtol=1e-10, atol=1e-12)


def test_measured_lanes_give_the_same_result(expected, monkeypatch):
    monkeypatch.setattr(tune, "LONG_ENOUGH", 0.001)
    auto = fl.packed("auto")
    assert_same(jax.jit(experiment(auto))(softmax_data(), jax.random.key(3), 0.2), expected, rtol=1e-10, atol=1e-12)
    with jax.set_mesh(mesh(2)):
        assert_same(jax.jit(experiment(auto))(softmax_data(), jax.random.key(3), 0.2), expected, rtol=1e-10, atol=1e-12)


def test_lanes_are_measured_once_and_the_fastest_is_kept(monkeypatch):
    tried, trained = [], []
    monkeypatch.setattr(tune, "_steps_a_second", lambda train, cohort, rows, lanes: tried.append(lanes) or {1: 10.0, 4: 30.0}[lanes])
    monkeypatch.setattr("fedjax_lite.engine.lanes._train", spy(trained))
    run = experiment(fl.packed("auto"))
    for rate in (0.1, 0.2):
        jax.jit(run)(softmax_data(), jax.random.key(3), rate)
    assert tried == [1, 4] and set(trained) == {4}  # a cohort of 5 has no use for 16


def spy(trained):
    from fedjax_lite.engine.lanes import _train

    def train(local, cohort, rows, lanes, step_by_step):
        trained.append(lanes)
        return _train(local, cohort, rows, lanes, step_by_step)

    return train


def test_measuring_stops_where_lanes_no_longer_pay_or_fit(monkeypatch):
    cohort = fl.sampling.cohort(jax.random.key(0), jnp.ones(4, jnp.int32), jnp.arange(4))
    rates = {1: 10.0, 4: 4.0, 16: 99.0}
    monkeypatch.setattr(tune, "_steps_a_second", lambda train, cohort, rows, lanes: rates[lanes])
    assert tune.fastest(lambda lanes: None, cohort, (), [1, 4, 16]) == 1

    def out_of_memory(train, cohort, rows, lanes):
        if lanes > 4:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED")
        return float(lanes)

    monkeypatch.setattr(tune, "_steps_a_second", out_of_memory)
    assert tune.fastest(lambda lanes: None, cohort, (), [1, 4, 16]) == 4
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        tune.fastest(lambda lanes: None, cohort, (), [16])


@pytest.mark.parametrize("lanes", [0, -1, "many"])
def test_lanes_must_be_a_number_or_auto(lanes):
    with pytest.raises(ValueError, match='lanes must be at least 1, or "auto", got'):
        fl.packed(lanes)


def test_importing_starts_no_device():
    """Or the number of CPU devices could no longer be set."""
    code = "import fedjax_lite, jax; jax.config.update('jax_num_cpu_devices', 3); assert len(jax.devices('cpu')) == 3"
    environment = {"JAX_PLATFORMS": "cpu", "PATH": ""}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
