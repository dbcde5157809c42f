"""Error feedback: what was sent and what is left add up, the paper's loop, and a warning where clients hardly ever come."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compressed import COMPRESSORS, flat, once
from contract.works import federate
from problems import softmax_data, softmax_params

import fedjax_lite as fl
from fedjax_lite import uplink

INNER = {"top_k": uplink.top_k(0.2), "random_k": uplink.random_k(0.2, unbiased=False), "sign": uplink.sign()}
GRID = [
    pytest.param(name, dtype, marks=() if dtype == np.float32 or name == "top_k" else pytest.mark.deep)
    for name in INNER
    for dtype in (np.float32, jnp.bfloat16)
]


@pytest.mark.parametrize("name, dtype", GRID)
def test_what_was_sent_and_the_residual_are_what_was_to_be_sent(name, dtype):
    """Exactly: the numbers are whole."""
    transform, rng = uplink.error_feedback(INNER[name]), np.random.default_rng(0)
    state, to_send, was_sent = None, 0, 0
    for t in range(12):
        u = {"b": rng.integers(-8, 9, 5).astype(dtype), "w": rng.integers(-8, 9, (4, 6)).astype(dtype)}
        decoded, state = once(transform, u, t, state)
        to_send, was_sent = to_send + flat(u), was_sent + flat(decoded)
    assert state.residual["w"].dtype == np.float32 and flat(state.residual).any()
    np.testing.assert_array_equal(was_sent + flat(state.residual), to_send)


def test_error_feedback_sends_later_what_it_held_back():
    """The plain loop of the paper, in NumPy."""
    transform, rng, e, state = uplink.error_feedback(uplink.top_k(0.2)), np.random.default_rng(0), np.zeros(30), None
    for _ in range(8):
        u = rng.normal(size=30).astype(np.float32)
        c, kept = np.zeros(30), np.argsort(-np.abs(u + e))[:6]
        c[kept] = (u + e)[kept]
        e = u + e - c
        decoded, state = once(transform, u, 0, state)
        np.testing.assert_allclose(decoded, c, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(state.residual, e, rtol=1e-5, atol=1e-6)


def test_error_feedback_keeps_the_rounding_of_half_precision():
    transform = uplink.error_feedback(optax.identity())
    u = np.full(1, 1 + 1 / 128, jnp.bfloat16)
    state = transform.init(jnp.asarray(u))._replace(residual=np.full(1, 1 / 1024, np.float32))
    decoded, state = once(transform, u, 0, state)
    assert decoded.dtype == jnp.bfloat16 and float(decoded[0]) + float(state.residual[0]) == 1 + 1 / 128 + 1 / 1024
    assert state.residual[0] != 0


@pytest.mark.parametrize("name", ["random_k", "drive"])
def test_what_is_scaled_up_to_be_unbiased_is_refused(name):
    """Anywhere inside; not where it stands outside, or is not scaled."""
    scaled, short = {"random_k": lambda **k: uplink.random_k(0.1, **k), "drive": uplink.drive}[name], dict(unbiased=False)
    u = {"w": jnp.ones(4), "b": jnp.ones(2)}
    for inner in (
        scaled(),
        optax.chain(optax.clip(1.0), scaled()),
        optax.masked(scaled(), {"w": True, "b": False}),
        uplink.rotate(scaled()),
    ):
        with pytest.raises(
            ValueError, match=f"error_feedback: {name} is scaled up .* give {name} unbiased=False, or leave error_feedback out"
        ):
            jax.eval_shape(uplink.error_feedback(inner).init, u)
    jax.eval_shape(optax.chain(scaled(), uplink.error_feedback(scaled(**short))).init, u)


def test_error_feedback_warns_where_clients_hardly_ever_come():
    algorithm = federate(aggregator=fl.aggregators.mean(), uplink=COMPRESSORS["error_feedback"], batches=fl.Batches(4, shuffle=False))
    arguments = (algorithm, softmax_data(), softmax_params(), fl.sampling.uniform(2))
    options = {"key": jax.random.key(0), "evaluate_every": 3}
    with pytest.warns(UserWarning, match="a client takes part 0.86 times in this run"):
        fl.run(*arguments, rounds=3, **options)
    fl.run(*arguments, rounds=18, **options)  # 5.1 times: warnings are errors here
