"""Methods of federated optimisation keep the contract of algorithms."""

from contract import OPTIMISATION
from keeps import algorithms

globals().update(algorithms(OPTIMISATION))
