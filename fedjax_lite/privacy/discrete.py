"""Noise on the integers: draws of the discrete Gaussian and the Skellam distribution, and divergences of their sums."""

import math
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from fedjax_lite import refuse
from fedjax_lite.base import Key, Number
from fedjax_lite.refuse import plain, positive, whole

Real = int | float  # on the host
Divergence = Callable[[Real], float]  # order -> Renyi divergence
# Steps of the staircase under which numbers are drawn, and the most steps a standard deviation: 8 or more deviations are covered.
CELLS, PER_DEVIATION = 128, 16
WIDEST = 2.0**27  # largest standard deviation that can be drawn: its steps end at 2^31
SPARE = 16  # numbers for each spare draw: at most 1 draw in 20 is rejected


def discrete_gaussian(key: Key, shape: tuple[int, ...], sigma: Number) -> Int[Array, "..."]:
    r"""Discrete Gaussian noise, by rejection.

    Pr[X = k] = exp(-k^2 / (2 sigma^2)) / sum_j exp(-j^2 / (2 sigma^2)).

    Guarantees: the distribution is within 1e-6 of the exact one in total variation, for one number; it ends at about 6.4 standard
    deviations, where less than 2^-32 is left. So what is proven of exact noise is not proven of this, which leaks a little, as continuous
    noise in float32 does. Arithmetic is float32's, on a pseudo-random stream: for studies. Where people's data is at stake, draw with the
    paper's exact sampler.

    Args:
        key: a random key.
        shape: of the result.
        sigma: from 0 (no noise) to 2^27; the standard deviation, except for sigma below 1, where it is less.

    Returns:
        int32.

    Raises:
        ValueError: for a sigma out of range, if it is known while tracing.

    >>> discrete_gaussian(jax.random.key(0), (5,), 100.0).tolist()
    [-20, -134, -122, 152, -131]

    Source: Canonne, Kamath and Steinke 2020, "The discrete Gaussian for differential privacy".
    """
    _refuse_out_of_range("discrete_gaussian", "sigma", sigma, WIDEST)
    sigma = jnp.maximum(jnp.asarray(sigma, jnp.float32), 1e-3)  # below 1e-3 all mass is at 0 already

    def log_mass(k):
        return -0.5 * jnp.square(k / sigma)

    width = _width(sigma)
    return _under_steps(key, shape, width, log_mass(width * jnp.arange(CELLS)), log_mass)


def draw_skellam(key: Key, shape: tuple[int, ...], variance: Number) -> Int[Array, "..."]:
    r"""Skellam noise, the difference of two Poisson numbers of mean variance / 2, by rejection; sums of it are Skellam again.

    Pr[X = k] = exp(-mu) I_|k|(mu), of variance mu, with the modified Bessel function I.

    Guarantees: as `discrete_gaussian`.

    Args:
        key: a random key.
        shape: of the result.
        variance: mu, from 0 (no noise) to 2^54.

    Returns:
        int32.

    Raises:
        ValueError: for a variance out of range, if it is known while tracing.

    >>> draw_skellam(jax.random.key(0), (5,), 100.0**2).tolist()
    [-20, -134, -122, 152, -131]

    Source: Agarwal, Kairouz and Liu 2021, "The Skellam mechanism for differentially private federated learning".
    """
    _refuse_out_of_range("draw_skellam", "variance", variance, WIDEST**2)
    variance = jnp.asarray(variance, jnp.float32)
    width = _width(jnp.sqrt(variance))
    large = jnp.maximum(variance, 1)
    steps = _log_bessel(large, width * jnp.arange(CELLS))
    return _under_steps(key, shape, width, jnp.where(width == 1, _log_bessel_small(variance), steps), lambda k: _log_bessel(large, k))


def ddgauss_divergence(order: Real, clip: Real, noise_multiplier: Real, clients_per_round: int, granularity: Real, dimension: int) -> float:
    r"""The Renyi divergence of one round of the distributed discrete Gaussian.

    min(a/2 D2^2 + tau d, a/2 (D2^2 + 2 D1 tau + tau^2 d), a/2 (D2 + sqrt(d) tau)^2), with D2 and D1 the norms of a rounded message over
    the sum's standard deviation z C, tau = 10 sum_{k<n} exp(-2 pi^2 (sigma / gamma)^2 k / (k + 1)) and a client's sigma = z C / sqrt(n).

    Args:
        order: a > 1.
        clip: C, in message units.
        noise_multiplier: z.
        clients_per_round: n, all of which add noise.
        granularity: gamma, in message units.
        dimension: d, with the padding of the rotation.

    Returns:
        The divergence, for one client's message replaced by zeros; infinite without noise.

    >>> round(ddgauss_divergence(2, 1.0, 1.0, 100, 1e-3, 4096), 6)
    1.002056

    Source: Kairouz, Liu and Steinke 2021, "The distributed discrete Gaussian mechanism for federated learning with secure
    aggregation".
    """
    if noise_multiplier == 0:
        return math.inf
    deviation = noise_multiplier * clip / granularity
    l2, l1 = (norm / deviation for norm in _norms(clip / granularity, dimension))
    tau = _gap(deviation**2 / clients_per_round, clients_per_round)
    return min(
        order / 2 * l2**2 + tau * dimension,
        order / 2 * (l2**2 + 2 * l1 * tau + tau**2 * dimension),
        order / 2 * (l2 + math.sqrt(dimension) * tau) ** 2,
    )


def skellam_divergence(order: Real, clip: Real, noise_multiplier: Real, clients_per_round: int, granularity: Real, dimension: int) -> float:
    r"""The Renyi divergence of one round of the Skellam mechanism.

    a D2^2 / (2 mu) + min(((2a - 1) D2^2 + 6 D1) / (4 mu^2), 3 D1 / (2 mu)), with D2 and D1 the norms of a rounded message and
    mu = (z C / gamma)^2, all in units of gamma.

    Args and Returns: as `ddgauss_divergence`; the number of clients does not matter, as sums of Skellam noise are Skellam.

    >>> round(skellam_divergence(2, 1.0, 1.0, 100, 1e-3, 4096), 6)
    1.002057

    Source: Agarwal, Kairouz and Liu 2021, "The Skellam mechanism for differentially private federated learning".
    """
    del clients_per_round
    if noise_multiplier == 0:
        return math.inf
    mu = (noise_multiplier * clip / granularity) ** 2
    l2, l1 = _norms(clip / granularity, dimension)
    return order / (2 * mu) * l2**2 + min(((2 * order - 1) * l2**2 + 6 * l1) / (4 * mu**2), 3 * l1 / (2 * mu))


def epsilon_of(divergence: Divergence, rounds: Any, delta: Any, orders: Iterable[Real] = range(2, 257)) -> float:
    r"""The epsilon of a number of rounds of a mechanism, without amplification by sampling.

    min over orders a of T D_a + log(1 - 1/a) - log(delta a) / (a - 1), and 0 where the divergence alone shows it.

    Args:
        divergence: order -> Renyi divergence of one round, for example a `Mechanism`'s.
        rounds: T >= 0, in how many the client takes part.
        delta: in (0, 1).
        orders: the orders to try, above 1.

    Raises:
        ValueError: for numbers out of range, a divergence that is NaN among them.

    >>> round(epsilon_of(lambda order: order / 2, rounds=1, delta=1e-5), 6)
    4.752728

    Source: Canonne, Kamath and Steinke 2020, "The discrete Gaussian for differential privacy".
    """
    rounds, delta = plain(rounds), plain(delta)
    refuse.delta("epsilon_of", delta)
    whole("epsilon_of", "rounds", rounds)

    def at(order):
        total = rounds * divergence(order) if rounds else 0.0
        if math.isnan(total):  # NaN would pass every comparison below as a divergence of 0
            raise ValueError(f"epsilon_of: divergence({order}) must be a number or infinite, got nan: see what it was built from")
        if delta**2 + math.expm1(-total) >= 0:
            return 0.0
        return max(0.0, total + math.log1p(-1 / order) - math.log(delta * order) / (order - 1))

    return min(at(order) for order in orders)


def squared_norm_bound(clip: Number, dimension: int) -> Number:
    r"""Bound the squared norm of a rounded vector by x^2 + d/4 + x + sqrt(d)/2, for norm x = `clip` in d coordinates.

    Random rounding meets the bound with a probability of at least 1 - beta = 1 - exp(-1/2). The paper's other bound, (x + sqrt d)^2, is
    never less.
    """
    return clip**2 + dimension / 4 + clip + math.sqrt(dimension) / 2


def _norms(clip: Real, dimension: int) -> tuple[float, float]:
    """Bound the L2 and the L1 norm of a rounded vector; vectors of integers have L1 <= L2^2."""
    l2 = float(squared_norm_bound(clip, dimension)) ** 0.5
    return l2, min(math.sqrt(dimension) * l2, l2**2)


@cache
def _gap(variance: float, clients: int) -> float:
    """Return tau, the bound on how far a sum of discrete Gaussians is from a discrete Gaussian."""
    k = np.arange(1, clients)
    return float(10 * np.sum(np.exp(-2 * np.pi**2 * variance * k / (k + 1))))


def _refuse_out_of_range(name: str, argument: str, value: Number, most: float) -> None:
    positive(name, argument, value, or_zero=True)
    if not isinstance(value, jax.Array) and value > most:
        raise ValueError(f"{name}: {argument} must be at most {most:.0f}, got {value}: count in coarser units")


def _width(deviation: Array) -> Int[Array, ""]:
    """Return a step's width: a power of two, so that a word's last bits choose a number in the step."""
    return jnp.left_shift(jnp.int32(1), jnp.maximum(jnp.frexp(deviation / PER_DEVIATION)[1], 0))


def _under_steps(
    key: Key, shape: tuple[int, ...], width: Int[Array, ""], steps: Float[Array, " cells"], log_mass: Callable[[Array], Array]
) -> Int[Array, "..."]:
    """Draw integers k from a mass that falls with |k|, by rejection under a staircase.

    A draw chooses a step in proportion to exp(`steps`), the mass at the step's left end, then one of the step's `width` numbers. The
    number is kept with probability mass / step; steps of width 1 reject nothing. Draws come in batches a little larger than the
    result, until enough numbers are kept; the result holds the first.
    """
    limits, size = _limits(width, steps), math.prod(shape)

    def draw(carry):
        attempt, value, filled = carry
        step, offset, word = jax.random.bits(jax.random.fold_in(key, attempt), (3, size + size // SPARE + 1), jnp.uint32)
        above = jnp.searchsorted(limits, step, side="right", method="scan")
        cell = CELLS - 1 - above.astype(jnp.int32)
        k = cell * width + (offset.astype(jnp.int32) & (width - 1))
        chance = jnp.exp(log_mass(k) - steps[cell]) * jnp.where(k == 0, 0.5, 1)
        kept = (width == 1) | ((word >> 8).astype(jnp.float32) * 2.0**-24 < chance)
        kept, k = jax.lax.optimization_barrier((kept, jnp.where(word & 1, -k, k)))  # else XLA would compute both again for each use
        place = filled + jnp.cumsum(kept, dtype=jnp.int32)
        value = value.at[jnp.where(kept, place - 1, size)].set(k, mode="drop")
        return attempt + 1, value, place[-1]

    first = (jnp.int32(0), jnp.zeros(size, jnp.int32), jnp.int32(0))
    return jax.lax.while_loop(lambda carry: carry[2] < size, draw, first)[1].reshape(shape)


def _limits(width: Int[Array, ""], steps: Float[Array, " cells"]) -> UInt32[Array, " limits"]:
    """Return the words at which the 2^32 words are cut into steps, the last step first."""
    steps = steps.at[0].add(jnp.where(width == 1, -math.log(2), 0))  # 0 is drawn with both signs
    heights = jnp.exp(steps - jnp.max(steps))
    tails = jnp.cumsum(heights[::-1])  # the smallest heights first, or rounding would swallow them
    return (tails[:-1] / tails[-1] * 2.0**32).astype(jnp.uint32)


def _log_bessel(mu: Array, k: Array) -> Array:
    """Return log I_k(mu) up to a term without k, for mu from 256: Debye's expansion, written so that nothing large cancels."""
    x = k / mu
    r = mu * jnp.sqrt(1 + x * x)
    q = x * x / (1 + x * x)
    series = (3 - 5 * q) / (24 * r) + (81 - 462 * q + 385 * q**2) / (1152 * r**2)
    return k * (x / (1 + jnp.sqrt(1 + x * x)) - jnp.arcsinh(x)) - 0.25 * jnp.log1p(x * x) + jnp.log1p(series)


def _log_bessel_small(mu: Array) -> Float[Array, " cells"]:
    """Return log(I_k(mu) / I_0(mu)) for k below `CELLS` and mu up to 256, by Miller's downward, and so stable, recurrence."""

    def down(ratio, k):
        ratio = mu / (2 * k + mu * ratio)
        return ratio, ratio

    ratios = jax.lax.scan(down, jnp.zeros((), jnp.float32), jnp.arange(1.0, 2 * CELLS, dtype=jnp.float32), reverse=True)[1]
    return jnp.concatenate([jnp.zeros(1, jnp.float32), jnp.cumsum(jnp.log(ratios[: CELLS - 1]))])
