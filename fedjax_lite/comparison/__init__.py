"""Finished runs and studies beside each other: settings that differ, a table, paired intervals, overlaid curves, expected bands."""

from fedjax_lite.comparison.comparing import Comparison, compare
from fedjax_lite.comparison.expected import check

__all__ = ["Comparison", "check", "compare"]
