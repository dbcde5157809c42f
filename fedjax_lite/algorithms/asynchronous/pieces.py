"""What asynchronous methods share: the models that a server remembers, clients that start from them, messages weighed by their age."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from fedjax_lite import tree
from fedjax_lite.aggregators.non_finite import is_finite
from fedjax_lite.aggregators.sums import sum_rows
from fedjax_lite.algorithms.optimisation.pieces import fitting
from fedjax_lite.base import Aggregator, Algorithm, Client, ClientWork, Server, State, Tree
from fedjax_lite.engine.pace import Asynchrony
from fedjax_lite.refuse import a_count


class Models(NamedTuple):
    """The most recent models of a server, in a ring."""

    stack: Tree  # [window, ...]
    version: Int[Array, ""]  # how many steps the server has made; that version lies in row version % window


class Remembered(NamedTuple):
    """The state of `remembering`."""

    server: Tree
    models: Models


def remember(params: Tree, window: int) -> Models:
    """Begin a ring of `window` models with the first.

    >>> remember(jnp.array(3.0), 2).stack.tolist()
    [3.0, 3.0]
    """
    return Models(jax.tree.map(lambda x: jnp.broadcast_to(x, (window, *x.shape)), params), jnp.int32(0))


def remembered(models: Models, age: Any) -> Tree:
    """Return the model that is `age` steps old, or the first; one that is not kept is NaN, so that the mistake shows.

    >>> models = and_now(remember(jnp.array(3.0), 2), jnp.array(4.0))
    >>> [float(remembered(models, jnp.int32(age))) for age in (0, 1, 2)]
    [4.0, 3.0, nan]
    """
    window = jax.tree.leaves(models.stack)[0].shape[0] if jax.tree.leaves(models.stack) else 1
    found = tree.take(models.stack, (models.version - jnp.minimum(age, models.version)) % window)
    return jax.tree.map(lambda x: jnp.where(age < window, x, jnp.nan) if jnp.issubdtype(x.dtype, jnp.floating) else x, found)


def and_now(models: Models, params: Tree) -> Models:
    """Put the model after a step in the place of the oldest."""
    window = jax.tree.leaves(models.stack)[0].shape[0] if jax.tree.leaves(models.stack) else 1
    version = models.version + 1
    return Models(jax.tree.map(lambda stack, x: stack.at[version % window].set(x.astype(stack.dtype)), models.stack, params), version)


def remembering(server: Server, window: int) -> Server:
    """Let a server keep its `window` most recent models, and offer them to clients that started from them."""

    def update(aggregate, state, info):
        after = server.update(aggregate, state.server, info)
        return Remembered(after, and_now(state.models, server.broadcast(after).params))

    return Server(
        init=lambda params: Remembered(server.init(params), remember(params, window)),
        broadcast=lambda state: server.broadcast(state.server)._replace(public=state.models),
        update=update,
    )


def starting_from(model_of: Callable[[Any, Client], Tree], work: ClientWork) -> ClientWork:
    """Let each client start from, and compare with, the model that `model_of` finds for it in the public part of the broadcast."""

    def to(shared: Any, client: Any) -> Any:
        return shared._replace(params=model_of(shared.public, client), public=None)

    return work._replace(
        start=lambda shared, own, client: work.start(to(shared, client), own, client),
        step=lambda shared, own, carry, batch: work.step(to(shared, batch.client), own, carry, batch),
        finish=lambda shared, own, carry, client: work.finish(to(shared, client), own, carry, client),
    )


def of_its_age(models: Models, client: Client) -> Tree:
    """Find the model of a client's age; a client without one takes no part, and is asked for the shape of its message."""
    return remembered(models, jnp.int32(0) if client.age is None else client.age)


def weighed(weight_of: Callable[[Any], Any], inner: Aggregator, *, divide: bool = False) -> Aggregator:
    """Weigh each message by the age of its model, before a rule gets it, and with `divide` the aggregate by the mean weight.

    >>> import fedjax_lite as fl
    >>> rule = weighed(lambda age: 1.0 / (1 + age), fl.aggregators.mean(), divide=True)
    >>> cohort = fl.sampling.cohort(jax.random.key(0), jnp.array([1, 1]), jnp.arange(2))._replace(age=jnp.array([0, 1]))
    >>> float(rule.finish(rule.collect(jnp.array([2.0, 8.0]), cohort, ()), (), None)[0])  # (2 + 8/2) / (1 + 1/2)
    4.0
    """

    def collect(messages, cohort, state):
        weight = jnp.asarray(weight_of(0 if cohort.age is None else cohort.age), jnp.result_type(float))
        weight = jnp.broadcast_to(weight, cohort.id.shape)
        scaled = jax.tree.map(lambda x: weight.astype(x.dtype).reshape(-1, *[1] * (x.ndim - 1)) * x, messages)
        part = inner.collect(scaled, cohort, state)
        if not divide:
            return part
        counts = (cohort.weight > 0) & is_finite(messages, cohort.weight > 0)
        weights = jnp.where(counts, weight, 0), jnp.where(counts, 1.0, 0.0)
        return part, sum_rows(lambda *pair: pair, counts, *weights) if inner.additive else weights

    def finish(part, state, key):
        if not divide:
            return inner.finish(part, state, key)
        part, (weight, count) = part
        mean = jnp.sum(weight) / jnp.maximum(jnp.sum(count), 1)
        aggregate, state, metrics = inner.finish(part, state, key)
        return jax.tree.map(lambda x: x / jnp.where(mean > 0, mean, 1).astype(x.dtype), aggregate), state, metrics

    return inner._replace(collect=collect, finish=finish)


def arriving_by_speed(name: str, aggregator: Any, default: Aggregator) -> Aggregator:
    """Return the aggregator, or the default; refuse a private one."""
    found = fitting(name, aggregator, default)
    if found.privacy is not None:
        raise ValueError(
            f"{name}: clients arrive by their speed, and not by a draw that an accountant knows, so the guarantee of a private aggregator "
            "would not hold: take a method that waits for its cohort, for instance fedavg"
        )
    return found


def asynchronous(name: str, algorithm: Algorithm, how: Asynchrony) -> Algorithm:
    """Say how an algorithm takes uploads in, and let it refuse a cohort without ages, or without tiers where it has some."""
    a_count(name, "buffer", how.buffer)
    a_count(name, "window", how.window)
    if how.too_old not in ("refuse", "drop"):
        raise ValueError(f'{name}: too_old must be "refuse" or "drop", got {how.too_old!r}')

    def round(state: State, data: Any, cohort: Client) -> tuple[State, dict[str, Any]]:
        if cohort.age is None or (how.tiers and cohort.tier is None):
            raise ValueError(
                f"{name}: the cohort has no {'tiers' if how.tiers else 'ages'}, since its sampler knows no time: take "
                "fl.clock.arriving(fl.clock.arrivals(algorithm, data, params, devices, ...)), in a configuration [clock]"
            )
        return algorithm.round(state, data, cohort)

    return algorithm._replace(round=round, asynchrony=how)
