"""FedALA: each client learns, number by number, how much of the global model to take before it trains its own."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool

from fedjax_lite import tree
from fedjax_lite.aggregators import weighted_mean
from fedjax_lite.algorithms.optimisation.pieces import averaging, fitting
from fedjax_lite.base import Aggregator, Algorithm, Batch, ClientWork, Number, Tree
from fedjax_lite.batches import Batches
from fedjax_lite.engine import Engine
from fedjax_lite.federate import federate
from fedjax_lite.leaves import Rule, chosen, split
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.refuse import a_count, a_share, positive
from fedjax_lite.work import sgd_work
from fedjax_lite.work.personal import models_kept
from fedjax_lite.work.sgd import mean_gradient

_PLACE = np.uint32(2**32 - 4)  # the stream of a client's key for where the examples begin that it learns its weights on


class Own(NamedTuple):
    """What a client keeps."""

    model: Tree  # its last local model
    weights: Tree  # W on the top leaves, None in place of the others
    steps: Tree
    optimizer: Tree = ()


class Carry(NamedTuple):
    """What it holds while it trains."""

    weights: Tree
    work: Tree


def fedala(
    loss_fn: LossFn,
    optimizer: Any,
    *,
    batches: Batches,
    population: int,
    top: Rule = "all",
    weight_rate: Number = 1.0,
    passes: int = 1,
    share: Number = 0.8,
    learning_rate: Any = None,
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    server_learning_rate: Any = 1.0,
    engine: Engine | None = None,
) -> Algorithm:
    r"""FedALA: FedAvg in which each client starts from a mixture of its own last model and the global one, whose weights it learns.

    y_k <- v_k + (x - v_k) * W_k on the top leaves, x on the others;  W_k <- clip(W_k - eta_w grad f_k(y_k) * (x - v_k), 0, 1), a step a
    batch; then v_k <- K steps from the last y_k;  x <- x + eta_g sum_k p_k (v_k - x).

    Products are number by number. W_k starts at 1 and is kept; where v_k is x, as in a first round, it does not change. A model or weights
    that are not finite are not kept.

    Args:
        top: which leaves have weights, the paper's higher layers: a rule as `personal` in `fedper`, or "all".
        weight_rate: eta_w, above 0.
        passes: over the client's examples, before training, in which it learns W_k. (The authors pass until the loss rests in a client's
            second round, and once in the others.)
        share: in (0, 1], the part of its examples that it learns W_k on: as many in a row, from another place in every round.
        aggregator: `fl.aggregators.weighted_mean()` by default.
        loss_fn, optimizer, batches, population, learning_rate, uplink, server_learning_rate, engine: as in `fedavg`.

    Returns:
        An `Algorithm` whose `models(state)` are the v_k as they were trained last; at first all are the first model.

    Raises:
        ValueError: for a weight_rate that is not positive, passes below 1, a share outside (0, 1], a private aggregator.

    >>> import fedjax_lite as fl
    >>> data = fl.FederatedData.from_clients([{"x": jnp.array([2.0])}, {"x": jnp.array([8.0])}])
    >>> loss_fn = lambda params, batch, key: (params - batch["x"]) ** 2 / 2
    >>> algorithm = fedala(loss_fn, optax.sgd(0.1), batches=fl.Batches(None), population=2, passes=5, weight_rate=0.1, share=1.0)
    >>> state, _ = fl.simulate(algorithm, data, jnp.zeros(()), fl.sampling.everyone(), rounds=30, key=jax.random.key(0))
    >>> round(float(algorithm.params(state)), 2), [round(float(x), 2) for x in algorithm.models(state)]
    (4.87, [2.07, 7.66])

    Source: Zhang et al. 2023, "FedALA: adaptive local aggregation for personalized federated learning", algorithm 1.
    """
    positive("fedala", "weight_rate", weight_rate)
    passes, share = a_count("fedala", "passes", passes), a_share("fedala", "share", share, "(0, 1]")
    aggregator = fitting("fedala", aggregator, weighted_mean(), keeps="their last local models")
    sgd = sgd_work(loss_fn, optimizer, learning_rate=learning_rate, full_gradient=True)

    def init(params, key):
        weights = split(chosen("fedala: top", top, params, some=False), jax.tree.map(jnp.ones_like, params))[0]
        return Own(params, weights, *sgd.init(params, key))

    def begun(shared, own, weights, client):
        return Carry(weights, sgd.start(shared._replace(params=mixed(own.model, shared.params, weights)), own, client))

    def start(shared, own, client):
        return begun(shared, own, own.weights, client)

    def step(shared, own, carry, batch):
        learning = jnp.asarray(batch.learning)
        seen = batch._replace(mask=batch.mask & (learning | _in_a_row(batch, share)))
        work, metrics = sgd.step(shared, own, carry.work, seen)
        # In a pass the model is y_k, and the gradient that was noted that of this batch, since training begins anew after each.
        weights = _stepped(carry.weights, mean_gradient(work), shared.params, own.model, weight_rate)
        return tree.where(learning, Carry(carry.weights, work), begun(shared, own, weights, batch.client)), metrics

    def finish(shared, own, carry, client):
        change, after, metrics = sgd.finish(shared, own, carry.work, client)
        model, weights = tree.if_finite((carry.work.params, carry.weights), (own.model, own.weights))
        return change, Own(model, weights, *after), metrics

    built = federate(
        ClientWork(init, start, step, finish), aggregator, averaging("fedala", server_learning_rate),
        batches=batches._replace(before=passes, after=0), population=population, uplink=uplink, engine=engine,
    )  # fmt: skip
    return built._replace(models=models_kept)


def mixed(local: Tree, received: Tree, weights: Tree) -> Tree:
    """Return local + (received - local) * weights where there are weights, and received elsewhere.

    >>> mixed({"body": 1.0, "head": 1.0}, {"body": 3.0, "head": 3.0}, {"body": None, "head": 0.25})
    {'body': 3.0, 'head': 1.5}
    """
    each = lambda w, v, x: x if w is None else v + (x - v) * w  # noqa: E731
    return jax.tree.map(each, weights, local, received, is_leaf=lambda w: w is None)


def _stepped(weights: Tree, gradient: Tree, received: Tree, local: Tree, rate: Number) -> Tree:
    """Take a step of the weights along the gradient of the mixture."""

    def each(w, g, x, v):
        return None if w is None else jnp.clip(w - rate * g * (x - v), 0, 1).astype(w.dtype)

    return jax.tree.map(each, weights, gradient, received, local, is_leaf=lambda w: w is None)


def _in_a_row(batch: Batch, share: Number) -> Bool[Array, " batch"]:
    """Mark the examples among those that the client learns its weights on in this round."""
    client, row = batch.client, batch.row
    assert client is not None and row is not None
    number = jnp.ceil(share * client.size).astype(jnp.int32)
    first = jax.random.randint(jax.random.fold_in(client.key, _PLACE), (), 0, client.size - number + 1)
    return (row >= first) & (row < first + number)
