"""What every benchmark measures with: the workloads as this project runs them, the matmul peak, memory, one JSON line a result."""

import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from peers import cpu, say
from workloads import Workload

import fedjax_lite as fl
from fedjax_lite.engine.placement import everywhere, mesh_of

MU = 0.1  # of FedProx, here and at peers
MODELS = {
    "softmax": lambda: fl.models.mlp((), classes=10),
    "mlp": lambda: fl.models.mlp((200, 200), classes=10),
    "emnist_cnn": lambda: fl.models.emnist_cnn(classes=62, dropout=None),
    "char_lstm": lambda: fl.models.char_lstm(90),
    "lenet5": lambda: fl.models.lenet5(),
    "vgg11": lambda: fl.models.vgg11(),
    "resnet18": lambda: fl.models.resnet18(),
    "resnet20": lambda: fl.models.resnet20(),
    "transformer": lambda: fl.models.transformer(90),
}


def use_devices(number: int | None = None) -> int:
    """Run on `number` devices: by default on one for each core of a CPU, or on one accelerator. Before anything of jax has run."""
    jax.config.update("jax_num_cpu_devices", number or os.cpu_count() or 1)
    number = number or (len(jax.devices()) if jax.default_backend() == "cpu" else 1)
    if number > 1:
        jax.set_mesh(mesh_of(jax.devices()[:number]))
    return number


def federated(workload: Workload) -> fl.FederatedData:
    """The workload's population, on every device."""
    x, y = workload.examples()
    return everywhere(fl.FederatedData.from_arrays({"x": x, "y": y}, np.repeat(np.arange(workload.population), workload.sizes)))


def fedavg(workload: Workload, engine=None, rate=None, precision="float32", shuffle=False) -> fl.Algorithm:
    """The workload's algorithm: plain SGD, weights by examples, server rate 1."""
    loss_fn = fl.models.supervised(MODELS[workload.name]())
    return fl.federate(
        fl.sgd_work(loss_fn, optax.sgd(workload.rate if rate is None else rate), precision=precision),
        fl.aggregators.weighted_mean(),
        fl.optimizer_server(optax.sgd(1.0)),
        batches=fl.Batches(workload.batch, shuffle=shuffle),
        population=workload.population,
        engine=engine,
    )


def method_of(name: str, workload: Workload, engine=None) -> fl.Algorithm:
    """The workload with a method of fl.algorithms that peers have, too; its rates are FedAvg's."""
    loss_fn = fl.models.supervised(MODELS[workload.name]())
    common = dict(batches=fl.Batches(workload.batch, shuffle=False), population=workload.population, engine=engine)
    if name == "fedprox":
        return fl.algorithms.fedprox(loss_fn, optax.sgd(workload.rate), mu=MU, **common)
    return fl.algorithms.scaffold(loss_fn, learning_rate=workload.rate, **common)


def listed(table: jax.Array) -> fl.sampling.Sampler:
    """The sampler that takes row t of `[rounds, clients]` ids in round t, and starts over after the last."""
    return lambda key, sizes, round: fl.sampling.cohort(key, sizes, table[round % table.shape[0]])


def compiled(fn: Callable, *operands: Any, donate: tuple[int, ...] = ()) -> tuple[jax.stages.Compiled, float]:
    """The program, and the seconds it took to trace, lower and compile; operands in `donate` are gone when it has run."""
    began = time.perf_counter()
    program = jax.jit(fn, donate_argnums=donate).lower(*operands).compile()
    return program, time.perf_counter() - began


def matmul_peak(precision: str = "float32", size: int | None = None) -> Callable[[float], float]:
    """A function of seconds: the GFLOP/s of square matmuls on all devices of the mesh in use, the fastest of its tries.

    Float32 is as jax multiplies it by default, on some accelerators in fewer bits. Call it beside every timing that is to be a share of it:
    a shared machine's speed changes from second to second.
    """
    usual, loops = (1024, 8) if jax.default_backend() == "cpu" else (8192, 4)
    size = size or usual

    def loop(x):
        return jax.lax.fori_loop(0, loops, lambda _, y: x @ y, x)

    split = jax.sharding.PartitionSpec("clients")

    def split_loop(x):
        return jax.shard_map(lambda x: loop(x[0])[None], in_specs=split, out_specs=split)(x)

    devices = jax.sharding.get_abstract_mesh().size or 1
    # Random, since chips draw less power on equal numbers and so run faster; of a scale at which products stay as large as they are.
    x = (jax.random.normal(jax.random.key(0), (size, size)) / size**0.5).astype(precision)
    if devices > 1:
        x = jnp.broadcast_to(x, (devices, size, size))
        x = jax.device_put(x, jax.sharding.NamedSharding(jax.sharding.get_mesh(), split))
    program, _ = compiled(split_loop if devices > 1 else loop, x)
    jax.block_until_ready(program(x))

    def measure(seconds):
        times, began = [], time.perf_counter()
        while not times or time.perf_counter() - began < seconds:
            start = time.perf_counter()
            jax.block_until_ready(program(x))
            times.append(time.perf_counter() - start)
        return devices * loops * 2 * size**3 / min(times) / 1e9

    return measure


def useful_share(steps: np.ndarray, lanes: int, devices: int = 1) -> float:
    """Which share of the lane-steps trains a client: the packed engine's queue, replayed."""
    each = -(-len(steps) // devices)
    queues: list[list[int]] = [[] for _ in range(devices)]
    for client in np.sort(steps)[::-1]:
        min((queue for queue in queues if len(queue) < each), key=sum).append(client)
    spent = 0
    for queue in queues:
        busy = np.zeros(lanes, int)
        for client in queue:
            busy[np.argmin(busy)] += client
        spent = max(spent, busy.max())
    return float(steps.sum() / (spent * lanes * devices))


def program_memory(program: jax.stages.Compiled) -> float:
    """What a program holds while it runs, in GB, by XLA's own account: arguments, results and temporaries."""
    of = program.memory_analysis()
    return (of.argument_size_in_bytes + of.output_size_in_bytes + of.temp_size_in_bytes - of.alias_size_in_bytes) / 1e9


def peak_memory() -> float:
    """The most memory used so far, in GB: of the device where it counts, else of the process. It never falls."""
    counted = jax.devices()[0].memory_stats() or {}
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return counted.get("peak_bytes_in_use", kilobytes * 1024) / 1e9


def device() -> str:
    """The device in words."""
    return cpu() if jax.default_backend() == "cpu" else jax.devices()[0].device_kind


def spread(times: list[float]) -> dict[str, float]:
    """The median and the fastest of a list of seconds."""
    return {"seconds": round(statistics.median(times), 5), "fastest": round(min(times), 5)}


def report(**line) -> None:
    """One JSON line, with the script's name and where it was measured: what `compare.py` reads."""
    say({"benchmark": Path(sys.argv[0]).stem} | line | {"device": device(), "jax": jax.__version__, "python": platform.python_version()})
