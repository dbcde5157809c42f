"""FedGKT: a small model at each client, a large one at the server that goes on from its features; logits travel both ways."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from fedjax_lite import tree
from fedjax_lite.aggregators.lift import from_stack
from fedjax_lite.aggregators.screen import is_finite
from fedjax_lite.base import NO_LIMIT, Algorithm, Client, ClientWork, Key, Number, Server, Shared, Tree
from fedjax_lite.batches import Batches
from fedjax_lite.data.federated import FederatedData
from fedjax_lite.distill.student import distillation_loss
from fedjax_lite.engine import Engine
from fedjax_lite.federate import federate
from fedjax_lite.ledger import dense_bits, lump
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.models.losses import of_logits
from fedjax_lite.refuse import integer, positive
from fedjax_lite.schedules import Clock, transformation_at
from fedjax_lite.shuffle import permute
from fedjax_lite.work import sgd_work

Extract = Callable[[Tree, Tree, Key | None], Array]  # params, batch, key -> features [batch, ...]
Classify = Callable[[Tree, Array], Float[Array, "batch classes"]]  # params, features -> logits


class Said(NamedTuple):
    """What a client sends of its examples, each at the example's own row."""

    features: Array  # [examples, ...]
    logits: Float[Array, "*clients examples classes"]
    labels: Int[Array, "*clients examples"]
    held: Bool[Array, "*clients examples"]  # False past its last example


class Split(NamedTuple):
    """The model of FedGKT, in two halves."""

    clients: Tree  # [population, ...]
    server: Tree


def with_rows(data: FederatedData) -> FederatedData:
    """Data whose examples know their place: a leaf "row" counts each client's from 0. To be made of the population that trains.

    Raises:
        ValueError: for examples that are no dict.

    >>> data = FederatedData.from_clients([{"y": jnp.zeros(2)}, {"y": jnp.ones(3)}])
    >>> with_rows(data).examples["row"].tolist()
    [0, 1, 0, 1, 2]
    """
    if not isinstance(data.examples, dict):
        raise ValueError(f'with_rows: examples must be a dict, to take a leaf "row", got a {type(data.examples).__name__}')
    number = len(jax.tree.leaves(data.examples)[0])
    first = jnp.repeat(data.start, data.size, total_repeat_length=number)
    return replace(data, examples=data.examples | {"row": jnp.arange(number, dtype=jnp.int32) - first})


def split_loss(extract: Extract, server_apply: Classify) -> LossFn:
    """The loss and accuracy of the server's model behind each client's extractor, the mean over all clients; for `fl.evaluate`, `fl.run`.

    Args:
        extract, server_apply: those of `fedgkt`, whose `params(state)` is what the function is called with.

    >>> from fedjax_lite.algorithms.fedgkt import Split, split_loss
    >>> loss_fn = split_loss(lambda params, batch, key: batch["x"] * params, lambda params, features: features * params)
    >>> two_clients = Split(clients=jnp.array([1.0, -1.0]), server=jnp.array(2.0))
    >>> _, metrics = loss_fn(two_clients, {"x": jnp.array([[1.0, 0.0]]), "y": jnp.array([0])}, None)
    >>> metrics["accuracy"].tolist()
    [0.5]
    """

    def loss(params, batch, key):
        each = jax.vmap(lambda model: of_logits(server_apply(params.server, extract(model, batch, key)), batch, key))(params.clients)
        return jax.tree.map(lambda x: jnp.mean(x, axis=0), each)

    return loss


def fedgkt(
    extract: Extract,
    classify: Classify,
    server_apply: Classify,
    server_params: Tree,
    optimizer: Any,
    server_optimizer: Any,
    *,
    example: Tree,
    largest: int,
    population: int,
    classes: int,
    batch_size: int,
    epochs: int = 1,
    server_epochs: int = 1,
    server_batch_size: int = 64,
    temperature: Number = 3.0,
    kl: Number = 1.0,
    engine: Engine | None = None,
) -> Algorithm:
    r"""FedGKT: clients learn from the server's logits of their examples, the server from their features, logits and labels.

    Client k, with H = extract(x), z_k = classify(H): epochs on CE(z_k, y) + kl T^2 KL(softmax(z_s / T) || softmax(z_k / T)), z_s being what
    the server last said of x, the second term absent until it has; then (H, z_k, y) of all its examples are sent.
    Server, with z_s = server_apply(H): epochs on CE(z_s, y) + kl T^2 KL(softmax(z_k / T) || softmax(z_s / T)); then z_s goes back.

    Args:
        extract: `(params, batch, key) -> features [batch, ...]`, of a client's model; those that are sent are made with key None.
        classify: `(params, features) -> logits [batch, classes]`, of the same model: `params` is all of it.
        server_apply, server_params: `(params, features) -> logits [batch, classes]`, and the server's first parameters. Those that a run is
            given are the first of each client.
        optimizer, server_optimizer: optax transformations. A client's starts anew in every round, the server's does not.
        example, largest: of the data, for shapes: the server keeps `largest` logits for each of the population. The data must be
            `fl.algorithms.with_rows(data)`, with labels "y".
        population, classes: how many clients, and classes.
        batch_size, epochs: of clients; one more pass, without learning, makes what is sent.
        server_batch_size, server_epochs: of the server, whose batches mix the cohort's examples.
        temperature, kl: T > 0, and the factor on both distillation terms.
        engine: as in `fl.federate`.

    Returns:
        An `Algorithm` whose `params(state)` is `Split(clients, server)`, for `split_loss`. "uplink_bits" are of the examples that clients
        hold, "downlink_bits" of `largest` logits a client, and "update_norm" is the server's. A message that is not finite is left out.
        The server takes as many steps as what it was sent fills, a loop that reverse-mode `grad` can't pass.

    Raises:
        ValueError: for numbers out of range, models that do not fit each other, data without rows or with another largest client.

    >>> import fedjax_lite as fl
    >>> extract, classify = lambda params, batch, key: batch["x"] @ params["a"], lambda params, features: features @ params["b"]
    >>> models = extract, classify, lambda params, features: features @ params, jnp.zeros((3, 10)), optax.sgd(0.1), optax.sgd(0.1)
    >>> sizes = {"example": {"x": jnp.zeros(8), "y": 0}, "largest": 20, "population": 5, "classes": 10, "batch_size": 4}
    >>> params, algorithm = {"a": jnp.zeros((8, 3)), "b": jnp.zeros((3, 10))}, fl.algorithms.fedgkt(*models, **sizes)
    >>> state = jax.eval_shape(algorithm.init, params, jax.random.key(1))
    >>> algorithm.params(state).clients["a"].shape, algorithm.params(state).server.shape, state.server.table.shape
    ((5, 8, 3), (3, 10), (5, 20, 10))

    Source: He, Annavaram, Avestimehr 2020, "Group knowledge transfer: federated learning of large CNNs at the edge", algorithm 1; z_s is of
    the server's model after its last step, not of each step's.
    """
    sizes = {"largest": largest, "epochs": epochs, "server_epochs": server_epochs, "server_batch_size": server_batch_size}
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

    def loss(params, examples, key, shared, client):
        spoken = tree.take(tree.take(shared.each, client.id), examples["row"])
        target = jnp.where(jnp.isnan(spoken), 0, soft(spoken))  # of zeros, which cost nothing, where the server has not spoken
        return distilled(classify(params, extract(params, examples, key)), examples["y"], target)

    def server_loss(params, said):
        return distilled(server_apply(params, said.features), said.labels, soft(said.logits))[0]

    def says(params, examples, mask):
        features = extract(params, examples, None)
        return Said(features, classify(params, features), examples["y"], mask)

    def silence(params):
        """A message of zeros, once it is known that the models fit."""
        batch = jax.tree.map(lambda x: jnp.zeros((largest, *jnp.shape(x)), jnp.result_type(x)), example)
        said = tree.zeros(jax.eval_shape(says, params, batch, jnp.zeros(largest, bool)))
        for name, logits in (("classify", said.logits), ("server_apply", jax.eval_shape(server_apply, server_params, said.features))):
            if logits.shape != (largest, classes):
                raise ValueError(
                    f"fedgkt: {name} must give logits [batch, classes={classes}], of a batch of {largest} it gives {logits.shape}"
                )
        return said

    built = federate(
        _client(sgd_work(loss, optimizer), says, silence),
        from_stack(_heard),
        _server(server_apply, server_loss, server_params, server_optimizer, server_epochs, server_batch_size, shape),
        batches=Batches(batch_size, epochs=epochs, after=1),
        population=population,
        uplink=_counted(),
        engine=engine,
    )

    def round(state, data, cohort):
        if data.largest != largest:
            raise ValueError(f"fedgkt: largest={largest}, but the data's largest client has {data.largest} examples: make them equal")
        return built.round(state, data, cohort)

    # Evaluation needs the models of all clients, so what they keep can't go to host memory: the layout tells no rows.
    layout = built.layout and built.layout._replace(rows=None)
    return built._replace(round=round, params=lambda state: Split(state.own.model, state.server.params), layout=layout)


class _Own(NamedTuple):
    model: Tree
    steps: Tree


class _Carry(NamedTuple):
    work: Tree
    said: Said


def _client(work, says, silence) -> ClientWork:
    """Work on a model that stays with its client, and what is sent, from the pass after it."""

    def init(params, key):
        return _Own(params, work.init(params, key).steps)

    def start(shared, own, client):
        return _Carry(work.start(shared._replace(params=own.model), own, client), silence(own.model))

    def step(shared, own, carry, batch):
        if "row" not in batch.examples:
            raise ValueError('fedgkt: the examples have no leaf "row": train on fl.algorithms.with_rows(data)')
        after, metrics = work.step(shared._replace(params=own.model), own, carry.work, batch)
        row = jnp.where(batch.mask & ~batch.learning, batch.examples["row"], NO_LIMIT)
        return _Carry(after, tree.put(carry.said, row, says(carry.work.params, batch.examples, batch.mask))), metrics

    def finish(shared, own, carry, client):
        _, after, metrics = work.finish(shared._replace(params=own.model), own, carry.work, client)
        return carry.said, _Own(carry.work.params, after.steps), metrics

    return ClientWork(init, start, step, finish)


def _counted() -> optax.GradientTransformationExtraArgs:
    """An uplink that changes nothing, and counts the bits of the examples that a client holds: the rows past them do not travel."""

    def update(said, state, params=None, **extra):
        each = jnp.float32(dense_bits(said._replace(held=())) / said.held.size)
        return said, lump("fedgkt", jnp.sum(said.held) * each, 0.0, dense_bits(said))

    return optax.GradientTransformationExtraArgs(lambda said: lump("fedgkt", 0.0, 0.0, dense_bits(said)), update)


def _heard(said: Said, cohort: Client) -> tuple[Said, Array, Array]:
    """All that was said `[clients, ...]`, by whom, and whether it counts: one that is not finite would spoil the server's model."""
    present = cohort.weight > 0
    return said, cohort.id, present & is_finite(said, present)


class _State(NamedTuple):
    params: Tree
    optimizer: Tree
    table: Float[Array, "population examples classes"]  # what the server last said of each example; NaN where it has not


def _server(apply, loss, first, optimizer, epochs, batch_size, shape) -> Server:
    """A model that learns from what the clients said, and then speaks of the same examples."""
    optimizer = transformation_at(optimizer, None)(Clock(0))

    def init(params):
        del params
        server = jax.tree.map(jnp.asarray, first)
        return _State(server, optimizer.init(server), jnp.full(shape, jnp.nan, jnp.result_type(float)))

    def learned(params, optimizer_state, said, owner, key):
        # Held examples first, in the order of their clients' ids: the server takes as many steps as these fill, however much of the stack
        # is empty, and whichever slots the clients have.
        order, count = jnp.argsort(owner, stable=True), jnp.sum(owner < NO_LIMIT, dtype=jnp.int32)
        size = min(batch_size, owner.size)
        an_epoch = (count + size - 1) // size

        def step(j, carry):
            params, optimizer_state = carry
            position = j % an_epoch * size + jnp.arange(size, dtype=jnp.int32)
            mask, order_now = position < count, jax.random.fold_in(key, j // an_epoch)
            some = tree.take(said, order[permute(order_now, count, jnp.minimum(position, count - 1))])
            gradient = jax.grad(lambda params: jnp.sum(jnp.where(mask, loss(params, some), 0)) / jnp.sum(mask))(params)
            updates, optimizer_state = optimizer.update(gradient, optimizer_state, params)
            return optax.apply_updates(params, updates), optimizer_state

        return jax.lax.fori_loop(0, epochs * an_epoch, step, (params, optimizer_state))

    def update(heard, state, info):
        said, ids, present = heard
        held, ids = said.held & present[:, None], jnp.where(present, ids, NO_LIMIT)
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), said)
        owner = jnp.where(held, ids[:, None], NO_LIMIT).reshape(-1)
        params, optimizer_state = learned(state.params, state.optimizer, flat, owner, info.key)
        logits = jax.lax.map(lambda features: apply(params, features), said.features)
        after = tree.where(held, logits.astype(state.table.dtype), tree.take(state.table, ids))
        return _State(params, optimizer_state, tree.put(state.table, ids, after))

    return Server(init, lambda state: Shared((), each=state.table), update, params=lambda state: state.params)
