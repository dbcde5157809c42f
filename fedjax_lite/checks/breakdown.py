"""Measure how many far-away messages a rule withstands before they carry the aggregate off."""

from collections.abc import Iterator

import numpy as np

from fedjax_lite.checks.answers import Verdict
from fedjax_lite.checks.probe import Probe

# A spread is the largest distance of an honest message from the mean of the honest messages.
LIMIT = 10.0  # spreads from the honest mean, beyond which the aggregate counts as carried off
MAGNITUDES = (1e3, 1e4, 1e6, 1e8)  # spreads from the honest mean to an attacker's message


def honest(messages: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the mean `[coordinates]` of `messages`, and their spread."""
    middle = messages.mean(0, dtype=float)
    return middle, float(np.linalg.norm(messages - middle, axis=1).max())


def breakdown(built: Probe) -> tuple[int, Verdict]:
    """Search upwards for the largest f for which no attack by f clients carries the aggregate off; return f and the verdict."""
    clients = len(built.messages)
    spread, moved = honest(built.messages)[1], 0.0
    for f in range(1, clients):
        slots = np.random.default_rng(f).permutation(clients)
        middle = built.messages[slots[f:]].mean(0, dtype=float)
        worst = 0.0
        for attackers in attacks(f, middle, spread):
            rows = built.messages.copy()
            rows[slots[:f]] = attackers
            distance = float(np.linalg.norm(built.result(rows) - middle)) / spread
            worst = max(worst, distance if np.isfinite(distance) else np.inf)
        if worst > LIMIT:
            return f - 1, ("yes" if f > 1 else "no", f"{_withstood(f - 1, clients, moved)}with {f} moved {worst:.2g} spreads")
        moved = max(moved, worst)
    return clients - 1, ("yes", f"{_withstood(clients - 1, clients, moved)}bounded whatever comes")


def _withstood(f, clients, moved):
    """Say in words how far at most f attackers moved the aggregate."""
    return f"{f} of {clients} ({f / clients:.0%})" + (f" moved at most {moved:.2g} spreads; " if f else ": ")


def attacks(f: int, middle: np.ndarray, spread: float) -> Iterator[np.ndarray]:
    """Yield messages `[f, coordinates]` of `f` attackers, far from `middle`."""
    rng = np.random.default_rng(f)

    def unit(*shape):
        x = rng.normal(size=(*shape, middle.size))
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    signs = np.where(np.arange(f) % 2, -1.0, 1.0)[:, None]
    for magnitude in MAGNITUDES:
        far, coordinate = magnitude * spread, np.eye(1, middle.size, int(rng.integers(middle.size)))
        yield middle + far * np.repeat(unit(1), f, axis=0)  # all the same
        yield -far * np.repeat(middle[None] / max(np.linalg.norm(middle), 1e-12), f, axis=0)  # all the same, against the mean
        yield middle + far * signs * unit(1)  # opposite to each other
        yield middle + far * unit(f)  # each in another direction
        yield middle + far * np.repeat(coordinate, f, axis=0)  # in one coordinate
        yield middle + far * np.linspace(0.5, 1, f)[:, None] * unit(1)  # on a line
    yield middle + spread * np.geomspace(MAGNITUDES[0], MAGNITUDES[-1], f)[:, None] * unit(1)  # on a line, at growing distances
    yield middle + spread * rng.choice(MAGNITUDES, (f, 1)) * unit(f)
