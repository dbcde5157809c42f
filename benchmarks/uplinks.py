"""What do compressors cost a round, and what do they save in bits?

    python benchmarks/uplinks.py softmax|mlp [--repeats 7]

One JSON line a scheme: seconds a round, and the median ratio to the plain round, timed in turn with it; bits as a part of the plain
round's; the loss after the same rounds.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import optax
from measure import MODELS, federated, listed, report, spread, use_devices
from workloads import WORKLOADS

import fedjax_lite as fl
from fedjax_lite import uplink
from fedjax_lite.engine.placement import everywhere

UPLINKS = {
    "plain": None,
    "top_k(0.05), error feedback": uplink.error_feedback(uplink.top_k(0.05)),
    "random_k(0.05)": uplink.random_k(0.05),
    "uniform(16)": uplink.uniform(16),
    "qsgd(16)": uplink.qsgd(16),
    "sign": uplink.sign(),
    "scaled_sign, error feedback": uplink.error_feedback(uplink.scaled_sign()),
    "terngrad": uplink.terngrad(),
    "rotate(uniform(4))": uplink.rotate(uplink.uniform(4)),
    "drive": uplink.drive(),
    "eden(4)": uplink.eden(bits=4),
    "power_sgd(2), error feedback": uplink.error_feedback(uplink.power_sgd(2)),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workload", choices=["softmax", "mlp"])
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    devices = use_devices()
    workload = WORKLOADS[options.workload]
    data, model = federated(workload), MODELS[workload.name]()
    loss_fn, params = fl.models.supervised(model), model.init(jax.random.key(0), data.example)
    cohorts = everywhere(jnp.asarray(workload.cohorts(20), jnp.int32))

    def program(transform):
        """Five rounds, compiled, and the state before them."""
        algorithm = fl.federate(
            fl.sgd_work(loss_fn, optax.sgd(workload.rate)),
            fl.aggregators.weighted_mean(),
            fl.optimizer_server(optax.sgd(1.0)),
            batches=fl.Batches(workload.batch, shuffle=False),
            population=workload.population,
            uplink=transform,
        )
        state = everywhere(jax.jit(algorithm.init)(params, jax.random.key(1)))
        rounds = jax.jit(lambda state, data, table: fl.advance(algorithm, data, state, listed(table), rounds=5), donate_argnums=0)
        return rounds.lower(state, data, cohorts).compile(), state

    def timed(rounds, state):
        start = time.perf_counter()
        state, history = jax.block_until_ready(rounds(state, data, cohorts))
        return state, history, (time.perf_counter() - start) / 5

    plain, plain_state = program(None)
    plain_state, history, _ = timed(plain, plain_state)
    plain_bits = float(history["uplink_bits"].sum())
    for name, transform in UPLINKS.items():
        rounds, state = program(transform)
        state, history, _ = timed(rounds, state)
        bits, times, ratios = float(history["uplink_bits"].sum()), [], []
        for _ in range(options.repeats):
            plain_state, _, beside = timed(plain, plain_state)
            state, history, seconds = timed(rounds, state)
            times.append(seconds)
            ratios.append(seconds / beside)
        report(
            workload=workload.name, devices=devices, uplink=name, **spread(times), ratio=round(statistics.median(ratios), 2),
            ratios=[round(min(ratios), 2), round(max(ratios), 2)],
            bits=round(bits / plain_bits, 4), loss=round(float(history["loss"][-1]), 4),
        )  # fmt: skip


if __name__ == "__main__":
    main()
