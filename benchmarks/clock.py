"""What a virtual clock costs: events a second of the host's table, and FedBuff's events beside synchronous rounds of the same work.

    python benchmarks/clock.py [--events 1000000] [--steps 1000] [--workload softmax]

One JSON line: events a second of the host's table, by how many clients train at once; of one program of `--steps` steps of a buffer of 10
the events a second of FedBuff (all of its table in one scan), of synchronous FedAvg with the same cohorts, and of FedAvg drawn by
`fl.sampling.uniform`; and how often FedBuff's program calls the host (never).
"""

import argparse
import re
import time

import jax
import numpy as np
import optax
from measure import MODELS, compiled, federated, report, spread
from workloads import WORKLOADS

import fedjax_lite as fl
from fedjax_lite.clock.arrivals import simulated
from fedjax_lite.engine.pace import Asynchrony

CLIENTS, BUFFER = 10_000, 10


def parsed():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=1000, help="of the server, of ten events each")
    parser.add_argument("--workload", default="softmax", choices=WORKLOADS)
    parser.add_argument("--repeats", type=int, default=5)
    return parser.parse_args()


def of_host(events: int, concurrency: int) -> float:
    """Events a second of the host's table."""
    durations = 1 / fl.clock.lognormal(CLIENTS).steps
    began = time.perf_counter()
    table = simulated(durations, Asynchrony(BUFFER, 10**9), concurrency=concurrency, rounds=events // BUFFER)
    return table.events / (time.perf_counter() - began)


def on_device(workload, steps: int, repeats: int) -> dict:
    """Events a second of one program of FedBuff and of the same rounds, taken in turns; and the host's calls in it."""
    data, loss_fn = federated(workload), fl.models.supervised(MODELS[workload.name]())
    options = dict(batches=fl.Batches(workload.batch, shuffle=False), population=workload.population)
    fedbuff = fl.algorithms.fedbuff(loss_fn, optax.sgd(workload.rate), buffer=BUFFER, window=32, too_old="drop", **options)
    fedavg = fl.algorithms.fedavg(loss_fn, optax.sgd(workload.rate), aggregator=fl.aggregators.mean(), **options)
    params = MODELS[workload.name]().init(jax.random.key(0), data.example)
    devices = fl.clock.lognormal(workload.population)
    table = fl.clock.arrivals(fedbuff, data, params, devices, concurrency=2 * BUFFER, rounds=steps)
    samplers = {
        "fedbuff": (fedbuff, fl.clock.arriving(table)),
        "same_cohorts": (fedavg, fl.sampling.scheduled(table.ids)),
        "uniform": (fedavg, fl.sampling.uniform(BUFFER)),
    }
    programs = {}
    for name, (algorithm, sampler) in samplers.items():

        def run(data, params, algorithm=algorithm, sampler=sampler):
            return fl.simulate(algorithm, data, params, sampler, rounds=steps, key=jax.random.key(0))[0].server

        programs[name] = compiled(run, data, params)[0]
    text = programs["fedbuff"].as_text()
    seconds = {name: [] for name in programs}
    for _ in range(repeats):
        for name, program in programs.items():
            began = time.perf_counter()
            jax.block_until_ready(program(data, params))
            seconds[name].append(time.perf_counter() - began)
    found = {f"{name}_events_a_second": steps * BUFFER / np.median(each) for name, each in seconds.items()}
    ratio = np.median(seconds["fedbuff"]) / np.median(seconds["same_cohorts"])
    return found | {"beside_rounds": ratio, "host_calls": len(re.findall("callback", text)), "spread": spread(seconds["fedbuff"])}


def main():
    arguments = parsed()
    host = {f"host_{c}_at_once_events_a_second": of_host(arguments.events, c) for c in (10, 100, 1000)}
    report(benchmark="clock", **host | on_device(WORKLOADS[arguments.workload], arguments.steps, arguments.repeats))


if __name__ == "__main__":
    main()
