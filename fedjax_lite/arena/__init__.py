"""The arena: a contender is ranked among everything that is built in, on one field."""

from fedjax_lite.arena.arena import arena
from fedjax_lite.arena.result import Arena

__all__ = ["Arena", "arena"]
