"""Distillation keeps the contract of algorithms."""

from contract.groups import DISTILLED
from keeps import algorithms

globals().update(algorithms(DISTILLED))
