"""The user's own code by name, and paths: what they are relative to, how they are checked, what a run keeps of them."""

import json
import os
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from pages import ROOT
from tiny import QUICK, TINY, after_a_round, edited, first_round, replaced

import fedjax_lite as fl
from fedjax_lite import cli
from fedjax_lite.configuration.build import build
from fedjax_lite.configuration.code import fingerprints
from fedjax_lite.configuration.config import load
from fedjax_lite.configuration.data import load_data
from fedjax_lite.configuration.registry import make
from fedjax_lite.configuration.study import study_of
from fedjax_lite.configuration.table import ConfigError

OF_DATA = TINY[TINY.index("[data]") : TINY.index("[model]")]
CODE = '''\
"""Parts of a user's own, with a module beside it."""
import fedjax_lite as fl
import jax
import jax.numpy as jnp
import optax
from beside import FACTOR

def rule(scale: float = 1.0):
    def weighed(message, client):
        return jax.tree.map(lambda x: scale * FACTOR * client.weight * x, message)

    return fl.aggregators.from_sum(weighed, lambda total: total)

def data(seed: int, clients: int):
    return fl.FederatedData.from_clients([{"x": jnp.ones((2, 2)) * k, "y": jnp.array([0, 1])} for k in range(clients)])

def model(classes: int, width: int = 1):
    return fl.models.mlp((width,), classes=classes)

def loss(model, smoothing: float):
    plain = fl.models.supervised(model)
    return lambda params, batch, key: (1 - smoothing) * plain(params, batch, key)[0]

def term(decay: float):
    return optax.add_decayed_weights(decay)

def attack():
    return fl.attacks.sign_flip()

def sampler(first: int):
    return lambda key, sizes, round: fl.sampling.cohort(key, sizes, jnp.array([first]))

def partition(clients: int):
    return lambda rng, labels: [[k] for k in range(clients)]

def algorithm(loss_fn, optimizer, *, batches, population, aggregator=None, rho: float):
    return fl.algorithms.fedavg(loss_fn, optimizer, batches=batches, population=population, aggregator=aggregator)

def wrong():
    return 3

def needy(function: type):
    return function

def fails(depth: int):
    return 1 / 0

number = 3
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the user's code and a package, in which one does not stand."""
    here = tmp_path / "project"
    here.mkdir()
    (here / "mine.py").write_text(CODE)
    (here / "beside.py").write_text("FACTOR = 1.0\n")
    (here / "package_of_tests").mkdir()
    (here / "package_of_tests" / "__init__.py").write_text("")
    (here / "package_of_tests" / "parts.py").write_text(
        "from fedjax_lite.aggregators import median as rule\n\ndef middle():\n    return rule()\n"
    )
    monkeypatch.chdir(tmp_path)
    return here


def test_every_kind_of_part_can_be_the_users(folder):
    """All in one file; what only meets in a round is traced, and each part is seen in what comes of it."""
    replace = (
        (OF_DATA, '[data]\nname = "mine.py:data"\nclients = 3\n'),
        ('name = "mlp"\nhidden = [3]', 'name = "mine.py:model"\nwidth = 5\nloss = { name = "mine.py:loss", smoothing = 0.5 }'),
        ('{ name = "sgd", learning_rate = 0.1 }', '[{ name = "mine.py:term", decay = 0.1 }, { name = "sgd", learning_rate = 0.1 }]'),
        ("batch_size = 2", 'batch_size = 2\nuplink = { name = "mine.py:term", decay = 0.0 }'),
        ('name = "uniform"\nclients = 2', 'name = "mine.py:sampler"\nfirst = 2'),
        ('name = "weighted_mean"', 'name = "mine.py:rule"\nscale = 0.5\n[attack]\nname = "mine.py:attack"\nbyzantine = [0]'),
    )  # fmt: skip
    config = edited(folder, TINY, *replace)
    round, data = first_round(config)
    assert data.size.tolist() == [2, 2, 2]
    params, metrics = jax.eval_shape(round, data)
    assert params["Dense_0"]["kernel"].shape == (2, 5) and metrics.keys() >= {"loss", "clients"} and "accuracy" not in metrics
    assert fingerprints(config).keys() == {f"mine.py:{name}" for name in ("data", "model", "loss", "term", "sampler", "rule", "attack")}
    assert len(set(fingerprints(config).values())) == 1


def test_a_partition_and_an_algorithm(folder):
    sections = TINY[TINY.index("[aggregator]") : TINY.index("[run]")]
    digits = OF_DATA, '[data]\nname = "digits"\ntest = 0\npartition = { name = "mine.py:partition", clients = 4 }\n'
    config = edited(folder, TINY, digits, (sections, '[algorithm]\nname = "mine.py:algorithm"\nrho = 0.5\n'))
    assert load_data(config, 0).train.size.tolist() == [1] * 4
    build(config)
    with pytest.raises(ConfigError, match=r"tiny.toml:\d+: algorithm: give rho$"):
        build(edited(folder, TINY, digits, (sections, '[algorithm]\nname = "mine.py:algorithm"\n')))


def test_code_computes_what_the_librarys_own_would(folder):
    """Half of a sum over two clients, of a file; and a rule of a package beside it."""
    names = '"mine.py:rule"\nscale = 0.5', '"mean"'
    found, expected = (after_a_round(edited(folder, TINY, ('"weighted_mean"', name), *QUICK))[0] for name in names)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected)
    rule = make(edited(folder, TINY, ('"weighted_mean"', '"package_of_tests.parts:middle"')).at("aggregator"), "aggregator")
    assert isinstance(rule, fl.Aggregator)


MISTAKES = {
    "no file": ('"yours.py:rule"', r"tiny.toml:21: aggregator.name: cannot read yours.py: No such file"),
    "no function": ('"mine.py:rull"', r"tiny.toml:21: aggregator.name: 'rull' is not in mine.py; did you mean 'rule'\?; there are rule"),
    "a number": ('"mine.py:number"', r"aggregator.name: 'number' is no function in mine.py"),
    "no module": ('"nowhere.parts:rule"', r"aggregator.name: ModuleNotFoundError: No module named 'nowhere'"),
    "an unknown key": ('"mine.py:rule"\nscales = 1', r"tiny.toml:22: aggregator.scales: unknown key; did you mean 'scale'"),
    "another type": ('"mine.py:rule"\nscale = "1"', r"tiny.toml:22: aggregator.scale: must be a number, got '1'"),
    "another part": ('"mine.py:wrong"', r"aggregator.name: must make an Aggregator, and makes int"),
    "what nothing can give": ('"mine.py:needy"', r"aggregator: needy requires function, which no configuration can give"),
    "what it raises": ('"mine.py:fails"\ndepth = 1', r"aggregator: mine.py:\d+: ZeroDivisionError: division by zero"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(folder, name):
    own, message = MISTAKES[name]
    with pytest.raises(ConfigError, match=message):
        build(edited(folder, TINY, ('"weighted_mean"', own)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def rule(:\n    pass\n", r"broken.py:1: invalid syntax"),
        ("\nx = nothing\n", r"broken.py:2: NameError: name 'nothing' is not defined"),
    ],
)
def test_a_file_that_does_not_run(folder, text, message):
    (folder / "broken.py").write_text(text)
    with pytest.raises(ConfigError, match=message):
        build(edited(folder, TINY, ('"weighted_mean"', '"broken.py:rule"')))


@pytest.mark.parametrize("text", ["import sys\nsys.exit(3)\n", "raise ValueError('of\\nlines')\n", "import broken_beside\n"])
def test_what_ends_a_file_is_one_line(folder, text):
    (folder / "broken_beside.py").write_text("x = 1\ndef f(:\n")
    (folder / "ends.py").write_text(text)
    with pytest.raises(ConfigError, match=r"aggregator.name: (ends.py:\d: (SystemExit|ValueError)|broken_beside.py:2: invalid)") as caught:
        build(edited(folder, TINY, ('"weighted_mean"', '"ends.py:rule"')))
    assert "\n" not in str(caught.value)


def test_annotations_that_python_cannot_evaluate_admit_everything(folder):
    text = "from __future__ import annotations\nimport fedjax_lite as fl\ndef rule(share: Nowhere = 0.1, why: 'a reason' = 1):\n"
    (folder / "annotated.py").write_text(text + "    return fl.aggregators.mean()\n")
    config = edited(folder, TINY, ('"weighted_mean"', '"annotated.py:rule"\nshare = 0.5'))
    assert isinstance(make(config.at("aggregator"), "aggregator"), fl.Aggregator)


def test_the_code_that_runs_is_the_code_that_is_hashed(tmp_path):
    """A module that changes, and modules and files beside them of the same names in another folder."""
    made = {}
    for place, number in (("a", 1), ("b", 2), ("a", 3)):
        folder = tmp_path / place
        folder.mkdir(exist_ok=True)
        (folder / "beside_of_tests.py").write_text(f"NUMBER = {number}\n")
        own = f"from beside_of_tests import NUMBER\nimport fedjax_lite as fl\nOWN = {number}\n"
        for name in ("file", "module_of_tests"):
            (folder / f"{name}.py").write_text(own + "def rule():\n    return fl.aggregators.from_stack(lambda m, c: (NUMBER, OWN))\n")
        for name in ("file.py:rule", "module_of_tests:rule"):
            config = edited(folder, TINY, ('"weighted_mean"', f'"{name}"'))
            rule = make(config.at("aggregator"), "aggregator")
            assert rule.finish((None, None), (), None)[0] == (number, number), (place, number, name)
            made[place, number, name] = fingerprints(config)[name]
    assert len(set(made.values())) == 3


@pytest.mark.deep
def test_code_that_changes_is_another_run(folder, capsys):
    """Its hash is kept with the run's settings: resumed with other code it is refused; what was run can be run again from its folder's."""
    file, out = folder / "a.toml", folder / "run"
    file.write_text(replaced(TINY, ('"weighted_mean"', '"mine.py:rule"'), *QUICK))
    run = ["run", str(file), "--quiet", "--devices", "1", "--out", str(out), "--set", "run.evaluate_every=1"]
    assert cli.main([*run, "--set", "run.rounds=1"]) == 0
    assert load(out / "config.toml").values["code"] == fingerprints(load(file))
    (folder / "mine.py").write_text(CODE.replace("scale: float = 1.0", "scale: float = 0.5"))
    assert cli.main([*run, "--resume"]) == 2
    assert re.search(r"error: .*code.mine.py:rule was '\w{16}', is now '\w{16}'", capsys.readouterr().err)
    (folder / "again.toml").write_text((out / "config.toml").read_text())
    assert cli.main(["plan", str(folder / "again.toml"), "--devices", "1"]) == 2
    assert "code.mine.py:rule: is no longer the code that this was run with: leave [code] out" in capsys.readouterr().err


@pytest.mark.deep
def test_a_study_keeps_the_hash(folder):
    grid = '[grid]\naggregator = ["mean", "mine.py:rule"]\nseeds = 1\n[run]'
    study = study_of(edited(folder, TINY, ("[run]", grid), *QUICK))(progress=False)
    assert study.made["own code"].keys() == {"mine.py:rule"} and study.axes[0].labels == ("mean", "mine.py:rule")


LEAF = '{"users": ["a"], "num_samples": [2], "user_data": {"a": {"x": [[0.0, 1.0], [1.0, 0.0]], "y": [0, 1]}}}'
OF_LEAF = (OF_DATA, '[data]\nname = "leaf"\npath = "shards"\ntest = 0\n'), ("clients = 2", "clients = 1")


def with_shards(folder, name="shards"):
    (folder / name).mkdir()
    (folder / name / "all.json").write_text(LEAF)
    return folder / name


def test_a_path_is_relative_to_where_it_was_written(folder, tmp_path, monkeypatch):
    """To the file's folder in the file, to where one stands in --set; ~ is home; a study's to the file's as well."""
    with_shards(folder), with_shards(tmp_path, "others"), with_shards(tmp_path, "in_home")
    monkeypatch.setenv("HOME", str(tmp_path))
    for overrides in ([], ["data.path=others"], ["data.path=~/in_home"], [f"data.path={folder / 'shards'}"]):
        assert load_data(edited(folder, TINY, *OF_LEAF, overrides=overrides), 0).population == 1
    with pytest.raises(ConfigError, match=re.escape(f"path='{Path('shards')}' is not a folder")):
        load_data(edited(folder, TINY, *OF_LEAF, overrides=["data.path=shards"]), 0)
    study_of(edited(folder, TINY, *OF_LEAF, ("[run]", '[grid]\ndata.path = ["shards"]\nseeds = 1\n[run]')))  # loads what it will need
    with pytest.raises(ConfigError, match="of '~nobody_at_all/x'"):
        load_data(edited(folder, TINY, *OF_LEAF, overrides=["data.path=~nobody_at_all/x"]), 0)


@pytest.mark.deep
def test_the_summary_tells_where_a_path_led_and_the_settings_hold_from_anywhere(folder, tmp_path):
    shards = with_shards(folder)
    (folder / "a.toml").write_text(
        replaced(TINY, *OF_LEAF, *QUICK, ("rounds = 4", "rounds = 1"), ("evaluate_every = 2", "evaluate_every = 1"))
    )
    assert cli.main(["run", "project/a.toml", "--quiet", "--devices", "1", "--out", "there"]) == 0
    assert json.loads((tmp_path / "there" / "summary.json").read_text())["paths"] == {"data.path": str(shards)}
    assert load_data(load(tmp_path / "there" / "config.toml"), 0).population == 1


@pytest.mark.deep
def test_a_run_is_resumed_where_its_data_lies_elsewhere(folder, tmp_path):
    with_shards(folder)
    (folder / "a.toml").write_text(replaced(TINY, *OF_LEAF, *QUICK, ("evaluate_every = 2", "evaluate_every = 1")))
    run = ["--quiet", "--devices", "1", "--out", "there"]
    assert cli.main(["run", "project/a.toml", *run, "--set", "run.rounds=1"]) == 0
    os.rename(folder, tmp_path / "elsewhere")
    assert cli.main(["run", "elsewhere/a.toml", *run, "--set", "run.rounds=2", "--resume"]) == 0


@pytest.mark.deep
def test_the_example_of_the_docs_is_a_configuration(folder):
    """Its file, its tables and its algorithm, put into a whole configuration."""
    page = (ROOT / "docs" / "configurations.md").read_text()
    (folder / "mine.py").write_text(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0])
    tables = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    rest = TINY[TINY.index("[sampling]") : TINY.index("[aggregator]")] + TINY[TINY.index("[run]") :]
    begin = 'name = "docs"\n' + OF_DATA
    texts = {
        "named": begin + '[model]\nname = "mlp"\n' + tables[0] + rest,
        "parts": begin + tables[1] + '[server]\noptimizer = { name = "sgd", learning_rate = 1.0 }\n' + rest,
        "algorithm": begin + '[model]\nname = "mlp"\n' + tables[0].replace('"fedavgm"\nmomentum', '"mine.py:proximal"\nmu') + rest,
    }
    for name, text in texts.items():
        (folder / f"{name}.toml").write_text(text)
        build(load(folder / f"{name}.toml"))
