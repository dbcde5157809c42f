"""Distributed differential privacy: granularity, bits, blocks and padding; the smallest messages, half precision; what is refused."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distributed_sums import CLIENTS, DIMENSION, assert_same_bits, flat, once, stack

from fedjax_lite.aggregators.distributed import ddgauss, skellam
from fedjax_lite.aggregators.flat import padded_size
from fedjax_lite.aggregators.granularity import least_granularity
from fedjax_lite.privacy.discrete import ddgauss_divergence, skellam_divergence


@pytest.mark.parametrize("kind", [ddgauss, skellam])
def test_an_aggregators_divergence_is_the_functions_with_room_for_float32(kind):
    oracle = {ddgauss: ddgauss_divergence, skellam: skellam_divergence}[kind]
    found = kind(2.0, 0.7, 50, 4096, granularity=0.01).privacy
    assert found.noise_multiplier == 0.7
    assert found.divergence(8) == pytest.approx(oracle(8, 2.0, 0.7, 50, 0.01, 4096), rel=5e-5)
    assert found.divergence(8) > oracle(8, 2.0, 0.7, 50, 0.01, 4096)
    assert kind(2.0, 0.0, 50, 4096).privacy.divergence(2) == math.inf


def test_the_granularity_solves_the_papers_equation():
    for bits, n, d, z in ((16, 100, 4096, 1.0), (10, 7, 16, 0.0)):
        gamma = float(least_granularity("ddgauss", 3.0, z, n, d, bits))
        assert 2**bits == pytest.approx(2 * 4 * math.sqrt((3 * n) ** 2 / d + (gamma**2 / 4 + (z * 3) ** 2 / n) * n) / gamma)


@pytest.mark.parametrize("n, d, z", [(1, 4096, 1.0), (1, 10**7, 1e4), (3, 7, 0.3), (100, 64, 10.0)])
def test_the_default_granularity_leaves_noise_that_can_be_drawn(n, d, z):
    """Never more than 2^27 steps a client; where that is what limits it, no less than half of it."""
    ddgauss(2.0, z, n, d, bits=32)
    steps = z * 2.0 / (least_granularity("ddgauss", 2.0, z, n, d, 32) * math.sqrt(n))
    assert steps <= 2**27
    assert n > 1 or steps > 2**26


def test_the_default_granularity_of_a_traced_noise_multiplier():
    traced = jax.jit(jax.vmap(lambda z: least_granularity("skellam", 1.0, z, CLIENTS, DIMENSION, 16)))(
        np.array([0.0, 0.5, 2.0], np.float32)
    )
    np.testing.assert_allclose(traced, [least_granularity("skellam", 1.0, z, CLIENTS, DIMENSION, 16) for z in (0.0, 0.5, 2.0)], rtol=1e-5)


def test_padding_is_of_the_message_as_a_whole():
    for size, block, expected in ((1, 4096, 1), (9, 4096, 16), (4096, 4096, 4096), (4097, 4096, 8192), (23, 4, 24)):
        assert padded_size([np.zeros(()), np.zeros(size - 1)], block) == expected
    assert padded_size({"a": np.zeros(64), "b": np.zeros((32, 30)), "c": np.zeros(5)}, block=64) == 17 * 64


@pytest.mark.deep
def test_a_message_that_sits_in_one_leaf_is_spread_over_all_blocks():
    """It would leave the range in each of its coordinates, were leaves rotated alone: by n C / sqrt(64), of which n C / 4 is room."""
    message = {"a": np.random.default_rng(0).choice([-1.0, 1.0], (1, 64)), "b": np.zeros((1, 32, 30)), "c": np.zeros((1, 5))}
    messages = jax.tree.map(lambda x: np.repeat(np.asarray(x / 8, np.float32), 30, axis=0), message)
    dimension = padded_size(jax.tree.map(lambda x: x[0], messages), block=64)
    assert dimension == 17 * 64
    mean, metrics = jax.jit(lambda messages: once(ddgauss(1.0, 0.0, 30, dimension, block=64), messages))(messages)
    assert metrics["wrapped"] == 0
    np.testing.assert_allclose(flat(mean), flat(message) / 8, atol=1e-3)


@pytest.mark.parametrize("kind", [ddgauss, pytest.param(skellam, marks=pytest.mark.deep)])
def test_one_client_of_one_number(kind):
    program = jax.jit(lambda clip: once(kind(clip, 0.0, 1, 1), jnp.array([-0.3])))
    mean, metrics = program(1.0)
    assert mean.shape == () and float(mean) == pytest.approx(-0.3, abs=1e-3)
    assert metrics["clipped"] == 0 and metrics["clip_norm"] == 1
    assert program(0.1)[1]["clipped"] == 1


@pytest.mark.deep
def test_noise_and_messages_of_32_bits():
    """Of one client: the room for 4 standard deviations is then more than what a number may be before noise, and noise can be."""
    message = np.full((1, 4096), 1 / 64, np.float32)
    program = jax.jit(lambda z: once(ddgauss(1.0, z, 1, 4096, bits=32), message))
    for z, atol in ((0.0, 1e-7), (1.0, 6.0)):
        mean, metrics = program(z)
        np.testing.assert_allclose(mean, message[0], atol=atol)
        assert np.std(mean) == pytest.approx(z, abs=0.05) and metrics["wrapped"] == 0


def test_half_precision_is_summed_in_single():
    half = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float16), stack())
    mean, _ = jax.eval_shape(lambda messages: once(skellam(1.0, 0.5, CLIENTS, DIMENSION, block=8), messages), half)
    assert {x.dtype for x in jax.tree.leaves(mean)} == {jnp.dtype("float32")}


@pytest.mark.deep
def test_half_precision_gives_what_the_same_numbers_in_single_do():
    half = jax.tree.map(lambda x: x.astype(np.float16), stack())
    program = jax.jit(lambda messages: once(skellam(1.0, 0.5, CLIENTS, DIMENSION, block=8), messages))
    assert_same_bits(program(half), program(jax.tree.map(lambda x: x.astype(np.float32), half)))


def test_what_is_refused():
    for wrong, said in (
        ({"clip": 0.0}, "clip must be positive"),
        ({"noise_multiplier": -1.0}, "noise_multiplier must be finite and not negative"),
        ({"clients_per_round": 0}, "clients_per_round must be a whole number"),
        ({"bits": 33}, "bits must be from 2 to 32, got 33"),
        ({"bits": True}, "bits must be a whole number of at least 0, got True"),
        ({"bits": 3, "clients_per_round": 10}, "does not fit in bits=3: take more bits"),
        ({"granularity": 0.0}, "granularity must be positive"),
        ({"granularity": 1e-9}, r"granularity=1e-09 is too fine for .* at least 3.33e-09, or leave it out, and bits=16 decide"),
        (
            {"granularity": 1e-10, "noise_multiplier": 0.0},
            r"granularity=1e-10 is too fine for sums .* 32 bits, .* at least 2.33e-09, or leave",
        ),
        ({"granularity": 2.0**-29, "clients_per_round": 8, "dimension": 1, "noise_multiplier": 0.0, "bits": 31}, "at least 1.49e-08"),
        ({"block": 12}, "block must be a power of two"),
        ({"block": True}, "block must be a whole number of at least 1, got True"),
    ):
        with pytest.raises(ValueError, match=f"skellam: .*{said}"):
            skellam(**{"clip": 1.0, "noise_multiplier": 1.0, "clients_per_round": 5, "dimension": DIMENSION} | wrong)
    with pytest.raises(ValueError, match="ddgauss: dimension=9, but messages have 16 .*: take dimension=16"):
        jax.eval_shape(lambda messages: once(ddgauss(1.0, 1.0, 5, 9, block=8), messages), stack())
    with pytest.raises(ValueError, match="padded_size: block must be a whole number of at least 1, got True"):
        padded_size(jnp.zeros(3), True)
