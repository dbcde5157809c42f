"""FedGKT against a NumPy loop of both sides; what is sent, who is told, what is refused."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
from problems import CLASSES, FEATURES, SIZES, softmax_data

import fedjax_lite as fl
from fedjax_lite.algorithms import split_loss, with_rows
from fedjax_lite.algorithms.fedgkt import Split
from fedjax_lite.base import aggregate_key
from fedjax_lite.shuffle import permute

WIDTH, BATCH, EPOCHS, RATE = 2, 4, 2, 0.5
SERVER_EPOCHS, SERVER_BATCH, SERVER_RATE, MOMENTUM = 2, 6, 0.3, 0.9
TEMPERATURE, KL = 2.0, 0.7
POPULATION, LARGEST = len(SIZES), max(SIZES)
rng = np.random.default_rng(3)
CLIENT = {"a": rng.normal(size=(FEATURES, WIDTH)), "b": rng.normal(size=(WIDTH, CLASSES))}
SERVER = {"c": rng.normal(size=(WIDTH, CLASSES)), "d": rng.normal(size=CLASSES)}
KEY, WORD = 5, 64  # bits of a number, in double precision

pytestmark = pytest.mark.usefixtures("x64")


def extract(params, batch, key):
    del key
    return jnp.tanh(batch["x"] @ params["a"])


def classify(params, features):
    return features @ params["b"]


def serve(params, features):
    return jnp.tanh(features) @ params["c"] + params["d"][None]


def algorithm(**options):
    options = {"extract": extract, "classify": classify, "server_apply": serve, "server_params": arrays(SERVER)} | options
    extract_, classify_, serve_, server = (options.pop(name) for name in ("extract", "classify", "server_apply", "server_params"))
    optimizer = options.pop("optimizer", optax.sgd(RATE))
    numbers = {
        "example": data_of().example, "largest": LARGEST, "population": POPULATION, "classes": CLASSES, "batch_size": BATCH,
        "epochs": EPOCHS, "server_epochs": SERVER_EPOCHS, "server_batch_size": SERVER_BATCH, "temperature": TEMPERATURE, "kl": KL,
        "engine": fl.sequential(),
    }  # fmt: skip
    return fl.algorithms.fedgkt(
        extract_, classify_, serve_, server, optimizer, optax.sgd(SERVER_RATE, momentum=MOMENTUM), **numbers | options
    )


def arrays(params):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(float)), params)


def data_of():
    return with_rows(softmax_data())


def row(stack, i):
    return jax.tree.map(lambda x: x[i], stack)


@functools.cache
def default():
    """One object, so that tests share its compiled round."""
    return algorithm()


def trained(built, *cohorts, data=None, key=KEY, steps=None):
    """Rounds with these cohorts, each filled up with empty slots, so that most tests compile one program."""
    data = data or data_of()
    state, told = jax.jit(built.init)(arrays(CLIENT), jax.random.key(key)), []
    step = jax.jit(built.round)
    for ids in cohorts:
        cohort = fl.sampling.cohort(fl.round_key(state), data.size, jnp.asarray((*ids, *[99] * (5 - len(ids)))))
        cohort = cohort if steps is None else cohort._replace(steps=jnp.asarray(steps, jnp.int32))
        state, metrics = step(state, data, cohort)
        told.append(metrics)
    return state, {name: np.array([metrics[name] for metrics in told]) for name in told[0]}


def close(found, expected, atol=1e-8):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=atol), found, expected)


# The oracle: plain loops, gradients by central differences.


def losses(logits, labels, target):
    """CE + kl T^2 KL(softmax(target / T) || softmax(logits / T)) of each example; no target, no second term."""
    cross_entropy = -scipy.special.log_softmax(logits, axis=-1)[np.arange(len(labels)), labels]
    if target is None:
        return cross_entropy
    q, p = (scipy.special.softmax(z / TEMPERATURE, axis=-1) for z in (target, logits))
    return cross_entropy + KL * TEMPERATURE**2 * np.sum(q * np.log(q / p), axis=-1)


def slope(fn, params, step=1e-5):
    """The gradient of a function of a dict of arrays."""
    found = {}
    for name, x in params.items():
        found[name] = np.zeros_like(x)
        for index in np.ndindex(x.shape):
            moved = [
                params | {name: x + sign * step * np.eye(x.size)[np.ravel_multi_index(index, x.shape)].reshape(x.shape)} for sign in (1, -1)
            ]
            found[name][index] = (fn(moved[0]) - fn(moved[1])) / (2 * step)
    return found


def client_logits(params, x):
    features = np.tanh(x @ params["a"])
    return features, features @ params["b"]


def server_logits(params, features):
    return np.tanh(features) @ params["c"] + params["d"]


def replayed(data, cohorts):
    """The clients' models, the server's, what it last said of whom, and the mean loss of each round."""
    models, server, velocity, table, told = {}, SERVER, {name: 0 for name in SERVER}, {}, []
    batches = fl.Batches(BATCH, epochs=EPOCHS)
    take = jax.jit(batches.take)
    for round, ids in enumerate(map(sorted, cohorts)):
        round_key, heard, seen = jax.random.fold_in(jax.random.key(KEY), round), [], []
        for id in ids:
            mine, model = jax.tree.map(np.asarray, data.client(id)), models.get(id, CLIENT)
            client = fl.Client(jnp.int32(id), jax.random.fold_in(round_key, id), data.size[id], 0, 1.0, data.start[id])
            for j in range(int(batches.steps_of(data.size[id]))):
                batch = take(data, client, j, round)
                rows = np.asarray(batch.examples["row"])[np.asarray(batch.mask)]
                target = table[id][rows] if id in table else None

                def each(params):
                    return losses(client_logits(params, mine["x"][rows])[1], mine["y"][rows], target)  # noqa: B023

                seen.append(each(model))
                gradient = slope(lambda params: each(params).mean(), model)  # noqa: B023
                model = {name: model[name] - RATE * gradient[name] for name in model}
            models[id] = model
            heard.append((*client_logits(model, mine["x"]), mine["y"]))
        features, logits, labels = (np.concatenate(parts) for parts in zip(*heard, strict=True))
        key = jax.random.fold_in(aggregate_key(round_key), 1)
        for epoch in range(SERVER_EPOCHS):
            order = np.asarray(permute(jax.random.fold_in(key, epoch), len(labels), jnp.arange(len(labels), dtype=jnp.int32)))
            for first in range(0, len(labels), SERVER_BATCH):
                rows = order[first : first + SERVER_BATCH]
                gradient = slope(
                    lambda params: losses(server_logits(params, features[rows]), labels[rows], logits[rows]).mean(),  # noqa: B023
                    server,
                )
                velocity = {name: MOMENTUM * velocity[name] + gradient[name] for name in server}
                server = {name: server[name] - SERVER_RATE * velocity[name] for name in server}
        table |= {id: server_logits(server, said[0]) for id, said in zip(ids, heard, strict=True)}
        told.append(np.concatenate(seen).mean())
    return models, server, table, told


@pytest.mark.parametrize("cohorts", [((4, 2, 6), (2, 1, 4)), ((0,), (0,))], ids=["several", "one client"])
def test_rounds_equal_the_numpy_loop(cohorts):
    data = data_of()
    state, history = trained(default(), *cohorts)
    models, server, table, told = replayed(data, cohorts)
    found = default().params(state)
    close(found.server, server)
    np.testing.assert_allclose(history["loss"], told, atol=1e-8)  # the epoch in which nothing is learned does not count
    for id in range(POPULATION):
        close(row(found.clients, id), models.get(id, CLIENT))
        said = np.asarray(state.server.spoken[id])
        assert said.sum() == (SIZES[id] if id in table else 0) and said[: said.sum()].all()
        if id in table:
            np.testing.assert_allclose(state.server.table[id][said], table[id], atol=1e-8)


def spoilt(engine):
    """The engine, whose empty slots hold NaN, all bits and the largest number."""

    def poison(messages, cohort):
        def leaf(x):
            worst = jnp.nan if jnp.issubdtype(x.dtype, jnp.floating) else True if x.dtype == bool else jnp.iinfo(x.dtype).max
            return jnp.where((cohort.weight > 0).reshape(-1, *[1] * (x.ndim - 1)), x, jnp.asarray(worst, x.dtype))

        return jax.tree.map(leaf, messages)

    def run(build, *rest):
        def wrapped(*common):
            local = build(*common)
            return local._replace(collect=lambda messages, cohort: local.collect(poison(messages, cohort), cohort))

        return engine.run(wrapped, *rest)

    return engine._replace(run=run)


ENGINES = {"packed": fl.packed(3), "padded, spoilt": spoilt(fl.padded())}


@functools.cache
def plain():
    return trained(default(), (4, 2, 6), (2, 1, 4))


@pytest.mark.parametrize("name", ENGINES)
def test_engines_and_whatever_empty_slots_hold_give_the_same(name):
    state, history = trained(algorithm(engine=ENGINES[name]), (4, 99, 2, 6, -1), (2, 1, 99, -1, 4))
    expected, measured = plain()
    close((state.own.model, state.server), (expected.own.model, expected.server), atol=1e-9)
    assert history.keys() == measured.keys()
    close(history, measured, atol=1e-9)


def test_a_message_that_is_not_finite_is_left_out():
    data = data_of()
    spoilt_data = replace(data, examples=data.examples | {"x": data.examples["x"].at[data.start[2] + 3].set(jnp.nan)})
    state, _ = trained(default(), (4, 2, 6), data=spoilt_data)
    expected, _ = trained(default(), (4, 6))
    close(state.server, expected.server, atol=1e-9)


def test_a_round_without_clients_changes_nothing():
    state, _ = trained(default(), (99, -1))
    first = default().init(arrays(CLIENT), jax.random.key(KEY))
    jax.tree.map(np.testing.assert_array_equal, (state.server, state.own), (first.server, first.own))


def test_a_client_that_stops_early_sends_a_part_and_is_told_of_that():
    """Client 0 learns for four steps and speaks for two, client 2 for six and three, client 1 for two and one."""
    state, history = trained(default(), (0, 2, 4, 5, 1), steps=[5, 7, 1, 0, 9])
    spoken = np.asarray(state.server.spoken)
    assert spoken.sum(1).tolist() == [4, 1, 4, 0, 0, 0, 0]
    assert (np.asarray(state.server.table)[~spoken] == 0).all() and (np.asarray(state.server.table)[spoken] != 0).all()
    assert history["uplink_bits"][0] == 9 * WORD * (WIDTH + CLASSES + 1) and np.isfinite(history["loss"]).all()


def test_bits_are_those_of_what_travels():
    _, history = plain()
    for found, ids in zip(history["uplink_bits"], ((4, 2, 6), (2, 1, 4)), strict=True):
        assert found == sum(SIZES[id] for id in ids) * WORD * (WIDTH + CLASSES + 1)  # features, logits, a label
    assert history["downlink_bits"].tolist() == [3 * LARGEST * CLASSES * WORD] * 2


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


@jax.enable_x64(False)
def test_it_learns_digits(tmp_path):
    """A run with its evaluation: from a tenth right to most."""
    data = fl.data.digits(fl.partition.iid(clients=5), seed=0)
    train = with_rows(data.train)
    keys = jax.random.split(jax.random.key(0), 4)
    client = {"a": 0.1 * jax.random.normal(keys[0], (64, 8)), "b": 0.1 * jax.random.normal(keys[1], (8, 10))}
    server = {"c": 0.3 * jax.random.normal(keys[2], (8, 32)), "d": 0.1 * jax.random.normal(keys[3], (32, 10))}

    def wide(params, features):
        return jax.nn.relu(features @ params["c"]) @ params["d"]

    built = fl.algorithms.fedgkt(
        extract, classify, wide, server, optax.sgd(0.3), optax.adam(5e-3), example=train.example, largest=train.largest,
        population=5, classes=10, batch_size=20, epochs=2, server_epochs=2, engine=fl.sequential(),
    )  # fmt: skip
    options = {"loss_fn": split_loss(extract, wide), "test": data.test, "evaluate_every": 2, "progress": False, "key": jax.random.key(1)}
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
    found = fl.evaluate(split_loss(extract, serve), Split(clients, arrays(SERVER)), data)
    assert fl.summarize(found)["test_loss"] == pytest.approx(np.mean([losses(z, y, None) for z in logits]), rel=1e-5)
    assert fl.summarize(found)["test_accuracy"] == pytest.approx(np.mean([z.argmax(-1) == y for z in logits]))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: algorithm(epochs=0), "fedgkt: epochs must be an int of at least 1, got 0"),
        (lambda: algorithm(classes=1), "fedgkt: classes must be an int of at least 2, got 1"),
        (lambda: algorithm(temperature=0.0), "fedgkt: temperature must be positive"),
        (lambda: algorithm(kl=-1.0), "fedgkt: kl must be finite and not negative"),
        (lambda: trained(default(), (0,), data=softmax_data()), r'have no leaf "row": train on fl.algorithms.with_rows\(data\)'),
        (lambda: trained(algorithm(largest=3), (0,)), "largest=3, but the data's largest client has 12 examples"),
        (lambda: trained(algorithm(classes=5), (0,)), r"classify must give logits \[batch, classes=5\], .* gives \(12, 3\)"),
        (
            lambda: trained(algorithm(server_apply=lambda params, features: features), (0,)),
            r"server_apply must give logits \[batch, classes=3\], .* gives \(12, 2\)",
        ),
        (lambda: with_rows(fl.FederatedData.from_clients([np.ones(2)])), 'with_rows: examples must be a dict, to take a leaf "row"'),
    ],
)
def test_bad_input_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
