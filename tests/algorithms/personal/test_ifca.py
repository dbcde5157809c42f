"""IFCA against a NumPy loop over ragged clients, and on separated linear regressions against pooled least squares."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import ragged
from problems import CLASSES, FEATURES, SIZES, softmax_data, softmax_loss, softmax_params
from ragged import LOST, RATE
from rounds import NOBODY, compiled

import fedjax_lite as fl

pytestmark = pytest.mark.usefixtures("x64")
CLUSTERS, SERVER_RATE = 3, 0.5


def built(loss_fn=softmax_loss, optimizer=optax.sgd(RATE), clusters=CLUSTERS, **more):
    given = {"batches": fl.Batches(None), "population": len(SIZES)} | more
    return fl.algorithms.ifca(loss_fn, optimizer, clusters=clusters, **given)


@functools.cache
def in_rounds():
    """The algorithm, and its states and metrics after ragged rounds."""
    return ragged.run(fl.algorithms.ifca, optax.sgd(RATE), clusters=CLUSTERS, init_scale=0.5, server_learning_rate=SERVER_RATE)


def by_hand(models):
    """The models, and the client's choices, after each round."""
    models, choices = np.array(models), np.zeros(len(SIZES), int)
    for clients in ragged.arrived():
        changes = {}
        for k, taken in clients.items():
            choices[k] = np.argmin([ragged.losses(x, k).mean() for x in models])
            y = models[choices[k]]
            for batch in taken:
                y = y - RATE * ragged.gradient(y, batch)
            changes[k] = y - models[choices[k]]
        for c in range(CLUSTERS):
            members = [k for k in clients if choices[k] == c]
            if members:
                models[c] += SERVER_RATE * np.average([changes[k] for k in members], axis=0, weights=[SIZES[k] for k in members])
        yield models.copy(), choices.copy(), [choices[k] for k in clients]


def test_ragged_rounds_equal_the_numpy_loop():
    """Some are cut short, one drops out, and one's message is never finite; it keeps the choice that it never made."""
    algorithm, states, told = in_rounds()
    first = algorithm.params(algorithm.init(softmax_params(), jax.random.key(0))).models
    assert np.ptp(first, axis=0).min() > 0  # the models differ in every number
    for state, metrics, (models, choices, made) in zip(states, told, by_hand(first), strict=True):
        np.testing.assert_allclose(algorithm.params(state).models, models, atol=1e-12)
        np.testing.assert_array_equal(state.own.cluster, choices)
        np.testing.assert_allclose(algorithm.models(state), models[choices], atol=1e-12)
        np.testing.assert_array_equal(algorithm.params(state).clients, np.bincount(made, minlength=CLUSTERS))
        assert metrics["clusters"] == len(set(made))
    assert [metrics["non_finite"].item() for metrics in told] == [1, 0, 1] and state.own.cluster[LOST] == 0
    assert any(len(set(made)) < CLUSTERS for *_, made in by_hand(first)) and len(set(choices)) > 1  # a cluster nobody chose
    number = FEATURES * CLASSES
    assert told[0]["downlink_bits"] == 3 * 64 * CLUSTERS * number and told[0]["uplink_bits"] == 3 * (64 * number + 32)
    np.testing.assert_array_equal(algorithm.models(state, jnp.array([4, 2])), algorithm.models(state)[jnp.array([4, 2])])


@pytest.mark.deep
def test_of_equal_models_the_first_is_trained_and_alone_evaluated():
    """By one client, in the compiled round of the ragged ones; nobody chose the others."""
    algorithm = in_rounds()[0]
    init, step = compiled(algorithm)
    state = init(softmax_params(), jax.random.key(0))
    same = jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), state.server.models)
    state = state._replace(server=state.server._replace(models=same))
    for _ in range(2):
        state, _ = step(state, ragged.data(), np.array([2, *[NOBODY] * 4], np.int32), np.full(5, 99, np.int32))
    models, clients = algorithm.params(state)
    np.testing.assert_array_equal(models[1:], same.params[1:])
    assert clients.tolist() == [1, 0, 0] and (models[0] != same.params[0]).all() and state.own.cluster.tolist() == [0] * len(SIZES)
    batch = jax.tree.map(lambda x: x[:4], softmax_data().examples)
    found, plain = algorithm.loss_fn(algorithm.params(state), batch, None), softmax_loss(models[0], batch, None)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12), found, plain)


def regressions(groups, clients, rng):
    """Clients of two groups with other true slopes, each the slopes' noisy values at points of its own; all slopes by group."""
    slopes = 5 * rng.normal(size=(groups, 3))
    for k in range(clients):
        x = rng.normal(size=(6 + k, 3))
        yield {"x": x, "y": x @ slopes[k % groups] + 0.3 * rng.normal(size=6 + k)}


def squares(params, batch, key):
    return 0.5 * (batch["x"] @ params - batch["y"]) ** 2


@pytest.mark.deep
def test_separated_linear_regressions_end_at_each_groups_pooled_least_squares():
    clients = list(regressions(2, 6, np.random.default_rng(0)))
    data = fl.FederatedData.from_clients(clients)
    algorithm = built(squares, optax.sgd(0.5), 2, population=6, init_scale=1.0)
    run = jax.jit(lambda key: fl.simulate(algorithm, data, jnp.zeros(3), fl.sampling.everyone(), rounds=300, key=key)[0])
    state = run(jax.random.key(1))
    for group in range(2):
        x, y = (np.concatenate([client[name] for client in clients[group::2]]) for name in "xy")
        solved = np.linalg.lstsq(x, y)[0]
        np.testing.assert_allclose(algorithm.models(state)[group::2], np.stack([solved] * 3), rtol=1e-9)


REFUSED = [
    (dict(clusters=0), "ifca: clusters must be a whole number of at least 1, got 0"),
    (dict(init_scale=-1.0), "ifca: init_scale must be finite and not negative, got -1"),
    (dict(server_learning_rate=0), "ifca: server_learning_rate must be positive"),
    (dict(aggregator=fl.aggregators.dp_mean(1.0, 1.0, 4)), "ifca: the cluster that a client is in .*for instance fedavg"),
    (dict(aggregator=fl.aggregators.secure_mean()), "ifca: secure sums hide single messages.*or another aggregator"),
]


@pytest.mark.parametrize(("more", "message"), REFUSED)
def test_what_is_refused(more, message):
    with pytest.raises(ValueError, match=message):
        built(**more)


def test_a_start_that_is_no_stack_is_refused():
    with pytest.raises(ValueError, match=r"ifca: with init_scale=None the parameters are a stack of 3 models.*\(6, 3\).*give init_scale"):
        built(init_scale=None).init(softmax_params(), jax.random.key(0))


def test_an_uplink_that_hides_what_the_choice_tells_is_refused():
    hidden = built(uplink=fl.uplink.local_gaussian(clip=1.0, noise_multiplier=1.0))
    with pytest.raises(ValueError, match="ifca: the model that a client chooses is found from its data.*for instance fedavg"):
        fl.simulate(hidden, softmax_data(), softmax_params(), fl.sampling.everyone(), rounds=1, key=jax.random.key(0))


@pytest.mark.deep
def test_rows_in_host_memory_and_a_resumed_run_are_the_same_bits(tmp_path):
    def run(rounds=4, **more):
        options = {"key": jax.random.key(1), "evaluate_every": 2, "progress": False, "loss_fn": algorithm.loss_fn} | more
        return fl.run(algorithm, softmax_data(), softmax_params(), fl.sampling.uniform(3), rounds=rounds, **options)

    algorithm = built(uplink=optax.trace(0.5))
    alone = fl.baselines.local_only(softmax_loss, optax.sgd(RATE), batches=fl.Batches(None), population=len(SIZES))
    whole = run(own_on_host=False, baselines={"alone": alone})
    assert whole.baselines["alone"]["train_own_loss"] > 0  # evaluated with the loss of one model
    run(rounds=2, own_on_host=True, out=tmp_path / "run")
    resumed = run(own_on_host=True, out=tmp_path / "run", resume=True)
    jax.tree.map(np.testing.assert_array_equal, resumed.params, whole.params)
    ids, rows = resumed.state.own
    np.testing.assert_array_equal(rows.cluster, whole.state.own.cluster[np.asarray(ids)])
    each = fl.evaluate_each(softmax_loss, lambda id: algorithm.models(whole.state, id), softmax_data())["loss"]
    np.testing.assert_allclose(whole.history[-1]["train_own_loss"], each.total.sum() / each.count.sum(), rtol=1e-12)
