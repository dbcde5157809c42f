"""One segment of a run, and where its results go: records, the best model, the folder."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax

from fedjax_lite.base import State
from fedjax_lite.evaluation import summarize
from fedjax_lite.metrics import prefix_of
from fedjax_lite.runner.arguments import Count
from fedjax_lite.runner.best import Best
from fedjax_lite.runner.clients import Seen
from fedjax_lite.runner.diagnose import first_not_finite, suspects
from fedjax_lite.runner.fit import Setup
from fedjax_lite.runner.folder import RunFolder
from fedjax_lite.runner.records import Records, plain, records_of
from fedjax_lite.runner.timing import Stopwatch

__all__ = ["Outputs", "advance"]


class Outputs(NamedTuple):
    """Where the results of a run's segments go."""

    history: Records
    folder: RunFolder | None
    best: Best | None
    checkpoint_every: Count
    watch: Stopwatch


def advance(setup: Setup, segment: Callable[..., Any], state: State, seen: Seen, outputs: Outputs) -> tuple[State, Seen]:
    """Run the next segment, and add its records to the outputs; the state after it, and what it has seen of clients."""
    history, folder, best, checkpoint_every, watch = outputs
    algorithm, loss_fn, done = setup.algorithm, setup.loss_fn, len(history)
    length = min(setup.evaluate_every - done % setup.evaluate_every, setup.rounds - done)
    state, measured, sums, drawn = segment(algorithm, setup.sampler, loss_fn, length, state, held_out=setup.held_out)
    measured, sums, drawn = jax.device_get((measured, sums, drawn))
    watch.rounds(drawn.steps)
    evaluation = summarize(sums, prefix_of(setup.test)) if sums else {}
    bad, why = first_not_finite(measured, evaluation, f"{prefix_of(setup.test)}loss", algorithm.layout is not None)
    new = records_of(measured, done)[:bad]
    if bad is None:
        new[-1] |= plain(evaluation)
    history += new
    if best and bad is None:
        look = partial(best.look, history[-1], partial(algorithm.params, state))
        folder.written(look) if folder else look()
    if folder:
        folder.record(history, len(new), state if bad is None and len(history) % checkpoint_every == 0 else None)
        if best:
            folder.written(partial(best.tidy, folder.oldest))
    if bad is not None:
        where = suspects(algorithm.params(state), setup.params, loss_fn, setup.data)
        raise FloatingPointError(_explain(done + bad + 1, why, where, folder))
    return state, Seen(seen.drawn + drawn.times, sums)


def _explain(round: int, why: str, where: str, folder: RunFolder | None) -> str:
    """Say why and where a round is no longer finite, what to change, and which checkpoint in the folder is good."""
    good = folder.latest if folder else None
    kept = f"; the checkpoint after round {good} in {folder.path} is good" if folder and good else ""
    look = f"look at {where}" if where else "look at the data"
    return f"round {round} is no longer finite ({why}): lower the learning rate, clip the updates, or {look}{kept}"
