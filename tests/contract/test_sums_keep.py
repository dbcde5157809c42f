"""Rules that add up keep the contract of aggregators."""

from contract.rules import SUMS
from keeps import aggregators

globals().update(aggregators(SUMS))
