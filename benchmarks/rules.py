"""What `aggregators.py` and `peer_rules.py` agree on: the messages, and the rules' numbers. NumPy alone."""

import numpy as np

F = 20  # Byzantine clients of 100
TRUSTED = 0
BOUND = 500.0  # on lengths; those of messages are about 1000


def messages(clients, coordinates):
    """`[clients, coordinates]`, around a common mean, each with a length of its own so that rules have something to choose."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((clients, coordinates), np.float32)
    return rows * np.linspace(0.9, 1.1, clients, dtype=np.float32)[:, None] + 0.3 * rng.standard_normal(coordinates, np.float32)
