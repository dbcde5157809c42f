"""FedRoD: a head that all share, for all classes alike, and beside it one of each client's own, for what the client sees."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_lite.aggregators import weighted_mean
from fedjax_lite.algorithms.optimisation.label_counts import counting_labels
from fedjax_lite.algorithms.optimisation.pieces import averaging, starting_from
from fedjax_lite.base import Aggregator, Algorithm, Number, Tree
from fedjax_lite.batches import Batches
from fedjax_lite.engine import Engine
from fedjax_lite.federate import federate
from fedjax_lite.leaves import Rule, chosen, merge, split
from fedjax_lite.models.losses import balanced, of_logits, supervised
from fedjax_lite.models.model import Model, in_two
from fedjax_lite.refuse import integer, positive
from fedjax_lite.work import keep_leaves, sgd_work
from fedjax_lite.work.terms import asking


class TwoHeads(NamedTuple):
    """A model, and beside its head another one."""

    model: Tree  # the body, and the generic head G
    personal: Tree  # P, leaves like G's, None in place of the others


def fedrod(
    model: Model,
    optimizer: Any,
    *,
    batches: Batches,
    population: int,
    classes: int,
    personal: Rule,
    gamma: Number = 1.0,
    learning_rate: Any = None,
    aggregator: Aggregator | None = None,
    uplink: optax.GradientTransformation | None = None,
    server_learning_rate: Any = 1.0,
    engine: Engine | None = None,
) -> Algorithm:
    r"""FedRoD: body and generic head learn by balanced softmax and are averaged; a personal head learns what is left on the client.

    Body and G descend CE(G z + gamma log n_k, y), P_k descends CE(stop(G z) + P_k stop(z), y), z the features of an example and n_k client
    k's examples of each class;  body and G are averaged as in `fedavg`, P_k stays. The generic prediction is G z, the personal
    G z + P_k z.

    A class of which the client has no example takes no part in the balanced softmax. The counts are taken in a pass before training and
    stay with the client. P_k starts at 0, so that a new client's prediction is the generic one. This is the paper's linear version, without
    the network that makes P_k of a client's counts.

    Args:
        model: in two parts, whose `features` are z and whose `head` gives logits; labels are the leaf "y".
        classes: how many there are.
        personal: which leaves are the head, of which each client has its own P_k beside G: a rule as in `fedper`.
        gamma: at least 0; 1 is the balanced softmax, 0 leaves absent classes out alone.
        optimizer, batches, population, learning_rate, aggregator, uplink, server_learning_rate, engine: as in `fedavg`.

    Returns:
        An `Algorithm` whose `models(state)` are the clients' models with both heads, and whose `params(state)` has a P of 0: its `loss_fn`
        evaluates the personal prediction of the first and the generic one of the second. "loss" is the sum of both losses, and "accuracy"
        that of the personal prediction.

    Raises:
        ValueError: for a model without features, less than two classes, a gamma below 0, a rule that chooses no leaf or all, a server
            rate that is not positive.

    >>> import fedjax_lite as fl
    >>> data = fl.FederatedData.from_clients([{"x": jnp.ones((4, 2)), "y": jnp.array([0, 0, 0, 1])}])
    >>> model = fl.models.mlp((3,), classes=2)
    >>> algorithm = fl.algorithms.fedrod(
    ...     model, optax.sgd(1.0), batches=fl.Batches(None, steps=20), population=1, classes=2, personal="Dense_1/.*"
    ... )
    >>> params = model.init(jax.random.key(0), data.example)
    >>> state, _ = fl.simulate(algorithm, data, params, fl.sampling.everyone(), rounds=20, key=jax.random.key(0))
    >>> both = algorithm.params(state).model, algorithm.models(state, jnp.int32(0))
    >>> loss, _ = zip(*(algorithm.loss_fn(params, data.examples, None) for params in both))
    >>> [jnp.exp(-losses[::3]).round(2).tolist() for losses in loss]  # generic: both classes alike; personal: three examples to one
    [[0.5, 0.5], [0.75, 0.25]]

    Source: Chen and Chao 2022, "On bridging generic and personalized federated learning for image classification", algorithm 1 (linear);
    Ren et al. 2020, "Balanced meta-softmax for long-tailed visual recognition".
    """
    features, head = in_two("fedrod", model)
    integer("fedrod", "classes", classes, least=2)
    positive("fedrod", "gamma", gamma, or_zero=True)

    def heads(params: Tree) -> tuple[Tree, Tree]:
        return split(chosen("fedrod: personal", personal, params), params)

    def both(params: TwoHeads, batch, key):
        z = features(params.model, batch, key)
        own_head = merge(params.personal, jax.lax.stop_gradient(heads(params.model)[1]))
        return head(params.model, z), head(own_head, jax.lax.stop_gradient(z))

    def predict(params: Any, batch, key):
        return sum(both(params, batch, key)) if isinstance(params, TwoHeads) else model.apply(params, batch, key)

    def loss_fn(params, batch, key, own):
        generic, more = both(params, batch, key)
        losses, _ = of_logits(balanced(generic, batch["y"], own.counts, gamma), batch, key)
        personal_losses, metrics = of_logits(jax.lax.stop_gradient(generic) + more, batch, key)
        return losses + personal_losses, metrics

    plain = supervised(Model(model.init, predict))
    sgd = sgd_work(asking(loss_fn, {"own"}, plain), optimizer, learning_rate=learning_rate)
    kept = keep_leaves(counting_labels(sgd, classes), averaging("fedrod", server_learning_rate), "personal/.*")
    built = federate(
        kept.work, weighted_mean() if aggregator is None else aggregator, kept.server,
        batches=batches._replace(before=1), population=population, uplink=uplink, engine=engine,
    )  # fmt: skip
    begun = starting_from(lambda params, key: TwoHeads(params, jax.tree.map(jnp.zeros_like, heads(params)[0])), built)
    return begun._replace(models=kept.models, loss_fn=plain)
