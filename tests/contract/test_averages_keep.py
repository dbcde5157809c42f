"""Federated averages keep the contract of algorithms."""

from contract.groups import AVERAGES
from keeps import algorithms

globals().update(algorithms(AVERAGES))
