"""Quantised messages: each coordinate becomes one of a few levels."""

import math

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from fedjax_lite.base import Number, Tree
from fedjax_lite.refuse import is_number, whole
from fedjax_lite.tree import wide
from fedjax_lite.uplink.compressor import SCALE, Draw, compressor


def uniform(levels: Number) -> optax.GradientTransformationExtraArgs:
    r"""Stochastic rounding to evenly spaced levels between the smallest and the largest value of each leaf.

    Delta = (max - min) / (L - 1);  C(u)_i = min + Delta floor((u_i - min) / Delta + U_i), U_i uniform in [0, 1).
    E C(u) = u, |C(u)_i - u_i| <= Delta. Bits: d log2 L, and minimum and maximum of each leaf.

    Args:
        levels: L, at least 2; may be traced.

    Returns:
        An optax transformation of one message, leaf by leaf.

    Raises:
        ValueError: for a number that is not whole or below 2.

    >>> transform, u = uniform(3), jnp.array([0.0, 0.5, 1.0])
    >>> decoded, bits = transform.update(u, transform.init(u), key=jax.random.key(0))
    >>> decoded.tolist(), bits.side.item()
    ([0.0, 0.5, 1.0], 64.0)

    Source: Suresh et al. 2017, "Distributed mean estimation with limited communication", section 2.2 (k-level, s = max - min).
    """
    whole("uniform", "levels", levels, least=2)

    def leaf(x, key):
        low, high = jnp.min(x), jnp.max(x)
        step = (high - low) / (levels - 1)
        place = jnp.where(step > 0, (x - low) / jnp.where(step > 0, step, 1), 0)
        place = jnp.clip(jnp.floor(place + _noise(key, x)), 0, levels - 1)
        return jnp.minimum(low + place * step, high)

    def encode(message, draw):
        leaves = jax.tree.leaves(message)
        return _each(leaf, message, draw), [x.size * _log2(levels) for x in leaves], [2 * SCALE for _ in leaves]

    return compressor("uniform", encode)


def qsgd(levels: Number) -> optax.GradientTransformationExtraArgs:
    r"""Sign, norm, and a stochastically rounded magnitude.

    C(u)_i = ||u|| sign(u_i) xi_i, with xi_i = l/s or (l+1)/s, l = floor(s |u_i| / ||u||), and E xi_i = |u_i| / ||u||; the norm is the
    whole message's. E C(u) = u, E||C(u) - u||^2 <= min(d/s^2, sqrt(d)/s) ||u||^2. Bits: d (1 + log2(s+1)), and the norm.

    In federated averaging this is FedPAQ (Reisizadeh et al. 2020), whose period is the number of local steps.

    Args:
        levels: s, at least 1; may be traced.

    Returns:
        An optax transformation of one message.

    Raises:
        ValueError: for a number that is not whole or below 1.

    >>> transform, u = qsgd(1), jnp.array([0.0, -2.0])
    >>> decoded, bits = transform.update(u, transform.init(u), key=jax.random.key(0))
    >>> decoded.tolist(), bits.payload.item(), bits.side.item()
    ([0.0, -2.0], 4.0, 32.0)

    Source: Alistarh et al. 2017, "QSGD: communication-efficient SGD via gradient quantization and encoding", section 3.1, lemma 3.1.
    """
    whole("qsgd", "levels", levels, least=1)

    def encode(message, draw):
        norm = optax.tree.norm(jax.tree.map(wide, message))
        safe = jnp.where(norm > 0, norm, 1)

        def leaf(x, key):
            place = jnp.floor(jnp.abs(x) / safe.astype(x.dtype) * levels + _noise(key, x))
            return jnp.sign(x) * safe.astype(x.dtype) * (place / levels)

        return _each(leaf, message, draw), [x.size * (1 + _log2(levels + 1)) for x in jax.tree.leaves(message)], SCALE

    return compressor("qsgd", encode)


def terngrad(clip: Number = 2.5) -> optax.GradientTransformationExtraArgs:
    r"""Three values a leaf: 0 and plus or minus its largest magnitude, after clipping.

    g_i = clip(u_i, -c sigma, c sigma), sigma the standard deviation of the leaf; s = max |g|; C(u)_i = s sign(g_i) b_i with
    P(b_i = 1) = |g_i| / s. E C(u) = g: unbiased but for the clipping. Bits: d log2 3, and s of each leaf.

    Args:
        clip: c, positive; may be traced. `inf` does not clip. Nor is a leaf clipped that does not vary.

    Returns:
        An optax transformation of one message, leaf by leaf.

    Raises:
        ValueError: for a clip that is not positive.

    >>> transform, u = terngrad(), jnp.array([1.0, -1.0])
    >>> transform.update(u, transform.init(u), key=jax.random.key(0))[0].tolist()
    [1.0, -1.0]

    Source: Wen et al. 2017, "TernGrad: ternary gradients to reduce communication in distributed deep learning", equations 1 and 10.
    """
    if not isinstance(clip, jax.Array) and not (is_number(clip) and clip > 0):
        raise ValueError(f"terngrad: clip must be positive, in standard deviations, got {clip!r}")

    def leaf(x, key):
        largest, deviation = jnp.max(jnp.abs(x)), jnp.std(x)
        varies = deviation > 1e-6 * largest  # equal values deviate from their mean by rounding
        bound = jnp.where(varies, jnp.minimum(clip * jnp.where(varies, deviation, 1), largest), largest)
        chosen = _noise(key, x) * bound < jnp.minimum(jnp.abs(x), bound)
        return jnp.where(chosen, jnp.sign(x) * bound, 0)

    def encode(message, draw):
        leaves = jax.tree.leaves(message)
        return _each(leaf, message, draw), [x.size * math.log2(3) for x in leaves], [SCALE for _ in leaves]

    return compressor("terngrad", encode)


def _each(leaf, message: Tree, draw: Draw) -> Tree:
    """Apply `leaf(x, key)` to each leaf that is not empty, in float32 or wider."""
    leaves, structure = jax.tree.flatten(message)
    return jax.tree.unflatten(structure, [leaf(wide(x), draw(i)) if x.size else x for i, x in enumerate(leaves)])


def _noise(key, x: Array) -> Array:
    """Draw uniform numbers in [0, 1) like `x`."""
    return jax.random.uniform(key, x.shape, x.dtype)


def _log2(x: Number) -> Number:
    return math.log2(x) if isinstance(x, int | float) else jnp.log2(x.astype(jnp.float32))
