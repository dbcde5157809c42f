"""Methods whose clients have models of their own keep the contract of algorithms."""

from contract import PERSONAL
from keeps import algorithms

globals().update(algorithms(PERSONAL))
