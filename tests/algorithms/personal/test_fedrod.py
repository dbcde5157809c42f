"""FedRoD: the balanced softmax of the table, a NumPy loop over ragged clients, and its two predictions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import ragged
from problems import CLASSES, FEATURES, SIZES, softmax_data, softmax_loss
from ragged import LOST, RATE

import fedjax_lite as fl
from fedjax_lite.algorithms.personal.fedrod import TwoHeads
from fedjax_lite.models.losses import balanced, of_logits

pytestmark = pytest.mark.usefixtures("x64")
SERVER_RATE, GAMMA, WIDTH = 0.5, 0.5, 4
BODY, HEAD = (np.random.default_rng(s).normal(size=shape) * 0.3 for s, shape in enumerate(((FEATURES, WIDTH), (WIDTH, CLASSES))))
MODEL = fl.models.Model(
    None,
    lambda params, batch, key: batch["x"] @ params["body"] @ params["head"],
    lambda params, batch, key: batch["x"] @ params["body"],
    lambda params, z: z @ params["head"],
)
# The table: one example of class 1 with logits z, of a client with 20, 5, 1 and 0 examples of the classes.
Z, COUNTS = np.array([1, 0.5, -0.2, 0.3]), np.array([20.0, 5, 1, 0])
TABLE = {
    1.0: (2.0404670769, (0.8571239694, -0.8700320083, 0.0129080389, 0)),
    0.5: (1.5084062893, (0.7295998041, -0.7787376747, 0.0491378706, 0)),
}


@pytest.mark.parametrize("gamma", TABLE)
def test_the_balanced_softmax_is_the_tables(gamma):
    def loss(z):
        y = jnp.array([1])
        return of_logits(balanced(z[None], y, jnp.asarray(COUNTS), gamma), {"y": y}, None)[0][0]

    value, slope = jax.value_and_grad(loss)(jnp.asarray(Z))
    np.testing.assert_allclose(value, TABLE[gamma][0], atol=1.1e-9)
    np.testing.assert_allclose(slope, TABLE[gamma][1], atol=1.1e-9)


def built(loss_fn=None, optimizer=optax.sgd(RATE), **more):
    given = {"batches": fl.Batches(None), "population": len(SIZES), "classes": CLASSES, "personal": "head", "gamma": GAMMA} | more
    algorithm = fl.algorithms.fedrod(given.pop("model", MODEL), optimizer, **given)
    return algorithm._replace(init=lambda params, key: algorithm.init({"body": jnp.asarray(BODY), "head": jnp.asarray(HEAD)}, key))


def softmax(z):
    p = np.exp(z - z.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def by_hand():
    """Body and generic head, and the personal heads, after each round."""
    x, personal = (BODY, HEAD), np.zeros((len(SIZES), WIDTH, CLASSES))
    for clients in ragged.arrived():
        changes = []
        for k, taken in clients.items():
            counts = np.bincount(ragged.examples(k)[1], minlength=CLASSES)
            (body, head), own = x, personal[k]
            for features, y in taken:
                z, hard = features @ body, np.eye(CLASSES)[y]
                with np.errstate(divide="ignore"):
                    off = (softmax(z @ head + GAMMA * np.log(counts)) - hard) / len(y)
                own_off = (softmax(z @ head + z @ own) - hard) / len(y)
                body, head, own = body - RATE * features.T @ off @ head.T, head - RATE * z.T @ off, own - RATE * z.T @ own_off
            changes.append((body - x[0], head - x[1]))
            personal[k] = own
        sizes = np.array([SIZES[k] for k in clients], float)
        x = tuple(now + SERVER_RATE * np.average(change, axis=0, weights=sizes) for now, change in zip(x, zip(*changes), strict=True))
        yield x, personal.copy()


def test_ragged_rounds_equal_the_numpy_loop():
    """The counts are of all of a client's examples, where it is cut short too; some clients lack a class."""
    algorithm, states, told = ragged.run(built, optax.sgd(RATE), server_learning_rate=SERVER_RATE)
    for state, ((body, head), personal) in zip(states, by_hand(), strict=True):
        shared, own = algorithm.params(state), algorithm.models(state)
        np.testing.assert_allclose(shared.model["body"], body, atol=1e-12)
        np.testing.assert_allclose(shared.model["head"], head, atol=1e-12)
        np.testing.assert_allclose(own.personal["head"], personal, atol=1e-12)
        assert not shared.personal["head"].any()  # a new client's
    assert [metrics["non_finite"].item() for metrics in told] == [1, 0, 1] and not own.personal["head"][LOST].any()
    sent = 64 * (BODY.size + HEAD.size)
    assert told[0]["uplink_bits"] == told[0]["downlink_bits"] == 3 * sent  # no personal head, no count
    k, x = 4, ragged.examples(4)[0]
    batch = {"x": jnp.asarray(x), "y": jnp.asarray(ragged.examples(4)[1])}
    for params, logits in (
        (shared, x @ body @ head),
        (algorithm.models(state, jnp.int32(k)), x @ body @ (head + personal[k])),
        ({"body": BODY, "head": HEAD}, x @ BODY @ HEAD),
    ):
        expected = softmax_loss(jnp.eye(CLASSES), {"x": jnp.asarray(logits), "y": batch["y"]}, None)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), algorithm.loss_fn(params, batch, None), expected)


@pytest.mark.deep
def test_a_run_evaluates_both_predictions_beside_a_baseline_and_keeps_heads_on_the_host(tmp_path):
    algorithm = built()
    params = {"body": BODY, "head": HEAD}
    alone = fl.baselines.local_only(algorithm.loss_fn, optax.sgd(0.1), batches=fl.Batches(None), population=len(SIZES))
    options = {"rounds": 2, "key": jax.random.key(1), "progress": False, "loss_fn": algorithm.loss_fn, "test": softmax_data(SIZES[::-1])}
    on_device = fl.run(algorithm, softmax_data(), params, fl.sampling.uniform(4), baselines={"alone": alone}, **options)
    assert {"test_loss", "test_own_loss"} <= on_device.history[-1].keys() and on_device.baselines["alone"]["test_own_loss"] > 0
    on_host = fl.run(algorithm, softmax_data(), params, fl.sampling.uniform(4), own_on_host=True, **options)
    ids, rows = on_host.state.own
    np.testing.assert_array_equal(rows.leaves.personal["head"], on_device.state.own.leaves.personal["head"][np.asarray(ids)])
    assert isinstance(on_host.params, TwoHeads)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (dict(gamma=-1), "fedrod: gamma must be finite and not negative, got -1"),
        (dict(classes=1), "fedrod: classes must be an int of at least 2, got 1"),
        (dict(model=fl.models.linear(3)), "fedrod: the model has no features apart from its head"),
        (dict(server_learning_rate=0), "fedrod: server_learning_rate must be positive"),
        (dict(personal=".*"), "fedrod: personal='.*' chooses every leaf.*body, head"),
    ],
)
def test_what_is_refused(more, message):
    with pytest.raises(ValueError, match=message):
        built(**more).init((), jax.random.key(0))
