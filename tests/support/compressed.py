"""Every compressor, what becomes of a message, and statistics of many draws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.stats
from grouping import grouped

from fedjax_lite import uplink
from fedjax_lite.ledger import sent

DRAWS = 20_000
COMPRESSORS = {
    "top_k": uplink.top_k(0.3),
    "random_k": uplink.random_k(0.3),
    "uniform": uplink.uniform(5),
    "qsgd": uplink.qsgd(3),
    "sign": uplink.sign(),
    "scaled_sign": uplink.scaled_sign(),
    "terngrad": uplink.terngrad(),
    "rotate": uplink.rotate(uplink.uniform(5)),
    "drive": uplink.drive(),
    "drive biased": uplink.drive(unbiased=False),
    "eden": uplink.eden(bits=3),
    "power_sgd": uplink.power_sgd(1),
    "error_feedback": uplink.error_feedback(uplink.top_k(0.3)),
}
each_compressor = grouped("compressor", COMPRESSORS)


def message(seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return {"b": rng.normal(size=5).astype(dtype), "w": rng.normal(size=(4, 6)).astype(dtype)}


def update(compressor, u, seed=0, state=None):
    """The decoded message and the state after it."""
    u = jax.tree.map(jnp.asarray, u)
    state = compressor.init(u) if state is None else state
    return optax.with_extra_args_support(compressor).update(u, state, None, key=jax.random.key(seed), round=0, weight=1.0)


@functools.cache
def compiled(compressor):
    """`update` as one program for each shape of a message."""
    return jax.jit(lambda u, seed, state: update(compressor, u, seed, state))


def once(compressor, u, seed=0, state=None):
    """`update`, compiled."""
    return compiled(compressor)(u, seed, compressor.init(jax.tree.map(jnp.asarray, u)) if state is None else state)


def bits(compressor, u):
    """Payload and side bits of one message, as a round counts them."""

    @jax.jit
    def run(u):
        decoded, state = update(compressor, u)
        return sent(state, decoded)[:2]

    return tuple(map(float, run(u)))


def many(compressor, u, draws=DRAWS):
    """Decoded messages of independent draws, float64 `[draws, coordinates]`, the leaves one after the other."""

    @jax.jit
    def run(keys, u):
        state = compressor.init(u)
        stack = jax.vmap(lambda key: compressor.update(u, state, None, key=key)[0])(keys)
        return jnp.concatenate([x.reshape(draws, -1) for x in jax.tree.leaves(stack)], axis=1)

    return np.asarray(run(jax.random.split(jax.random.key(7), draws), u), np.float64)


def flat(u):
    return np.concatenate([np.asarray(x, np.float64).reshape(-1) for x in jax.tree.leaves(u)])


def assert_unbiased(drawn, mean):
    """No coordinate's mean is off, by z-tests with Bonferroni's correction at 1e-3."""
    mean, spread = np.asarray(mean, np.float64), drawn.std(axis=0, ddof=1)
    error = drawn.mean(axis=0) - mean
    np.testing.assert_allclose(error[spread == 0], 0, atol=1e-6)
    z = np.abs(error[spread > 0]) / (spread[spread > 0] / np.sqrt(len(drawn)))
    assert 2 * scipy.stats.norm.sf(z.max()) * mean.size > 1e-3, z


def vnmse(drawn, u):
    return ((drawn - np.asarray(u, np.float64)) ** 2).sum(axis=-1).mean() / (np.asarray(u, np.float64) ** 2).sum()


def lognormal(d=4096):
    rng = np.random.default_rng(0)
    return (rng.lognormal(size=d) * rng.choice([-1, 1], d)).astype(np.float32)
