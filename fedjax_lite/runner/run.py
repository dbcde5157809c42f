"""The one impure function: compiled segments of rounds, and between them evaluation, progress, records and checkpoints."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_lite.base import Algorithm, Key, State, Tree
from fedjax_lite.data.arrays import check_alike
from fedjax_lite.data.federated import FederatedData
from fedjax_lite.data.store import Store
from fedjax_lite.distill.public_set import check_public
from fedjax_lite.engine.placement import everywhere
from fedjax_lite.evaluate import evaluate, summarize
from fedjax_lite.guarantees import hidden
from fedjax_lite.metrics import OF_ROUND, check_names, inside_guarantee, prefix_of
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.models.losses import check_labels
from fedjax_lite.privacy.budget import check_private, delta_of, is_central, spending
from fedjax_lite.refuse import delta as check_delta
from fedjax_lite.refuse import short
from fedjax_lite.runner.arguments import Count, check_run, plain_settings
from fedjax_lite.runner.communication import traffic
from fedjax_lite.runner.compiled import Compiled
from fedjax_lite.runner.convergence import Convergence
from fedjax_lite.runner.diagnose import first_not_finite, suspects
from fedjax_lite.runner.files import check_room
from fedjax_lite.runner.folder import RunFolder
from fedjax_lite.runner.host_rows import untouched
from fedjax_lite.runner.hosts import agreed, check_same, leads
from fedjax_lite.runner.identity import parts_of, sketch
from fedjax_lite.runner.memory import Need, check_fits, device_memory, goes_to_host, nbytes, needs
from fedjax_lite.runner.model_file import leaf_names
from fedjax_lite.runner.progress import Progress, interruptible
from fedjax_lite.runner.records import Records, plain, records_of
from fedjax_lite.runner.stream import at_once, streamed
from fedjax_lite.sampling.check import check_sampler
from fedjax_lite.sampling.participation import Sampler
from fedjax_lite.simulate import advance
from fedjax_lite.uplink.feedback import warn_if_seldom

__all__ = ["Result", "run"]


class Result(NamedTuple):
    """What a run ends with."""

    state: State
    params: Tree  # the global model
    history: Records  # one dict a round; evaluated rounds hold the test metrics too; None where nothing was counted
    status: str  # "finished", "converged" or "interrupted"


def run(
    algorithm: Algorithm,
    data: FederatedData | Store,
    params: Tree,
    sampler: Sampler,
    *,
    rounds: Count,
    key: Key,
    loss_fn: LossFn | None = None,
    test: FederatedData | None = None,
    evaluate_every: Count = 10,
    converge: Convergence | None = None,
    out: str | Path | None = None,
    checkpoint_every: Count | None = None,
    resume: bool = False,
    own_on_host: bool | None = None,
    delta: float | None = None,
    progress: bool = True,
    config: Mapping[str, Any] | None = None,
    notes: Mapping[str, Any] | None = None,
) -> Result:
    """Run an algorithm for a number of rounds, or until it converges, with one host synchronisation a segment.

    Ctrl-C or SIGTERM ends a run after the segment in flight, with its state saved. A run that was killed is resumed from its
    last checkpoint to the same bits, and to the same metrics file, as one that was not.

    Args:
        algorithm, params, sampler, rounds, key: as for `fl.simulate`.
        data: the training population. One on disk (`fl.data.Store`) is streamed: the same rounds, each a program of its own,
            with the examples of its cohort alone on the device.
        loss_fn: what the global model is evaluated with; None: no evaluation.
        test: held-out examples; None evaluates on the training data, under the prefix "train_" instead of "test_".
        evaluate_every: rounds a segment; the model is evaluated at the end of each.
        converge: when to stop early.
        out: folder for config.toml, metrics.jsonl, summary.json, params.safetensors, report.html and checkpoints/; None: nothing
            is written. A run that is already there is moved aside to `out`.1, .2 ... unless it is resumed.
        checkpoint_every: rounds between checkpoints, a multiple of `evaluate_every`; by default every segment.
        resume: go on from the last checkpoint in `out`; from the start where there is none. `rounds` may be another than before, and so
            may `evaluate_every` and `converge`, which looks at the multiples of `evaluate_every` that were evaluated. The evaluation
            after the last round of a run stays in its record when it is lengthened.
        own_on_host: keep what clients keep between rounds in host memory, the rows of those that took part, and give the device the
            cohort's: `state.own` and `state.uplink` are then `Touched(ids, rows)`. None: where all rows would be more than half of a
            device, or more than 16 MB and fewer than one client in ten can take part.
        delta: of a private run (`fl.aggregators.dp_mean`), for the epsilons in its summary and report; by default population^-1.1.
        progress: show a bar if the output is a terminal.
        config: settings (TOML values) to keep beside the results. A resumed run must agree with them, but for "name", "run",
            "engine" and "data", which do not change what a round computes. Without them it is compared of what functions the
            algorithm (but for its engine), the sampler and loss_fn are made, and with what numbers. Data, key and initial
            parameters are compared in any case.
        notes: what else to keep in the summary (TOML values); not compared.

    Returns:
        A `Result`.

    Raises:
        FloatingPointError: as soon as a loss or the model is no longer finite; names the round. The last good checkpoint stays,
            and from there the same settings diverge again; with others it is another run, for another folder.
        ValueError: for arguments that do not fit, an `out` that holds something else, a checkpoint of another configuration.

    >>> import fedjax_lite as fl
    >>> data = fl.FederatedData.from_clients([{"x": jnp.array([1.0, 3.0])}, {"x": jnp.array([5.0, 7.0])}])
    >>> loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2
    >>> algorithm, sampler = fl.algorithms.fedsgd(loss_fn, learning_rate=1.0, population=2), fl.sampling.everyone()
    >>> result = fl.run(algorithm, data, jnp.zeros(()), sampler, rounds=1, key=jax.random.key(0), loss_fn=loss_fn)
    >>> result.status, round(float(result.params), 4), round(result.history[-1]["train_loss"], 4)
    ('finished', 4.0, 2.5)
    """
    given = (algorithm, data, params, sampler, rounds, key, test, evaluate_every, checkpoint_every, converge, own_on_host)
    rounds, evaluate_every = check_run(*given)
    config, notes = plain_settings(config), plain_settings(notes, "notes")
    if delta is not None:
        check_delta("run", delta)
    if not isinstance(resume, bool):
        raise TypeError(f"resume must be True or False, got {resume!r}")
    if resume and out is None:
        raise ValueError("resume=True needs out: the folder of the run to go on with")
    if out is not None:
        out = check_room(out, resume)
        leaf_names(params)
    params, shapes, on_host, _ = sized(algorithm, data, params, sampler, rounds, evaluate_every, key, test, own_on_host)
    hides = hidden(shapes.own, shapes.uplink)
    check_private(algorithm.privacy, sampler, data.size, rounds, converge, hides, is_central(test))
    test, params, key = everywhere((test, params, key))
    if not isinstance(data, Store):
        data = everywhere(data)
    held_out, prefix = (data if test is None else test), prefix_of(test)
    parts = (algorithm, sampler, loss_fn)
    trace(*parts, rounds=min(rounds, evaluate_every), params=params, key=key, data=data, test=test, converge=converge)
    state, segment = started(algorithm, data, params, key, on_host)
    check_public(state.server, test)
    history: Records = []
    folder = None
    if out is not None or jax.process_count() > 1:
        facts = {"data": data.fingerprint(), "test": None if test is None else test.fingerprint(), "state": _structure(shapes)}
        facts |= {"key": jax.random.key_data(key).tolist(), "params": sketch(params)}
        facts |= {} if config else {"parts": parts_of(algorithm=algorithm, sampler=sampler, loss_fn=loss_fn)}
        check_same(str((facts, config, rounds, evaluate_every)))
    if out is not None:
        folder = RunFolder(out, facts, config, notes)
        state, history = folder.open(state, resume)

    with Progress(rounds, len(history), progress and leads()) as bar, interruptible(bar.note) as interrupted, folder or nullcontext():

        def ending() -> str:
            """The status to end with, or "" to go on."""
            if converge and converge.reached(history[evaluate_every - 1 :: evaluate_every]):
                return "converged"
            return "finished" if len(history) >= rounds else "interrupted" if agreed(interrupted()) else ""

        while not (status := ending()):
            done = len(history)
            length = min(evaluate_every - done % evaluate_every, rounds - done)
            state, measured, sums = segment(*parts, length, state, held_out=held_out)
            measured, sums = jax.device_get((measured, sums))
            evaluation = summarize(sums, prefix) if sums else {}
            bad, why = first_not_finite(measured, evaluation, f"{prefix}loss", algorithm.layout is not None)
            new = records_of(measured, done)[:bad]
            if bad is None:
                new[-1] |= plain(evaluation)
            history += new
            if folder:
                folder.record(history, len(new), state if bad is None and len(history) % (checkpoint_every or 1) == 0 else None)
            if bad is not None:
                where = suspects(algorithm.params(state), params, loss_fn, data)
                raise FloatingPointError(_explain(done + bad + 1, why, where, folder))
            bar.update(history[-1])
        if folder:
            names = list(dict.fromkeys(name for record in history for name in record if not inside_guarantee(name, is_central(test))))
            told = spending(algorithm.privacy, hides, sampler, data.population, len(history), delta_of(delta, data.population), names)
            sizes = {"traffic": traffic(history, params, algorithm.params(state))}
            folder.finish(status, history, state, algorithm.params(state), **({"privacy": told} if told else {}), **sizes)
    return Result(state, algorithm.params(state), history, status)


def sized(algorithm, data, params, sampler, rounds, evaluate_every, key, test, own_on_host) -> tuple[Tree, State, bool, dict[str, Need]]:
    """The parameters as arrays, the state's shapes, whether what clients keep goes to host memory, and what each device will hold,
    once it is known to fit."""
    check_sampler(sampler, key, data.size)
    params = jax.tree.map(jnp.asarray, params)
    shapes = jax.eval_shape(algorithm.init, params, key)
    slots = jax.eval_shape(sampler, key, jax.ShapeDtypeStruct((data.population,), jnp.int32), 0).id.size
    participations = rounds * slots / data.population
    warn_if_seldom(shapes.uplink, participations)
    on_host = goes_to_host(own_on_host, algorithm, shapes, participations)
    rows = None
    if on_host:
        row = nbytes((shapes.own, shapes.uplink)) // data.population
        rows = min(data.population, slots * at_once(data, min(rounds, evaluate_every), slots, row))
    found = needs(algorithm, data, params, shapes, sampler, test, rows)
    check_fits(found, device_memory())
    return params, shapes, on_host, found


def started(algorithm: Algorithm, data: FederatedData | Store, params: Tree, key: Key, on_host: bool) -> tuple[State, Callable[..., Any]]:
    """The first state, and a function that runs a segment of rounds from a state."""
    if not on_host or algorithm.layout is None or algorithm.layout.rows is None:
        state = jax.jit(algorithm.init)(params, key)
        return state, streamed(data) if isinstance(data, Store) else partial(in_memory, data=data)

    def without_rows(params, key):
        return algorithm.init(params, key)._replace(own=(), uplink=())

    first = jax.jit(algorithm.layout.rows)
    shapes = jax.eval_shape(algorithm.init, params, key)
    state = jax.jit(without_rows)(params, key)._replace(own=untouched(shapes.own), uplink=untouched(shapes.uplink))
    return state, streamed(data, lambda key, ids: first(params, key, ids))


@partial(Compiled, parts=3, static_argnames="rounds", donate_argnames="state")
def in_memory(algorithm, sampler, loss_fn, rounds, state, *, data, held_out):
    """Rounds and the evaluation after them in one program, compiled once for an algorithm."""
    state, history = advance(algorithm, data, state, sampler, rounds=rounds)
    return state, history, evaluate(loss_fn, algorithm.params(state), held_out) if loss_fn else {}


def trace(algorithm, sampler, loss_fn, *, rounds, params, key, data, test, converge) -> None:
    """Trace a segment, so that what does not fit together is found before anything is compiled or written."""
    state = jax.eval_shape(algorithm.init, params, key)
    if test is not None:
        check_alike(data, test)
    for part, name in ((data, "data"), (test, "test")):
        if loss_fn is not None and part is not None:
            check_labels(loss_fn, jax.eval_shape(algorithm.params, state), part, name)
    example, data = data.example, data.shapes() if isinstance(data, Store) else data
    held_out = data if test is None else test
    try:
        _, measured, sums = in_memory.of(algorithm, sampler, loss_fn).eval_shape(rounds, state, data=data, held_out=held_out)
    except Exception as error:  # perhaps of jax, about two shapes alone
        error.add_note(f"while a round was traced of params {_shapes(params)} and examples such as {_shapes(example)}")
        raise
    check_names(measured.keys() - (OF_ROUND - {"round"}), "the algorithm")
    names = [*measured, *(f"{prefix_of(test)}{name}" for name in sums)]
    if converge and converge.metric not in names:
        raise ValueError(f"converge: no metric {converge.metric!r}; there are {', '.join(names)}")


def _structure(tree: Tree) -> list[str]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [f"{jax.tree_util.keystr(path)} {leaf.dtype}{list(leaf.shape)}".lstrip() for path, leaf in leaves]


def _shapes(tree: Tree) -> str:
    return short(", ".join(_structure(tree)))


def _explain(round: int, why: str, where: str, folder: RunFolder | None) -> str:
    good = folder.latest if folder else None
    kept = f"; the checkpoint after round {good} in {folder.path} is good" if folder and good else ""
    look = f"look at {where}" if where else "look at the data"
    return f"round {round} is no longer finite ({why}): lower the learning rate, clip the updates, or {look}{kept}"
