"""What a run will cost, before it runs: memory from shapes and from the compiled program, time from a short trial."""

import inspect
import time
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite import tree
from fedjax_lite.base import Algorithm, Key, State, Tree
from fedjax_lite.data.federated import FederatedData
from fedjax_lite.data.store import Store
from fedjax_lite.engine import placement
from fedjax_lite.metrics import readable
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.runner.arguments import Count, check_run
from fedjax_lite.runner.fit import Setup, fit_to_devices, to_devices
from fedjax_lite.runner.memory import Need, check_fits, cohorts_held, device_memory, nbytes, workspace
from fedjax_lite.runner.run import run
from fedjax_lite.runner.segments import counts, in_memory, start_segments
from fedjax_lite.runner.stream import lowered, lowered_evaluation
from fedjax_lite.sampling.draw import has_clock, looks
from fedjax_lite.sampling.participation import Sampler

__all__ = ["Plan", "plan"]

TRIALS = 3  # rounds that are timed, and whose cohorts are drawn, but for those of a clock


class Plan(NamedTuple):
    """What `plan` finds out; bytes are those of each device."""

    parameters: int  # numbers in the model
    needs: dict[str, Need]
    peak: int  # bytes while the compiled program runs
    limit: int | None  # bytes that there are
    host: Need | None  # what clients keep, where that is in host memory
    devices: int
    steps: float | None  # local steps of a round, all clients together; None where the algorithm does not tell
    longest: int | None  # of one client
    compile_seconds: float
    round_seconds: float
    rounds: int
    clock: dict[
        str, np.ndarray
    ]  # what the sampler counts in each round, such as "seconds" of a virtual clock; empty where it counts nothing

    def __str__(self) -> str:
        """A table for a person."""
        on = f"each of {self.devices} devices" if self.devices > 1 else "the device"
        total = readable(self.limit) if self.limit else "an unknown amount"
        needs = [f"  {name:<16} {readable(need.bytes):>9}  {need.note}".rstrip() for name, need in self.needs.items()]
        lines = [
            f"parameters         {self.parameters:,}",
            f"on {on}",
            *needs,
            f"  {'expected peak':<16} {readable(self.peak):>9}  of {total}",
            *([f"in host memory     {readable(self.host.bytes):>9}  rows {self.host.note}"] if self.host else []),
            "steps a round      " + (f"{self.steps:,.0f}; {self.longest:,} of the client with the most" if self.steps else "not known"),
            f"compilation        {self.compile_seconds:.1f} s",
            f"a round            {self.round_seconds:.3g} s; all {self.rounds} {self.round_seconds * self.rounds:.3g} s, evaluation apart",
            *_virtual(self.clock),
        ]
        return "\n".join(lines)


def plan(
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
    own_on_host: bool | None = None,
    **others: Any,
) -> Plan:
    """What `fl.run` with the same arguments will need; a few rounds are run to time them, and nothing is written.

    Args:
        algorithm, data, params, sampler, rounds, key, loss_fn, test, evaluate_every, own_on_host: as in `fl.run`.
        others: of its arguments, which change nothing here.

    Raises:
        TypeError: for an argument that `fl.run` does not take.
        ValueError: for options that `fl.run` refuses, and where it cannot fit the device, with the number to lower: before
            compilation, or after it for working memory.

    >>> import fedjax_lite as fl, optax
    >>> data = fl.FederatedData.from_clients([{"x": jnp.array([1.0, 3.0])}, {"x": jnp.array([8.0])}])
    >>> loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2
    >>> algorithm = fl.algorithms.fedavg(loss_fn, optax.sgd(0.1), batches=fl.Batches(1, epochs=5), population=2)
    >>> found = fl.plan(algorithm, data, jnp.zeros(()), fl.sampling.everyone(), rounds=100, key=jax.random.key(0))
    >>> found.parameters, found.steps, found.longest
    (1, 15.0, 10)
    """
    if unknown := sorted(others.keys() - inspect.signature(run).parameters.keys()):
        raise TypeError(f"plan takes the arguments of fl.run, which has no {', '.join(unknown)}")
    options = {name: others.get(name) for name in ("checkpoint_every", "converge")}
    rounds, evaluate_every = check_run(
        algorithm, data, params, sampler, rounds, key, test, evaluate_every, own_on_host=own_on_host, **options
    )
    setup = Setup(algorithm, data, params, sampler, rounds, key, loss_fn, test, evaluate_every)
    setup, shapes, host, found = fit_to_devices(setup, own_on_host)
    on_host = host is not None
    limit = device_memory()

    start = time.perf_counter()
    peak = _compile(setup, shapes, on_host, found)
    compile_seconds = time.perf_counter() - start
    check_fits(found, limit, max(0, peak - _total(found)))

    drawn = rounds if has_clock(sampler) and not looks(sampler) else min(rounds, TRIALS)
    counted = jax.device_get(counts(algorithm, sampler, drawn, setup.params, setup.key, jnp.asarray(data.size)))
    steps, longest = counted.pop("steps"), counted.pop("longest")
    return Plan(
        parameters=sum(x.size for x in jax.tree.leaves(setup.params)),
        needs=found,
        peak=peak,
        limit=limit,
        host=host,
        devices=placement.device_count(),
        steps=float(np.mean(steps)) if algorithm.layout else None,
        longest=int(np.max(longest)) if algorithm.layout else None,
        compile_seconds=compile_seconds,
        round_seconds=_trial(setup, on_host),
        rounds=rounds,
        clock=counted,
    )


def _virtual(counted: dict[str, np.ndarray]) -> list[str]:
    """Write the lines about virtual time."""
    if "seconds" not in counted:
        return []
    mean = {name: float(values.mean()) for name, values in counted.items()}
    total = counted["seconds"].sum(dtype=np.float64)
    lines = [f"virtual time       {total / 3600:.3g} hours; {mean['seconds']:.3g} s a round, {counted['seconds'].max():.3g} s the longest"]
    if "staleness" in mean:
        beside = f"{mean['too_old']:.3g} too old a round, {mean['lost']:.3g} lost"
        return [*lines, f"staleness          {mean['staleness']:.3g} in the mean, {counted['oldest'].max():.0f} the oldest; {beside}"]
    return [*lines, f"waited for         {mean['waited_for']:.3g} a round; {mean['too_late']:.3g} too late, {mean['lost']:.3g} lost"]


def _compile(setup: Setup, shapes: State, on_host: bool, found: dict[str, Need]) -> int:
    """Compile a segment of the setup, and count the bytes on a device while it runs, those found among them."""
    streams = isinstance(setup.data, Store) or on_host
    program, beside, evaluation = _lower_streamed(setup, shapes, on_host) if streams else _lower_in_memory(setup, shapes)
    peak = _peak(program, _total(found)) + beside + nbytes(setup.params) + workspace(found)
    if evaluation:
        peak = max(peak, _peak(evaluation, 0) + nbytes(shapes._replace(own=(), uplink=()) if on_host else shapes))
    return peak


def _lower_streamed(setup: Setup, shapes: State, on_host: bool) -> tuple[jax.stages.Lowered, int, jax.stages.Lowered | None]:
    """Lower rounds and evaluation of a setup whose rows or examples come to the device; between them, the bytes beside."""
    layout = setup.algorithm.layout
    rows = partial(layout.rows, setup.params) if on_host and layout and layout.rows else None
    known = {"key": placement.everywhere(setup.key), "round": placement.everywhere(np.int32(0))}
    shapes = shapes._replace(**known, **tree.zeros({"server": shapes.server, "aggregator": shapes.aggregator}))
    program, examples = lowered(setup.data, rows, setup.algorithm, setup.sampler, setup.first, shapes)
    beside = (cohorts_held() - 1) * examples + nbytes(setup.test) + setup.data.size.nbytes
    return program, beside, lowered_evaluation(setup.loss_fn, setup.params, setup.held_out) if setup.loss_fn else None


def _lower_in_memory(setup: Setup, shapes: State) -> tuple[jax.stages.Lowered, int, None]:
    """Lower a segment of a setup in memory, with the evaluation in it, and the bytes beside."""
    operands = placement.shapes({"data": setup.data, "held_out": setup.held_out})
    program = in_memory.of(setup.algorithm, setup.sampler, setup.loss_fn).lower(setup.first, placement.shapes(shapes), **operands)
    twice = setup.test is None and setup.loss_fn  # the program has the data twice, the device once
    return program, -nbytes(setup.data) if twice else 0, None


def _total(found: dict[str, Need]) -> int:
    """Add the bytes of all that was found."""
    return sum(need.bytes for need in found.values())


def _peak(program: jax.stages.Lowered, unknown: int) -> int:
    """Bytes on a device while a program runs; `unknown` where the backend does not tell."""
    used = program.compile().memory_analysis()
    if used is None:
        return unknown
    return used.argument_size_in_bytes + used.output_size_in_bytes + used.temp_size_in_bytes - used.alias_size_in_bytes


def _trial(setup: Setup, on_host: bool) -> float:
    """Seconds of a round: the median of a few, after one that compiles."""
    setup = to_devices(setup._replace(test=None))
    state, segment = start_segments(setup.algorithm, setup.data, setup.params, setup.key, on_host, setup.sampler)
    seconds = []
    for _ in range(1 + TRIALS):
        start = time.perf_counter()
        state, *_ = jax.block_until_ready(segment(setup.algorithm, setup.sampler, None, 1, state, held_out=()))
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[1:]))
