"""Does a device compute what a CPU computes? Algorithms and aggregators of tests/support/contract.py on both, in one process.

Products are float32 to the last bit ("highest"), so what differs is the order of sums and the last digits of functions: no array may
be further away than `TOLERANCE` of its largest entry. Importing this starts jax's devices.
"""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from measure import compiled, listed
from rules import messages

import fedjax_lite as fl
from fedjax_lite.tree import words

sys.path.append(str(Path(__file__).parent.parent / "tests" / "support"))
from contract.groups import ALGORITHMS  # noqa: E402
from contract.population import POPULATION, contract_data  # noqa: E402
from contract.rules import AGGREGATORS, NOISE_OF_CLIENTS  # noqa: E402
from problems import SIZES, softmax_params  # noqa: E402

# A change of the messages by 1e-6 of themselves moves the rules' aggregates by up to 6e-5 of their largest entry.
TOLERANCE = 1e-4
SMALL = 1e-3  # entries of an array that has no larger ones may differ as if it had one of this size
KINDS = "fedavg", "median", "random at every place", "uplink top_k", "families that keep their models", "fedgen"
COHORTS = np.array([[2, 0, 6, 5], [1, 3, 4, 2]], np.int32)  # client 5 has no examples


def comparisons(device: jax.Device, cpu: jax.Device, coordinates: int) -> Iterator[tuple[str, Callable[[], dict]]]:
    """What is compared, by name, and a function that does it.

    Args:
        coordinates: of the aggregators' messages, but of those that are built for few.
    """
    for name in KINDS:
        yield f"algorithm {name}", partial(compared, *algorithm(name), device, cpu)
    for name in AGGREGATORS:
        few = POPULATION if name in NOISE_OF_CLIENTS else coordinates
        yield f"aggregator {name}", partial(compared, *aggregator(name, few), device, cpu)


def algorithm(name: str) -> tuple[Callable, Callable]:
    """Two rounds of an algorithm, and its operands."""

    def rounds(data, params, key, table):
        return fl.simulate(ALGORITHMS[name](None), data, params, listed(table), rounds=len(COHORTS), key=key)

    return rounds, lambda: (contract_data(), softmax_params(), jax.random.key(0), COHORTS)


def aggregator(name: str, coordinates: int) -> tuple[Callable, Callable]:
    """The aggregate of all clients' messages, and its operands."""
    rule = AGGREGATORS[name]

    def aggregate(stack, cohort, key):
        state = rule.init(jax.tree.map(lambda x: x[0], stack))
        return rule.finish(rule.collect(stack, cohort, state), state, key)

    def operands():
        V = messages(POPULATION, coordinates)
        cohort = fl.sampling.cohort(jax.random.key(0), jnp.asarray(SIZES, jnp.int32), jnp.arange(POPULATION))
        return {"w": V[:, :-1].reshape(POPULATION, -1, 2), "b": V[:, -1]}, cohort, jax.random.key(1)

    return aggregate, operands


def compared(fn: Callable, operands_fn: Callable, device: jax.Device, cpu: jax.Device) -> dict:
    """The results of both devices side by side. One compiles while the other does."""

    def on(device):
        with jax.default_device(device), jax.default_matmul_precision("highest"):
            operands = jax.device_put(operands_fn(), device)
            program, seconds = compiled(fn, *operands)
            return jax.tree.map(np.asarray, words(program(*operands))), seconds

    places = list({device: None, cpu: None})  # in a rehearsal they are one
    with ThreadPoolExecutor(len(places)) as pool:
        found = dict(zip(places, pool.map(on, places), strict=True))
    (ours, seconds), (theirs, cpu_seconds) = found[device], found[cpu]
    difference = max(jax.tree.leaves(jax.tree.map(distance, ours, theirs)))
    return dict(
        difference=difference if np.isfinite(difference) else "one is not finite", tolerance=TOLERANCE,
        agrees=difference <= TOLERANCE, compile_seconds=round(seconds, 2), cpu_compile_seconds=round(cpu_seconds, 2),
    )  # fmt: skip


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference of two arrays in the second's largest finite entry; infinite where but one is NaN or infinite."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.isfinite(a[finite]).all():
        return float("inf")
    return float(np.abs(a[finite] - b[finite]).max(initial=0) / np.abs(b[finite]).max(initial=SMALL))
