"""The adaptive rules of FedOpt's servers, by the paper's equations, which are not optax's."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_lite.base import Number, Tree
from fedjax_lite.refuse import a_share, positive


class Moments(NamedTuple):
    """The state of an adaptive transformation."""

    step: jax.Array
    m: Tree
    v: Tree


def scale_by_fedadagrad(b1: Number = 0.0, tau: Number = 1e-3, convention: str = "paper") -> optax.GradientTransformation:
    r"""FedAdagrad's rule as the paper has it, for a server's optimizer; optax's adagrad is another.

    m <- b1 m + (1 - b1) g;  v <- v + g^2;  g -> m / (sqrt(v) + tau);  m starts at 0, v at tau^2.

    Args:
        b1: in [0, 1), 0 in the paper.
        tau: above 0, how little the rule adapts.
        convention: "paper"; v starts at 0 under "keras", of the experiments released with it, and "flower".

    Raises:
        ValueError: for numbers out of range, another convention.

    >>> adagrad = scale_by_fedadagrad(tau=1.0)
    >>> round(float(adagrad.update(jnp.array(3.0), adagrad.init(jnp.zeros(())))[0]), 4)  # 3 / (sqrt(1 + 9) + 1)
    0.7208

    Source: Reddi et al. 2021, "Adaptive federated optimization", algorithm 2.
    """
    return _adaptive("fedadagrad", lambda v, square: v + square, {"b1": b1}, tau, convention)


def scale_by_fedadam(b1: Number = 0.9, b2: Number = 0.99, tau: Number = 1e-3, convention: str = "paper") -> optax.GradientTransformation:
    r"""FedAdam's rule as the paper has it, for a server's optimizer; optax's adam corrects the bias and starts at 0.

    m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2;  g -> m / (sqrt(v) + tau);  m starts at 0, v at tau^2.

    Args:
        b1, b2: in [0, 1).
        tau: above 0, how little the rule adapts.
        convention: "paper", without a correction of the bias; "keras", of the experiments released with the paper: v starts at 0, and
            the update of step t is multiplied by sqrt(1 - b2^t) / (1 - b1^t); "flower": v starts at 0, without a correction.

    Raises:
        ValueError: for numbers out of range, another convention.

    >>> adam = scale_by_fedadam(b1=0.5, b2=0.5, tau=1.0)
    >>> round(float(adam.update(jnp.array(3.0), adam.init(jnp.zeros(())))[0]), 4)  # 1.5 / (sqrt(0.5 + 4.5) + 1)
    0.4635

    Source: Reddi et al. 2021, "Adaptive federated optimization", algorithm 2.
    """
    return _adaptive("fedadam", lambda v, square: b2 * v + (1 - b2) * square, {"b1": b1, "b2": b2}, tau, convention)


def scale_by_fedyogi(b1: Number = 0.9, b2: Number = 0.99, tau: Number = 1e-3, convention: str = "paper") -> optax.GradientTransformation:
    r"""FedYogi's rule as the paper has it, for a server's optimizer; optax's yogi corrects the bias and starts elsewhere.

    m <- b1 m + (1 - b1) g;  v <- v - (1 - b2) g^2 sign(v - g^2);  g -> m / (sqrt(v) + tau);  m starts at 0, v at tau^2.

    Args:
        b1, b2, tau, convention: as in `scale_by_fedadam`.

    Raises:
        ValueError: for numbers out of range, another convention.

    >>> yogi = scale_by_fedyogi(b1=0.5, b2=0.5, tau=1.0)
    >>> round(float(yogi.update(jnp.array(3.0), yogi.init(jnp.zeros(())))[0]), 4)  # 1.5 / (sqrt(1 + 4.5) + 1)
    0.4484

    Source: Reddi et al. 2021, "Adaptive federated optimization", algorithm 2.
    """
    return _adaptive("fedyogi", lambda v, square: v - (1 - b2) * square * jnp.sign(v - square), {"b1": b1, "b2": b2}, tau, convention)


def _adaptive(name: str, accumulate: Callable, b: dict[str, Number], tau: Number, convention: str) -> optax.GradientTransformation:
    """Make the transformation g -> m / (sqrt(v) + tau) whose v moves by `accumulate(v, g^2)`."""
    for argument, value in b.items():
        a_share(name, argument, value, "[0, 1)")
    positive(name, "tau", tau)
    if convention not in ("paper", "keras", "flower"):
        raise ValueError(f'{name}: convention must be "paper", "keras" or "flower", got {convention!r}')
    b1, b2 = b["b1"], b.get("b2")

    def init(params):
        first = tau**2 if convention == "paper" else 0.0
        return Moments(jnp.int32(0), jax.tree.map(jnp.zeros_like, params), jax.tree.map(lambda x: jnp.full_like(x, first), params))

    def update(gradient, state, params=None):
        del params
        step = state.step + 1
        m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.m, gradient)
        v = jax.tree.map(lambda v, g: accumulate(v, g**2), state.v, gradient)
        correction = jnp.sqrt(1 - b2**step) / (1 - b1**step) if convention == "keras" and b2 is not None else 1.0
        return jax.tree.map(lambda m, v: (correction * m / (jnp.sqrt(v) + tau)).astype(m.dtype), m, v), Moments(step, m, v)

    return optax.GradientTransformation(init, update)
