"""FedAvg and its metrics against a NumPy loop that is told the order of the examples."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from oracles import local_sgd, softmax_regression_losses, weighted_mean
from problems import SIZES, simulate, slope_data, slope_loss, softmax_data, softmax_loss, softmax_params

import fedjax_lite as fl

BATCH, EPOCHS, RATE = 4, 3, 0.3


def one_round(aggregator, ids=(4, 2, 1, 6), batches=None, params=None, **options):
    data = softmax_data()
    batches = batches or fl.Batches(BATCH, epochs=EPOCHS)
    built = fl.federate(
        fl.sgd_work(softmax_loss, optax.sgd(RATE), **options),
        aggregator,
        fl.optimizer_server(optax.sgd(1.0)),
        batches=batches,
        population=len(SIZES),
    )
    state = built.init(softmax_params() if params is None else params, jax.random.key(7))
    cohort = trained_cohort(state, data, ids)
    after, metrics = jax.jit(built.round)(state, data, cohort)
    return data, cohort, np.asarray(built.params(after)), metrics


def trained_cohort(state, data, ids):
    """A cohort with the keys that the round gives its clients."""
    cohort = fl.sampling.cohort(fl.round_key(state), data.size, jnp.asarray(ids))
    return cohort._replace(key=jax.vmap(jax.random.fold_in, (None, 0))(fl.round_key(state), cohort.id))


def example_orders(data, cohort, slot, epochs=EPOCHS):
    """The order in which a client sees its examples, read off the batches themselves."""
    client = jax.tree.map(lambda x: x[slot], cohort)
    size, whole = int(client.size), fl.Batches(int(client.size), epochs=epochs)
    mine = np.asarray(data.client(int(client.id))["x"])
    orders = []
    for epoch in range(epochs):
        batch = whole.take(data, client, jnp.int32(epoch), jnp.int32(0))
        orders.append([int(np.flatnonzero((mine == x).all(1))[0]) for x in np.asarray(batch.examples["x"])])
        assert sorted(orders[-1]) == list(range(size)) and batch.mask.all()
    return orders


def oracle(data, cohort, weights):
    start, changes = np.asarray(softmax_params(), float), []
    for slot, id in enumerate(np.asarray(cohort.id)):
        client = jax.tree.map(np.asarray, data.client(id))
        changes.append(local_sgd(start, client["x"], client["y"], example_orders(data, cohort, slot), BATCH, RATE) - start)
    return start + weighted_mean(np.array(changes), weights)


@pytest.mark.parametrize(
    "aggregator, weight",
    [
        (fl.aggregators.weighted_mean(), lambda ids: np.array(SIZES)[ids]),
        (fl.aggregators.mean(), np.ones_like),
        (fl.aggregators.weighted_mean(cap=5), lambda ids: np.minimum(np.array(SIZES)[ids], 5)),
        (fl.aggregators.weighted_mean(np.arange(7.0) + 1), lambda ids: ids + 1.0),
    ],
    ids=["examples", "uniform", "capped", "own"],
)
def test_a_round_equals_the_numpy_loop(aggregator, weight, x64):
    data, cohort, after, _ = one_round(aggregator)
    np.testing.assert_allclose(after, oracle(data, cohort, weight(np.asarray(cohort.id))), atol=1e-12)


def test_each_epoch_has_its_own_order(x64):
    data, cohort, _, _ = one_round(fl.aggregators.mean())
    orders = example_orders(data, cohort, slot=1)  # the client with twelve examples
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_without_shuffling_examples_come_in_their_order(x64):
    data, cohort, after, _ = one_round(fl.aggregators.weighted_mean(), batches=fl.Batches(BATCH, epochs=EPOCHS, shuffle=False))
    start, changes = np.asarray(softmax_params(), float), []
    for id in np.asarray(cohort.id):
        x, y = (np.asarray(data.client(id)[name]) for name in "xy")
        changes.append(local_sgd(start, x, y, [range(len(x))] * EPOCHS, BATCH, RATE) - start)
    np.testing.assert_allclose(after, start + weighted_mean(np.array(changes), np.array(SIZES)[np.asarray(cohort.id)]), atol=1e-12)


def test_bfloat16_is_what_is_computed_in_and_not_what_is_kept():
    """Gradients are those of rounded parameters and examples, within the format's 8 bits; parameters and sums are float32."""
    full, half = (one_round(fl.aggregators.mean(), precision=precision) for precision in ("float32", "bfloat16"))
    moved = [after - np.asarray(softmax_params()) for _, _, after, _ in (full, half)]
    assert half[2].dtype == np.float32 and half[3]["loss"].dtype == jnp.float32
    np.testing.assert_allclose(moved[1], moved[0], atol=0.03 * np.abs(moved[0]).max())
    assert (moved[1] != moved[0]).any()


def test_bfloat16_does_not_lose_small_steps():
    """Steps of 1e-4 from 1: in bfloat16, which knows nothing between 1 and 0.996, the parameter would never move."""
    work = fl.sgd_work(slope_loss, optax.sgd(1e-4), precision="bfloat16")
    built = fl.federate(work, fl.aggregators.mean(), fl.optimizer_server(optax.sgd(1.0)), batches=fl.Batches(1, steps=20), population=3)
    state, _ = fl.simulate(built, slope_data(), jnp.ones(1), fl.sampling.everyone(), rounds=5, key=jax.random.key(0))
    np.testing.assert_allclose(built.params(state), 1 - 100 * 1e-4, rtol=1e-5)


def test_metrics_are_means_over_real_examples(x64):
    """With rate 0 the model does not move, so every metric is a plain mean over the cohort's examples."""
    data = softmax_data()
    ids = (4, 2, 1, 6)
    examples = [data.client(i) for i in ids]
    x, y = (np.concatenate([np.asarray(e[name]) for e in examples]) for name in "xy")
    losses = softmax_regression_losses(np.asarray(softmax_params()), x, y)
    frozen = fl.federate(
        fl.sgd_work(softmax_loss, optax.sgd(0.0), initial_loss="epoch", gradient_norm=True),
        fl.aggregators.mean(),
        fl.optimizer_server(optax.sgd(1.0)),
        batches=fl.Batches(BATCH, epochs=2),
        population=7,
    )
    state = frozen.init(softmax_params(), jax.random.key(0))
    _, metrics = frozen.round(state, data, fl.sampling.cohort(fl.round_key(state), data.size, jnp.asarray(ids)))
    np.testing.assert_allclose(metrics["loss"], losses.mean(), rtol=1e-12)
    np.testing.assert_allclose(metrics["initial_loss"], losses.mean(), rtol=1e-12)
    np.testing.assert_allclose(metrics["accuracy"], np.mean((x @ np.asarray(softmax_params())).argmax(1) == y), rtol=1e-12)
    assert metrics["clients"] == 4 and metrics["update_norm"] == 0


def test_initial_loss_is_that_of_the_model_as_received(x64):
    """Measured on the whole first epoch, it does not see that the model moves meanwhile."""
    _, _, _, metrics = one_round(fl.aggregators.mean(), initial_loss="epoch")
    data = softmax_data()
    losses = [
        softmax_regression_losses(np.asarray(softmax_params()), *map(np.asarray, (c["x"], c["y"]))) for c in map(data.client, (4, 2, 1, 6))
    ]
    np.testing.assert_allclose(metrics["initial_loss"], np.concatenate(losses).mean(), rtol=1e-12)
    assert metrics["loss"] < metrics["initial_loss"]


@pytest.mark.parametrize("engine", [fl.padded(), fl.packed(2), fl.sequential()], ids=["padded", "packed", "sequential"])
def test_all_examples_in_one_batch(engine, x64):
    """size=None: one gradient over all of a client's examples, however many it has."""
    data = softmax_data()
    built = fl.algorithms.fedsgd(softmax_loss, population=7, learning_rate=0.5, engine=engine)
    state = built.init(softmax_params(), jax.random.key(0))
    after, _ = built.round(state, data, fl.sampling.everyone()(fl.round_key(state), data.size, state.round))
    x, y = np.asarray(data.examples["x"]), np.asarray(data.examples["y"])
    pooled = local_sgd(np.asarray(softmax_params()), x, y, [np.arange(len(x))], len(x), 0.5)
    np.testing.assert_allclose(built.params(after), pooled, atol=1e-12)


def test_the_debugging_engine_names_client_and_step():
    """With jit off and NaN checks on, the error of one bad example says whose it was."""
    data = softmax_data()
    trouble = data.client(2)["x"][3, 0]

    def loss(params, batch, key):
        poison = jnp.where(batch["x"][:, 0] == trouble, -1.0, 1.0)
        return softmax_loss(params, batch, key)[0] + jnp.log(poison)

    built = fl.algorithms.fedavg(loss, optax.sgd(0.1), batches=fl.Batches(1), population=7, engine=fl.sequential())
    state = built.init(softmax_params(), jax.random.key(0))
    cohort = trained_cohort(state, data, (1, 2))
    order = example_orders(data, cohort, slot=1, epochs=1)[0]
    with jax.disable_jit(), jax.debug_nans(True), pytest.raises(FloatingPointError) as caught:
        built.round(state, data, cohort)
    assert f"in client 2, local step {order.index(3)}" in caught.value.__notes__


def test_bad_arguments():
    with pytest.raises(ValueError, match='precision must be "float32" or "bfloat16", got .int8.'):
        fl.sgd_work(softmax_loss, optax.sgd(0.1), precision="int8")
    with pytest.raises(ValueError, match="size must be a whole number of at least 1.*got 0"):
        fl.Batches(0)
    with pytest.raises(ValueError, match="epochs must be a whole number of at least 1.*got 0"):
        fl.Batches(4, epochs=0)
    with pytest.raises(ValueError, match="initial_loss"):
        fl.sgd_work(softmax_loss, optax.sgd(0.1), initial_loss="always")
    with pytest.raises(ValueError, match="one loss an example, shape \\(4,\\), got \\(\\)"):
        one_round_of_mean_loss()
    with pytest.raises(ValueError, match="population must be at least 1"):
        fl.algorithms.fedsgd(softmax_loss, population=0)
    with pytest.raises(ValueError, match="most_steps"):
        scheduled = fl.Batches(4, epochs=fl.on_round(lambda t: 2.0))
        built = fl.algorithms.fedavg(softmax_loss, optax.sgd(0.1), batches=scheduled, population=7, engine=fl.padded())
        simulate_one(built)


def simulate_one(built):
    return fl.simulate(built, softmax_data(), softmax_params(), fl.sampling.uniform(2), rounds=1, key=jax.random.key(0))


def one_round_of_mean_loss():
    reduced = lambda params, batch, key: softmax_loss(params, batch, key)[0].mean()  # noqa: E731
    simulate_one(fl.algorithms.fedavg(reduced, optax.sgd(0.1), batches=fl.Batches(4), population=7))


def test_what_would_go_wrong_in_silence_is_refused():
    data, params, unchecked = softmax_data(), softmax_params(), inspect.unwrap  # past the type checks of the tests

    def run(work=None, **options):
        work = work or fl.sgd_work(softmax_loss, optax.sgd(0.1))
        options = dict(batches=fl.Batches(4), population=7) | options
        built = fl.federate(work, fl.aggregators.mean(), fl.optimizer_server(optax.sgd(1.0)), **options)
        return fl.simulate(built, data, params, fl.sampling.uniform(2), rounds=1, key=jax.random.key(0))

    noise = optax.add_noise(1.0, 0.0, 0)
    with pytest.raises(ValueError, match="all clients would draw the same noise"):
        run(uplink=noise)
    with pytest.raises(ValueError, match="all clients would draw the same noise"):
        run(fl.sgd_work(softmax_loss, optax.chain(noise, optax.sgd(0.1))))
    with pytest.raises(ValueError, match="own names, loss"):
        run(fl.sgd_work(lambda p, b, k: (softmax_loss(p, b, k)[0], {"loss": jnp.ones(4)}), optax.sgd(0.1)))
    with pytest.raises(ValueError, match="population=8, the data has 7 clients"):
        run(population=8)
    with pytest.raises(TypeError, match="aggregator must be a fl.Aggregator.*call the function"):
        unchecked(fl.federate)(fl.sgd_work(softmax_loss, optax.sgd(0.1)), fl.aggregators.mean, None, batches=fl.Batches(1), population=1)
    with pytest.raises(TypeError, match="pass data.train"):
        built = fl.algorithms.fedavg(softmax_loss, optax.sgd(0.1), batches=fl.Batches(4), population=7)
        unchecked(fl.simulate)(built, fl.TrainTest(data, None), params, fl.sampling.uniform(2), rounds=1, key=jax.random.key(0))
    with pytest.raises(ValueError, match="takes the place of epochs"):
        fl.Batches(4, epochs=2, steps=3)
    with pytest.raises(ValueError, match="whole number"):
        fl.Batches(4, epochs=0.5)


def test_clients_outside_the_population_are_empty_slots():
    data = softmax_data()
    built = fl.algorithms.fedavg(softmax_loss, optax.sgd(0.1), batches=fl.Batches(4), population=7)
    state = built.init(softmax_params(), jax.random.key(0))
    step = jax.jit(built.round)
    some, metrics = step(state, data, fl.sampling.cohort(fl.round_key(state), data.size, jnp.array([7, 2, -1, 99])))
    assert metrics["clients"] == 1
    only, _ = jax.jit(built.round)(state, data, fl.sampling.cohort(fl.round_key(state), data.size, jnp.array([2])))
    np.testing.assert_allclose(built.params(some), built.params(only), rtol=1e-6)


def test_half_precision_models_train_alike_on_every_engine():
    """A thousand equal clients move a bfloat16 model by one client's change, metrics included."""
    data = fl.FederatedData.from_clients([{"x": np.ones(1)}] * 1000)
    loss = lambda params, batch, key: params * batch["x"].astype(params.dtype)  # noqa: E731
    for engine in (fl.packed(1), fl.padded()):
        built = fl.algorithms.fedavgm(loss, optax.sgd(1.0), batches=fl.Batches(1), population=1000, engine=engine)
        state, metrics = simulate(built, data, jnp.asarray(3.0, jnp.bfloat16), fl.sampling.everyone(), 1, jax.random.key(0))
        assert built.params(state).dtype == jnp.bfloat16 and float(built.params(state)) == 2.0
        assert float(metrics["loss"][0]) == 3.0


def test_a_bound_on_steps_is_what_the_client_is_told():
    work = fl.sgd_work(softmax_loss, optax.sgd, learning_rate=fl.on_client_step(lambda t: 0.1))
    built = fl.federate(
        work,
        fl.aggregators.mean(),
        fl.optimizer_server(optax.sgd(1.0)),
        batches=fl.Batches(4, steps=5),
        population=7,
        engine=fl.padded(2),
    )
    state, _ = simulate(built, softmax_data(), softmax_params(), fl.sampling.everyone(), 1, jax.random.key(0))
    assert state.own.tolist() == [2] * 7


def test_batches_larger_than_any_client_cost_nothing_and_change_nothing():
    data = softmax_data()
    client = jax.tree.map(lambda x: x[0], fl.sampling.cohort(jax.random.key(0), data.size, jnp.array([2])))
    assert fl.Batches(10**6).take(data, client, 0).mask.shape == (12,)
    assert np.array_equal(fl.Batches(10**6).take(data, client, 0).examples["y"], fl.Batches(12).take(data, client, 0).examples["y"])
