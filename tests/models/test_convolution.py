"""Convolution: XLA's and a plain loop are the oracles, for the value, both gradients and what composes with them."""

import functools
import itertools
import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.test_util import check_grads

from fedjax_lite.models.convolution import matmul_conv
from fedjax_lite.models.convolution_forms import as_matmuls, on_cpu
from fedjax_lite.models.pooling import max_pool

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
    return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def both(case):
    """The image, the kernel, and this convolution and XLA's of them."""
    image, kernel, strides, padding, dilation = CASES[case]
    names = NHWC if len(image) == 4 else NWC
    keywords = dict(window_strides=strides, padding=padding, rhs_dilation=dilation, dimension_numbers=names)
    return *arrays(image, kernel), *(functools.partial(f, **keywords) for f in (matmul_conv, lax.conv_general_dilated))


def with_gradients(conv, x, w):
    """The value and both gradients, for a cotangent that differs everywhere."""
    z, back = jax.vjp(conv, x, w)
    return z, *back(jnp.cos(jnp.arange(z.size, dtype=jnp.float32)).reshape(z.shape).astype(z.dtype))


def agree(ours, theirs, tolerance=2e-5):
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * (1 + np.abs(b).max(initial=0)))


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradients_are_those_of_xla(case):
    x, w, ours, theirs = both(case)
    agree(jax.jit(functools.partial(with_gradients, ours))(x, w), with_gradients(theirs, x, w))


@pytest.mark.parametrize("case", ["all of it", "one by one, stride", "line, stride and dilation"])
def test_a_plain_loop_agrees(case):
    x, w, ours, _ = both(case)
    _, _, strides, padding, dilation = CASES[case]
    z = np.asarray(ours(x, w))
    x, w, dilation = np.asarray(x, np.float64), np.asarray(w, np.float64), dilation or (1,) * len(strides)
    if padding == "SAME":  # of a one by one kernel
        padding = ((0, 0),) * len(strides)
    for at in itertools.product(*map(range, z.shape[:-1])):
        total = np.zeros(w.shape[-1])
        for tap in itertools.product(*map(range, w.shape[:-2])):
            place = [o * s + t * d - low for o, s, t, d, (low, _) in zip(at[1:], strides, tap, dilation, padding)]
            if all(0 <= p < n for p, n in zip(place, x.shape[1:-1])):
                total += x[(at[0], *place)] @ w[tap]
        np.testing.assert_allclose(z[at], total, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", ["same", "all of it", "one by one", "chunks of examples", "line, stride and dilation"])
def test_lanes_with_their_own_kernels(case):
    x, w, ours, theirs = both(case)
    xs, ws = jnp.stack([x, x + 1, -x]), jnp.stack([w, 2 * w, w - 1])
    for axes in ((0, 0), (None, 0), (0, None)):
        operands = (xs if axes[0] == 0 else x, ws if axes[1] == 0 else w)
        many = jax.jit(jax.vmap(functools.partial(with_gradients, ours), axes))(*operands)
        for lane in range(3):
            one = [a[lane] if axis == 0 else a for a, axis in zip(operands, axes)]
            agree([a[lane] for a in many], with_gradients(theirs, *one))


def test_lanes_of_lanes():
    x, w, ours, theirs = both("same")
    xs, ws = jnp.stack([x, x + 1]), jnp.stack([w, 2 * w, w - 1])
    grid = jax.vmap(jax.vmap(ours, (None, 0)), (0, None))(xs, ws)
    agree([grid[1, 2]], [theirs(xs[1], ws[2])])
    assert grid.shape[:2] == (2, 3)


@pytest.mark.parametrize("case", ["valid", "all of it"])
def test_gradient_descent_inside_a_loop(case):
    x, w, ours, theirs = both(case)

    def descend(conv):
        def loss(w):
            return jnp.mean(conv(x, w) ** 2)

        return jax.jit(lambda w: lax.fori_loop(0, 5, lambda _, w: w - 0.05 * jax.grad(loss)(w), w))(w)

    agree([descend(ours)], [descend(theirs)])


def test_double_precision(x64):
    _, _, ours, theirs = both("all of it")
    x, w = arrays((2, 12, 9, 3), (3, 3, 3, 2), dtype=np.float64)
    z = ours(x, w)
    assert z.dtype == np.float64
    agree(with_gradients(ours, x, w), with_gradients(theirs, x, w), tolerance=1e-12)
    check_grads(ours, (x, w), order=2, modes=["fwd", "rev"], eps=1e-3)


def test_half_precision():
    x, w, ours, theirs = both("stride, same")
    x, w = x.astype(jnp.bfloat16), w.astype(jnp.bfloat16)
    agree(with_gradients(ours, x, w), with_gradients(theirs, x, w), tolerance=2e-2)
    wide = functools.partial(ours, preferred_element_type=jnp.float32)
    z, gradient, _ = with_gradients(wide, x, w)
    assert z.dtype == jnp.float32 and gradient.dtype == jnp.bfloat16
    lanes = jax.vmap(ours)(jnp.stack([x, x]), jnp.stack([w, 2 * w]))
    agree([lanes[1]], [theirs(x, 2 * w)], tolerance=2e-2)


def test_forward_mode_agrees():
    x, w, ours, theirs = both("all of it")
    tangents = tuple(arrays(x.shape, w.shape, seed=1))
    agree(jax.jvp(ours, (x, w), tangents), jax.jvp(theirs, (x, w), tangents))


def test_the_batched_matmuls_of_other_backends_agree():
    x, w, ours, _ = both("all of it")
    jaxpr = jax.make_jaxpr(ours)(x, w)
    (equation,) = [e for e in jaxpr.eqns if e.primitive.name == "matmul_convolution"]
    form = equation.params["form"]
    z = on_cpu(x[None], w[None], wanted="z", form=form, dtype=x.dtype)
    given = {"x": x[None], "w": w[None], "z": z}
    for wanted in "xwz":
        operands = [given[name] for name in "xwz" if name != wanted]
        elsewhere, here = (f(*operands, wanted=wanted, form=form, dtype=x.dtype) for f in (as_matmuls, on_cpu))
        agree([elsewhere], [here])


def test_other_dimension_numbers():
    x, w = arrays((2, 3, 8, 7), (4, 3, 3, 2))
    ours, theirs = (functools.partial(f, window_strides=(1, 2), padding="SAME") for f in (matmul_conv, lax.conv_general_dilated))
    agree(with_gradients(ours, x, w), with_gradients(theirs, x, w))  # NCHW, the default
    odd = dict(dimension_numbers=("HNCW", "OWHI", "WCHN"))
    x, w = arrays((8, 2, 3, 7), (4, 2, 3, 3))
    agree(with_gradients(functools.partial(ours, **odd), x, w), with_gradients(functools.partial(theirs, **odd), x, w))


@pytest.mark.parametrize("kernel, keywords", [((3, 3), {}), ((3,), dict(strides=2)), ((2, 3), dict(padding="CIRCULAR", kernel_dilation=2))])
def test_a_flax_layer_of_either_api(kernel, keywords):
    (x,) = arrays((2, *(9, 8)[: len(kernel)], 3))
    theirs, ours = (nn.Conv(4, kernel, conv_general_dilated=f, **keywords) for f in (None, matmul_conv))
    params = theirs.init(jax.random.key(0), x)
    gradients = [jax.grad(lambda p, layer=layer: jnp.sum(jnp.sin(layer.apply(p, x))))(params) for layer in (ours, theirs)]
    agree(*map(jax.tree.leaves, gradients))
    layer = nnx.Conv(3, 4, kernel, conv_general_dilated=matmul_conv, rngs=nnx.Rngs(0), **keywords)
    plain = nnx.Conv(3, 4, kernel, rngs=nnx.Rngs(0), **keywords)
    agree([layer(x)], [plain(x)])


def test_an_image_without_a_gradient_costs_none():
    x, w, ours, _ = both("same")
    jaxpr = jax.make_jaxpr(jax.grad(lambda w: jnp.sum(ours(x, w) ** 2)))(w)
    wanted = [e.params["wanted"] for e in jaxpr.eqns if e.primitive.name == "matmul_convolution"]
    assert sorted(wanted) == ["w", "z"]


def test_on_devices_each_with_its_clients():
    x, w, ours, theirs = both("same")
    mesh = jax.make_mesh((2,), ("clients",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("clients")

    def step(xs, w):
        w = jax.lax.pcast(w, "clients", to="varying")
        return jax.vmap(lambda x: jax.grad(lambda w: jnp.sum(ours(x, w) ** 2))(w))(xs)

    xs = jnp.stack([x, 2 * x, 3 * x, -x])
    gradients = jax.jit(jax.shard_map(step, mesh=mesh, in_specs=(spec, jax.sharding.PartitionSpec()), out_specs=spec))(xs, w)
    agree([gradients[2]], [jax.grad(lambda w: jnp.sum(theirs(xs[2], w) ** 2))(w)])


FALLBACKS = {
    "feature groups": ((2, 6, 6, 4), (3, 3, 2, 6), dict(feature_group_count=2, dimension_numbers=NHWC)),
    "dilation of the input": ((2, 6, 6, 2), (3, 3, 2, 6), dict(lhs_dilation=(2, 2), dimension_numbers=NHWC)),
    "batch groups": ((4, 6, 6, 2), (3, 3, 2, 6), dict(batch_group_count=2, dimension_numbers=NHWC)),
    "3 spatial dimensions": ((1, 2, 4, 4, 4), (3, 2, 3, 3, 3), {}),
}


@pytest.mark.parametrize("reason", FALLBACKS)
def test_what_is_not_covered_is_xla_and_says_so_once(reason):
    image, kernel, keywords = FALLBACKS[reason]
    x, w = arrays(image, kernel)
    strides, padding = (1,) * (len(image) - 2), ((1, 1),) * (len(image) - 2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            z = matmul_conv(x, w, strides, padding, **keywords)
    assert len(caught) == 1 and reason in str(caught[0].message)
    agree([z], [lax.conv_general_dilated(x, w, strides, padding, **keywords)])


def test_what_xla_refuses_is_refused_in_its_words():
    x, w = arrays((2, 6, 6, 3), (3, 3, 2, 4))
    with pytest.raises(ValueError, match="feature_group_count"):
        matmul_conv(x, w, (1, 1), "SAME", dimension_numbers=NHWC)


POOLS = [  # image, window, strides, padding
    ((2, 6, 8, 3), (2, 2), (2, 2), "VALID"),
    ((2, 7, 8, 3), (2, 3), (2, 3), "SAME"),
    ((2, 7, 9, 3), (3, 3), (2, 2), "VALID"),
    ((2, 7, 5, 1), (3, 2), None, "SAME"),
    ((2, 9, 4), (2,), (2,), ((1, 2),)),
    ((2, 3, 3, 1), (4, 4), (4, 4), "VALID"),
]


@pytest.mark.parametrize("image, window, strides, padding", POOLS)
@pytest.mark.parametrize("ties", [False, True])
def test_pooling_is_that_of_flax(image, window, strides, padding, ties):
    (x,) = arrays(image)
    x = jnp.round(x) if ties else x

    def ours(x):
        return max_pool(x, window, strides, padding)

    def theirs(x):
        return nn.max_pool(x, window, strides, padding)

    (z, back), (expected, expected_back) = jax.vjp(ours, x), jax.vjp(theirs, x)
    np.testing.assert_array_equal(z, expected)
    if z.size:
        (cotangent,) = arrays(z.shape, seed=1)
        agree(back(cotangent), expected_back(cotangent), tolerance=1e-6)
    lanes = jnp.stack([x, -x])
    np.testing.assert_array_equal(jax.vmap(ours)(lanes)[1], theirs(-x))


def test_pooling_keeps_what_is_not_a_number():
    x = jnp.array([1.0, jnp.nan, 2.0, 3.0]).reshape(1, 4, 1)
    for strides in (2, 1):
        z = max_pool(x, (2,), (strides,))
        assert jnp.isnan(z[0, 0, 0]) and z[0, -1, 0] == 3


def test_pooling_refuses():
    with pytest.raises(ValueError, match="window"):
        max_pool(jnp.zeros((1, 4, 4, 1)), (2,))
    with pytest.raises(ValueError, match="floating point"):
        max_pool(jnp.zeros((1, 4, 4, 1), jnp.int32), (2, 2))
