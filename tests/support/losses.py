"""How finely privacy losses are computed in a test."""

from contextlib import contextmanager

from fedjax_lite.privacy import gaussian

COARSE = 1e-3


@contextmanager
def steps_of(interval=COARSE):
    """Privacy losses in steps of `interval`. Ten times as coarse takes an eighth of the time; no epsilon here rises by more than 4e-4 of it."""
    usual, gaussian.INTERVAL = gaussian.INTERVAL, interval
    forget()
    try:
        yield
    finally:
        gaussian.INTERVAL = usual
        forget()


def forget():
    """The losses and epsilons that are kept in memory are of one interval."""
    gaussian._losses.cache_clear()
    gaussian.epsilon_of_rounds.cache_clear()
