"""What the contract carries for methods that keep state: SCAFFOLD is the paper's loop on every engine and on eight devices."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scaffold as written
from keeps import check_on_eight_devices
from problems import FEATURES, SIZES, softmax_data
from scaffold import scaffold

import fedjax_lite as fl

RATE, SERVER_RATE, BATCH, EPOCHS, ROUNDS = 0.05, 0.7, 4, 2, 6


def squared_loss(params, batch, key):
    return 0.5 * (batch["x"] @ params - batch["y"]) ** 2


def gradient(x, X, y):
    return X.T @ (X @ x - y) / len(y)


def by_hand(clients, cohorts, option):
    """x, c and all c_k after the rounds."""
    x, c, own = np.zeros(FEATURES), np.zeros(FEATURES), np.zeros((len(clients), FEATURES))
    for cohort in cohorts:
        changes, controls = [], []
        for k in cohort:
            X, labels = clients[k]
            y, steps = x, 0
            for _ in range(EPOCHS):
                for start in range(0, len(labels), BATCH):
                    y = y - RATE * (gradient(y, X[start : start + BATCH], labels[start : start + BATCH]) - own[k] + c)
                    steps += 1
            after = gradient(x, X, labels) if option == 1 else own[k] - c + (x - y) / (steps * RATE)
            changes.append(y - x)
            controls.append(after - own[k])
            own[k] = after
        x = x + SERVER_RATE * np.mean(changes, axis=0)
        c = c + len(cohort) / len(clients) * np.mean(controls, axis=0)
    return x, c, own


def built(option, engine=None):
    batches = fl.Batches(BATCH, epochs=EPOCHS, shuffle=False, before=1 if option == 1 else 0)
    return scaffold(squared_loss, RATE, batches=batches, population=len(SIZES), option=option, server_rate=SERVER_RATE, engine=engine)


@pytest.fixture
def data(x64):
    return softmax_data()


ENGINES = {"packed": fl.packed(2), "padded": fl.padded(), "sequential": fl.sequential()}
ORDINARY = (1, "packed"), (2, "padded")


@pytest.mark.parametrize(
    ("option", "engine"),
    [
        pytest.param(option, engine, id=f"{option}-{name}", marks=() if (option, name) in ORDINARY else pytest.mark.deep)
        for option in (1, 2)
        for name, engine in ENGINES.items()
    ],
)
def test_scaffold_is_the_papers_loop(option, engine, data):
    sampler, key = fl.sampling.uniform(3), jax.random.key(3)
    run = partial(fl.simulate, built(option, engine), sampler=sampler, rounds=ROUNDS, key=key)
    state, history = jax.jit(run)(data, jnp.zeros(FEATURES))
    cohorts = [sampler(jax.random.fold_in(key, t), data.size, t).id.tolist() for t in range(ROUNDS)]
    ends = np.cumsum([0, *SIZES])
    clients = [
        (np.asarray(data.examples["x"][a:b]), np.asarray(data.examples["y"][a:b], float)) for a, b in zip(ends, ends[1:], strict=False)
    ]
    x, c, own = by_hand(clients, cohorts, option)
    for found, expected in ((state.server.params, x), (state.server.control, c), (state.own.control, own)):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    assert history["downlink_bits"].tolist() == [3 * 2 * FEATURES * 64] * ROUNDS  # the model and its control
    assert history["uplink_bits"].tolist() == history["downlink_bits"].tolist()


@pytest.mark.parametrize("option", [1, pytest.param(2, marks=pytest.mark.deep)])
def test_on_eight_devices(option, data):
    ids, weight = jnp.array([2, 0, 6, 4, 1]), jnp.array([1.0, 1, 0, 1, 1])
    check_on_eight_devices(built(option, fl.packed(1)), np.zeros(FEATURES), fl.sampling.cohort(jax.random.key(2), data.size, ids, weight))


def test_it_is_short():
    assert len(Path(written.__file__).read_text().splitlines()) <= 80


def test_a_proximal_term_holds_no_second_copy_of_the_model(data):
    """What the server sent is there once, and not in every lane: FedProx is FedAvg with mu (y - x) added to the gradient."""

    def proximal(gradient, state, params=None, *, shared, **rest):
        return gradient + 0.3 * (params - shared.params), state

    def averaging(*before):
        optimizer = optax.chain(*before, optax.sgd(RATE))
        work, server = fl.sgd_work(squared_loss, optimizer), fl.optimizer_server(optax.sgd(1.0))
        return fl.federate(work, fl.aggregators.mean(), server, batches=fl.Batches(BATCH, shuffle=False), population=len(SIZES))

    def held(algorithm):
        state = algorithm.init(jnp.zeros(FEATURES), jax.random.key(0))
        cohort = fl.sampling.everyone()(jax.random.key(0), data.size, 0)
        return sum(x.nbytes for x in jax.tree.leaves(algorithm.layout.stacks(state, data, cohort)["lanes"]))

    fedprox = averaging(optax.GradientTransformationExtraArgs(lambda params: (), proximal))
    assert held(fedprox) == held(averaging())
    state, _ = fl.simulate(fedprox, data, jnp.zeros(FEATURES), fl.sampling.everyone(), rounds=1, key=jax.random.key(0))
    ends, changes = np.cumsum([0, *SIZES]), []
    for a, b in zip(ends[:-1], ends[1:], strict=True):
        y, X, labels = np.zeros(FEATURES), np.asarray(data.examples["x"][a:b]), np.asarray(data.examples["y"][a:b], float)
        for start in range(0, b - a, BATCH):
            y = y - RATE * (gradient(y, X[start : start + BATCH], labels[start : start + BATCH]) + 0.3 * y)
        changes.append(y)
    np.testing.assert_allclose(state.server.params, np.mean(changes, axis=0), rtol=1e-12, atol=1e-14)
