"""Convolution: a plain loop in NumPy is the oracle for the value, all derivatives, and lanes with kernels of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from convolutions import CASES, Plain, agree, arrays, cotangent, of_case, operands, with_gradients
from jax import lax

from fedjax_lite.models import convolution_forms
from fedjax_lite.models.convolution import matmul_conv

ORDINARY = (  # each takes another way, or meets another edge
    "same lower, even kernel",
    "dilation",
    "all of it",
    "one by one, stride",
    "chunks of examples",
    "kernel beyond the image",
    "nothing comes out",
    "no examples",
    "line, stride and dilation",
)


@pytest.mark.parametrize("case", [pytest.param(case, marks=() if case in ORDINARY else pytest.mark.deep) for case in CASES])
def test_value_and_gradients_are_those_of_a_plain_loop(case):
    x, w = operands(case)
    found = jax.jit(lambda x, w: with_gradients(of_case(case, matmul_conv), x, w))(x, w)
    agree(found, Plain(case).with_gradients(x, w), dtype=np.float32)


@pytest.mark.parametrize(
    "case", ["all of it", *(pytest.param(case, marks=pytest.mark.deep) for case in ("same", "one by one", "chunks of examples", "line"))]
)
def test_lanes_with_their_own_kernels_and_lanes_of_lanes(case):
    x, w = operands(case)
    xs, ws = np.stack([x, x + 1, -x]), np.stack([w, 2 * w, w - 1])
    conv = of_case(case, matmul_conv)

    def lanes(in_axes):
        return jax.vmap(lambda x, w: with_gradients(conv, x, w), in_axes)

    @jax.jit
    def run(xs, ws):
        grid = jax.vmap(jax.vmap(conv, (None, 0)), (0, None))(xs[:2], ws)
        return lanes((0, 0))(xs, ws), lanes((None, 0))(xs[0], ws), lanes((0, None))(xs, ws[0]), grid

    *found, grid = run(xs, ws)
    for many, at in zip(found, ((1, 1), (0, 1), (1, 0)), strict=True):
        for lane in range(3):
            agree([a[lane] for a in many], Plain(case).with_gradients(xs[at[0] * lane], ws[at[1] * lane]))
    assert grid.shape[:2] == (2, 3)
    agree([grid[1, 2]], [Plain(case).value(xs[1], ws[2])])


@pytest.mark.parametrize("case", ["valid", pytest.param("all of it", marks=pytest.mark.deep)])
def test_gradient_descent_inside_a_loop(case):
    (x, w), conv, plain = operands(case), of_case(case, matmul_conv), Plain(case)

    @jax.jit
    def descended(x, w):
        return lax.fori_loop(0, 5, lambda _, w: w - 0.05 * jax.grad(lambda w: jnp.mean(conv(x, w) ** 2))(w), w)

    expected = w.astype(np.float64)
    for _ in range(5):
        z = plain.value(x, expected)
        expected = expected - 0.05 * plain.kernel(x, 2 * z / z.size)
    agree([descended(x, w)], [expected])


def test_derivatives_of_derivatives_in_double_precision(x64):
    """z, x and w are each linear in the other two: so are all derivatives, forward, backward, and one after the other."""
    case = "all of it"
    plain, conv = Plain(case), of_case(case, matmul_conv)
    x, w = operands(case, dtype=np.float64)
    dx, dw = operands(case, dtype=np.float64, seed=1)
    c = cotangent(plain.value(x, w).shape)

    @jax.jit
    def run(x, w, dx, dw, c):
        def back(x, w, c):
            return jax.vjp(conv, x, w)[1](c)

        forward = jax.jvp(conv, (x, w), (dx, dw))
        return *forward, *jax.jvp(lambda x, w: back(x, w, c), (x, w), (dx, dw))[1], *jax.vjp(back, x, w, c)[1]((dx, dw))

    expected = [
        plain.value(x, w),
        plain.value(dx, w) + plain.value(x, dw),
        plain.image(dw, c),
        plain.kernel(dx, c),
        plain.image(dw, c),
        plain.kernel(dx, c),
        plain.value(dx, w) + plain.value(x, dw),
    ]
    agree(run(x, w, dx, dw, c), expected, tolerance=1e-12, dtype=np.float64)


@pytest.mark.parametrize("case", ["all of it", pytest.param("one by one, stride", marks=pytest.mark.deep)])
def test_the_batched_matmuls_of_other_backends_agree(case):
    (x, w), plain = operands(case), Plain(case)
    jaxpr = jax.make_jaxpr(of_case(case, matmul_conv))(x, w)
    (equation,) = [e for e in jaxpr.eqns if e.primitive.name == "matmul_convolution"]
    form, c = equation.params["form"], cotangent(plain.value(x, w).shape).astype(np.float32)

    @jax.jit
    def run(**given):
        pairs = [[given[name][None] for name in "xwz" if name != wanted] for wanted in "zxw"]
        return [convolution_forms.as_matmuls(*pair, wanted=name, form=form, dtype=x.dtype)[0] for pair, name in zip(pairs, "zxw")]

    agree(run(x=x, w=w, z=c), [plain.value(x, w), plain.image(w, c), plain.kernel(x, c)], dtype=np.float32)


@pytest.mark.parametrize("case", [pytest.param(case, marks=() if case == "all of it" else pytest.mark.deep) for case in CASES])
def test_large_kernels_are_products_of_patches(monkeypatch, case):
    """With a cache of one byte the patches of a chunk are as large as the kernel, and more than the cache."""
    monkeypatch.setattr(convolution_forms, "_LARGE", 0)
    monkeypatch.setattr(convolution_forms, "_CACHE", 1)
    x, w = operands(case)
    found = jax.jit(lambda x, w: with_gradients(of_case(case, matmul_conv), x, w))(x, w)
    agree(found, Plain(case).with_gradients(x, w), dtype=np.float32)


def test_the_kernel_of_a_large_image_one_by_one_agrees(monkeypatch):
    monkeypatch.setattr(convolution_forms, "_CACHE", 1)
    (x, w), conv = operands("one by one"), of_case("one by one", matmul_conv)
    found = jax.jit(lambda x, w: with_gradients(conv, x, w))(x, w)
    agree(found, Plain("one by one").with_gradients(x, w), dtype=np.float32)


def test_an_image_without_a_gradient_costs_none():
    x, w = operands("same")
    jaxpr = jax.make_jaxpr(jax.grad(lambda w: jnp.sum(of_case("same", matmul_conv)(x, w) ** 2)))(w)
    wanted = [e.params["wanted"] for e in jaxpr.eqns if e.primitive.name == "matmul_convolution"]
    assert sorted(wanted) == ["w", "z"]


def test_on_devices_each_with_its_clients():
    (x, w), conv, plain = operands("same"), of_case("same", matmul_conv), Plain("same")
    mesh = jax.make_mesh((2,), ("clients",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("clients")

    def step(xs, w):
        w = jax.lax.pcast(w, "clients", to="varying")
        return jax.vmap(lambda x: jax.grad(lambda w: jnp.sum(conv(x, w) ** 2))(w))(xs)

    xs = np.stack([x, 2 * x, 3 * x, -x])
    gradients = jax.jit(jax.shard_map(step, mesh=mesh, in_specs=(spec, jax.sharding.PartitionSpec()), out_specs=spec))(xs, w)
    agree([gradients[2]], [plain.kernel(xs[2], 2 * plain.value(xs[2], w))])


def test_what_xla_refuses_is_refused_in_its_words():
    x, w = arrays((2, 6, 6, 3), (3, 3, 2, 4))
    with pytest.raises(ValueError, match="feature_group_count"):
        matmul_conv(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
