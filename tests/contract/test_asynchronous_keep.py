"""Asynchronous methods keep the contract of algorithms, on cohorts with ages and tiers."""

from contract.methods import ASYNCHRONOUS
from keeps import algorithms

globals().update(algorithms(ASYNCHRONOUS))
