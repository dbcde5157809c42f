"""Local differential privacy: each client cuts its message and adds noise before it sends it, and so need not trust the server."""

import math
import zlib
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedjax_lite import tree
from fedjax_lite.base import Number, Tree
from fedjax_lite.privacy import norms
from fedjax_lite.refuse import positive
from fedjax_lite.schedules import Clock, Scheduled, on_round
from fedjax_lite.uplink.ledger import wide


def local_gaussian(
    clip: Number,
    noise_multiplier: Number | Scheduled | None = None,
    epsilon: Number | Sequence[Number] | None = None,
    delta: float | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""A message cut to a Euclidean norm, with the client's own Gaussian noise.

    v = m min(1, C / ||m||) + N(0, (z C)^2 I).

    Of an (epsilon, delta) z = 2 s comes from the exact bound of the Gaussian mechanism, for s the noise over what one client moves, 2 C:
    delta = Phi(1 / (2 s) - epsilon s) - e^epsilon Phi(-1 / (2 s) - epsilon s).

    Guarantees:
        1. Before noise a message is at most C long, for any message, finite or not (up to rounding); so other data of the client moves it
           by at most 2 C.
        2. Every round's message is (epsilon, delta)-differentially private for all of the client's data replaced by other data, whoever
           sees it: Pr[v in S] <= e^epsilon Pr[v' in S] + delta.
        3. Noise is drawn anew for each client, round and leaf, whatever the data. The sum of M messages has noise of variance M z^2 C^2.
    A client that takes part in T rounds gives away `fl.privacy.epsilon(z / 2, 1.0, T, delta)`. This covers the message, and whatever is
    made of it: compress after the noise. It covers neither the metrics of a round nor the client's number of examples. Floats are no
    reals: noise in float32 leaks a little through its rounding, and never exceeds 5.5 standard deviations.

    Args:
        clip: C > 0, the norm over all of a message, in its units.
        noise_multiplier: z >= 0, or `fl.on_round(schedule)`; 0 is no noise and no guarantee.
        epsilon: positive, of one round, instead of z; a list has one a round, the last of which holds from there on. No tracer.
        delta: in (0, 1), beside epsilon.

    Returns:
        An optax transformation of one message without a state, whose `update` needs the keyword `key`, and with a schedule
        `round`. Noise is float32 or wider, the result has the message's dtypes.

    Raises:
        ValueError: for numbers out of range, both or neither of z and epsilon, a schedule on another clock.

    >>> transform = local_gaussian(clip=1.0, epsilon=1.0, delta=1e-5)
    >>> private, _ = transform.update(jnp.array([3.0, 4.0]), transform.init(jnp.zeros(2)), key=jax.random.key(0))
    >>> private.shape, round(_gaussian_multiplier(1.0, 1e-5), 3)
    ((2,), 7.461)

    Source: Balle, Wang 2018, "Improving the Gaussian mechanism for differential privacy", theorem 8.
    """
    if epsilon is None and delta is not None:
        raise ValueError(f"local_gaussian: delta goes with epsilon, not with noise_multiplier: leave it out, got {delta!r}")
    noise_multiplier = _multiplier("local_gaussian", noise_multiplier, epsilon, lambda one: _gaussian_multiplier(one, delta))
    return _local("local_gaussian", clip, noise_multiplier, lambda message: norms.clipped(message, clip)[0], jax.random.normal)


def local_laplace(
    clip: Number,
    epsilon: Number | Sequence[Number] | None = None,
    noise_multiplier: Number | Scheduled | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""A message cut to a norm of absolute values, with the client's own Laplace noise: privacy without a delta.

    v = m min(1, C / ||m||_1) + Laplace(z C),  z = 2 / epsilon;  of a coordinate's noise the density is exp(-|x| / (z C)) / (2 z C).

    Guarantees:
        1. Before noise the absolute values of a message add up to at most C, for any message, finite or not (up to rounding); so other
           data of the client moves it by at most 2 C in that norm.
        2. Every round's message is epsilon-differentially private for all of the client's data replaced by other data, whoever sees it:
           Pr[v in S] <= e^epsilon Pr[v' in S].
        3. Noise is drawn anew for each client, round and leaf, whatever the data. The sum of M messages has noise of variance
           2 M z^2 C^2.
    A client that takes part in T rounds gives away T epsilon. What this covers is as in `local_gaussian`; in float32 noise never exceeds 17
    times its scale.

    Args:
        clip: C > 0, the norm over all of a message, in its units.
        epsilon: positive, of one round; a list has one a round, the last of which holds from there on.
        noise_multiplier: z >= 0 instead, the noise's scale over C, or `fl.on_round(schedule)`; 0 is no noise and no guarantee.

    Returns:
        An optax transformation as of `local_gaussian`.

    Raises:
        ValueError: for numbers out of range, both or neither of z and epsilon, a schedule on another clock.

    >>> transform = local_laplace(clip=1.0, noise_multiplier=0.0)
    >>> transform.update(jnp.array([3.0, -1.0]), transform.init(jnp.zeros(2)), key=jax.random.key(0))[0].tolist()
    [0.75, -0.25]

    Source: Dwork, McSherry, Nissim, Smith 2006, "Calibrating noise to sensitivity in private data analysis", proposition 1.
    """
    noise_multiplier = _multiplier("local_laplace", noise_multiplier, epsilon, lambda one: 2 / one)
    return _local("local_laplace", clip, noise_multiplier, lambda message: _clipped_absolute(message, clip), jax.random.laplace)


def _multiplier(
    name: str,
    noise_multiplier: Number | Scheduled | None,
    epsilon: Number | Sequence[Number] | None,
    calibrated: Callable[[Number], Number],
) -> Number | Scheduled:
    """z: a number, or its schedule."""
    if epsilon is None and noise_multiplier is not None:
        if not isinstance(noise_multiplier, Scheduled):
            positive(name, "noise_multiplier", noise_multiplier, or_zero=True)
        elif noise_multiplier.clock != "round":
            raise ValueError(f"{name}: noise_multiplier is for one message a round, so give fl.on_round, not {noise_multiplier.clock!r}")
        return noise_multiplier
    if epsilon is None or noise_multiplier is not None:
        raise ValueError(f"{name}: give one of noise_multiplier and epsilon, got {noise_multiplier!r} and {epsilon!r}")
    rounds = epsilon if isinstance(epsilon, Sequence) else [epsilon]
    if not rounds:
        raise ValueError(f"{name}: epsilon is an empty list: give one number a round, or one for all")
    for one in rounds:
        positive(name, "epsilon", one)
    each = [calibrated(one) for one in rounds]
    return each[0] if len(each) == 1 else on_round(lambda round: jnp.asarray(each)[jnp.minimum(round, len(each) - 1)])


def _local(name: str, clip: Number, noise_multiplier: Number | Scheduled, cut: Callable, draw: Callable):
    """Cut, and noise of the scale z C, in a random stream of its own."""
    positive(name, "clip", clip)
    stream = np.uint32(zlib.crc32(name.encode()))

    def update(updates, state, params=None, *, key=None, round=None, **extra):
        del params, extra
        if key is None:
            raise ValueError(f"uplink.{name} draws at random: give update the keyword key, as fl.federate does")
        if isinstance(noise_multiplier, Scheduled) and round is None:
            raise ValueError(f"uplink.{name} has a schedule: give update the keyword round, as fl.federate does")
        scale = clip * (noise_multiplier(Clock(round)) if isinstance(noise_multiplier, Scheduled) else noise_multiplier)
        leaves, structure = jax.tree.flatten(cut(updates))
        here = jax.random.fold_in(key, stream)
        noisy = [x + scale * draw(jax.random.fold_in(here, i), x.shape, x.dtype) for i, x in enumerate(leaves)]
        return tree.cast_like(jax.tree.unflatten(structure, noisy), updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def _clipped_absolute(message: Tree, most: Number) -> Tree:
    """As `norms.clipped`, with the sum of absolute values for a norm."""
    message = jax.tree.map(lambda x: jnp.where(jnp.isfinite(x), wide(x), 0), message)
    norm = sum((jnp.sum(jnp.abs(x)) for x in jax.tree.leaves(message)), jnp.zeros(()))
    factor = jnp.minimum(1, most / jnp.where(norm > 0, norm, 1))  # 0 where the norm overflows
    return jax.tree.map(lambda x: x * factor.astype(x.dtype), message)


def _gaussian_multiplier(epsilon: Number, delta: float | None) -> float:
    """The least z for one message, to a relative 1e-12."""
    if isinstance(epsilon, jax.Array):
        raise ValueError(f"local_gaussian: epsilon must be a plain number, since its noise is found on the host, got {epsilon!r}")
    if delta is None or not 0 < delta < 1:
        raise ValueError(f"local_gaussian: delta must be in (0, 1) beside epsilon, usually below one over the clients, got {delta!r}")
    from scipy.optimize import brentq
    from scipy.special import log_ndtr

    def excess(log_s: float) -> float:
        s = math.exp(log_s)
        first, second = log_ndtr(0.5 / s - epsilon * s), epsilon + log_ndtr(-0.5 / s - epsilon * s)
        return first + math.log1p(-math.exp(second - first)) - math.log(delta)  # in logarithms, or small deltas would cancel

    low, high = -1.0, 1.0
    while excess(low) < 0:
        low -= 1
    while excess(high) > 0:
        high += 1
    return 2 * math.exp(brentq(excess, low, high, xtol=1e-12))
