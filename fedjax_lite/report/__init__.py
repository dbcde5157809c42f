"""The report of a run: one HTML page that needs nothing else."""

from fedjax_lite.report.page import report

__all__ = ["report"]
