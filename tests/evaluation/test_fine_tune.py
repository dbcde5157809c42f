"""Fine-tuning for evaluation: reference values to ten digits, a loop in NumPy, and clients that have nothing to train on."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fedjax_lite as fl

pytestmark = pytest.mark.usefixtures("x64")
SGD, FIVE = optax.sgd(0.1), fl.Batches(None, steps=5)
DATA = fl.FederatedData.from_clients([{"t": jnp.array([t])} for t in (1.0, 2.0, -1.0)])
# f_k(b, h) = (b h - t_k)^2 / 2 after two rounds of five steps: bodies and heads after five steps more.
FEDAVG = [(1.2531417558, 0.7209204316), (1.5198761084, 1.1391640571), (0.9861722066, -0.0964343470)]
FEDBABU = [(1.1725981760, 0.6898460389), (1.4430513307, 1.1081616039), (0.9206754078, -0.1033050267)]
FEDBABU_HEAD = [(1.0745567930, 0.6974530212), (1.0745567930, 1.1241740122), (1.0745567930, -0.1559889609)]


def loss_fn(params, batch, key):
    return (params["body"] * params["head"] - batch["t"]) ** 2 / 2


def deep(*values):
    return pytest.param(*values, marks=pytest.mark.deep)


@pytest.mark.parametrize(
    ("make", "leaves", "expected"),
    [
        deep(fl.algorithms.fedavg, "all", FEDAVG),
        deep(lambda *args, **given: fl.algorithms.fedbabu(*args, fixed="head", **given), "all", FEDBABU),
        (lambda *args, **given: fl.algorithms.fedbabu(*args, fixed="head", **given), "head", FEDBABU_HEAD),
    ],
    ids=["fedavg", "fedbabu", "fedbabu, the head"],
)
def test_the_global_model_after_five_steps_of_each_client(make, leaves, expected):
    algorithm = make(loss_fn, SGD, batches=FIVE, population=3)
    begin = {"body": jnp.ones(()), "head": jnp.full((), 0.5)}
    state, _ = fl.simulate(algorithm, DATA, begin, fl.sampling.everyone(), rounds=2, key=jax.random.key(0))
    model_of = fl.fine_tuned(loss_fn, algorithm.params(state), DATA, fl.FineTune(SGD, FIVE, leaves), jax.random.key(1))
    models = jax.vmap(model_of)(jnp.arange(3))
    np.testing.assert_allclose(np.stack([models["body"], models["head"]], axis=1), expected, atol=1e-9)
    each = fl.evaluate_each(loss_fn, model_of, DATA, lanes=2)["loss"].value()
    np.testing.assert_allclose(each, [(b * h - t) ** 2 / 2 for (b, h), t in zip(expected, (1, 2, -1), strict=True)], atol=1e-9)


@pytest.mark.deep
def test_batches_are_drawn_by_number_and_who_has_no_example_keeps_the_model():
    """Whatever else is evaluated beside a client: its number, not its place, decides its draws."""
    rng = np.random.default_rng(0)
    data = fl.FederatedData.from_clients([{"x": rng.normal(size=n)} for n in (5, 0, 7)], allow_empty=True)
    squares = lambda params, batch, key: (params - batch["x"]) ** 2 / 2  # noqa: E731
    how, key = fl.FineTune(optax.sgd(0.5), fl.Batches(2, epochs=2)), jax.random.key(0)
    models = [float(fl.fine_tuned(squares, jnp.array(3.0), data, how, key)(k)) for k in range(3)]
    assert models[1] == 3.0 and models[0] != models[2]
    alone = fl.fine_tuned(squares, jnp.array(3.0), data.take([2]), how, key, ids=jnp.array([2]))
    assert float(alone(0)) == models[2] != float(fl.fine_tuned(squares, jnp.array(3.0), data.take([2]), how, key)(0))


def test_a_rule_that_chooses_nothing_is_refused_with_the_leaves_that_there_are():
    wrong = fl.FineTune(SGD, FIVE, "neck")
    with pytest.raises(ValueError, match="leaves='neck' chooses no leaf, and some are needed; the model's leaves are body, head"):
        fl.fine_tuned(loss_fn, {"body": jnp.ones(()), "head": jnp.ones(())}, DATA, wrong, jax.random.key(0))
