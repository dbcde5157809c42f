"""Differential privacy: what a run gives away, and the noise that keeps it to an epsilon."""

from fedjax_lite.privacy.accountant import Guarantee, account, calibrate, epsilon

__all__ = ["Guarantee", "account", "calibrate", "epsilon"]
