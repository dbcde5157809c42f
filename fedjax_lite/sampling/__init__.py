"""Samplers choose a round's cohort: pure functions of (key, sizes, round), evaluated inside the compiled program."""

from fedjax_lite.sampling.participation import Sampler, cohort
from fedjax_lite.sampling.samplers import cyclic, everyone, poisson, scheduled, uniform, weighted
from fedjax_lite.sampling.wrappers import availability, dropout, including, stragglers

__all__ = [
    "Sampler",
    "availability",
    "cohort",
    "cyclic",
    "dropout",
    "everyone",
    "including",
    "poisson",
    "scheduled",
    "stragglers",
    "uniform",
    "weighted",
]
