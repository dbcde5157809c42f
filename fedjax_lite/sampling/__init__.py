"""Samplers choose a round's cohort: pure functions of (key, sizes, round), evaluated inside the compiled program."""

from fedjax_lite.sampling.epochs import shuffled
from fedjax_lite.sampling.inclusion import inclusion
from fedjax_lite.sampling.oort import oort
from fedjax_lite.sampling.participation import Remembering, Sampler, cohort
from fedjax_lite.sampling.power_of_choice import power_of_choice
from fedjax_lite.sampling.reached import availability
from fedjax_lite.sampling.replacement import importance, with_replacement
from fedjax_lite.sampling.samplers import cyclic, everyone, poisson, scheduled, uniform, weighted
from fedjax_lite.sampling.strata import stratified
from fedjax_lite.sampling.wrappers import dropout, including, stragglers

__all__ = [
    "Remembering",
    "Sampler",
    "availability",
    "cohort",
    "cyclic",
    "dropout",
    "everyone",
    "importance",
    "including",
    "inclusion",
    "oort",
    "poisson",
    "power_of_choice",
    "scheduled",
    "shuffled",
    "stragglers",
    "stratified",
    "uniform",
    "weighted",
    "with_replacement",
]
