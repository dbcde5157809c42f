"""FedGen: the server learns to generate features that the clients' models agree on, and clients train on them beside their examples."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from fedjax_lite import tree
from fedjax_lite.aggregators import weighted_mean
from fedjax_lite.aggregators.non_finite import screen
from fedjax_lite.base import Aggregator, Algorithm, ClientWork, Key, Number, Server, Shared, Tree
from fedjax_lite.batches import Batches
from fedjax_lite.distill.student import distillation_loss
from fedjax_lite.engine import Engine
from fedjax_lite.federate import federate
from fedjax_lite.models.losses import of_logits
from fedjax_lite.models.model import Model, in_two
from fedjax_lite.models.networks.linear import mlp
from fedjax_lite.refuse import integer, positive
from fedjax_lite.schedules import Clock, transformation_at
from fedjax_lite.streams import HIGH_STREAM
from fedjax_lite.work import sgd_work

Generate = Callable[[Tree, Float[Array, "batch noise"], Float[Array, "batch classes"]], Array]  # params, noise, one-hot -> features
_GENERATED = np.uint32(HIGH_STREAM + 1)  # a stream of a local step's key; the optimizer draws from the stream before


class Generator(NamedTuple):
    """A conditional generator of features, in the shape that the clients' extractor gives."""

    params: Tree
    apply: Generate
    noise: int  # numbers of noise a feature


def latent_generator(key: Key, latent: int, classes: int, noise: int = 32, hidden: int = 256) -> Generator:
    """A generator of one hidden ReLU layer, as in the paper, without its batch normalisation.

    Args:
        key: draws the first parameters.
        latent: features an example.
        classes: the number of classes.
        noise: numbers of noise.
        hidden: the layer's width.

    >>> made = latent_generator(jax.random.key(0), latent=3, classes=10)
    >>> made.apply(made.params, jnp.zeros((2, 32)), jnp.eye(2, 10)).shape
    (2, 3)
    """
    model = mlp((hidden,), classes=latent)

    def apply(params, noise, labels):
        return model.apply(params, {"x": jnp.concatenate([noise, labels], axis=-1)}, None)

    return Generator(model.init(key, {"x": jnp.zeros(noise + classes)}), apply, noise)


def fedgen(
    model: Model,
    generator: Generator,
    optimizer: Any,
    *,
    batches: Batches,
    population: int,
    classes: int,
    learning_rate: Any = None,
    alpha: Number = 10.0,
    beta: Number = 10.0,
    decay: Number = 0.98,
    regularised_epochs: int = 20,
    generator_batch_size: int = 32,
    generator_optimizer: Any = None,
    generator_steps: int = 50,
    diversity: Number = 1.0,
    engine: Engine | None = None,
) -> Algorithm:
    r"""FedGen: FedAvg whose clients are regularised by features from a generator that the server fits to all clients' heads.

    Client: CE(h(f(x)), y) + alpha_t CE(h(G(e', y')), y') + beta_t KL(softmax h(G(e, y)) || softmax h(f(x))), with f = features, h = head,
    y' uniform over the classes, e, e' ~ N(0, I), alpha_t = alpha decay^t in round t, beta_t likewise, both 0 in round 0, when the
    generator has learnt nothing. Server: x <- x + the mean change by examples; then steps of G on
    sum_k (n_k[y] / sum_j n_j[y]) CE(h_k(G(e, y)), y) + diversity exp(-mean_ij |z_i - z_j|_1 |e_i - e_j|_2^2), both norms means over
    coordinates, z = G(e, y), with y drawn in proportion to the cohort's labels and n_k[y] client k's examples of y.

    Args:
        model: in two parts, f its `features` and h its `head`, which gives logits `[batch, classes]`.
        generator: from `latent_generator`, or a generator of your own.
        optimizer, learning_rate: of clients, as in `fl.sgd_work`.
        batches: batch size and local epochs or steps; the first epoch counts a client's labels "y".
        population, classes: the numbers of clients and of classes.
        alpha, beta, decay: as above.
        regularised_epochs: after how many local epochs a client trains on its examples alone.
        generator_batch_size: features a step, of clients and of the server.
        generator_optimizer: an optax transformation whose state lives as long as the run; by default Adam of rate 3e-4, with 1e-2 of the
            weights added to the gradient.
        generator_steps: the server's steps a round.
        diversity: the factor on the diversity term.
        engine: as in `fl.federate`.

    Returns:
        An `Algorithm` whose `params(state)` is the averaged model. Clients are sent the generator too, and "downlink_bits" count it; a
        message that is not finite is left out and counted in "non_finite".

    Raises:
        ValueError: for numbers out of range, or a generator that does not fit the head.

    >>> import fedjax_lite as fl
    >>> model, generator = fl.models.mlp((3,), classes=10), fl.algorithms.latent_generator(jax.random.key(0), latent=3, classes=10)
    >>> algorithm = fl.algorithms.fedgen(model, generator, optax.sgd(0.1), batches=fl.Batches(20), population=5, classes=10)
    >>> params = model.init(jax.random.key(1), {"x": jnp.zeros(8)})
    >>> state = jax.eval_shape(algorithm.init, params, jax.random.key(1))
    >>> sum(x.size for x in jax.tree.leaves(algorithm.params(state))), sum(x.size for x in jax.tree.leaves(state.server.generator))
    (67, 11779)

    Source: Zhu, Hong, Zhou 2021, "Data-free knowledge distillation for heterogeneous federated learning", algorithm 1; defaults, round 0
    and the diversity term as in the code that the authors released.
    """
    extract, head = in_two("fedgen", model)
    integer("fedgen", "classes", classes, least=2)
    for name, value in (("generator_batch_size", generator_batch_size), ("generator_steps", generator_steps)):
        integer("fedgen", name, value, least=1)
    for name, number in (("alpha", alpha), ("beta", beta), ("regularised_epochs", regularised_epochs), ("diversity", diversity)):
        positive("fedgen", name, number, or_zero=True)
    positive("fedgen", "decay", decay)
    if generator_optimizer is None:
        generator_optimizer = optax.chain(optax.add_decayed_weights(1e-2), optax.adam(3e-4))

    def generated(params, key, labels):
        """Generate features for `labels`; also return their noise."""
        noise = jax.random.normal(key, (labels.shape[0], generator.noise))
        return generator.apply(params, noise, jax.nn.one_hot(labels, classes)), noise

    def loss(params, examples, key, shared, round, epoch):
        strength = jnp.where((round > 0) & (epoch < regularised_epochs), decay**round, 0.0)
        features = extract(params, examples, key)
        logits = head(params, features)
        losses, metrics = of_logits(logits, examples, key)
        label_key, noise_key = jax.random.split(jax.random.fold_in(key, _GENERATED))
        drawn = jax.random.randint(label_key, (generator_batch_size,), 0, classes).astype(examples["y"].dtype)
        made, _ = generated(shared.extra, noise_key, jnp.concatenate([examples["y"], drawn]))
        if made.shape[1:] != features.shape[1:]:
            raise ValueError(f"fedgen: the generator makes features {made.shape[1:]}, the model has {features.shape[1:]}: make them equal")
        beside, taught = jnp.split(head(params, made), [len(logits)])
        alike = distillation_loss(logits, jax.lax.stop_gradient(jax.nn.softmax(beside, axis=-1)))
        teaching = jnp.mean(of_logits(taught, {"y": drawn}, None)[0])
        return losses + strength * (alpha * teaching + beta * alike), metrics

    def generator_loss(params, models, counts, key):
        label_key, noise_key = jax.random.split(key)
        held = jnp.sum(counts, axis=0)
        labels = jax.random.categorical(label_key, jnp.log(held), shape=(generator_batch_size,))
        features, noise = generated(params, noise_key, labels)
        losses = jax.vmap(lambda model: of_logits(head(model, features), {"y": labels}, None)[0])(models)
        share = counts / jnp.maximum(held, 1)[None]  # 0 for a class without examples
        return jnp.mean(jnp.sum(share[:, labels] * losses, axis=0)) + diversity * likeness(features, noise)

    return federate(
        _client(sgd_work(loss, optimizer, learning_rate=learning_rate), classes),
        _pooled(),
        _server(generator_loss, generator.params, generator_optimizer, generator_steps),
        batches=batches,
        population=population,
        engine=engine,
    )


def likeness(features: Array, noise: Float[Array, "batch noise"]) -> Float[Array, ""]:
    """Return exp(-mean_ij |z_i - z_j|_1 |e_i - e_j|_2^2): 1 where different noise makes the same features, else less."""

    def apart(x, size):
        return jnp.mean(size(x[:, None] - x[None]), axis=-1)

    return jnp.exp(-jnp.mean(apart(features.reshape(len(features), -1), jnp.abs) * apart(noise, jnp.square)))


class _Message(NamedTuple):
    """A client's message: the change of its model, and its numbers of labels."""

    change: Tree
    counts: Float[Array, "*clients classes"]


class _Carry(NamedTuple):
    """A client's carry: the carry of the work inside, and its numbers of labels."""

    work: Tree
    counts: Float[Array, " classes"]


def _client(work, classes) -> ClientWork:
    """Wrap client work so that it also counts the client's labels."""

    def start(shared, own, client):
        return _Carry(work.start(shared, own, client), jnp.zeros(classes))

    def step(shared, own, carry, batch):
        inner, metrics = work.step(shared, own, carry.work, batch)
        counts = (batch.mask & (batch.epoch == 0)) @ jax.nn.one_hot(batch.examples["y"], classes)
        return _Carry(inner, carry.counts + counts), metrics

    def finish(shared, own, carry, client):
        change, own, metrics = work.finish(shared, own, carry.work, client)
        return _Message(change, carry.counts), own, metrics

    return ClientWork(work.init, start, step, finish)


class _Pooled(NamedTuple):
    """The aggregate."""

    change: Tree  # the mean, weighted by examples
    changes: Tree  # [clients, ...], 0 in empty slots
    counts: Float[Array, "clients classes"]


def _pooled() -> Aggregator:
    """Average the changes, weighted by examples, and keep each client's change: the generator needs all heads."""
    mean = weighted_mean(non_finite="propagate")

    def finish(part, state, key):
        messages, cohort = part
        messages, cohort, dropped = screen(messages, cohort, "drop")
        messages = tree.zero_where_not(cohort.weight > 0, messages)
        change, _, _ = mean.finish(mean.collect(messages.change, cohort, ()), (), key)
        return _Pooled(change, messages.change, messages.counts), state, {"non_finite": dropped}

    return Aggregator(lambda message: (), lambda messages, cohort, state: (messages, cohort), finish, additive=False)


class _State(NamedTuple):
    """The server's state."""

    params: Tree
    generator: Tree
    optimizer: Tree


def _server(generator_loss, first, optimizer, steps) -> Server:
    """Make the server: add the mean change to the model, and fit the generator to the models of the cohort."""
    optimizer = transformation_at(optimizer, None)(Clock(0))

    def init(params):
        generator = jax.tree.map(jnp.asarray, first)
        return _State(params, generator, optimizer.init(generator))

    def update(pooled, state, info):
        models = jax.tree.map(lambda x, change: (x[None] + change).astype(x.dtype), state.params, pooled.changes)

        def step(carry, j):
            generator, optimizer_state = carry
            gradient = jax.grad(generator_loss)(generator, models, pooled.counts, jax.random.fold_in(info.key, j))
            updates, optimizer_state = optimizer.update(gradient, optimizer_state, generator)
            return (optax.apply_updates(generator, updates), optimizer_state), None

        learned, _ = jax.lax.scan(step, (state.generator, state.optimizer), jnp.arange(steps))
        return _State(optax.apply_updates(state.params, pooled.change), *learned)

    return Server(init, lambda state: Shared(state.params, extra=state.generator), update)
