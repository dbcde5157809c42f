"""The reports of a run and of a study: each one HTML page that needs nothing else."""

from fedjax_lite.report.heat import heat_map
from fedjax_lite.report.page import report
from fedjax_lite.report.study import study_report

__all__ = ["heat_map", "report", "study_report"]
