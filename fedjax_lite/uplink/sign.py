"""Signs: compressors that send one bit a coordinate."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from fedjax_lite.base import Number, Tree
from fedjax_lite.ledger import count
from fedjax_lite.tree import wide
from fedjax_lite.uplink.compressor import SCALE, compressor


def sign() -> optax.GradientTransformationExtraArgs:
    r"""The sign of each coordinate, 1 or -1.

    C(u)_i = sign(u_i). One bit cannot say 0: a coordinate that is 0 is sent as 1. Biased, and the size of the update is lost.
    Bits: d.

    >>> transform, u = sign(), jnp.array([0.5, -2.0, 0.0])
    >>> transform.update(u, transform.init(u))[0].tolist()
    [1.0, -1.0, 1.0]

    Source: Bernstein et al. 2018, "signSGD: compressed optimisation for non-convex problems", algorithm 1.
    """
    return compressor("sign", lambda message, draw: (jax.tree.map(signs, message), _one_each(message), 0), draws=False)


def scaled_sign() -> optax.GradientTransformationExtraArgs:
    r"""The sign of each coordinate times the mean absolute value of the whole message.

    C(u) = (||u||_1 / d) sign(u). Biased, with ||u - C(u)||^2 = (1 - ||u||_1^2 / (d ||u||^2)) ||u||^2: put it in `error_feedback`.
    Bits: d, and the scale.

    >>> transform, u = scaled_sign(), jnp.array([1.0, -3.0])
    >>> transform.update(u, transform.init(u))[0].tolist()
    [2.0, -2.0]

    Source: Karimireddy et al. 2019, "Error feedback fixes signSGD and other gradient compression schemes", algorithm 1.
    """

    def encode(message, draw):
        del draw
        d = count(message)
        scale = sum(jnp.sum(jnp.abs(wide(x))) for x in jax.tree.leaves(message)) / d
        return jax.tree.map(lambda x: scale * signs(wide(x)), message), _one_each(message), SCALE

    return compressor("scaled_sign", encode, draws=False)


def _one_each(message: Tree) -> list[Number]:
    """Return the bits of each leaf: one a coordinate."""
    return [x.size for x in jax.tree.leaves(message)]


def signs(x: Array) -> Array:
    """Return 1 or -1 for each coordinate, in the dtype of `x`; 1 for 0, since a bit has two values."""
    return jnp.where(x < 0, -1, 1).astype(x.dtype)
