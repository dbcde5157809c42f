"""The reports of a run and of a study: each is one HTML page without other files."""

from fedjax_lite.report.embedded import embedded
from fedjax_lite.report.heat import heat_map
from fedjax_lite.report.page import report
from fedjax_lite.report.study import study_report

__all__ = ["embedded", "heat_map", "report", "study_report"]
