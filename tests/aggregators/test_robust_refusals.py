"""Arguments and cohorts that robust rules refuse, with the reason."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from robust_rules import (
    RULES,
    WIDTH,
)
from robust_trials import (
    apply,
    each_rule,
)

from fedjax_lite import aggregators, attacks

FACTORIES = {
    "trimmed_mean": aggregators.trimmed_mean,
    "meamed": aggregators.meamed,
    "krum": aggregators.krum,
    "multi_krum": aggregators.multi_krum,
    "bulyan": aggregators.bulyan,
    "monna": lambda f: aggregators.monna(f, trusted=0),
    "mda": aggregators.mda,
    "caf": aggregators.caf,
    "nnm": lambda f: aggregators.nnm(aggregators.mean(), f),
    "arc": lambda f: aggregators.arc(aggregators.mean(), f),
}


# What is of a wrong type already by its annotation is refused by beartype here, and is no case of these tests.


@pytest.mark.parametrize("name", FACTORIES)
@pytest.mark.parametrize("f", [-1, 1.5, float("nan"), True])
def test_a_number_of_byzantine_clients_that_is_none_is_refused(name, f):
    if name == "mda" and isinstance(f, float):
        return
    with pytest.raises(ValueError, match=f"{name}: num_byzantine .*whole number.*got {f}"):
        FACTORIES[name](f)


@pytest.mark.parametrize("name", FACTORIES)
def test_a_cohort_too_small_for_f_is_refused_with_the_reason(name):
    times, plus = next((row.times, row.plus) for key, row in RULES.items() if key.split()[0] == name)
    aggregator, n = FACTORIES[name](2), 2 * times + plus - 1
    arguments = np.ones((n, WIDTH), np.float32), np.arange(n, dtype=np.int32), np.ones(n)
    words = rf"{name}: num_byzantine=2 needs n >= {times}f\+{plus} = {n + 1} clients a round, and the cohort has {n}: lower num_byz"
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(functools.partial(apply, aggregator), *arguments)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: aggregators.multi_krum(1, num_selected=0), "multi_krum: num_selected .*at least 1, got 0"),
        (lambda: aggregators.multi_krum(1, num_selected=1.5), "multi_krum: num_selected .*got 1.5"),
        (lambda: aggregators.geometric_median(iterations=0), "geometric_median: iterations .*got 0"),
        (lambda: aggregators.geometric_median(smoothing=0), "geometric_median: smoothing .*got 0"),
        (lambda: aggregators.geometric_median(weights="example"), "geometric_median: weights .*'example'"),
        (lambda: aggregators.centered_clipping(0.0), "centered_clipping: radius .*got 0.0"),
        (lambda: aggregators.centered_clipping(1.0, iterations=0), "centered_clipping: iterations .*got 0"),
        (lambda: aggregators.norm_bounding(-1.0), "norm_bounding: max_norm .*got -1.0"),
        (lambda: aggregators.norm_bounding(float("nan")), "norm_bounding: max_norm .*got nan"),
        (lambda: aggregators.sign_majority(0.0), "sign_majority: learning_rate .*got 0.0"),
        (lambda: aggregators.rlr(-1), "rlr: threshold .*got -1"),
        (lambda: aggregators.mean("x"), "^mean: non_finite must be .*got 'x'"),
        (lambda: aggregators.weighted_mean(non_finite="x"), "^weighted_mean: non_finite"),
        (lambda: aggregators.norm_bounding(1.0, "x"), "^norm_bounding: non_finite"),
        (lambda: aggregators.sign_majority(1.0, "x"), "^sign_majority: non_finite"),
        (lambda: aggregators.rlr(1, non_finite="x"), "^rlr: non_finite"),
        (lambda: aggregators.rlr(1, learning_rate=-1.0), "rlr: learning_rate .*got -1.0"),
        (lambda: aggregators.fltrust(-1), "fltrust: trusted .*got -1"),
        (lambda: aggregators.monna(1, trusted=-2), "monna: trusted .*got -2"),
        (lambda: aggregators.bucketing(aggregators.mean(), 0), "bucketing: size .*at least 1, got 0"),
    ],
)
def test_other_bad_arguments_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@each_rule
def test_unknown_policies_are_refused(name):
    with pytest.raises(ValueError, match='non_finite must be "drop", "zero" or "propagate", got \'ignore\''):
        RULES[name].make(1, "ignore")


def test_more_selected_than_honest_is_refused():
    with pytest.raises(ValueError, match="multi_krum: num_selected=6 is more than n-f = 5"):
        jax.eval_shape(functools.partial(apply, aggregators.multi_krum(2, 6)), np.ones((7, WIDTH)), np.arange(7), np.ones(7))


def test_minimum_diameter_refuses_what_it_cannot_search():
    with pytest.raises(TypeError, match="num_byzantine"):
        aggregators.mda(jnp.int32(1))
    with pytest.raises(ValueError, match="mda: num_byzantine=10 of 30 slots make 30045015 sets"):
        jax.eval_shape(functools.partial(apply, aggregators.mda(10)), np.ones((30, WIDTH)), np.arange(30), np.ones(30))


def attacked_secure_mean():
    """An attack on what the clients send hides no less from the server."""
    return attacks.attacked(attacks.sign_flip(), jnp.arange(3) < 1, lambda *batch: 0.0, aggregators.secure_mean())[1]


@pytest.mark.parametrize(
    "make, kind, message",
    [
        (lambda: aggregators.nnm(aggregators.secure_mean(), 1), ValueError, "inner hides single messages from the server"),
        (lambda: aggregators.arc(aggregators.secure_mean(), 1), ValueError, "inner hides single messages from the server"),
        (lambda: aggregators.bucketing(aggregators.secure_mean(), 2), ValueError, "inner hides single messages from the server"),
        (lambda: aggregators.bucketing(attacked_secure_mean(), 2), ValueError, "inner hides single messages from the server"),
        (lambda: aggregators.nnm(3, 1), TypeError, "inner"),
        (lambda: aggregators.bucketing(aggregators.mean, 2), TypeError, "inner"),
    ],
)
def test_what_can_not_stand_behind_a_pre_aggregator(make, kind, message):
    with pytest.raises(kind, match=message):
        make()
