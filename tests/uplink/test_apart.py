"""Compressors of one uplink draw apart from each other, also those of one name."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compressed import assert_unbiased, many
from contract.works import federate
from problems import softmax_params

import fedjax_lite as fl
from fedjax_lite import uplink

KEY = jax.random.key(3)


def drawn(transform, u):
    return jax.jit(lambda u: transform.update(u, transform.init(u), None, key=KEY)[0])(u)


@pytest.mark.parametrize(
    "first, second, u",
    [
        (uplink.random_k(0.5), uplink.random_k(0.5), [1, 2, 3, 4]),
        (uplink.qsgd(5), uplink.qsgd(2), [0.3, 0.5, -0.8]),
        pytest.param(*2 * [uplink.rotate(uplink.random_k(0.5))], [1, 2, 3, 4], marks=pytest.mark.deep),
    ],
)
def test_what_is_unbiased_once_is_so_twice(first, second, u):
    """E C(C'(u)) = u, which needs draws of C that do not depend on those of C'."""
    u = np.array(u, np.float32)
    assert_unbiased(many(uplink.apart(optax.chain(first, second)), u), u)


def test_equal_compressors_of_two_leaves_choose_other_places():
    u = {"a": np.ones(64, np.float32), "b": np.ones(64, np.float32)}
    for kind in (uplink.random_k(0.5, unbiased=False), uplink.rotate(uplink.sign())):
        one_each = optax.chain(*(optax.masked(kind, {"a": name == "a", "b": name == "b"}) for name in "ab"))
        decoded = drawn(uplink.apart(one_each), u)
        assert not np.array_equal(decoded["a"], decoded["b"])


def test_the_first_draws_as_one_alone():
    u = np.ones(64, np.float32)
    alone = drawn(uplink.random_k(0.5, unbiased=False), u)
    followed = drawn(uplink.apart(optax.chain(uplink.random_k(0.5, unbiased=False), uplink.qsgd(1), optax.identity())), u)
    assert not np.any((np.asarray(followed) != 0) & (np.asarray(alone) == 0))
    np.testing.assert_array_equal(drawn(uplink.apart(uplink.random_k(0.5, unbiased=False)), u), alone)


def test_in_a_round_they_are_told_apart():
    chain = optax.chain(uplink.random_k(0.5), uplink.error_feedback(uplink.random_k(0.5, unbiased=False)), uplink.qsgd(1))
    algorithm = federate(aggregator=fl.aggregators.mean(), uplink=chain, batches=fl.Batches(4, shuffle=False))
    state = jax.eval_shape(algorithm.init, softmax_params(), jax.random.key(0))
    nodes = jax.tree.leaves(state.uplink, is_leaf=lambda x: isinstance(x, uplink.Sent))
    assert [(x.place.name, x.place.number) for x in nodes if isinstance(x, uplink.Sent)] == [("random_k", 0), ("random_k", 1), ("qsgd", 0)]
    assert jnp.shape(nodes[0].bits) == (7, 2, 2)  # a row a client
