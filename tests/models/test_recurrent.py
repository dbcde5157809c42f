"""The LSTM layer: its equations in NumPy, and the layer as one would write it under automatic differentiation."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from recurrence import arguments, by_the_equations, naive

from fedjax_lite.models.recurrent import lstm


def objective(layer):
    """A scalar to which every output counts differently, and the outputs."""

    def value(*arguments):
        h = layer(*arguments)
        return jnp.sum(jnp.sin(jnp.arange(h.size, dtype=h.dtype).reshape(h.shape)) * h**2), h

    return value


def gradients(layer):
    return jax.grad(objective(layer), argnums=(0, 1, 2, 3), has_aux=True)


@jax.jit
def both(*values):
    """The gradients and the outputs, of the layer and of the naive one; compiled once for each shape."""
    return gradients(lstm)(*values), gradients(naive)(*values)


def assert_close(actual, expected, tolerance):
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == e.dtype and a.shape == e.shape
        np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance)


ONE = dict(batch=1, time=1, inputs=1, hidden=1)


@pytest.mark.parametrize("sizes", [{}, ONE, *(pytest.param({name: 1}, marks=pytest.mark.deep) for name in ("batch", "time"))], ids=repr)
def test_lstm_is_its_equations_and_its_gradients_those_of_automatic_differentiation(x64, sizes):
    values = arguments(**sizes)
    ours, theirs = both(*values)
    np.testing.assert_allclose(ours[1], by_the_equations(*values), rtol=1e-10, atol=1e-12)
    assert_close(ours, theirs, 1e-10)


def test_lstm_is_flax(x64):
    kernel, recurrent, bias, x = values = arguments()
    gates = {}
    for k, gate in enumerate("ifgo"):
        block = slice(4 * k, 4 * k + 4)
        gates |= {f"i{gate}": {"kernel": kernel[:, block]}, f"h{gate}": {"kernel": recurrent[:, block], "bias": bias[block]}}
    layer = nn.RNN(nn.OptimizedLSTMCell(4, param_dtype=jnp.float64))
    expected = jax.jit(lambda gates, x: layer.apply({"params": {"cell": gates}}, x))(gates, x)
    np.testing.assert_allclose(both(*values)[0][1], expected, rtol=1e-10)


def test_gradients_are_finite_differences(x64):
    values, directions, step = arguments(), arguments(seed=1), 1e-6

    def value(sign):
        h = np.asarray(both(*(a + sign * step * d for a, d in zip(values, directions, strict=True)))[0][1])
        return np.sum(np.sin(np.arange(h.size).reshape(h.shape)) * h**2)

    slope = sum(np.vdot(g, d) for g, d in zip(both(*values)[0][0], directions, strict=True))
    np.testing.assert_allclose((value(1) - value(-1)) / (2 * step), slope, rtol=1e-7)


def test_large_gates_saturate(x64):
    values = [1e3 * a for a in arguments()]
    found, h = both(*values)[0]
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(h, by_the_equations(*values), atol=1e-10)
    assert all(np.isfinite(g).all() for g in found)


@pytest.mark.deep
def test_gradient_of_one_argument_and_of_a_gradient(x64):
    values = arguments()

    def steepness(layer):
        return jax.grad(lambda recurrent: sum(jnp.sum(g**2) for g in gradients(layer)(values[0], recurrent, *values[2:])[0]))

    @jax.jit
    def run(*values):
        return jax.grad(lambda *a: objective(lstm)(*a)[0], argnums=1)(*values), steepness(lstm)(values[1]), steepness(naive)(values[1])

    one, ours, theirs = run(*values)
    assert_close(one, both(*values)[1][0][1], 1e-10)
    assert_close(ours, theirs, 1e-9)


def test_each_lane_has_its_own_weights(x64):
    values = arguments(lanes=(3,))

    @jax.jit
    def run(*values):
        own = jax.vmap(gradients(lstm))(*values)
        return own, jax.vmap(gradients(lstm), (None, None, None, 0))(*(a[0] for a in values[:3]), values[3])

    own, shared = run(*values)
    for lane in range(3):
        assert_close([a[lane] for a in jax.tree.leaves(own)], both(*(a[lane] for a in values))[1], 1e-10)
        assert_close([a[lane] for a in jax.tree.leaves(shared)], both(*(a[0] for a in values[:3]), values[3][lane])[1], 1e-10)


def test_training_in_a_loop_of_traced_length(x64):
    *start, x = arguments()

    @jax.jit
    def trained(parameters, x, steps):
        def step(_, parameters):
            moved = gradients(lstm)(*parameters, x)[0][:3]
            return [a - 0.01 * g for a, g in zip(parameters, moved, strict=True)]

        return lax.fori_loop(0, steps, step, parameters)

    expected = start
    for _ in range(4):
        moved = both(*expected, x)[1][0][:3]
        expected = [a - 0.01 * np.asarray(g) for a, g in zip(expected, moved, strict=True)]
    found = trained(start, x, 4)
    assert_close(found, expected, 1e-10)
    assert not np.allclose(found[1], start[1], atol=1e-3)


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-5), (jnp.bfloat16, 0.1)])
def test_narrow_dtypes(dtype, tolerance):
    values = [a.astype(dtype) for a in arguments(dtype=np.float32)]
    found, h = jax.jit(gradients(lstm))(*values)
    assert h.dtype == dtype and {g.dtype for g in found} == {jnp.dtype(dtype)}
    np.testing.assert_allclose(h.astype(np.float32), by_the_equations(*values), atol=tolerance)


def test_mixed_dtypes_take_the_widest_and_gradients_keep_their_own():
    values = arguments(dtype=np.float32)
    values[1] = values[1].astype(jnp.bfloat16)
    found, h = jax.eval_shape(gradients(lstm), *values)
    assert h.dtype == np.float32
    assert [g.dtype for g in found] == [a.dtype for a in values]


@pytest.mark.parametrize("wrong", [(2, 15), (4, 12), (16, 1), (3, 5)])
def test_shapes_that_do_not_fit_are_refused(wrong):
    values = arguments(dtype=np.float32)
    values[{(2, 15): 0, (4, 12): 1, (16, 1): 2, (3, 5): 3}[wrong]] = np.zeros(wrong, np.float32)
    with pytest.raises(ValueError, match=re.escape(str(wrong))):
        jax.eval_shape(lstm, *values)
