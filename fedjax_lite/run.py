"""The one impure function: compiled segments of rounds, and between them evaluation, progress, records and checkpoints."""

import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_lite.base import Algorithm, Key, State, Tree
from fedjax_lite.data.federated import FederatedData
from fedjax_lite.evaluate import evaluate, summarize
from fedjax_lite.folder import RunFolder, records_of
from fedjax_lite.progress import Progress
from fedjax_lite.sampling import Sampler
from fedjax_lite.simulate import advance
from fedjax_lite.work import LossFn

__all__ = ["Convergence", "Result", "run"]


class Convergence(NamedTuple):
    """Stop once a falling metric has not improved by more than `tolerance` for `patience` evaluations in a row."""

    metric: str = "test_loss"  # any name in the records: "test_loss", "update_norm", "loss"
    tolerance: float = 1e-4
    patience: int = 5

    def reached(self, history: list[dict[str, Any]]) -> bool:
        """Whether the evaluated records say so."""
        best, waited = math.inf, 0
        for record in history:
            if self.metric not in record:
                raise ValueError(f"converge: no metric {self.metric!r}; there are {', '.join(k for k in record if k != 'round')}")
            value = record[self.metric]
            improved = value is not None and value < best - self.tolerance
            best, waited = (value, 0) if improved else (best, waited + 1)
        return waited >= self.patience


class Result(NamedTuple):
    """What a run ends with."""

    state: State
    params: Tree  # the global model
    history: list[dict[str, Any]]  # one record a round; evaluated rounds hold the test metrics too
    status: str  # "finished", "converged" or "interrupted"


def run(
    algorithm: Algorithm,
    data: FederatedData,
    params: Tree,
    sampler: Sampler,
    *,
    rounds: int,
    key: Key,
    loss_fn: LossFn | None = None,
    test: FederatedData | None = None,
    evaluate_every: int = 10,
    converge: Convergence | None = None,
    out: str | Path | None = None,
    checkpoint_every: int | None = None,
    resume: bool = False,
    progress: bool = True,
    identity: Mapping[str, Any] | None = None,
) -> Result:
    """Run an algorithm for a number of rounds, or until it converges, with one host synchronisation a segment.

    Args:
        algorithm, data, params, sampler, rounds, key: as for `simulate`.
        loss_fn: what the global model is evaluated with; None: no evaluation.
        test: held-out examples; None evaluates on the training data, under the prefix "train_" instead of "test_".
        evaluate_every: rounds a segment; the model is evaluated at the end of each.
        converge: when to stop early.
        out: folder for metrics.jsonl, summary.json, params.safetensors, report.html and checkpoints/; None: nothing is written.
        checkpoint_every: rounds between checkpoints, a multiple of `evaluate_every`; by default every segment.
        resume: go on from the last checkpoint in `out`, to the same bits as a run that was never interrupted.
        progress: show a bar if the output is a terminal.
        identity: more facts (JSON values) that a checkpoint must agree with to be resumed, such as the configuration.

    Returns:
        A `Result`.

    Raises:
        FloatingPointError: as soon as a loss or the model is no longer finite; names the round. The last good checkpoint stays.
        ValueError: for arguments that do not fit, an `out` that holds something else, a checkpoint of another configuration.
    """
    checkpoint_every = evaluate_every if checkpoint_every is None else checkpoint_every
    _check(rounds, evaluate_every, checkpoint_every, out, resume, converge)
    held_out, prefix = (data, "train_") if test is None else (test, "test_")

    def segment(state, train, held_out, length):
        state, history = advance(algorithm, train, state, sampler, rounds=length)
        return state, history, evaluate(loss_fn, algorithm.params(state), held_out) if loss_fn else {}

    segment = jax.jit(segment, static_argnums=3, donate_argnums=0)
    state = jax.jit(algorithm.init)(params, key)
    history: list[dict[str, Any]] = []
    folder = None
    if out is not None:
        facts = {"data": data.fingerprint(), "test": None if test is None else test.fingerprint(), "state": _structure(state)}
        folder = RunFolder(Path(out), facts | dict(identity or {}))
        state, history = folder.open(state, resume)

    with Progress(rounds, len(history), progress) as bar, _interruptible() as interrupted, folder or nullcontext():

        def ending() -> str:
            """The status to end with, or "" to go on."""
            if converge and converge.reached([record for record in history if record["round"] % evaluate_every == 0]):
                return "converged"
            return "finished" if len(history) >= rounds else "interrupted" if interrupted() else ""

        while not (status := ending()):
            done = len(history)
            length = min(evaluate_every - done % evaluate_every, rounds - done)
            state, measured, sums = segment(state, data, held_out, length)
            measured, sums = jax.device_get((measured, sums))
            bad = _first_not_finite(measured)
            new = records_of(measured, done)[:bad]
            if bad is None and sums:
                new[-1] |= summarize(sums, prefix)
            history += new
            if folder:
                folder.record(new, state if bad is None and len(history) % checkpoint_every == 0 else None)
            if bad is not None:
                raise FloatingPointError(_explain(measured, bad, done, folder))
            bar.update(history[-1])
        if folder:
            folder.finish(status, history, state, algorithm.params(state))
    return Result(state, algorithm.params(state), history, status)


def _check(rounds, evaluate_every, checkpoint_every, out, resume, converge) -> None:
    for name, value in (("rounds", rounds), ("evaluate_every", evaluate_every), ("checkpoint_every", checkpoint_every)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an int of at least 1, got {value!r}")
    if checkpoint_every % evaluate_every:
        raise ValueError(
            f"checkpoint_every={checkpoint_every} must be a multiple of evaluate_every={evaluate_every}: states exist between segments only"
        )
    if resume and out is None:
        raise ValueError("resume=True needs out: the folder of the run to go on with")
    if converge and (converge.patience < 1 or converge.tolerance < 0):
        raise ValueError(f"converge needs patience >= 1 and tolerance >= 0, got {converge}")


def _structure(state: State) -> list[str]:
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return [f"{jax.tree_util.keystr(path)} {leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves]


def _first_not_finite(measured: dict[str, np.ndarray]) -> int | None:
    """The first round of a segment, with clients, whose loss or update is not finite."""
    bad = ~np.isfinite(measured["update_norm"])
    if "loss" in measured:
        bad |= ~np.isfinite(measured["loss"]) & (measured["clients"] > 0)
    return int(np.argmax(bad)) if bad.any() else None


def _explain(measured, bad: int, done: int, folder: "RunFolder | None") -> str:
    values = ", ".join(f"{name}={measured[name][bad]}" for name in ("loss", "update_norm") if name in measured)
    good = f"; the last good checkpoint is in {folder.path}" if folder else ""
    return f"round {done + bad + 1} is no longer finite ({values}): lower the learning rate, clip the updates, or look at the data{good}"


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM end a run after the segment in flight, with its state saved; a second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    seen: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in signals}

    def note(number, frame):
        seen.append(number)
        for each in signals:
            signal.signal(each, before[each])

    try:
        for number in signals:
            signal.signal(number, note)
        yield lambda: bool(seen)
    finally:
        for number in signals:
            signal.signal(number, before[number])
