"""Compute a convolution and its two gradients: as plain convolutions and products on CPU, as batched matmuls elsewhere.

On CPU XLA has fast code (YNNPACK) for plain channels-last convolutions and for row-major dots alone. The gradients that XLA's own
rules produce have other forms.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

Pair = tuple[int, int]
_CHANNELS_LAST = ("NHWC", "HWIO", "NHWC")
_CACHE = 2**20  # bytes of the patches of a chunk of examples; measured with 2 MiB of cache a core
_LARGE = 4 * _CACHE  # bytes of a kernel that takes longer to turn, or to read anew, than patches take to write
_FEWEST = 32  # channels of z for which XLA has fast code for the gradient of a kernel


class Form(NamedTuple):
    """The parameters of a two-dimensional convolution beside its arrays."""

    image: Pair  # height and width of x
    window: Pair  # height and width of w
    strides: Pair
    padding: tuple[Pair, Pair]
    dilation: Pair  # of the kernel
    precision: Any

    @property
    def output(self) -> Pair:
        """Height and width of z."""
        high, wide = (
            (n + sum(p) - (k - 1) * d - 1) // s + 1
            for n, k, s, p, d in zip(self.image, self.window, self.strides, self.padding, self.dilation)
        )
        return high, wide


def result_shape(a, b, wanted: str, form: Form) -> tuple[Any, ...]:  # the number of examples may be left open
    """Return the shape of the array `wanted`, "x", "w" or "z", from the two others in this order."""
    if wanted == "x":
        return (*b.shape[:2], *form.image, a.shape[-2])
    if wanted == "w":
        return (a.shape[0], *form.window, a.shape[-1], b.shape[-1])
    return (*a.shape[:2], *form.output, b.shape[-1])


def match_axes(*arrays):
    """Make arrays vary over the same axes of a shard_map, as operands of one primitive must."""
    axes = frozenset().union(*(jax.typeof(a).mat.varying for a in arrays))
    return [lax.pcast(a, tuple(missing), to="varying") if (missing := axes - jax.typeof(a).mat.varying) else a for a in arrays]


def on_cpu(a, b, *, wanted, form, dtype):
    """Compute one lane after another: a batched dot is slower."""
    wide = jnp.promote_types(a.dtype, b.dtype)
    if wide not in (jnp.float32, jnp.float64):
        return as_matmuls(a, b, wanted=wanted, form=form, dtype=dtype)
    a, b, one = a.astype(wide), b.astype(wide), functools.partial(_CPU[wanted], form=form)
    if a.shape[0] == 1:
        return one(a[0], b[0])[None].astype(dtype)
    return lax.map(lambda operands: one(*operands), (a, b)).astype(dtype)


def _output(x, w, form: Form):
    """Compute z from x and w."""
    if _is_product(w, form):
        rows = w.reshape(-1, w.shape[-1])
        return _over_chunks(lambda x: jnp.dot(_patches(x, form), rows, precision=form.precision), [x], w, form, summed=False)
    if x.shape[-1] in (2, 3):  # slow with 3 channels, fast with 4
        x, w = (jnp.pad(v, [(0, 4 - v.shape[axis]) if i == axis else (0, 0) for i in range(4)]) for v, axis in ((x, 3), (w, 2)))
    return _xla(x, w, form.strides, form.padding, form.dilation, form.precision)


def _image(w, z, form: Form):
    """Compute x from w and z: fold the patches' gradients or, where x and z have equal sizes, convolve z with the turned kernel.

    The convolution is faster; with unequal sizes it has more padding than XLA's fast library takes.
    """
    if form.output != form.image or form.strides != (1, 1) or _is_product(w, form):
        rows = w.reshape(-1, w.shape[-1])
        return _over_chunks(lambda z: _fold(jnp.dot(z, rows.T, precision=form.precision), form), [z], w, form, summed=False)
    spans = [(k - 1) * d for k, d in zip(form.window, form.dilation)]
    padding = tuple((span - low, n - out + low) for span, (low, _), n, out in zip(spans, form.padding, form.image, form.output))
    turned = lax.optimization_barrier(w[::-1, ::-1].transpose(0, 1, 3, 2))  # else XLA folds the transpose into a slow convolution
    return _xla(z, turned, (1, 1), padding, form.dilation, form.precision)


def _kernel(x, z, form: Form):
    """Compute w from x and z: of one pixel as a product, else some examples at a time, whose patches stay in cache."""
    if z.shape[-1] < _FEWEST:
        more = [(0, 0)] * 3 + [(0, _FEWEST - z.shape[-1])]
        return _kernel(x, jnp.pad(z, more), form)[..., : z.shape[-1]]
    w = jax.ShapeDtypeStruct((*form.window, x.shape[-1], z.shape[-1]), x.dtype)
    if math.prod(form.window) == 1:
        x, z = _patches(x, form).reshape(-1, x.shape[-1]), z.reshape(-1, z.shape[-1])  # XLA does not copy matrices
        if x.size * x.dtype.itemsize > _CACHE:
            return jnp.dot(x.T, z, precision=form.precision).reshape(w.shape)
        return _xla(x[None, :, :, None], z[:, None, None], (1, 1), ((0, 0), (0, 0)), (1, 1), form.precision).reshape(w.shape)
    return _over_chunks(functools.partial(_correlation, form=form), [x, z], w, form, summed=True)


def _correlation(x, z, form: Form):
    """Correlate x with z: convolve an image, whose columns are x's columns and channels, with z as the kernel.

    The output has the window's rows, and in a row its columns and channels, as w has them in memory. Examples are the input's channels;
    one example needs no transpose.
    """
    channels, batch = x.shape[-1], x.shape[0]
    rows, columns = (
        (low, (out - 1) * s + (k - 1) * d + 1 - n - low)
        for n, k, s, (low, _), d, out in zip(form.image, form.window, form.strides, form.padding, form.dilation, form.output)
    )
    # Barriers keep XLA from folding the transposes into dimension numbers, for which it has no fast code.
    x, z = lax.optimization_barrier((x.transpose(1, 2, 3, 0), z.transpose(1, 2, 0, 3)))
    x, columns = x.reshape(1, form.image[0], -1, batch), (channels * columns[0], channels * columns[1])
    strides, steps = (form.dilation[0], 1), (form.strides[0], channels * form.strides[1])
    w = _xla(x, z, strides, (rows, columns), steps, form.precision)
    return w.reshape(form.window[0], -1, channels, w.shape[-1])[:, :: form.dilation[1]]


def _is_product(w, form: Form) -> bool:
    """Return whether z or x is faster as a product of patches: a window of one pixel or larger than the image, or a large kernel."""
    small = any((k - 1) * d >= n for k, d, n in zip(form.window, form.dilation, form.image))
    return math.prod(form.window) == 1 or small or w.size * w.dtype.itemsize > _LARGE


def _over_chunks(compute: Callable, arrays, w, form: Form, *, summed: bool):
    """Call `compute` on as many examples at a time as `_chunk` says; sum what it returns, or join it."""
    batch = arrays[0].shape[0]
    size = _chunk(batch, w, form)
    if size == batch:
        return compute(*arrays)

    def some(i, total):
        part = compute(*(lax.dynamic_slice_in_dim(v, i * size, size) for v in arrays))
        return total + part if summed else lax.dynamic_update_slice_in_dim(total, part, i * size, axis=0)

    one = jax.eval_shape(compute, *(v[:size] for v in arrays))
    total = jnp.zeros(one.shape if summed else (batch, *one.shape[1:]), one.dtype)
    return lax.fori_loop(0, batch // size, some, match_axes(total, arrays[0])[0])


def _chunk(batch: Any, w, form: Form) -> Any:
    """Return how many examples' patches are no larger than `_CACHE` or the kernel, which is read once a chunk: a divisor of `batch`."""
    if math.prod(form.window) == 1:
        return batch
    if not isinstance(batch, int):  # the number that an exported program leaves open, which 1 alone divides
        return 1
    each = math.prod(form.output) * math.prod(w.shape[:-1]) * w.dtype.itemsize
    most = max(_CACHE, w.size * w.dtype.itemsize)
    return max(n for n in range(1, batch + 1) if batch % n == 0 and (n == 1 or n * each <= most))


_CPU = {"x": _image, "w": _kernel, "z": _output}


def _xla(x, w, strides, padding, dilation, precision):
    """Call XLA's plain channels-last convolution, the only form that XLA gives to its fast library on CPU."""
    return lax.conv_general_dilated(x, w, strides, padding, rhs_dilation=dilation, dimension_numbers=_CHANNELS_LAST, precision=precision)


def as_matmuls(a, b, *, wanted, form, dtype):
    """Compute all lanes as one batched matmul of patches and kernels, which accelerators are fast at."""
    einsum = functools.partial(jnp.einsum, precision=form.precision, preferred_element_type=dtype)
    if wanted == "x":
        return _fold(einsum("lbhwo,lko->lbhwk", b, a.reshape(a.shape[0], -1, a.shape[-1])), form)
    if wanted == "z":
        return einsum("lbhwk,lko->lbhwo", _patches(a, form), b.reshape(b.shape[0], -1, b.shape[-1]))
    return einsum("lbhwk,lbhwo->lko", _patches(a, form), b).reshape(result_shape(a, b, wanted, form))


def _taps(form: Form):
    """Return the offset in the image of each element of the window, row by row."""
    return [(i * form.dilation[0], j * form.dilation[1]) for i in range(form.window[0]) for j in range(form.window[1])]


def _patches(x, form: Form):
    """Gather patches: `[..., height, width, in]` to `[..., height, width, window * in]`, in the order of a kernel's rows."""
    leading = x.ndim - 3
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0)] * leading + [(*p, 0) for p in form.padding] + [(0, 0, 0)])
    (high, wide), (down, right) = form.output, form.strides
    rows, columns = (high - 1) * down + 1, (wide - 1) * right + 1
    return jnp.concatenate([x[..., i : i + rows : down, j : j + columns : right, :] for i, j in _taps(form)], axis=-1)


def _fold(patches, form: Form):
    """Transpose `_patches`: add every patch to its place in the image."""
    channels = patches.shape[-1] // math.prod(form.window)
    zero, leading, total = jnp.zeros((), patches.dtype), patches.ndim - 3, None
    for k, tap in enumerate(_taps(form)):
        config = [
            (t - low, n - (t - low) - (out - 1) * s - 1, s - 1)
            for t, n, s, (low, _), out in zip(tap, form.image, form.strides, form.padding, form.output)
        ]
        term = lax.pad(patches[..., k * channels : (k + 1) * channels], zero, [(0, 0, 0)] * leading + config + [(0, 0, 0)])
        total = term if total is None else total + term
    return total
