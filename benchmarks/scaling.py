"""Time and memory of a round against one size at a time: clients a round, lanes, population, parameters.

    python benchmarks/scaling.py cohort|lanes|population|model

One JSON line a size: seconds a round, compile seconds and, from the compiled program itself, the bytes it needs beside its arguments.
"""

import argparse
import time

import jax
import numpy as np
import optax
from measure import report, spread, use_devices

import fedjax_lite as fl
from fedjax_lite.engine.devices import everywhere

FEATURES, CLASSES, BATCH, MEDIAN = 60, 10, 10, 20
SIZES = {  # axis: its sizes, on a CPU
    "cohort": [10, 30, 100, 300, 1000, 3000, 10_000],
    "lanes": [1, 2, 4, 8, 16, 32, 64, 128, 256],
    "population": [10**4, 10**5, 10**6, 5 * 10**6, 15 * 10**6],
    "model": [(), (16,), (64,), (256,), (1024,), (1024, 1024)],
}


def population(clients: int, examples: int = 200_000) -> fl.FederatedData:
    """Ragged clients, whose examples overlap where there are more clients than examples: ids cost memory, data need not."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, examples)
    inputs = rng.normal(size=(CLASSES, FEATURES))[labels] + rng.normal(size=(examples, FEATURES))
    size = np.clip(rng.lognormal(np.log(MEDIAN), 1, clients), 1, 500).astype(np.int32)
    start = rng.integers(0, examples - 500, clients, dtype=np.int32)
    return everywhere(fl.FederatedData({"x": inputs.astype(np.float32), "y": labels}, start, size, largest=500))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("axis", choices=SIZES)
    parser.add_argument("--sizes", nargs="+", type=int, help="other sizes than the default ones (not for model)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--devices", type=int, help="by default one a CPU core, one accelerator")
    options = parser.parse_args()
    devices = use_devices(options.devices)
    for value in options.sizes or SIZES[options.axis]:
        chosen = {"cohort": 100, "lanes": None, "population": 10_000, "model": ()} | {options.axis: value}
        cohort = 1000 if options.axis == "lanes" else chosen["cohort"]
        data = population(max(chosen["population"], cohort))
        model = fl.models.mlp(chosen["model"], classes=CLASSES)
        params = model.init(jax.random.key(0), data.example)
        algorithm = fl.algorithms.fedavg(
            fl.models.supervised(model), optax.sgd(0.05), batches=fl.Batches(BATCH), population=data.population,
            engine=fl.packed(chosen["lanes"]),
        )  # fmt: skip

        def rounds(data, params, key, algorithm=algorithm, cohort=cohort):
            return fl.simulate(algorithm, data, params, fl.sampling.uniform(cohort), rounds=options.rounds, key=key)[1]["loss"]

        began = time.perf_counter()
        program = jax.jit(rounds).lower(data, params, jax.random.key(1)).compile()
        compile_seconds = time.perf_counter() - began
        loss = jax.block_until_ready(program(data, params, jax.random.key(1)))
        times = []
        for _ in range(options.repeats):
            began = time.perf_counter()
            loss = jax.block_until_ready(program(data, params, jax.random.key(1)))
            times.append((time.perf_counter() - began) / options.rounds)
        memory = program.memory_analysis()
        report(
            axis=options.axis, size=value, devices=devices, clients=cohort, parameters=sum(x.size for x in jax.tree.leaves(params)),
            **spread(times), compile_seconds=round(compile_seconds, 2),
            temporary_mb=round(memory.temp_size_in_bytes / 1e6, 2), arguments_mb=round(memory.argument_size_in_bytes / 1e6, 2),
            loss=round(float(loss[-1]), 4),
        )  # fmt: skip


if __name__ == "__main__":
    main()
