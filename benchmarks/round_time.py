"""Seconds a round, and how near that is to what the machine can do.

    python benchmarks/round_time.py WORKLOAD [--devices 2] [--lanes 4|auto] [--precision bfloat16]

One JSON line: seconds a round (median and fastest), clients, examples and GFLOP a second, the matmul peak of the same precision measured
beside each timing and the share of it that was reached, the share of the lane-steps that trained a client, compile seconds, memory of the
program and the most of the process, losses.
On a CPU every core is a device of its own, unless --devices says otherwise.
"""

import argparse
import statistics
import sys
import time
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
from measure import (
    MODELS,
    compiled,
    fedavg,
    federated,
    listed,
    matmul_peak,
    method_of,
    peak_memory,
    program_memory,
    report,
    spread,
    use_devices,
    useful_share,
)
from peers import say
from workloads import WORKLOADS

import fedjax_lite as fl
from fedjax_lite.engine.lanes import default_lanes
from fedjax_lite.engine.placement import everywhere

COHORTS = 200


def parsed():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("--devices", type=int, help="by default one a CPU core, one accelerator")
    parser.add_argument("--lanes", default="", help="a number, or auto (default: the package's own)")
    parser.add_argument("--clients", type=int, help="clients a round, in place of the workload's")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--shuffle", action="store_true", help="reshuffle each client's examples, as the package does by default")
    parser.add_argument("--method", default="fedavg", choices=["fedavg", "fedprox", "scaffold"], help="for --serve")
    parser.add_argument("--rounds", type=int, default=0, help="rounds a repeat (default: about a second's worth)")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--save-start", metavar="FILE", help="write the initial parameters for the peers, and end")
    parser.add_argument("--serve", action="store_true", help="run as many rounds as each line of the standard input says (peers.py)")
    parser.add_argument("--start", metavar="FILE", help="taken for granted: the start is always that of --save-start")
    return parser.parse_args()


def main():
    options = parsed()
    devices = use_devices(options.devices)
    workload = WORKLOADS[options.workload]
    if options.clients:
        workload = workload._replace(cohort=options.clients, population=max(workload.population, options.clients))
    data = federated(workload)
    start = MODELS[workload.name]().init(jax.random.key(0), data.example)
    if options.save_start:
        np.savez(options.save_start, **{str(i): leaf for i, leaf in enumerate(in_forward_order(start))})
        return
    lanes = options.lanes if options.lanes == "auto" else int(options.lanes) if options.lanes else None
    if options.serve:
        other = None if options.method == "fedavg" else method_of(options.method, workload, fl.packed(lanes))
        how = dict(algorithm=other, donate=True)  # what clients keep is changed where it is, as in a run
        return serve(started(workload, data, start, lanes, options.precision, options.shuffle, **how), devices, lanes)
    how = {name: getattr(options, name) for name in ("precision", "shuffle", "rounds", "repeats")}
    report(**measured(workload, data, start, matmul_peak(options.precision), devices=devices, lanes=lanes, **how))


def started(workload, data, start, lanes=None, precision="float32", shuffle=False, algorithm=None, donate=False):
    """Rounds as one program: `run(rounds, state)`, its programs and the seconds to compile each by rounds, the state at the start."""
    algorithm = algorithm or fedavg(workload, fl.packed(lanes), precision=precision, shuffle=shuffle)
    table, programs = jnp.asarray(workload.cohorts(COHORTS), jnp.int32), {}

    def run(rounds, state):
        """The state after so many rounds, their losses, seconds a round."""
        operands = (state, data, table)
        if rounds not in programs:
            advance = lambda state, data, table: fl.advance(algorithm, data, state, listed(table), rounds=rounds)  # noqa: E731
            programs[rounds] = compiled(advance, *operands, donate=(0,) if donate else ())
        began = time.perf_counter()
        state, history = jax.block_until_ready(programs[rounds][0](*operands))
        return state, np.asarray(history["loss"]), (time.perf_counter() - began) / rounds

    return run, programs, everywhere(jax.jit(algorithm.init)(start, jax.random.key(1)))


def serve(rounds, devices, lanes):
    """Run as many rounds as each line of the standard input says."""
    run, programs, state = rounds
    run(1, jax.tree.map(jnp.copy, state))
    versions = {"jax": jax.__version__, "fedjax_lite": version("fedjax_lite")}
    variant = f"{devices} devices, lanes {lanes or 'default'}"
    say({"program": "fedjax_lite", "variant": variant, "versions": versions, "compile_seconds": round(programs[1][1], 2)})
    for line in sys.stdin:
        if int(line) not in programs:
            run(int(line), jax.tree.map(jnp.copy, state))  # compiles and warms up
        state, losses, seconds = run(int(line), state)
        say({"seconds": seconds, "loss": float(losses[-1])})


def measured(workload, data, start, peak, *, devices=1, lanes=None, precision="float32", shuffle=False, rounds=0, repeats=7):
    """What is reported of a workload's rounds.

    Args:
        start: the initial parameters.
        peak: from `matmul_peak`, of the same precision.
        rounds: of one timing; 0: about a second's worth, which takes a second program.
    """
    run, programs, state = started(workload, data, start, lanes, precision, shuffle)
    first_loss = run(rounds or 1, state)[1][0]
    rounds = rounds or max(1, round(1 / min(run(1, state)[2] for _ in range(3))))
    state, *_ = run(rounds, state)  # warms up
    cohorts, times, examples, peaks, shares = workload.cohorts(COHORTS), [], [], [], []
    for _ in range(repeats):
        taken = cohorts[np.arange(int(state.round), int(state.round) + rounds) % COHORTS]
        before = peak(0.2)
        state, losses, seconds = run(rounds, state)
        times.append(seconds)
        examples.append(workload.sizes[taken].sum(axis=1).mean())
        peaks.append(max(before, peak(0.2)))
        shares.append(3 * workload.flops * examples[-1] / 1e9 / seconds / peaks[-1])
    seconds, steps = statistics.median(times), -(-workload.sizes[cohorts[0]] // workload.batch)
    width = None if lanes == "auto" else min(lanes or default_lanes(start), -(-workload.cohort // devices))
    return dict(
        workload=workload.name, devices=devices, lanes=lanes or "default", width=width, precision=precision, clients=workload.cohort,
        **spread(times), compile_seconds=round(next(iter(programs.values()))[1], 2), clients_a_second=round(workload.cohort / seconds, 1),
        examples_a_second=round(statistics.mean(examples) / seconds),
        gflops=round(3 * workload.flops * statistics.mean(examples) / 1e9 / seconds, 1), matmul_peak=round(statistics.median(peaks), 1),
        share=round(statistics.median(shares), 4), useful=width and round(useful_share(steps, width, devices), 3),
        memory_gb=round(program_memory(programs[rounds][0]), 3), peak_memory_gb=round(peak_memory(), 2),
        first_loss=round(float(first_loss), 4), loss=round(float(losses[-1]), 4),
    )  # fmt: skip


def in_forward_order(params):
    """The leaves as a peer meets them: of a network and each of its blocks by kind of layer; of a layer kernel, recurrent kernel, bias."""
    kinds = ["embedding", "LSTM", "Conv", "GroupNorm", "Block", "LayerNorm", "Dense", "kernel", "scale", "recurrent", "bias"]

    def place(item):
        names = [key.key.strip("_").split("_") for key in item[0]]
        return [(kinds.index(kind), int(*number or [0])) for kind, *number in names]

    return [np.asarray(leaf) for _, leaf in sorted(jax.tree_util.tree_leaves_with_path(params), key=place)]


if __name__ == "__main__":
    main()
