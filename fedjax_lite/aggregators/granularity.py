"""The step gamma that numbers of a few bits count: as fine as their sum, and each client's noise, have room for."""

import math

import jax

from fedjax_lite.base import Number
from fedjax_lite.privacy import discrete
from fedjax_lite.refuse import positive

STANDARD_DEVIATIONS = 4  # k: how many of them the sum's range is to hold
SLACK = 1e-5  # of the clip norm, for what float32 loses in clipping, rotating and measuring
WORD = 32  # bits in which numbers are added up here: past them nothing can be seen to wrap


def settle(
    name: str, clip: Number, z: Number, clients: int, dimension: int, bits: int, granularity: Number | None
) -> tuple[Number, Number]:
    """Settle gamma, by default the least, and how many steps of it a client's noise is; refuse a granularity too fine."""
    gamma = least_granularity(name, clip, z, clients, dimension, bits) if granularity is None else granularity
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
    return gamma, deviation


def least_granularity(name: str, clip: Number, z: Number, clients: int, dimension: int, bits: int) -> Number:
    """2^b gamma = 2k sqrt((rho / d) (C n)^2 + gamma^2 n / 4 + (z C)^2) solved for gamma, with rho = 1; or coarser, for the noise."""
    room = _room(clients, bits)
    if room <= 0:
        raise ValueError(f"{name}: the sum of clients_per_round={clients} roundings does not fit in bits={bits}: take more bits")
    drawn = clients * (discrete.WIDEST / (1 + SLACK)) ** 2  # short of it, or rounding could pass it
    return clip * ((clients**2 / dimension + z**2) / min(room, drawn)) ** 0.5


def _room(clients: int, bits: int) -> float:
    """Compute the room for the variance of so many clients' sum in so many bits, in squared steps."""
    return 4.0**bits / (2 * STANDARD_DEVIATIONS) ** 2 - clients / 4
