"""A layer of long short-term memory: gate by gate in NumPy, and as one would write it in jax."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def arguments(batch=3, time=5, inputs=2, hidden=4, dtype=np.float64, seed=0, lanes=()):
    """Kernel, recurrent kernel, bias, and the sequences."""
    rng = np.random.default_rng(seed)
    shapes = (*lanes, inputs, 4 * hidden), (*lanes, hidden, 4 * hidden), (*lanes, 4 * hidden), (*lanes, batch, time, inputs)
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def by_the_equations(kernel, recurrent, bias, x):
    """Plain NumPy, gate by gate."""
    kernel, recurrent, bias, x = (np.asarray(a, np.float64) for a in (kernel, recurrent, bias, x))
    hidden = recurrent.shape[0]
    h, c, out = np.zeros((len(x), hidden)), np.zeros((len(x), hidden)), np.zeros((*x.shape[:2], hidden))
    for t in range(x.shape[1]):
        i, f, g, o = np.split(x[:, t] @ kernel + h @ recurrent + bias, 4, axis=1)
        c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        h = np.tanh(c) / (1 + np.exp(-o))
        out[:, t] = h
    return out


def naive(kernel, recurrent, bias, x):
    """The layer as one would write it, for automatic differentiation."""

    def step(carry, x):
        h, c = carry
        i, f, g, o = jnp.split(x @ kernel + h @ recurrent + bias[None], 4, axis=1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    zeros = jnp.zeros((len(x), len(recurrent)), x.dtype)
    return lax.scan(step, (zeros, zeros), x.swapaxes(0, 1))[1].swapaxes(0, 1)
