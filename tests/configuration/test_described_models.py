"""The models that configurations name are described in a run's folder, and made again: the library's, and the user's."""

import json
import subprocess

import jax
import numpy as np
import pytest
from problems import softmax_data
from tiny import TINY, edited

import fedjax_lite as fl
from fedjax_lite.configuration.data import load_data, outputs_of
from fedjax_lite.configuration.model import architectures
from fedjax_lite.models.made import made_of
from fedjax_lite.runner.architecture import architecture_of, save_architecture
from fedjax_lite.runner.model_file import save_params
from fedjax_lite.runner.own_code import hash_of

CODE = """\
import jax.numpy as jnp
import fedjax_lite as fl

def scaled(classes: int, scale: float = 2.0):
    inner = fl.models.linear(classes)
    return fl.models.Model(inner.init, lambda params, batch, key=None: scale * inner.apply(params, batch, key))

def small(classes: int):
    return fl.models.mlp((3,), classes=classes)

def loss(model):
    plain = fl.models.supervised(model)
    return lambda params, batch, key: plain(params, batch, key)[0]
"""
MODEL = 'name = "mlp"\nhidden = [3]'


def run_of(folder, table):
    """The folder of a run that has ended at the start, its model and its parameters."""
    config = edited(folder, TINY, (MODEL, table))
    source = load_data(config, 0)
    [one] = architectures(config, outputs_of(config, source), source)
    params = jax.tree.map(lambda x: x + 1, one.model.init(jax.random.key(0), source.example))
    out = folder / "run"
    out.mkdir(exist_ok=True)
    (out / "summary.json").write_text('{"status": "finished"}')
    save_params(out, params)
    save_architecture(out, architecture_of(one.loss_fn, params, source.example))
    return out, one.model, params


def alike(run, model, params):
    x = np.ones((2, 2), np.float32)
    np.testing.assert_allclose(run.predict(x), model.apply(params, {"x": x}, None), rtol=1e-6)


def test_the_librarys_model_comes_back(tmp_path):
    out, model, params = run_of(tmp_path, MODEL)
    alike(fl.load_run(out), model, params)
    assert json.loads((out / "model.json").read_text())["arguments"]["classes"] == 3


@pytest.mark.parametrize("name", ["mine.py", "of_mine_alone"])
def test_the_users_model_comes_back_while_its_file_is_unchanged(tmp_path, monkeypatch, name):
    (tmp_path / f"{name.removesuffix('.py')}.py").write_text(CODE)
    out, model, params = run_of(tmp_path, f'name = "{name}:scaled"\nscale = 3.0\nloss = {{ name = "{name}:loss" }}')
    monkeypatch.chdir(out)
    alike(fl.load_run(out, own_code=True), model, params)
    described = json.loads((out / "model.json").read_text())
    assert described["name"] == f"{name}:scaled" and described["arguments"] == {"classes": 3, "scale": 3.0}
    (tmp_path / f"{name.removesuffix('.py')}.py").write_text(CODE + "raise SystemExit\n")
    run = fl.load_run(out, own_code=True)
    assert run.model is None and run.params["Dense_0"]["kernel"].shape == (2, 3)
    with pytest.raises(ValueError, match=f"the model {name}:scaled cannot be made again"):
        run.predict(np.ones((2, 2)))
    alike(fl.load_run(out, model), model, params)


def test_a_file_of_code_that_is_gone_or_changed_is_named(tmp_path):
    (tmp_path / "mine.py").write_text(CODE)
    out, model, params = run_of(tmp_path, 'name = "mine.py:scaled"')
    (tmp_path / "mine.py").write_text(CODE + "1 / 0\n")
    with pytest.raises(ValueError, match=r"mine.py is no longer what it was\): give the model that was trained"):
        fl.load_run(out, own_code=True).predict(np.ones((2, 2)))
    (tmp_path / "mine.py").unlink()
    with pytest.raises(ValueError, match=r"No such file .*mine.py.*: give the model that was trained"):
        fl.load_run(out, own_code=True).predict(np.ones((2, 2)))


def test_code_that_a_folder_names_runs_only_where_it_is_allowed(tmp_path):
    """A folder that somebody sent can name any function, of Python's own modules too, whose hashes are known."""
    out, _, params = run_of(tmp_path, MODEL)
    described = json.loads((out / "model.json").read_text())
    trap, code = tmp_path / "trap", {"folder": "/", "sha256": hash_of(subprocess)}
    evil = {"name": "subprocess:getoutput", "arguments": {"cmd": f"touch {trap}"}, "code": code}
    wrapped = {"name": "normalised", "arguments": {"model": {"model": evil}, "mean": 0.0, "std": 1.0}}
    for bad in (evil, wrapped):
        (out / "model.json").write_text(json.dumps(described | bad))
        run = fl.load_run(out)
        assert run.model is None and not trap.exists() and run.params["Dense_0"]["kernel"].shape == params["Dense_0"]["kernel"].shape
        with pytest.raises(ValueError, match="it is code of /, which runs only where you allow it: own_code=True"):
            run.predict(np.ones((2, 2)))
    (out / "model.json").write_text(json.dumps(described | evil))
    with pytest.raises(ValueError, match="it makes a str, and no fl.models.Model"):
        fl.load_run(out, own_code=True).predict(np.ones((2, 2)))
    assert trap.exists()


def test_a_function_that_returns_a_network_of_the_library_is_that_network(tmp_path):
    (tmp_path / "mine.py").write_text(CODE)
    _, model, _ = run_of(tmp_path, 'name = "mine.py:small"')
    assert made_of(model)["name"] == "mlp" and made_of(model)["arguments"]["hidden"] == [3]


def test_a_loss_of_other_parameters_is_not_described():
    data = softmax_data()
    assert architecture_of(fl.models.supervised(fl.models.logistic(2)), {"w": np.zeros(3)}, data.example) is None
