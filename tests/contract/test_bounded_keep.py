"""Rules that bound what one client can do keep the contract of aggregators."""

from contract import BOUNDED
from keeps import aggregators

globals().update(aggregators(BOUNDED))
