"""What a virtual clock has to know of an algorithm: the work that a round asks of each client, and how uploads are taken in."""

from typing import NamedTuple

from jaxtyping import Array, Float, Int

__all__ = ["Asynchrony", "Demand"]


class Demand(NamedTuple):
    """What a round asks of the device and the link of each client of a cohort."""

    steps: Int[Array, "*clients"]  # local steps, with those of the passes over all examples
    received: Float[Array, "*clients"]  # bits
    sent: Float[Array, "*clients"]  # bits
    passes: Int[Array, "*clients"] | int = 0  # how many of the steps are in passes, which a client makes however little it trains


class Asynchrony(NamedTuple):
    """How a server that waits for no cohort takes uploads in: what the host's table of arrivals is made by."""

    buffer: int  # K, the uploads that one step of the server takes in
    window: int  # the models that the server keeps: an upload from an older model is refused, or dropped
    too_old: str = "refuse"  # or "drop"
    tiers: int = 0  # 0: each client on its own; else clients of like speed are a tier, whose rounds are synchronous
