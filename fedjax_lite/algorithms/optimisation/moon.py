"""MOON: a client's features are drawn to those of the model that was sent, and away from those of the client's last model."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from fedjax_lite.aggregators import weighted_mean
from fedjax_lite.algorithms.optimisation.pieces import averaging, fitting
from fedjax_lite.base import Aggregator, Algorithm, ClientWork, Number, Tree
from fedjax_lite.batches import Batches
from fedjax_lite.engine import Engine
from fedjax_lite.federate import federate
from fedjax_lite.models.losses import supervised
from fedjax_lite.models.model import Model, in_two
from fedjax_lite.refuse import positive
from fedjax_lite.work import loss_term, sgd_work

LEAST = 1e-8  # the least norm in a cosine


class Own(NamedTuple):
    """What a client keeps."""

    model: Tree  # its last local model
    steps: Tree


def moon(
    model: Model,
    optimizer: Any,
    *,
    batches: Batches,
    population: int,
    mu: Number = 1.0,
    tau: Number = 0.5,
    learning_rate: Any = None,
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    server_learning_rate: Any = 1.0,
    engine: Engine | None = None,
) -> Algorithm:
    r"""MOON: FedAvg with a contrastive term between models.

    f_k(y) + mu mean -log(exp(cos(z, z_glob) / tau) / (exp(cos(z, z_glob) / tau) + exp(cos(z, z_prev) / tau))),
    z, z_glob, z_prev the features that y, x and client k's last local model have of an example;  aggregation as in `fedavg`.

    No gradient goes through z_glob and z_prev, and both models are as in evaluation, without dropout. Before a client's first round its
    last model is the first parameters, as in the authors' code; where that is x too, the term is mu log 2 and has no gradient.

    Args:
        model: in two parts, whose `features` are z and `head` gives logits; labels are the leaf "y". The authors compare the outputs of
            two more layers between them: make these part of `features`.
        mu: at least 0, the strength; the paper tries 0.1, 1, 5 and 10.
        tau: above 0, the temperature.
        aggregator: `fl.aggregators.weighted_mean()` by default.
        optimizer, batches, population, learning_rate, uplink, server_learning_rate, engine: as in `fedavg`.

    Returns:
        An `Algorithm` that also reports "contrastive", the term before mu; its state's `own.model` are the last local models, a stack
        `[population, ...]`.

    Raises:
        ValueError: for a model without features, a mu below 0, a tau or a server rate that is not positive, a private aggregator.

    >>> import fedjax_lite as fl
    >>> data = fl.FederatedData.from_clients([{"x": jnp.ones((3, 2)), "y": jnp.array([0, 0, 1])}])
    >>> model = fl.models.mlp((3,), classes=2)
    >>> algorithm = fl.algorithms.moon(model, optax.sgd(0.5), batches=fl.Batches(None), population=1)
    >>> params = model.init(jax.random.key(0), data.example)
    >>> state, told = fl.simulate(algorithm, data, params, fl.sampling.everyone(), rounds=2, key=jax.random.key(0))
    >>> [round(term, 4) for term in told["contrastive"].tolist()]  # log 2 at first; then x is the client's last model again
    [0.6931, 0.6931]

    Source: Li, He, Song 2021, "Model-contrastive federated learning", algorithm 1.
    """
    features, _ = in_two("moon", model)
    positive("moon", "mu", mu, or_zero=True)
    positive("moon", "tau", tau)
    aggregator = fitting("moon", aggregator, weighted_mean(), keeps="their last local models")

    def contrast(params, batch, key, shared, own):
        z_glob, z_prev = (jax.lax.stop_gradient(features(frozen, batch, None)) for frozen in (shared.params, own.model))
        terms = contrastive(features(params, batch, key), z_glob, z_prev, tau)
        return mu * terms, {"contrastive": terms}

    plain = supervised(model)
    sgd = sgd_work(loss_term(plain, contrast), optimizer, learning_rate=learning_rate)

    def init(params, key):
        return Own(params, sgd.init(params, key).steps)

    def finish(shared, own, carry, client):
        change, after, metrics = sgd.finish(shared, own, carry, client)
        return change, Own(carry.params, after.steps), metrics

    work = ClientWork(init, sgd.start, sgd.step, finish)
    server = averaging("moon", server_learning_rate)
    built = federate(work, aggregator, server, batches=batches, population=population, uplink=uplink, engine=engine)
    return built._replace(loss_fn=plain)


def contrastive(z: Array, z_glob: Array, z_prev: Array, tau: Number) -> Float[Array, " batch"]:
    """Return -log of the share of exp(cos(z, z_glob) / tau) in its sum with exp(cos(z, z_prev) / tau), for each example.

    >>> z = jnp.array([[1.0, 2.0, -1.0]])
    >>> round(contrastive(z, jnp.array([[0.5, 1.0, 0.0]]), jnp.array([[2.0, -1.0, 1.0]]), 0.5).item(), 4)
    0.1092
    """
    return jax.nn.softplus((_cosine(z, z_prev) - _cosine(z, z_glob)) / tau)


def _cosine(a: Array, b: Array) -> Float[Array, " batch"]:
    """Return the cosine of each example's features; 0 where they are all 0."""
    a, b = (x.reshape(len(x), -1) for x in (a, b))
    lengths = jnp.maximum(jnp.sum(a**2, axis=1), LEAST**2) * jnp.maximum(jnp.sum(b**2, axis=1), LEAST**2)
    return jnp.sum(a * b, axis=1) * jax.lax.rsqrt(lengths)
