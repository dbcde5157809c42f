"""PowerSGD of one client's message: matrices are sent as products of two thin matrices."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from fedjax_lite import tree
from fedjax_lite.ledger import Sent, bits_of, dense_bits
from fedjax_lite.refuse import whole
from fedjax_lite.tree import wide
from fedjax_lite.uplink.compressor import all_finite, compressor, nothing_sent, place_of


class _LowRank(NamedTuple):
    """The uplink's state of one client."""

    factors: tuple[Float[Array, "columns rank"], ...]  # Q of each matrix, from the client's last round; zeros before its first
    sent: Sent  # bits of the last message


def power_sgd(rank: int) -> optax.GradientTransformationExtraArgs:
    r"""Each matrix of the message by one step of subspace iteration, from where the client's last round ended.

    P = orth(M Q);  Q <- M^T P;  C(M) = P Q^T, the projection of M on the columns of P. Biased: put it in `error_feedback`, which
    supplies the e of the paper's M = u + e.

    This is the form for one client. In the paper all workers share Q, and the means of P (before orth) and of Q travel, so that the
    result approximates the mean message, with a single all-reduce. Here each client has a Q of its own, its own state, and the mean
    over clients is of their products: the same bits, a rank of up to clients * rank, exact for every client of low rank (but for
    a message that has nothing in common with its last, M Q = 0: that is lost, as in the paper, and error feedback sends it later).

    A leaf of two or more axes is the matrix `[-1, last axis]`. Other leaves, and matrices too small to gain, are sent as they are. Bits:
    rank * (rows + columns) values a matrix.

    Args:
        rank: r, at least 1; static.

    Returns:
        An optax transformation of one message, leaf by leaf.

    Raises:
        ValueError: for a rank below 1.

    >>> transform, u = power_sgd(1), jnp.outer(jnp.arange(4.0), jnp.arange(3.0))
    >>> decoded, state = transform.update(u, transform.init(u), key=jax.random.key(0))
    >>> bool(jnp.allclose(decoded, u, atol=1e-5)), state.sent.payload.item()
    (True, 224.0)

    Source: Vogels, Karimireddy, Jaggi 2019, "PowerSGD: practical low-rank gradient compression for distributed optimization",
    algorithm 1.
    """
    whole("power_sgd", "rank", rank, least=1)

    def init(message):
        matrices = [m for m in map(_matrix, jax.tree.leaves(message)) if _gains(m, rank)]
        return _LowRank(tuple(jnp.zeros((m.shape[1], rank), m.dtype) for m in matrices), nothing_sent(place_of("power_sgd", message)))

    def update(updates, state, params=None, *, key=None, **extra):
        del params, extra
        after: list[Array] = []

        def encode(message, draw):
            leaves, structure = jax.tree.flatten(message)
            before, decoded, payload = list(state.factors), [], []
            for i, x in enumerate(leaves):
                if not _gains(_matrix(x), rank):
                    decoded.append(x)
                    payload.append(dense_bits(x))
                    continue
                m = _matrix(x)
                low, q = _step(m, before[len(after)], draw(i))
                after.append(q)
                decoded.append(low.reshape(x.shape))
                payload.append(rank * sum(m.shape) * bits_of(x))
            return jax.tree.unflatten(structure, decoded), payload, 0

        sound = all_finite(updates)
        updates, sent = compressor("power_sgd", encode).update(updates, state.sent, key=key)
        factors = tree.where(sound, tree.cast_like(tuple(after), state.factors), state.factors)
        return updates, _LowRank(factors, sent)

    return optax.GradientTransformationExtraArgs(init, update)


def _step(m: Float[Array, "rows columns"], q: Float[Array, "columns rank"], key) -> tuple[Array, Array]:
    """Return P Q^T and the new Q after one step of subspace iteration on the matrix `m`."""
    # A factor of zeros, before the first round or after a message of zeros, would stay zero: draw a new factor.
    q = jnp.where(jnp.any(q != 0), q, jax.random.normal(key, q.shape, q.dtype))
    precise = jax.lax.Precision.HIGHEST
    p = jnp.linalg.qr(jnp.matmul(m, q, precision=precise))[0]
    q = jnp.matmul(m.T, p, precision=precise)
    return jnp.matmul(p, q.T, precision=precise), q


def _matrix(x: Array) -> Array:
    """Reshape a leaf to `[-1, last axis]`, in float32 or wider; vectors and scalars keep their shape."""
    x = wide(jnp.asarray(x))
    return x.reshape(-1, x.shape[-1]) if x.ndim > 1 else x


def _gains(m: Array, rank: int) -> bool:
    """Return whether the two factors have fewer values than `m`, a matrix."""
    return m.ndim == 2 and rank * sum(m.shape) < m.size
