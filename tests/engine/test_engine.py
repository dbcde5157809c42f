"""Engines on several devices: they change where clients run, not what comes out."""

import subprocess
import sys

import jax
import numpy as np
import optax
import pytest
from experiment import ENGINES, assert_same, axes_mesh, expected, experiment, given
from problems import SIZES, softmax_data, softmax_loss, softmax_params

import fedjax_lite as fl
from fedjax_lite.engine.devices import assign, queues
from fedjax_lite.engine.placement import everywhere


def deep(*values):
    return pytest.param(*values, marks=pytest.mark.deep)


@pytest.mark.parametrize(
    ("name", "devices"), [("packed(3)", 2), deep("packed(1)", 2), deep("packed(3)", 8), deep("padded", 2), deep("sequential", 2)]
)
def test_devices_change_nothing(name, devices, x64):
    with axes_mesh(clients=devices):
        assert_same(jax.jit(experiment(ENGINES[name]))(*given()), expected())


@pytest.mark.parametrize("name", ["padded", deep("packed(3)")])
def test_devices_gather_what_does_not_add(name, x64):
    with axes_mesh(clients=2):
        assert_same(jax.jit(experiment(ENGINES[name], adds=False))(*given()), expected())


def test_devices_share_an_evaluation(x64):
    measured = lambda data: fl.evaluate(softmax_loss, softmax_params(), data, batch=4)  # noqa: E731
    one = jax.jit(measured)(softmax_data())
    with axes_mesh(clients=8):
        assert_same(jax.jit(lambda data: measured(data))(softmax_data()), one)


@pytest.mark.parametrize("engine", ["padded", deep("packed(1)")])
def test_arrays_that_lie_on_all_devices_already(engine):
    """As `fl.run` places them: zeros like one of them, of an optimizer's start, must be a device's own."""
    algorithm = fl.algorithms.fedavg(
        softmax_loss, optax.sgd(0.1, momentum=0.9), batches=fl.Batches(4), population=len(SIZES), engine=ENGINES[engine]
    )

    @jax.jit
    def start(data):
        return algorithm.init(softmax_params(), jax.random.key(0)), fl.sampling.uniform(3)(jax.random.key(0), data.size, 0)

    data = softmax_data()
    state, cohort = start(data)
    one = jax.jit(algorithm.round)(state, data, cohort)
    with axes_mesh(clients=2):
        together = jax.jit(lambda *operands: algorithm.round(*operands))(*everywhere((state, data, cohort)))
    assert_same(together[1], one[1], rtol=1e-6)


def test_an_explicit_mesh_is_refused():
    with jax.set_mesh(jax.make_mesh((2,), ("clients",), axis_types=(jax.sharding.AxisType.Explicit,))):
        with pytest.raises(ValueError, match="explicit axis 'clients': make it with axis_types"):
            jax.eval_shape(experiment(fl.packed(1)), *given())


@pytest.mark.parametrize(("clients", "devices"), [(1, 2), (7, 2), (7, 3), deep(4, 2), deep(9, 3), deep(17, 2), deep(17, 3)])
def test_clients_are_dealt_longest_first_to_the_idlest_device(clients, devices):
    drawn = np.random.default_rng(0).integers(0, 9, (20, clients))
    cohorts = np.array([np.full(clients, 5), np.zeros(clients), np.arange(clients), [9] + [1] * (clients - 1), *drawn], np.int32)
    dealt = jax.jit(jax.vmap(lambda steps: queues(assign(steps, devices), devices)))(cohorts)
    each = -(-clients // devices)
    assert dealt.shape == (len(cohorts), devices, each)
    for steps, found in zip(cohorts.tolist(), np.asarray(dealt).tolist(), strict=True):
        wanted = [[] for _ in range(devices)]
        for slot in sorted(range(clients), key=lambda k: (-steps[k], k)):
            min((queue for queue in wanted if len(queue) < each), key=lambda queue: sum(steps[k] for k in queue)).append(slot)
        assert [[slot for slot in queue if slot < clients] for queue in found] == [sorted(queue) for queue in wanted]
        assert len({slot for queue in found for slot in queue}) == devices * each


@pytest.mark.deep
def test_importing_starts_no_device():
    """Or the number of CPU devices could no longer be set."""
    code = "import fedjax_lite, jax; jax.config.update('jax_num_cpu_devices', 3); assert len(jax.devices('cpu')) == 3"
    environment = {"JAX_PLATFORMS": "cpu", "PATH": ""}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
