"""Local differential privacy: each client cuts its message and adds noise before sending, and so need not trust the server."""

import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedjax_lite import refuse, tree
from fedjax_lite.base import Hidden, Number, Tree
from fedjax_lite.clip import clipped
from fedjax_lite.refuse import positive
from fedjax_lite.schedules import Clock, Scheduled, on_round
from fedjax_lite.tree import wide


def local_gaussian(
    clip: Number,
    noise_multiplier: Number | Scheduled | None = None,
    epsilon: Number | Sequence[Number] | None = None,
    delta: float | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""A message cut to a Euclidean norm, with the client's own Gaussian noise.

    v = m min(1, C / ||m||) + N(0, (z C)^2 I).

    For an (epsilon, delta) z = 2 s comes from the exact bound of the Gaussian mechanism; s is the noise over 2 C, the most a client moves:
    delta = Phi(1 / (2 s) - epsilon s) - e^epsilon Phi(-1 / (2 s) - epsilon s).

    Guarantees:
        1. Before noise a message is at most C long, for any message, finite or not (up to rounding); so other data of the client moves it
           by at most 2 C.
        2. Every round's message is (epsilon, delta)-differentially private for all of the client's data replaced by other data, whoever
           sees it: Pr[v in S] <= e^epsilon Pr[v' in S] + delta.
        3. Noise is drawn anew for each client, round and leaf, whatever the data. The sum of M messages has noise of variance M z^2 C^2.
        4. After the last of a list of epsilons nothing more is given away: messages are NaN, whatever the data.
    A client that takes part in T rounds gives away `fl.privacy.epsilon(z / 2, 1.0, T, delta)`; where z differs, rounds z_1 ... z_T are
    together one of z = (sum_t 1 / z_t^2)^(-1/2). z of an epsilon is `2 * fl.privacy.calibrate(epsilon, 1.0, 1, delta)`; for an epsilon of
    all T rounds give `noise_multiplier=2 * fl.privacy.calibrate(epsilon, 1.0, T, delta)`. This covers the message, and whatever is made of
    it: compress after the noise. It covers neither the metrics of a round nor the client's number of examples. Where a cohort answers twice
    in a round (`in_turn`, `mime`, `mimelite`), each message counts: T is twice the rounds. A chain has one local
    mechanism: a second would draw the same noise again. Noise is drawn in float32: docs/privacy.md.

    Args:
        clip: C > 0, the norm over all of a message, in its units.
        noise_multiplier: z >= 0, or `fl.on_round(schedule)`; 0 is no noise and no guarantee.
        epsilon: from 1e-6 to 1e6, of every round, instead of z; a list has one a round: past its end messages are NaN, so that nothing more
            is given away. No tracer.
        delta: in (0, 1), beside epsilon.

    Returns:
        An optax transformation of one message without a state, whose `update` needs the keyword `key`, and with a schedule
        `round`. Noise is float32 or wider, the result has the message's dtypes.

    Raises:
        ValueError: for numbers out of range, both or neither of z and epsilon, a schedule on another clock.

    >>> transform = local_gaussian(clip=1.0, epsilon=1.0, delta=1e-5)
    >>> private, _ = transform.update(jnp.array([3.0, 4.0]), transform.init(jnp.zeros(2)), key=jax.random.key(0))
    >>> private.shape
    (2,)

    Source: Balle, Wang 2018, "Improving the Gaussian mechanism for differential privacy", theorem 8.
    """
    if epsilon is None and delta is not None:
        raise ValueError(f"local_gaussian: delta goes with epsilon, not with noise_multiplier: leave it out, got {delta!r}")
    noise_multiplier = _multiplier("local_gaussian", noise_multiplier, epsilon, lambda each: _gaussian_multiplier(each, delta))
    return _local("local_gaussian", clip, noise_multiplier, lambda message: clipped(message, clip)[0], jax.random.normal)


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
        4. After the last of a list of epsilons nothing more is given away: messages are NaN, whatever the data.
    A client gives away the sum of the epsilons of the messages that it sends. As in `local_gaussian`, this covers
    the message and whatever is made of it, a chain has one local mechanism, and noise is drawn in float32.

    Args:
        clip: C > 0, the norm over all of a message, in its units.
        epsilon: positive, of every round; a list has one a round: past its end messages are NaN, so that nothing more is given away.
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
    noise_multiplier = _multiplier("local_laplace", noise_multiplier, epsilon, lambda each: 2 / each)
    return _local("local_laplace", clip, noise_multiplier, lambda message: _clipped_absolute(message, clip), jax.random.laplace)


def _multiplier(
    name: str,
    noise_multiplier: Number | Scheduled | None,
    epsilon: Number | Sequence[Number] | None,
    calibrated: Callable[[Number], Number],
) -> Number | Scheduled:
    """Return z, a number or a schedule of rounds, from `noise_multiplier`, or from `epsilon` by `calibrated`."""
    if epsilon is None and noise_multiplier is not None:
        if not isinstance(noise_multiplier, Scheduled):
            positive(name, "noise_multiplier", noise_multiplier, or_zero=True)
        elif noise_multiplier.clock != "round":
            raise ValueError(f"{name}: noise_multiplier is for one message a round, so give fl.on_round, not {noise_multiplier.clock!r}")
        return noise_multiplier
    if epsilon is None or noise_multiplier is not None:
        raise ValueError(f"{name}: give one of noise_multiplier and epsilon, got {noise_multiplier!r} and {epsilon!r}")
    if isinstance(epsilon, str) or not isinstance(epsilon, Sequence):
        positive(name, "epsilon", epsilon)
        return calibrated(epsilon)
    if not epsilon:
        raise ValueError(f"{name}: epsilon is an empty list: give one number a round, or one for all")
    for each in epsilon:
        positive(name, "epsilon", each)
    multipliers = [calibrated(each) for each in epsilon]
    return on_round(lambda round: jnp.asarray(multipliers).at[round].get(mode="fill", fill_value=jnp.nan))


def _local(name: str, clip: Number, noise_multiplier: Number | Scheduled, cut: Callable, draw: Callable):
    """Make a transformation that applies `cut`, then adds noise of scale z C from a random stream named `name`."""
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

    return optax.GradientTransformationExtraArgs(lambda params: Hidden(), update)


def _clipped_absolute(message: Tree, most: Number) -> Tree:
    """Cut `message` to a sum of absolute values of at most `most`, in float32 or wider; coordinates not finite become 0."""
    message = jax.tree.map(lambda x: jnp.where(jnp.isfinite(x), wide(x), 0), message)
    norm = sum((jnp.sum(jnp.abs(x)) for x in jax.tree.leaves(message)), jnp.zeros(()))
    factor = jnp.minimum(1, most / jnp.where(norm > 0, norm, 1))  # 0 if the norm overflows
    return jax.tree.map(lambda x: x * factor.astype(x.dtype), message)


def _gaussian_multiplier(epsilon: Number, delta: Any) -> float:
    """Find the least z for the (`epsilon`, `delta`) of one message; a delta from 1e-30 is met to a relative 1e-6."""
    if isinstance(epsilon, jax.Array):
        raise ValueError(f"local_gaussian: epsilon must be a plain number, since its noise is found on the host, got {epsilon!r}")
    if not 1e-6 <= epsilon <= 1e6:  # outside this range rounding decides
        raise ValueError(f"local_gaussian: epsilon must be from 1e-6 to 1e6, got {epsilon!r}: give noise_multiplier instead")
    refuse.delta("local_gaussian", delta)
    from scipy.optimize import brentq
    from scipy.special import log_ndtr

    def excess(log_s: float) -> float:
        s = math.exp(log_s)
        first, second = log_ndtr(0.5 / s - epsilon * s), epsilon + log_ndtr(-0.5 / s - epsilon * s)
        return first + math.log1p(-math.exp(second - first)) - math.log(delta)  # in logarithms: small deltas would cancel

    low = high = -0.5 * math.log(2 * epsilon)  # here the first term is Phi(0)
    while excess(low) < 0:
        low -= 1
    while excess(high) > 0:
        high += 1
    return 2 * math.exp(brentq(excess, low, high, xtol=1e-12))
