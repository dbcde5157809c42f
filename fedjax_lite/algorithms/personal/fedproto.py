"""FedProto: models stay with their clients, and what travels is the mean features of each class."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fedjax_lite.aggregators import from_sum
from fedjax_lite.algorithms.distillation.fedmd import of_clients
from fedjax_lite.base import Algorithm, ClientWork, Number, Server, Shared, Tree
from fedjax_lite.batches import Batches
from fedjax_lite.clients import Family
from fedjax_lite.engine import Engine
from fedjax_lite.federate import federate
from fedjax_lite.models import Model, supervised
from fedjax_lite.models.model import in_two
from fedjax_lite.refuse import positive, whole
from fedjax_lite.work import loss_term, sgd_work


class Prototypes(NamedTuple):
    """The mean features of each class, or the sum of features or of means that it is made of."""

    features: Float[Array, "classes features"]
    weight: Float[Array, " classes"]  # how much counts in it: examples, or clients; 0 where there is none


class Own(NamedTuple):
    """What a client keeps."""

    model: Tree
    steps: Tree


class Carry(NamedTuple):
    """What it holds while it trains."""

    work: Tree
    sums: Prototypes


def fedproto(
    models: Sequence[Model],
    clients: Sequence[int],
    optimizer: Any,
    classes: int,
    *,
    example: Tree,
    batches: Batches,
    lam: Number = 1.0,
    by_examples: bool = False,
    learning_rate: Any = None,
    engine: Engine | None = None,
) -> Algorithm:
    r"""FedProto: clients draw their models' features of a class to the mean, over all clients, of theirs.

    Loss of client k on (x, y): CE(h_k(z), y) + lam mean_j (z_j - C^y_j)^2,  z = f_k(x);  C_k^y = the mean of f_k over k's examples of
    class y, after training;  C^y = the mean of C_k^y over the clients that have such examples.

    C_k^y is taken in a pass after training. A class that nobody of the cohort has keeps its prototype, and one that nobody ever had adds
    nothing to the loss.

    Args:
        models: an architecture for each family of clients, in two parts: f_k is `features`, h_k is `head`, which gives logits. Families may
            differ, but not in the number of features.
        clients: how many each family has; ids follow on each other.
        optimizer, learning_rate, batches: of local training, as in `fl.sgd_work`.
        classes: how many there are; labels are the leaf "y".
        example: one example, for the number of features.
        lam: the weight of the distance to the prototypes, which is a mean over features; 0 is training alone.
        by_examples: whether C^y is weighted by the clients' numbers of examples of the class; all count the same in the authors' code.
        engine: as in `fl.federate`.

    Returns:
        An `Algorithm` whose `init` takes a tuple of each family's first parameters. Its `params` are all clients' models, a stack
        `[clients, ...]` or a tuple with that of each of several families, and its `loss_fn` is their mean loss. Of one family
        `models(state, ids)` are those of some clients. It also reports "prototype", the distance before lam.

    Raises:
        ValueError: for a model without features, less than two classes, a lam below 0; at `init` for families with other numbers of
            features.

    >>> import fedjax_lite as fl, optax
    >>> families, example = [fl.models.mlp((4,), classes=3), fl.models.mlp((8, 4), classes=3)], {"x": jnp.zeros(5), "y": 0}
    >>> algorithm = fl.algorithms.fedproto(families, [3, 2], optax.sgd(0.1), 3, example=example, batches=fl.Batches(20))
    >>> params = tuple(jax.eval_shape(model.init, jax.random.key(0), example) for model in families)
    >>> state = jax.eval_shape(algorithm.init, params, jax.random.key(1))
    >>> [own["Dense_0"]["kernel"].shape for own in algorithm.params(state)], state.server.features.shape  # what stays, what travels
    ([(3, 5, 4), (2, 5, 8)], (3, 4))

    Source: Tan et al. 2022, "FedProto: federated prototype learning across heterogeneous clients", algorithm 1.
    """
    whole("fedproto", "classes", classes, least=2)
    positive("fedproto", "lam", lam, or_zero=True)
    batch = jax.tree.map(lambda x: jnp.asarray(x)[None], example)

    def nothing(model, params):
        shape = jax.eval_shape(lambda params: _flat(model, params, batch), params).shape
        return Prototypes(jnp.zeros((classes, shape[1])), jnp.zeros(classes))

    def update(sums, state, info):
        known = sums.weight > 0
        return Prototypes(jnp.where(known[:, None], _means(sums), state.features), jnp.where(known, sums.weight, state.weight))

    def counting(means, client):
        weight = means.weight if by_examples else (means.weight > 0).astype(means.weight.dtype)
        return Prototypes(means.features * weight[:, None], weight)

    def work_of(model):
        in_two("fedproto", model)
        loss_fn = loss_term(supervised(model), _pull(model, lam))
        return _on_own_model(sgd_work(loss_fn, optimizer, learning_rate=learning_rate), model, nothing)

    def begin(params):
        found = [nothing(model, one).features.shape[1] for model, one in zip(models, params, strict=True)]
        if len(set(found)) > 1:
            raise ValueError(
                f"fedproto: the families have {found} features, and prototypes are of one number: make the last hidden layers equal"
            )
        return nothing(models[0], params[0])

    algorithm = federate(
        [Family(work_of(model), number) for model, number in zip(models, clients, strict=True)],
        from_sum(counting, lambda total: total, non_finite="drop"),
        Server(begin, lambda state: Shared((), extra=state), update, params=lambda state: ()),
        batches=batches._replace(before=0, after=1),
        population=sum(clients),
        engine=engine,
    )
    return of_clients(algorithm, models)


def _flat(model: Model, params: Tree, batch: Tree) -> Float[Array, "batch features"]:
    """Return each example's features in a row."""
    assert model.features is not None
    features = model.features(params, batch, None)
    return features.reshape(len(features), -1)


def _means(sums: Prototypes) -> Float[Array, "classes features"]:
    """Divide sums by what counts in them; 0 where nothing does."""
    return sums.features / jnp.maximum(sums.weight, 1)[:, None]


def _pull(model: Model, lam: Number) -> Any:
    """Make the term of the loss: lam times the mean squared distance of an example's features to its class's prototype."""

    def term(params, batch, key, shared):
        assert model.features is not None
        features = model.features(params, batch, key)
        z, y = features.reshape(len(features), -1), batch["y"]
        distance = jnp.mean((z - shared.extra.features[y]) ** 2, axis=1) * (shared.extra.weight[y] > 0)
        return lam * distance, {"prototype": distance}

    return term


def _on_own_model(sgd: ClientWork, model: Model, nothing: Any) -> ClientWork:
    """Make client work that takes sgd's steps on the client's own model, and sends the mean features of each class."""

    def mine(shared, own):
        return shared._replace(params=own.model)

    def init(params, key):
        return Own(params, sgd.init(params, key).steps)

    def start(shared, own, client):
        return Carry(sgd.start(mine(shared, own), own, client), nothing(model, own.model))

    def step(shared, own, carry, batch):
        work, metrics = sgd.step(mine(shared, own), own, carry.work, batch)
        here = batch.mask & ~jnp.asarray(batch.learning)  # in the pass after training
        z = _flat(model, work.params, batch.examples)
        rows = jax.nn.one_hot(batch.examples["y"], len(carry.sums.weight), dtype=z.dtype) * here[:, None]
        more = Prototypes(jnp.matmul(rows.T, z, precision="highest"), jnp.sum(rows, axis=0))
        return Carry(work, jax.tree.map(lambda x, y: x + y.astype(x.dtype), carry.sums, more)), metrics

    def finish(shared, own, carry, client):
        _, after, metrics = sgd.finish(mine(shared, own), own, carry.work, client)
        return Prototypes(_means(carry.sums), carry.sums.weight), Own(carry.work.params, after.steps), metrics

    return ClientWork(init, start, step, finish)
