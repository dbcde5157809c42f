"""Private means keep the contract of aggregators."""

from contract.rules import PRIVATE
from keeps import aggregators

globals().update(aggregators(PRIVATE))
