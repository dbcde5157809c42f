"""Clients' devices: how fast they compute, receive and send."""

from typing import NamedTuple

from jaxtyping import Array, Float

from fedjax_lite.base import Demand
from fedjax_lite.tree import take

__all__ = ["Devices", "seconds"]


class Devices(NamedTuple):
    """The speeds of all clients' devices and links; of the start arrays of NumPy, inside a program of JAX."""

    steps: Float[Array, " population"]  # local steps a second
    download: Float[Array, " population"]  # bytes a second; inf: receiving takes no time
    upload: Float[Array, " population"]  # bytes a second


class Seconds(NamedTuple):
    """How long a round takes each client of a cohort."""

    receive: Float[Array, "*clients"]
    compute: Float[Array, "*clients"]
    send: Float[Array, "*clients"]


def seconds(devices: Devices, ids: Array, demand: Demand) -> Seconds:
    """Return the seconds of clients: bits / 8 / bytes a second to receive and to send, steps / (steps a second) to compute."""
    one = take(devices, ids)
    return Seconds(demand.received / 8 / one.download, demand.steps / one.steps, demand.sent / 8 / one.upload)
