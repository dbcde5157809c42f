"""Virtual time: how long clients take, when a round ends, and in which order uploads arrive."""

from fedjax_lite.clock.arrivals import arrivals
from fedjax_lite.clock.arriving import arriving
from fedjax_lite.clock.devices import Devices
from fedjax_lite.clock.laws import from_csv, given, lognormal, phones
from fedjax_lite.clock.table import Arrivals
from fedjax_lite.clock.timed import timed

__all__ = ["Arrivals", "Devices", "arrivals", "arriving", "from_csv", "given", "lognormal", "phones", "timed"]
