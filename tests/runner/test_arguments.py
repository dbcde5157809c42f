"""What a run takes: everything else is refused by its name before anything is traced; NumPy's and JAX's numbers are numbers."""

import argparse
import dataclasses
import enum
import inspect
import pathlib
import types
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import softmax_params
from segments import DATA, FEDSGD, KEY, SAMPLER, loss, run

import fedjax_lite as fl
from fedjax_lite.runner.arguments import plain_settings
from fedjax_lite.runner.summary import NAMES

GIVEN = {"algorithm": FEDSGD, "data": DATA, "params": softmax_params(), "sampler": SAMPLER, "rounds": 1, "key": KEY}
MODEL = fl.models.linear(3)


@pytest.mark.parametrize("function", [fl.run, fl.plan])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"algorithm": None}, "algorithm must be a fl.Algorithm, got None: call fl.federate"),
        ({"algorithm": fl.algorithms.fedavg}, "algorithm must be a fl.Algorithm, got a function: call"),
        ({"sampler": 3}, "sampler must be a function of the round's key, sizes and round, got 3: take one of fl.sampling"),
        ({"params": None}, r"params must hold the arrays of a model, got None: take model.init\(key, data.example\)"),
        ({"params": {}}, "params must hold the arrays of a model, got {}"),
        ({"params": MODEL}, "params must hold the arrays of a model, got a Model"),
        ({"params": {"w": "x"}}, r"params\['w'\] must be an array, got 'x'"),
        ({"key": None}, r"key must be one random key, got None: take jax.random.key\(0\)"),
        ({"key": 0}, "key must be one random key, got 0"),
        ({"key": jnp.zeros(2, jnp.uint32)}, r"key must be one random key, got an array uint32\[2\]"),
        ({"key": jax.random.split(KEY, 3)}, r"key must be one random key, got an array key<fry>\[3\]"),
        ({"converge": "test_loss"}, r"converge must be a fl.Convergence or None, got 'test_loss': fl.Convergence\('test_loss'"),
        ({"converge": {"metric": "loss"}}, "converge must be a fl.Convergence or None, got {'metric': 'loss'}"),
        (
            {"converge": fl.Convergence(patience=1.5)},
            "converge needs a whole number patience >= 1 and a tolerance >= 0, got .*patience=1.5",
        ),
        ({"rounds": 1.0}, "rounds must be a whole number of at least 1, got 1.0"),
        ({"rounds": np.int64(0)}, "rounds must be a whole number of at least 1, got"),
        ({"evaluate_every": np.bool(True)}, "evaluate_every must be a whole number of at least 1"),
    ],
)
def test_what_is_something_else_is_refused(function, change, message):
    with pytest.raises((TypeError, ValueError), match=message):
        inspect.unwrap(function)(**GIVEN | change)


def test_what_jax_says_of_shapes_that_do_not_fit_is_told_with_what_they_are():
    with pytest.raises(TypeError) as error:
        run(params=jnp.zeros((9, 3)))
    assert any("traced of params float32[9, 3] and examples such as ['x'] float32[" in note for note in error.value.__notes__)


MEAN, SERVER, WORK = fl.aggregators.mean(), fl.optimizer_server(optax.sgd(1.0)), fl.sgd_work(loss, optax.sgd(0.1))


def federate(work=WORK, aggregator=MEAN, **more):
    return inspect.unwrap(fl.federate)(work, aggregator, SERVER, **{"batches": fl.Batches(4), "population": 7} | more)


def one_round(**parts):
    built = federate(**parts)
    return jax.eval_shape(lambda: built.round(built.init(softmax_params(), KEY), DATA, SAMPLER(KEY, DATA.size, 0)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: federate(engine="packed"), r"engine must be a Engine, such as fl.packed\(\), got 'packed': call the function"),
        (lambda: federate(engine=fl.packed), "engine must be a Engine, .* got <function packed"),
        (lambda: federate(uplink="top_k"), "uplink must be a GradientTransformation, such as .* got 'top_k': call the function"),
        (lambda: federate(uplink=fl.uplink.top_k), "uplink must be a GradientTransformation, .* got <function top_k"),
        (lambda: federate(population=7.0), "population must be an int of at least 1, got 7.0"),
        (lambda: inspect.unwrap(fl.sgd_work)(None, optax.sgd(0.1)), "loss_fn must be a function .* got None"),
        (lambda: fl.sgd_work(loss, optax.sgd, learning_rate=-0.1), "learning_rate must be finite and not negative, got -0.1"),
        (lambda: inspect.unwrap(fl.Batches.__new__)(fl.Batches, 4, shuffle="no"), "shuffle must be True or False, got 'no'"),
        (lambda: inspect.unwrap(fl.packed)(2.5), "lanes must be .*, got 2.5"),
        (lambda: fl.packed(True), "lanes must be .*, got True"),
        (lambda: inspect.unwrap(fl.padded)(1.5), "most_steps must be an int of at least 1, got 1.5"),
        (lambda: inspect.unwrap(fl.attacks.attacked)(fl.attacks.alie, np.zeros(7, bool), WORK, MEAN), "must be a fl.attacks.Attack, got"),
        (lambda: one_round(work=fl.sgd_work(lambda p, b, k: b["y"], optax.sgd(0.1))), "floating-point losses, got int32"),
        (lambda: one_round(work=fl.sgd_work(lambda p, b, k: b["z"], optax.sgd(0.1))), "leaf 'z', and the examples have 'x', 'y'"),
        (
            lambda: one_round(aggregator=fl.aggregators.from_stack(lambda messages, cohort: messages.sum())),
            r"the aggregate has an array \[\], the model an array \[\d, \d\]: an aggregator returns one message's tree",
        ),
        (lambda: jax.jit(lambda x: fl.data.FederatedData.from_clients([{"x": x}]).size)(np.ones(3)), "client 0 holds traced arrays"),
        (lambda: run(delta=2.0), "delta must be between 0 and 1, got 2.0"),
        (lambda: run(config={"a": {"b": [1, None]}}), r"config.a.b\[1\] is None, for which TOML has no value: leave it out"),
    ],
)
def test_parts_that_are_none_are_refused(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_settings_may_be_numpys_and_nan(tmp_path):
    config = {"rate": np.float32(0.5), "sizes": np.arange(3), "none": float("nan")}
    run(rounds=3, out=tmp_path / "run", config=config)
    assert (tmp_path / "run" / "config.toml").read_text() == "rate = 0.5\nsizes = [0, 1, 2]\nnone = nan\n"
    assert run(rounds=3, out=tmp_path / "run", config=config, resume=True).status == "finished"


@dataclasses.dataclass
class Settings:
    """Settings of one's own."""

    rate: float
    momentum: float | None
    data: pathlib.Path


class Sizes(NamedTuple):
    """Settings inside others."""

    hidden: tuple[int, ...]
    width: int | None = None


def test_settings_may_be_what_people_have():
    expected = {"rate": 0.5, "data": "mnist/raw", "sizes": {"hidden": [2, 3]}}
    path = pathlib.Path("mnist") / "raw"
    for config in (
        {"rate": np.float64(0.5), "momentum": None, "data": path, "sizes": Sizes((2, 3))},
        argparse.Namespace(rate=jnp.float32(0.5), momentum=None, data=path, sizes={"hidden": np.array([2, 3])}),
    ):
        assert plain_settings(config) == expected
    assert plain_settings(Settings(0.5, None, path)) == {"rate": 0.5, "data": "mnist/raw"}
    assert plain_settings(None) == plain_settings({}) == {}
    for config in ([1, 2], "quick", 3):
        with pytest.raises(TypeError, match="config must be a dict, a dataclass or a namespace of settings, got"):
            plain_settings(config)


@dataclasses.dataclass(slots=True)
class Slotted:
    """Settings without a dict."""

    rate: float = 0.5


class Rule(enum.Enum):
    """A choice among settings."""

    MEAN = "mean"


def test_settings_of_other_kinds():
    assert plain_settings(Slotted()) == plain_settings(types.SimpleNamespace(rate=0.5)) == {"rate": 0.5}
    assert plain_settings({"rule": Rule.MEAN}) == {"rule": "mean"}
    for config, why in (
        ({"a": jax.random.key(0)}, r"config.a is an array key<fry>\[\], for which TOML has no value"),
        ({"a": ["\udcff"]}, "'config.a\\[0\\]' is text that is no UTF-8"),
        ({"\udcff": 1}, "is text that is no UTF-8"),
        (Slotted, "config is a type, for which TOML has no value"),
    ):
        with pytest.raises(ValueError, match=why):
            plain_settings(config)


def test_a_note_has_no_name_of_the_summary(tmp_path):
    with pytest.raises(ValueError, match="notes: 'data' is an entry that the summary has of its own: call the note something else"):
        run(notes={"mine": 1, "data": "digits"}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    told = run(3, notes={"mine": 1}, keep_best="test_loss", out=tmp_path / "run").summary
    assert told["mine"] == 1 and told.keys() - {"mine"} <= NAMES


def test_a_run_is_not_for_tracers():
    with pytest.raises(TypeError, match="fl.run writes and prints, so jax cannot trace it: inside jit, vmap and grad take fl.simulate"):
        jax.vmap(lambda key: fl.run(**GIVEN | {"key": key}).params)(jax.random.split(KEY, 2))
    with pytest.raises(TypeError, match="resume must be True or False, got 'yes'"):
        inspect.unwrap(fl.run)(**GIVEN, resume="yes", out="run")


@pytest.mark.parametrize("number", [np.int64, np.int32, jnp.int32])
def test_whole_numbers_of_numpy_and_jax_are_whole_numbers(number):
    result = run(rounds=number(3), evaluate_every=number(3), checkpoint_every=number(3))
    assert [record["round"] for record in result.history] == [1, 2, 3] and result.history == run(rounds=3).history
