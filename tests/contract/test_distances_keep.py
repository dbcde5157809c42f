"""Rules of distances between messages keep the contract of aggregators."""

from contract.rules import DISTANCES
from keeps import aggregators

globals().update(aggregators(DISTANCES))
