"""Mixing matrices: who averages with whom, and how much, where clients have neighbours and no server."""

from fedjax_lite.mixing.matrices import (
    Drawn,
    check_mixing,
    complete,
    gossip,
    metropolis,
    random_geometric,
    ring,
    spectral_gap,
    torus,
)

__all__ = ["Drawn", "check_mixing", "complete", "gossip", "metropolis", "random_geometric", "ring", "spectral_gap", "torus"]
