"""Methods whose clients have models of their own keep the contract of algorithms."""

from contract.personal import PERSONAL
from keeps import algorithms

globals().update(algorithms(PERSONAL))
