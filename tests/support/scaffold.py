"""SCAFFOLD as a user would write it: what a client keeps corrects its gradients, and the server sends more than the model."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

import fedjax_lite as fl
from fedjax_lite.models.loss_fn import mean_loss


class Own(NamedTuple):
    control: object  # c_k
    steps: object


class Carry(NamedTuple):
    work: object
    gradient: object  # sum of the gradients at x, of option i
    examples: object


class State(NamedTuple):
    params: object
    control: object  # c


def scaffold(loss_fn, rate, *, batches, population, option=2, server_rate=1.0, engine=None):
    """g_k - c_k + c in place of g_k;  i: c_k^+ = grad f_k(x), ii: c_k^+ = c_k - c + (x - y_k) / (K eta);  c += |S|/N mean(c_k^+ - c_k).

    Source: Karimireddy et al. 2020, "SCAFFOLD: stochastic controlled averaging for federated learning", algorithm 1.
    """

    def corrected(gradient, state, params=None, *, shared, own, **extra):
        return jax.tree.map(lambda g, c, mine: g - mine + c, gradient, shared.extra, own.control), state

    correction = optax.GradientTransformationExtraArgs(lambda params: (), corrected)
    sgd = fl.sgd_work(loss_fn, optax.chain(correction, optax.sgd(rate)))

    def init(params, key):
        return Own(jax.tree.map(jnp.zeros_like, params), sgd.init(params, key).steps)

    def start(shared, own, client):
        return Carry(sgd.start(shared, own, client), jax.tree.map(jnp.zeros_like, own.control), jnp.zeros(()))

    def step(shared, own, carry, batch):
        work, metrics = sgd.step(shared, own, carry.work, batch)
        if option == 2:
            return carry._replace(work=work), metrics
        gradient = jax.grad(mean_loss, argnums=1, has_aux=True)(loss_fn, shared.params, batch, batch.client.key)[0]
        share = jnp.where(batch.learning, 0, jnp.sum(batch.mask))
        return Carry(work, jax.tree.map(lambda x, g: x + share * g, carry.gradient, gradient), carry.examples + share), metrics

    def finish(shared, own, carry, client):
        change, after, metrics = sgd.finish(shared, own, carry.work, client)
        if option == 1:
            control = jax.tree.map(lambda x: x / jnp.maximum(carry.examples, 1), carry.gradient)
        else:
            taken = jnp.maximum(client.steps, 1) * rate
            control = jax.tree.map(lambda mine, c, delta: mine - c - delta / taken, own.control, shared.extra, change)
        return (change, optax.tree.sub(control, own.control)), Own(control, after.steps), metrics

    def update(aggregate, state, info):
        change, controls = aggregate
        params = jax.tree.map(lambda x, d: x + server_rate * d, state.params, change)
        return State(params, jax.tree.map(lambda c, d: c + info.clients / population * d, state.control, controls))

    server = fl.Server(
        lambda params: State(params, jax.tree.map(jnp.zeros_like, params)),
        lambda state: fl.Shared(state.params, extra=state.control),
        update,
    )
    work = fl.ClientWork(init, start, step, finish)
    return fl.federate(work, fl.aggregators.mean(), server, batches=batches, population=population, engine=engine)
