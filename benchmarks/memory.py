"""Memory of a run: what `fl.plan` expects, and what the run then takes.

    python benchmarks/memory.py [SHAPE ...]

One JSON line a shape, each in a process of its own: the expected peak, that of all devices of the process, the measured one, and
their ratio. On a CPU, whose memory is the host's, a run is made several times: the first compiles; the last is measured by the growth of
the process's own memory from before its data was there to its highest, looked at every millisecond. An accelerator tells its peak itself.
"""

import ctypes
import gc
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import jax
import numpy as np
import optax
from measure import report, use_devices

import fedjax_lite as fl

FEATURES = 784


def population(clients, examples):
    """Clients with as many examples each."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((clients * examples, FEATURES), np.float32)
    return fl.FederatedData.from_arrays({"x": x, "y": rng.integers(0, 10, len(x))}, np.repeat(np.arange(clients), examples))


def shape(
    hidden=(200, 200), clients=200, examples=50, cohort=100, devices=1, disk=False, optimizer=None, on_host=None, method="fedavg", **parts
):
    """Everything that `fl.run` and `fl.plan` are given, made anew at each call."""
    model = fl.models.mlp(hidden, classes=10)
    loss_fn = fl.models.supervised(model)
    steps = {"learning_rate": 0.01} if method == "scaffold" else {"optimizer": optimizer or optax.sgd(0.01)}
    if method == "fedper":
        parts["personal"] = f"Dense_{len(hidden)}/.*"
    algorithm = getattr(fl.algorithms, method)(loss_fn, batches=fl.Batches(20), population=clients, **steps, **parts)

    def arguments(folder):
        data = population(clients, examples)
        if disk:
            store = Path(folder) / "store"
            data = fl.data.Store.open(store, verify=False) if store.exists() else fl.data.save(store, data)
        params = model.init(jax.random.key(0), data.example)
        return (algorithm, data, params, fl.sampling.uniform(cohort)), {
            "rounds": 4,
            "key": jax.random.key(1),
            "evaluate_every": 2,
            "own_on_host": on_host,
        }

    return devices, arguments


# name -> what takes most of the memory
SHAPES = {
    "data": lambda: shape(hidden=(), clients=5000),
    "data on two devices": lambda: shape(hidden=(), clients=2500, devices=2),
    "lanes": lambda: shape(engine=fl.packed(64)),
    "lanes, Adam": lambda: shape(engine=fl.packed(64), optimizer=optax.adam(0.01)),
    "messages": lambda: shape(aggregator=fl.aggregators.median()),
    "messages on two devices": lambda: shape(aggregator=fl.aggregators.median(), devices=2),
    "messages, Krum": lambda: shape(aggregator=fl.aggregators.krum(num_byzantine=10)),
    "messages, geometric median": lambda: shape(aggregator=fl.aggregators.geometric_median()),
    "messages, mixed": lambda: shape(aggregator=fl.aggregators.nnm(fl.aggregators.median(), num_byzantine=10)),
    "clients' state": lambda: shape(clients=500, examples=10, uplink=optax.trace(0.5)),
    "SCAFFOLD's rows": lambda: shape(method="scaffold", clients=1000, examples=10, on_host=False),
    "SCAFFOLD's rows in host memory": lambda: shape(method="scaffold", clients=1000, examples=10, on_host=True),
    "heads of 10,000 clients": lambda: shape(hidden=(128,), clients=10_000, examples=10, method="fedper", on_host=False),
    "heads in host memory": lambda: shape(hidden=(128,), clients=10_000, examples=10, method="fedper", on_host=True),
    "model": lambda: shape(hidden=(3000, 3000), cohort=10),
    "cohorts from disk": lambda: shape(clients=2000, cohort=1000, disk=True),
}


def main():
    names = sys.argv[1:] or list(SHAPES)
    if len(names) > 1 or "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        for name in names:
            # Without the threshold, freed blocks stay in the process and are counted.
            subprocess.run([sys.executable, __file__, name], check=True, env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"})
        return
    devices, arguments = SHAPES[names[0]]()
    use_devices(devices)
    with tempfile.TemporaryDirectory() as folder:
        expected = expectation(arguments, folder)
        run(arguments, folder)
        before = used()
        args, kwargs = arguments(folder)
        fl.run(*args, **kwargs, progress=False)  # until copies that were made on the way are gone
        with Highest() as highest:
            result = fl.run(*args, **kwargs, progress=False)
        measured = highest.bytes - before
    together = expected.peak
    if jax.default_backend() == "cpu":  # whose memory is the host's
        together = expected.peak * devices + (expected.host.bytes if expected.host else 0)
    report(
        shape=names[0], devices=devices, expected_mb=round(together / 1e6, 1), measured_mb=round(measured / 1e6, 1),
        ratio=round(together / measured, 3), loss=round(result.history[-1]["loss"], 4),
    )  # fmt: skip


def expectation(arguments, folder):
    """The plan; its arrays are gone when it is there."""
    args, kwargs = arguments(folder)
    return fl.plan(*args, **kwargs)


def run(arguments, folder):
    """A run for its compiled programs."""
    args, kwargs = arguments(folder)
    fl.run(*args, **kwargs, progress=False)


def used():
    """Bytes in use now: of the device, or of this process apart from mapped files."""
    gc.collect()
    if jax.default_backend() != "cpu":
        return jax.devices()[0].memory_stats()["bytes_in_use"]
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return resident()


def resident():
    """The process's own memory, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


class Highest(threading.Thread):
    """A context that knows afterwards the highest number of bytes in use in it."""

    def __enter__(self):
        self.bytes, self.done = used(), threading.Event()
        self.start()
        return self

    def run(self):
        while jax.default_backend() == "cpu" and not self.done.wait(0.001):
            self.bytes = max(self.bytes, resident())

    def __exit__(self, *error):
        self.done.set()
        self.join()
        if jax.default_backend() != "cpu":
            self.bytes = jax.devices()[0].memory_stats()["peak_bytes_in_use"]


if __name__ == "__main__":
    main()
