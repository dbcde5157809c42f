"""A study of many runs, seeds by learning rates, as one compiled program, beside single runs one after another.

    python benchmarks/sweep.py [--seeds 16] [--rates 16] [--singles 10] [--rounds 3]

One JSON line: seconds a run of the study and of a single compiled run, run alternately in one process, and their ratio; the time
to compile each; how many single runs take as long as the whole study. Several devices share out the clients of each run; the study
is then measured once more, "dealt" by `fl.over_runs`: each device has whole runs. Softmax regression on the ragged clients of
`workloads.py`.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from measure import MODELS, compiled, fedavg, federated, listed, program_memory, report, use_devices
from workloads import WORKLOADS

import fedjax_lite as fl
from fedjax_lite.engine.placement import everywhere


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", choices=WORKLOADS, default="softmax")
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--rates", type=int, default=16)
    parser.add_argument("--singles", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=100, help="clients a round")
    parser.add_argument("--lanes", type=int, help="lanes of every run (default: the package's own)")
    parser.add_argument("--devices", type=int, help="by default one a CPU core, one accelerator")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    devices = use_devices(options.devices)
    workload = WORKLOADS[options.workload]._replace(cohort=options.clients)
    sizes = {name: getattr(options, name) for name in ("seeds", "rates", "singles", "rounds", "lanes", "repeats")}
    report(**measured(workload, federated(workload), devices=devices, **sizes))


def measured(workload, data, *, seeds, rates, singles, rounds, lanes=None, repeats=5, devices=1):
    """What is reported of a study of `seeds` times `rates` runs, beside so many single runs."""
    model, table = MODELS[workload.name](), jnp.asarray(workload.cohorts(rounds), jnp.int32)

    def experiment(data, table, key, rate):
        params = model.init(jax.random.fold_in(key, 0), data.example)
        algorithm = fedavg(workload, fl.packed(lanes), rate, shuffle=True)
        return fl.simulate(algorithm, data, params, listed(table), rounds=rounds, key=key)[1]["loss"]

    keys, runs = jax.random.split(jax.random.key(1), seeds), seeds * rates
    rates = workload.rate * jnp.geomspace(0.1, 1.0, rates)
    over_grid = jax.vmap(jax.vmap(experiment, (None, None, None, 0)), (None, None, 0, None))
    study, study_compiles = compiled(over_grid, data, table, keys, rates)
    single, single_compiles = compiled(experiment, data, table, keys[0], rates[0])
    of_singles = np.arange(singles) % seeds
    alone = [(keys[seed], rates[-1]) for seed in of_singles]
    calls = {  # name: what to call, and how many runs that is
        "single": (lambda: [jax.block_until_ready(single(data, table, *one)) for one in alone], singles),
        "study": (lambda: study(data, table, keys, rates), runs),
    }
    if devices > 1:
        dealt, dealt_compiles = over_runs(experiment, devices, data, table, keys, rates)
        calls["dealt"] = (dealt, runs)
    times, losses = taking_turns(calls, repeats)
    seconds = {name: statistics.median(column) for name, column in times.items()}
    ratio = {name: statistics.median(np.divide(column, times["single"])) for name, column in times.items()}
    line = dict(
        workload=workload.name, clients=workload.cohort, rounds=rounds, runs=runs, devices=devices,
        study_seconds_a_run=round(seconds["study"], 5), single_seconds=round(seconds["single"], 5), ratio=round(ratio["study"], 3),
        study_in_single_runs=round(runs * seconds["study"] / seconds["single"], 1),
        study_compile_seconds=round(study_compiles, 2), single_compile_seconds=round(single_compiles, 2),
        study_memory_gb=round(program_memory(study), 3), single_memory_gb=round(program_memory(single), 3),
        loss=round(float(losses["single"][-1, -1]), 4), difference=largest(losses["study"][of_singles, -1] - losses["single"]),
    )  # fmt: skip
    if devices > 1:
        line |= dict(
            dealt_seconds_a_run=round(seconds["dealt"], 5), dealt_ratio=round(ratio["dealt"], 3),
            dealt_compile_seconds=round(dealt_compiles, 2),
            dealt_difference=largest(losses["dealt"] - losses["study"].reshape(losses["dealt"].shape)),
        )  # fmt: skip
    return line


def taking_turns(calls, repeats):
    """Of each of several calls, `name: (function, how many runs that is)`: seconds a run, repeat by repeat, and its losses."""
    times, losses = {name: [] for name in calls}, {}
    for turn in range(repeats + 1):  # of which the first warms up
        for name, (call, runs) in calls.items():
            start = time.perf_counter()
            result = jax.block_until_ready(call())
            if turn:
                times[name].append((time.perf_counter() - start) / runs)
            losses[name] = np.asarray(result)
    return times, losses


def over_runs(experiment, devices, data, table, keys, rates):
    """The study with whole runs on each device: a function that runs it, `[seeds * rates, rounds]`, and the seconds to compile it."""
    mesh = jax.make_mesh((devices,), ("runs",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:devices])
    with jax.set_mesh(mesh):
        operands = everywhere((data, table, jnp.repeat(keys, len(rates)), jnp.tile(rates, len(keys))))
        program, seconds = compiled(fl.over_runs(experiment, (None, None, 0, 0)), *operands)
    return lambda: program(*operands), seconds


def largest(differences) -> float:
    """The largest of them, whatever its sign."""
    return float(np.abs(differences).max())


if __name__ == "__main__":
    main()
