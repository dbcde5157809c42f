"""Rules of each coordinate alone keep the contract of aggregators."""

from contract.rules import COORDINATES
from keeps import aggregators

globals().update(aggregators(COORDINATES))
