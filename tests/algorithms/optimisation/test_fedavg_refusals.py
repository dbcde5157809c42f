"""What would go wrong with FedAvg in silence, or does not fit, is refused: by client work, batches, and their composition."""

import inspect

import jax
import jax.numpy as jnp
import optax
import pytest
from problems import softmax_data, softmax_loss, softmax_params

import fedjax_lite as fl


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
    with pytest.raises(ValueError, match="population must be an int of at least 1"):
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
    with pytest.raises(ValueError, match="loss_fn reports metrics under names that are taken, loss: rename them"):
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
    for epochs in (-0.5, 1e-5, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="Batches: epochs must be a number of at least 0.0001"):
            fl.Batches(4, epochs=epochs)
    with pytest.raises(ValueError, match="steps must be a whole number"):
        fl.Batches(4, steps=0.5)
