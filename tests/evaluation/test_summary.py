"""What an evaluation says about clients: Gini, who is hurt, and the same numbers in a compiled program."""

import jax
import numpy as np
import pytest

import fedjax_lite as fl
from fedjax_lite.evaluation.summary import fairness


def sums_of(each, counts=None):
    each = np.asarray(each, np.float32)
    counts = np.ones(len(each), np.float32) if counts is None else np.asarray(counts, np.float32)
    return fl.Mean(each * counts, counts)


@pytest.mark.parametrize("each", [[0.5, 0.5], [0.0, 1.0], [0.0, 0.0, 0.0], [0.1, 0.9, 0.4, 0.4, 0.7], np.arange(30.0) ** 2])
def test_gini_is_the_mean_difference_of_two_clients_over_twice_the_mean(each):
    """sum_kl |a_k - a_l| / (2 N sum_k a_k) as it is defined, over all pairs."""
    x = np.asarray(each, np.float64)
    pairs = np.abs(x[:, None] - x[None]).sum()
    expected = pairs / (2 * len(x) * x.sum()) if x.sum() else 0.0
    assert fl.summarize({"loss": sums_of(each)})["test_clients"]["loss"]["gini"] == pytest.approx(expected, abs=1e-6)


def test_of_values_below_zero_there_is_no_gini_and_nobody_counts_without_examples():
    spread = fl.summarize({"loss": sums_of([-1.0, 1.0]), "accuracy": sums_of([0.0, 1.0, 1.0], [0, 2, 2])})["test_clients"]
    assert spread["loss"]["gini"] is None and spread["accuracy"]["gini"] == 0.0


def test_who_is_hurt_is_who_the_global_model_serves_better():
    """Ties are not hurt; a client with a count of one model alone is not compared; lower losses are better."""
    sums = {
        "accuracy": sums_of([0.5, 0.6, 0.7, 0.8, 0.9], [1, 1, 1, 1, 0]),
        "own_accuracy": sums_of([0.4, 0.6, 0.8, 0.9, 0.0]),
        "loss": sums_of([1.0, 1.0, 1.0, 1.0]),
        "finetuned_loss": sums_of([2.0, 3.0, 0.5, 1.0]),
    }
    spread = fl.summarize(sums)["test_clients"]
    assert spread["own_accuracy"]["hurt"] == 0.25 and spread["finetuned_loss"]["hurt"] == 0.5
    assert "hurt" not in spread["accuracy"] and "hurt" not in fl.summarize({"own_loss": sums_of([1.0, 2.0])})["test_clients"]["own_loss"]


@pytest.mark.parametrize("clients", [2, 9, 10, 11, 25])
def test_in_a_program_as_on_the_host(clients):
    rng = np.random.default_rng(clients)
    counts = np.append(rng.integers(1, 5, clients), [0, 0])
    sums = {name: sums_of(rng.normal(size=clients + 2), counts) for name in ("loss", "accuracy")}
    found, spread = jax.jit(fairness)(sums), fl.summarize(sums)["test_clients"]
    for name in sums:
        np.testing.assert_allclose(found[f"client_{name}"], spread[name]["mean"], rtol=1e-5)
        np.testing.assert_allclose(found[f"worst_{name}"], spread[name]["worst_decile"], rtol=1e-5)
    assert all(np.isnan(x) for x in jax.jit(fairness)({"loss": sums_of([1.0, 2.0], [0, 0])}).values())
