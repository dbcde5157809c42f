"""Aggregators: the cohort's messages reduced to one. `from_sum` and `from_stack` lift a bare function to one."""

from fedjax_lite.aggregators.lift import from_stack, from_sum
from fedjax_lite.aggregators.mean import mean, weighted_mean
from fedjax_lite.aggregators.order import median, trimmed_mean

__all__ = ["from_stack", "from_sum", "mean", "median", "trimmed_mean", "weighted_mean"]
