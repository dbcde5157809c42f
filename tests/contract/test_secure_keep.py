"""Sums that hide their terms keep the contract of aggregators."""

from contract.rules import SECURE
from keeps import aggregators

globals().update(aggregators(SECURE))
