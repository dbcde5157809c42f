"""A recurrent layer that is fast at the small batches of federated learning."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

__all__ = ["lstm"]


def lstm(kernel: jax.Array, recurrent: jax.Array, bias: jax.Array, x: jax.Array) -> jax.Array:
    """A layer of long short-term memory over whole sequences, from a state of zeros.

        (i, f, g, o) = x_t W + h_{t-1} U + b,   c_t = σ(f) c_{t-1} + σ(i) tanh(g),   h_t = σ(o) tanh(c_t)

    Reverse-mode only: its gradient is written out, so that the gradients of W and U are one product each after the last time
    step, where automatic differentiation adds to them at every step.

    Args:
        kernel: W `[inputs, 4 * hidden]`, the blocks of i, f, g and o side by side.
        recurrent: U `[hidden, 4 * hidden]`.
        bias: b `[4 * hidden]`.
        x: `[batch, time, inputs]`.

    Returns:
        h `[batch, time, hidden]`, in the widest dtype of the arguments.

    Raises:
        ValueError: shapes that do not fit each other.

    >>> x = jnp.ones((2, 5, 3))
    >>> lstm(jnp.ones((3, 16)), jnp.ones((4, 16)), jnp.zeros(16), x).shape
    (2, 5, 4)

    Hochreiter and Schmidhuber, Long Short-Term Memory, 1997; the forget gate of Gers et al., 2000.
    """
    hidden = recurrent.shape[0]
    wanted = (x.shape[-1], 4 * hidden), (hidden, 4 * hidden), (4 * hidden,)
    if x.ndim != 3 or (kernel.shape, recurrent.shape, bias.shape) != wanted:
        raise ValueError(
            f"lstm: kernel {kernel.shape}, recurrent {recurrent.shape} and bias {bias.shape} do not fit x {x.shape}: for x [batch, time, "
            f"inputs] make them [inputs, 4 * hidden], [hidden, 4 * hidden] and [4 * hidden]"
        )
    dtype = jnp.result_type(kernel, recurrent, bias, x)
    kernel, recurrent, bias, x = (a.astype(dtype) for a in (kernel, recurrent, bias, x))
    return _lstm(kernel, recurrent, bias, x.swapaxes(0, 1)).swapaxes(0, 1)


@jax.custom_vjp
def _lstm(kernel: jax.Array, recurrent: jax.Array, bias: jax.Array, x: jax.Array) -> jax.Array:
    """Run the layer with time first: x `[time, batch, inputs]` to h `[time, batch, hidden]`."""
    return _scan(kernel, recurrent, bias, x, lambda *cell: ())[0]


def _forward(kernel, recurrent, bias, x):
    """Run the layer; save the factors of its gradient that do not depend on the cotangent, computed while their arrays are in cache."""

    def derivatives(i, f, g, o, before, squashed):
        by_gate = jnp.stack([g * i * (1 - i), before * f * (1 - f), i * (1 - g * g), squashed * o * (1 - o)], axis=1)
        return by_gate, f, o * (1 - squashed * squashed)

    h, saved = _scan(kernel, recurrent, bias, x, derivatives)
    return h, (kernel, recurrent, x, h, saved)


def _scan(kernel, recurrent, bias, x, save_fn: Callable):
    """Scan over time; return h `[time, batch, hidden]` and the results of `save_fn` at each time step."""
    hidden = recurrent.shape[0]
    projected = (x @ kernel).reshape(*x.shape[:2], 4, hidden)  # one product for all time steps
    bias = bias.reshape(1, 4, hidden)
    # σ(z) = (1 + tanh(z / 2)) / 2, so that the four gates are one tanh.
    scale = jnp.array([0.5, 0.5, 1, 0.5], x.dtype).reshape(1, 4, 1)

    def step(carry, projected):
        h, before = carry
        z = projected + bias + (h @ recurrent).reshape(projected.shape)
        gates = scale * jnp.tanh(scale * z) + (1 - scale)
        i, f, g, o = (gates[:, k] for k in range(4))
        c = f * before + i * g
        squashed = jnp.tanh(c)
        h = o * squashed
        return (h, c), (h, save_fn(i, f, g, o, before, squashed))

    zeros = jnp.zeros((x.shape[1], hidden), x.dtype)
    return lax.scan(step, (zeros, zeros), projected)[1]


def _backward(residuals, dh):
    """Return the gradients of kernel, recurrent, bias and x; scan back over time, then one product for each."""
    kernel, recurrent, x, h, saved = residuals
    time, batch, hidden = h.shape
    to_h = _transposed(recurrent)

    def step(carry, t):
        from_h, from_c = carry
        dh, (by_gate, f, dc_dh) = t
        dh = dh + from_h
        dc = from_c + dh * dc_dh
        dz = jnp.concatenate([dc[:, None] * by_gate[:, :3], dh[:, None] * by_gate[:, 3:]], axis=1)
        return (dz.reshape(batch, 4 * hidden) @ to_h, dc * f), dz

    zeros = jnp.zeros((batch, hidden), x.dtype)
    dz = lax.scan(step, (zeros, zeros), (dh, saved), reverse=True)[1].reshape(time * batch, 4 * hidden)
    before = jnp.concatenate([zeros[None], h[:-1]]).reshape(time * batch, hidden)
    dkernel = _transposed(x.reshape(time * batch, -1)) @ dz
    return dkernel, _transposed(before) @ dz, dz.sum(axis=0), (dz @ kernel.T).reshape(x.shape)


_lstm.defvjp(_forward, _backward)


def _transposed(x: jax.Array) -> jax.Array:
    """Transpose `x` in memory: on CPU a product into which XLA folds the transpose is a fifth slower."""
    return lax.optimization_barrier(x.T)


class LSTM(nn.Module):
    """`lstm` as a layer: orthogonal recurrent weights for each gate, a forget bias of 1 (Jozefowicz et al., 2015)."""

    hidden: int

    @nn.compact
    def __call__(self, x):
        def orthogonal(key, shape):
            each = nn.initializers.orthogonal()
            return jnp.concatenate([each(k, (self.hidden, self.hidden)) for k in jax.random.split(key, 4)], axis=1)

        def forget_one(key, shape):
            return jnp.zeros(shape).at[self.hidden : 2 * self.hidden].set(1)

        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], 4 * self.hidden))
        recurrent = self.param("recurrent", orthogonal, (self.hidden, 4 * self.hidden))
        return lstm(kernel, recurrent, self.param("bias", forget_one, (4 * self.hidden,)), x)
