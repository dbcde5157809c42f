"""Max pooling: a plain loop in NumPy, and flax."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from convolutions import arrays, cotangent

from fedjax_lite.models.pooling import max_pool

POOLS = [  # image, window, strides, padding, the padding in numbers
    ((2, 6, 8, 3), (2, 2), (2, 2), "VALID", ((0, 0), (0, 0))),
    ((2, 7, 8, 3), (2, 3), (2, 3), "SAME", ((0, 1), (0, 1))),
    ((2, 7, 9, 3), (3, 3), (2, 2), "VALID", ((0, 0), (0, 0))),
    ((2, 7, 5, 1), (3, 2), None, "SAME", ((1, 1), (0, 1))),
    ((2, 9, 4), (2,), (2,), ((1, 2),), ((1, 2),)),
    ((2, 3, 3, 1), (4, 4), (4, 4), "VALID", ((0, 0), (0, 0))),
]


def by_hand(x, window, strides, pads):
    """The value, and the gradient of the image, which goes to the first of equal maxima, row by row."""
    strides = strides or (1,) * len(window)
    outputs = [max(0, (n + sum(p) - k) // s + 1) for n, p, k, s in zip(x.shape[1:-1], pads, window, strides, strict=True)]
    z, gradient = np.full((len(x), *outputs, x.shape[-1]), -np.inf), np.zeros(x.shape)  # what sees padding alone stays -inf
    c = cotangent(z.shape)
    for at in np.ndindex(*z.shape):
        best = None
        for offset in itertools.product(*map(range, window)):
            place = [o * s + i - low for o, s, i, (low, _) in zip(at[1:-1], strides, offset, pads, strict=True)]
            if all(0 <= p < n for p, n in zip(place, x.shape[1:-1], strict=True)):
                here = (at[0], *place, at[-1])
                best = here if best is None or x[here] > x[best] else best
        if best is not None:
            z[at] = x[best]
            gradient[best] += c[at]
    return z, gradient


def pooled(pool_fn, window, strides, padding):
    """Of lanes of images, the value and the gradient, compiled."""

    def one(x):
        z, back = jax.vjp(lambda x: pool_fn(x, window, strides, padding), x)
        return z, back(jnp.asarray(cotangent(z.shape), z.dtype))[0]

    return jax.jit(jax.vmap(one))


def lanes(image):
    """Among them one with ties."""
    (x,) = arrays(image)
    return np.stack([x, -x, np.round(x)])


@pytest.mark.parametrize("image, window, strides, padding, pads", POOLS)
def test_pooling_is_a_plain_loop(image, window, strides, padding, pads):
    z, gradient = pooled(max_pool, window, strides, padding)(lanes(image))
    for lane, x in enumerate(lanes(image)):
        value, slope = by_hand(x, window, strides, pads)
        np.testing.assert_array_equal(z[lane], value)
        np.testing.assert_allclose(gradient[lane], slope, atol=1e-5)


@pytest.mark.deep
@pytest.mark.parametrize("image, window, strides, padding, pads", POOLS[:-1])
def test_pooling_is_that_of_flax(image, window, strides, padding, pads):
    (z, gradient), (value, slope) = (pooled(f, window, strides, padding)(lanes(image)) for f in (max_pool, nn.max_pool))
    np.testing.assert_array_equal(z, value)
    np.testing.assert_allclose(gradient, slope, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_pooling_keeps_what_is_not_a_number(stride):
    z = jax.jit(lambda x: max_pool(x, (2,), (stride,)))(np.array([1.0, np.nan, 2.0, 3.0], np.float32).reshape(1, 4, 1))
    assert np.isnan(z[0, 0, 0]) and z[0, -1, 0] == 3


def test_pooling_refuses():
    with pytest.raises(ValueError, match="window"):
        max_pool(jnp.zeros((1, 4, 4, 1)), (2,))
    with pytest.raises(ValueError, match="floating point"):
        max_pool(jnp.zeros((1, 4, 4, 1), jnp.int32), (2, 2))
