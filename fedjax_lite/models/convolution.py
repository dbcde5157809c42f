"""Convolution that stays fast inside compiled loops and with one kernel per client.

A convolution is a trilinear form of image x, kernel w and output z. Each of the three is a linear function of the other two,
and the gradients of one are the other two. One primitive holds all three, so every derivative of a convolution is that same
primitive again, in forward and in reverse mode. Each backend has its own form of the primitive.
"""

import functools
import math
import operator
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.typing import ArrayLike

from fedjax_lite import forms
from fedjax_lite.models.convolution_forms import Form, Pair, as_matmuls, match_axes, on_cpu, result_shape

__all__ = ["matmul_conv"]


def matmul_conv(
    lhs: ArrayLike,
    rhs: ArrayLike,
    window_strides: Sequence[int],
    padding: str | Sequence[Pair],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: Any = None,
    out_sharding: Any = None,
) -> jax.Array:
    """`jax.lax.conv_general_dilated`, fast inside `scan` and `while_loop`, in its gradients, and under `vmap` over kernels.

    z[b, y, x, o] = sum over i, j, c of lhs[b, s y + d i, s x + d j, c] rhs[i, j, c, o]

    XLA turns a vmapped kernel into a grouped convolution, and on CPU computes gradients of convolutions without its matmul
    library. Here both are matmuls, or convolutions that XLA does give to that library. Arguments are those of
    `jax.lax.conv_general_dilated`. Floating-point convolutions in one and two dimensions are covered, of any stride, padding,
    kernel dilation and dimension numbers; everything else is handed to XLA with a warning.

    Returns:
        The convolution, equal to XLA's to rounding; likewise all its derivatives.

    >>> import flax.linen as nn
    >>> layer = nn.Conv(8, (3, 3), conv_general_dilated=matmul_conv)
    >>> layer.init_with_output(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))[0].shape
    (1, 28, 28, 8)
    """
    lhs, rhs = jnp.asarray(lhs), jnp.asarray(rhs)
    spatial = lhs.ndim - 2
    reason = _not_covered(lhs, rhs, lhs_dilation, feature_group_count, batch_group_count, out_sharding)
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    window = [rhs.shape[axis] for axis in numbers.rhs_spec[2:]]
    image = [lhs.shape[axis] for axis in numbers.lhs_spec[2:]]
    dilation = [1] * spatial if rhs_dilation is None else [int(d) for d in rhs_dilation]
    xla = functools.partial(
        lax.conv_general_dilated,
        window_strides=window_strides,
        padding=padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        feature_group_count=feature_group_count,
        batch_group_count=batch_group_count,
        precision=precision,
        preferred_element_type=preferred_element_type,
        out_sharding=out_sharding,
    )
    result = jax.eval_shape(xla, lhs, rhs)  # raises XLA's own errors
    if reason is not None:
        warnings.warn(f"matmul_conv does not cover {reason}: XLA's convolution is used, which can be slow in loops and under vmap")
        return xla(lhs, rhs)
    if 0 in (lhs.size, rhs.size, math.prod(result.shape)):
        return jnp.zeros(result.shape, result.dtype)

    extra = 2 - spatial  # a convolution in one dimension is a convolution in two, the first of size 1
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(image, [(k - 1) * d + 1 for k, d in zip(window, dilation)], window_strides, padding)
    pads = [(int(low), int(high)) for low, high in padding]
    form = Form(
        image=_pair(1, image),
        window=_pair(1, window),
        strides=_pair(1, window_strides),
        padding=_pair((0, 0), pads),
        dilation=_pair(1, dilation),
        precision=precision,
    )
    x = lhs.transpose(numbers.lhs_spec[0], *numbers.lhs_spec[2:], numbers.lhs_spec[1])
    w = rhs.transpose(*numbers.rhs_spec[2:], numbers.rhs_spec[1], numbers.rhs_spec[0])
    x = x.reshape(1, x.shape[0], *form.image, x.shape[-1])  # axis 0 of every array is the lane
    w = w.reshape(1, *form.window, *w.shape[-2:])
    z = _convolution.bind(*match_axes(x, w), wanted="z", form=form, dtype=result.dtype)
    z = z.reshape(z.shape[1], *z.shape[2 + extra :])
    out = numbers.out_spec
    return z.transpose([(0, spatial + 1, *range(1, spatial + 1))[out.index(axis)] for axis in range(z.ndim)])


def _pair(missing, sizes):
    """Return two sizes; where `sizes` has one, `missing` stands before it."""
    first, second = [missing] * (2 - len(sizes)) + list(sizes)
    return first, second


def _not_covered(lhs, rhs, lhs_dilation, feature_group_count, batch_group_count, out_sharding) -> str | None:
    """Return the reason why the primitive does not cover a convolution, or None."""
    if lhs.ndim not in (3, 4):
        return f"{lhs.ndim - 2} spatial dimensions"
    if feature_group_count != 1:
        return "feature groups (split the channels, one convolution each)"
    if batch_group_count != 1:
        return "batch groups"
    if out_sharding is not None:
        return "an explicit sharding of the output"
    if lhs_dilation is not None and any(d != 1 for d in lhs_dilation):
        return "dilation of the input, that is transposed convolution (resize, then convolve)"
    if not (jnp.issubdtype(lhs.dtype, jnp.floating) and jnp.issubdtype(rhs.dtype, jnp.floating)):
        return f"dtypes {lhs.dtype} and {rhs.dtype} (floating point is)"
    return None


# The primitive: operands are two of x [lanes, batch, height, width, in], w [lanes, height, width, in, out] and
# z [lanes, batch, height, width, out], in this order; `wanted` names the third.

_convolution = Primitive("matmul_convolution")


@_convolution.def_abstract_eval
def _(a, b, *, wanted, form, dtype):
    return a.update(shape=result_shape(a, b, wanted, form), dtype=dtype, weak_type=False)


def _batch(operands, axes, *, wanted, form, dtype):
    """Vmap the primitive: the new axis becomes more lanes, or more examples of one batch if all share one kernel."""
    size = next(a.shape[axis] for a, axis in zip(operands, axes) if axis is not None)
    a, b = (jnp.broadcast_to(a, (size, *a.shape)) if axis is None else jnp.moveaxis(a, axis, 0) for a, axis in zip(operands, axes))
    kernel = {"x": 0, "w": None, "z": 1}[wanted]
    bind = functools.partial(_convolution.bind, wanted=wanted, form=form, dtype=dtype)
    if kernel is not None and axes[kernel] is None and a.shape[1] == 1:
        images = (b if kernel == 0 else a)[:, 0]
        merged = images.reshape(1, -1, *images.shape[2:])
        out = bind(a[0], merged) if kernel == 0 else bind(merged, b[0])
        return out.reshape(size, 1, -1, *out.shape[2:]), 0
    out = bind(a.reshape(-1, *a.shape[2:]), b.reshape(-1, *b.shape[2:]))
    return out.reshape(size, -1, *out.shape[1:]), 0


batching.primitive_batchers[_convolution] = _batch


def _jvp(primals, tangents, **params):
    """Differentiate forward: the primitive is linear in each operand."""
    out = _convolution.bind(*primals, **params)
    (a, b), (da, db) = primals, tangents
    terms = []
    if not isinstance(da, ad.Zero):
        terms.append(_convolution.bind(da, b, **params))
    if not isinstance(db, ad.Zero):
        terms.append(_convolution.bind(a, db, **params))
    return out, functools.reduce(operator.add, terms)


def _transpose(cotangent, a, b, *, wanted, form, dtype):
    """Differentiate in reverse: the primitive gives the unknown operand from the cotangent and the known operand."""
    names = [name for name in "xwz" if name != wanted]
    unknown = 0 if ad.is_undefined_primal(a) else 1
    aval = (a, b)[unknown].aval
    if isinstance(cotangent, ad.Zero):
        return [None, None]
    known = {wanted: cotangent, names[1 - unknown]: (a, b)[1 - unknown]}
    operands = [known[name] for name in "xwz" if name in known]
    gradient = _convolution.bind(*operands, wanted=names[unknown], form=form, dtype=aval.dtype)
    return [gradient, None] if unknown == 0 else [None, gradient]


ad.primitive_jvps[_convolution] = _jvp
ad.primitive_transposes[_convolution] = _transpose


def _computed(cpu, a, b, **params):
    """Compute the primitive in the CPU's form or as matmuls; `cpu` None: as `forms` decides for the default backend."""
    return (on_cpu if forms.cpu(cpu) else as_matmuls)(a, b, **params)


_convolution.def_impl(functools.partial(_computed, None))
mlir.register_lowering(_convolution, mlir.lower_fun(functools.partial(_computed, False), multiple_results=False))
mlir.register_lowering(_convolution, mlir.lower_fun(functools.partial(_computed, True), multiple_results=False), platform="cpu")
