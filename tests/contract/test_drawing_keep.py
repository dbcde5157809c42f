"""What draws at every place, and what clients keep of an uplink, keep the contract of algorithms."""

from contract.groups import DRAWING
from keeps import algorithms

globals().update(algorithms(DRAWING))
