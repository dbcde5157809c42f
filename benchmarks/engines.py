"""Seconds a round of FedAvg by engine and number of lanes, on ragged clients; compilation apart, warm-up left out.

    python benchmarks/engines.py [softmax|mlp] [--repeats 5]

Runs of the engines alternate, so that a change of the machine's speed hits all of them. One JSON line an engine, with the final loss.
"""

import argparse
import json
import statistics
import time

import jax
import numpy as np
import optax

import fedjax_lite as fl

ROUNDS = 5
WORKLOADS = {  # name: (population, cohort, median size, spread, largest, batch, features, hidden)
    "softmax": (5000, 1000, 30, 1.5, 2000, 10, 60, ()),
    "mlp": (1000, 100, 40, 1.0, 512, 20, 784, (200, 200)),
}


def ragged(population, median, spread, largest, features):
    """Clients of lognormal sizes with label-dependent inputs."""
    rng = np.random.default_rng(0)
    sizes = np.clip(rng.lognormal(np.log(median), spread, population), 1, largest).astype(int)
    labels = rng.integers(0, 10, sizes.sum())
    centers = rng.normal(size=(10, features)).astype(np.float32)
    x = centers[labels] + rng.normal(size=(len(labels), features)).astype(np.float32)
    return fl.FederatedData.from_arrays({"x": x, "y": labels}, np.repeat(np.arange(population), sizes))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workload", choices=WORKLOADS, nargs="?", default="softmax")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    population, cohort, median, spread, largest, batch, features, hidden = WORKLOADS[options.workload]
    data = ragged(population, median, spread, largest, features)
    model = fl.models.mlp(hidden, classes=10)
    params = model.init(jax.random.key(0), data.example)

    engines = {"default": None, "sequential": fl.sequential(), "padded": fl.padded()}
    engines |= {f"packed({lanes})": fl.packed(lanes) for lanes in (1, 2, 4, 16, 64)}
    programs, compiling, times = {}, {}, {name: [] for name in engines}
    for name, engine in engines.items():
        algorithm = fl.algorithms.fedavg(
            fl.models.supervised(model), optax.sgd(0.05), batches=fl.Batches(batch), population=population, engine=engine
        )

        def rounds(data, params, key, algorithm=algorithm):
            return fl.simulate(algorithm, data, params, fl.sampling.uniform(cohort), rounds=ROUNDS, key=key)[1]["loss"]

        start = time.perf_counter()
        programs[name] = jax.jit(rounds).lower(data, params, jax.random.key(1)).compile()
        compiling[name] = time.perf_counter() - start
        loss = programs[name](data, params, jax.random.key(1)).block_until_ready()
    for _ in range(options.repeats):
        for name, program in programs.items():
            start = time.perf_counter()
            loss = program(data, params, jax.random.key(1)).block_until_ready()
            times[name].append((time.perf_counter() - start) / ROUNDS)
    device = jax.devices()[0].device_kind
    for name in engines:
        line = {"workload": options.workload, "engine": name, "seconds_a_round": round(statistics.median(times[name]), 4)}
        line |= {"fastest": round(min(times[name]), 4), "compile_seconds": round(compiling[name], 2), "loss": round(float(loss[-1]), 4)}
        print(json.dumps(line | {"device": device, "jax": jax.__version__}))


if __name__ == "__main__":
    main()
