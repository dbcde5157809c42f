"""Error feedback: add the part of a message that a compressor left out to the client's next message."""

import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_lite import tree
from fedjax_lite.base import Tree
from fedjax_lite.tree import wide
from fedjax_lite.uplink.compressor import all_finite, places

ENOUGH = 5  # participations of a client from which no warning is due


class _Feedback(NamedTuple):
    """The uplink's state of one client."""

    residual: Tree  # e, like the message, at least float32
    inner: Tree  # the compressor's state


def error_feedback(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    r"""A compressor with a memory of the part of each message that was not sent.

    c_t = C(u_t + e_t);  e_{t+1} = u_t + e_t - c_t. So the sum of all c and the residual e equals the sum of all u.

    The residual is the client's own state, as large as the model for each client of the population. Where clients are seen once
    or twice, what they hold back never arrives, and unbiased schemes are the better choice. C must not lengthen what it
    compresses (||u - C(u)|| < ||u||), or the residual grows without bound: `random_k(unbiased=False)` and `drive(unbiased=False)`, whose
    other forms are refused; `scaled_sign()` rather than `sign()`, `qsgd` with more levels than sqrt(d), no `terngrad`.

    Args:
        inner: the compressor C, or a chain.

    Returns:
        An optax transformation of one message.

    Raises:
        TypeError: for an inner that is no optax transformation.
        ValueError: from its `init`, for an inner that is scaled up to be unbiased.

    >>> from fedjax_lite.uplink.sparse import top_k
    >>> transform, u = error_feedback(top_k(0.5)), jnp.array([3.0, 2.0])
    >>> first, state = transform.update(u, transform.init(u))
    >>> second, state = transform.update(u, state)
    >>> first.tolist(), second.tolist(), state.residual.tolist()
    ([3.0, 0.0], [0.0, 4.0], [3.0, 0.0])

    Source: Karimireddy et al. 2019, "Error feedback fixes signSGD and other gradient compression schemes", algorithm 2; Seide et
    al. 2014.
    """
    inner = transformation("error_feedback", inner)

    def init(message):
        state = inner.init(message)
        for place in places(state):
            if place.lengthens:
                raise ValueError(
                    f"error_feedback: {place.name} is scaled up to be unbiased, so that what it leaves out grows from round to round: give "
                    f"{place.name} unbiased=False, or leave error_feedback out"
                )
        return _Feedback(jax.tree.map(lambda x: jnp.zeros_like(wide(jnp.asarray(x))), message), state)

    def update(updates, state, params=None, **extra):
        whole = jax.tree.map(lambda u, e: wide(u) + e, updates, state.residual)
        sent, inner_state = inner.update(tree.cast_like(whole, updates), state.inner, params, **extra)
        sent = tree.cast_like(sent, updates)
        residual = jax.tree.map(lambda x, c: x - c.astype(x.dtype), whole, sent)  # also the rounding of c to half precision
        residual = tree.where(all_finite(residual), residual, state.residual)  # a message that is not finite leaves the residual unchanged
        return sent, _Feedback(residual, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def warn_if_seldom(uplink: Tree, participations: float) -> None:
    """Warn if the state `uplink` has error feedback and `participations` a client are too few for residuals to arrive."""
    nodes = jax.tree.leaves(uplink, is_leaf=lambda x: isinstance(x, _Feedback))
    if participations < ENOUGH and any(isinstance(node, _Feedback) for node in nodes):
        warnings.warn(
            f"error_feedback: a client takes part {participations:.2g} times in this run, so much of what it holds back never arrives, or "
            "late: sample more clients, run more rounds, or take an unbiased scheme without error feedback",
            stacklevel=4,  # the caller of fl.run or fl.plan
        )


def transformation(name: str, inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Make `inner` take every keyword; refuse an object that is no optax transformation."""
    if not isinstance(inner, optax.GradientTransformation):
        raise TypeError(f"{name}: inner must be an optax transformation such as fl.uplink.top_k(0.05), got {inner!r}")
    return optax.with_extra_args_support(inner)
