"""Time and memory of a round against one size at a time: clients a round, lanes, population, parameters.

    python benchmarks/scaling.py cohort|lanes|population|model [--own] [--plot FILE.svg]

One JSON line a size: seconds a round, compile seconds and, from the compiled program itself, the bytes of its arguments and those it
needs beside them. The state is donated from segment to segment, as `fl.run` does it. With --plot, the curve as well, and for the
cohort and the population that of memory in FILE-memory.svg.
"""

import argparse
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import jax
import numpy as np
import optax
from measure import device, report, spread, use_devices
from plot import curve

import fedjax_lite as fl
from fedjax_lite.engine.placement import everywhere
from fedjax_lite.runner import stream
from fedjax_lite.runner.segments import in_memory, start_segments

FEATURES, CLASSES, BATCH, MEDIAN = 60, 10, 10, 20
SIZES = {  # axis: its sizes, on a CPU
    "cohort": [10, 30, 100, 300, 1000, 3000, 10_000],
    "lanes": [1, 2, 4, 8, 16, 32, 64, 128, 256],
    "population": [10**4, 10**5, 10**6, 5 * 10**6, 15 * 10**6],
    "model": [(), (16,), (64,), (256,), (1024,), (1024, 1024)],
}
KEEP = {"nothing": "nothing", "device": "a step count", "host": "it in host memory"}  # what clients keep between rounds
LABELS = {"cohort": "clients a round", "lanes": "lanes", "population": "clients in the population", "model": "parameters"}
MEMORY = {"cohort": ("temporary_mb", "temporary memory, MB"), "population": ("arguments_mb", "state and data, MB")}


@cache
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
    parser.add_argument(
        "--own", action="store_true", help="each size twice more: clients keep a step count, on the device or in host memory"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--devices", type=int, help="by default one a CPU core, one accelerator")
    parser.add_argument("--plot", metavar="FILE.svg", type=Path)
    options = parser.parse_args()
    devices = use_devices(options.devices)
    contenders = [
        prepared(options.axis, value, keep, options.rounds)
        for value in options.sizes or SIZES[options.axis]
        for keep in (KEEP if options.own else ["nothing"])
    ]
    # Sizes take turns, so that a machine whose speed drifts does not bend the curve.
    measured = [[segment() for _, segment in contenders] for _ in range(options.repeats)]
    lines = []
    for (facts, _), column in zip(contenders, zip(*measured, strict=True), strict=True):
        times, losses = zip(*column, strict=True)
        lines.append(facts | spread(times) | {"loss": round(losses[-1], 4)})
        report(axis=options.axis, devices=devices, **lines[-1])
    if options.plot:
        plot(options.plot, options.axis, lines, f"{devices} devices" if devices > 1 else "1 device")


def prepared(axis: str, value: int | tuple[int, ...], keep: str, rounds: int) -> tuple[dict, Callable[[], tuple[float, float]]]:
    """What is known of a size before it is timed, and a function that runs a segment of rounds: seconds a round, the last loss."""
    chosen = {"cohort": 1000 if axis == "lanes" else 100, "lanes": None, "population": 10_000, "model": ()} | {axis: value}
    data = population(max(chosen["population"], chosen["cohort"]))
    model = fl.models.mlp(chosen["model"], classes=CLASSES)
    rate = 0.05 if keep == "nothing" else fl.on_client_step(lambda t: 0.05 / (1 + 0.01 * t))
    algorithm = fl.algorithms.fedavg(
        fl.models.supervised(model), optax.sgd, learning_rate=rate,
        batches=fl.Batches(BATCH), population=data.population, engine=fl.packed(chosen["lanes"]),
    )  # fmt: skip
    params = model.init(jax.random.key(0), data.example)
    parameters = sum(x.size for x in jax.tree.leaves(params))
    sampler, key = fl.sampling.uniform(chosen["cohort"]), everywhere(jax.random.key(1))
    state, segment = start_segments(algorithm, data, params, key, keep == "host", sampler)

    began = time.perf_counter()
    if keep == "host":  # the program has the rows of the clients drawn
        lowered = stream.lowered(data, partial(algorithm.layout.rows, params), algorithm, sampler, rounds, state)[0]
    else:
        lowered = in_memory.of(algorithm, sampler, None).lower(rounds, state, data=data, held_out=None)
    memory = lowered.compile().memory_analysis()
    sizes = data.size.nbytes if keep == "host" else 0  # used when cohorts are drawn, by a program of its own
    compile_seconds = time.perf_counter() - began
    facts = dict(
        size=value, keep=keep, clients=chosen["cohort"], parameters=parameters, compile_seconds=round(compile_seconds, 2),
        temporary_mb=round(memory.temp_size_in_bytes / 1e6, 2), arguments_mb=round((memory.argument_size_in_bytes + sizes) / 1e6, 2),
    )  # fmt: skip

    def run():
        nonlocal state
        began = time.perf_counter()
        state, history, _ = jax.block_until_ready(segment(algorithm, sampler, None, rounds, state, held_out=None))
        return (time.perf_counter() - began) / rounds, float(history["loss"][-1])

    run()  # warms up
    return facts, run


def plot(path: Path, axis: str, lines: list[dict], devices: str) -> None:
    """The curve of time and, where the axis has one, of memory."""

    def draw(path, title, label, y):
        series: dict[str, list] = {}
        for line in lines:
            x = line["parameters"] if axis == "model" else line["size"]
            series.setdefault(("clients keep " if line["keep"] == "nothing" else "") + KEEP[line["keep"]], []).append((x, y(line)))
        curve(path, f"{title} by {LABELS[axis]}", LABELS[axis], label, series, f"{device()}, {devices}")

    draw(path, "Time of a round", "milliseconds a round", lambda line: 1e3 * line["seconds"])
    if axis in MEMORY:
        field, label = MEMORY[axis]
        draw(path.with_name(f"{path.stem}-memory.svg"), "Memory a device", label, lambda line: line[field])


if __name__ == "__main__":
    main()
