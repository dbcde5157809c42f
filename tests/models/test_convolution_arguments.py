"""Convolution with the arguments of XLA's: dimension numbers, dtypes, flax's layers, and what is handed on to XLA."""

import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from convolutions import CASES, NHWC, Plain, agree, arrays, of_case, operands, with_gradients
from flax import nnx
from jax import lax

from fedjax_lite.models.convolution import matmul_conv


@pytest.mark.deep
@pytest.mark.parametrize("case", CASES)
def test_value_and_gradients_are_those_of_xla(case):
    ours, theirs = jax.jit(lambda x, w: [with_gradients(of_case(case, conv), x, w) for conv in (matmul_conv, lax.conv_general_dilated)])(
        *operands(case)
    )
    agree(ours, theirs, dtype=np.float32)


@pytest.mark.parametrize(
    "numbers, image, kernel", [(None, (2, 3, 8, 7), (4, 3, 3, 2)), (("HNCW", "OWHI", "WCHN"), (8, 2, 3, 7), (4, 2, 3, 3))]
)
def test_other_dimension_numbers(numbers, image, kernel):
    """NCHW, the default, and odd ones."""

    @jax.jit
    def run(x, w):
        return [
            with_gradients(lambda x, w, conv=conv: conv(x, w, (1, 2), "SAME", dimension_numbers=numbers), x, w)
            for conv in (matmul_conv, lax.conv_general_dilated)
        ]

    agree(*run(*arrays(image, kernel)), dtype=np.float32)


def test_half_precision():
    case = "stride, same"
    conv, plain = of_case(case, matmul_conv), Plain(case)
    x, w = (jnp.asarray(a, jnp.bfloat16) for a in operands(case))

    @jax.jit
    def run(x, w):
        wide = with_gradients(lambda x, w: conv(x, w, preferred_element_type=jnp.float32), x, w)
        return with_gradients(conv, x, w), wide, jax.vmap(conv)(jnp.stack([x, x]), jnp.stack([w, 2 * w]))

    narrow, wide, lanes = run(x, w)
    expected = plain.with_gradients(x, w)
    agree(narrow, expected, tolerance=2e-2, dtype=jnp.bfloat16)
    agree(wide[:1], expected[:1], dtype=np.float32)
    agree(wide[1:], expected[1:], tolerance=2e-2, dtype=jnp.bfloat16)
    agree([lanes[1]], [2 * expected[0]], tolerance=2e-2, dtype=jnp.bfloat16)


LAYERS = [((2, 3), dict(padding="CIRCULAR", kernel_dilation=2)), ((3, 3), {}), ((3,), dict(strides=2))]


@pytest.mark.parametrize("kernel, keywords", [LAYERS[0], *(pytest.param(*layer, marks=pytest.mark.deep) for layer in LAYERS[1:])])
def test_a_flax_layer_of_either_api(kernel, keywords):
    x, weights, bias = arrays((2, *(9, 8)[: len(kernel)], 3), (*kernel, 3, 4), (4,))

    @jax.jit
    def run(x, params):
        def gradients(conv):
            layer = nn.Conv(4, kernel, conv_general_dilated=conv, **keywords)
            return jax.tree.leaves(jax.grad(lambda p: jnp.sum(jnp.sin(layer.apply(p, x))))(params))

        def output(**more):
            return nnx.Conv(3, 4, kernel, rngs=nnx.Rngs(0), **keywords, **more)(x)

        return [*gradients(matmul_conv), output(conv_general_dilated=matmul_conv)], [*gradients(None), output()]

    agree(*run(x, {"params": {"kernel": weights, "bias": bias}}), dtype=np.float32)


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
    agree([z], [lax.conv_general_dilated(x, w, strides, padding, **keywords)], dtype=np.float32)
