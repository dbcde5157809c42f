"""DRIVE and EDEN: a random rotation makes coordinates normal, and a quantiser made for the normal distribution follows."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from fedjax_lite.uplink.compressor import SCALE, compressor
from fedjax_lite.uplink.rotation import BLOCK, check_block, rotated, rotated_back
from fedjax_lite.uplink.sign import signs

# The positive Lloyd-Max centroids of N(0, 1) for 1 to 4 bits (Max 1960, table I; to seven digits by Lloyd's iteration)
CENTROIDS = {
    1: (0.7978846,),
    2: (0.4527800, 1.5104176),
    3: (0.2450942, 0.7560053, 1.3439093, 2.1519457),
    4: (0.1283950, 0.3880483, 0.6567591, 0.9423404, 1.2562312, 1.6180464, 2.0690172, 2.7325896),
}


def drive(unbiased: bool = True, block: int = BLOCK) -> optax.GradientTransformationExtraArgs:
    r"""The signs of the rotated message, and one scale.

    C(u) = S R^-1 sign(R u), R a randomised Hadamard rotation, S = ||R u||_2^2 / ||R u||_1 (unbiased) or ||R u||_1 / n (least error).
    Of a row of many coordinates, none of which has most of the norm, E||C(u) - u||^2 / ||u||^2 is about pi/2 - 1 = 0.571, or
    1 - 2/pi = 0.363, and the bias is small: 0.015 of the norm for 64 coordinates. Both are exact for uniform rotations. One Hadamard
    rotation of few coordinates, or of a few large ones, is far from uniform: (1, 2, 0, ... 0) becomes (0, 2.5, 0, ... 0) under every
    key, the error of (1, 1, 1, 1, 0, ... 0) is 1.63, and dense rows of 4, 10 and 16 coordinates have a bias of 0.4, 0.12 and 0.05.

    Rows of up to `block` coordinates are rotated, and scaled, apart: see `rotate` for the padding, whose bits count. Bits: 1 a
    coordinate, and one scale a row.

    Args:
        unbiased: the choice of scale S. False has the smaller error for one message, as `error_feedback` needs; the mean over many
            clients needs True.
        block: the most coordinates that are rotated together, a power of two.

    Returns:
        An optax transformation of one message, leaf by leaf.

    Raises:
        ValueError: for a block that is no power of two.

    >>> transform, u = drive(), jnp.array([0.0, 3.0, 0.0, 0.0])
    >>> decoded, bits = transform.update(u, transform.init(u), key=jax.random.key(0))
    >>> (decoded == u).tolist(), bits.payload.item(), bits.side.item()
    ([True, True, True, True], 4.0, 32.0)

    Source: Vargaftik et al. 2021, "DRIVE: one-bit distributed mean estimation", algorithm 1, theorems 2 and 4.
    """
    check_block("drive", block)

    def quantise(y):
        total = jnp.sum(jnp.abs(y), axis=1, keepdims=True)
        scale = _ratio(jnp.sum(y**2, axis=1, keepdims=True), total) if unbiased else total / y.shape[1]
        return scale * signs(y)

    return _in_rotation("drive", quantise, 1, block, lengthens=unbiased)


def eden(bits: int = 1, block: int = BLOCK) -> optax.GradientTransformationExtraArgs:
    r"""The rotated message in the best few levels for a normal distribution, and one scale under which its mean is right.

    q = Q(sqrt(n) R u / ||u||), Q to the nearest Lloyd-Max centroid of N(0, 1); C(u) = S R^-1 q, S = ||u||^2 / <q, R u>.
    E||C(u) - u||^2 / ||u||^2 is about 0.571, 0.133, 0.0358, 0.00959 for 1 to 4 bits. `eden(1)` is `drive()`. As in `drive`, these
    errors and the right mean hold for rows of many coordinates, none of which has most of the norm.

    Rows, padding and bits as in `drive`, with `bits` for each coordinate.

    Args:
        bits: 1 to 4 a coordinate.
        block: the most coordinates that are rotated together, a power of two.

    Returns:
        An optax transformation of one message, leaf by leaf.

    Raises:
        ValueError: for other bits, or a block that is no power of two.

    >>> transform, u = eden(bits=2), jnp.arange(4.0)
    >>> decoded, bits = transform.update(u, transform.init(u), key=jax.random.key(0))
    >>> bits.payload.item(), bits.side.item()
    (8.0, 32.0)

    Source: Vargaftik et al. 2022, "EDEN: communication-efficient and robust distributed mean estimation for federated learning",
    algorithm 1, theorems 2.1 and 2.3.
    """
    if isinstance(bits, bool) or bits not in CENTROIDS:
        raise ValueError(f"eden: bits must be a whole number from 1 to {max(CENTROIDS)}, got {bits!r}")
    check_block("eden", block)
    centroids = CENTROIDS[bits]

    def quantise(y):
        square = jnp.sum(y**2, axis=1, keepdims=True)
        magnitude = jnp.abs(y) * _ratio(jnp.sqrt(jnp.full_like(square, y.shape[1])), jnp.sqrt(square))
        q = jnp.full_like(y, centroids[0])
        for lower, upper in zip(centroids, centroids[1:], strict=False):  # boundaries lie midway between centroids
            q += jnp.where(magnitude > (lower + upper) / 2, upper - lower, 0)
        q *= signs(y)
        return _ratio(square, jnp.sum(q * y, axis=1, keepdims=True)) * q

    return _in_rotation("eden", quantise, bits, block)


def _in_rotation(
    name: str, quantise: Callable[[Float[Array, "rows n"]], Float[Array, "rows n"]], bits: int, block: int, lengthens: bool = False
) -> optax.GradientTransformationExtraArgs:
    """Make a compressor that rotates each leaf to `[rows, n]`, quantises the rows and rotates back; `bits` a coordinate."""

    def encode(message, draw):
        leaves, structure = jax.tree.flatten(message)
        turned = [rotated(draw(i), x, block) for i, x in enumerate(leaves)]
        back = [rotated_back(draw(i), quantise(y), x) for i, (x, y) in enumerate(zip(leaves, turned, strict=True))]
        return jax.tree.unflatten(structure, back), [bits * y.size for y in turned], [SCALE * y.shape[0] for y in turned]

    return compressor(name, encode, lengthens=lengthens)


def _ratio(x: Array, y: Array) -> Array:
    """Return x / y, or 0 where `y` is 0: in a row of zeros."""
    return jnp.where(y > 0, x / jnp.where(y > 0, y, 1), 0)
