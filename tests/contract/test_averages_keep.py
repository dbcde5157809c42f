"""Federated averages, and one that draws at every place, keep the contract of algorithms."""

from contract import AVERAGES
from keeps import algorithms

globals().update(algorithms(AVERAGES))
