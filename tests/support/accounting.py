"""How finely privacy is accounted for in a test: numbers that are compared with each other alone need no finer steps."""

from contextlib import contextmanager

from dp_accounting.rdp import rdp_privacy_accountant

from fedjax_lite.privacy import gaussian

COARSE = 1e-3
ORDERS = [1.5, 2.5, *range(2, 64)]


@contextmanager
def steps_of(interval=COARSE):
    """Privacy losses in steps of `interval`. Ten times as coarse takes an eighth of the time; no epsilon rises by more than 4e-4 of it."""
    usual, gaussian.INTERVAL = gaussian.INTERVAL, interval
    forget()
    try:
        yield
    finally:
        gaussian.INTERVAL = usual
        forget()


@contextmanager
def coarse():
    """Coarse steps, and few orders of Renyi divergences: epsilons by RDP are higher by up to a tenth."""
    usual, rdp_privacy_accountant.DEFAULT_RDP_ORDERS = rdp_privacy_accountant.DEFAULT_RDP_ORDERS, ORDERS
    try:
        with steps_of():
            yield
    finally:
        rdp_privacy_accountant.DEFAULT_RDP_ORDERS = usual


def forget():
    """What is kept in memory was computed with other steps."""
    gaussian._losses.cache_clear()
    gaussian.epsilon_of_rounds.cache_clear()
