"""A convolution and its two gradients in plain NumPy, and convolutions that go every way of `fedjax_lite.models.convolution`."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

NHWC, NWC = ("NHWC", "HWIO", "NHWC"), ("NWC", "WIO", "NWC")
CASES = {  # image, kernel, strides, padding, dilation
    "valid": ((3, 9, 8, 2), (3, 3, 2, 4), (1, 1), "VALID", None),
    "same": ((2, 7, 6, 5), (3, 3, 5, 2), (1, 1), "SAME", None),
    "same lower, even kernel": ((2, 7, 6, 1), (2, 4, 1, 3), (1, 1), "SAME_LOWER", None),
    "stride that leaves a rest": ((2, 10, 9, 3), (3, 3, 3, 2), (2, 3), "VALID", None),
    "stride, same": ((2, 9, 8, 2), (5, 4, 2, 3), (2, 2), "SAME", None),
    "stride beyond the kernel": ((2, 9, 9, 4), (2, 2, 4, 3), (3, 3), "VALID", None),
    "dilation": ((2, 11, 9, 2), (3, 2, 2, 3), (1, 1), "SAME", (2, 3)),
    "all of it": ((2, 12, 9, 3), (3, 3, 3, 2), (3, 2), ((4, 1), (-1, 3)), (2, 1)),
    "negative padding": ((2, 8, 8, 2), (3, 3, 2, 2), (1, 1), ((-1, 0), (0, -2)), None),
    "padding beyond the kernel": ((1, 3, 3, 1), (2, 2, 1, 2), (1, 1), ((5, 4), (3, 6)), None),
    "one by one": ((3, 5, 4, 3), (1, 1, 3, 6), (1, 1), "VALID", None),
    "one by one, stride": ((3, 5, 4, 3), (1, 1, 3, 6), (2, 2), "SAME", None),
    "one example": ((1, 6, 6, 1), (5, 5, 1, 2), (1, 1), "SAME", None),
    "one example, stride that leaves a rest": ((1, 10, 9, 3), (3, 3, 3, 2), (2, 3), ((1, 0), (-1, 3)), None),
    "past only": ((2, 7, 6, 3), (3, 2, 3, 2), (1, 1), ((2, 0), (1, 0)), None),
    "chunks of examples": ((6, 24, 24, 24), (5, 5, 24, 3), (1, 1), "SAME", None),
    "kernel beyond the image": ((2, 3, 3, 2), (5, 5, 2, 3), (1, 1), "SAME", None),
    "nothing comes out": ((2, 3, 3, 2), (5, 5, 2, 3), (1, 1), "VALID", None),
    "no examples": ((0, 5, 5, 2), (3, 3, 2, 3), (1, 1), "VALID", None),
    "line": ((3, 12, 4), (5, 4, 6), (1,), "SAME", None),
    "line, stride and dilation": ((3, 13, 2), (3, 2, 3), (2,), ((2, 0),), (2,)),
}


def arrays(*shapes, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def of_case(case, conv):
    """A convolution function with the arguments of a case."""
    image, _, strides, padding, dilation = CASES[case]
    names = NHWC if len(image) == 4 else NWC
    return functools.partial(conv, window_strides=strides, padding=padding, rhs_dilation=dilation, dimension_numbers=names)


def operands(case, **more):
    """The image and the kernel of a case."""
    return arrays(*CASES[case][:2], **more)


def cotangent(shape):
    """A cotangent that differs everywhere."""
    return np.cos(np.arange(np.prod(shape))).reshape(shape)


def with_gradients(conv, x, w):
    """The value and both gradients, as jax has them."""
    z, back = jax.vjp(conv, x, w)
    return z, *back(jnp.asarray(cotangent(z.shape), z.dtype))


class Plain:
    """The convolution of a case, tap by tap in float64: channels last."""

    def __init__(self, case):
        shape, kernel, self.strides, padding, dilation = CASES[case]
        self.sizes, self.window, self.dilation = shape[1:-1], kernel[:-2], dilation or (1,) * len(self.strides)
        self.padding = self._pads(padding) if isinstance(padding, str) else padding
        self.output = tuple(
            max(0, (n + sum(p) - (k - 1) * d - 1) // s + 1)
            for n, p, k, d, s in zip(self.sizes, self.padding, self.window, self.dilation, self.strides, strict=True)
        )

    def _pads(self, padding):
        if padding == "VALID":
            return ((0, 0),) * len(self.strides)
        totals = [
            max(0, (-(-n // s) - 1) * s + (k - 1) * d + 1 - n)
            for n, s, k, d in zip(self.sizes, self.strides, self.window, self.dilation, strict=True)
        ]
        return tuple((-(-t // 2), t // 2) if padding == "SAME_LOWER" else (t // 2, -(-t // 2)) for t in totals)

    def _taps(self):
        """Of each tap of the window, which outputs it reaches the image from, and where."""
        for tap in itertools.product(*map(range, self.window)):
            to, place = [], []
            for o, s, t, d, n, (low, _) in zip(self.output, self.strides, tap, self.dilation, self.sizes, self.padding, strict=True):
                at = np.arange(o) * s + t * d - low
                inside = (at >= 0) & (at < n)
                to.append(np.flatnonzero(inside))
                place.append(at[inside])
            yield tap, (slice(None), *np.ix_(*to)), (slice(None), *np.ix_(*place))

    def value(self, x, w):
        x, w = np.asarray(x, np.float64), np.asarray(w, np.float64)
        z = np.zeros((len(x), *self.output, w.shape[-1]))
        for tap, to, place in self._taps():
            z[to] += x[place] @ w[tap]
        return z

    def image(self, w, z):
        """The gradient of the image, of a cotangent z."""
        w, z = np.asarray(w, np.float64), np.asarray(z, np.float64)
        x = np.zeros((len(z), *self.sizes, w.shape[-2]))
        for tap, to, place in self._taps():
            x[place] += z[to] @ w[tap].T
        return x

    def kernel(self, x, z):
        """The gradient of the kernel."""
        x, z = np.asarray(x, np.float64), np.asarray(z, np.float64)
        w = np.zeros((*self.window, x.shape[-1], z.shape[-1]))
        for tap, to, place in self._taps():
            w[tap] = np.tensordot(x[place], z[to], axes=(range(x.ndim - 1),) * 2)
        return w

    def with_gradients(self, x, w):
        """The value and both gradients."""
        z = self.value(x, w)
        c = cotangent(z.shape)
        return z, self.image(w, c), self.kernel(x, c)


def agree(ours, theirs, tolerance=2e-5, dtype=None):
    """Arrays alike to rounding; of a dtype, where one is told."""
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape and a.dtype == (dtype or a.dtype)
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * (1 + np.abs(b).max(initial=0)))
