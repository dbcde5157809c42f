"""Methods whose clients are replicas that last from round to round keep the contract of algorithms."""

from contract import REPLICAS
from keeps import algorithms

globals().update(algorithms(REPLICAS))
