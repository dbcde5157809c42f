"""What a method does not fit is refused when it is built: numbers out of range, and pairs that its paper does not define."""

import inspect

import jax
import optax
import pytest
from problems import SIZES, softmax_data, softmax_loss, softmax_params

import fedjax_lite as fl

A = fl.aggregators
SGD = {"optimizer": optax.sgd(0.1)}
RATE = {"learning_rate": 0.1}
# name -> what it needs beside loss, batches and population.
METHODS = {
    "fedavg": SGD, "fedavgm": SGD, "fedprox": SGD | {"mu": 0.1}, "scaffold": RATE, "feddyn": RATE | {"alpha": 0.1}, "fednova": RATE,
    "fedadagrad": SGD, "fedadam": SGD, "fedyogi": SGD,
}  # fmt: skip
KEEPING = "scaffold", "feddyn"  # whose clients keep floating-point numbers
UNIFORM = "scaffold", "feddyn"  # whose clients must count the same
REPORTING = ("fednova",)  # whose clients send more than the model's change
PRIVATE = A.dp_mean(clip=1.0, noise_multiplier=1.0, clients_per_round=4)


def build(name, **own):
    make = inspect.unwrap(getattr(fl.algorithms, name))  # past the type checks of the tests
    return make(loss_fn=softmax_loss, batches=fl.Batches(4), population=len(SIZES), **METHODS[name] | own)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_server_rate_that_is_not_positive(name, rate):
    with pytest.raises(ValueError, match=rf"{name}: server_learning_rate must be positive and finite, got {rate}"):
        build(name, server_learning_rate=rate)


@pytest.mark.parametrize("name", METHODS)
def test_a_server_rate_on_no_clock_or_a_clients(name):
    with pytest.raises(ValueError, match=f"{name}: server_learning_rate is a schedule without a clock .*: wrap it in fl.on_round"):
        build(name, server_learning_rate=lambda t: 1.0)
    with pytest.raises(ValueError, match="give fl.on_round, not 'step'"):
        build(name, server_learning_rate=fl.on_step(lambda t: 1.0))


MISTAKES = [
    ("fedprox", {"mu": 0.0}, "fedprox: mu must be positive and finite, got 0.0"),
    ("fedprox", {"mu": float("nan")}, "fedprox: mu must be positive and finite, got nan"),
    ("scaffold", {"option": 3}, r"scaffold: option must be 1 \(the gradient at x\) or 2 \(of the local steps\), got 3"),
    ("scaffold", {"option": "II"}, "scaffold: option must be 1 .* got 'II'"),
    ("feddyn", {"alpha": -0.1}, "feddyn: alpha must be positive and finite, got -0.1"),
    ("fednova", {"momentum": 1.0}, r"fednova: momentum must be in \[0, 1\), got 1.0"),
    ("fednova", {"mu": -1.0}, "fednova: mu must be finite and not negative, got -1.0"),
    ("fednova", {"tau_eff": "K"}, 'fednova: tau_eff must be "normalised" or "steps", got \'K\''),
    ("fedadam", {"b2": 1.0}, r"fedadam: b2 must be in \[0, 1\), got 1.0"),
    ("scaffold", {"learning_rate": "fast"}, "learning_rate must be a number, an array or a schedule with its clock, got 'fast'"),
    ("feddyn", {"learning_rate": True}, "learning_rate must be a number, an array or a schedule with its clock, got True"),
    ("fedyogi", {"tau": 0.0}, "fedyogi: tau must be positive and finite, got 0.0"),
    ("fedadagrad", {"convention": "torch"}, 'fedadagrad: convention must be "paper", "keras" or "flower", got \'torch\''),
]


@pytest.mark.parametrize(("name", "own", "message"), MISTAKES, ids=lambda value: None if isinstance(value, dict) else str(value)[:20])
def test_an_argument_out_of_range(name, own, message):
    with pytest.raises(ValueError, match=message):
        build(name, **own)


@pytest.mark.parametrize("name", KEEPING)
def test_no_private_aggregator_where_clients_keep_what_their_data_made(name):
    with pytest.raises(ValueError, match=f"{name}: clients keep .* take a method without such state, for instance fedavg"):
        build(name, aggregator=PRIVATE)


@pytest.mark.parametrize("name", REPORTING)
def test_no_private_aggregator_of_more_than_the_change(name):
    with pytest.raises(ValueError, match=f"{name}: clients send .* beside the model's change"):
        build(name, aggregator=PRIVATE)


WEIGHING = [
    A.weighted_mean(), A.weighted_mean([1.0] * 7), A.geometric_median(), A.weighted_median(), A.rlr(threshold=1),
    A.nnm(A.geometric_median(), num_byzantine=1), A.by_part(params=A.weighted_mean(), control=A.mean()),
]  # fmt: skip


@pytest.mark.parametrize("name", UNIFORM)
def test_no_weights_where_all_clients_count_the_same(name):
    for aggregator in WEIGHING:
        with pytest.raises(ValueError, match=rf"{name}: .* take fl.aggregators.mean\(\)"):
            build(name, aggregator=aggregator)
    for aggregator in (A.mean(), A.weighted_mean("uniform"), A.median(), A.secure_mean()):
        build(name, aggregator=aggregator)


@pytest.mark.parametrize("name", KEEPING + REPORTING)
def test_an_aggregator_that_is_none(name):
    with pytest.raises(TypeError, match=f"{name}: aggregator must be a fl.Aggregator, got <function mean"):
        build(name, aggregator=inspect.unwrap(A.mean))


@pytest.mark.parametrize("name", [name for name in METHODS if "optimizer" not in METHODS[name]])
def test_a_schedule_without_its_clock(name):
    with pytest.raises(ValueError, match="learning_rate is a schedule without a clock"):
        build(name, learning_rate=lambda t: 0.1)


def test_a_pass_that_is_not_made():
    for own, which in ({"initial_loss": "pass"}, 'initial_loss="pass"'), ({"full_gradient": True}, "full_gradient=True"):
        work = fl.sgd_work(softmax_loss, optax.sgd(0.1), **own)
        built = fl.federate(work, A.mean(), fl.optimizer_server(optax.sgd(1.0)), batches=fl.Batches(4), population=len(SIZES))
        with pytest.raises(ValueError, match=rf"sgd_work: {which} is measured in a pass before training.*before=1"):
            fl.simulate(built, softmax_data(), softmax_params(), fl.sampling.everyone(), rounds=1, key=jax.random.key(0))
