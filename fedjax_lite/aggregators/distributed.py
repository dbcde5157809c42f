"""Distributed differential privacy: clients round, add integer noise of their own, and upload numbers of a few bits that add modulo 2^b."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fedjax_lite.aggregators.stack import sum_rows
from fedjax_lite.base import Aggregator, Client, Key, Mechanism, Number, Tree
from fedjax_lite.privacy import discrete
from fedjax_lite.privacy.norms import clipped
from fedjax_lite.refuse import positive, whole
from fedjax_lite.uplink.rotation import BLOCK, check_block, rotated, rotated_back

STANDARD_DEVIATIONS = 4  # k: how many of them the sum's range is to hold
SLACK = 1e-5  # of the clip norm, for what float32 loses in clipping, rotating and measuring
ATTEMPTS = 100  # at rounding; more are needed with a probability of exp(-50)
LARGEST = 2**30  # of a number before noise; clipping coordinates keeps a norm's bound
_NOISE, _ROUNDING, _SIGNS = np.uint32(2**32 - 3), np.uint32(2**32 - 4), 0xDD9  # of clients' keys; of rounds


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
        4. Of n clients the noise on the sum has the standard deviation z C, and `privacy.divergence` is the Renyi divergence of a round.
    The fourth is for n clients in every round: take a sampler of a fixed number. If h < n upload, the noise is that of z sqrt(h / n) and
    protects less; a round of none has no noise at all. It holds against a server that sees nothing but the sum, as a secure sum lets it;
    a client that colludes takes its own share off. No amplification by sampling is claimed: `fl.privacy.epsilon_of` counts the rounds
    in which a client takes part.

    Args:
        clip: C > 0, the norm over all of a message, in its units.
        noise_multiplier: z >= 0; 0 is no noise and no guarantee.
        clients_per_round: n >= 1, how many clients a round has.
        dimension: d, how many coordinates a message has with the padding of the rotation, `padded(message, block)`. What a round gives
            away depends on it, and is told before any message is seen.
        bits: b, 2 to 32, a coordinate.
        granularity: gamma, in message units; by default the least for which 2^b gamma holds 4 standard deviations of the sum on either
            side, if messages are spread over their leaves: gamma^2 (4^b / (2k)^2 - n / 4) = C^2 (n^2 / d + z^2), k = 4.
        block: the most coordinates that are rotated together, a power of two.

    Returns:
        An aggregator that adds, of uint32 modulo 2^32, which 2^b divides; with metrics "clip_norm" (C), "clipped" (the part of the clients
        that were cut) and "wrapped" (the part of the coordinates whose sum left the range and came back at its other end: more bits, or
        a coarser granularity). The last two are computed from clients' data without noise, and the last only a simulation can see.

    Raises:
        ValueError: for numbers out of range, or too few bits for so many clients; when traced, for messages of another dimension.

    >>> import fedjax_lite as fl
    >>> stack, cohort = jnp.array([[3.0, 4.0], [0.5, 0.0]]), fl.sampling.cohort(jax.random.key(0), jnp.ones(2, int), jnp.arange(2))
    >>> aggregator = ddgauss(clip=1.0, noise_multiplier=0.0, clients_per_round=2, dimension=2)
    >>> state = aggregator.init(stack[0])
    >>> mean, state, metrics = aggregator.finish(jax.jit(aggregator.collect)(stack, cohort, state), state, jax.random.key(1))
    >>> [round(float(x), 2) for x in mean], float(metrics["clipped"])
    ([0.55, 0.4], 0.5)

    Source: Kairouz, Liu and Steinke 2021, "The distributed discrete Gaussian mechanism for federated learning with secure
    aggregation", algorithms 1 and 2 (here with a rotation of each leaf, in blocks).
    """
    noise = discrete.discrete_gaussian
    return _distributed(
        "ddgauss", noise, discrete.ddgauss_divergence, clip, noise_multiplier, clients_per_round, dimension, bits, granularity, block
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

    def noise(key, shape, deviation):
        return discrete.skellam(key, shape, deviation**2)

    return _distributed(
        "skellam", noise, discrete.skellam_divergence, clip, noise_multiplier, clients_per_round, dimension, bits, granularity, block
    )


def padded(message: Tree, block: int = BLOCK) -> int:
    """How many coordinates a message has in the rotation, where each leaf is padded to rows of a power of two.

    >>> padded({"w": jnp.zeros((3, 2)), "b": jnp.zeros(())})
    9
    """
    check_block("padded", block)
    return sum(x.size for x in _shapes(jax.tree.leaves(message), block))


def _distributed(
    name: str,
    noise: Callable[[Key, tuple[int, ...], Number], Array],
    divergence: Callable[..., float],
    clip: Number,
    z: Number,
    clients: int,
    dimension: int,
    bits: int,
    granularity: Number | None,
    block: int,
) -> Aggregator:
    positive(name, "clip", clip)
    positive(name, "noise_multiplier", z, or_zero=True)
    whole(name, "clients_per_round", clients, least=1)
    whole(name, "dimension", dimension, least=1)
    check_block(name, block)
    if not 2 <= bits <= 32:
        raise ValueError(f"{name}: bits must be from 2 to 32, got {bits}")
    gamma = _granularity(name, clip, z, clients, dimension, bits) if granularity is None else granularity
    positive(name, "granularity", gamma)
    most = clip * (1 + SLACK)
    bound = discrete.squared_norm_bound(most / gamma, dimension)

    def collect(messages, cohort, state):
        signs = jax.random.fold_in(jax.random.key(_SIGNS), state)

        def each(message, client: Client):
            short, norm = clipped(message, clip)
            rows = [rotated(k, x / gamma, block) for k, x in _keyed(signs, jax.tree.leaves(short))]
            turned = jnp.concatenate([x.reshape(-1) for x in rows])
            if turned.size != dimension:
                raise ValueError(
                    f"{name}: dimension={dimension}, but messages have {turned.size} coordinates with the padding of the rotation: take "
                    f"dimension={turned.size}, what fl.aggregators.padded(params, block) gives"
                )
            numbers = _rounded(jax.random.fold_in(client.key, _ROUNDING), turned, bound)
            share = noise(jax.random.fold_in(client.key, _NOISE), turned.shape, z * clip / (gamma * np.sqrt(clients)))
            return jax.lax.bitcast_convert_type(numbers + share, jnp.uint32), jnp.where(norm <= clip, 0.0, 1.0), 1.0

        # Rows of no client add up to rows of no client: they tell finish the shapes.
        return sum_rows(each, cohort.weight > 0, messages, cohort), jax.tree.map(lambda x: x[:0], messages)

    def finish(part, state, key):
        del key
        (total, cut, count), shapes = part
        signed = jax.lax.bitcast_convert_type(total << (32 - bits), jnp.int32) >> (32 - bits)
        wrapped = jnp.sum(signed != jax.lax.bitcast_convert_type(total, jnp.int32))
        signs = jax.random.fold_in(jax.random.key(_SIGNS), state)
        leaves, structure = jax.tree.flatten(shapes)
        likes = [jnp.zeros(x.shape[1:], jnp.promote_types(x.dtype, jnp.float32)) for x in leaves]
        rows = _shapes(likes, block)
        parts = jnp.split(signed, np.cumsum([x.size for x in rows])[:-1])
        scaled = [x.reshape(row.shape).astype(row.dtype) * (gamma / clients) for x, row in zip(parts, rows, strict=True)]
        back = [rotated_back(k, x, like) for (k, x), like in zip(_keyed(signs, scaled), likes, strict=True)]
        metrics = {
            "clip_norm": jnp.asarray(clip, jnp.float32),
            "clipped": cut / jnp.maximum(count, 1),
            "wrapped": jnp.asarray(wrapped, jnp.float32) / dimension,
        }
        return jax.tree.unflatten(structure, back), state + 1, metrics

    def of_order(order: int | float) -> float:
        return divergence(order, float(most), float(z) / (1 + SLACK), clients, float(gamma), dimension)

    privacy = Mechanism(z, divergence=of_order, shares=clients)
    return Aggregator(lambda message: jnp.int32(0), collect, finish, additive=True, sums_only=True, privacy=privacy)


def _granularity(name: str, clip: Number, z: Number, clients: int, dimension: int, bits: int) -> Number:
    """2^b gamma = 2k sqrt((rho / d) (C n)^2 + gamma^2 n / 4 + (z C)^2) solved for gamma, with rho = 1."""
    room = 4.0**bits / (2 * STANDARD_DEVIATIONS) ** 2 - clients / 4
    if room <= 0:
        raise ValueError(f"{name}: the sum of clients_per_round={clients} roundings does not fit in bits={bits}: take more bits")
    return clip * ((clients**2 / dimension + z**2) / room) ** 0.5


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


def _keyed(key: Key, leaves: list[Any]) -> list[tuple[Key, Any]]:
    return [(jax.random.fold_in(key, i), x) for i, x in enumerate(leaves)]


def _shapes(leaves: list[Any], block: int) -> list[Any]:
    """Of the leaves' rows in the rotation."""
    return jax.eval_shape(lambda leaves: [rotated(jax.random.key(0), x, block) for x in leaves], leaves)
