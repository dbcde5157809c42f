"""Random words as a function of a seed, a client and a step: the same bits from NumPy on the host and from JAX inside a program."""

from typing import Any

import numpy as np

from fedjax_lite.shuffle import mixed

__all__ = ["BITS", "seeds", "threshold", "words"]

BITS = 24  # of a word; what a float32 tells apart
_GOLDEN, _ODD = np.uint32(0x9E3779B9), np.uint32(0x85EBCA6B)


def seeds(seed: int, stream: int) -> tuple[np.uint32, np.uint32]:
    """Return the two words that stand for a seed and a stream of its draws."""
    first, second = np.random.SeedSequence([seed, stream]).generate_state(2)
    return np.uint32(first), np.uint32(second)


def words(seed: tuple[np.uint32, np.uint32], ids: Any, steps: Any) -> Any:
    """Return a word of 24 random bits, int32, for each client and step, which broadcast; steps may be negative."""
    client = mixed(ids.astype(np.uint32) * _GOLDEN + seed[0])
    step = mixed(steps.astype(np.uint32) * _ODD + seed[1])
    return (mixed(mixed(client ^ step) + client) >> np.uint32(32 - BITS)).astype(np.int32)


def threshold(probability: float) -> int:
    """Return the number of words that are below a probability: a word is less than it with that probability."""
    return round(probability * 2**BITS)
