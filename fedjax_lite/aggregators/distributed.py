"""Distributed differential privacy: clients round, add integer noise of their own, and upload numbers of a few bits that add modulo 2^b."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fedjax_lite.aggregators.flat import flatten, unflatten
from fedjax_lite.aggregators.granularity import SLACK, settle
from fedjax_lite.aggregators.sums import sum_rows
from fedjax_lite.base import Aggregator, Client, Key, Mechanism, Number, Tree
from fedjax_lite.clip import clipped
from fedjax_lite.privacy import discrete
from fedjax_lite.refuse import positive, whole
from fedjax_lite.uplink.rotation import BLOCK, check_block

ATTEMPTS = 100  # at rounding; more are needed with a probability of exp(-50)
LARGEST = 2**30  # of a number before noise; clipping coordinates keeps a norm's bound
_NOISE, _ROUNDING, _SIGNS = np.uint32(2**32 - 3), np.uint32(2**32 - 4), 0xDD9  # of clients' keys; of rounds


class _Noise(NamedTuple):
    name: str
    draw: Callable[[Key, tuple[int, ...], Number], Array]  # key, shape, standard deviation -> int32
    divergence: Callable[..., float]


def ddgauss(
    clip: Number,
    noise_multiplier: Number,
    clients_per_round: int,
    dimension: int,
    bits: int = 16,
    granularity: Number | None = None,
    block: int = BLOCK,
) -> Aggregator:
    r"""The mean with distributed differential privacy: each client adds its share of discrete Gaussian noise.

    y_k = round(R min(1, C / ||m_k||) m_k / gamma) + N_Z(0, (z C / gamma)^2 / n)  mod 2^b;   mean = (gamma / n) R^-1 (sum_k y_k  mod 2^b),

    the sum as a signed number, R random signs and a Hadamard transform that all clients of a round share, and rounding up or down at
    random, without bias, repeated until ||.||^2 <= x^2 + d/4 + x + sqrt(d)/2 with x = C / gamma.

    Guarantees:
        1. One client's message in place of zeros moves the sum before noise by at most gamma times the norm above, with C a relative
           1e-5 larger for float32, for any message it sends, finite or not.
        2. The divisor n does not depend on who takes part.
        3. Noise is a function of each client's own key, and whole numbers add in any order to the same bits: lanes, chunks and devices
           change the aggregate only as far as their floats tip a message's rounding.
        4. Of n clients the noise on the sum has the standard deviation z C, and `privacy.divergence` bounds the Renyi divergence of a
           round whose noise is exact.
    Noise as it is drawn here is not exact: each number is within 1e-6 of it in total variation and ends at about 6.4 standard deviations,
    so that it leaks a little, as continuous noise in float32 does. The fourth is for n clients in every round: take `fl.sampling.cyclic` or
    `everyone`. If h < n upload, the noise is that of z sqrt(h / n) and protects less; a round of none has no noise at all. A client
    without examples sends nothing, so its noise is missing too. It holds against a server that sees nothing but the sum, as a secure
    sum lets it; a client that colludes takes its own share off. No amplification by sampling is claimed: `fl.privacy.epsilon_of` counts
    the rounds in which a client takes part.

    Args:
        clip: C > 0, the norm over all of a message, in its units.
        noise_multiplier: z >= 0; 0 is no noise and no guarantee.
        clients_per_round: n >= 1, how many clients a round has.
        dimension: d, how many coordinates a message has with the padding of the rotation, `padded_size(message, block)`. What a round gives
            away depends on it, and is told before any message is seen.
        bits: b, 2 to 32, a coordinate.
        granularity: gamma, in message units; by default the least for which 2^b gamma holds 4 standard deviations of the sum on either
            side, if every block has its part of a message's norm, and a client's noise is at most 2^27 gamma wide:
            gamma^2 min(4^b / (2k)^2 - n / 4, 4^27 n) = C^2 (n^2 / d + z^2), k = 4.
        block: the most coordinates that are rotated together, a power of two. Of B blocks the first has every B-th coordinate of the
            message as one flat vector, so that each has some of every leaf.

    Returns:
        An aggregator that adds, of uint32 modulo 2^32, which 2^b divides; with metrics "clip_norm" (C), "clipped" (the part of the clients
        that were cut) and "wrapped" (the part of the coordinates whose sum left the range and came back at its other end: more bits, or
        a coarser granularity). The last two are computed from clients' data without noise, and the last only a simulation can see.
        A round's metric "uplink_bits" counts d b bits a client, whatever the uplink's compressors do.

    Raises:
        ValueError: for numbers out of range, a granularity that is too fine for the noise or for sums of 32 bits among them, or too few
            bits for so many clients; when traced, for messages of another dimension.

    >>> import fedjax_lite as fl
    >>> stack, cohort = jnp.array([[3.0, 4.0], [0.5, 0.0]]), fl.sampling.cohort(jax.random.key(0), jnp.ones(2, int), jnp.arange(2))
    >>> aggregator = ddgauss(clip=1.0, noise_multiplier=0.0, clients_per_round=2, dimension=2)
    >>> state = aggregator.init(stack[0])
    >>> mean, state, metrics = aggregator.finish(jax.jit(aggregator.collect)(stack, cohort, state), state, jax.random.key(1))
    >>> [round(float(x), 2) for x in mean], float(metrics["clipped"])
    ([0.55, 0.4], 0.5)

    Source: Kairouz, Liu and Steinke 2021, "The distributed discrete Gaussian mechanism for federated learning with secure
    aggregation", algorithms 1 and 2 (here with a rotation in blocks).
    """
    return _distributed(
        _Noise("ddgauss", discrete.discrete_gaussian, discrete.ddgauss_divergence),
        clip=clip,
        z=noise_multiplier,
        clients=clients_per_round,
        dimension=dimension,
        bits=bits,
        granularity=granularity,
        block=block,
    )


def skellam(
    clip: Number,
    noise_multiplier: Number,
    clients_per_round: int,
    dimension: int,
    bits: int = 16,
    granularity: Number | None = None,
    block: int = BLOCK,
) -> Aggregator:
    r"""The mean with distributed differential privacy: as `ddgauss`, with Skellam noise, whose sums are Skellam again.

    y_k = round(R min(1, C / ||m_k||) m_k / gamma) + Poisson(mu / 2) - Poisson(mu / 2)  mod 2^b,   mu = (z C / gamma)^2 / n.

    Guarantees: as `ddgauss`; of h < n clients exactly those of z sqrt(h / n), for any h.

    Args, Returns and Raises: as `ddgauss`.

    >>> aggregator = skellam(clip=1.0, noise_multiplier=1.0, clients_per_round=100, dimension=4096)
    >>> round(discrete.epsilon_of(aggregator.privacy.divergence, rounds=1, delta=1e-5), 3)
    4.753

    Source: Agarwal, Kairouz and Liu 2021, "The Skellam mechanism for differentially private federated learning", algorithm 1.
    """

    return _distributed(
        _Noise("skellam", lambda key, shape, deviation: discrete.draw_skellam(key, shape, deviation**2), discrete.skellam_divergence),
        clip=clip,
        z=noise_multiplier,
        clients=clients_per_round,
        dimension=dimension,
        bits=bits,
        granularity=granularity,
        block=block,
    )


def _distributed(
    noise: _Noise,
    *,
    clip: Number,
    z: Number,
    clients: int,
    dimension: int,
    bits: int,
    granularity: Number | None,
    block: int,
) -> Aggregator:
    """Make the aggregator whose clients draw shares of the noise."""
    _check(noise.name, clip, z, clients, dimension, bits, block)
    gamma, deviation = settle(noise.name, clip, z, clients, dimension, bits, granularity)
    bound = discrete.squared_norm_bound(clip * (1 + SLACK) / gamma, dimension)
    parts = _Parts(noise, clip, z, clients, dimension, int(bits), block, gamma, deviation, bound)
    privacy = Mechanism(z, divergence=partial(_divergence, parts), shares=clients)
    takes = float(parts.bits * dimension)
    functions = (lambda message: jnp.int32(0), partial(_collect, parts), partial(_finish, parts))
    return Aggregator(*functions, True, True, privacy, lambda message: takes)


class _Parts(NamedTuple):
    """What clients' numbers, and the mean of them, are made of."""

    noise: _Noise
    clip: Number
    z: Number
    clients: int
    dimension: int
    bits: int
    block: int
    gamma: Number
    deviation: Number  # of a client's noise, in steps of gamma
    bound: Number  # on the squared norm of a client's numbers before noise


def _check(name: str, clip: Number, z: Number, clients: int, dimension: int, bits: int, block: int) -> None:
    """Refuse numbers out of range."""
    positive(name, "clip", clip)
    positive(name, "noise_multiplier", z, or_zero=True)
    whole(name, "clients_per_round", clients, least=1)
    whole(name, "dimension", dimension, least=1)
    whole(name, "block", block, least=1)
    check_block(name, block)
    whole(name, "bits", bits)
    if not 2 <= bits <= 32:
        raise ValueError(f"{name}: bits must be from 2 to 32, got {bits}")


def _collect(parts: _Parts, messages: Tree, cohort: Client, state: Array) -> tuple[Tree, Tree]:
    """Add the uploads of the cohort's messages."""
    signs = jax.random.fold_in(jax.random.key(_SIGNS), state)
    # Rows of no client add up to rows of no client: they tell finish the shapes.
    return sum_rows(partial(_upload, parts, signs), cohort.weight > 0, messages, cohort), jax.tree.map(lambda x: x[:0], messages)


def _upload(parts: _Parts, signs: Key, message: Tree, client: Client) -> tuple[Array, Array, float]:
    """Clip, rotate and round a client's message and add noise; beside it whether it was cut, and 1 to count it."""
    short, norm = clipped(message, parts.clip)
    flat = flatten(signs, short, parts.block) / parts.gamma
    if flat.size != parts.dimension:
        raise ValueError(
            f"{parts.noise.name}: dimension={parts.dimension}, but messages have {flat.size} coordinates with the padding of the rotation: "
            f"take dimension={flat.size}, what fl.aggregators.padded_size(params, block) gives"
        )
    numbers = _rounded(jax.random.fold_in(client.key, _ROUNDING), flat, parts.bound)
    share = parts.noise.draw(jax.random.fold_in(client.key, _NOISE), flat.shape, parts.deviation)
    return jax.lax.bitcast_convert_type(numbers + share, jnp.uint32), jnp.where(norm <= parts.clip, 0.0, 1.0), 1.0


def _finish(parts: _Parts, part: tuple[Tree, Tree], state: Array, key: Key) -> tuple[Tree, Array, dict[str, Array]]:
    """Read a part's sum modulo 2^b as signed numbers, and turn it back into the mean message."""
    del key
    (total, cut, count), shapes = part
    signed = jax.lax.bitcast_convert_type(total << (32 - parts.bits), jnp.int32) >> (32 - parts.bits)
    wrapped = jnp.sum(signed != jax.lax.bitcast_convert_type(total, jnp.int32))
    signs = jax.random.fold_in(jax.random.key(_SIGNS), state)
    like = jax.tree.map(lambda x: jnp.zeros(x.shape[1:], jnp.promote_types(x.dtype, jnp.float32)), shapes)
    numbers = signed.astype(jnp.result_type(*jax.tree.leaves(like))) * (parts.gamma / parts.clients)
    mean = unflatten(signs, numbers, like, parts.block)
    metrics = {
        "clip_norm": jnp.asarray(parts.clip, jnp.float32),
        "clipped": cut / jnp.maximum(count, 1),
        "wrapped": jnp.asarray(wrapped, jnp.float32) / parts.dimension,
    }
    return mean, state + 1, metrics


def _divergence(parts: _Parts, order: int | float) -> float:
    """Bound the Renyi divergence of an order that one round has, with room for float32."""
    most, z = float(parts.clip * (1 + SLACK)), float(parts.z) / (1 + SLACK)
    return parts.noise.divergence(order, most, z, parts.clients, float(parts.gamma), parts.dimension)


def _rounded(key: Key, x: Float[Array, " d"], bound: Number) -> Int[Array, " d"]:
    """Each number up or down at random, without bias, again until the squared norm is within the bound."""

    def whole_numbers(x):
        return jnp.clip(x, -LARGEST, LARGEST).astype(jnp.int32)  # of a fraction toward 0

    def once(attempt):
        up = jax.random.uniform(jax.random.fold_in(key, attempt), x.shape, x.dtype) < x - jnp.floor(x)
        return whole_numbers(jnp.floor(x) + up)

    def too_long(numbers):
        return ~(jnp.sum(jnp.square(numbers.astype(x.dtype))) <= bound)

    def again(carry):
        attempt, _ = carry
        return attempt + 1, once(attempt)

    _, numbers = jax.lax.while_loop(lambda carry: (carry[0] < ATTEMPTS) & too_long(carry[1]), again, (jnp.int32(1), once(0)))
    return jnp.where(too_long(numbers), whole_numbers(x), numbers)  # which is no longer than x
