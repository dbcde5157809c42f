"""Studies of a configuration: each cell is the run of its values; labels, data, mistakes."""

import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import softmax_data, softmax_loss, softmax_params
from segments import DATA, FEDSGD, KEY, SAMPLER, TEST, by_hand, gradient_step, loss, run
from tiny import TINY, edited

import fedjax_lite as fl
from fedjax_lite.configuration.build import Parts, build
from fedjax_lite.configuration.config import changed
from fedjax_lite.configuration.data import load_data
from fedjax_lite.configuration.grid import grid_of
from fedjax_lite.configuration.seeds import stack_seeds
from fedjax_lite.configuration.study import curves, study_of
from fedjax_lite.data.train_test import Source
from fedjax_lite.runner.environment import environment

GRID = """
[grid]
aggregator = [{ name = "mean" }, { name = "trimmed_mean", num_byzantine = 0 }]
client.optimizer.learning_rate = [0.1, 1]
seeds = 2
"""


RUN = TINY.replace("batch_size = 2", "batch_size = 2\nshuffle = false") + '[engine]\nname = "sequential"\n'  # soon compiled
LINEAR = ('"mlp"\nhidden = [3]', '"linear"')


def every_round(rounds):
    """So many rounds, and the model evaluated after each."""
    return ("rounds = 4", f"rounds = {rounds}"), ("evaluate_every = 2", "evaluate_every = 1")


@pytest.fixture
def loaded(tmp_path):
    return lambda grid, *replace, text=TINY, overrides=(): edited(tmp_path, text + grid, *replace, overrides=overrides)


def single(config, found, metric, **values):
    """What a run of the same values records of a metric in the rounds that a study evaluates; it evaluates every round."""
    values = {path.replace("__", "."): value for path, value in values.items()} | {"run.evaluate_every": 1}
    one = changed(config._replace(values={name: x for name, x in config.values.items() if name != "grid"}), values)
    return [record[metric] for record in build(one)(progress=False).history if record["round"] in found.rounds[metric]]


@pytest.mark.deep
def test_a_cell_of_a_configuration_is_the_run_of_its_values(loaded):
    config = loaded("[grid]\nclient.optimizer.learning_rate = [0.1, 1]\nseeds = 2\n", *every_round(2), text=RUN)
    found = study_of(config)(progress=False)
    assert found.programs == 1 and found.seeds == (3, 4) and found.rounds["train_loss"] == (1, 2)
    alone = single(config, found, "train_loss", client__optimizer__learning_rate=1, seed=4)
    np.testing.assert_allclose(found.results["train_loss"][1, 1], alone, rtol=1e-6)
    (data,) = found.made["data"].values()
    assert data == load_data(config, 3).train.fingerprint() and found.made["config"]["client"] == config.values["client"]
    assert found.made["code"] == environment()["code"] and found.made["seconds"] > 0 and "name" not in found.made["config"]


def test_the_last_rounds_are_evaluated_too():
    made = Parts(FEDSGD, softmax_params(), SAMPLER, loss, KEY)
    found = jax.jit(lambda source: curves(made, source, 3, 2))(Source(DATA, TEST))
    history = run(rounds=3, evaluate_every=1).history
    over_clients = {f"test_{kind}_{name}": (kind, name) for kind in ("client", "worst") for name in ("loss", "accuracy")}
    assert set(found) == {"test_loss", "test_accuracy", "loss", "clients", "update_norm", *over_clients}
    for name, values in found.items():
        expected = [record.get(name) for record in history[1:]]
        if name in over_clients:
            kind, metric = over_clients[name]
            expected = [record["test_clients"][metric]["mean" if kind == "client" else "worst_decile"] for record in history[1:]]
        np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_a_curve_is_divided_by_what_was_counted():
    """Weights that sum to less than one, and a class of which nothing is held out; what clients or examples have of their own is kept."""

    def weighted(params, batch, key):
        losses, metrics = softmax_loss(params, batch, key)
        tenth, none = 0.01 * jnp.ones_like(losses), jnp.zeros_like(losses)
        return losses, metrics | {"weighted": fl.Mean(tenth * losses, tenth), "absent": fl.Mean(none, none), "personal_loss": 3 * losses}

    def with_personal(*args):
        state, metrics = gradient_step(*args)
        return state, metrics | {"personal_loss": 2 * metrics["loss"]}

    made = Parts(by_hand(with_personal), softmax_params(), SAMPLER, weighted, KEY)
    found = jax.jit(lambda source: curves(made, source, 1, 1))(Source(DATA, TEST))
    np.testing.assert_allclose(found["test_weighted"], found["test_loss"], rtol=1e-5)
    assert np.isnan(found["test_absent"]).all()
    np.testing.assert_allclose(found["personal_loss"], 2 * found["loss"], rtol=1e-6)
    np.testing.assert_allclose(found["test_personal_loss"], 3 * found["test_loss"], rtol=1e-5)


@pytest.mark.deep
def test_cells_of_several_programs(loaded):
    config = loaded(GRID, ("rounds = 4", "rounds = 3"), text=RUN)
    found = study_of(config)(progress=False)
    assert found.programs == 2 and found.seeds == (3, 4) and found.rounds["train_loss"] == (2, 3)
    assert found.results["train_loss"].shape == (2, 2, 2, 2)
    assert [axis.labels for axis in found.axes] == [("mean", "trimmed_mean"), ("0.1", "1")]
    values = {"aggregator": {"name": "trimmed_mean", "num_byzantine": 0}, "client__optimizer__learning_rate": 1, "seed": 4}
    np.testing.assert_allclose(found.results["train_loss"][1, 1, 1], single(config, found, "train_loss", **values), rtol=1e-6)


@pytest.mark.deep
def test_a_metric_that_only_some_cells_have(loaded, tmp_path):
    grid = '[attack]\nnum_byzantine = 1\nseed = 5\n[grid]\nattack = [{ name = "label_flip" }, { name = "ipm", scale = 5 }]\nseeds = 2\n'
    found = study_of(loaded(grid, LINEAR, *every_round(1), text=RUN))(progress=False)
    assert found.programs == 2 and found.axes[0].labels == ("label_flip", "ipm")
    found.save(tmp_path / "study")
    for study_ in (found, fl.Study.load(tmp_path / "study")):
        assert study_.lacking == {f"train_{kind}attack_success": (1,) for kind in ("", "client_", "worst_")}
        first, second = study_.table("train_attack_success")
        assert first["seeds"] == 2 and (second["mean"], second["seeds"], second["diverged"], second["rank"]) == (None, 0, 0, 2)
        assert [row["seeds"] for row in study_.table("train_accuracy")] == [2, 2]


def test_attacks_of_a_grid_keep_who_mounts_them(loaded):
    config = loaded('[attack]\nbyzantine = [1]\n[grid]\nattack = [{ name = "ipm" }, { name = "nan", num_byzantine = 2 }]\n')
    values = [choice["attack"] for choice in grid_of(config).choices[0]]
    assert values == [{"byzantine": [1], "name": "ipm"}, {"name": "nan", "num_byzantine": 2}]


@pytest.mark.deep
def test_a_seed_decides_its_data_too(loaded):
    clients = re.search(r"\[\[data.clients\]\].*?(?=\[model\])", TINY, re.DOTALL)[0]
    digits = ('name = "table"', 'name = "digits"\npartition = { name = "dirichlet", clients = 4, alpha = 1.0 }')
    grid = '[grid]\n"data.partition.alpha" = [0.5, 5]\nseed = [1, 4]\n'
    config = loaded(grid, (clients, ""), digits, ("batch_size = 2", "batch_size = 8\nsteps = 2"), LINEAR, *every_round(1), text=RUN)
    found = study_of(config)(progress=False)
    assert found.programs == 2  # the seeds' data are of one shape once filled up
    alone = single(config, found, "test_loss", data__partition__alpha=5, seed=4)
    np.testing.assert_allclose(found.results["test_loss"][1, 1], alone, rtol=1e-6)
    assert len(np.unique(found.results["test_loss"][..., -1])) == 4
    data = found.made["data"]
    assert len(data) == 8 == len({x["sha256"] for x in data.values()})  # two parts, seeds, alphas
    half = changed(config, {"data.partition.alpha": 0.5})
    assert data["train of seed 4 of data.partition.alpha=0.5"] == load_data(half, 4).train.fingerprint()


@pytest.mark.deep
def test_seeds_whose_data_differ_in_shape_are_programs_of_their_own(loaded, monkeypatch):
    everyone, rates = ('"uniform"\nclients = 2', '"everyone"'), "client.optimizer.learning_rate = [0.1, 1]"
    config = loaded(f"[grid]\n{rates}\nseed = [2, 4]\n", everyone, LINEAR, *every_round(1), text=RUN)
    for module in ("fedjax_lite.configuration.build", "fedjax_lite.configuration.study"):
        monkeypatch.setattr(sys.modules[module], "load_data", lambda config, seed: Source(softmax_data((5, 3, 4, 1)[:seed]), None))
    found = study_of(config)(progress=False)
    assert found.programs == 2
    alone = single(config, found, "train_loss", client__optimizer__learning_rate=1, seed=4)
    np.testing.assert_allclose(found.results["train_loss"][1, 1], alone, rtol=1e-6)


def test_data_of_several_seeds():
    sizes = ((4, 2), (3, 3), (1, 7))
    sources = [(Source(softmax_data(n, seed), softmax_data((2, 1), seed)), 3) for seed, n in enumerate(sizes)]
    stacked = stack_seeds(sources)
    assert stacked.each == () and stacked.of(0)[0].train.largest == 7
    for place, n in enumerate(sizes):
        data = stacked.of(jnp.int32(place))[0]
        assert data.train.size.tolist() == list(n)
        np.testing.assert_array_equal(data.train.examples["x"][: sum(n)], sources[place][0].train.examples["x"])
        np.testing.assert_array_equal(data.test.examples["x"], sources[place][0].test.examples["x"])
    assert len(stack_seeds([sources[0], sources[0]]).each) == 1
    for other in ((Source(softmax_data((1, 2, 3)), None), 3), (sources[1][0], 4)):  # more clients; more classes
        apart = stack_seeds([sources[0], other])
        assert apart.of(1) == other
        with pytest.raises(TypeError, match="each seed needs a program of its own"):
            apart.of(jnp.int32(1))


def test_labels_numbers_and_dots(loaded):
    grid = grid_of(loaded('[grid.client]\noptimizer.learning_rate = [0.1, 1]\n[grid]\n"client.epochs" = [1, { name = "x" }]\nseed = [7]\n'))
    assert [axis.names for axis in grid.axes] == [("client.optimizer.learning_rate",), ("client.epochs",)] and grid.seeds == (7,)
    assert grid.origins["client.optimizer.learning_rate"].place.endswith("tiny.toml:28") and grid.origins["client.epochs"].place.endswith(
        ":30"
    )
    assert grid_of(loaded("[grid]\nclient.epochs = [1]\n")).seeds == (3, 4, 5, 6, 7)
    assert grid_of(loaded("[grid]\nseeds = 2")).axes == ()
    assert (
        grid_of(loaded("", overrides=["grid.client.epochs=[1]", "grid.seeds=1"])).origins["client.epochs"].place
        == "--set grid.client.epochs=[1]"
    )


MISTAKES = {
    "section": ("[grid]\nagregator = [1]", 28, r"grid.agregator: unknown section 'agregator'; did you mean 'aggregator'"),
    "no list": ("[grid]\nclient.epochs = 3", 28, r"grid.client.epochs: must be a list of values, got 3"),
    "empty": ("[grid]\nclient.epochs = []", 28, r"grid.client.epochs: is an empty list"),
    "twice": ("[grid]\nclient.epochs = [1, 1]", 28, r"grid.client.epochs: has 1 twice"),
    "run": ("[grid]\nrun.rounds = [1]", 28, r"grid.run.rounds: run.rounds cannot vary in a study"),
    "nan": ("[grid]\nclient.optimizer.learning_rate = [nan]", 28, r"grid.client.optimizer.learning_rate\[0\]: is nan: give a number"),
    "inf": ("[grid]\nclient.optimizer.learning_rate = [inf, 0.1]", 28, r"client.optimizer.learning_rate: must be finite"),
    "truth": (
        "[grid]\nclient.optimizer.learning_rate = [true]",
        28,
        r"client.optimizer.learning_rate: must be a number.*, got True; in the",
    ),
    "negative": ("[grid]\nclient.epochs = [1, 0]", 28, r"client.epochs: must be .* at least 1, .*got 0; in the cell client.epochs=0"),
    "key": ("[grid]\nclient.epoch = [1]", 28, r"client.epoch: unknown key; did you mean 'epochs'"),
    "name": ('[grid]\naggregator = ["medan", "mean"]', 28, r"aggregator.name: unknown aggregator 'medan'; did you mean 'median'"),
    "name in a table": ('[grid]\naggregator = [{ name = "medan" }]', 28, r"aggregator.name: unknown .* in the cell aggregator=medan"),
    "not a table": ("[grid]\naggregator.name.x = [1]", 28, r"aggregator.name.x: aggregator.name is 'weighted_mean', not a table"),
    "argument": (
        '[grid]\naggregator = [{ name = "trimmed_mean" }]',
        28,
        r"aggregator: give num_byzantine; in the cell aggregator=trimmed_mean",
    ),
    "data": ("[grid]\ndata.clients = [[]]", 28, r"data.clients: .*; in the cell data.clients=\[\]"),
    "seeds": ("[grid]\nclient.epochs = [1]\nseeds = 0", 29, r"grid.seeds: must be a whole number of at least 1, got 0"),
    "seed": ("[grid]\nclient.epochs = [1]\nseed = [1, -1]", 29, r"grid.seed: seeds must be"),
    "both": ("[grid]\nclient.epochs = [1]\nseed = [1]\nseeds = 2", 30, r"grid.seeds: give seeds \(how many\) or seed \(a list\), not both"),
    "option": ("checkpoint_every = 2\n[grid]\nclient.epochs = [1]", 27, r"run.checkpoint_every: is not for studies"),
}


@pytest.mark.parametrize("grid, line, message", MISTAKES.values(), ids=MISTAKES)
def test_mistakes_in_a_grid_name_the_line(loaded, grid, line, message):
    with pytest.raises(ValueError, match=f"tiny.toml:{line}: {message}") as refused:
        study_of(loaded(grid))(progress=False)
    assert "\n" not in str(refused.value)


def test_a_study_needs_a_grid(loaded):
    with pytest.raises(ValueError, match=r"tiny.toml: grid: a study needs a table \[grid\], such as"):
        study_of(loaded(""))
    with pytest.raises(ValueError, match="--set grid=3: grid: must be a table, got 3"):
        loaded("", overrides=["grid=3"])
