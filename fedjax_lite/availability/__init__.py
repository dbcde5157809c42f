"""Laws of availability: when clients can be reached, as pure functions of the client's id and of time."""

from fedjax_lite.availability.availability import Availability
from fedjax_lite.availability.day_night import day_night
from fedjax_lite.availability.markov import markov
from fedjax_lite.availability.trace import trace
from fedjax_lite.availability.windows import windows

__all__ = ["Availability", "day_night", "markov", "trace", "windows"]
