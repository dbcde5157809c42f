"""Methods whose local steps go elsewhere than along the gradient keep the contract of algorithms."""

from contract import STEERED
from keeps import algorithms

globals().update(algorithms(STEERED))
