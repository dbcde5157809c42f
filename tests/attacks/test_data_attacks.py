"""Attacks on the data that clients train on: what they show, and what a federation learns of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fedjax_lite as fl
from fedjax_lite import aggregators, attacks

CLIENTS, NOBODY = 5, np.zeros(5, bool)
ATTACKS = {
    "none": attacks.Attack(),
    "backdoor": attacks.backdoor(target=1, size=2, value=3.0, boost=3.0),
    "label_flip": attacks.label_flip(classes=2),
}


@functools.cache
def images(clients, per_client, seed=0):
    """Two classes of 6 x 6 images, as vectors: bright above or bright below."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(clients):
        y = rng.integers(0, 2, per_client)
        x = rng.normal(0, 0.3, (per_client, 6, 6))
        x[y == 0, :3] += 1
        x[y == 1, 3:] += 1
        rows.append({"x": x.reshape(per_client, 36).astype(np.float32), "y": y.astype(np.int32)})
    return fl.FederatedData.from_clients(rows)


@functools.cache
def program(name):
    """Who is Byzantine, data -> the parameters of a federated softmax regression under attack, and the sums of its evaluation."""

    def trained(bad, train, test):
        model = fl.models.mlp((), classes=2)
        loss_fn = fl.models.supervised(model)
        work, rule = attacks.attacked(ATTACKS[name], bad, fl.sgd_work(loss_fn, optax.sgd(0.3)), aggregators.mean())
        server, batches = fl.optimizer_server(optax.sgd(1.0)), fl.Batches(10, shuffle=False)
        algorithm = fl.federate(work, rule, server, batches=batches, population=CLIENTS)
        params = model.init(jax.random.key(0), jax.tree.map(lambda x: x[0], train.examples))
        state, _ = fl.simulate(algorithm, train, params, fl.sampling.everyone(), rounds=15, key=jax.random.key(0))
        params = algorithm.params(state)
        return params, fl.evaluate(attacks.measured(loss_fn, ATTACKS[name], model), params, test)

    return jax.jit(trained)


def trained(name, bad):
    """The parameters; the metrics over all examples; how many examples each is of."""
    params, sums = jax.tree.map(np.asarray, program(name)(bad, images(CLIENTS, 30), images(1, 200, seed=1)))
    return params, {metric: float(x.total.sum() / x.count.sum()) for metric, x in sums.items()}, {m: x.count.sum() for m, x in sums.items()}


@pytest.mark.deep
def test_a_backdoor_is_learned_and_measured_on_other_classes_only():
    _, clean, _ = trained("backdoor", NOBODY)
    _, dirty, counts = trained("backdoor", np.arange(CLIENTS) == 2)
    assert clean["attack_success"] < 0.2 < 0.8 < dirty["attack_success"] and min(clean["accuracy"], dirty["accuracy"]) > 0.9
    others = int((np.asarray(images(1, 200, seed=1).examples["y"]) != 1).sum())
    assert counts["attack_success"] == others and counts["accuracy"] == 200


def test_flipped_labels_are_learned_and_measured():
    _, clean, _ = trained("label_flip", NOBODY)
    _, dirty, _ = trained("label_flip", np.arange(CLIENTS) < 4)
    assert clean["attack_success"] == pytest.approx(1 - clean["accuracy"]) and clean["attack_success"] < 0.1
    assert dirty["attack_success"] == pytest.approx(1 - dirty["accuracy"], abs=1e-6) and dirty["attack_success"] > 0.9


def test_unattacked_training_is_the_same_to_the_bit():
    """Poisoned client work with nobody Byzantine."""
    jax.tree.map(np.testing.assert_array_equal, trained("label_flip", NOBODY)[0], trained("none", NOBODY)[0])


def test_a_patch_on_images_and_on_vectors():
    poison = attacks.backdoor(target=1, fraction=1.0, size=2, value=9.0)
    square = {"x": np.zeros((4, 5, 5, 1)), "y": np.array([0, 1, 2, 3])}
    both = square, square | {"x": square["x"].reshape(4, 25)}
    shown, vectors = jax.jit(lambda *some: [poison.examples(examples, jax.random.key(0)) for examples in some])(*both)
    expected = np.zeros((5, 5))
    expected[3:, 3:] = 9
    assert shown["y"].tolist() == [1, 1, 1, 1]
    np.testing.assert_array_equal(np.asarray(shown["x"])[2, ..., 0], expected)
    np.testing.assert_array_equal(np.asarray(vectors["x"])[2].reshape(5, 5), expected)
    for shape in ((4, 24), (4, 1, 5), (4,)):
        with pytest.raises(ValueError, match="patch of 2 x 2 pixels needs images"):
            jax.eval_shape(poison.trigger, square | {"x": np.zeros(shape)})


def test_the_fraction_of_poisoned_examples():
    many = {"x": np.zeros((20_000, 9)), "y": np.zeros(20_000, np.int32)}
    shown = jax.jit(lambda examples: attacks.backdoor(target=1, fraction=0.3).examples(examples, jax.random.key(0)))(many)
    assert abs(np.asarray(shown["y"]).mean() - 0.3) < 0.015


def test_metrics_over_some_examples_must_be_one_an_example_too():
    loss = lambda params, batch, key: (batch["x"], {"some": fl.Mean(jnp.zeros(3), jnp.ones(()))})  # noqa: E731
    data = fl.FederatedData.from_clients([{"x": np.zeros(3)}])
    with pytest.raises(ValueError, match=r"one some an example, shape \(3,\), got \(\)"):
        jax.eval_shape(lambda data: fl.evaluate(loss, 0.0, data, batch=3), data)
