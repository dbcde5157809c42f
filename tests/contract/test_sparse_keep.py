"""Uplinks that send little keep the contract of algorithms."""

from contract.groups import SPARSE
from keeps import algorithms

globals().update(algorithms(SPARSE))
