"""Distillation keeps the contract of algorithms."""

from contract import DISTILLED
from keeps import algorithms

globals().update(algorithms(DISTILLED))
