"""Rotations, and the compressors that rotate, against SciPy and their papers' errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from compressed import bits, lognormal, many, message, vnmse

from fedjax_lite import uplink
from fedjax_lite.uplink.drive import CENTROIDS
from fedjax_lite.uplink.rotation import hadamard, rotated, rotated_back


@pytest.mark.parametrize("n", [1, 8, 128, 8192, *(pytest.param(n, marks=pytest.mark.deep) for n in (2, 64, 1024))])
def test_hadamard_is_scipys(n):
    x, side = np.random.default_rng(0).integers(-9, 10, (2, n)).astype(np.float32), min(n, 64)
    left, right = scipy.linalg.hadamard(side), scipy.linalg.hadamard(n // side)  # whose Kronecker product is that of n
    np.testing.assert_array_equal(jax.jit(hadamard)(x), (left @ x.reshape(2, side, -1) @ right).reshape(2, n))


@pytest.mark.parametrize("shape, rows", [((), (1, 1)), ((3,), (1, 4)), ((8, 8), (1, 64)), ((5, 20), (1, 128)), ((300,), (3, 128))])
def test_rotation_keeps_the_norm_and_turns_back(shape, rows, x64):
    x = np.random.default_rng(0).normal(size=shape)

    @jax.jit
    @jax.vmap
    def turned(seed):
        key, u = jax.random.key(seed), jnp.asarray(x)
        y = rotated(key, u, 128)
        return y, rotated_back(key, y, u)

    y, back = turned(np.arange(6))
    assert y.shape[1:] == rows
    np.testing.assert_allclose((np.asarray(y) ** 2).sum((1, 2)), (x**2).sum(), rtol=1e-12)
    np.testing.assert_allclose(back, np.broadcast_to(x, back.shape), rtol=1e-12, atol=1e-14)
    assert x.size == 1 or not all(np.allclose(other, y[0]) for other in y[1:])


def test_signs_of_a_rotation_are_fair_and_independent():
    """Turned back without the transform's own part: H(H D x) = n D x."""
    turned_twice = jax.jit(lambda key: hadamard(rotated(key, jnp.ones(2**16), 4096)) / 64)(jax.random.key(0))
    signs = np.asarray(turned_twice).round().reshape(-1, 32)
    assert set(np.unique(signs)) == {-1, 1}
    z = signs.sum(axis=0) / np.sqrt(2048)
    assert scipy.stats.chi2.sf((z**2).sum(), 32) > 1e-3
    assert np.abs(signs.T @ signs / 2048 - np.eye(32)).max() < 4.5 / np.sqrt(2048)


def test_rotation_spreads_one_coordinate_and_so_quantises_it_well():
    u = np.zeros(256, np.float32)
    u[7] = 1
    assert np.unique(np.abs(jax.jit(lambda u: rotated(jax.random.key(0), u, 256))(u))) == 1 / 16
    u = u + 0.01 * np.random.default_rng(0).normal(size=256).astype(np.float32)
    plain, turned = (vnmse(many(c, u, 200), u) for c in (uplink.uniform(2), uplink.rotate(uplink.uniform(2))))
    assert turned < plain / 2
    assert bits(uplink.rotate(uplink.uniform(4)), message()) == (2 * (8 + 32), 2 * 64)  # 5 and 24 coordinates, padded


ERRORS = {
    "drive": (uplink.drive(), np.pi / 2 - 1),
    "drive biased": (uplink.drive(unbiased=False), 1 - 2 / np.pi),
    "eden 2": (uplink.eden(2), 0.13312),
    "eden 1": (uplink.eden(1), 0.57080),
    "eden 3": (uplink.eden(3), 0.03578),
    "eden 4": (uplink.eden(4), 0.00959),
}


@pytest.mark.parametrize("name", [*list(ERRORS)[:3], *(pytest.param(name, marks=pytest.mark.deep) for name in list(ERRORS)[3:])])
def test_drive_and_eden_have_the_papers_error(name):
    compressor, expected = ERRORS[name]
    u = lognormal()
    drawn = many(compressor, u, 400)
    np.testing.assert_allclose(vnmse(drawn, u), expected, rtol=0.02)
    if name != "drive biased":
        np.testing.assert_allclose(vnmse(drawn.mean(0)[None], u), expected / 400, rtol=0.1)  # nothing is left but the variance


def test_centroids_are_lloyds():
    for number, positive in CENTROIDS.items():
        centroids = np.sort(np.r_[positive, -np.asarray(positive)])
        edges = np.r_[-np.inf, (centroids[1:] + centroids[:-1]) / 2, np.inf]
        mass = np.diff(scipy.stats.norm.cdf(edges))
        np.testing.assert_allclose(-np.diff(scipy.stats.norm.pdf(edges)) / mass, centroids, atol=2e-6)
        assert len(centroids) == 2**number


@pytest.mark.deep
def test_drive_is_one_bit_eden_and_bits_are_those_of_rows():
    u = lognormal(1000)
    one, other = (many(compressor, u, 100) for compressor in (uplink.drive(), uplink.eden(1)))
    np.testing.assert_allclose(vnmse(one, u), vnmse(other, u), rtol=0.03)  # different streams: the errors agree, not the draws
    assert bits(uplink.drive(), message()) == (8 + 32, 2 * 32)
    assert bits(uplink.eden(3, block=16), message()) == (3 * (8 + 2 * 16), 3 * 32)
