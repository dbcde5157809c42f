"""FedGKT: a small model at each client, and a large model at the server for the clients' features; logits travel both ways."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from fedjax_lite import tree
from fedjax_lite.aggregators.lift import from_stack
from fedjax_lite.aggregators.non_finite import is_finite
from fedjax_lite.base import NO_LIMIT, Algorithm, Client, ClientWork, Number, Server, Shared, Tree
from fedjax_lite.batches import Batches
from fedjax_lite.distill.student import distillation_loss
from fedjax_lite.engine import Engine
from fedjax_lite.federate import federate
from fedjax_lite.ledger import dense_bits, lump
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.models.losses import of_logits
from fedjax_lite.models.model import Model, in_two
from fedjax_lite.refuse import integer, positive
from fedjax_lite.schedules import Clock, transformation_at
from fedjax_lite.shuffle import permute
from fedjax_lite.work import sgd_work


class Outputs(NamedTuple):
    """A client's message: outputs for its examples, each in the example's own row."""

    features: Array  # [examples, ...]
    logits: Float[Array, "*clients examples classes"]
    labels: Int[Array, "*clients examples"]
    held: Bool[Array, "*clients examples"]  # False in rows after its last example


class Split(NamedTuple):
    """The model of FedGKT, in two halves."""

    clients: Tree  # [population, ...]
    server: Tree


def split_loss(model: Model, server: Model) -> LossFn:
    """The loss and accuracy of the server's model behind each client's extractor, the mean over all clients; for `fl.evaluate`, `fl.run`.

    Args:
        model, server: of clients and server, as in `fedgkt`; the loss function takes that algorithm's `params(state)`.

    >>> import fedjax_lite as fl
    >>> model = fl.models.Model(None, None, lambda params, batch, key: batch["x"] * params, lambda params, features: features)
    >>> loss_fn = fl.algorithms.split_loss(model, fl.models.Model(None, lambda params, batch, key: batch["x"] * params))
    >>> two_clients = fl.algorithms.Split(clients=jnp.array([1.0, -1.0]), server=jnp.array(2.0))
    >>> _, metrics = loss_fn(two_clients, {"x": jnp.array([[1.0, 0.0]]), "y": jnp.array([0])}, None)
    >>> metrics["accuracy"].tolist()
    [0.5]
    """
    extract, _ = in_two("split_loss", model)

    def loss(params, batch, key):
        def one(client):
            return of_logits(server.apply(params.server, {"x": extract(client, batch, key)}, None), batch, key)

        return jax.tree.map(lambda x: jnp.mean(x, axis=0), jax.vmap(one)(params.clients))

    return loss


def fedgkt(
    model: Model,
    server_model: tuple[Model, Tree],
    optimizer: Any,
    server_optimizer: Any,
    *,
    example: Tree,
    largest: int,
    population: int,
    classes: int,
    batches: Batches,
    server_epochs: int = 1,
    server_batch_size: int = 64,
    temperature: Number = 3.0,
    kl: Number = 1.0,
    engine: Engine | None = None,
) -> Algorithm:
    r"""FedGKT: clients learn from the server's logits of their examples, the server from their features, logits and labels.

    Client k, with H = extract(x), z_k = classify(H): epochs on CE(z_k, y) + kl T^2 KL(softmax(z_s / T) || softmax(z_k / T)), z_s being
    the server's last logits of x, the second term absent before the first; then (H, z_k, y) of all its examples are sent.
    Server, with z_s = server_apply(H): epochs on CE(z_s, y) + kl T^2 KL(softmax(z_k / T) || softmax(z_s / T)); then z_s goes back.

    Args:
        model: the clients' model in two parts: extract is its `features` (called with key None for the features that are sent), classify
            its `head`.
        server_model: the server's model, of examples {"x": features}, with its first parameters. The parameters that a run is given are
            each client's first.
        optimizer, server_optimizer: optax transformations. A client's starts anew in every round, the server's does not.
        example, largest: the data's, for shapes: the server keeps logits `[population, largest, classes]`. Labels are the leaf "y".
        population, classes: the numbers of clients and of classes.
        batches: the clients'; one more pass, without learning, makes the message.
        server_batch_size, server_epochs: of the server, whose batches mix the cohort's examples.
        temperature, kl: T > 0, and the factor on both distillation terms.
        engine: as in `fl.federate`.

    Returns:
        An `Algorithm` whose `params(state)` is `Split(clients, server)`, for its `loss_fn`, a `split_loss`. "uplink_bits" are of the
        examples that clients hold, "downlink_bits" of `largest` logits a client, and "update_norm" is the server's. A message that is
        not finite is left out. The server takes as many steps as the examples sent fill, in a loop that reverse-mode `grad` can't pass.

    Raises:
        ValueError: for numbers out of range, models that do not fit each other, data with another largest client.

    >>> import fedjax_lite as fl
    >>> model, server = fl.models.mlp((3,), classes=10), fl.models.linear(10)
    >>> key, example = jax.random.key(0), {"x": jnp.zeros(8), "y": jnp.int32(0)}
    >>> sizes = {"example": example, "largest": 20, "population": 5, "classes": 10, "batches": fl.Batches(4)}
    >>> server_model = server, server.init(key, {"x": jnp.zeros(3)})
    >>> algorithm = fl.algorithms.fedgkt(model, server_model, optax.sgd(0.1), optax.sgd(0.1), **sizes)
    >>> state = jax.eval_shape(algorithm.init, model.init(key, example), key)
    >>> algorithm.params(state).clients["Dense_0"]["kernel"].shape, state.server.table.shape
    ((5, 8, 3), (5, 20, 10))

    Source: He, Annavaram, Avestimehr 2020, "Group knowledge transfer: federated learning of large CNNs at the edge", algorithm 1; z_s is of
    the server's model after its last step, not of each step's.
    """
    extract, classify = in_two("fedgkt", model)
    server, server_params = server_model
    sizes = {"largest": largest, "server_epochs": server_epochs, "server_batch_size": server_batch_size}
    for name, value in sizes.items():
        integer("fedgkt", name, value, least=1)
    integer("fedgkt", "classes", classes, least=2)
    positive("fedgkt", "temperature", temperature)
    positive("fedgkt", "kl", kl, or_zero=True)
    shape = (population, largest, classes)

    def soft(logits):
        return jax.nn.softmax(logits / temperature, axis=-1)

    def distilled(logits, labels, target):
        losses, metrics = of_logits(logits, {"y": labels}, None)
        return losses + kl * distillation_loss(logits, target, temperature), metrics

    def server_apply(params, features):
        return server.apply(params, {"x": features}, None)

    def loss(params, examples, key, shared, client, row):
        server_logits = tree.take(tree.take(shared.each, client.id), row)
        target = jnp.where(jnp.isnan(server_logits), 0, soft(server_logits))  # zeros before the first, which cost nothing
        return distilled(classify(params, extract(params, examples, key)), examples["y"], target)

    def server_loss(params, outputs):
        return distilled(server_apply(params, outputs.features), outputs.labels, soft(outputs.logits))[0]

    def says(params, examples, mask):
        """Compute a client's outputs for examples."""
        features = extract(params, examples, None)
        return Outputs(features, classify(params, features), examples["y"], mask)

    def silence(params):
        """Return a message of zeros; refuse models that do not fit each other."""
        batch = jax.tree.map(lambda x: jnp.zeros((largest, *jnp.shape(x)), jnp.result_type(x)), example)
        outputs = tree.zeros(jax.eval_shape(says, params, batch, jnp.zeros(largest, bool)))
        for name, logits in (
            ("the model's head", outputs.logits),
            ("the server's model", jax.eval_shape(server_apply, server_params, outputs.features)),
        ):
            if logits.shape != (largest, classes):
                raise ValueError(
                    f"fedgkt: {name} must give logits [batch, classes={classes}], of a batch of {largest} it gives {logits.shape}"
                )
        return outputs

    built = federate(
        _client(sgd_work(loss, optimizer), says, silence),
        from_stack(_heard),
        _server(server_apply, server_loss, server_params, server_optimizer, server_epochs, server_batch_size, shape),
        batches=batches._replace(after=1),
        population=population,
        uplink=_counted(),
        engine=engine,
    )

    def round(state, data, cohort):
        if data.largest != largest:
            raise ValueError(f"fedgkt: largest={largest}, but the data's largest client has {data.largest} examples: make them equal")
        return built.round(state, data, cohort)

    # Evaluation needs the models of all clients, so own rows can't go to host memory: the layout has no `rows`.
    layout = built.layout and built.layout._replace(rows=None)
    models = lambda state: Split(state.own.model, state.server.params)  # noqa: E731
    return built._replace(round=round, params=models, layout=layout, loss_fn=split_loss(model, server))


class _Own(NamedTuple):
    """A client's own row."""

    model: Tree
    steps: Tree


class _Carry(NamedTuple):
    """A client's carry: the carry of the work inside, and its message so far."""

    work: Tree
    outputs: Outputs


def _client(work, says, silence) -> ClientWork:
    """Make client work on a model that stays with its client; the pass after training makes the message."""

    def init(params, key):
        return _Own(params, work.init(params, key).steps)

    def start(shared, own, client):
        return _Carry(work.start(shared._replace(params=own.model), own, client), silence(own.model))

    def step(shared, own, carry, batch):
        after, metrics = work.step(shared._replace(params=own.model), own, carry.work, batch)
        row = jnp.where(batch.mask & ~batch.learning, batch.row, NO_LIMIT)
        return _Carry(after, tree.put(carry.outputs, row, says(carry.work.params, batch.examples, batch.mask))), metrics

    def finish(shared, own, carry, client):
        _, after, metrics = work.finish(shared._replace(params=own.model), own, carry.work, client)
        return carry.outputs, _Own(carry.work.params, after.steps), metrics

    return ClientWork(init, start, step, finish)


def _counted() -> optax.GradientTransformationExtraArgs:
    """Make an uplink that changes nothing and counts the bits of a client's examples alone: rows after them do not travel."""

    def update(outputs, state, params=None, **extra):
        each = jnp.float32(dense_bits(outputs._replace(held=())) / outputs.held.size)
        return outputs, lump("fedgkt", jnp.sum(outputs.held) * each, 0.0, dense_bits(outputs))

    return optax.GradientTransformationExtraArgs(lambda outputs: lump("fedgkt", 0.0, 0.0, dense_bits(outputs)), update)


def _heard(outputs: Outputs, cohort: Client) -> tuple[Outputs, Array, Array]:
    """Return the stack of messages, the clients' ids, and a mask `[clients]` of messages that are present and finite."""
    present = cohort.weight > 0
    return outputs, cohort.id, present & is_finite(outputs, present)


class _State(NamedTuple):
    """The server's state."""

    params: Tree
    optimizer: Tree
    table: Float[Array, "population examples classes"]  # the server's last logits of each example; NaN before the first


def _server(apply, loss, first, optimizer, epochs, batch_size, shape) -> Server:
    """Make the server: its model learns from the clients' outputs, and then makes logits for the same examples."""
    optimizer = transformation_at(optimizer, None)(Clock(0))

    def init(params):
        del params
        server = jax.tree.map(jnp.asarray, first)
        return _State(server, optimizer.init(server), jnp.full(shape, jnp.nan, jnp.result_type(float)))

    def learned(params, optimizer_state, outputs, owner, key):
        """Train the server's model on the outputs `[rows, ...]` whose owner is a client; return its parameters and optimizer state."""
        # Held examples first, in the order of their clients' ids: the steps depend on these examples alone, not on empty rows of the stack
        # or on the slots of the clients.
        order, count = jnp.argsort(owner, stable=True), jnp.sum(owner < NO_LIMIT, dtype=jnp.int32)
        size = min(batch_size, owner.size)
        an_epoch = (count + size - 1) // size

        def step(j, carry):
            params, optimizer_state = carry
            position = j % an_epoch * size + jnp.arange(size, dtype=jnp.int32)
            mask, order_now = position < count, jax.random.fold_in(key, j // an_epoch)
            batch = tree.take(outputs, order[permute(order_now, count, jnp.minimum(position, count - 1))])
            gradient = jax.grad(lambda params: jnp.sum(jnp.where(mask, loss(params, batch), 0)) / jnp.sum(mask))(params)
            updates, optimizer_state = optimizer.update(gradient, optimizer_state, params)
            return optax.apply_updates(params, updates), optimizer_state

        return jax.lax.fori_loop(0, epochs * an_epoch, step, (params, optimizer_state))

    def update(aggregate, state, info):
        outputs, ids, present = aggregate
        held, ids = outputs.held & present[:, None], jnp.where(present, ids, NO_LIMIT)
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), outputs)
        owner = jnp.where(held, ids[:, None], NO_LIMIT).reshape(-1)
        params, optimizer_state = learned(state.params, state.optimizer, flat, owner, info.key)
        logits = jax.lax.map(lambda features: apply(params, features), outputs.features)
        after = tree.where(held, logits.astype(state.table.dtype), tree.take(state.table, ids))
        return _State(params, optimizer_state, tree.put(state.table, ids, after))

    return Server(init, lambda state: Shared((), each=state.table), update, params=lambda state: state.params)
