"""Differential privacy without sampling: clipped messages, and noise that is correlated over rounds."""

from typing import Literal

import jax
import jax.numpy as jnp

from fedjax_lite.aggregators.private import dp_mean, noised
from fedjax_lite.base import Aggregator, Mechanism, Number
from fedjax_lite.privacy.correlated import Strategy, banded, independent, tree
from fedjax_lite.refuse import positive, whole

STRATEGIES = ("banded", "optimised", "tree", "independent")


def dp_ftrl(
    clip: Number,
    noise_multiplier: Number,
    clients_per_round: Number,
    rounds: int,
    strategy: Literal["banded", "optimised", "tree", "independent"] | Strategy = "banded",
    bands: int = 8,
) -> Aggregator:
    r"""The mean with differential privacy for each client by noise that later rounds partly take back, so none need be sampled (DP-FTRL).

    (sum_k m_k min(1, C / ||m_k||) + z C n_t) / M,   n = S^-1 w,   w_t ~ N(0, I).

    S, the strategy, is a lower-triangular matrix over rounds with ones on its diagonal. A run is one Gaussian mechanism with the
    multiplier z / ||S u||, where u marks the rounds in which a client takes part: for one time z over the largest norm of a column of S;
    the strategy's `sensitivity` has it for k times at least s rounds apart. With SGD at the server the model is moved by the noisy sum over
    rounds, whose noise is what the strategies keep small; any optimizer will do.

    Guarantees:
        1. One client more or less moves each round's sum before noise by at most C, for any message it sends, finite or not (up to
           rounding). Over all rounds together it moves S G by at most C times the strategy's sensitivity.
        2. The divisor does not depend on who takes part.
        3. Noise is drawn once for the aggregate, whatever the lanes, chunks and devices, and whatever the data.
        4. A round without clients releases noise too.
        5. After `rounds` nothing more is given away: the aggregate is NaN, and no tree is begun anew.
    It holds though messages depend on what was released before, and for a sampler that keeps to k and s, such as
    `fl.sampling.cyclic`. Noise is drawn in float32: docs/privacy.md.

    Args:
        clip: C > 0, the norm over all of a message, in its units.
        noise_multiplier: z >= 0, the standard deviation of a round's fresh noise over C; 0 is no noise and no guarantee.
        clients_per_round: M > 0, the planned number of clients a round, not the number present.
        rounds: T >= 1, how many the run has at most.
        strategy: "banded" (best where a client takes part at most every `bands` rounds), "optimised" (banded, with the least mean
            error, by jax-privacy), "tree", "independent" (as `dp_mean`); or one of your own.
        bands: b >= 1, for the banded strategies; the state holds b - 1 sums of messages in float32 or wider, a tree's floor(log2 T) + 1.

    Returns:
        An aggregator that adds, with metrics "clip_norm" (C), "clipped" (the part of the clients that were cut) and
        "noise_to_signal" (the norm of the noise over that of the sum); the last two are computed from clients' data without noise.

    Raises:
        ValueError: for numbers out of range, an unknown strategy, or one made for fewer rounds.

    >>> import fedjax_lite as fl
    >>> stack, cohort = jnp.array([3.0, 0.5]), fl.sampling.cohort(jax.random.key(0), jnp.ones(2, int), jnp.arange(2))
    >>> aggregator = dp_ftrl(clip=1.0, noise_multiplier=0.0, clients_per_round=2, rounds=100)
    >>> state = aggregator.init(jnp.zeros(()))
    >>> mean, state, metrics = aggregator.finish(aggregator.collect(stack, cohort, state), state, jax.random.key(1))
    >>> float(mean), float(metrics["clipped"])
    (0.75, 0.5)

    Source: Kairouz et al. 2021, "Practical and private (deep) learning without sampling or shuffling", algorithm 1; Denisov et al. 2022,
    "Improved differential privacy for SGD via optimal private linear operators on adaptive streams", theorem 2.1; Choquette-Choo et
    al. 2023, "(Amplified) banded matrix factorization: a unified approach to private training".
    """
    positive("dp_ftrl", "clip", clip)
    positive("dp_ftrl", "noise_multiplier", noise_multiplier, or_zero=True)
    positive("dp_ftrl", "clients_per_round", clients_per_round)
    whole("dp_ftrl", "rounds", rounds, least=1)
    whole("dp_ftrl", "bands", bands, least=1)
    clipped = dp_mean(clip, 0.0, clients_per_round)  # only `collect` is used: the clipped sums, without noise
    chosen = _strategy(strategy, rounds, bands)
    chosen.sensitivity(1, 1, rounds)  # refuses a strategy made for fewer rounds

    def finish(part, state, key):
        round, before = state
        sums, _ = part
        noise, after = chosen.draw(before, round, key, sums[0])
        deviation = jnp.where(round < rounds, noise_multiplier * clip, jnp.nan)
        noise = jax.tree.map(lambda n: deviation.astype(n.dtype) * n, noise)
        mean, metrics = noised(sums, noise, clip, clients_per_round)
        return mean, (round + 1, after), metrics

    return Aggregator(
        init=lambda message: (jnp.int32(0), chosen.init(message)),
        collect=lambda messages, cohort, state: clipped.collect(messages, cohort, ()),
        finish=finish,
        additive=True,
        privacy=Mechanism(
            noise_multiplier, sensitivity=lambda times, separation: chosen.sensitivity(times, separation, rounds), rounds=rounds
        ),
    )


def _strategy(strategy: str | Strategy, rounds: int, bands: int) -> Strategy:
    """Return `strategy` itself, or make the strategy of this name; refuse an unknown name."""
    if isinstance(strategy, Strategy):
        return strategy
    if strategy not in STRATEGIES:
        raise ValueError(f"dp_ftrl: strategy must be one of {', '.join(STRATEGIES)}, or a Strategy, got {strategy!r}")
    if strategy == "tree":
        return tree(rounds)
    return independent() if strategy == "independent" else banded(rounds, bands, optimise=strategy == "optimised")
