"""Methods of federated optimisation keep the contract of algorithms."""

from contract.methods import OPTIMISATION
from keeps import algorithms

globals().update(algorithms(OPTIMISATION))
