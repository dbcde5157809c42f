"""Seconds a round by engine and number of lanes, on one device; compilation apart, warm-up left out.

    python benchmarks/engines.py [softmax|mlp|emnist_cnn|char_lstm] [--repeats 5]

Runs of the engines alternate, so that a change of the machine's speed hits all of them. One JSON line an engine, with the final loss.
"""

import argparse
import time

import jax
import jax.numpy as jnp
from measure import MODELS, compiled, fedavg, federated, listed, report, spread, use_devices
from workloads import WORKLOADS

import fedjax_lite as fl


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workload", choices=WORKLOADS, nargs="?", default="softmax")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    use_devices(1)
    workload = WORKLOADS[options.workload]
    data = federated(workload)
    params = MODELS[workload.name]().init(jax.random.key(0), data.example)
    table = jnp.asarray(workload.cohorts(options.rounds), jnp.int32)
    engines = {"default": None, "sequential": fl.sequential(), "padded": fl.padded()}
    engines |= {f"packed({lanes})": fl.packed(lanes) for lanes in (1, 2, 4, 16, 64)}
    programs, compiling, times, losses = {}, {}, {name: [] for name in engines}, {}
    for name, engine in engines.items():
        algorithm = fedavg(workload, engine, shuffle=True)

        def rounds(data, params, key, table, algorithm=algorithm):
            return fl.simulate(algorithm, data, params, listed(table), rounds=options.rounds, key=key)[1]["loss"]

        programs[name], compiling[name] = compiled(rounds, data, params, jax.random.key(1), table)
        programs[name](data, params, jax.random.key(1), table).block_until_ready()
    for _ in range(options.repeats):
        for name, program in programs.items():
            start = time.perf_counter()
            losses[name] = program(data, params, jax.random.key(1), table).block_until_ready()
            times[name].append((time.perf_counter() - start) / options.rounds)
    for name in engines:
        report(
            workload=workload.name, engine=name, **spread(times[name]), compile_seconds=round(compiling[name], 2),
            loss=round(float(losses[name][-1]), 4),
        )  # fmt: skip


if __name__ == "__main__":
    main()
