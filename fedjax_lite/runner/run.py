"""The one impure function: compiled segments of rounds, and between them evaluation, progress, records and checkpoints."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite.base import Algorithm, Key, Number, State, Tree
from fedjax_lite.data.federated import FederatedData
from fedjax_lite.data.store import Store
from fedjax_lite.distill.public_set import check_public
from fedjax_lite.engine.placement import everywhere
from fedjax_lite.guarantees import hidden
from fedjax_lite.leaves import paths_of
from fedjax_lite.metrics import inside_guarantee, prefix_of
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.privacy.budget import delta_of, is_central, spending
from fedjax_lite.refuse import delta as check_delta
from fedjax_lite.report.staleness import ages_counted
from fedjax_lite.runner.advance import Outputs, advance
from fedjax_lite.runner.architecture import architecture_of
from fedjax_lite.runner.arguments import Count, check_notes, check_run, plain_settings
from fedjax_lite.runner.baselines import Baselines, check_baselines, train_baselines
from fedjax_lite.runner.best import Best
from fedjax_lite.runner.callbacks import callbacks_of
from fedjax_lite.runner.classes import check_classification, classified, numbers_of, summary_of
from fedjax_lite.runner.clients import Clients, Seen, check_clients, clients_of
from fedjax_lite.runner.communication import traffic
from fedjax_lite.runner.convergence import Convergence
from fedjax_lite.runner.deadline import Deadline
from fedjax_lite.runner.files import check_room
from fedjax_lite.runner.fit import Setup, check_guarantee, decisive_of, fit_to_devices, structure, to_devices, trace
from fedjax_lite.runner.folder import RunFolder
from fedjax_lite.runner.hosts import agreed, check_same, leads
from fedjax_lite.runner.identity import parts_of, sketch
from fedjax_lite.runner.occupancy import occupancy_of
from fedjax_lite.runner.progress import Progress, interruptible
from fedjax_lite.runner.records import Records
from fedjax_lite.runner.result import Result
from fedjax_lite.runner.segments import start_segments
from fedjax_lite.runner.stream import drawn_for
from fedjax_lite.runner.summary import summarized
from fedjax_lite.runner.timing import Stopwatch
from fedjax_lite.sampling.draw import Watched
from fedjax_lite.sampling.participation import Sampler
from fedjax_lite.writers.writer import Writer

__all__ = ["run"]


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
    baselines: Baselines | None = None,
    finetune: Any = None,
    new_clients: Any = None,
    classification: bool = False,
    keep_best: str | None = None,
    on_round: Callable[[dict[str, Any]], Any] | None = None,
    on_evaluation: Callable[..., Any] | None = None,
    writers: Sequence[Writer] = (),
    budget: Number | None = None,
    progress: bool = True,
    config: Any = None,
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
        out: folder for config.toml, metrics.jsonl, clients.csv, summary.json, params.safetensors, report.html and checkpoints/; None:
            nothing is written. A run that is already there is moved aside to `out`.1, .2 ... unless it is resumed.
        checkpoint_every: rounds between checkpoints, a multiple of `evaluate_every`; by default every segment.
        resume: go on from the last checkpoint in `out`; from the start where there is none. `rounds` may be another than before, and so
            may `evaluate_every` and `converge`, which looks at the multiples of `evaluate_every` that were evaluated. The evaluation
            after the last round of a run stays in its record when it is lengthened.
        own_on_host: keep what clients keep between rounds in host memory, the rows of those that took part, and give the device the
            cohort's: `state.own` and `state.uplink` are then `Touched(ids, rows)`. None: where all rows would be more than half of a
            device, or more than 16 MB and fewer than one client in ten can take part.
        delta: of a private run (`fl.aggregators.dp_mean`), for the epsilons in its summary and report; by default population^-1.1.
        baselines: name -> algorithm, such as `fl.baselines.centralised(...)` and `fl.baselines.local_only(...)`: when the run has ended,
            each is trained from the same parameters by the same cohorts for as many rounds, and its evaluation stands beside the run's
            in summary and report. They take their time anew when a run is resumed, and are refused where it is private.
        finetune: when the run has ended, each client trains the global model on its own examples, and it is evaluated again on that
            client's: "test_finetuned_accuracy" and the like, in the summary and in `clients`.
        new_clients: clients that never took part, such as `fl.data.hold_out_clients` keeps apart; when the run has ended, the global
            model is evaluated on theirs, and again after they have fine-tuned it.
        classification: when the run has ended, compare the global model's scores of all held-out examples with their labels: a confusion
            matrix, recall, precision and the area under the curve of each class, in the summary, the report and the result. It is one
            more pass over these examples, and one more compiled program.
        keep_best: a metric of the evaluation, such as "test_accuracy": the global model after the evaluation that is best by it is kept
            beside the last one, as best.safetensors and in the result.
        on_round: called with the record of each round, a dict, when its segment has ended.
        on_evaluation: called with the record of each evaluated round; with the global model too, in host memory, if it takes two
            arguments. What a callback or a writer raises ends the run as Ctrl-C does, and is raised when everything is saved; after a
            KeyboardInterrupt the result is returned.
        writers: objects with a method `write(records, folder)`, such as `fl.writers.tensorboard()`, called with each segment's records.
        budget: seconds after which the run is to have ended. It ends after the last segment that another one would not follow in time,
            with the status "out_of_time" and its state saved, as if interrupted.
        progress: show a bar if the output is a terminal or a notebook.
        config: settings to keep beside the results: a dict, a dataclass or an `argparse.Namespace`; paths become text, and what is None is
            left out. A resumed run must agree with them, but for "name", "run",
            "engine", "data", "baselines" and "expected", which do not change what a round computes. Without them it is compared of what
            functions the algorithm (but for its engine), the sampler and loss_fn are made, and with what numbers. Data, key and initial
            parameters are compared in any case.
        notes: what else to keep in the summary (TOML values), under names that it does not have; not compared.

    Returns:
        A `Result`.

    Raises:
        FloatingPointError: as soon as a loss or the model is no longer finite; names the round. The last good checkpoint stays,
            and from there the same settings diverge again; with others it is another run, for another folder.
        ValueError: for arguments that do not fit, an `out` that holds something else, a checkpoint of another configuration.

    >>> import fedjax_lite as fl, jax.numpy as jnp
    >>> data = fl.FederatedData.from_clients([{"x": jnp.array([1.0, 3.0])}, {"x": jnp.array([5.0, 7.0])}])
    >>> loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2
    >>> algorithm, sampler = fl.algorithms.fedsgd(loss_fn, learning_rate=1.0, population=2), fl.sampling.everyone()
    >>> result = fl.run(algorithm, data, jnp.zeros(()), sampler, rounds=1, key=jax.random.key(0), loss_fn=loss_fn)
    >>> result.status, round(float(result.params), 4), round(result.history[-1]["train_loss"], 4)
    ('finished', 4.0, 2.5)
    """
    given = (algorithm, data, params, sampler, rounds, key, test, evaluate_every, checkpoint_every, converge, own_on_host)
    rounds, evaluate_every = check_run(*given, classification=classification, keep_best=keep_best, writers=writers)
    deadline, callbacks = Deadline(budget), callbacks_of(on_round, on_evaluation, writers)
    config, notes = plain_settings(config), check_notes(notes)
    out = _check_folder(out, resume, delta, params)

    setup = Setup(algorithm, data, params, sampler, rounds, key, loss_fn, test, evaluate_every)
    setup, shapes, host, found = fit_to_devices(setup, own_on_host)
    decisive = decisive_of(converge, keep_best)
    check_guarantee(setup, shapes, decisive)
    check_baselines(setup, shapes, baselines)
    check_clients(setup, finetune, new_clients)
    check_classification(setup, classification)
    setup = to_devices(setup)
    trace(setup, decisive)
    state, segment = start_segments(algorithm, setup.data, setup.params, setup.key, host is not None, setup.sampler)
    check_public(state.server, setup.test)
    folder, state, history = _open(setup, shapes, state, out, resume, config, notes, keep_best)
    with folder or nullcontext():
        path = folder.path if folder else None
        best = Best(keep_best, jax.eval_shape(algorithm.params, shapes), path, history) if keep_best else None
        watch = Stopwatch(occupancy_of(algorithm, shapes, found), deadline.seconds())
        outputs, raised = Outputs(history, folder, best, checkpoint_every or 1, watch), None
        seen = Seen(_drawn_before(setup, state))
        with watch, Progress(rounds, len(history), progress and leads()) as bar, interruptible(bar.note) as interrupted:
            while not (status := _ending(setup, converge, history, interrupted, deadline)):
                done = len(history)
                state, seen = advance(setup, segment, state, seen, outputs)
                bar.update(history[-1])
                raised = callbacks.tell(history[done:], partial(algorithm.params, state), path)
                deadline.lap()
                watch.lap("records")
                if callbacks.failed(raised):
                    status = _ending(setup, converge, history, interrupted, deadline) or "interrupted"
                    break
            ended = status in ("finished", "converged")
            beside = train_baselines(setup, baselines, len(history)) if ended else {}
            clients = clients_of(setup, shapes, state, seen, history[-1], finetune, new_clients) if ended else Clients({}, {})
            classes = classified(setup, state) if ended and classification else None
            watch.lap("end")
            evaluated = clients.evaluated | (numbers_of(classes, setup.test) if classes else {})
            named = [*evaluated, *([f"{prefix_of(setup.test)}confusion"] if classes else [])]
            totals = _totals(setup, shapes, delta, state, history, named, folder is not None)
            totals |= ({"baselines": beside} if beside else {}) | clients.beside
            totals |= {"classification": summary_of(classes, setup.test, totals.get("words", ()))} if classes else {}
            kept = best.model if best else None
            totals |= {"time": watch.summary()} | ({"best": kept.facts()} if kept else {})
            totals |= {} if raised is None or isinstance(raised, KeyboardInterrupt) else {"error": f"{type(raised).__name__}: {raised}"}
            if folder:
                made = {"architecture": architecture_of(loss_fn, algorithm.params(state), data.example)}
                folder.finish(status, history, state, algorithm.params(state), clients.table, kept and kept.params, **totals, **made)
    if "error" in totals and raised is not None:
        raise raised
    summary = folder.summary if folder else summarized(status, history, deadline.seconds(), **totals)
    return Result(state, algorithm.params(state), history, status, beside, clients.table, evaluated, classes, kept, summary)


def _check_folder(out: Any, resume: Any, delta: Any, params: Tree) -> Path | None:
    """Refuse an `out` that params cannot be written to, or resumed from, and a delta out of range; the folder."""
    if delta is not None:
        check_delta("run", delta)
    if not isinstance(resume, bool):
        raise TypeError(f"resume must be True or False, got {resume!r}")
    if resume and out is None:
        raise ValueError("resume=True needs out: the folder of the run to go on with")
    if out is None:
        return None
    folder = check_room(out, resume)
    paths_of(params)
    return folder


def _open(
    setup: Setup,
    shapes: State,
    state: State,
    out: Path | None,
    resume: bool,
    config: dict[str, Any],
    notes: dict[str, Any],
    keep_best: str | None,
) -> tuple[RunFolder | None, State, Records]:
    """Open the folder `out`, if there is one; state and records to go on from."""
    algorithm, data, test = setup.algorithm, setup.data, setup.test
    if out is None and jax.process_count() == 1:
        return None, state, []
    facts: dict[str, Any] = {"data": data.fingerprint(), "test": None if test is None else test.fingerprint(), "state": structure(shapes)}
    facts |= {"key": jax.random.key_data(setup.key).tolist(), "params": sketch(setup.params)}
    facts |= {} if config else {"parts": parts_of(algorithm=algorithm, sampler=setup.sampler, loss_fn=setup.loss_fn)}
    check_same(str((facts, config, setup.rounds, setup.evaluate_every, keep_best)))
    if out is None:
        return None, state, []
    folder = RunFolder(out, facts, config, notes)
    return folder, *folder.open(state, resume)


def _ending(setup: Setup, converge: Convergence | None, history: Records, interrupted: Callable[[], bool], deadline: Deadline) -> str:
    """Tell the status to end with after this history, or "" to go on."""
    if converge and converge.reached(history[setup.evaluate_every - 1 :: setup.evaluate_every]):
        return "converged"
    if len(history) >= setup.rounds:
        return "finished"
    return "interrupted" if agreed(interrupted()) else "out_of_time" if agreed(deadline.passed()) else ""


def _drawn_before(setup: Setup, state: State) -> np.ndarray:
    """Return for how many rounds each client was drawn before a run is resumed."""
    done, sizes = int(state.round), setup.data.size
    if not done:
        return np.zeros(len(sizes), np.int64)
    if isinstance(state.sampling, Watched):
        return np.asarray(state.sampling.drawn, np.int64)
    return drawn_for(setup.algorithm, setup.sampler, done, state._replace(round=jnp.int32(0), sampling=()), everywhere(jnp.asarray(sizes)))


def _totals(
    setup: Setup, shapes: State, delta: float | None, state: State, history: Records, evaluated: Sequence[str], account: bool
) -> dict[str, Any]:
    """Sum up what a history's rounds cost: the privacy that they spent, where the run is private, and their traffic; name the classes."""
    algorithm, population, hides = setup.algorithm, setup.data.population, hidden(shapes.own, shapes.uplink)
    central = is_central(setup.test)
    known_names = dict.fromkeys(name for record in (*history, evaluated) for name in record)
    names = [name for name in known_names if not inside_guarantee(name, central)]
    told = spending(algorithm.privacy, hides, setup.sampler, population, len(history), delta_of(delta, population), names, account)
    words = setup.data.words if not told else None  # clients' labels make the words; their names are in the table of clients alone
    known: dict[str, Any] = {"words": list(words)} if words else {}
    table = getattr(setup.sampler, "arrivals", None)
    known |= {} if table is None else {"staleness": ages_counted(*(np.asarray(x)[: len(history)] for x in (table.ids, table.ages)))}
    return ({"privacy": told} if told else {}) | known | {"traffic": traffic(history, setup.params, algorithm.params(state))}
