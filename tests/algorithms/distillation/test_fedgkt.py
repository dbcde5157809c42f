"""FedGKT against a NumPy loop of both sides; what is sent, who is told, what is refused."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gkt import (
    CLIENT,
    KEY,
    LARGEST,
    POPULATION,
    RATE,
    SERVER,
    WIDTH,
    WORD,
    algorithm,
    arrays,
    classify,
    close,
    data_of,
    default,
    extract,
    losses,
    on_features,
    replayed,
    row,
    serve,
    server_logits,
    trained,
)
from problems import CLASSES, SIZES, softmax_data
from rounds import compiled, spoilt

import fedjax_lite as fl
from fedjax_lite.algorithms import split_loss
from fedjax_lite.algorithms.distillation.fedgkt import Split

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize("cohorts", [((4, 2, 6), (2, 1, 4)), ((0,), (0,))], ids=["several", "one client"])
def test_rounds_equal_the_numpy_loop(cohorts):
    data = data_of()
    state, history = trained(default(), *cohorts)
    models, server, table, told = replayed(data, cohorts)
    found, last = jax.device_get((default().params(state), state.server))
    close(found.server, server)
    np.testing.assert_allclose(history["loss"], told, atol=1e-8)  # the epoch in which nothing is learned does not count
    for id in range(POPULATION):
        close(row(found.clients, id), models.get(id, CLIENT))
        said = np.isfinite(last.table[id]).all(-1)
        assert said.sum() == (SIZES[id] if id in table else 0) and said[: said.sum()].all()
        if id in table:
            np.testing.assert_allclose(last.table[id][said], table[id], atol=1e-8)


@functools.cache
def plain():
    return trained(default(), (4, 2, 6), (2, 1, 4))


@pytest.mark.deep
def test_another_engine_and_whatever_empty_slots_hold_give_the_same():
    state, history = trained(algorithm(engine=spoilt(fl.padded())), (4, 99, 2, 6, -1), (2, 1, 99, -1, 4))
    expected, measured = plain()
    close((state.own.model, state.server), (expected.own.model, expected.server), atol=1e-9)
    assert history.keys() == measured.keys()
    close(history, measured, atol=1e-9)


def test_a_message_that_is_not_finite_is_left_out():
    data = data_of()
    x = np.array(data.examples["x"])
    x[int(data.start[2]) + 3] = np.nan
    spoilt_data = replace(data, examples=data.examples | {"x": jnp.asarray(x)})
    state, _ = trained(default(), (4, 2, 6), data=spoilt_data)
    expected, _ = trained(default(), (4, 6))
    close(state.server, expected.server, atol=1e-9)


def test_a_round_without_clients_changes_nothing():
    state, _ = trained(default(), (99, -1))
    first = compiled(default())[0](arrays(CLIENT), jax.random.key(KEY))
    jax.tree.map(np.testing.assert_array_equal, (state.server, state.own), (first.server, first.own))


def test_a_client_that_is_cut_short_learns_less_and_sends_all():
    """Clients 0, 2 and 1 take the steps of their epochs, client 4 one step, client 5 none at all."""
    state, history = trained(default(), (0, 2, 4, 5, 1), steps=[5, 7, 1, 0, 9])
    spoken = np.isfinite(np.asarray(state.server.table))
    assert spoken.all(-1).sum(1).tolist() == [SIZES[0], SIZES[1], SIZES[2], 0, SIZES[4], 0, 0] and (spoken.all(-1) == spoken.any(-1)).all()
    sent = SIZES[0] + SIZES[1] + SIZES[2] + SIZES[4]
    assert history["uplink_bits"][0] == sent * WORD * (WIDTH + CLASSES + 1) and np.isfinite(history["loss"]).all()


def test_bits_are_those_of_what_travels():
    _, history = plain()
    for found, ids in zip(history["uplink_bits"], ((4, 2, 6), (2, 1, 4)), strict=True):
        assert found == sum(SIZES[id] for id in ids) * WORD * (WIDTH + CLASSES + 1)  # features, logits, a label
    assert history["downlink_bits"].tolist() == [3 * LARGEST * CLASSES * WORD] * 2


@pytest.mark.deep
def test_seeds_and_servers_are_vmapped():
    data, servers = data_of(), jax.tree.map(lambda x: jnp.stack([x, 2 * x]), arrays(SERVER))

    def run(key, server, rate, data):
        built = algorithm(server_params=server, optimizer=optax.sgd(rate))
        state = built.init(arrays(CLIENT), jax.random.key(key))
        cohort = fl.sampling.cohort(fl.round_key(state), data.size, jnp.array([4, 2, 6, 99, 99]))
        return built.params(built.round(state, data, cohort)[0])

    found = jax.jit(jax.vmap(run, (0, 0, 0, None)))(jnp.array([KEY, 8]), servers, jnp.array([RATE, 0.1]), data)
    close(row(found, 0), default().params(trained(default(), (4, 2, 6))[0]), atol=1e-9)
    assert all(np.isfinite(x).all() and (x[1] != x[0]).any() for x in jax.tree.leaves(found))


@pytest.mark.slow
@jax.enable_x64(False)
def test_it_learns_digits(tmp_path):
    """A run with its evaluation: from a tenth right to most."""
    data = fl.data.digits(fl.partition.iid(clients=5), seed=0)
    train = data.train
    keys = jax.random.split(jax.random.key(0), 4)
    client = {"a": 0.1 * jax.random.normal(keys[0], (64, 8)), "b": 0.1 * jax.random.normal(keys[1], (8, 10))}
    server = {"c": 0.3 * jax.random.normal(keys[2], (8, 32)), "d": 0.1 * jax.random.normal(keys[3], (32, 10))}

    def wide(params, features):
        return jax.nn.relu(features @ params["c"]) @ params["d"]

    model = fl.models.Model(None, None, extract, classify)
    built = fl.algorithms.fedgkt(
        model, (on_features(wide), server), optax.sgd(0.3), optax.adam(5e-3), example=train.example, largest=train.largest,
        population=5, classes=10, batches=fl.Batches(20, 2), server_epochs=2, engine=fl.sequential(),
    )  # fmt: skip
    options = {"loss_fn": built.loss_fn, "test": data.test, "evaluate_every": 2, "progress": False, "key": jax.random.key(1)}
    result = fl.run(built, train, client, fl.sampling.everyone(), rounds=8, out=tmp_path / "run", **options)
    scores = [record["test_accuracy"] for record in result.history if "test_accuracy" in record]
    assert scores[0] < scores[-1] and scores[-1] > 0.85
    with pytest.raises(ValueError, match="own_on_host=True needs an algorithm whose layout tells how each client starts"):
        fl.run(built, train, client, fl.sampling.everyone(), rounds=1, own_on_host=True, **options)


def test_the_split_loss_is_the_mean_over_the_clients_extractors():
    data = softmax_data()
    clients = jax.tree.map(lambda x: jnp.stack([x, -x, 3 * x]), arrays(CLIENT))
    x, y = np.asarray(data.examples["x"]), np.asarray(data.examples["y"])
    logits = [server_logits(SERVER, np.tanh(x @ (factor * CLIENT["a"]))) for factor in (1, -1, 3)]
    found = fl.evaluate(
        split_loss(fl.models.Model(None, None, extract, classify), on_features(serve)), Split(clients, arrays(SERVER)), data
    )
    assert fl.summarize(found)["test_loss"] == pytest.approx(np.mean([losses(z, y, None) for z in logits]), rel=1e-5)
    assert fl.summarize(found)["test_accuracy"] == pytest.approx(np.mean([z.argmax(-1) == y for z in logits]))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: algorithm(server_epochs=0), "fedgkt: server_epochs must be an int of at least 1, got 0"),
        (lambda: algorithm(classify=None), "fedgkt: the model has no features apart from its head"),
        (lambda: algorithm(classes=1), "fedgkt: classes must be an int of at least 2, got 1"),
        (lambda: algorithm(temperature=0.0), "fedgkt: temperature must be positive"),
        (lambda: algorithm(kl=-1.0), "fedgkt: kl must be finite and not negative"),
        (lambda: trained(algorithm(largest=3), (0,)), "largest=3, but the data's largest client has 12 examples"),
        (lambda: trained(algorithm(classes=5), (0,)), r"the model's head must give logits \[batch, classes=5\], .* gives \(12, 3\)"),
        (
            lambda: trained(algorithm(server_apply=lambda params, features: features), (0,)),
            r"the server's model must give logits \[batch, classes=3\], .* gives \(12, 2\)",
        ),
    ],
)
def test_bad_input_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
