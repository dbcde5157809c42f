"""What a population on disk costs beside the same one in memory, by clients a round.

    python benchmarks/streaming.py [softmax|mlp|emnist_cnn|char_lstm] [--clients 10 100 1000]

Segments of rounds of both alternate. One JSON line a size: seconds a round in memory and streamed, their ratio pair by pair, losses.
The files are read from the operating system's cache: a disk that is slower than the training adds what it lacks.
"""

import argparse
import statistics
import tempfile
import time
from functools import partial

import jax
from measure import MODELS, fedavg, federated, report, use_devices
from workloads import WORKLOADS

import fedjax_lite as fl
from fedjax_lite.engine.placement import everywhere
from fedjax_lite.runner.segments import in_memory
from fedjax_lite.runner.stream import streamed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workload", choices=WORKLOADS, nargs="?", default="softmax")
    parser.add_argument("--clients", nargs="+", type=int, help="clients a round, in place of the workload's")
    parser.add_argument("--rounds", type=int, default=10, help="rounds a segment")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--devices", type=int, help="by default one a CPU core, one accelerator")
    options = parser.parse_args()
    devices = use_devices(options.devices)
    workload = WORKLOADS[options.workload]
    data = federated(workload)
    algorithm = fedavg(workload)
    params = everywhere(MODELS[workload.name]().init(jax.random.key(0), data.example))
    with tempfile.TemporaryDirectory() as folder:
        store = fl.data.save(f"{folder}/store", data)
        for clients in options.clients or [workload.cohort]:
            sampler = fl.sampling.uniform(clients)
            runs = {
                "memory": partial(in_memory, algorithm, sampler, None, options.rounds, data=data, held_out=data),
                "streamed": partial(streamed(store), algorithm, sampler, None, options.rounds, held_out=store),
            }
            states = {name: jax.jit(algorithm.init)(params, everywhere(jax.random.key(1))) for name in runs}
            times, losses = {name: [] for name in runs}, {}
            for pair in range(options.pairs + 2):  # of which two warm up: a piece's rows grow at first
                for name, run in runs.items():
                    began = time.perf_counter()
                    states[name], metrics, _ = jax.block_until_ready(run(state=states[name]))
                    losses[name] = round(float(metrics["loss"][-1]), 4)
                    if pair > 1:
                        times[name].append((time.perf_counter() - began) / options.rounds)
            ratios = [after / before for before, after in zip(times["memory"], times["streamed"], strict=True)]
            medians = {f"{name}_seconds": round(statistics.median(seconds), 5) for name, seconds in times.items()}
            report(
                workload=workload.name, clients=clients, devices=devices, **medians, ratio=round(statistics.median(ratios), 2),
                ratio_range=[round(min(ratios), 2), round(max(ratios), 2)], losses=losses,
            )  # fmt: skip


if __name__ == "__main__":
    main()
