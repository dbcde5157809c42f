"""What does a round of each method cost beside FedAvg's, in seconds and in memory?

    python benchmarks/methods.py softmax|mlp [--repeats 7] [--only scaffold feddyn] [--population N]

One JSON line a method: seconds a round, the median ratio to FedAvg's round, timed in turn with it in one process; the memory of the
program and its ratio; the loss after the same rounds. Both run on as many devices as there are cores.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import optax
from measure import MODELS, federated, listed, program_memory, report, spread, use_devices
from workloads import WORKLOADS

import fedjax_lite as fl
from fedjax_lite.engine.placement import everywhere

ROUNDS = 5
# name -> whether it takes an optimizer, and its own arguments.
METHODS = {
    "fedavg": (True, {}),
    "fedavgm": (True, {}),
    "fedprox": (True, {"mu": 0.1}),
    "scaffold": (False, {}),
    "scaffold option 1": (False, {"option": 1}),
    "feddyn": (False, {"alpha": 0.1}),
    "fednova": (False, {}),
    "fedadagrad": (True, {}),
    "fedadam": (True, {}),
    "fedyogi": (True, {}),
    "fedcm": (False, {}),
    "fedsam": (True, {}),
    "fedspeed": (False, {}),
    "moon": (True, {}),
    "fedper": (True, {"personal": "Dense_./bias"}),
    "ditto": (True, {"lam": 0.1}),
    "fedlc": (True, {"classes": 10}),
    "fedrs": (True, {"classes": 10}),
    "fedexp": (True, {}),
    "qfedavg": (False, {"q": 1.0}),
    "agnostic_fedavg": (True, {"gamma": 0.1}),
    "mime": (False, {}),
    "mimelite": (False, {}),
    "fedlion": (False, {}),
    "fedadmm": (False, {"rho": 1.0}),
    "diloco": (True, {}),
}
OF_A_MODEL = "moon", "fedlc", "fedrs"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workload", choices=["softmax", "mlp"])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--devices", type=int, help="XLA devices (default: one for each core)")
    parser.add_argument("--only", nargs="*", choices=METHODS, help="these methods, beside FedAvg")
    options = parser.parse_args()
    devices = use_devices(options.devices)
    workload = WORKLOADS[options.workload]
    data, model = federated(workload), MODELS[workload.name]()
    loss_fn, params = fl.models.supervised(model), model.init(jax.random.key(0), data.example)
    cohorts = everywhere(jnp.asarray(workload.cohorts(20), jnp.int32))

    def program(name):
        """Some rounds, compiled with the state donated, and a function that makes the state before them."""
        takes_optimizer, own = METHODS[name]
        if name == "fedadmm":  # which at a server rate of 1 diverges where few take part
            own = own | {"server_learning_rate": workload.cohort / workload.population}
        given = {"optimizer": optax.sgd(workload.rate)} if takes_optimizer else {"learning_rate": workload.rate}
        algorithm = getattr(fl.algorithms, name.split(" ")[0])(
            model if name in OF_A_MODEL else loss_fn,
            batches=fl.Batches(workload.batch, shuffle=False),
            population=workload.population,
            **given | own,
        )

        def rounds(state, data):
            return fl.advance(algorithm, data, state, listed(cohorts), rounds=ROUNDS)

        begin = jax.jit(algorithm.init)
        state = everywhere(begin(params, jax.random.key(1)))
        return jax.jit(rounds, donate_argnums=0).lower(state, data).compile(), state

    def timed(compiled, state):
        began = time.perf_counter()
        state, history = jax.block_until_ready(compiled(state, data))
        return (time.perf_counter() - began) / ROUNDS, state, history

    plain, plain_state = program("fedavg")
    memory = program_memory(plain)
    for name in options.only or METHODS:
        compiled, state = program(name)
        seconds, ratios = [], []
        for _ in range(options.repeats + 1):
            beside, plain_state, _ = timed(plain, plain_state)
            one, state, history = timed(compiled, state)
            seconds.append(one)
            ratios.append(one / beside)
        held = program_memory(compiled)
        report(
            workload=workload.name, method=name, devices=devices, **spread(seconds[1:]),
            ratio=round(statistics.median(ratios[1:]), 3), memory_gb=round(held, 3), memory_ratio=round(held / memory, 2),
            loss=round(float(history["loss"][-1]), 4),
        )  # fmt: skip
        del compiled, state


if __name__ == "__main__":
    main()
