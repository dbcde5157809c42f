"""Federated averages keep the contract of algorithms."""

from contract import AVERAGES
from keeps import algorithms

globals().update(algorithms(AVERAGES))
