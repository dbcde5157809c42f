"""Rounds of averages: aggregators, servers, draws, uplinks."""

import optax
from problems import softmax_loss

import fedjax_lite as fl
from contract.population import POPULATION
from contract.rules import AGGREGATORS
from contract.works import WORKS, federate, noisy_work, random_sgd

# name -> a function of the engine and the learning rate.
COMPOSED = {f"work {name}": (lambda engine, rate=0.1, work=work: federate(work(rate), engine=engine)) for name, work in WORKS.items()} | {
    "median": lambda engine, rate=0.1: federate(WORKS["sgd"](rate), AGGREGATORS["median"], engine=engine),
    "own weights": lambda engine, rate=0.1: federate(WORKS["sgd"](rate), AGGREGATORS["weighted_mean own"], engine=engine),
    "fedavg": lambda engine, rate=0.1: fl.algorithms.fedavg(
        softmax_loss, optax.sgd(rate), batches=fl.Batches(4, steps=3), population=POPULATION, engine=engine
    ),
    "fedavgm": lambda engine, rate=0.1: fl.algorithms.fedavgm(
        softmax_loss, optax.sgd(rate), batches=fl.Batches(4), population=POPULATION, engine=engine
    ),
    "fedsgd": lambda engine, rate=0.1: fl.algorithms.fedsgd(softmax_loss, population=POPULATION, learning_rate=rate, engine=engine),
    "adam server": lambda engine, rate=0.1: federate(WORKS["sgd"](rate), server=fl.optimizer_server(optax.adam(0.01)), engine=engine),
    "adaptive rate": lambda engine, rate=0.1: federate(
        fl.sgd_work(softmax_loss, optax.sgd(rate), gradient_norm=True),
        server=fl.adaptive_rate(fl.optimizer_server(optax.sgd(1.0))),
        engine=engine,
    ),
    "plateau": lambda engine, rate=0.1: federate(
        WORKS["sgd"](rate),
        server=fl.optimizer_server(optax.chain(optax.sgd(1.0), optax.contrib.reduce_on_plateau(patience=1))),
        engine=engine,
    ),
    "random at every place": lambda engine, rate=0.1: federate(
        noisy_work(rate), server=fl.optimizer_server(random_sgd(0.5)), uplink=random_sgd(-1.0), engine=engine
    ),
    "uplink with state": lambda engine, rate=0.1: federate(
        WORKS["sgd"](rate), uplink=optax.chain(optax.clip_by_global_norm(0.1), optax.trace(0.5)), engine=engine
    ),
}
UPLINKS = {
    "top_k": fl.uplink.error_feedback(fl.uplink.top_k(0.25)),
    "random_k": fl.uplink.random_k(0.25),
    "uniform": fl.uplink.uniform(4),
    "rotate": fl.uplink.rotate(fl.uplink.terngrad()),
    "qsgd": fl.uplink.qsgd(4),
    "sign": fl.uplink.sign(),
    "scaled_sign": fl.uplink.error_feedback(fl.uplink.scaled_sign()),
    "terngrad": optax.chain(optax.clip_by_global_norm(1.0), fl.uplink.terngrad()),
    "drive": fl.uplink.drive(),
    "eden": fl.uplink.eden(bits=2),
    "power_sgd": fl.uplink.power_sgd(1),
}
COMPRESSED = {
    f"uplink {name}": (lambda engine, rate=0.1, uplink=uplink: federate(WORKS["sgd"](rate), uplink=uplink, engine=engine))
    for name, uplink in UPLINKS.items()
}
