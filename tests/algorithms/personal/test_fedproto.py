"""FedProto against a NumPy loop over ragged clients, with one family and with two, and its two means of prototypes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import ragged
from problems import CLASSES, FEATURES, SIZES, softmax_data, softmax_loss, softmax_params
from ragged import BATCH, EPOCHS, LOST, RATE
from rounds import trained

import fedjax_lite as fl

pytestmark = pytest.mark.usefixtures("x64")
LAM, HEAD = 1.5, np.array([[1.0, 0.5, 0], [0, 1, -1], [0.5, 0, 2]])  # logits are features times this
EXAMPLE = {"x": np.zeros(FEATURES), "y": 0}


def linear(scale=1.0):
    """Features x W, and logits of the features scaled; W learns."""

    def features(params, batch, key):
        return scale * (batch["x"] @ params)

    return fl.models.Model(
        None, lambda params, batch, key: features(params, batch, key) @ HEAD, features, lambda params, features: features @ HEAD
    )


def built(models=(linear(),), clients=(len(SIZES),), batches=fl.Batches(BATCH, epochs=EPOCHS, shuffle=False), **more):
    return fl.algorithms.fedproto(
        list(models), list(clients), optax.sgd(RATE), CLASSES, example=EXAMPLE, batches=batches, engine=fl.packed(2), **{"lam": LAM} | more
    )


def of_classes(features, labels):
    """The mean features of each class, and the number of examples."""
    counts = np.bincount(labels, minlength=CLASSES)
    return np.stack([features[labels == c].sum(0) for c in range(CLASSES)]) / np.maximum(counts, 1)[:, None], counts


def by_hand(start, by_examples=False, scales=(1.0,) * len(SIZES)):
    """The clients' models and the prototypes after each round, and the metric of each batch's examples."""
    W, prototypes, known = np.stack([start] * len(SIZES)), np.zeros((CLASSES, CLASSES)), np.zeros(CLASSES, bool)
    for clients in ragged.arrived():
        said, distances = [], []
        for k, taken in clients.items():
            for x, y in taken:
                z = scales[k] * (x @ W[k])
                p = np.exp(z @ HEAD)
                p /= p.sum(1, keepdims=True)
                away = (z - prototypes[y]) * known[y][:, None]
                distances += (away**2).mean(1).tolist()
                slope = (p - np.eye(CLASSES)[y]) @ HEAD.T + LAM * 2 * away / CLASSES
                W[k] = W[k] - RATE * scales[k] * x.T @ slope / len(y)
            x, y = ragged.examples(k)
            said.append(of_classes(scales[k] * (x @ W[k]), y))
        weights = np.stack([counts if by_examples else counts > 0 for _, counts in said]).astype(float)
        held = weights.sum(0) > 0
        means = np.einsum("kc,kcf->cf", weights, [mean for mean, _ in said]) / np.maximum(weights.sum(0), 1)[:, None]
        prototypes, known = np.where(held[:, None], means, prototypes), known | held
        yield W.copy(), prototypes.copy(), np.mean(distances)


@pytest.mark.parametrize("by_examples", [False, pytest.param(True, marks=pytest.mark.deep)])
def test_ragged_rounds_equal_the_numpy_loop(by_examples):
    """Prototypes are of all of a client's examples, where it is cut short too, and of its model after training."""

    def make(loss_fn, **more):
        algorithm = built(batches=more["batches"], by_examples=by_examples)
        return algorithm._replace(init=lambda params, key: algorithm.init((params,), key))

    algorithm, states, told = ragged.run(make)
    for state, metrics, (W, prototypes, distance) in zip(states, told, by_hand(ragged.start(), by_examples), strict=True):
        np.testing.assert_allclose(algorithm.params(state), W, atol=1e-11)
        np.testing.assert_allclose(state.server.features, prototypes, atol=1e-11)
        np.testing.assert_allclose(metrics["prototype"], distance, atol=1e-11)
    assert (W[LOST] == ragged.start()).all() and [metrics["non_finite"].item() for metrics in told] == [1, 0, 1]
    sent = 64 * (CLASSES * CLASSES + CLASSES)
    assert told[0]["uplink_bits"] == told[0]["downlink_bits"] == 3 * sent
    ids = jnp.array([4, 2])
    np.testing.assert_array_equal(algorithm.models(state, ids), algorithm.params(state)[ids])


@pytest.mark.deep
def test_two_families_share_prototypes():
    """Of one number of features, that one's architecture doubles."""
    algorithm = built((linear(), linear(2.0)), (3, 4))
    both = algorithm._replace(init=lambda params, key: algorithm.init((params, params), key))
    _, states, _ = ragged.run(lambda loss_fn, **more: both)
    for state, (W, prototypes, _) in zip(states, by_hand(ragged.start(), scales=[1.0] * 3 + [2.0] * 4), strict=True):
        np.testing.assert_allclose(np.concatenate(algorithm.params(state)), W, atol=1e-11)
        np.testing.assert_allclose(state.server.features, prototypes, atol=1e-11)
    assert algorithm.models is None  # models of several architectures are no stack


@pytest.mark.parametrize(("by_examples", "mean"), [(False, (2.0, 1.0)), (True, (1.4, 0.4))])
def test_prototypes_are_the_tables(by_examples, mean):
    """Four examples of class 1 with features (1, 0), and one with (3, 2); a class that nobody has keeps what it was, at first nothing."""
    clients = [{"z": np.tile(z, (n, 1)), "y": np.ones(n, int)} for z, n in (((1.0, 0.0), 4), ((3.0, 2.0), 1))]
    model = fl.models.Model(
        None, lambda params, batch, key: batch["z"] * params, lambda params, batch, key: batch["z"] * params, lambda params, z: z
    )
    algorithm = fl.algorithms.fedproto(
        [model], [2], optax.sgd(0.0), 2, example={"z": np.zeros(2), "y": 0}, batches=fl.Batches(3), by_examples=by_examples
    )
    data = fl.FederatedData.from_clients(clients)
    state, told = trained(algorithm, data, (jnp.ones(()),), ((0, 1), (0, 1)), 0)
    np.testing.assert_allclose(state.server.features, [(0, 0), mean], atol=1e-12)
    np.testing.assert_allclose(told["prototype"][0], 0)
    spread = (4 * np.mean((np.array(mean) - (1, 0)) ** 2) + np.mean((np.array(mean) - (3, 2)) ** 2)) / 5
    np.testing.assert_allclose(told["prototype"][1], spread)
    state, _ = trained(algorithm, data, (jnp.ones(()),), ((99, 99), (1, 99)), 0)  # nobody, and then one client
    np.testing.assert_allclose(state.server.features, [(0, 0), (3, 2)], atol=1e-12)


@pytest.mark.deep
def test_a_run_evaluates_each_clients_model_on_its_own_examples():
    algorithm, data = built(lam=0.0), softmax_data()
    options = {"rounds": 2, "key": jax.random.key(1), "progress": False, "loss_fn": algorithm.loss_fn, "test": softmax_data(SIZES[::-1])}
    result = fl.run(algorithm, data, (softmax_params(),), fl.sampling.everyone(), **options)
    loss_fn = lambda params, batch, key: softmax_loss(params @ HEAD, batch, key)  # noqa: E731
    own = fl.evaluate_each(loss_fn, lambda id: algorithm.models(result.state, id), options["test"])["loss"]
    np.testing.assert_allclose(result.history[-1]["test_own_loss"], own.total.sum() / own.count.sum(), rtol=1e-12)
    assert result.history[-1]["test_own_loss"] != result.history[-1]["test_loss"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (dict(lam=-1.0), "fedproto: lam must be finite and not negative, got -1"),
        (dict(models=[fl.models.linear(3)]), "fedproto: the model has no features apart from its head"),
    ],
)
def test_what_is_refused(more, message):
    with pytest.raises(ValueError, match=message):
        built(**more)


def test_families_of_other_features_and_one_class_are_refused():
    wide = linear()._replace(features=lambda params, batch, key: batch["x"])
    with pytest.raises(ValueError, match=r"fedproto: the families have \[3, 6\] features, and prototypes are of one number"):
        jax.eval_shape(built((linear(), wide), (3, 4)).init, (softmax_params(),) * 2, jax.random.key(0))
    with pytest.raises(ValueError, match="fedproto: classes must be a whole number of at least 2, got 1"):
        fl.algorithms.fedproto([linear()], [7], optax.sgd(0.1), 1, example=EXAMPLE, batches=fl.Batches(4))
