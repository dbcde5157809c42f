"""When clients can be reached."""

from fedjax_lite.availability.availability import Availability

__all__ = ["Availability"]
