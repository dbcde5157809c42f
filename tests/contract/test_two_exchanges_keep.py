"""Rounds in which the cohort answers twice keep the contract of algorithms."""

from contract import TWO_EXCHANGES
from keeps import algorithms

globals().update(algorithms(TWO_EXCHANGES))
