"""A cohort that answers twice in a round: Mime is the paper's loop."""

import inspect
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import FEATURES, SIZES, softmax_data

import fedjax_lite as fl
from fedjax_lite.models.loss_fn import mean_loss

RATE, BETA, BATCH, ROUNDS = 0.05, 0.9, 4, 5


class Mime(NamedTuple):
    """The server's state, which both parts share."""

    params: object
    momentum: object
    gradient: object  # the cohort's mean at params


def squared_loss(params, batch, key):
    return 0.5 * (batch["x"] @ params - batch["y"]) ** 2


def first_state(params):
    return Mime(params, jnp.zeros_like(params), jnp.zeros_like(params))


def asking():
    """Each client's gradient at the model, over all its examples."""
    sgd = fl.sgd_work(squared_loss, optax.sgd(1.0))
    server = fl.Server(first_state, lambda s: fl.Shared(s.params), lambda change, s, info: s._replace(gradient=-change))
    return fl.federate(sgd, fl.aggregators.mean(), server, batches=fl.Batches(None, steps=1), population=len(SIZES))


def training():
    """Steps along the momentum, with gradients corrected to the cohort's mean."""

    def step_of(gradient, state, params=None, *, shared, **extra):
        momentum, mean = shared.extra
        return -RATE * ((1 - BETA) * (gradient + mean) + BETA * momentum), state

    optimizer = optax.GradientTransformationExtraArgs(lambda params: (), step_of)
    work = fl.sgd_work(squared_loss, optimizer)

    def step(shared, own, carry, batch):
        # The gradient at the model as it was sent is taken off the mean that the optimizer adds.
        there = jax.grad(mean_loss, argnums=1, has_aux=True)(squared_loss, shared.params, batch, batch.client.key)[0]
        momentum, mean = shared.extra
        return work.step(shared._replace(extra=(momentum, mean - there)), own, carry, batch)

    def update(change, state, info):
        momentum = (1 - BETA) * state.gradient + BETA * state.momentum
        return Mime(state.params + change, momentum, state.gradient)

    server = fl.Server(first_state, lambda state: fl.Shared(state.params, extra=(state.momentum, state.gradient)), update)
    batches = fl.Batches(BATCH, shuffle=False)
    return fl.federate(work._replace(step=step), fl.aggregators.mean(), server, batches=batches, population=len(SIZES))


def gradient(x, X, y):
    return X.T @ (X @ x - y) / len(y)


def by_hand(clients, cohorts):
    x, m = np.zeros(FEATURES), np.zeros(FEATURES)
    for cohort in cohorts:
        mean = np.mean([gradient(x, *clients[k]) for k in cohort], axis=0)
        ends = []
        for k in cohort:
            X, labels = clients[k]
            y = x
            for start in range(0, len(labels), BATCH):
                part = X[start : start + BATCH], labels[start : start + BATCH]
                y = y - RATE * ((1 - BETA) * (gradient(y, *part) - gradient(x, *part) + mean) + BETA * m)
            ends.append(y)
        x, m = np.mean(ends, axis=0), (1 - BETA) * mean + BETA * m
    return x, m


@pytest.mark.deep
def test_mime_is_the_papers_loop(x64):
    data, sampler, key = softmax_data(), fl.sampling.uniform(3), jax.random.key(5)
    run = partial(fl.simulate, fl.in_turn(asking(), training()), sampler=sampler, rounds=ROUNDS, key=key)
    state, history = jax.jit(run)(data, jnp.zeros(FEATURES))
    ends = np.cumsum([0, *SIZES])
    clients = [
        (np.asarray(data.examples["x"][a:b]), np.asarray(data.examples["y"][a:b], float)) for a, b in zip(ends[:-1], ends[1:], strict=True)
    ]
    x, m = by_hand(clients, [sampler(jax.random.fold_in(key, t), data.size, t).id.tolist() for t in range(ROUNDS)])
    np.testing.assert_allclose(state.server.params, x, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(state.server.momentum, m, rtol=1e-12, atol=1e-12)
    # Down: the model; the model, momentum and mean gradient. Up: a gradient; a change.
    assert history["downlink_bits"].tolist() == [3 * 4 * FEATURES * 64] * ROUNDS
    assert history["uplink_bits"].tolist() == [3 * 2 * FEATURES * 64] * ROUNDS


@pytest.mark.deep
def test_a_run_of_it_resumes(tmp_path):
    algorithm, options = fl.in_turn(asking(), training()), {"key": jax.random.key(0), "evaluate_every": 1, "progress": False}
    parts = algorithm, softmax_data(), jnp.zeros(FEATURES), fl.sampling.uniform(3)
    whole = fl.run(*parts, rounds=2, **options)
    fl.run(*parts, rounds=1, out=tmp_path / "run", **options)
    again = fl.run(*parts, rounds=2, out=tmp_path / "run", resume=True, **options)
    assert again.history == whole.history and again.params.tolist() == whole.params.tolist()


def test_parts_that_do_not_go_together_are_refused():
    algorithm = asking()
    with pytest.raises(TypeError, match="in_turn: then must be a fl.Algorithm, got 3"):
        inspect.unwrap(fl.in_turn)(algorithm, 3)
    other = fl.algorithms.fedsgd(squared_loss, population=len(SIZES))
    with pytest.raises(ValueError, match="in_turn: both servers must have one state, first has"):
        fl.in_turn(algorithm, other).init(jnp.zeros(FEATURES), jax.random.key(0))
    private = fl.algorithms.fedsgd(squared_loss, population=len(SIZES), aggregator=fl.aggregators.dp_mean(1.0, 1.0, 3))
    with pytest.raises(ValueError, match="in_turn: first is private"):
        fl.in_turn(private, algorithm)
