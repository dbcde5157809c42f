"""The run that is tried from disk, over processes, and with what clients keep in host memory."""

import functools

import jax
import optax
from problems import SIZES, softmax_loss, softmax_params

import fedjax_lite as fl


def some(key, sizes, round):
    """Half of four clients, and in the second round nobody."""
    chosen = fl.sampling.dropout(fl.sampling.uniform(4), 0.5)(key, sizes, round)
    return chosen._replace(weight=chosen.weight * (round != 1))


SAMPLERS = {
    "some": some,
    "uniform": fl.sampling.uniform(3),
    "everyone": fl.sampling.everyone(),
    "poisson": fl.sampling.poisson(0.3, 5),
}


@functools.cache  # one algorithm an engine, compiled once
def algorithm(engine=None):
    rate = fl.on_client_step(optax.exponential_decay(0.1, 5, 0.5))  # a schedule whose count clients keep: own state
    return fl.federate(
        fl.sgd_work(softmax_loss, optax.sgd, learning_rate=rate),
        fl.aggregators.weighted_mean(),
        fl.optimizer_server(optax.adam(0.1)),
        batches=fl.Batches(4, epochs=2, shuffle=False),
        population=len(SIZES),
        engine=engine or fl.sequential(),
    )


def averaging(rate=0.1, engine=None, loss_fn=softmax_loss):
    """FedAvg by hand, new at each call."""
    return fl.federate(
        fl.sgd_work(loss_fn, optax.sgd(rate)),
        fl.aggregators.mean(),
        fl.optimizer_server(optax.sgd(1.0)),
        batches=fl.Batches(4),
        population=len(SIZES),
        engine=engine or fl.sequential(),
    )


def trained(data, sampler, engine=None, **more):
    kwargs = {"rounds": 6, "key": jax.random.key(3), "evaluate_every": 3, "loss_fn": softmax_loss, "progress": False} | more
    return fl.run(algorithm(engine), data, softmax_params(), sampler, **kwargs)
