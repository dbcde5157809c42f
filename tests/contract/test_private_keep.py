"""Private means keep the contract of aggregators."""

from contract import PRIVATE
from keeps import aggregators

globals().update(aggregators(PRIVATE))
