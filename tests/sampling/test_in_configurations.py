"""Samplers and laws of availability as a configuration names them."""

import jax
import jax.numpy as jnp
import pytest

import fedjax_lite as fl
from fedjax_lite.configuration.config import Config, ConfigError
from fedjax_lite.configuration.registry import make, names
from fedjax_lite.sampling.participation import Remembering

SIZES = jnp.arange(1, 11)


def built(**sampling):
    return make(Config({"sampling": sampling}).at("sampling"), "sampling", loss_fn=lambda params, batch, key: batch["x"])


@pytest.mark.parametrize(
    "sampling, same",
    [
        ({"name": "with_replacement", "clients": 3, "by": "examples"}, fl.sampling.with_replacement(3, "examples")),
        ({"name": "importance", "clients": 3, "probabilities": [*range(1, 11)]}, fl.sampling.importance(3, range(1, 11))),
        ({"name": "shuffled", "clients": 3, "seed": 2}, fl.sampling.shuffled(3, 2)),
        ({"name": "stratified", "clients": 2, "labels": ["a", "b"] * 5}, fl.sampling.stratified(2, ["a", "b"] * 5)),
        (
            {"name": "availability", "sampler": "everyone", "law": {"name": "markov", "share": 0.5, "mean_on": 4}},
            fl.sampling.availability(fl.sampling.everyone(), law=fl.availability.markov(0.5, 4)),
        ),
        (
            {"name": "availability", "sampler": {"name": "uniform", "clients": 3}, "law": {"name": "trace", "source": "phones"}},
            fl.sampling.availability(fl.sampling.uniform(3), law=fl.availability.trace("phones")),
        ),
    ],
)
def test_they_are_those_that_python_builds(sampling, same):
    key = jax.random.key(3)
    found, goal = built(**sampling)(key, SIZES, jnp.int32(5)), same(key, SIZES, jnp.int32(5))
    assert found.id.tolist() == goal.id.tolist() and found.weight.tolist() == goal.weight.tolist()


def test_those_that_look_are_given_the_loss():
    assert {"oort", "power_of_choice"} <= names("sampling").keys() and "inclusion" not in names("sampling")
    for sampling in ({"name": "oort", "clients": 2}, {"name": "power_of_choice", "clients": 2, "candidates": 4}):
        assert isinstance(built(**sampling), Remembering)


@pytest.mark.parametrize(
    "sampling, message",
    [
        ({"law": {"name": "markov", "share": 2, "mean_on": 4}}, r"sampling.law.share: markov: share must be in \(0, 1\), got 2"),
        ({"law": {"name": "night"}}, "unknown availability 'night'"),
        ({"law": {"name": "windows", "share": 0.5, "period": 4}, "share": 0.5}, "availability: law takes the place of share=0.5"),
        ({}, "availability: give share and period, or law"),
    ],
)
def test_what_is_refused(sampling, message):
    with pytest.raises(ConfigError, match=message):
        built(name="availability", sampler="everyone", **sampling)
