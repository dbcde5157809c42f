"""Uplinks keep the contract of algorithms."""

from contract import UPLINKS
from keeps import algorithms

globals().update(algorithms([f"uplink {name}" for name in UPLINKS]))
