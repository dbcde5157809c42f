"""Methods whose servers weigh clients, or their mean, by what clients report keep the contract of algorithms."""

from contract import REWEIGHED
from keeps import algorithms

globals().update(algorithms(REWEIGHED))
