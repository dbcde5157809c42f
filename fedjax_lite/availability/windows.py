"""One window a day in which a client is there, at a time of its own."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite.availability.availability import Availability
from fedjax_lite.base import Number
from fedjax_lite.refuse import a_share, plain, positive

__all__ = ["windows"]


def windows(share: Number, period: Number) -> Availability:
    """Each client is there in one part of every `period`, the same part every time.

    Client k is there at time t if (t / period + u_k) mod 1 < share, with u_k uniform in [0, 1), a function of k alone. Nothing is drawn
    later, so the law's `share` at a time is 1 or 0.

    Args:
        share: the part of a period, in (0, 1].
        period: a day, in the clock's units: rounds, or seconds.

    >>> import jax.numpy as jnp
    >>> law = windows(share=0.5, period=24)
    >>> sum(law.there(jnp.arange(3), hour).astype(int) for hour in range(24)).tolist()
    [12, 12, 12]
    """
    share, period = a_share("windows", "share", share, "(0, 1]"), plain(period)
    positive("windows", "period", period)

    def there(ids, time):
        return (time % period / period + _offsets(jnp.asarray(ids))) % 1 < share

    def on_host(population):
        offsets = np.asarray(_offsets(jnp.arange(population)), np.float64).tolist()
        return lambda id, time: (time % period / period + offsets[id]) % 1 < share

    return Availability(there, lambda ids, time: there(ids, time).astype(float), on_host)


def _offsets(ids: Any) -> Any:
    """Return u_k of clients."""
    found = jax.vmap(lambda id: jax.random.uniform(jax.random.fold_in(jax.random.key(0), id)))(ids.reshape(-1))
    return found.reshape(ids.shape)
