"""Checkpoints: whole or not at all, and bit for bit what was saved."""

import os
import resource
from contextlib import closing

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_lite.base import State
from fedjax_lite.runner.checkpoint import Checkpoints

IDENTITY = {"config": {"client": {"epochs": 1, "rates": [0.1, 0.2]}, "name": "x"}, "state": ["a float32[3]"]}


def state(fill=1.0):
    """One of everything that a state may hold."""
    params = {"layer/0": {"w.b": jnp.full((2, 3), fill, jnp.bfloat16)}, "scale": jnp.float32(fill)}
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    own = {"keys": jax.random.split(jax.random.key(2, impl="rbg"), 3), "nothing": jnp.zeros((3, 0)), "counts": jnp.arange(3)}
    return State(jnp.int32(7), jax.random.key(5), (params, optimizer.init(params)), (), own, [jnp.array([True, False])])


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype and x.shape == y.shape
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.fixture
def opened(tmp_path):
    """Opens checkpoints in one folder, and closes them after the test."""
    made = []

    def open(identity=IDENTITY):
        made.append(Checkpoints(tmp_path / "checkpoints", identity))
        return made[-1]

    yield open
    for each in made:
        each.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # event loops that orbax drops half-way
def test_a_disk_that_fills_leaves_the_checkpoint_before(opened):
    """A limit on the size of files stands in for the disk's."""
    first = opened()
    first.save(1, state())
    first.wait()
    big = state()._replace(server=jax.random.bits(jax.random.key(0), (1000, 100)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match=r"no checkpoint .* \(Failed to write .*\): make room, then resume after round 1"):
            first.save(2, big)
            first.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    again = opened()
    assert again.latest() == 1
    assert_same(again.restore(1, state()), state())
    again.save(2, big)
    again.wait()
    assert opened().latest() == 2


def test_bits_classes_and_keys_survive(opened):
    first = opened()
    assert first.latest() is None
    first.save(3, state(2.5))
    first.wait()
    again = opened()
    restored = again.restore(again.latest(), state())
    assert_same(restored, state(2.5))
    assert isinstance(restored.server[1][1][0], optax.ScaleByAdamState)
    draw = jax.vmap(lambda key: jax.random.normal(key, (2,)))
    np.testing.assert_array_equal(draw(restored.own["keys"]), draw(state().own["keys"]))


def test_the_last_ones_stay_and_half_written_ones_are_none(opened, tmp_path):
    first = opened()
    for round in (2, 4, 6):
        first.save(round, state(round))
    first.close()
    folder = tmp_path / "checkpoints"
    assert sorted(os.listdir(folder)) == ["round_4", "round_6"]
    leftover = folder / "round_7.orbax-checkpoint-tmp" / "state"
    leftover.mkdir(parents=True)
    (leftover / "d").write_text("half")
    again = opened()
    assert again.latest() == 6
    assert_same(again.restore(6, state()), state(6))
    again.save(8, state(8))
    again.wait()
    assert sorted(os.listdir(folder)) == ["round_6", "round_8"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of one checkpoint."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    with closing(Checkpoints(folder, IDENTITY)) as first:
        first.save(1, state())
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": {"client": {"epochs": 2, "rates": [0.1, 0.2]}, "name": "y"}}, "config.client.epochs was 1, is now 2"),
        ({"config": {"client": {"epochs": 1, "rates": [0.1, 0.3]}, "name": "x"}}, r"config.client.rates\[1\] was 0.2, is now 0.3"),
        ({"config": {"client": {"epochs": 1, "rates": [0.1]}, "name": "x"}}, r"config.client.rates was \[0.1, 0.2\], is now \[0.1\]"),
        ({"config": {"client": {"epochs": 1}, "name": "x"}}, r"config.client.rates was \[0.1, 0.2\], is now not set"),
        ({"config": IDENTITY["config"] | {"seed": 3}}, "config.seed was not set, is now 3"),
        ({"state": ["a float32[" + "3, " * 99 + "]"]}, r"state\[0\] was 'a float32\[3\]', is now 'a float32.{60,80}\.\.\.;"),
    ],
)
def test_another_run_is_refused_with_the_first_difference(saved, change, message):
    with pytest.raises(ValueError, match=f"belongs to another configuration: {message}"):
        with closing(Checkpoints(saved, IDENTITY | change)) as other:
            other.restore(1, state())


def test_a_damaged_checkpoint_is_named(opened, tmp_path):
    first = opened()
    first.save(1, state())
    first.close()
    for path in (tmp_path / "checkpoints" / "round_1" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.raises(ValueError, match="round_1 cannot be read: remove that folder"):
        opened().restore(1, state())
