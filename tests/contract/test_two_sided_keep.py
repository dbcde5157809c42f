"""Algorithms that train on both sides keep the contract of algorithms."""

from contract.groups import TWO_SIDED
from keeps import algorithms

globals().update(algorithms(TWO_SIDED))
