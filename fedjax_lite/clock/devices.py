"""Clients' devices: how fast they compute, receive and send."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fedjax_lite.tree import take

__all__ = ["Devices", "check_devices", "of_clients", "seconds"]


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

    @property
    def total(self) -> Any:
        """The whole of a client's round, an array of NumPy where the seconds are."""
        return self.receive + self.compute + self.send


def of_clients(devices: Devices, ids: Array) -> Devices:
    """Take the devices of clients out of all, as arrays of JAX."""
    speeds = [x if isinstance(x, jax.Array) else jnp.asarray(np.asarray(x, jnp.result_type(float))) for x in devices]
    return take(Devices(*speeds), ids)


def seconds(devices: Any, demand: Any) -> Seconds:
    """Return the seconds of each client: bits / 8 / bytes a second to receive and to send, steps / (steps a second) to compute."""
    return Seconds(demand.received / 8 / devices.download, demand.steps / devices.steps, demand.sent / 8 / devices.upload)


def check_devices(name: str, devices: Any) -> None:
    """Refuse devices whose speeds are not positive numbers, one a client; tracers pass.

    Raises:
        TypeError, ValueError: naming the speed, and the first client that has none.
    """
    if not isinstance(devices, Devices):
        raise TypeError(f"{name}: devices must be a fl.clock.Devices, such as fl.clock.lognormal(population), got {devices!r}")
    for field, speeds in zip(Devices._fields, devices, strict=True):
        if isinstance(speeds, jax.core.Tracer):
            continue
        each, clients = np.asarray(speeds), np.shape(devices.steps)
        if each.dtype.kind not in "iuf" or each.ndim != 1 or not each.size or each.shape != clients:
            as_steps = f", {list(clients)} as steps" if len(clients) == 1 else ""
            raise ValueError(f"{name}: {field} must be one number a client{as_steps}, got {list(each.shape)} {each.dtype}")
        bad = np.flatnonzero(~(each > 0) | ((field == "steps") & np.isinf(each)))
        if bad.size:
            wanted = "positive and finite" if field == "steps" else "positive (inf: it takes no time)"
            raise ValueError(f"{name}: client {bad[0]} has {field}={each[bad[0]]:g} a second: it must be {wanted}")
