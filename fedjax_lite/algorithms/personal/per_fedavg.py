"""Per-FedAvg: a global model from which one gradient step of a client's own leads to a good model for it."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from fedjax_lite.aggregators import mean
from fedjax_lite.algorithms.optimisation.pieces import averaging
from fedjax_lite.base import Aggregator, Algorithm, Number
from fedjax_lite.batches import Batches
from fedjax_lite.engine import Engine
from fedjax_lite.federate import federate
from fedjax_lite.models.loss_fn import LossFn, loss_and_gradient
from fedjax_lite.refuse import positive
from fedjax_lite.streams import HIGH_STREAM
from fedjax_lite.work import sgd_work


def per_fedavg(
    loss_fn: LossFn,
    optimizer: Any,
    *,
    batches: Batches,
    population: int,
    alpha: Number,
    form: str = "exact",
    learning_rate: Any = None,
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    server_learning_rate: Any = 1.0,
    engine: Engine | None = None,
) -> Algorithm:
    r"""Per-FedAvg: local steps descend the loss after one more gradient step, f_k(y - alpha grad f_k(y)).

    g_k(y) = (I - alpha H_k(y)) grad f_k(y - alpha grad f_k(y; b); b');  y <- y - eta g_k(y);  x <- x + eta_g mean_S (y_k - x).

    The first half of a batch's examples is b, and the second b', on which H_k is taken too; of a single example both are that one. The
    product with the Hessian is exact, by a forward derivative of the gradient.

    Args:
        alpha: of the step that is looked ahead, above 0.
        form: "exact", or "first order", which leaves out the Hessian.
        aggregator: `fl.aggregators.mean()` by default.
        loss_fn, optimizer, batches, population, learning_rate, uplink, server_learning_rate, engine: as in `fedavg`.

    Raises:
        ValueError: for an alpha that is not positive, or another form.

    >>> import fedjax_lite as fl
    >>> data = fl.FederatedData.from_clients([{"a": jnp.array([a]), "x": jnp.array([x])} for a, x in ((1.0, 1.0), (3.0, 5.0))])
    >>> loss_fn = lambda params, batch, key: batch["a"] * (params - batch["x"]) ** 2 / 2
    >>> algorithm = per_fedavg(loss_fn, optax.sgd(0.1), batches=fl.Batches(None), population=2, alpha=0.2)
    >>> state, _ = fl.simulate(algorithm, data, jnp.zeros(()), fl.sampling.everyone(), rounds=200, key=jax.random.key(0))
    >>> round(float(algorithm.params(state)), 2)  # weights a (1 - alpha a)^2 of 0.64 and 0.48: the steep client moves most by itself
    2.71

    Source: Fallah, Mokhtari, Ozdaglar 2020, "Personalized federated learning with theoretical guarantees: a model-agnostic
    meta-learning approach", algorithm 1.
    """
    positive("per_fedavg", "alpha", alpha)
    if form not in ("exact", "first order"):
        raise ValueError(f'per_fedavg: form must be "exact" or "first order", got {form!r}')

    def gradients(loss_fn, y, batch, key):
        count = jnp.sum(batch.mask)
        early = jnp.cumsum(batch.mask) <= (count + 1) // 2
        first = batch._replace(mask=batch.mask & early)
        second = batch._replace(mask=batch.mask & (~early | (count == 1)))
        found, g = loss_and_gradient(loss_fn, y, first, key)
        ahead = jax.tree.map(lambda y, g: (y - alpha * g).astype(y.dtype), y, g)
        other = jax.random.fold_in(key, HIGH_STREAM + 1)
        g = loss_and_gradient(loss_fn, ahead, second, other)[1]
        if form == "exact":
            product = jax.jvp(lambda y: loss_and_gradient(loss_fn, y, second, other)[1], (y,), (g,))[1]
            g = jax.tree.map(lambda g, h: g - alpha * h, g, product)
        return found, g

    return federate(
        sgd_work(loss_fn, optimizer, learning_rate=learning_rate, gradients=gradients),
        mean() if aggregator is None else aggregator,
        averaging("per_fedavg", server_learning_rate),
        batches=batches,
        population=population,
        uplink=uplink,
        engine=engine,
    )
