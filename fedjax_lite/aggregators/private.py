"""Central differential privacy of clients: clipped messages, a fixed divisor, Gaussian noise on the sum."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fedjax_lite.aggregators.sums import sum_rows
from fedjax_lite.aggregators.weights import Weights, weighs, weight_of
from fedjax_lite.base import Aggregator, Client, Key, Mechanism, Number, Tree
from fedjax_lite.clip import clipped, clipped_by_leaf, norm_of, normal_like
from fedjax_lite.refuse import is_number, positive
from fedjax_lite.tree import wide

BIT_NOISE = 0.05  # of the clients a round
ROOM = 4  # sigma_b over s z at least: then z_v is at most (1 - 1/16)^(-1/2) z


def dp_mean(
    clip: Number,
    noise_multiplier: Number,
    clients_per_round: Number,
    weights: Weights = "uniform",
    cap: Number | None = None,
    per_leaf: bool = False,
    quantile: Number | None = None,
    clip_rate: Number = 0.2,
    bit_noise: Number | None = None,
) -> Aggregator:
    r"""The mean with differential privacy for each client: clipped, divided by a fixed number, with Gaussian noise (DP-FedAvg).

    (sum_k v_k min(1, C / ||v_k||) + N(0, (z C)^2 I)) / (q W),   v_k = w_k m_k,  w_k in [0, 1].

    With `quantile` gamma the clip norm follows that quantile of the norms, a client counting w_k, itself private:
    b_k = 1 if ||v_k|| <= C, else 0;  C <- C exp(-eta (sum_k w_k (b_k - gamma) + N(0, sigma_b^2)) / (q W)), after its use in the round.
    One client moves this sum by at most s = max(gamma, 1 - gamma), so the other's noise is z_v = (z^-2 - (s / sigma_b)^2)^(-1/2), and
    both together cost z. However many clients come, and whatever they weigh, C rests where the quantile is. (The paper counts b_k - 1/2:
    then s = 1/2 for any gamma, but C rests there only if q W is right.)

    Guarantees:
        1. One client more or less moves the sum before noise by at most C, for any message it sends, finite or not (up to rounding).
        2. The divisor does not depend on who takes part.
        3. Noise is drawn once for the aggregate, anew in each round, whatever the lanes, chunks and devices, and whatever the data.
        4. A round without clients releases noise too.
        5. Sum and quantile together are one Gaussian mechanism with the multiplier z.
    With a sampler that `fl.privacy.account` knows they add up to an epsilon. Noise is drawn in float32:
    docs/privacy.md says what that leaks.

    Args:
        clip: C > 0, the norm over all of a message, in its units; with `quantile` that of the first round.
        noise_multiplier: z >= 0; 0 is no noise and no guarantee.
        clients_per_round: q W > 0, how many clients a round has in expectation, not how many it has; with other weights the sum of all
            clients' w_k, times the sampling rate.
        weights: "uniform" (w = 1), "examples" (w = min(n, cap) / cap), an array `[population]`, a function of the `Client`; in [0, 1].
        cap: how many examples count fully, for "examples".
        per_leaf: cut each of the L leaves to C / sqrt(L), instead of all together to C.
        quantile: gamma in (0, 1), for a clip norm that adapts; None keeps it fixed. The usual choice is 0.5.
        clip_rate: eta > 0.
        bit_noise: sigma_b > s z, in clients; by default max(q W / 20, 4 s z): a twentieth of a round's clients as in the paper, and more
            where z is large, so that z_v is at most 3.3 % above z.

    Returns:
        An aggregator that adds, with metrics "clip_norm" (C of this round), "clipped" (the part of the clients that were cut) and
        "noise_to_signal" (the norm of the noise over that of the sum); the last two are computed from clients' data without noise.

    Raises:
        ValueError: for numbers out of range; for "examples" without a cap, under which no bound holds.

    >>> import fedjax_lite as fl
    >>> stack, cohort = jnp.array([3.0, 0.5]), fl.sampling.cohort(jax.random.key(0), jnp.ones(2, int), jnp.arange(2))
    >>> aggregator = dp_mean(clip=1.0, noise_multiplier=0.0, clients_per_round=2)
    >>> mean, _, metrics = aggregator.finish(aggregator.collect(stack, cohort, ()), (), jax.random.key(1))
    >>> float(mean), float(metrics["clipped"])
    (0.75, 0.5)

    Source: McMahan et al. 2018, "Learning differentially private recurrent language models", algorithm 1 (f_f); Andrew et al. 2021,
    "Differentially private learning with adaptive clipping", algorithm 1 and theorem 1.
    """
    positive("dp_mean", "clip", clip)
    positive("dp_mean", "noise_multiplier", noise_multiplier, or_zero=True)
    positive("dp_mean", "clients_per_round", clients_per_round)
    positive("dp_mean", "clip_rate", clip_rate)
    if isinstance(weights, str) and weights == "examples" and cap is None:
        raise ValueError('dp_mean: weights="examples" needs cap: without one a client with many examples moves the sum without a bound')
    if not isinstance(quantile, jax.Array | None) and not (is_number(quantile) and 0 < quantile < 1):
        raise ValueError(f"dp_mean: quantile must be between 0 and 1, or None for a fixed clip norm, got {quantile!r}")
    moved, sigma = (0, 0) if quantile is None else _bit_noise(quantile, noise_multiplier, clients_per_round, bit_noise)
    weigh = weight_of("dp_mean", weights, cap)
    parts = _Parts(clip, noise_multiplier, clients_per_round, weigh, cap, per_leaf, quantile, clip_rate, moved, sigma)
    functions = (partial(_init, parts), partial(_collect, parts), partial(_finish, parts))
    return Aggregator(*functions, additive=True, privacy=Mechanism(noise_multiplier), weighs=weighs(weights))


class _Parts(NamedTuple):
    """What `dp_mean` is made of."""

    clip: Number
    z: Number
    clients: Number  # a round
    weigh: Callable[[Client], Any]
    cap: Number | None
    per_leaf: bool
    quantile: Number | None
    clip_rate: Number
    moved: Number  # by how much one client moves the count of the unclipped at most
    sigma: Number  # the noise on it


def _init(parts: _Parts, message: Tree) -> Tree:
    """Begin at the clip norm that is given, where it is to move."""
    del message
    return () if parts.quantile is None else jnp.asarray(parts.clip, jnp.result_type(float))


def _collect(parts: _Parts, messages: Tree, cohort: Client, state: Tree) -> Tree:
    """Add the cohort's messages, each cut to the clip norm."""
    most = parts.clip if parts.quantile is None else state
    return sum_rows(partial(_cut, parts, most), cohort.weight > 0, messages, cohort)


def _cut(parts: _Parts, most: Number, message: Tree, client: Client) -> tuple[tuple[Tree, Array, float], Any]:
    """Weigh a client's message and cut it to the norm `most`; beside it, the client's pull at that norm."""
    weight = parts.weigh(client) / (1 if parts.cap is None else parts.cap)
    weight = jnp.clip(jnp.nan_to_num(weight), 0, 1)
    here = jax.tree.map(lambda x: jnp.where(client.weight > 0, wide(x), 0), message)
    weighted = jax.tree.map(lambda x: x * weight.astype(x.dtype), here)
    short, norm = (clipped_by_leaf if parts.per_leaf else clipped)(weighted, most)
    pull = () if parts.quantile is None else weight * (jnp.where(norm <= most, 1.0, 0.0) - parts.quantile)
    return (short, jnp.where(norm <= most, 0.0, 1.0), 1.0), pull


def _finish(parts: _Parts, part: Tree, state: Tree, key: Key) -> tuple[Tree, Tree, dict[str, Array]]:
    """Add noise to the sums of a part and divide; with a quantile the clip norm follows it."""
    sums, pull = part
    most = parts.clip if parts.quantile is None else state
    deviation = parts.z * most
    if parts.quantile is not None:
        deviation = deviation / jnp.sqrt(_remaining(parts))
        state = _follow(parts, pull, state, jax.random.fold_in(key, 1))
    noise = normal_like(jax.random.fold_in(key, 0), sums[0], deviation)
    mean, metrics = noised(sums, noise, most, parts.clients)
    return mean, state, metrics


def _remaining(parts: _Parts) -> Array:
    """Compute which part of 1 / z^2 the quantile leaves to the sum: (z / z_v)^2."""
    return 1 - jnp.where(parts.sigma > 0, parts.moved * parts.z / jnp.where(parts.sigma > 0, parts.sigma, 1), 0) ** 2


def _follow(parts: _Parts, pull: Array, clip: Array, key: Key) -> Array:
    """Move the clip norm by the clients' pull, with noise on it."""
    above = (pull + parts.sigma * jax.random.normal(key)) / parts.clients
    return (clip * jnp.exp(-parts.clip_rate * above)).astype(clip.dtype)


def noised(sums: tuple[Tree, Array, Array], noise: Tree, clip: Number, clients_per_round: Number) -> tuple[Tree, dict[str, Array]]:
    """The mean of `dp_mean`'s sums (messages, how many were cut, how many there are) with this noise, and the metrics of that."""
    total, cut, clients = sums
    mean = jax.tree.map(lambda x, y: (x + y) / jnp.asarray(clients_per_round, x.dtype), total, noise)
    return mean, {
        "clip_norm": jnp.asarray(clip, jnp.float32),
        "clipped": cut / jnp.maximum(clients, 1),
        "noise_to_signal": norm_of(noise) / norm_of(total),
    }


def _bit_noise(quantile: Number, z: Number, clients_per_round: Number, bit_noise: Number | None) -> tuple[Number, Number]:
    """By how much one client moves the count of the unclipped at most, and the noise on it."""
    moved = _larger(quantile, 1 - quantile)
    least = moved * z
    if bit_noise is None:
        return moved, _larger(BIT_NOISE * clients_per_round, ROOM * least)
    positive("dp_mean", "bit_noise", bit_noise, or_zero=True)
    if not isinstance(least, jax.Array) and not isinstance(bit_noise, jax.Array) and 0 < least and least >= bit_noise:
        raise ValueError(
            f"dp_mean: bit_noise={bit_noise} must be above max(quantile, 1 - quantile) * noise_multiplier = {least:.6g}, or nothing is "
            f"left for the sum: raise it, or leave it out for {ROOM * least:.6g} at least"
        )
    return moved, bit_noise


def _larger(x: Number, y: Number) -> Number:
    return jnp.maximum(x, y) if isinstance(x, jax.Array) or isinstance(y, jax.Array) else max(x, y)
