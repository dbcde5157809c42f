"""What a virtual clock costs: the host's table of arrivals, FedBuff's events in one scan, and rounds under a clock with a trace.

    python benchmarks/clock.py [--part host device timed] [--events 1000000] [--steps 1000] [--workload softmax]

A JSON line a part. `host`: events a second of the table, by how many clients train at once, and of a bare heap that nobody is drawn for.
`device`: events a second of FedBuff (all of its table in one program of `--steps` steps of ten), of synchronous FedAvg with the same
cohorts and of FedAvg that draws its own; and how often FedBuff's program calls the host (never). `timed`: a round under `fl.clock.timed`
with a trace of 10^5 clients in that of `fl.sampling.uniform` alone. Programs are timed in turn in one process; seconds are the
processor's, so that what else runs on the machine counts as little as it can.
"""

import argparse
import re
import time
from collections.abc import Callable
from heapq import heapify, heapreplace

import jax
import jax.numpy as jnp
import numpy as np
import optax
from measure import MODELS, compiled, federated, report
from workloads import WORKLOADS

import fedjax_lite as fl
from fedjax_lite.clock.arrivals import simulated
from fedjax_lite.clock.time import Time
from fedjax_lite.engine.pace import Asynchrony

CLIENTS, BUFFER = 10_000, 10
TRACED, IMAGES, POOL = 100_000, 80, 8000  # clients under a trace, images of each, and the images that they share


def parsed():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", default=["host", "device", "timed"], choices=["host", "device", "timed"])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=1000, help="of the server, of ten events each")
    parser.add_argument("--workload", default="softmax", choices=WORKLOADS)
    parser.add_argument("--repeats", type=int, default=7)
    return parser.parse_args()


def in_turn(programs: dict[str, Callable], repeats: int) -> dict[str, np.ndarray]:
    """Processor seconds `[repeats]` of each program, run once in advance."""
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for repeat in range(repeats + 1):
        for name, program in programs.items():
            began = time.process_time()
            jax.block_until_ready(program())
            seconds[name] += [time.process_time() - began] if repeat else []
    return {name: np.array(each) for name, each in seconds.items()}


def ratio(these: np.ndarray, those: np.ndarray) -> str:
    """The median ratio of the pairs and its middle half."""
    low, middle, high = np.percentile(these / those, [25, 50, 75])
    return f"{middle:.3f} ({low:.3f}-{high:.3f})"


def of_host(events: int, repeats: int) -> dict:
    """Events a second of the host's table, and of its heap alone, the fastest of some tries."""
    durations = 1 / np.asarray(fl.clock.lognormal(CLIENTS).steps, np.float64)
    seconds, found = durations.tolist(), {}

    def bare(concurrency):
        ids = np.random.default_rng(0).integers(0, CLIENTS, events).tolist()
        heap = [(seconds[k], k, 0) for k in range(concurrency)]
        heapify(heap)
        began = time.process_time()
        for k in ids:
            heapreplace(heap, (heap[0][0] + seconds[k], k, 0))
        return time.process_time() - began

    def whole(concurrency, buffer):
        began = time.process_time()
        made = simulated(durations, Asynchrony(buffer, 10**9), concurrency=concurrency, rounds=events // buffer)
        return (time.process_time() - began) * events / made.events

    for at_once in (10, 100, 1000):
        tries = [(whole(at_once, BUFFER), whole(at_once, 1), bare(at_once)) for _ in range(repeats)]
        names = f"fedbuff_{at_once}_at_once", f"fedasync_{at_once}_at_once", f"bare_heap_{at_once}"
        found |= {name: round(events / least) for name, least in zip(names, np.min(tries, axis=0), strict=True)}
    return found


def on_device(workload, steps: int, repeats: int) -> dict:
    """Events a second of one program of FedBuff and of the same rounds, and the host's calls in it."""
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
    programs, texts = {}, {}
    for name, (algorithm, sampler) in samplers.items():

        def run(data, params, algorithm=algorithm, sampler=sampler):
            return fl.simulate(algorithm, data, params, sampler, rounds=steps, key=jax.random.key(0))

        program = compiled(run, data, params)[0]
        programs[name], texts[name] = (lambda program=program: program(data, params)), program.as_text()
    seconds = in_turn(programs, repeats)
    found = {f"{name}_events_a_second": round(steps * BUFFER / np.median(each)) for name, each in seconds.items()}
    calls = len(re.findall("callback|infeed|outfeed", texts["fedbuff"]))
    return found | {"workload": workload.name, "beside_rounds": ratio(seconds["fedbuff"], seconds["same_cohorts"]), "host_calls": calls}


def under_a_clock(clients: int, rounds: int, repeats: int) -> dict:
    """A round of softmax regression on images under a clock, in that of the same sampler alone."""
    rng = np.random.default_rng(0)
    examples = {"x": rng.standard_normal((POOL, 784), np.float32), "y": rng.integers(0, 10, POOL, np.int32)}
    start = np.arange(TRACED, dtype=np.int32) * IMAGES % POOL  # a hundred clients' images, again and again
    data = fl.FederatedData(jax.tree.map(jnp.asarray, examples), jnp.asarray(start), jnp.full(TRACED, IMAGES, jnp.int32), IMAGES)
    model, devices = fl.models.mlp((), classes=10), fl.clock.lognormal(TRACED)
    params, key = model.init(jax.random.key(0), data.example), jax.random.key(1)
    algorithm = fl.algorithms.fedavg(fl.models.supervised(model), optax.sgd(0.05), batches=fl.Batches(20), population=TRACED)
    day = 28_800.0 * (np.arange(3) + 0.6 * rng.random((TRACED, 3)))  # three times a day, for up to three hours
    rows = [(k, begin, begin + 10_800 * long) for k in range(TRACED) for begin, long in zip(day[k], rng.uniform(0.1, 1, 3), strict=True)]
    laws = {"own_trace": (fl.availability.trace(rows, repeat=86_400), 12), "phones_at_nine": (fl.availability.trace("phones"), 9)}
    uniform, state = fl.sampling.uniform(clients), algorithm.init(params, key)
    cases = {"uniform": (uniform, state), "no_trace": (fl.clock.timed(uniform, devices), state)}
    for name, (law, hour) in laws.items():
        sampler = fl.clock.timed(uniform, devices, availability=law)
        memory = sampler.init(data.size)._replace(time=Time(jnp.float32(3600 * hour), jnp.float32(0)))
        cases[name] = sampler, state._replace(sampling=memory)
    programs = {}
    for name, (sampler, first) in cases.items():

        def run(data, state, sampler=sampler):
            return fl.advance(algorithm, data, state, sampler, rounds=rounds)

        program = compiled(run, data, first)[0]
        programs[name] = lambda program=program, first=first: program(data, first)
    seconds = in_turn(programs, repeats)
    found = {f"{name}_beside_uniform": ratio(each, seconds["uniform"]) for name, each in seconds.items() if name != "uniform"}
    return {"clients": clients, "ms_a_round": round(1000 * np.median(seconds["uniform"]) / rounds, 3)} | found


def main():
    arguments = parsed()
    if "host" in arguments.part:
        report(benchmark="clock", part="host", **of_host(arguments.events, arguments.repeats))
    if "device" in arguments.part:
        report(benchmark="clock", part="device", **on_device(WORKLOADS[arguments.workload], arguments.steps, arguments.repeats))
    if "timed" in arguments.part:
        for clients, rounds in ((100, 10), (10, 100)):
            report(benchmark="clock", part="timed", **under_a_clock(clients, rounds, 3 * arguments.repeats))


if __name__ == "__main__":
    main()
