"""The probability that a client takes part in a round, for whoever reweights or accounts."""

from typing import Any

import numpy as np
from jaxtyping import Float

from fedjax_lite.refuse import a_count, plain
from fedjax_lite.sampling.participation import Sampler

__all__ = ["inclusion"]


def inclusion(sampler: Sampler, sizes: Any, round: Any = 0) -> Float[np.ndarray, " population"]:
    """Each client's probability to take part in a round, over the round's draws and those of laws of availability; on the host.

    It is exact, to 1e-10: `weighted`, and the first of an order who are there, by an integral over a race, for which population times
    clients may be up to ten million. Clients are taken to be there independently of each other, as those of `fl.availability` are. A client
    without examples takes no part.

    Args:
        sampler: one of the library's; wrapped ones too.
        sizes: examples a client, `[population]`.
        round: of the samplers and laws to which it matters.

    Returns:
        float64 `[population]`.

    Raises:
        ValueError: for samplers of which it is not known: your own, those that look at losses, those under a virtual clock; for a rate or
            a share that is traced; and for populations too large for the integral.

    >>> import fedjax_lite as fl
    >>> fl.sampling.inclusion(fl.sampling.weighted(1), [10, 20, 10]).round(6).tolist()
    [0.25, 0.5, 0.25]
    >>> sampler = fl.sampling.availability(fl.sampling.uniform(1), law=fl.availability.day_night(mean=0.5, swing=0))
    >>> fl.sampling.inclusion(sampler, [1, 1]).round(6).tolist()  # there, and alone or first of two: 1/2 (1/2 + 1/2 1/2)
    [0.375, 0.375]
    """
    found = getattr(sampler, "inclusion", None)
    if found is None:
        raise ValueError(
            "inclusion: of this sampler nobody knows how likely a client takes part: it is your own, looks at losses, or asks who is fast"
        )
    sizes, round = np.asarray(sizes), a_count("inclusion", "round", plain(round), least=0)
    if sizes.ndim != 1 or sizes.dtype.kind not in "iu":
        raise ValueError(f"inclusion: sizes must be whole numbers [population], got {sizes.dtype}{list(sizes.shape)}")
    return np.where(sizes > 0, np.asarray(found(sizes, round), np.float64), 0.0)
