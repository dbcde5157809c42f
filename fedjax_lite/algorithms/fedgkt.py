"""FedGKT: a small model at each client, a large one at the server that goes on from its features; logits travel both ways."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from fedjax_lite import tree
from fedjax_lite.aggregators.screen import is_finite
from fedjax_lite.base import NO_LIMIT, Aggregator, Algorithm, ClientWork, Key, Number, Server, Tree
from fedjax_lite.batches import Batches
from fedjax_lite.data.federated import FederatedData
from fedjax_lite.distill.kept import Kept
from fedjax_lite.distill.student import distillation_loss
from fedjax_lite.engine import Engine
from fedjax_lite.federate import federate
from fedjax_lite.models.losses import supervised
from fedjax_lite.models.networks import Model
from fedjax_lite.refuse import integer, positive
from fedjax_lite.schedules import Clock, transformation_at
from fedjax_lite.shuffle import permute
from fedjax_lite.uplink.ledger import Sent, dense_bits
from fedjax_lite.work import LossFn, sgd_work

of_logits = supervised(Model(lambda key, example: (), lambda logits, batch, key: logits))  # a model whose parameters are its outputs

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

    clients: Tree  # [population, ...], those of each client
    server: Tree


def with_rows(data: FederatedData) -> FederatedData:
    """Data whose examples know their place: a leaf "row" counts each client's from 0. Made of the population that trains, once it is split.

    Raises:
        ValueError: for examples that are no dict.

    >>> data = FederatedData.from_clients([{"y": np.zeros(2)}, {"y": np.ones(3)}])
    >>> with_rows(data).examples["row"].tolist()
    [0, 1, 0, 1, 2]
    """
    if not isinstance(data.examples, dict):
        raise ValueError(f'with_rows: examples must be a dict, to take a leaf "row", got a {type(data.examples).__name__}')
    rows = np.concatenate([np.arange(size, dtype=np.int32) for size in np.asarray(data.size)])
    return replace(data, examples=data.examples | {"row": jnp.asarray(rows)})


def split_loss(extract: Extract, server_apply: Classify) -> LossFn:
    """The loss and accuracy of the server's model behind each client's extractor, the mean over all clients; for `fl.evaluate`, `fl.run`.

    Args:
        extract, server_apply: those of `fedgkt`, whose `params(state)` is what the function is called with.
    """

    def loss(params, batch, key):
        def behind(model):
            return of_logits(server_apply(params.server, extract(model, batch, key)), batch, key)

        return jax.tree.map(lambda x: jnp.mean(x, axis=0), jax.vmap(behind)(params.clients))

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
    learning_rate: Any = None,
    epochs: int = 1,
    server_epochs: int = 1,
    server_batch_size: int = 64,
    temperature: Number = 3.0,
    kl: Number = 1.0,
    start: Callable[[Tree, Key], Tree] = lambda params, key: params,
    engine: Engine | None = None,
) -> Algorithm:
    r"""FedGKT: clients learn from the server's logits of their examples, the server from their features, logits and labels.

    Client k: some epochs on CE(z_k, y) + kl T^2 KL(softmax(z_s / T) || softmax(z_k / T)), z_k = classify(H), H = extract(x), where z_s is
    what the server last said of x, nothing at first; then it sends (H, z_k, y) of all its examples. Server: some epochs over all that was
    sent on CE(z_s, y) + kl T^2 KL(softmax(z_k / T) || softmax(z_s / T)), z_s = server_apply(H); then z_s goes back to the clients.

    Args:
        extract: `(params, batch, key) -> features [batch, ...]`, by a client's model; features that are sent are made with key None.
        classify: `(params, features) -> logits [batch, classes]`, by the same model: `params` is all of it.
        server_apply: `(params, features) -> logits [batch, classes]`.
        server_params: the server's model at the start. The parameters that a run is given are those of a client.
        optimizer, learning_rate: of clients, as in `fl.sgd_work`.
        server_optimizer: an optax transformation; its state lives as long as the run.
        example: `data.example`, of which the shapes alone matter. The data is to be `fl.algorithms.with_rows(data)`, with labels "y".
        largest: `data.largest`, the most examples of a client: the server keeps so many logits for each of the population.
        population, classes: how many clients, and classes.
        batch_size, epochs: of clients, who then go over their examples once more, for what they send: one cut short sends a part.
        server_epochs, server_batch_size: of the server, whose batches mix the cohort's examples.
        temperature: T > 0.
        kl: the factor on both distillation terms.
        start: params, key -> a client's first model.
        engine: as in `fl.federate`.

    Returns:
        An `Algorithm` whose `params(state)` is `Split(clients, server)`, for `split_loss`. "update_norm" is the server's; "uplink_bits" are
        those of the examples that clients hold, "downlink_bits" of `largest` logits a client; a message that is not finite is left out and
        counted in "non_finite". The server's loop takes as many steps as there are examples, so `grad` through a run is forward mode only.

    Raises:
        ValueError: for numbers out of range, models that do not fit each other, data without rows, or whose largest client is another.

    Source: He, Annavaram, Avestimehr 2020, "Group knowledge transfer: federated learning of large CNNs at the edge", algorithm 1. There the
    logits z_s are those before each step of the last epoch; here those of the model after it.
    """
    for name, value in (("largest", largest), ("epochs", epochs), ("server_epochs", server_epochs), ("server_batch_size", server_batch_size)):
        integer("fedgkt", name, value, least=1)
    integer("fedgkt", "classes", classes, least=2)
    positive("fedgkt", "temperature", temperature)
    positive("fedgkt", "kl", kl, or_zero=True)

    def nothing_said(model: Tree) -> Said:
        """A message of zeros, once the models are known to fit."""
        batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((largest, *jnp.shape(x)), jnp.result_type(x)), example)
        features = jax.eval_shape(lambda *given: extract(*given, None), model, batch)
        logits, at_server = jax.eval_shape(classify, model, features), jax.eval_shape(server_apply, server_params, features)
        for name, found in (("classify", logits), ("server_apply", at_server)):
            if found.shape != (largest, classes):
                raise ValueError(f"fedgkt: {name} must give logits [batch, classes={classes}], of {largest} examples it gives {found.shape}")
        return Said(*tree.zeros((features, logits)), jnp.zeros(largest, batch["y"].dtype), jnp.zeros(largest, bool))

    def distilled(logits, labels, target):
        losses, metrics = of_logits(logits, {"y": labels}, None)
        return losses + kl * distillation_loss(logits, target, temperature), metrics

    def soft(logits):
        return jax.nn.softmax(logits / temperature, axis=-1)

    def loss(params, seen, key):
        examples, target = seen
        return distilled(classify(params, extract(params, examples, key)), examples["y"], target)

    def mean_loss(params, said, mask):
        losses, _ = distilled(server_apply(params, said.features), said.labels, soft(said.logits))
        return jnp.sum(jnp.where(mask, losses, 0)) / jnp.maximum(jnp.sum(mask), 1)

    built = federate(
        _client(sgd_work(loss, optimizer, learning_rate=learning_rate), extract, classify, nothing_said, soft, start, epochs, batch_size),
        _gathered(),
        _server(server_apply, mean_loss, server_params, server_optimizer, (population, largest, classes), server_epochs, server_batch_size),
        batches=Batches(batch_size, epochs=epochs + 1),
        population=population,
        uplink=_of_held(),
        engine=engine,
    )

    def round(state, data, cohort):
        if data.largest != largest:
            raise ValueError(f"fedgkt: largest={largest}, but the largest client of the data holds {data.largest} examples: make them equal")
        return built.round(state, data, cohort)

    assert built.layout is not None
    # Evaluation needs the models of all clients, so what they keep can't go to host memory.
    layout = built.layout._replace(rows=None)
    return built._replace(round=round, layout=layout, params=lambda state: Split(state.own.model, state.server.params))


class _Carry(NamedTuple):
    work: Tree
    target: Float[Array, "examples classes"]  # the server's soft labels; a row of zeros, which costs nothing, where it has not spoken
    said: Said


def _client(work, extract, classify, nothing_said, soft, start, epochs, batch_size) -> ClientWork:
    """Some epochs of work on a model that stays with its client, and one in which nothing is learned, for what is sent."""

    def init(params, key):
        return Kept(start(params, key), work.init(params, key))

    def begin(shared, own, client):
        table, spoken = tree.take((shared.table, shared.spoken), client.id)
        target = jnp.where(spoken[:, None], soft(table), 0)
        return _Carry(work.start(shared._replace(params=own.model), own.work, client), target, nothing_said(own.model))

    def step(carry, batch):
        if "row" not in batch.examples:
            raise ValueError('fedgkt: the examples have no leaf "row": train on fl.algorithms.with_rows(data)')
        row, learning = batch.examples["row"], batch.epoch < epochs
        inner, metrics = work.step(carry.work, batch._replace(examples=(batch.examples, tree.take(carry.target, row))))
        features = extract(carry.work.params, batch.examples, None)
        says = Said(features, classify(carry.work.params, features), batch.examples["y"], batch.mask)
        said = tree.put(carry.said, jnp.where(batch.mask & ~learning, row, NO_LIMIT), says)
        metrics = jax.tree.map(lambda x: jnp.where(learning, x, 0), metrics)
        return _Carry(tree.where(learning, inner, carry.work), carry.target, said), metrics

    def finish(shared, carry, client):
        learned = jnp.minimum(client.steps, Batches(batch_size, epochs=epochs).steps_of(client.size))
        model = carry.work.params
        _, own, metrics = work.finish(shared._replace(params=model), carry.work, client._replace(steps=learned))
        return carry.said, Kept(model, own), metrics

    return ClientWork(init, begin, step, finish)


def _of_held() -> optax.GradientTransformationExtraArgs:
    """An uplink that changes nothing, and counts the bits of the examples that a client holds: the rows past them do not travel."""

    def update(said, state, params=None, **extra):
        each = dense_bits(said._replace(held=())) / said.held.size
        return said, Sent(jnp.sum(said.held) * jnp.float32(each), jnp.zeros((), jnp.float32), jnp.float32(dense_bits(said)))

    return optax.GradientTransformationExtraArgs(lambda said: Sent(*jnp.zeros(3, jnp.float32)), update)


class _Heard(NamedTuple):
    said: Said  # [clients, ...]
    ids: Int[Array, " clients"]
    present: Bool[Array, " clients"]


def _gathered() -> Aggregator:
    """All that the clients said, and who they are."""

    def finish(part, state, key):
        said, cohort = part
        present = cohort.weight > 0
        finite = is_finite(said, present)
        return _Heard(said, cohort.id, present & finite), state, {"non_finite": jnp.sum(~finite, dtype=jnp.float32)}

    return Aggregator(lambda message: (), lambda messages, cohort, state: (messages, cohort), finish, additive=False)


class _State(NamedTuple):
    params: Tree
    optimizer: Tree
    table: Float[Array, "population examples classes"]  # what the server last said of each example
    spoken: Bool[Array, "population examples"]  # of which it has


class _Broadcast(NamedTuple):
    params: Tree
    rate: Number
    public: Tree
    labels: Float[Array, "examples classes"]  # as much as one client is sent, for the count of bits; its own it finds in the table
    table: Float[Array, "population examples classes"]
    spoken: Bool[Array, "population examples"]


def _server(apply, mean_loss, first, optimizer, shape, epochs, batch_size) -> Server:
    """A model that learns from what the clients said, and then speaks of it."""
    optimizer = transformation_at(optimizer, None)(Clock(0))

    def init(params):
        del params
        server = jax.tree.map(jnp.asarray, first)
        return _State(server, optimizer.init(server), jnp.zeros(shape), jnp.zeros(shape[:-1], bool))

    def broadcast(state):
        return _Broadcast((), 1.0, None, state.table[0], state.table, state.spoken)

    def learned(state, said, held, key):
        # Held examples first: as many steps as they fill, however much of the stack is empty, and whatever it holds there.
        order, count = jnp.argsort(~held, stable=True), jnp.sum(held, dtype=jnp.int32)
        size = min(batch_size, held.size)
        an_epoch = (count + size - 1) // size

        def step(j, carry):
            params, optimizer_state = carry
            position = j % an_epoch * size + jnp.arange(size, dtype=jnp.int32)
            index = permute(jax.random.fold_in(key, j // an_epoch), count, jnp.minimum(position, count - 1))
            gradient = jax.grad(mean_loss)(params, tree.take(said, order[index]), position < count)
            updates, optimizer_state = optimizer.update(gradient, optimizer_state, params)
            return optax.apply_updates(params, updates), optimizer_state

        return jax.lax.fori_loop(0, epochs * an_epoch, step, (state.params, state.optimizer))

    def update(heard, state, info):
        said, ids, present = heard
        held = said.held & present[:, None]
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), said)
        params, optimizer_state = learned(state, flat, held.reshape(-1), info.key)
        logits = jax.lax.map(lambda features: apply(params, features), said.features).astype(state.table.dtype)
        ids = jnp.where(present, ids, NO_LIMIT)
        before = tree.take((state.table, state.spoken), ids)
        table, spoken = tree.put((state.table, state.spoken), ids, (jnp.where(held[..., None], logits, before[0]), held | before[1]))
        return _State(params, optimizer_state, table, spoken)

    return Server(init, broadcast, update, params=lambda state: state.params)
