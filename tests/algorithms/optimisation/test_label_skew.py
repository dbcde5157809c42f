"""FedLC, FedRS and MOON: the losses of the reference table, loops in NumPy over ragged clients, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import ragged
from oracles import slope
from problems import CLASSES, FEATURES, SIZES
from ragged import RATE
from rounds import trained

import fedjax_lite as fl
from fedjax_lite.algorithms.optimisation.moon import contrastive

SERVER_RATE, MU, TAU = 0.5, 2.0, 0.3
LOGITS = fl.models.Model(lambda key, example: jnp.zeros(4), lambda params, batch, key: params[None] + 0 * batch["x"])
MODEL = fl.models.Model(None, lambda params, batch, key: batch["x"] @ params)
IN_TWO = fl.models.Model(
    None,
    lambda params, batch, key: jnp.tanh(batch["x"] @ params) @ jnp.eye(CLASSES),
    lambda params, batch, key: jnp.tanh(batch["x"] @ params),
    lambda params, features: features,
)


# The table: one example of class 1 with logits z, of a client with 20, 5, 1 and 0 examples of the classes.
Z, COUNTS = np.array([1, 0.5, -0.2, 0.3]), (20, 5, 1, 0)
TABLE = {
    "fedlc": (dict(tau=1.0), 1.2125388849, (0.5965039685, -0.7025588489, 0.1060548803, 0)),
    "fedlc weak": (dict(tau=0.1), 1.1511218578, (0.5317749488, -0.6837182529, 0.1519433041, 0)),
    "fedlc floor": (dict(tau=0.1, floor=1e-8), 1.1511344271, None),
    "fedrs": (dict(alpha=0.5), 1.3480717624, (0.4282398846, -0.7402593803, 0.1289833746, 0.0915180606)),
    "fedrs graded": (dict(scale="graded"), 1.5035094692, (0.442192722, -0.4860322099, 0.0768909968, 0.0944998861)),
    "fedrs of fedavg": (dict(alpha=1.0), 1.3772630331, (0.4159197138, -0.7477319416, 0.1252726104, 0.2065396174)),
}  # fmt: skip


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.deep if " " in name else ()) for name in TABLE])
def test_a_loss_is_that_of_the_table(name, x64):
    """The loss of the examples of class 1, and the change of the logits that a step on these alone makes, by one client of many labels."""
    more, value, gradient = TABLE[name]
    labels = np.repeat(np.arange(4), COUNTS)
    labels = np.concatenate([[1], np.delete(labels, 20)])  # the first batch is one example of class 1
    data = fl.FederatedData.from_clients([{"x": np.zeros((26, 4)), "y": labels}])
    batches = fl.Batches(1, steps=1, shuffle=False)
    made = getattr(fl.algorithms, name.split(" ")[0])(LOGITS, optax.sgd(1.0), batches=batches, population=1, classes=4, **more)
    run = jax.jit(lambda data: fl.simulate(made, data, jnp.asarray(Z), fl.sampling.everyone(), rounds=1, key=jax.random.key(0)))
    state, told = run(data)
    np.testing.assert_allclose(told["loss"], value, atol=1.1e-9)
    if gradient is not None:
        np.testing.assert_allclose(Z - made.params(state), gradient, atol=1.1e-9)
    plain = made.loss_fn(jnp.asarray(Z), {"x": jnp.zeros((1, 4)), "y": jnp.array([1])}, None)[0]
    np.testing.assert_allclose(plain, 1.3772630331, atol=1.1e-9)  # evaluated with plain logits


@pytest.mark.deep
def test_the_contrastive_term_is_that_of_the_table(x64):
    z, z_glob, z_prev = (jnp.array([x]) for x in ((1.0, 2, -1), (0.5, 1, 0), (2.0, -1, 1)))
    value = lambda z, z_prev=z_prev: contrastive(z, z_glob, z_prev, 0.5)[0]  # noqa: E731
    np.testing.assert_allclose(value(z), 0.1092416160, atol=1.1e-9)
    np.testing.assert_allclose(jax.grad(value)(z)[0], (0.0684420775, -0.0355928796, -0.0027436817), atol=1.1e-9)
    np.testing.assert_allclose(value(z, z_glob), np.log(2), rtol=1e-12)
    assert not jax.grad(value)(z, z_glob).any()  # where both models are one
    assert jnp.isfinite(jax.grad(value)(0 * z)).all()  # where all features are 0


def log_softmax(z):
    top = z.max(axis=1, keepdims=True)
    return z - top - np.log(np.exp(z - top).sum(axis=1, keepdims=True))


def cross_entropy(z, y):
    return -log_softmax(z)[np.arange(len(y)), y].mean()


def lowered(counts, z):
    return np.where(counts > 0, z - TAU * np.maximum(counts, 1) ** -0.25, -1e300)


def scaled(counts, z):
    return np.where(counts > 0, 1, 0.5) * z


def cosine(a, b):
    return (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))


def moons(x, own, batch):
    """The loss of y on a batch, x what was sent and own the client's last model."""

    def loss(y):
        features, to_x, to_own = (np.tanh(batch[0] @ w["w"]) for w in (y, {"w": x}, {"w": own}))
        ours, others = np.exp(cosine(features, to_x) / TAU), np.exp(cosine(features, to_own) / TAU)
        return cross_entropy(features, batch[1]) + MU * np.mean(-np.log(ours / (ours + others)))

    return loss


def by_hand(loss):
    """The model, and what clients keep, after each round; loss is a function of x, the client, its last model and the batch to one of y."""
    x, own = ragged.start(), {k: ragged.start() for k in range(len(SIZES))}
    for clients in ragged.arrived():
        weights, changes = np.array([SIZES[k] for k in clients]), []
        after = {}
        for k, taken in clients.items():
            y = x
            for batch in taken:
                y = y - RATE * slope(loss(x, k, own[k], batch), {"w": y})["w"]
            changes.append(y - x)
            after[k] = y
        own = own | after
        x = x + SERVER_RATE * np.tensordot(weights / weights.sum(), changes, axes=1)
        yield x, own


def calibrated(change):
    """The loss of logits that are changed by the counts of the client's labels."""

    def of_client(x, k, own, batch):
        counts = np.bincount(ragged.examples(k)[1], minlength=CLASSES)
        return lambda y: cross_entropy(change(counts[None], batch[0] @ y["w"]), batch[1])

    return of_client


METHODS = {
    "fedlc": (functools.partial(fl.algorithms.fedlc, MODEL, classes=CLASSES, tau=TAU), calibrated(lowered)),
    "fedrs": (functools.partial(fl.algorithms.fedrs, MODEL, classes=CLASSES), calibrated(scaled)),
    "moon": (functools.partial(fl.algorithms.moon, IN_TWO, mu=MU, tau=TAU), lambda x, k, own, batch: moons(x, own, batch)),
}


@pytest.mark.parametrize("name", ["fedlc", "moon", pytest.param("fedrs", marks=pytest.mark.deep)])
def test_ragged_rounds_equal_the_numpy_loop(name, x64):
    """The counts are of all of a client's examples, where it is cut short too; some clients lack a class."""
    make, loss = METHODS[name]
    algorithm, states, told = ragged.run(lambda loss_fn, **more: make(optimizer=optax.sgd(RATE), server_learning_rate=SERVER_RATE, **more))
    for state, (x, own) in zip(states, by_hand(loss), strict=True):
        np.testing.assert_allclose(algorithm.params(state), x, atol=1e-8)  # of slopes by differences
        if name == "moon":
            np.testing.assert_allclose(state.own.model, np.stack([own[k] for k in range(len(SIZES))]), atol=1e-8)
        else:
            assert not any(leaf.size for leaf in jax.tree.leaves((state.own, state.server))[1:])  # the counts are kept nowhere
    assert [metrics["non_finite"].item() for metrics in told] == [1, 0, 1]
    assert any(0 in np.bincount(ragged.examples(k)[1], minlength=CLASSES) for clients in ragged.arrived() for k in clients)
    assert told[0]["uplink_bits"].item() == 3 * 64 * FEATURES * CLASSES


@pytest.mark.deep
@pytest.mark.parametrize(
    "name, more", [("fedlc", dict(tau=0.7)), ("fedrs", dict(scale="graded")), ("fedrs", dict(alpha=1.0)), ("moon", dict(mu=0.0))]
)
def test_without_skew_or_strength_it_is_fedavg(name, more, x64):
    """Clients have as many examples of every class."""
    rng, labels = np.random.default_rng(3), np.arange(12) % CLASSES
    data = fl.FederatedData.from_clients([{"x": rng.normal(size=(12, FEATURES)), "y": labels}] * 2)
    given = dict(optimizer=optax.sgd(RATE), batches=fl.Batches(5), population=2)
    method = getattr(fl.algorithms, name)(model=IN_TWO, **given, **more, **({} if name == "moon" else dict(classes=CLASSES)))
    made = (method, fl.algorithms.fedavg(fl.models.supervised(IN_TWO), **given))
    found, expected = (one.params(trained(one, data, ragged.start(), ((0, 1),) * 2, 0)[0]) for one in made)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


REFUSED = {
    "fedlc": [
        (dict(tau=-1.0), "fedlc: tau must be finite and not negative, got -1"),
        (dict(floor=0), "fedlc: floor must be positive and finite, got 0"),
        (dict(classes=1), "fedlc: classes must be an int of at least 2, got 1"),
    ],
    "fedrs": [
        (dict(alpha=2), "fedrs: alpha must be in \\[0, 1\\], got 2"),
        (dict(scale="own"), 'fedrs: scale must be "binary" or "graded", got .own.'),
        (dict(classes=1), "fedrs: classes must be an int of at least 2, got 1"),
    ],
    "moon": [
        (dict(mu=-1), "moon: mu must be finite and not negative, got -1"),
        (dict(tau=0), "moon: tau must be positive and finite, got 0"),
        (dict(model=MODEL), "moon: the model has no features apart from its head: give both"),
        (dict(aggregator=fl.aggregators.dp_mean(1.0, 1.0, 4)), "moon: clients keep their last local models.*for instance fedavg"),
    ],
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    given = dict(model=IN_TWO, optimizer=optax.sgd(0.1), batches=fl.Batches(4), population=7)
    given |= {} if name == "moon" else dict(classes=3)
    for more, message in [*REFUSED[name], (dict(server_learning_rate=0), f"{name}: server_learning_rate must be positive")]:
        with pytest.raises(ValueError, match=message):
            getattr(fl.algorithms, name)(**given | more)
