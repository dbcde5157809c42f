"""A study by hand."""

import numpy as np

import fedjax_lite as fl
from fedjax_lite.study.grid import Axis

AXES = Axis(("rate",), ((0.1,), (1,), (np.inf,))), Axis(("a", "b"), (("x, <y>", 1), ('"', 2)))


def diverged():
    """A study with ties, a curve, and cells some or all of whose seeds diverged."""
    accuracy = np.linspace(0.1, 0.9, 36).reshape(3, 2, 2, 3)
    accuracy[0, 0] = accuracy[0, 1]
    accuracy[1, 0, 1, 1:] = np.nan
    loss = 1 - accuracy[..., -1]
    loss[2, 1] = np.inf, -np.inf
    results = {"accuracy": accuracy.astype(np.float32), "loss": loss.astype(np.float32)}
    return fl.Study(AXES, (0, 1), results, {"accuracy": (5, 10, 13)}, 3)


DIVERGED = diverged()
