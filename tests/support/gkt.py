"""A small problem for FedGKT, and its rounds as a NumPy loop of both sides: to be used in double precision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.special
from oracles import slope
from problems import CLASSES, FEATURES, SIZES, softmax_data
from rounds import advanced, batches_of, compiled, filled

import fedjax_lite as fl
from fedjax_lite.base import NO_LIMIT
from fedjax_lite.shuffle import permute
from fedjax_lite.streams import aggregate_key

WIDTH, BATCH, EPOCHS, RATE = 2, 4, 2, 0.5
SERVER_EPOCHS, SERVER_BATCH, SERVER_RATE, MOMENTUM = 2, 6, 0.3, 0.9
TEMPERATURE, KL = 2.0, 0.7
POPULATION, LARGEST = len(SIZES), max(SIZES)
rng = np.random.default_rng(3)
CLIENT = {"a": rng.normal(size=(FEATURES, WIDTH)), "b": rng.normal(size=(WIDTH, CLASSES))}
SERVER = {"c": rng.normal(size=(WIDTH, CLASSES)), "d": rng.normal(size=CLASSES)}
KEY, WORD = 5, 64  # bits of a number, in double precision


def extract(params, batch, key):
    del key
    return jnp.tanh(batch["x"] @ params["a"])


def classify(params, features):
    return features @ params["b"]


def serve(params, features):
    return jnp.tanh(features) @ params["c"] + params["d"][None]


def on_features(apply):
    """The server's model, from a function of params and features."""
    return fl.models.Model(None, lambda params, batch, key: apply(params, batch["x"]))


def algorithm(**options):
    options = {"extract": extract, "classify": classify, "server_apply": serve, "server_params": arrays(SERVER)} | options
    extract_, classify_, serve_, server = (options.pop(name) for name in ("extract", "classify", "server_apply", "server_params"))
    optimizer = options.pop("optimizer", optax.sgd(RATE))
    model = fl.models.Model(None, None, extract_, classify_)
    numbers = {
        "example": data_of().example, "largest": LARGEST, "population": POPULATION, "classes": CLASSES,
        "batches": fl.Batches(BATCH, EPOCHS),
        "server_epochs": SERVER_EPOCHS, "server_batch_size": SERVER_BATCH, "temperature": TEMPERATURE, "kl": KL,
        "engine": fl.sequential(),
    }  # fmt: skip
    return fl.algorithms.fedgkt(
        model, (on_features(serve_), server), optimizer, optax.sgd(SERVER_RATE, momentum=MOMENTUM), **numbers | options
    )


def arrays(params):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(float)), params)


@functools.cache
def data_of():
    return softmax_data()


def row(stack, i):
    return jax.tree.map(lambda x: x[i], stack)


@functools.cache
def default():
    """One object, so that tests share its compiled round."""
    return algorithm()


def trained(built, *cohorts, data=None, steps=None):
    """Rounds with these cohorts, each filled up with empty slots, so that most tests compile one program."""
    state = compiled(built)[0](arrays(CLIENT), jax.random.key(KEY))
    return advanced(built, data or data_of(), state, [filled(ids, 5) for ids in cohorts], steps or [NO_LIMIT] * 5)


def close(found, expected, atol=1e-8):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=atol), found, expected)


# The oracle: plain loops, gradients by central differences.


def losses(logits, labels, target):
    """CE + kl T^2 KL(softmax(target / T) || softmax(logits / T)) of each example; no target, no second term."""
    cross_entropy = -scipy.special.log_softmax(logits, axis=-1)[np.arange(len(labels)), labels]
    if target is None:
        return cross_entropy
    q, p = (scipy.special.softmax(z / TEMPERATURE, axis=-1) for z in (target, logits))
    return cross_entropy + KL * TEMPERATURE**2 * np.sum(q * np.log(q / p), axis=-1)


def client_logits(params, x):
    features = np.tanh(x @ params["a"])
    return features, features @ params["b"]


def server_logits(params, features):
    return np.tanh(features) @ params["c"] + params["d"]


@jax.jit
def server_order(round, epoch, count):
    """In which order the server sees what it heard; past the count nothing of meaning."""
    key = jax.random.fold_in(aggregate_key(jax.random.fold_in(jax.random.key(KEY), round)), 1)
    return permute(jax.random.fold_in(key, epoch), count, jnp.minimum(jnp.arange(sum(SIZES), dtype=jnp.int32), count - 1))


def replayed(data, cohorts):
    """The clients' models, the server's, what it last said of whom, and the mean loss of each round."""
    models, server, velocity, table, told = {}, SERVER, {name: 0 for name in SERVER}, {}, []
    batches = fl.Batches(BATCH, epochs=EPOCHS)
    steps = batches.steps_of(data.size).tolist()
    take, xs, ys = batches_of(data, batches), *(np.split(np.asarray(data.examples[name]), np.cumsum(SIZES)[:-1]) for name in "xy")
    for round, ids in enumerate(map(sorted, cohorts)):
        heard, seen = [], []
        for id in ids:
            mine, model = {"x": xs[id], "y": ys[id]}, models.get(id, CLIENT)
            for j in range(steps[id]):
                _, batch = take(KEY, round, id, j)
                rows = np.asarray(batch.row)[np.asarray(batch.mask)]
                target = table[id][rows] if id in table else None

                def each(params):
                    return losses(client_logits(params, mine["x"][rows])[1], mine["y"][rows], target)  # noqa: B023

                seen.append(each(model))
                gradient = slope(lambda params: each(params).mean(), model)  # noqa: B023
                model = {name: model[name] - RATE * gradient[name] for name in model}
            models[id] = model
            heard.append((*client_logits(model, mine["x"]), mine["y"]))
        features, logits, labels = (np.concatenate(parts) for parts in zip(*heard, strict=True))
        for epoch in range(SERVER_EPOCHS):
            order = np.asarray(server_order(round, epoch, np.int32(len(labels))))[: len(labels)]
            for first in range(0, len(labels), SERVER_BATCH):
                rows = order[first : first + SERVER_BATCH]
                gradient = slope(
                    lambda params: losses(server_logits(params, features[rows]), labels[rows], logits[rows]).mean(),  # noqa: B023
                    server,
                )
                velocity = {name: MOMENTUM * velocity[name] + gradient[name] for name in server}
                server = {name: server[name] - SERVER_RATE * velocity[name] for name in server}
        table |= {id: server_logits(server, said[0]) for id, said in zip(ids, heard, strict=True)}
        told.append(np.concatenate(seen).mean())
    return models, server, table, told
