"""Checkers of the contract: try your own aggregator or algorithm against its properties. `print` shows the report as a table."""

from fedjax_lite.checks.check_aggregator import aggregator
from fedjax_lite.checks.check_algorithm import algorithm
from fedjax_lite.checks.report import Report, Row

__all__ = ["Report", "Row", "aggregator", "algorithm"]
