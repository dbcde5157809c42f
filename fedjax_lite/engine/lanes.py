"""The packed engine: a stack of lanes that clients pass through."""

from functools import partial
from typing import Any

import jax

from fedjax_lite import forms
from fedjax_lite.base import Client, Tree
from fedjax_lite.engine.contract import Engine, Local
from fedjax_lite.engine.devices import over_devices
from fedjax_lite.engine.queue import run_dry
from fedjax_lite.engine.rows import gathered, gathering
from fedjax_lite.engine.transforms import when_vmapped
from fedjax_lite.engine.tune import fastest
from fedjax_lite.refuse import is_count

CANDIDATES = (1, 4, 16, 64, 256, 1024)


def packed(lanes: int | str | None = None) -> Engine:
    """A stack of `lanes` clients in training; a lane that finishes its client uploads and takes the next of the queue.

    However ragged the cohort, lanes are busy until the queue is empty; longest clients first, so that they run dry together.
    Where the aggregator is additive, memory does not grow with the cohort. In a vmapped study the runs go one after another on
    a CPU, where small stacks stay in the cache, and elsewhere all at once, by default with a sixteenth of the lanes each.

    Args:
        lanes: rows of the stack; by default from the backend and the size of what a client carries. "auto" measures a few
            numbers while the program is traced, which takes seconds, and keeps the fastest for all rounds of this engine.

    >>> import fedjax_lite as fl
    >>> import numpy as np
    >>> [fl.packed(lanes=4).lanes(np.zeros(3), clients) for clients in (2, 10)]  # so many at once, of 2 and of 10
    [2, 4]
    """
    if lanes is not None and not (isinstance(lanes, str) and lanes == "auto") and not is_count(lanes, 1):
        raise ValueError(f'lanes must be at least 1, or "auto", got {lanes!r}')
    measured: dict[Any, int] = {}

    def run(build, common, examples, cohort, rows):
        width = _measured(measured, build(common, examples), *gathered(cohort, rows)) if isinstance(lanes, str) else lanes

        def train(step_by_step):
            def number(carry):
                return width or max(1, default_lanes(carry) // (16 if step_by_step else 1))

            engine = over_devices(lambda local, cohort, rows: run_dry(local, cohort, rows, number, step_by_step))
            return partial(engine, build)

        alone, together = train(False), None
        if not forms.cpu():
            together = gathering(train(True))
        elif jax.tree.leaves(rows):  # one run after another, with its cohort's rows: the loop would copy those of all its clients
            together = gathering(when_vmapped(alone, None))
        return when_vmapped(alone, together)(common, examples, cohort, rows)

    def width_of(carry, clients):
        return min(clients, max(CANDIDATES) if isinstance(lanes, str) else lanes or default_lanes(carry))

    return Engine(run, width_of, queued=not isinstance(lanes, str))


def _measured(known: dict[Any, int], local: Local, cohort: Client, rows: Tree) -> int:
    """The fastest number of lanes; measured once for each shape of client and cohort."""
    carries = jax.eval_shape(jax.vmap(local.start), cohort, rows)
    key = tuple((x.shape, str(x.dtype)) for x in jax.tree.leaves(carries))
    if key not in known:
        candidates = [n for n in CANDIDATES if n <= cohort.id.shape[0]]

        def train(lanes):
            return lambda cohort, rows: run_dry(local, cohort, rows, lambda carry: lanes, False)

        known[key] = fastest(train, cohort, rows, candidates)
    return known[key]


def default_lanes(carry: Tree) -> int:
    """How many lanes keep the device busy: on CPU what stays in cache, elsewhere what a few gigabytes hold."""
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(carry))
    budget, most = (2**17, 8) if forms.cpu() else (2**31, 1024)
    return max(1, min(most, budget // max(size, 1)))
