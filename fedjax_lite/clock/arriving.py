"""The sampler whose cohorts are the rows of a table of arrivals."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from fedjax_lite.base import Client, Key
from fedjax_lite.clock.table import Arrivals
from fedjax_lite.sampling.participation import Sampler, cohort, ours

__all__ = ["arriving"]


def arriving(table: Arrivals) -> Sampler:
    """Each round's cohort is what arrives for that step of the server, with the age of each client's model and the time that has passed.

    The round's metrics are "seconds" since the step before, "virtual_hours" since the start, "staleness" (the mean age), "oldest", and
    since the step before "lost" (clients) and "too_old" (uploads that were dropped). After the table's last row all slots are empty.

    Args:
        table: of `fl.clock.arrivals`; its leaves may be arrays of JAX or tracers, such as one of several stacked tables.

    Raises:
        ValueError: where it draws, for a table that names a client outside the population.

    >>> import jax
    >>> table = Arrivals(*(np.array(x) for x in ([[2, 0], [1, -1]], [[0, 1], [0, 0]], [1.5, 4.0], [1.5, 2.5], [0, 1], [0, 0], [0, 0])))
    >>> drawn = arriving(table)(jax.random.key(0), jnp.array([3, 1, 4]), jnp.int32(1))
    >>> drawn.id.tolist(), drawn.weight.tolist(), drawn.sums["seconds"].tolist(), drawn.sums["lost"].tolist()
    ([1, 0], [1.0, 0.0], [2.5, 0.0], [1.0, 0.0])
    """
    if not isinstance(table, Arrivals):
        raise TypeError(f"arriving: table must be that of fl.clock.arrivals, got a {type(table).__name__}")
    most = int(table.ids.max()) if isinstance(table.ids, np.ndarray) else -1
    hours = table.seconds / 3600  # on the host in float64, where it is the host's

    def sample(key: Key, sizes: Any, round: Any) -> Client:
        if most >= sizes.shape[0]:
            raise ValueError(f"arriving: the table names client {most}, and there are {sizes.shape[0]}, counted from 0: make it for them")
        rounds = table.ids.shape[0]
        t = jnp.minimum(round, rounds - 1)

        def at(column: Any, dtype: Any = jnp.float32) -> Any:
            return jnp.asarray(column, dtype)[t]

        row, ages = at(table.ids, jnp.int32), at(table.ages, jnp.int32)
        here = (row >= 0) & (round < rounds)
        ages = jnp.where(here, ages, 0)
        slots = jnp.arange(row.shape[0])
        once = (slots == 0) & (round < rounds)
        drawn = cohort(key, sizes, jnp.maximum(row, 0), here)
        sums = {"seconds": at(table.passed), "oldest": jnp.max(ages), "lost": at(table.lost)}
        sums = {name: jnp.where(once, value, 0).astype(jnp.float32) for name, value in (sums | {"too_old": at(table.too_old)}).items()}
        sums["virtual_hours"] = jnp.where(slots == 0, at(hours), 0).astype(jnp.float32)  # time stands still after the last row
        sums["staleness"] = (ages / jnp.maximum(jnp.sum(here), 1)).astype(jnp.float32)
        return drawn._replace(age=ages, sums=sums, tier=jnp.full(row.shape, at(table.tier, jnp.int32)))

    setattr(sample, "arrivals", table)
    return ours(sample)
