"""Evaluation of ten thousand clients: one model on all, a head of its own each, and after each has fine-tuned the model.

    python benchmarks/personal.py [--clients N] [--rows device|host]

FedPer on an MLP of 128 hidden units, whose head of 1,290 numbers stays with each client; 20 examples to train on and 10 held out. One JSON
line: seconds of a round of 100 clients, of a segment with its evaluation, and of what the end of a run adds, all without compilation.
"""

import argparse
import time

import jax
import numpy as np
import optax
from measure import device, report, use_devices

import fedjax_lite as fl
from fedjax_lite.runner.clients import Seen, clients_of
from fedjax_lite.runner.fit import Setup, fit_to_devices, to_devices
from fedjax_lite.runner.segments import start_segments

TRAIN, TEST, COHORT, ROUNDS = 20, 10, 100, 5


def population(clients, examples, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((clients * examples, 784), np.float32)
    return fl.FederatedData.from_arrays({"x": x, "y": rng.integers(0, 10, len(x))}, np.repeat(np.arange(clients), examples))


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--clients", type=int, default=10_000)
    arguments.add_argument("--rows", choices=["device", "host"], default="device")
    options = arguments.parse_args()
    use_devices(1)
    data, test = population(options.clients, TRAIN, 0), population(options.clients, TEST, 1)
    model = fl.models.mlp((128,), classes=10)
    loss_fn, params = fl.models.supervised(model), model.init(jax.random.key(0), data.example)
    head = fl.leaves.last_layer(model, data.example)
    algorithm = fl.algorithms.fedper(loss_fn, optax.sgd(0.1), batches=fl.Batches(10), population=options.clients, personal=head)
    setup = Setup(algorithm, data, params, fl.sampling.uniform(COHORT), ROUNDS, jax.random.key(1), loss_fn, test, ROUNDS)
    setup, shapes, host, needs = fit_to_devices(setup, options.rows == "host")
    setup = to_devices(setup)
    state, segment = start_segments(algorithm, setup.data, setup.params, setup.key, host is not None, setup.sampler)
    how = fl.FineTune(optax.sgd(0.1), fl.Batches(10))

    seconds = {"round": [], "segment": [], "end": []}
    for _ in range(3):  # the first compiles
        start = time.perf_counter()
        state, *_ = jax.block_until_ready(segment(algorithm, setup.sampler, None, ROUNDS, state, held_out=()))
        rounds = time.perf_counter() - start
        start = time.perf_counter()
        state, _, sums, drawn = jax.block_until_ready(segment(algorithm, setup.sampler, loss_fn, ROUNDS, state, held_out=setup.held_out))
        evaluated = time.perf_counter() - start
        start = time.perf_counter()
        found = clients_of(setup, shapes, state, Seen(np.asarray(drawn), jax.device_get(sums)), {}, how, None)
        for name, value in (("round", rounds / ROUNDS), ("segment", evaluated), ("end", time.perf_counter() - start)):
            seconds[name].append(value)
    assert {"test_own_accuracy", "test_finetuned_accuracy"} <= found.table.keys()
    report(
        clients=options.clients, head=int(sum(x.size for x in jax.tree.leaves(shapes.own)) / options.clients), rows=options.rows,
        kept_mb=round((needs["clients' state"] if host is None else host).bytes / 1e6, 1),
        device=device(), **{f"{name}_s": round(min(values[1:]), 3) for name, values in seconds.items()},
    )  # fmt: skip


if __name__ == "__main__":
    main()
