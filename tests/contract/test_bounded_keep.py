"""Rules that bound what one client can do keep the contract of aggregators."""

from contract.rules import BOUNDED
from keeps import aggregators

globals().update(aggregators(BOUNDED))
