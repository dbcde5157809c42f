"""Uplinks that rotate keep the contract of algorithms."""

from contract.groups import ROTATED
from keeps import algorithms

globals().update(algorithms(ROTATED))
