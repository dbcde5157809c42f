"""Uplinks that send few bits a number keep the contract of algorithms."""

from contract.groups import QUANTISED
from keeps import algorithms

globals().update(algorithms(QUANTISED))
