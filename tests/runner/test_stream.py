"""Streaming: the rounds of a population on disk are, bit for bit, those of the same population in memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import softmax_data, softmax_loss, softmax_params
from streamed import SAMPLERS, algorithm, trained

import fedjax_lite as fl
from fedjax_lite.engine.placement import mesh_of
from fedjax_lite.runner import stream


@functools.cache
def in_memory(name):
    return trained(softmax_data(), SAMPLERS[name])


def same(a, b):
    assert a.history == b.history and a.status == b.status
    for x, y in zip(jax.tree.leaves(a.state), jax.tree.leaves(b.state), strict=True):
        np.testing.assert_array_equal(*(jax.random.key_data(v) if jnp.issubdtype(v.dtype, jax.dtypes.prng_key) else v for v in (x, y)))


@pytest.fixture
def stored(tmp_path):
    return fl.data.save(tmp_path / "store", softmax_data())


@pytest.mark.parametrize("name", ["some", *(pytest.param(name, marks=pytest.mark.deep) for name in SAMPLERS if name != "some")])
def test_streamed_is_in_memory_to_the_bit(stored, name):
    same(trained(stored, SAMPLERS[name]), in_memory(name))


@pytest.mark.deep
@pytest.mark.parametrize("engine", [fl.padded(), fl.packed(3)], ids=["padded", "packed"])
def test_on_other_engines(stored, engine):
    test = softmax_data(seed=5)
    streamed, whole = (trained(data, SAMPLERS["some"], engine, test=test, rounds=3) for data in (stored, softmax_data()))
    same(streamed, whole)


@pytest.mark.deep
def test_on_several_devices(stored):
    with jax.set_mesh(mesh_of(jax.devices()[:2])):
        streamed = trained(stored, SAMPLERS["some"])
    np.testing.assert_allclose(streamed.params, in_memory("some").params, rtol=1e-5, atol=1e-6)


def test_groups_of_an_evaluation_hold_about_as_many_examples(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "EVALUATED", 20 * 28)  # bytes: twenty examples
    store = fl.data.save(tmp_path / "skewed", softmax_data((20,) * 3 + (1,) * 60))
    groups = list(stream._groups(store))
    assert sum(len(some.examples["y"]) for some, _ in groups) <= 3 * 120
    assert sum(int(real.sum()) for _, real in groups) == 63


def test_evaluation_in_groups_of_clients(stored, monkeypatch):
    monkeypatch.setattr(stream, "EVALUATED", 300)  # bytes: a few examples
    streamed, whole = trained(stored, SAMPLERS["some"]), in_memory("some")
    assert streamed.history[-1].keys() == whole.history[-1].keys()
    np.testing.assert_allclose(streamed.history[-1]["train_loss"], whole.history[-1]["train_loss"], rtol=1e-6)
    np.testing.assert_allclose(
        streamed.history[-1]["train_clients"]["loss"]["values"], whole.history[-1]["train_clients"]["loss"]["values"], rtol=1e-5
    )


@pytest.mark.deep
@pytest.mark.parametrize("first, second", [("disk", "memory"), ("memory", "disk")])
def test_saved_in_one_place_resumed_in_the_other(stored, tmp_path, first, second):
    places = {"disk": stored, "memory": softmax_data()}
    trained(places[first], SAMPLERS["some"], rounds=3, out=tmp_path / "run")
    resumed = trained(places[second], SAMPLERS["some"], out=tmp_path / "run", resume=True)
    same(resumed, in_memory("some"))


def test_few_programs_are_compiled(stored):
    before = stream._rounds.programs(algorithm(None))
    trained(stored, SAMPLERS["some"], rounds=12)
    assert stream._rounds.programs(algorithm(None)) - before <= 3  # of pieces of about the same number of rows


def test_a_population_of_another_size_is_refused(stored):
    other = fl.federate(
        fl.sgd_work(softmax_loss, optax.sgd(0.1)), fl.aggregators.mean(), fl.optimizer_server(optax.sgd(1.0)),
        batches=fl.Batches(4), population=3,
    )  # fmt: skip
    with pytest.raises(ValueError, match="population=3, the data has 7 clients"):
        fl.run(other, stored, softmax_params(), SAMPLERS["some"], rounds=1, key=jax.random.key(0), progress=False)
