"""FedAvg and its metrics against a NumPy loop that is told the order of the examples."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from oracles import local_sgd, softmax_regression_losses, weighted_mean
from problems import SIZES, simulate, slope_data, slope_loss, softmax_data, softmax_loss, softmax_params
from rounds import trained

import fedjax_lite as fl

BATCH, EPOCHS, RATE, KEY = 4, 3, 0.3, 7
IDS = (4, 2, 1, 6)


def examples():
    """Of each client, in double precision."""
    with jax.enable_x64(True):
        data = softmax_data()
    ends, (x, y) = np.cumsum(SIZES)[:-1], (np.asarray(data.examples[name]) for name in "xy")
    return [{"x": x, "y": y} for x, y in zip(np.split(x, ends), np.split(y, ends), strict=True)]


EXAMPLES = examples()


def averaged(work, aggregator=None, batches=None, **options):
    return fl.federate(
        work,
        aggregator or fl.aggregators.mean(),
        fl.optimizer_server(optax.sgd(1.0)),
        batches=batches or fl.Batches(BATCH, epochs=EPOCHS),
        population=len(SIZES),
        **{"engine": fl.sequential()} | options,
    )


@functools.cache
def default():
    """A round of FedAvg that measures all it can, as a function of the rate and the cohort; what most tests ask."""
    data = softmax_data()

    @jax.jit
    def run(rate, ids):
        work = fl.sgd_work(softmax_loss, optax.sgd, learning_rate=rate, initial_loss="epoch", gradient_norm=True)
        built = averaged(work, fl.aggregators.weighted_mean(), engine=fl.packed(2))
        state = built.init(softmax_params(), jax.random.key(KEY))
        after, metrics = built.round(state, data, fl.sampling.cohort(fl.round_key(state), data.size, ids))
        return built.params(after), metrics

    return lambda rate=RATE, ids=IDS: run(rate, np.asarray(ids, np.int32))


@functools.cache
def orders():
    """The order in which each client sees its examples, by epoch, read off the batches themselves."""
    data, epochs = softmax_data(), jnp.arange(EPOCHS)
    data = replace(data, examples=data.examples | {"row": jnp.concatenate([jnp.arange(size) for size in SIZES])})

    @jax.jit
    def run(ids):
        key = jax.random.fold_in(jax.random.key(KEY), 0)
        cohort = fl.sampling.cohort(key, data.size, ids)._replace(key=fl.streams.client_keys(key, ids))

        def seen(client, epoch):
            batch = fl.Batches(None, epochs=EPOCHS).take(data, client, epoch)
            return jnp.where(batch.row == batch.examples["row"], batch.row, -1), batch.mask

        return jax.vmap(jax.vmap(seen, (None, 0)), (0, None))(cohort, epochs)

    rows, masks = run(jnp.arange(len(SIZES)))
    found = [[row[mask] for row, mask in zip(*each, strict=True)] for each in zip(np.asarray(rows), np.asarray(masks), strict=True)]
    assert all(sorted(order) == list(range(size)) for size, each in zip(SIZES, found, strict=True) for order in each)
    return found


def by_hand(weights, ids=IDS, order_of=lambda id: orders()[id]):
    """The model after a round."""
    start = np.asarray(softmax_params(), float)
    changes = [local_sgd(start, EXAMPLES[id]["x"], EXAMPLES[id]["y"], order_of(id), BATCH, RATE) - start for id in ids]
    return start + weighted_mean(np.array(changes), weights)


def sizes(ids):
    return np.array(SIZES)[list(ids)]


def test_a_round_equals_the_numpy_loop(x64):
    np.testing.assert_allclose(default()()[0], by_hand(sizes(IDS)), atol=1e-12)


@pytest.mark.deep
@pytest.mark.parametrize(
    "aggregator, weights",
    [
        (fl.aggregators.mean(), np.ones(4)),
        (fl.aggregators.weighted_mean(cap=5), np.minimum(sizes(IDS), 5)),
        (fl.aggregators.weighted_mean(np.arange(7.0) + 1), np.array(IDS) + 1.0),
    ],
    ids=["uniform", "capped", "own"],
)
def test_a_round_with_other_weights_equals_the_numpy_loop(aggregator, weights, x64):
    built = averaged(fl.sgd_work(softmax_loss, optax.sgd(RATE)), aggregator)
    state, _ = trained(built, softmax_data(), softmax_params(), (IDS,), KEY)
    np.testing.assert_allclose(built.params(state), by_hand(weights), atol=1e-12)


def test_each_epoch_has_its_own_order():
    first, second, third = (order.tolist() for order in orders()[2])  # of the client with twelve examples
    assert first != second != third != first


def test_without_shuffling_examples_come_in_their_order(x64):
    built = averaged(fl.sgd_work(softmax_loss, optax.sgd(RATE)), batches=fl.Batches(BATCH, epochs=EPOCHS, shuffle=False))
    state, _ = trained(built, softmax_data(), softmax_params(), (IDS,), KEY)
    expected = by_hand(np.ones(4), order_of=lambda id: [range(SIZES[id])] * EPOCHS)
    np.testing.assert_allclose(built.params(state), expected, atol=1e-12)


def test_clients_outside_the_population_are_empty_slots(x64):
    after, metrics = default()(ids=(7, 2, -1, 99))
    assert metrics["clients"] == 1
    np.testing.assert_allclose(after, by_hand(np.ones(1), ids=(2,)), atol=1e-12)


def test_metrics_are_means_over_real_examples(x64):
    """With rate 0 the model does not move, so every metric is a plain mean over the cohort's examples."""
    x, y = (np.concatenate([EXAMPLES[id][name] for id in IDS]) for name in "xy")
    losses = softmax_regression_losses(np.asarray(softmax_params()), x, y)
    _, metrics = default()(0.0)
    np.testing.assert_allclose(metrics["loss"], losses.mean(), rtol=1e-12)
    np.testing.assert_allclose(metrics["initial_loss"], losses.mean(), rtol=1e-12)
    np.testing.assert_allclose(metrics["accuracy"], np.mean((x @ np.asarray(softmax_params())).argmax(1) == y), rtol=1e-12)
    assert metrics["clients"] == 4 and metrics["update_norm"] == 0


def test_initial_loss_is_that_of_the_model_as_received(x64):
    """Measured on the whole first epoch, it does not see that the model moves meanwhile."""
    _, metrics = default()()
    losses = [softmax_regression_losses(np.asarray(softmax_params()), EXAMPLES[id]["x"], EXAMPLES[id]["y"]) for id in IDS]
    np.testing.assert_allclose(metrics["initial_loss"], np.concatenate(losses).mean(), rtol=1e-12)
    assert metrics["loss"] < metrics["initial_loss"]


def test_bfloat16_is_what_is_computed_in_and_not_what_is_kept():
    """Gradients are those of rounded parameters and examples, within the format's 8 bits; parameters and sums are float32."""
    built = averaged(fl.sgd_work(softmax_loss, optax.sgd(RATE), precision="bfloat16"))
    state, metrics = trained(built, softmax_data(), softmax_params(), (IDS,), KEY)
    after, start = np.asarray(built.params(state)), np.asarray(softmax_params())
    assert after.dtype == np.float32 and metrics["loss"].dtype == np.float32
    moved, exact = after - start, by_hand(np.ones(4)) - start
    np.testing.assert_allclose(moved, exact, atol=0.03 * np.abs(exact).max())
    assert np.abs(moved - exact).max() > 1e-4 * np.abs(exact).max()


def test_bfloat16_does_not_lose_small_steps():
    """Steps of 1e-4 from 1: in bfloat16, which knows nothing between 1 and 0.996, the parameter would never move."""
    work = fl.sgd_work(slope_loss, optax.sgd(1e-4), precision="bfloat16")
    batches = fl.Batches(1, steps=20, shuffle=False)
    built = fl.federate(work, fl.aggregators.mean(), fl.optimizer_server(optax.sgd(1.0)), batches=batches, population=3)
    state, _ = simulate(built, slope_data(), jnp.ones(1), fl.sampling.everyone(), 5, jax.random.key(0))
    np.testing.assert_allclose(built.params(state), 1 - 100 * 1e-4, rtol=1e-5)


ENGINES = {"packed": fl.packed(2), "padded": fl.padded(), "sequential": fl.sequential()}


@pytest.mark.parametrize("engine", ["packed", *(pytest.param(name, marks=pytest.mark.deep) for name in ("padded", "sequential"))])
def test_all_examples_in_one_batch(engine, x64):
    """size=None: one gradient over all of a client's examples, however many it has."""
    built = fl.algorithms.fedsgd(softmax_loss, population=7, learning_rate=0.5, engine=ENGINES[engine])
    state, _ = trained(built, softmax_data(), softmax_params(), (range(7),), 0)
    x, y = (np.concatenate([examples[name] for examples in EXAMPLES]) for name in "xy")
    pooled = local_sgd(np.asarray(softmax_params()), x, y, [np.arange(len(x))], len(x), 0.5)
    np.testing.assert_allclose(built.params(state), pooled, atol=1e-12)


@pytest.mark.deep
def test_the_debugging_engine_names_client_and_step():
    """With jit off and NaN checks on, the error of one bad example says whose it was."""
    data = fl.FederatedData.from_clients([{"x": np.ones(1)}, {"x": np.array([1.0, 1, -1, 1])}])

    def loss(params, batch, key):
        return params * jnp.log(batch["x"])

    batches = fl.Batches(1, shuffle=False)
    built = fl.algorithms.fedavg(loss, optax.sgd(0.1), batches=batches, population=2, engine=fl.sequential())

    @jax.jit
    def start(key):
        state = built.init(jnp.ones(()), key)
        return state, fl.sampling.cohort(fl.round_key(state), data.size, jnp.arange(2))

    state, cohort = start(jax.random.key(0))
    with jax.disable_jit(), jax.debug_nans(True), pytest.raises(FloatingPointError) as caught:
        built.round(state, data, cohort)
    assert "in client 1, local step 2" in caught.value.__notes__


@pytest.mark.parametrize("engine", ["packed", pytest.param("padded", marks=pytest.mark.deep)])
def test_half_precision_models_train_alike_on_every_engine(engine):
    """A thousand equal clients move a bfloat16 model by one client's change, metrics included."""
    data = fl.FederatedData.from_clients([{"x": np.ones(1)}] * 1000)
    built = fl.algorithms.fedavgm(
        lambda params, batch, key: params * batch["x"].astype(params.dtype), optax.sgd(1.0), batches=fl.Batches(1, shuffle=False),
        population=1000, engine=ENGINES[engine],
    )  # fmt: skip
    state, metrics = simulate(built, data, jnp.asarray(3.0, jnp.bfloat16), fl.sampling.everyone(), 1, jax.random.key(0))
    assert built.params(state).dtype == jnp.bfloat16 and float(built.params(state)) == 2.0
    assert float(metrics["loss"][0]) == 3.0


def test_a_bound_on_steps_is_what_the_client_is_told():
    work = fl.sgd_work(softmax_loss, optax.sgd, learning_rate=fl.on_client_step(lambda t: 0.1))
    built = averaged(work, batches=fl.Batches(4, steps=5, shuffle=False), engine=fl.padded(2))
    state, _ = trained(built, softmax_data(), softmax_params(), (range(7),), 0)
    assert state.own.steps.tolist() == [2] * 7


def test_batches_larger_than_any_client_cost_nothing_and_change_nothing():
    data = softmax_data()

    @jax.jit
    def run(key):
        client = jax.tree.map(lambda x: x[0], fl.sampling.cohort(key, data.size, jnp.array([2])))
        return [fl.Batches(size).take(data, client, 0) for size in (10**6, 12)]

    huge, whole = run(jax.random.key(0))
    assert huge.mask.shape == (12,)
    assert np.array_equal(huge.examples["y"], whole.examples["y"])
