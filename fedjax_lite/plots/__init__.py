"""Figures for papers (matplotlib, the extra `plot`): what reports draw, at a column's width, as PDF with its fonts, PNG or SVG."""

from fedjax_lite.plots.clients import clients, participation
from fedjax_lite.plots.curves import curves
from fedjax_lite.plots.heat import heat_map
from fedjax_lite.plots.partition import partition
from fedjax_lite.plots.privacy import epsilon
from fedjax_lite.plots.style import save

__all__ = ["clients", "curves", "epsilon", "heat_map", "participation", "partition", "save"]
