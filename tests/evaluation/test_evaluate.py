"""Evaluation against NumPy loops over clients."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from problems import softmax_data, softmax_loss, softmax_params

import fedjax_lite as fl
from fedjax_lite.base import Mean

POPULATIONS = (5, 1, 12, 3, 8, 2, 7), (0, 4, 0, 1, 0), (6,), (1,) * 30
FEW = (POPULATIONS[0], 4), (POPULATIONS[1], 1), (POPULATIONS[2], 7), (POPULATIONS[3], 1000)
ALL = [(sizes, batch) for sizes in POPULATIONS for batch in (1, 4, 7, 1000)]


@pytest.mark.parametrize(("sizes", "batch"), [*FEW, *(pytest.param(*each, marks=pytest.mark.deep) for each in ALL if each not in FEW)])
def test_evaluate_equals_the_loop_over_clients(x64, sizes, batch):
    data, weights = softmax_data(sizes, empty=True), np.asarray(softmax_params())
    sums = jax.jit(lambda params, data: fl.evaluate(softmax_loss, params, data, batch=batch))(weights, data)
    for k, n in enumerate(sizes):
        x, y = (np.asarray(data.client(k)[name]) for name in "xy")
        losses = oracles.softmax_regression_losses(weights, x, y)
        np.testing.assert_allclose(sums["loss"].total[k], losses.sum(), atol=1e-12)
        np.testing.assert_allclose(sums["accuracy"].total[k], np.sum(np.argmax(x @ weights, axis=1) == y))
        assert sums["loss"].count[k] == sums["accuracy"].count[k] == n


def sums_of(*clients):
    """Sums and counts of clients given as lists of values."""
    return {name: Mean(np.array([np.sum(c) for c in clients]), np.array([len(c) for c in clients])) for name in ("loss", "accuracy")}


def test_summarize_by_hand():
    rng = np.random.default_rng(0)
    sizes = 3, 0, 1, 40, 7, 2, 2, 9, 11, 5, 6, 1, 4, *[2] * 8  # twenty with examples, so the worst two
    clients = [rng.normal(size=n) for n in sizes]
    summary = fl.summarize(sums_of(*clients))
    each = sorted(np.mean(c) for c in clients if len(c))
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(summary[f"test_{name}"], np.mean(np.concatenate(clients)))
        spread = summary["test_clients"][name]
        np.testing.assert_allclose([spread["mean"], spread["std"]], [np.mean(each), np.std(each)])
        np.testing.assert_allclose(spread["deciles"], [np.quantile(each, q / 10) for q in range(1, 10)])
    np.testing.assert_allclose(summary["test_clients"]["loss"]["worst_decile"], np.mean(each[-2:]))
    np.testing.assert_allclose(summary["test_clients"]["accuracy"]["worst_decile"], np.mean(each[:2]))


@pytest.mark.parametrize("clients", [2, 4, 19])
def test_of_few_clients_there_are_the_values_themselves(clients):
    values = np.random.default_rng(clients).normal(size=clients)
    spread = fl.summarize(sums_of(*[[value] for value in values], []))["test_clients"]["loss"]
    assert set(spread) == {"mean", "std", "values", "worst_decile", "gini"} and spread["values"] == sorted(values)


@pytest.mark.parametrize(("clients", "worst"), [(2, 1), (9, 1), (10, 1), (11, 2), (20, 2), (25, 3)])
def test_the_worst_tenth_is_rounded_up(clients, worst):
    summary = fl.summarize(sums_of(*[[float(k)] for k in range(clients)]))
    assert summary["test_clients"]["loss"]["worst_decile"] == np.mean(range(clients - worst, clients))


def test_one_client_has_no_spread():
    assert fl.summarize(sums_of([1.0, 2.0], [])) == {"test_loss": 1.5, "test_accuracy": 1.5}
    assert set(fl.summarize(sums_of([1.0], [3.0]), "train_")) == {"train_loss", "train_accuracy", "train_clients"}


def test_a_mean_is_divided_by_what_was_counted_even_where_that_is_less_than_one():
    tenth = Mean(np.array([0.1, 0.3, 0.5]), np.full(3, 0.1))  # 1, 3 and 5, each with weight 0.1
    found = fl.summarize({"m": tenth})
    assert found["test_m"] == pytest.approx(3.0) and found["test_clients"]["m"]["mean"] == pytest.approx(3.0)


def test_what_nobody_counted_is_none_and_each_metric_has_a_spread_of_its_own():
    """As the accuracy on a class of which no example is held out, or one client only has some."""
    loss, nobody = Mean(np.array([2.0, 9.0]), np.array([2, 3])), Mean(np.zeros(2), np.zeros(2))
    assert loss.overall() == pytest.approx(11 / 5) and np.isnan(nobody.overall())
    one = Mean(np.array([1.0, 0.0]), np.array([1, 0]))
    for names in (("loss", "z", "a"), ("a", "loss", "z"), ("z", "a", "loss")):
        sums = {name: {"loss": loss, "a": nobody, "z": one}[name] for name in names}
        found = fl.summarize(sums)
        assert (found["test_loss"], found["test_a"], found["test_z"]) == (2.2, None, 1.0)
        assert set(found["test_clients"]) == {"loss"} and found["test_clients"]["loss"]["mean"] == 2.0


def test_a_million_examples_are_counted():
    sizes = np.array([2.0**24] + [1.0] * 19, np.float32)  # in single precision 2^24 + 1 is 2^24
    assert fl.summarize({"loss": Mean(sizes, sizes)})["test_loss"] == 1


def test_half_precision_and_whole_numbers_are_summed_in_single():
    data = fl.FederatedData.from_clients([{"x": np.ones(3000, np.float32)}])

    def loss_fn(params, batch, key):
        return batch["x"].astype(jnp.bfloat16), {"right": batch["x"] > 0, "count": batch["x"].astype(jnp.int32)}

    for mean in jax.jit(lambda data: fl.evaluate(loss_fn, 0.0, data))(data).values():
        assert mean.total.dtype == jnp.float32 and mean.total[0] == mean.count[0] == 3000


def test_what_evaluation_refuses():
    data = softmax_data()
    with pytest.raises(ValueError, match=r"one loss an example, shape \(38,\), got \(\): do not reduce"):
        fl.evaluate(lambda params, batch, key: jnp.mean(batch["x"]), 0.0, data)
    with pytest.raises(ValueError, match=r"one norm an example, shape \(4,\), got \(4, 6\)"):
        fl.evaluate(lambda params, batch, key: (batch["x"][:, 0], {"norm": batch["x"]}), 0.0, data, batch=4)
    for batch in (0, True):
        with pytest.raises(ValueError, match=f"evaluate: batch must be .* at least 1, got {batch!r}"):
            fl.evaluate(softmax_loss, softmax_params(), data, batch=batch)


def test_a_loss_is_evaluated_without_a_key():
    seen = []
    jax.eval_shape(lambda data: fl.evaluate(lambda params, batch, key: seen.append(key) or batch["x"][:, 0], 0.0, data), softmax_data())
    assert set(seen) == {None}


def test_millions_of_examples_are_summed_to_float32_precision():
    data = fl.FederatedData.from_clients([{"x": np.full(2_000_000, 0.7, np.float32)}])
    mean = jax.jit(lambda data: fl.evaluate(lambda params, batch, key: batch["x"], None, data)["loss"].value())(data)
    np.testing.assert_allclose(mean, 0.7, rtol=1e-4)  # summed one by one it would be 0.705
