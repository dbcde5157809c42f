"""Rules behind others keep the contract of aggregators."""

from contract import BEHIND
from keeps import aggregators

globals().update(aggregators(BEHIND))
