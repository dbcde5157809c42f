"""Studies: runs side by side, on one device or dealt over several, are the runs one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from experiment import alone, assert_same, axes_mesh, experiment
from problems import softmax_data, softmax_loss

import fedjax_lite as fl

pytestmark = pytest.mark.usefixtures("x64")


@pytest.fixture
def on(monkeypatch):
    """Asks for the form of a platform: the packed engine takes a study run by run as on a CPU, or all at once as on an accelerator."""
    return lambda backend: monkeypatch.setattr(jax, "default_backend", lambda: backend)


def deep(*values):
    return pytest.param(*values, marks=pytest.mark.deep)


def keys(number):
    return jax.vmap(jax.random.key)(np.arange(number))


def one_by_one(several, keys, rates):
    """The results `[keys, rates, ...]`; each key has data of its own, or all have the same."""
    results = [[alone(data, key, rate) for rate in rates] for data, key in zip(several, keys, strict=True)]
    return jax.tree.map(lambda *x: np.stack(x), *(jax.tree.map(lambda *x: np.stack(x), *row) for row in results))


@pytest.mark.parametrize(("backend", "devices"), [("cpu", 1), deep("gpu", 1), deep("gpu", 2)])
def test_a_study_is_its_runs(backend, devices, on):
    """Vmapped over rates, and over keys with data of their own."""
    on(backend)
    several, rates = [softmax_data(seed=seed) for seed in (0, 1)], np.array([0.1, 0.3, 0.5])
    run, stacked = experiment(fl.packed(3)), jax.tree.map(lambda *x: np.stack(x), *several)
    with axes_mesh(clients=devices):
        study = jax.jit(jax.vmap(jax.vmap(run, (None, None, 0)), (0, 0, None)))(stacked, keys(2), rates)
    assert_same(study, one_by_one(several, keys(2), rates))


@pytest.mark.deep
def test_a_study_of_one_set_of_data(on):
    on("gpu")
    rates = np.array([0.1, 0.3])
    run = jax.vmap(jax.vmap(experiment(fl.packed(3)), (None, None, 0)), (None, 0, None))
    assert_same(jax.jit(run)(softmax_data(), keys(2), rates), one_by_one([softmax_data()] * 2, keys(2), rates))


def dealt(engine, adds=True, evaluated=False, **axes):
    """Five seeds, which divide by neither number of devices, by two rates; perhaps with what each model is evaluated at."""
    run, data, rates = experiment(engine, adds), softmax_data(), np.array([0.1, 0.5])
    sums_of = lambda params: fl.evaluate(softmax_loss, params, data, batch=4) if evaluated else ()  # noqa: E731

    def with_sums(data, key, rate):
        results = run(data, key, rate)
        return results, sums_of(results[0])

    over_rates = jax.vmap(with_sums, (None, None, 0))
    with axes_mesh(**axes):
        results, sums = jax.jit(fl.over_runs(over_rates, (None, 0, None)))(data, keys(5), rates)
    wanted = one_by_one([data] * 5, keys(5), rates)
    assert_same(results, wanted)
    assert_same(sums, jax.jit(jax.vmap(jax.vmap(sums_of)))(wanted[0]))


@pytest.mark.deep
def test_a_study_s_runs_on_several_devices():
    dealt(fl.packed(3), runs=2)


@pytest.mark.deep
def test_a_study_s_runs_on_several_devices_that_share_each_run():
    """Of an aggregator whose parts do not add."""
    dealt(fl.padded(), adds=False, evaluated=True, clients=2, runs=3)


@pytest.mark.deep
@pytest.mark.parametrize(("backend", "axes"), [("gpu", {"runs": 2, "clients": 2}), ("cpu", {"clients": 2, "runs": 3})])
def test_packed_runs_on_several_devices_that_share_each_run(backend, axes, on):
    on(backend)
    dealt(fl.packed(3), adds=False, evaluated=True, **axes)


def test_a_study_of_arguments_that_do_not_go_together_is_refused():
    with axes_mesh(runs=2):
        with pytest.raises(ValueError, match="inconsistent sizes"):
            fl.over_runs(lambda a, b: a + b)(np.ones(4), np.ones(2))
        with pytest.raises(ValueError, match="at least one"):
            fl.over_runs(jnp.sum, None)(np.ones(4))


def test_a_study_of_other_axes_is_refused():
    with axes_mesh(runs=2):
        with pytest.raises(ValueError, match="in_axes must be 0 or None for each argument, got 1"):
            fl.over_runs(jnp.sum, 1)(np.ones((2, 2)))
