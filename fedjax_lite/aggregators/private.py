"""Central differential privacy of clients: clipped messages, a fixed divisor, Gaussian noise on the sum."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fedjax_lite.aggregators.stack import sum_rows
from fedjax_lite.aggregators.weights import Weights, weight_of
from fedjax_lite.base import Aggregator, Client, Mechanism, Number, Tree
from fedjax_lite.privacy.norms import clipped, clipped_by_leaf, norm_of, normal_like
from fedjax_lite.refuse import positive

BIT_NOISE = 0.05  # of the clients a round


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

    With `quantile` gamma the clip norm follows that quantile of the norms, itself private:
    b_k = 1 if ||v_k|| <= C, else 0;  b = 1/2 + (sum_k (b_k - 1/2) + N(0, sigma_b^2)) / (q W);  C <- C exp(-eta (b - gamma)),
    after its use in the round, and the sum's noise is z_v = (z^-2 - (2 sigma_b)^-2)^(-1/2), so that both together cost z.

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
        bit_noise: sigma_b > z / 2; by default a twentieth of `clients_per_round`.

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
    if isinstance(quantile, int | float) and not 0 < quantile < 1:
        raise ValueError(f"dp_mean: quantile must be between 0 and 1, or None for a fixed clip norm, got {quantile}")
    bit_noise = BIT_NOISE * clients_per_round if bit_noise is None else bit_noise
    positive("dp_mean", "bit_noise", bit_noise, or_zero=True)
    numbers = isinstance(noise_multiplier, int | float) and isinstance(bit_noise, int | float)
    if quantile is not None and numbers and noise_multiplier > 0 and not noise_multiplier < 2 * bit_noise:
        raise ValueError(
            f"dp_mean: bit_noise={bit_noise} must be above noise_multiplier / 2 = {noise_multiplier / 2}, or nothing is left for the sum: "
            "raise it, or take more clients a round"
        )
    weigh = weight_of("dp_mean", weights, cap)

    def collect(messages, cohort, state):
        most = clip if quantile is None else state

        def each(message, client: Client):
            weight = weigh(client) / (1 if cap is None else cap)
            weight = jnp.clip(jnp.nan_to_num(weight), 0, 1)
            weighted = jax.tree.map(lambda x: jnp.where(client.weight > 0, x, 0) * weight.astype(x.dtype), message)
            short, norm = (clipped_by_leaf if per_leaf else clipped)(weighted, most)
            return short, jnp.where(norm <= most, 0.5, -0.5), 1.0

        return sum_rows(each, cohort.weight > 0, messages, cohort)

    def finish(part, state, key):
        total, bits, _ = part
        most = clip if quantile is None else state
        deviation = noise_multiplier * most
        if quantile is not None:
            left = 1 - jnp.where(bit_noise > 0, noise_multiplier / jnp.where(bit_noise > 0, 2 * bit_noise, 1), 0) ** 2
            deviation = deviation / jnp.sqrt(left)
            share = 0.5 + (bits + bit_noise * jax.random.normal(jax.random.fold_in(key, 1))) / clients_per_round
            state = (state * jnp.exp(-clip_rate * (share - quantile))).astype(state.dtype)
        noise = normal_like(jax.random.fold_in(key, 0), total, deviation)
        mean, metrics = noised(part, noise, most, clients_per_round)
        return mean, state, metrics

    def init(message):
        del message
        return () if quantile is None else jnp.asarray(clip, jnp.result_type(float))

    return Aggregator(init, collect, finish, additive=True, privacy=Mechanism(noise_multiplier))


def noised(part: tuple[Tree, Array, Array], noise: Tree, clip: Number, clients_per_round: Number) -> tuple[Tree, dict[str, Array]]:
    """The mean of `dp_mean`'s part with this noise on its sum, and the metrics of that."""
    total, bits, clients = part
    mean = jax.tree.map(lambda x, y: (x + y) / jnp.asarray(clients_per_round, x.dtype), total, noise)
    return mean, {
        "clip_norm": jnp.asarray(clip, jnp.float32),
        "clipped": (0.5 * clients - bits) / jnp.maximum(clients, 1),
        "noise_to_signal": norm_of(noise) / norm_of(total),
    }
