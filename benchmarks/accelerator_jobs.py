"""What `accelerator.py` measures, job by job: in full, and in miniature for a rehearsal on a CPU."""

import os
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import NamedTuple

import aggregators
import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import sweep
from measure import MODELS, compiled, federated, matmul_peak
from round_time import measured
from workloads import WORKLOADS, Workload

PRECISIONS = "float32", "bfloat16"
NO_CPU = "jax has no CPU beside this device: leave JAX_PLATFORMS unset, or add cpu to it"


def miniature(workload: Workload) -> Workload:
    """Few clients of few examples, of a few characters."""
    shape = (4,) if workload.name == "char_lstm" else workload.shape
    return workload._replace(population=4, cohort=min(workload.cohort, 4), median=3, largest=5, shape=shape)


class Size(NamedTuple):
    """How large everything is: in full, or in miniature for a rehearsal."""

    workload: Callable[[Workload], Workload] = lambda workload: workload
    clients: tuple[int, ...] = (100, 1000, 10)  # a round of emnist_cnn
    rounds: dict[int, int] = {10: 5, 100: 3, 1000: 1}  # of one timing, by clients a round; else 3
    repeats: int = 5
    matmul: int | None = None  # its size; None: the device's usual one
    peak_seconds: float = 0.2
    study: dict[str, int] = dict(seeds=16, rates=16, singles=5, rounds=3, repeats=3)
    rules: tuple[str, ...] = (*aggregators.RULES, *aggregators.PRIVATE)  # that are timed
    messages: tuple[int, int] = (100, 1_000_000)
    coordinates: int = 50_001  # of the messages that are compared: more than a rule's form for a CPU takes at a time
    lanes: dict[tuple[str, int], tuple[int, ...]] = {("emnist_cnn", 1000): (16, 64, 256), ("softmax", 1000): (16, 128)}


FULL = Size()
MINIATURE = Size(
    workload=miniature,
    clients=(4, 2),
    rounds=dict.fromkeys(range(5), 1),
    repeats=1,
    matmul=128,
    peak_seconds=0,
    study=dict(seeds=2, rates=2, singles=1, rounds=1, repeats=1),
    rules=("mean", "krum", "dp_ftrl", "ddgauss"),
    messages=(100, 1000),
    coordinates=7,
    lanes={("softmax", 4): (1,)},
)


class Job(NamedTuple):
    """One line of the results; its part is what stands before the slash."""

    name: str
    run: Callable[[], dict]

    @property
    def part(self) -> str:
        return self.name.split("/")[0]


def jobs(size: Size) -> Iterator[Job]:
    """All of them, the most important first."""
    workloads = {name: size.workload(workload) for name, workload in WORKLOADS.items()}
    data = cache(lambda name: federated(workloads[name]))
    start = cache(lambda name: jax.jit(MODELS[name]().init)(jax.random.key(0), data(name).example))
    loops = cache(lambda precision: matmul_peak(precision, size.matmul))

    def peak(precision):
        return lambda seconds=size.peak_seconds: loops(precision)(min(seconds, size.peak_seconds))

    def rounds(name, precision, clients, **how):
        given = workloads[name]._replace(cohort=clients), data(name), start(name), peak(precision)
        return measured(*given, precision=precision, rounds=size.rounds.get(clients, 3), repeats=size.repeats, **how)

    def study():
        workload = workloads["softmax"]
        return sweep.measured(workload._replace(cohort=min(100, workload.cohort)), data("softmax"), **size.study)

    yield Job("machine", partial(machine, peak))
    yield from correct(size.coordinates)
    for clients in size.clients:
        for precision in PRECISIONS:
            yield Job(f"emnist_cnn/{clients} clients, {precision}", partial(rounds, "emnist_cnn", precision, clients))
    for name in ("mlp", "softmax", "char_lstm"):
        for precision in PRECISIONS:
            yield Job(f"workloads/{name}, {precision}", partial(rounds, name, precision, workloads[name].cohort))
    yield Job(f"study/{size.study['seeds'] * size.study['rates']} runs", study)
    problem = cache(lambda: aggregators.problem(*size.messages))
    for name in size.rules:
        yield Job(f"aggregators/{name}", partial(rule, name, problem, size.repeats))
    for (name, clients), numbers in size.lanes.items():
        for lanes in numbers:
            yield Job(f"lanes/{name}, {lanes}", partial(rounds, name, "float32", clients, lanes=lanes))


def correct(coordinates: int) -> Iterator[Job]:
    """The comparisons with the CPU's numbers, or what stands in the way of them."""
    try:
        cpu = jax.devices("cpu")[0]
    except RuntimeError:
        yield Job("correct/all", lambda: {"skipped": NO_CPU})
        return
    import correct  # here, where devices may be started

    for name, compare in correct.comparisons(jax.devices()[0], cpu, coordinates):
        yield Job(f"correct/{name}", compare)


def machine(peak: Callable) -> dict:
    """What this is measured on."""
    device, error = jax.devices()[0], product_error()
    limit = (device.memory_stats() or {}).get("bytes_limit")
    return dict(
        devices=len(jax.devices()), memory_limit_gb=limit and round(limit / 1e9, 1), jaxlib=jaxlib.__version__,
        platform_version=device.client.platform_version.strip().splitlines()[-1], xla_flags=os.environ.get("XLA_FLAGS", ""),
        float32_product_error=error, float32_products="float32" if error < 1e-5 else "TF32" if error < 1e-3 else "bfloat16",
        matmul_peak={precision: round(peak(precision)(), 1) for precision in PRECISIONS},
    )  # fmt: skip


def product_error() -> float:
    """The relative error of a product of float32 matrices as jax multiplies them by default."""
    x = np.random.default_rng(0).normal(size=(2, 512, 512)).astype(np.float32)
    program, _ = compiled(jnp.matmul, *jnp.asarray(x))
    exact = x[0].astype(float) @ x[1].astype(float)
    return float(np.linalg.norm(np.asarray(program(*jnp.asarray(x))) - exact) / np.linalg.norm(exact))


def rule(name: str, problem: Callable, repeats: int) -> dict:
    """One aggregator's time; GB/s as if it read every message once."""
    rules, stack, cohort = problem()
    call, facts = aggregators.prepared(rules[name], stack, cohort)
    line = {"rule": name} | aggregators.summary([aggregators.timed(call) for _ in range(repeats)]) | facts
    nbytes = sum(x.nbytes for x in jax.tree.leaves(stack))
    return line | {"gb_a_second": round(nbytes / 1e9 / line["seconds"], 1)}
