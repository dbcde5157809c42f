"""SCAFFOLD is the paper's loop on ragged minibatches, whoever is missing or sends what cannot be used, and c is the mean of all c_k."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quadratics
from keeps import check_on_eight_devices
from problems import FEATURES, SIZES, softmax_data
from quadratics import A5, trajectory
from rounds import filled, trained

import fedjax_lite as fl

RATE, SERVER_RATE, BATCH, EPOCHS = 0.05, 0.7, 4, 2
LOST = 5  # a client with examples that are no numbers
COHORTS = (0, 3, 6), (2, 1), (4, LOST, 0), (), (LOST,), (6, 2, 4)


def squared_loss(params, batch, key):
    return 0.5 * (batch["x"] @ params["w"] - batch["y"]) ** 2


NOWHERE = {"w": np.zeros(FEATURES)}


def gradient(x, X, y):
    return X.T @ (X @ x - y) / len(y)


def by_hand(clients, option):
    """x, c and all c_k after the rounds, at a rate that falls by a tenth from round to round."""
    x, c, own = np.zeros(FEATURES), np.zeros(FEATURES), np.zeros((len(clients), FEATURES))
    for t, cohort in enumerate(COHORTS):
        changes, controls = [], []
        for k in sorted(set(cohort) - {LOST}):
            X, labels = clients[k]
            y, taken = x, 0
            for _ in range(EPOCHS):
                for start in range(0, len(labels), BATCH):
                    rows = slice(start, start + BATCH)
                    y = y - RATE * 0.9**t * (gradient(y, X[rows], labels[rows]) - own[k] + c)
                    taken += RATE * 0.9**t
            after = gradient(x, X, labels) if option == 1 else own[k] - c + (x - y) / taken
            changes.append(y - x)
            controls.append(after - own[k])
            own[k] = after
        if changes:
            x = x + SERVER_RATE * np.mean(changes, axis=0)
            c = c + len(changes) / len(clients) * np.mean(controls, axis=0)
    return x, c, own


def built(option, engine=None):
    return fl.algorithms.scaffold(
        squared_loss, learning_rate=fl.on_round(lambda t: RATE * 0.9**t), batches=fl.Batches(BATCH, epochs=EPOCHS, shuffle=False),
        population=len(SIZES), option=option, server_learning_rate=SERVER_RATE, engine=engine,
    )  # fmt: skip


@pytest.fixture
def data(x64):
    data = softmax_data()
    first = int(data.start[LOST])
    data.examples["x"] = data.examples["x"].at[first : first + SIZES[LOST]].set(jnp.nan)
    return data


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
    state, history = trained(built(option, engine), data, NOWHERE, [filled(cohort, 3) for cohort in COHORTS], 3)
    ends = np.cumsum([0, *SIZES])
    clients = [
        (np.asarray(data.examples["x"][a:b]), np.asarray(data.examples["y"][a:b], float)) for a, b in zip(ends, ends[1:], strict=False)
    ]
    x, c, own = by_hand(clients, option)
    for found, expected in ((state.server.model.params, x), (state.server.control, c), (state.own.control, own)):
        np.testing.assert_allclose(found["w"], expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(state.server.control["w"], state.own.control["w"].mean(axis=0), atol=1e-15)
    both = [len(cohort) * 2 * FEATURES * 64 for cohort in COHORTS]  # the model and its control, up and down
    assert history["uplink_bits"].tolist() == both and history["downlink_bits"].tolist() == both
    assert history["non_finite"].tolist() == [0, 0, 1, 0, 1, 0]


@pytest.mark.deep
@pytest.mark.parametrize("option", [1, pytest.param(2, marks=pytest.mark.deep)])
def test_on_eight_devices(option, data):
    ids, weight = jnp.array([2, 0, 6, 4, 1]), jnp.array([1.0, 1, 0, 1, 1])
    cohort = fl.sampling.cohort(jax.random.key(2), data.size, ids, weight)
    check_on_eight_devices(built(option, fl.packed(1)), NOWHERE, cohort)


@pytest.mark.deep
@pytest.mark.parametrize("option", [1, 2])
def test_its_optimum_is_the_populations_and_its_control_variates_vanish(option):
    """With the four cohorts again and again: c -> 0 and c_k -> grad f_k(x*)."""
    algorithm = fl.algorithms.scaffold(
        quadratics.loss_fn, learning_rate=0.1, batches=quadratics.batches(A5), population=A5.population, option=option
    )
    states, params, _ = trajectory(algorithm, A5, 400)
    optimum = (A5.a * A5.c).sum(axis=0) / A5.a.sum(axis=0)
    np.testing.assert_allclose(params[-1], optimum, atol=1e-6)
    np.testing.assert_allclose(states.server.control[-1], 0, atol=1e-6)
    np.testing.assert_allclose(states.own.control[-1], A5.a * (optimum - A5.c), atol=1e-5)


@pytest.mark.deep
def test_a_rule_for_each_part(x64):
    """The median of the changes, the mean of the control variates: c stays the mean of all c_k."""
    rule = fl.aggregators.by_part(params=fl.aggregators.median(), control=fl.aggregators.mean())
    algorithm = fl.algorithms.scaffold(
        quadratics.loss_fn, learning_rate=0.1, batches=quadratics.batches(A5), population=A5.population, aggregator=rule
    )
    states, params, _ = trajectory(algorithm, A5, 2)
    np.testing.assert_allclose(params[0], (0.877075, 0.1131095313), atol=1e-9)  # of two clients the median is the mean
    np.testing.assert_allclose(states.server.control, states.own.control.mean(axis=1), atol=1e-15)
    controls, x, c = states.own.control[0], np.asarray(params[0]), np.asarray(states.server.control[0])
    changes = []
    for k in (1, 2, 4):
        y = x
        for _ in range(5):
            y = y - 0.1 * (A5.a[k] * (y - A5.c[k]) - controls[k] + c)
        changes.append(y - x)
    np.testing.assert_allclose(params[1], x + np.median(changes, axis=0), atol=1e-12)


@pytest.mark.deep
def test_rows_in_host_memory_and_a_resumed_run_are_the_same_bits(tmp_path):
    """What 2 of 7 clients a round keep, on the device, in host memory, and after a run that was broken off."""
    data = softmax_data()

    def run(rounds=6, **more):
        options = {"key": jax.random.key(1), "evaluate_every": 3, "progress": False} | more
        return fl.run(built(2, fl.sequential()), data, NOWHERE, fl.sampling.uniform(2), rounds=rounds, **options)

    whole = run(own_on_host=False)
    run(rounds=3, own_on_host=True, out=tmp_path / "run")
    resumed = run(own_on_host=True, out=tmp_path / "run", resume=True)
    assert resumed.history == whole.history
    np.testing.assert_array_equal(resumed.params["w"], whole.params["w"])
    ids, kept = resumed.state.own
    np.testing.assert_array_equal(kept.control["w"], np.asarray(whole.state.own.control["w"])[ids])
    assert 2 < len(ids) < len(SIZES)
    np.testing.assert_allclose(whole.state.server.control["w"], np.asarray(whole.state.own.control["w"]).mean(axis=0), atol=1e-6)
