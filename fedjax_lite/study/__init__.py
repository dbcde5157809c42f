"""Studies: an experiment over a grid of values and seeds, in as few compiled programs as its values allow."""

from fedjax_lite.study.grid import Axis
from fedjax_lite.study.results import Study
from fedjax_lite.study.study import study

__all__ = ["Axis", "Study", "study"]
