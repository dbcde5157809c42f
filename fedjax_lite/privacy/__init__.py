"""Differential privacy: the epsilon of a run, the noise for an epsilon, audits, and private gradients."""

from fedjax_lite.privacy.accountant import Guarantee, account, calibrate, epsilon
from fedjax_lite.privacy.audit import Audit, audit, lower_bound
from fedjax_lite.privacy.correlated import Strategy, toeplitz
from fedjax_lite.privacy.discrete import epsilon_of
from fedjax_lite.privacy.record_level import record_level

__all__ = [
    "Audit",
    "Guarantee",
    "Strategy",
    "account",
    "audit",
    "calibrate",
    "epsilon",
    "epsilon_of",
    "lower_bound",
    "record_level",
    "toeplitz",
]
