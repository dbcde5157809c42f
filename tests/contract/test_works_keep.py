"""Client work keeps the contract of algorithms."""

from contract.works import WORKS
from keeps import algorithms

globals().update(algorithms([f"work {name}" for name in WORKS]))
