"""Rules behind others keep the contract of aggregators."""

from contract.rules import BEHIND
from keeps import aggregators

globals().update(aggregators(BEHIND))
