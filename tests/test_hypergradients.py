"""Derivatives of a whole run by its hyperparameters, of the padded engine, are those by differences; and finite where slots are empty."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import quadratics
from grouping import tiered
from jax.flatten_util import ravel_pytree
from quadratics import A5

import fedjax_lite as fl

NOBODY, STEP = 99, 1e-6
COHORTS = np.array([(0, 3, NOBODY), (1, 2, 4), (NOBODY,) * 3, (4, NOBODY, 0)])
STEPS = np.array([2, 5, 3, 4, 3], np.int32)


def data():
    """The five clients of A5, two examples each, with ragged steps; client 4 is at rest: its gradients are zero."""
    a, c = A5.a.copy(), A5.c.copy()
    a[4] = 0
    return fl.FederatedData.from_clients([{"a": np.tile(a, (2, 1)), "c": np.tile(c, (2, 1))} for a, c in zip(a, c, strict=True)])


def sampler(key, sizes, round):
    ids = jnp.asarray(COHORTS)[round]
    return fl.sampling.cohort(key, sizes, ids)._replace(steps=jnp.asarray(STEPS)[jnp.minimum(ids, 4)])


COMMON = dict(batches=fl.Batches(None, steps=5), population=5, engine=fl.padded())


def averaging(aggregator, **more):
    return fl.algorithms.fedavg(quadratics.loss_fn, optax.sgd(0.1), aggregator=aggregator, **COMMON | more)


# name -> the numbers at which it is differentiated, and how it is made of them.
RUNS = {
    "fedprox": (
        {"learning_rate": 0.1, "mu": 0.5, "weights": np.array([1.0, 2.0, 0.5, 1.5, 1.0]), "server_learning_rate": 0.8},
        lambda learning_rate, mu, weights, server_learning_rate: fl.algorithms.fedprox(
            quadratics.loss_fn, optax.sgd(learning_rate), mu=mu, aggregator=fl.aggregators.weighted_mean(weights),
            server_learning_rate=server_learning_rate, **COMMON,
        ),
    ),
    "scaffold": (
        {"learning_rate": 0.1, "server_learning_rate": 0.8},
        lambda **numbers: fl.algorithms.scaffold(quadratics.loss_fn, **numbers, **COMMON),
    ),
    "scaffold 1": (
        {"learning_rate": 0.1},
        lambda learning_rate: fl.algorithms.scaffold(quadratics.loss_fn, learning_rate=learning_rate, option=1, **COMMON),
    ),
    "fednova": (
        {"learning_rate": 0.1, "momentum": 0.5, "mu": 0.5}, lambda **numbers: fl.algorithms.fednova(quadratics.loss_fn, **numbers, **COMMON)
    ),
    "feddyn": ({"learning_rate": 0.1, "alpha": 0.5}, lambda **numbers: fl.algorithms.feddyn(quadratics.loss_fn, **numbers, **COMMON)),
    "fedadam": (
        {"server_learning_rate": 0.1, "tau": 0.1, "b1": 0.8, "b2": 0.9},
        lambda **numbers: fl.algorithms.fedadam(quadratics.loss_fn, optax.sgd(0.1), **numbers, **COMMON),
    ),
    "diloco": (
        {"server_learning_rate": 0.7, "momentum": 0.9, "learning_rate": 0.05},
        lambda **numbers: fl.algorithms.diloco(quadratics.loss_fn, lambda rate: optax.adamw(rate, eps_root=1e-8), **numbers, **COMMON),
    ),
    "dp_mean": ({"clip": 0.25}, lambda clip: averaging(fl.aggregators.dp_mean(clip=clip, noise_multiplier=0.1, clients_per_round=2))),
    "norm_bounding": ({"max_norm": 0.3}, lambda max_norm: averaging(fl.aggregators.norm_bounding(max_norm=max_norm))),
    "centered_clipping": ({"radius": 0.2}, lambda radius: averaging(fl.aggregators.centered_clipping(radius=radius))),
}  # fmt: skip


def loss_after(algorithm, held):
    """The loss over all examples after four rounds."""
    state, _ = fl.simulate(algorithm, held, jnp.array([0.5, -0.5]), sampler, rounds=4, key=jax.random.key(0))
    return fl.evaluate(quadratics.loss_fn, algorithm.params(state), held)["loss"].total.sum()


@tiered("name", RUNS, ("fedprox",))
def test_derivatives_are_those_by_differences(name, x64):
    """By all numbers of a run, in one program."""
    at, make = RUNS[name]
    flat, tree_of = ravel_pytree(at)

    @jax.jit
    def run(flat, held):
        loss = lambda flat: loss_after(make(**tree_of(flat)), held)  # noqa: E731
        nudges = STEP * jnp.eye(len(flat))
        above, below = jax.lax.map(lambda nudge: loss(flat + nudge), jnp.concatenate([nudges, -nudges])).reshape(2, -1)
        return jax.grad(loss)(flat), (above - below) / (2 * STEP)

    found, expected = run(flat, data())
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)
    assert np.count_nonzero(np.abs(found) > 1e-4) == len(found)


@pytest.mark.deep
@pytest.mark.parametrize("engine", ["packed", "sequential"])
def test_forward_mode_goes_through_every_engine(engine, x64):
    at, _ = RUNS["scaffold"]

    def loss(at, engine):
        return loss_after(fl.algorithms.scaffold(quadratics.loss_fn, **at, **COMMON | {"engine": engine}), data())

    engine = fl.packed(2) if engine == "packed" else fl.sequential()
    along = jax.tree.map(jnp.ones_like, at)
    found = jax.jit(lambda at: jax.jvp(lambda at: loss(at, engine), (at,), (along,))[1])(at)
    np.testing.assert_allclose(found, sum(jax.jit(jax.grad(lambda at: loss(at, fl.padded())))(at).values()))
