"""The plain engines: all clients at once, or one client after another."""

import jax
import jax.numpy as jnp

from fedjax_lite import tree
from fedjax_lite.engine.contract import Engine, total
from fedjax_lite.engine.devices import over_devices
from fedjax_lite.engine.rows import gathering
from fedjax_lite.refuse import integer


def padded(most_steps: int | None = None) -> Engine:
    """All clients at once, each step vmapped over the cohort, as many steps as the largest client takes.

    Wastes the steps of small clients; is the one engine that can be differentiated in reverse (a scan of fixed length).

    Args:
        most_steps: static bound on local steps; clients stop there. Needed only where epochs are scheduled, since then
            the data alone does not give the bound.

    >>> import fedjax_lite as fl
    >>> [fl.padded().lanes(jnp.zeros(3), clients) for clients in (2, 10)]  # so many at once, of 2 and of 10
    [2, 10]
    """
    if most_steps is not None:
        integer("padded", "most_steps", most_steps, least=1)

    def run(local, cohort, rows):
        bounds = [bound for bound in (local.most_steps, most_steps) if bound is not None]
        if not bounds:
            raise ValueError("padded() needs a static bound on local steps where epochs are scheduled: padded(most_steps=...)")
        length = min(bounds)
        cohort = cohort._replace(steps=jnp.minimum(cohort.steps, length))

        def body(carry, j):
            stepped = jax.vmap(local.step, (0, 0, 0, None))(cohort, rows, carry, j)
            return tree.where(j < cohort.steps, stepped, carry), None

        carry = jax.vmap(local.start)(cohort, rows)
        carry, _ = jax.lax.scan(body, carry, jnp.arange(length, dtype=jnp.int32))
        upload = jax.vmap(local.finish)(cohort, rows, carry)
        return local.collect(upload.message, cohort), upload.rows, total(upload.metrics, cohort.weight > 0)

    return Engine(over_devices(gathering(run)), lambda carry, clients: clients)


def sequential() -> Engine:
    """One client after another: the plain oracle, and the engine to debug with.

    Under `jax.disable_jit()` an exception on values, such as those of `jax.debug_nans(True)`, has a note with the client's id and the local
    step. Shapes are traced before, so Python's `if` on a value fails there.

    >>> import fedjax_lite as fl
    >>> [fl.sequential().lanes(jnp.zeros(3), clients) for clients in (2, 10)]  # so many at once, of 2 and of 10
    [1, 1]
    """

    def run(local, cohort, rows):
        def one(argument):
            client, row = argument

            def step(j, carry):
                try:
                    return local.step(client, row, carry, jnp.asarray(j, jnp.int32))
                except Exception as error:
                    if not isinstance(client.id, jax.core.Tracer):
                        error.add_note(f"in client {int(client.id)}, local step {int(j)}")
                    raise

            carry = jax.lax.fori_loop(0, client.steps, step, local.start(client, row))
            return local.finish(client, row, carry)

        upload = jax.lax.map(one, (cohort, rows))
        return local.collect(upload.message, cohort), upload.rows, total(upload.metrics, cohort.weight > 0)

    return Engine(over_devices(gathering(run)), lambda carry, clients: 1, queued=True)
