"""Baselines against NumPy loops of the same steps, and beside a run: in its result, its folder, its report and its configuration."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from grouping import tiered
from keeps import not_so
from oracles import softmax_regression_gradient
from problems import SIZES, softmax_data, softmax_loss, softmax_params
from rounds import filled, trained
from tiny import PRIVATE, QUICK, TINY, edited

import fedjax_lite as fl
from fedjax_lite import cli
from fedjax_lite.configuration.build import build
from fedjax_lite.configuration.study import study_of
from fedjax_lite.configuration.table import ConfigError

BATCH, RATE, MOMENTUM, SPOILT = 4, 0.3, 0.5, 4
COHORTS = [(4, 2, 1, 6), (2, 5, 0), (6, 2)]
SGD, BATCHES = optax.sgd(RATE, momentum=MOMENTUM), fl.Batches(BATCH, shuffle=False)
START = np.cumsum((0, *SIZES))


class HeavyBall:
    """SGD with momentum whose buffer lasts."""

    def __init__(self):
        self.y, self.v = np.asarray(softmax_params(), float), 0.0

    def __call__(self, x, y):
        self.v = MOMENTUM * self.v + softmax_regression_gradient(self.y, x, y)
        self.y = self.y - RATE * self.v


def batches_of(k):
    return -(-SIZES[k] // BATCH)


def centralised(**more):
    return fl.baselines.centralised(softmax_loss, SGD, batches=BATCHES, **more)


def local_only(engine=None, **more):
    return fl.baselines.local_only(softmax_loss, SGD, batches=BATCHES, population=len(SIZES), engine=engine, **more)


def slots():
    return [filled(ids, 4) for ids in COHORTS]


def test_centralised_training_takes_the_steps_of_all_clients_together(x64):
    data, by_hand = softmax_data(), HeavyBall()
    x, y = (np.asarray(data.examples[name]) for name in "xy")
    of_all = -(-len(x) // BATCH)
    for cohort in COHORTS:
        for step in range(sum(map(batches_of, cohort))):
            first = step % of_all * BATCH
            by_hand(x[first : first + BATCH], y[first : first + BATCH])
    built = centralised()
    state, metrics = trained(built, data, softmax_params(), slots(), 0)
    np.testing.assert_allclose(built.params(state), by_hand.y, atol=1e-12)
    assert metrics["clients"].tolist() == [1, 1, 1] and np.isfinite(metrics["loss"]).all()


def test_alone_each_client_takes_its_steps_of_the_run(x64):
    """One client's examples are NaN: its model stays the first, as that of a client that is never drawn."""
    data = softmax_data()
    x, y = (np.asarray(data.examples[name]).copy() for name in "xy")
    x[START[SPOILT] : START[SPOILT + 1]] = np.nan
    by_hand = [HeavyBall() for _ in SIZES]
    for cohort in COHORTS:
        for k in cohort:
            for first in range(START[k], START[k + 1], BATCH):
                rows = slice(first, min(first + BATCH, START[k + 1]))
                if k != SPOILT:
                    by_hand[k](x[rows], y[rows])
    built = local_only(fl.packed(2))
    state, metrics = trained(built, replace(data, examples=data.examples | {"x": jnp.asarray(x)}), softmax_params(), slots(), 0)
    np.testing.assert_allclose(built.models(state), [each.y for each in by_hand], atol=1e-12)
    np.testing.assert_allclose(built.params(state), np.mean([each.y for each in by_hand], axis=0), atol=1e-12)
    np.testing.assert_array_equal(built.models(state)[3], softmax_params())  # of the client that is never drawn
    assert not metrics["uplink_bits"].any() and not metrics["downlink_bits"].any() and metrics["clients"].tolist() == [4, 3, 2]


@pytest.mark.deep
def test_local_training_keeps_the_contract(x64):
    make = lambda engine, rate=0.1: fl.baselines.local_only(  # noqa: E731
        softmax_loss, optax.sgd(rate), batches=BATCHES, population=7, engine=engine
    )
    data = softmax_data(sizes=(5, 1, 12, 3, 8, 0, 7), empty=True)
    assert not_so(fl.checks.algorithm(make, data, softmax_params(), values=(0.1, 0.2))) == {}


@pytest.mark.deep
def test_centralised_training_keeps_the_contract(x64):
    data = softmax_data(sizes=(5, 1, 12, 3, 8, 0, 7), empty=True)
    report = fl.checks.algorithm(centralised(), data, softmax_params())
    assert not_so(report) == {"engines agree": "not applicable"}


def beside(data=None, **more):
    """A run with both baselines; by default of two rounds, evaluated on its own data."""
    built = fl.algorithms.fedavg(softmax_loss, SGD, batches=BATCHES, population=len(SIZES), engine=fl.sequential())
    given = dict(rounds=2, key=jax.random.key(3), loss_fn=softmax_loss, progress=False, evaluate_every=2)
    given |= dict(baselines=MADE)
    return fl.run(built, data or softmax_data(), softmax_params(), fl.sampling.uniform(4), **given | more)


MADE = {"local_only": local_only(fl.sequential()), "centralised": centralised()}
WHERE = [("local_only", False), *(pytest.param(*each, marks=pytest.mark.deep) for each in (("local_only", True), ("centralised", True)))]


@pytest.mark.parametrize("name, central", WHERE)
def test_a_run_has_its_baselines_beside(name, central, tmp_path):
    """The numbers of the same algorithm on its own; of models of clients each on its own examples, or on all where no client has them."""
    data, built = softmax_data(), MADE[name]
    test = fl.FederatedData.from_arrays(data.examples, np.zeros(sum(SIZES), int)) if central else None
    result = beside(test=test, out=tmp_path / "run", baselines={name: built})
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["baselines"] == result.baselines and list(result.baselines) == [name]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Baselines after as many rounds" in page and "<td>this run</td>" in page and f"<td>{name.replace('_', ' ')}</td>" in page

    @jax.jit
    def alone(key, data):
        state, _ = fl.simulate(built, data, softmax_params(), fl.sampling.uniform(4), rounds=2, key=key)
        if not built.models:
            return built.params(state), fl.evaluate(softmax_loss, built.params(state), data)["loss"]
        return built.models(state), fl.evaluate_each(softmax_loss, built.models(state), data)["loss"]

    models, sums = alone(jax.random.key(3), data)
    expected = sums.total.sum() / sums.count.sum()
    if name == "local_only" and central:
        expected = np.mean([softmax_loss(model, data.examples, None)[0].mean() for model in models])
    found, prefix = result.baselines[name], "test_" if central else "train_"
    metric = "own_loss" if built.models else "loss"  # its name says whose model it is of
    np.testing.assert_allclose(found[prefix + metric], expected, rtol=1e-5)
    assert central and name == "centralised" or found[f"{prefix}clients"][metric]["std"] > 0


@pytest.mark.deep
def test_a_run_that_has_ended_can_be_given_baselines(tmp_path):
    plain = beside(baselines=None, out=tmp_path / "run")
    found = beside(out=tmp_path / "run", resume=True)
    assert plain.baselines == {} and found.baselines == beside().baselines
    np.testing.assert_array_equal(found.params, plain.params)


def test_refusals(tmp_path):
    private = fl.algorithms.fedavg(
        softmax_loss, SGD, batches=BATCHES, population=len(SIZES),
        aggregator=fl.aggregators.dp_mean(clip=1.0, noise_multiplier=1.0, clients_per_round=2),
    )  # fmt: skip
    common = dict(rounds=1, key=jax.random.key(0), progress=False)
    with pytest.raises(ValueError, match="baselines: centralised would be trained on the clients' data without noise"):
        both = {"centralised": centralised()}
        fl.run(private, softmax_data(), softmax_params(), fl.sampling.poisson(0.3), loss_fn=softmax_loss, baselines=both, **common)
    with pytest.raises(ValueError, match="baselines: local_only is evaluated by loss_fn, and there is none"):
        beside(loss_fn=None, baselines={"local_only": local_only()})
    with pytest.raises(TypeError, match="baselines: mine must be a fl.Algorithm"):
        beside(baselines={"mine": 3})
    store = fl.data.save(tmp_path / "store", softmax_data())
    with pytest.raises(ValueError, match="baselines: local_only needs the data in memory"):
        beside(store)


BOTH = ("[run]", "[baselines]\ncentralised = true\nlocal_only = true\n[run]")


@pytest.mark.deep
def test_a_configuration_names_them(tmp_path, capsys):
    edited(tmp_path, TINY, *QUICK, BOTH)
    assert cli.main(["run", str(tmp_path / "tiny.toml"), "--quiet", "--devices", "1", "--out", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "run" / "summary.json").read_text())["baselines"]
    assert "  centralised: train_accuracy " in printed and "  local only: train_own_accuracy " in printed
    assert found["centralised"].keys() >= {"train_loss", "train_accuracy"}


@pytest.mark.deep
def test_a_configurations_baselines_are_pythons(tmp_path):
    """After a round, with the optimizer, the batches and the loss of the other sections."""
    start = build(edited(tmp_path, TINY, *QUICK, BOTH))
    _, data, params, sampler = start.args
    loss_fn, key = start.keywords["loss_fn"], start.keywords["key"]
    batches = fl.Batches(2, shuffle=False)
    python = {
        "centralised": fl.baselines.centralised(loss_fn, optax.sgd(0.1), batches=batches),
        "local_only": fl.baselines.local_only(loss_fn, optax.sgd(0.1), batches=batches, population=2, engine=fl.sequential()),
    }

    def after(built):
        return jax.jit(lambda data: fl.simulate(built, data, params, sampler, rounds=1, key=key)[0])(data)

    for name, built in start.keywords["baselines"].items():
        found, expected = after(built), after(python[name])
        jax.tree.map(np.testing.assert_array_equal, python[name].params(found), python[name].params(expected))


GIVEN_NOISE = PRIVATE.replace('"auto"', "1.0").replace("target_epsilon = 2.0\n", "")
MISTAKES = {
    "name": (TINY, "central = true", r"baselines.central: unknown key; did you mean 'centralised'"),
    "value": (TINY, "centralised = 1", r"baselines.centralised: must be true or false, got 1"),
    "private": (GIVEN_NOISE, "centralised = true", "would be trained .* without noise"),
}


@tiered("name", MISTAKES, ("name", "value"))
def test_mistakes_in_a_configuration(name, tmp_path):
    text, line, message = MISTAKES[name]
    with pytest.raises(ConfigError, match=message):
        build(edited(tmp_path, text, ("[run]", f"[baselines]\n{line}\n[run]")))


@pytest.mark.deep
def test_a_configuration_switches_them_on(tmp_path):
    one = ("[run]", "[baselines]\ncentralised = false\nlocal_only = true\n[run]")
    assert list(build(edited(tmp_path, TINY, *QUICK, one)).keywords["baselines"]) == ["local_only"]


def test_what_they_do_not_fit_is_refused_in_a_configuration(tmp_path):
    algorithm = ('[aggregator]\nname = "weighted_mean"\n[server]\noptimizer = { name = "sgd", learning_rate = 1.0 }\n', "")
    named = ("[sampling]", '[algorithm]\nname = "fedsgd"\n[sampling]'), ("batch_size = 2\n", ""), algorithm
    with pytest.raises(ConfigError, match="baselines: take their batches from .client. batch_size"):
        build(edited(tmp_path, TINY, *named, BOTH))
    fd = ("[sampling]", '[algorithm]\nname = "fd"\n[sampling]'), algorithm
    with pytest.raises(ConfigError, match="baselines: are of the model of .model. and its loss"):
        build(edited(tmp_path, TINY, *fd, BOTH))
    with pytest.raises(ConfigError, match="baselines: is not for studies"):
        study_of(edited(tmp_path, TINY, BOTH, ("[run]", "[grid]\nseeds = 2\n[run]")))
