"""Distributed differential privacy: clients round, add integer noise of their own, and upload numbers of a few bits that add modulo 2^b."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fedjax_lite.aggregators.stack import sum_rows
from fedjax_lite.base import Aggregator, Client, Key, Mechanism, Number, Tree
from fedjax_lite.clip import clipped
from fedjax_lite.privacy import discrete
from fedjax_lite.refuse import positive, whole
from fedjax_lite.uplink.rotation import BLOCK, check_block, rotated, rotated_back

STANDARD_DEVIATIONS = 4  # k: how many of them the sum's range is to hold
SLACK = 1e-5  # of the clip norm, for what float32 loses in clipping, rotating and measuring
WORD = 32  # bits in which numbers are added up here: past them nothing can be seen to wrap
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
        dimension: d, how many coordinates a message has with the padding of the rotation, `padded(message, block)`. What a round gives
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
        _Noise("skellam", lambda key, shape, deviation: discrete.skellam(key, shape, deviation**2), discrete.skellam_divergence),
        clip=clip,
        z=noise_multiplier,
        clients=clients_per_round,
        dimension=dimension,
        bits=bits,
        granularity=granularity,
        block=block,
    )


def padded(message: Tree, block: int = BLOCK) -> int:
    """How many coordinates a message has in the rotation, which pads it as one flat vector to blocks of a power of two.

    >>> padded({"w": jnp.zeros((3, 2)), "b": jnp.zeros(())})
    8
    """
    _check_block("padded", block)
    return math.prod(_grid(message, block))


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
    name = noise.name
    positive(name, "clip", clip)
    positive(name, "noise_multiplier", z, or_zero=True)
    whole(name, "clients_per_round", clients, least=1)
    whole(name, "dimension", dimension, least=1)
    _check_block(name, block)
    whole(name, "bits", bits)
    if not 2 <= bits <= 32:
        raise ValueError(f"{name}: bits must be from 2 to 32, got {bits}")
    gamma = _granularity(name, clip, z, clients, dimension, bits) if granularity is None else granularity
    positive(name, "granularity", gamma)
    deviation = z * clip / (gamma * math.sqrt(clients))
    if not isinstance(deviation, jax.Array) and deviation > discrete.WIDEST:
        raise ValueError(
            f"{name}: granularity={gamma} is too fine for the noise, of which a client can draw {discrete.WIDEST:.0f} steps, not "
            f"{deviation:.0f}: take at least {gamma * deviation / discrete.WIDEST:.3g}, or leave it out, and bits={bits} decide"
        )
    finest = clip * ((clients**2 / dimension + z**2) / _room(clients, WORD)) ** 0.5 * (1 - SLACK)
    if granularity is not None and not isinstance(finest, jax.Array) and not isinstance(gamma, jax.Array) and gamma < finest:
        raise ValueError(
            f"{name}: granularity={gamma} is too fine for sums of clients_per_round={clients} in words of {WORD} bits, which would wrap "
            f"around unseen: take at least {finest:.3g}, or leave it out, and bits decide"
        )
    bits = int(bits)
    most = clip * (1 + SLACK)
    bound = discrete.squared_norm_bound(most / gamma, dimension)

    def collect(messages, cohort, state):
        signs = jax.random.fold_in(jax.random.key(_SIGNS), state)

        def each(message, client: Client):
            short, norm = clipped(message, clip)
            turned = _turned(signs, short, block) / gamma
            if turned.size != dimension:
                raise ValueError(
                    f"{name}: dimension={dimension}, but messages have {turned.size} coordinates with the padding of the rotation: take "
                    f"dimension={turned.size}, what fl.aggregators.padded(params, block) gives"
                )
            numbers = _rounded(jax.random.fold_in(client.key, _ROUNDING), turned, bound)
            share = noise.draw(jax.random.fold_in(client.key, _NOISE), turned.shape, deviation)
            return jax.lax.bitcast_convert_type(numbers + share, jnp.uint32), jnp.where(norm <= clip, 0.0, 1.0), 1.0

        # Rows of no client add up to rows of no client: they tell finish the shapes.
        return sum_rows(each, cohort.weight > 0, messages, cohort), jax.tree.map(lambda x: x[:0], messages)

    def finish(part, state, key):
        del key
        (total, cut, count), shapes = part
        signed = jax.lax.bitcast_convert_type(total << (32 - bits), jnp.int32) >> (32 - bits)
        wrapped = jnp.sum(signed != jax.lax.bitcast_convert_type(total, jnp.int32))
        signs = jax.random.fold_in(jax.random.key(_SIGNS), state)
        like = jax.tree.map(lambda x: jnp.zeros(x.shape[1:], jnp.promote_types(x.dtype, jnp.float32)), shapes)
        mean = _turned_back(signs, signed.astype(jnp.result_type(*jax.tree.leaves(like))) * (gamma / clients), like, block)
        metrics = {
            "clip_norm": jnp.asarray(clip, jnp.float32),
            "clipped": cut / jnp.maximum(count, 1),
            "wrapped": jnp.asarray(wrapped, jnp.float32) / dimension,
        }
        return mean, state + 1, metrics

    def of_order(order: int | float) -> float:
        return noise.divergence(order, float(most), float(z) / (1 + SLACK), clients, float(gamma), dimension)

    privacy = Mechanism(z, divergence=of_order, shares=clients)
    takes = float(bits * dimension)
    return Aggregator(lambda message: jnp.int32(0), collect, finish, True, True, privacy, lambda message: takes)


def _granularity(name: str, clip: Number, z: Number, clients: int, dimension: int, bits: int) -> Number:
    """2^b gamma = 2k sqrt((rho / d) (C n)^2 + gamma^2 n / 4 + (z C)^2) solved for gamma, with rho = 1; or coarser, for the noise."""
    room = _room(clients, bits)
    if room <= 0:
        raise ValueError(f"{name}: the sum of clients_per_round={clients} roundings does not fit in bits={bits}: take more bits")
    drawn = clients * (discrete.WIDEST / (1 + SLACK)) ** 2  # short of it, or rounding could pass it
    return clip * ((clients**2 / dimension + z**2) / min(room, drawn)) ** 0.5


def _room(clients: int, bits: int) -> float:
    return 4.0**bits / (2 * STANDARD_DEVIATIONS) ** 2 - clients / 4


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


def _turned(key: Key, message: Tree, block: int) -> Float[Array, " d"]:
    """A message as one flat vector, each block of its coordinates rotated."""
    rows, n = _grid(message, block)
    flat = jnp.concatenate([x.reshape(-1) for x in jax.tree.leaves(message)])
    flat = jnp.pad(flat, (0, rows * n - flat.size))
    return rotated(key, flat.reshape(n, rows).T, block).reshape(-1)


def _turned_back(key: Key, turned: Float[Array, " d"], like: Tree, block: int) -> Tree:
    """The inverse of `_turned`, in the shapes and dtypes of `like`."""
    rows = turned.reshape(_grid(like, block))
    flat = rotated_back(key, rows, rows).T.reshape(-1)
    leaves, structure = jax.tree.flatten(like)
    parts = jnp.split(flat, np.cumsum([x.size for x in leaves]))  # the last is the padding
    return jax.tree.unflatten(structure, [part.reshape(x.shape).astype(x.dtype) for part, x in zip(parts, leaves, strict=False)])


def _grid(message: Tree, block: int) -> tuple[int, int]:
    """How many blocks the rotation has, and how long they are: block i of B has the coordinates i, i + B, i + 2B, ... of the message."""
    size = sum(np.size(x) for x in jax.tree.leaves(message))
    n = min(block, 1 << max(size - 1, 0).bit_length())
    return -(-size // n), n


def _check_block(name: str, block: int) -> None:
    whole(name, "block", block, least=1)
    check_block(name, block)
