"""FD: what a client's model says of each class travels, and nothing of any example."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from fedjax_lite.aggregators import from_sum
from fedjax_lite.base import Algorithm, ClientWork, Info, Key, Number, Server, Shared, Tree
from fedjax_lite.batches import Batches
from fedjax_lite.distill.all_models import mean_over_models, of_all_models
from fedjax_lite.engine import Engine
from fedjax_lite.federate import federate
from fedjax_lite.models import Model, supervised
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.refuse import whole
from fedjax_lite.work import sgd_work

__all__ = ["fd"]


class ClassMeans(NamedTuple):
    """A model's mean output of each class, a row of zeros where there is no example of it; or the sum of such over clients."""

    outputs: Float[Array, "classes classes"]  # row y: the mean probabilities of examples of class y
    clients: Float[Array, " classes"]  # how many have examples of it; of one client 0 or 1


class Latest(NamedTuple):
    """What was said last: by one client, or the sum over all of that round."""

    said: ClassMeans
    round: Int[Array, ""]  # -1 before the first


class Own(NamedTuple):
    """What a client keeps."""

    model: Tree
    latest: Latest
    steps: Tree


class _Carry(NamedTuple):
    work: Tree
    sums: ClassMeans
    round: Int[Array, ""]


def fd(
    model: Model,
    optimizer: Any,
    classes: int,
    *,
    batches: Batches,
    population: int,
    learning_rate: Any = None,
    gamma: Number = 0.1,
    engine: Engine | None = None,
) -> Algorithm:
    r"""Federated distillation: clients regularise their models by the mean outputs, class by class, of all the others.

    Loss of client k on (x, y): CE(y, F_k(x)) + gamma CE(F^_{k,y}, F_k(x)),  F^_{k,y} = (sum_j F_{j,y} - F_{k,y}) / (N_y - 1),
    F_{j,y} the mean of softmax outputs over j's examples of class y while it trained in the last round, N_y how many clients had such.
    Where no other client had any the term is absent.

    Args:
        model: of every client; its outputs are logits `[batch, classes]`, its labels the leaf "y".
        optimizer, learning_rate, batches: of local training, as in `fl.sgd_work`.
        classes: how many there are.
        population: how many clients there are.
        gamma: the weight of the others' say; 0 is training alone.
        engine: as in `fl.federate`.

    Returns:
        An algorithm whose `params` are all clients' models, a stack `[population, ...]`, each at first the parameters given to `init`; its
        `loss_fn` is their mean loss.

    Raises:
        ValueError: for less than two classes, a gamma below 0.

    >>> import fedjax_lite as fl
    >>> model = fl.models.linear(3)
    >>> algorithm = fl.algorithms.fd(model, optax.sgd(0.1), classes=3, batches=fl.Batches(20), population=5)
    >>> state = jax.eval_shape(algorithm.init, model.init(jax.random.key(0), {"x": jnp.zeros(4)}), jax.random.key(1))
    >>> algorithm.params(state)["Dense_0"]["kernel"].shape, state.server.said.outputs.shape  # what stays, what travels
    ((5, 4, 3), (3, 3))

    Source: Jeong et al. 2018, "Communication-efficient on-device machine learning: federated distillation and augmentation under
    non-IID private data", algorithm 1.
    """
    whole("fd", "classes", classes, least=2)
    if isinstance(gamma, int | float) and not gamma >= 0:
        raise ValueError(f"fd: gamma must be at least 0, got {gamma}")
    plain = supervised(model)
    work = sgd_work(partial(_loss, model, plain, gamma), optimizer, learning_rate=learning_rate)
    never = Latest(ClassMeans(jnp.zeros((classes, classes)), jnp.zeros(classes)), jnp.int32(-1))
    algorithm = federate(
        _client(work, model, never),
        from_sum(lambda said, client: said, lambda total: total, non_finite="drop"),
        Server(lambda params: never, lambda state: Shared((), extra=state), _update, params=lambda state: ()),
        batches=batches,
        population=population,
        engine=engine,
    )
    return of_all_models(algorithm, lambda state: state.own.model, mean_over_models(plain))


def _loss(
    model: Model, plain: LossFn, gamma: Number, params: Tree, batch: Tree, key: Key | None, shared: Any, own: Any
) -> tuple[Any, dict[str, Any]]:
    """Add to the plain loss gamma times the cross-entropy of what the others say."""
    losses, metrics = plain(params, batch, key)
    log_p = jax.nn.log_softmax(model.apply(params, batch, key), axis=-1)
    return losses - gamma * jnp.sum(_others(shared.extra, own.latest)[batch["y"]] * log_p, axis=-1), metrics


def _others(all_said: Latest, mine: Latest) -> Float[Array, "classes classes"]:
    """Take mine off what all said: row y what the others say of class y; zeros, no term, where none does."""
    counted = (mine.round == all_said.round) & (all_said.round >= 0)  # whether what it said last is in the sum
    rest = jax.tree.map(lambda total, mine: total - jnp.where(counted, mine, 0), all_said.said, mine.said)
    return rest.outputs / jnp.maximum(rest.clients, 1)[:, None] * (rest.clients > 0.5)[:, None]


def _client(sgd: ClientWork, model: Model, never: Latest) -> ClientWork:
    """Make client work that takes sgd's steps on the client's own model, and says what it learned from."""
    nothing = never.said

    def init(params, key):
        return Own(params, never, sgd.init(params, key).steps)

    def start(shared, own, client):
        return _Carry(sgd.start(shared._replace(params=own.model), own, client), nothing, jnp.int32(0))

    def step(shared, own, carry, batch):
        work, metrics = sgd.step(shared._replace(params=own.model), own, carry.work, batch)
        p = jax.nn.softmax(model.apply(carry.work.params, batch.examples, None), axis=-1)
        rows = jax.nn.one_hot(batch.examples["y"], len(nothing.clients)) * batch.mask[:, None]
        return _Carry(work, ClassMeans(carry.sums.outputs + rows.T @ p, carry.sums.clients + jnp.sum(rows, axis=0)), batch.round), metrics

    def finish(shared, own, carry, client):
        change, after, metrics = sgd.finish(shared._replace(params=own.model), own, carry.work, client)
        number = carry.sums.clients
        said = ClassMeans(carry.sums.outputs / jnp.maximum(number, 1)[:, None], (number > 0).astype(number.dtype))
        return said, Own(optax.apply_updates(own.model, change), Latest(said, carry.round), after.steps), metrics

    return ClientWork(init, start, step, finish)


def _update(sums: ClassMeans, state: Latest, info: Info) -> Latest:
    """Put the round's sums in the place of the state's."""
    del state
    return Latest(sums, jnp.int32(info.round))
