"""Losses for clients of few classes keep the contract of algorithms."""

from contract import SKEWED
from keeps import algorithms

globals().update(algorithms(SKEWED))
