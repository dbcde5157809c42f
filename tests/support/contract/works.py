"""Every client work, and a round of it."""

import jax
import jax.numpy as jnp
import optax
from problems import softmax_loss

import fedjax_lite as fl
from contract.population import POPULATION
from fedjax_lite import aggregators


def random_sgd(rate):
    """A step times a random factor drawn from the keyword `key`: of the optimizer, the uplink or the server."""

    def update(updates, state, params=None, *, key, **extra):
        factor = jax.random.uniform(key)
        return jax.tree.map(lambda u: (-rate * factor).astype(u.dtype) * u, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: (), update)


def noisy_work(rate):
    """SGD on a loss that draws from its key, from a point that each client keeps and drew at the start."""

    def loss(params, batch, key):
        losses, metrics = softmax_loss(params, batch, key)
        return losses * jax.random.uniform(key, losses.shape), metrics

    plain = fl.sgd_work(loss, random_sgd(rate))

    def start(shared, own, client):
        carry = plain.start(shared, (), client)
        return carry._replace(params=carry.params + own * 1e-2)

    def finish(shared, own, carry, client):
        message, _, metrics = plain.finish(shared, own, carry, client)
        return message, jnp.mean(carry.params), metrics

    return fl.ClientWork(lambda params, key: jax.random.normal(key), start, plain.step, finish)


# name -> a function of the learning rate.
WORKS = {
    "sgd": lambda rate: fl.sgd_work(softmax_loss, optax.sgd(rate)),
    "momentum": lambda rate: fl.sgd_work(softmax_loss, optax.sgd(rate, momentum=0.9)),
    "adam": lambda rate: fl.sgd_work(softmax_loss, optax.adam(rate)),
    "scheduled": lambda rate: fl.sgd_work(
        softmax_loss, optax.sgd, learning_rate=fl.on_client_step(lambda t: rate / (1 + t)), epoch_decay=0.9
    ),
    "measured": lambda rate: fl.sgd_work(softmax_loss, optax.sgd(rate), initial_loss="epoch", gradient_norm=True),
}


def federate(work=None, aggregator=None, server=None, engine=None, uplink=None, batches=None):
    return fl.federate(
        work or WORKS["sgd"](0.1),
        aggregator or aggregators.weighted_mean(),
        server or fl.optimizer_server(optax.sgd(1.0)),
        batches=batches or fl.Batches(4, epochs=2, shuffle=False),  # the shuffle would be a fifth of every program
        population=POPULATION,
        engine=engine,
        uplink=uplink,
    )
