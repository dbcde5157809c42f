"""Virtual time: how long clients take, when a round ends, and in which order uploads arrive."""

from fedjax_lite.clock.devices import Devices
from fedjax_lite.clock.timed import timed

__all__ = ["Devices", "timed"]
