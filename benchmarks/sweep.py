"""A study of many runs, seeds by learning rates, as one compiled program, beside single runs one after another.

    python benchmarks/sweep.py [--seeds 16] [--rates 16] [--singles 10] [--rounds 20]

One JSON line: seconds a run of the study and of a single compiled run, run alternately in one process, and their ratio; the time
to compile each; how many times longer the whole study takes than the single runs together. Softmax regression on the ragged
clients of `workloads.py`.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from measure import MODELS, fedavg, federated, listed, report, use_devices
from workloads import WORKLOADS

import fedjax_lite as fl


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
    data, model = federated(workload), MODELS[workload.name]()
    table = jnp.asarray(workload.cohorts(options.rounds), jnp.int32)

    def experiment(data, table, key, rate):
        params = model.init(jax.random.fold_in(key, 0), data.example)
        algorithm = fedavg(workload, fl.packed(options.lanes), rate, shuffle=True)
        return fl.simulate(algorithm, data, params, listed(table), rounds=options.rounds, key=key)[1]["loss"]

    keys = jax.random.split(jax.random.key(1), options.seeds)
    rates = workload.rate * jnp.geomspace(0.1, 1.0, options.rates)
    study, study_compiles = compiled(jax.vmap(jax.vmap(experiment, (None, None, None, 0)), (None, None, 0, None)), data, table, keys, rates)
    single, single_compiles = compiled(experiment, data, table, keys[0], rates[0])
    runs, ratios, times = options.seeds * options.rates, [], []
    for repeat in range(options.repeats):
        start = time.perf_counter()
        for i in range(options.singles):
            one = jax.block_until_ready(single(data, table, keys[i % options.seeds], rates[-1]))
        middle = time.perf_counter()
        curves = jax.block_until_ready(study(data, table, keys, rates))
        times.append(((time.perf_counter() - middle) / runs, (middle - start) / options.singles))
        ratios.append(times[-1][0] / times[-1][1])
    last = np.asarray(curves)[(options.singles - 1) % options.seeds, -1]
    study_seconds, single_seconds = (statistics.median(column) for column in zip(*times))
    report(
        workload=workload.name, clients=workload.cohort, rounds=options.rounds, runs=runs, devices=devices,
        study_seconds_a_run=round(study_seconds, 5), single_seconds=round(single_seconds, 5), ratio=round(statistics.median(ratios), 3),
        study_in_single_runs=round(runs * study_seconds / single_seconds, 1),
        study_compile_seconds=round(study_compiles, 2), single_compile_seconds=round(single_compiles, 2),
        loss=round(float(one[-1]), 4), difference=float(np.abs(last - np.asarray(one)).max()),
    )  # fmt: skip


def compiled(fn, *operands):
    """The program, and the seconds it took to compile."""
    start = time.perf_counter()
    program = jax.jit(fn).lower(*operands).compile()
    return program, time.perf_counter() - start


if __name__ == "__main__":
    main()
