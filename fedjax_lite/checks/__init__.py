"""Checkers of the contract: what a part of one's own promises, tried out. `checks.aggregator(new)` prints as a table."""

from fedjax_lite.checks.check import aggregator
from fedjax_lite.checks.check_algorithm import algorithm
from fedjax_lite.checks.report import Report, Row

__all__ = ["Report", "Row", "aggregator", "algorithm"]
