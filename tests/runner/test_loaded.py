"""A run read back from its folder: everything it wrote, the model made again, and what is absent or damaged in words."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from segments import by_hand

import fedjax_lite as fl
from fedjax_lite.runner.architecture import architecture_of, save_architecture
from fedjax_lite.runner.client_table import save_table
from fedjax_lite.runner.model_file import save_params

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 4)).astype(np.float32)
DATA = fl.FederatedData.from_clients([{"x": X[:7], "y": np.arange(7) % 3}, {"x": X[7:], "y": np.arange(5) % 3}])
MODEL = fl.models.mlp((5,), classes=3, norm="batch")
PARAMS = MODEL.init(jax.random.key(0), DATA.example)


def still(state, data, cohort):
    """A round that leaves the model as it is."""
    metrics = {"loss": jnp.float32(1), "clients": jnp.sum(cohort.weight > 0).astype(jnp.float32), "update_norm": jnp.float32(0)}
    return state._replace(round=state.round + 1), metrics


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run, and its result."""
    out = tmp_path_factory.mktemp("loaded") / "run"
    options = {"loss_fn": fl.models.supervised(MODEL), "evaluate_every": 2, "config": {"seed": 3}, "progress": False, "out": out}
    return out, fl.run(by_hand(still), DATA, PARAMS, fl.sampling.everyone(), rounds=2, key=jax.random.key(0), **options)


def written(folder, model=MODEL, params=PARAMS, example=DATA.example, status="finished", **summary):
    """A folder with what a run of this model writes."""
    folder.mkdir(exist_ok=True)
    (folder / "summary.json").write_text(json.dumps({"status": status, **summary}))
    save_params(folder, params)
    save_architecture(folder, architecture_of(fl.models.supervised(model), params, example))
    return folder


def same(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y, strict=True), a, b)


def test_a_run_comes_back_ready_to_predict(finished):
    """Of a model with running statistics, which no argument of load_run says."""
    out, result = finished
    run = fl.load_run(str(out))
    same(run.params, result.params)
    assert isinstance(run.params, fl.models.WithStatistics)
    assert run.config == {"seed": 3} and run.summary["status"] == "finished" and run.history == result.history and run.words is None
    assert run.clients.keys() == result.clients.keys() and run.clients["examples"].dtype == np.int64
    jax.tree.map(np.testing.assert_array_equal, run.clients, result.clients)
    wanted = MODEL.apply(result.params, {"x": X}, None)
    for inputs in (X, {"x": X}, {"x": X, "y": np.zeros(12, int)}):
        np.testing.assert_allclose(run.predict(inputs), wanted, rtol=1e-5)
    assert run.predict(X[:0]).shape == (0, 3) and run.example["x"].shape == (4,)


def test_the_architecture_in_words(finished):
    assert json.loads((finished[0] / "model.json").read_text()) == {
        "name": "mlp",
        "arguments": {"hidden": [5], "classes": 3, "norm": "batch", "statistics": "averaged"},
        "example": {"x": "float32[4]", "y": "int32[]"},
        "outputs": "float32[3]",
        "parameters": 4 * 5 + 5 + 2 * 5 + 2 * 5 + 5 * 3 + 3,
        "fedjax_lite": fl.runner.environment.environment()["code"]["fedjax-lite"],
    }


def test_a_model_that_no_file_holds_is_given(tmp_path):
    model = fl.models.from_linen(nn.Dense(3))
    params = model.init(jax.random.key(0), DATA.example)
    run = fl.load_run(written(tmp_path, model, params))
    same(run.params, params)
    assert run.model is None
    with pytest.raises(ValueError, match="the model of the run cannot be made again .it was made of functions .*: give the model that was"):
        run.predict(X)
    given = fl.load_run(tmp_path, model)
    same(given.params, params)
    np.testing.assert_allclose(given.predict(X), model.apply(params, {"x": X}, None), rtol=1e-5)


def test_without_an_architecture_leaves_are_named_and_a_model_can_be_given(tmp_path):
    written(tmp_path)
    (tmp_path / "model.json").unlink()
    run = fl.load_run(tmp_path)
    same(run.params, PARAMS)
    with pytest.raises(ValueError, match="there is no model.json: the run.s loss_fn told of no model, .*; give the model that was trained"):
        run.predict(X)
    np.testing.assert_allclose(fl.load_run(tmp_path, model=MODEL).predict(X), MODEL.apply(PARAMS, {"x": X}, None), rtol=1e-5)


def test_another_model_is_refused_by_its_leaf(tmp_path):
    with pytest.raises(ValueError, match=r"leaf 'Dense_0/bias' should be float32\[9\], the file has no such leaf: give the model that"):
        fl.load_run(written(tmp_path), fl.models.mlp((9,), classes=3))
    with pytest.raises(ValueError, match=r"the model is not for the run's examples, x float32\[4\], y int32\[\]: "):
        fl.load_run(tmp_path, fl.models.lenet5())


def test_the_best_model_where_one_was_kept(tmp_path):
    with pytest.raises(ValueError, match="there is no best.safetensors yet, .*: let it end, or resume it, with keep_best"):
        fl.load_run(written(tmp_path), best=True).predict(X)
    kept = jax.tree.map(lambda x: x + 1, PARAMS)
    save_params(tmp_path, kept, "best.safetensors")
    same(fl.load_run(tmp_path, best=True).params, kept)
    same(fl.load_run(tmp_path).params, PARAMS)


def test_half_precision_stays(tmp_path):
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    same(fl.load_run(written(tmp_path, params=params)).params, params)


def test_a_model_of_several_inputs_takes_a_dict(tmp_path):
    model = fl.models.Model(lambda key, example: {"w": jnp.ones(())}, lambda params, batch, key: params["w"] * (batch["a"] + batch["b"]))
    example = {"a": np.float32(1), "b": np.float32(2), "y": np.int32(0)}
    run = fl.load_run(written(tmp_path, model, model.init(None, example), example), model)
    batch = {"a": np.ones(2, np.float32), "b": np.ones(2, np.float32)}
    assert run.predict(batch).tolist() == [2, 2]
    with pytest.raises(ValueError, match="predict: the model reads the leaves a, b: give a dict of them"):
        run.predict(batch["a"])
    with pytest.raises(ValueError, match="predict: the model reads the leaf 'b', and the batch has a"):
        run.predict({"a": batch["a"]})
    with pytest.raises(ValueError, match=r"predict: b must be \[batch\], got the shape \[\]"):
        run.predict(batch | {"b": np.float32(1)})


@pytest.mark.parametrize("status", ["running", "diverged", "failed"])
def test_what_has_not_ended_has_no_model_yet(tmp_path, status):
    (tmp_path / "summary.json").write_text(json.dumps({"status": status}))
    (tmp_path / "metrics.jsonl").write_text('{"round": 1, "loss": 0.5}\n{"round": 2, "lo')
    run = fl.load_run(tmp_path)
    assert (run.config, run.params, run.model, run.clients, run.history) == ({}, None, None, {}, [{"round": 1, "loss": 0.5}])
    with pytest.raises(ValueError, match=f"there is no params.safetensors yet, the run's status is '{status}': let it end, or resume it"):
        run.predict(X)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("summary.json", "{"),
        ("summary.json", "[" * 100_000),
        ("summary.json", "[]"),
        ("config.toml", "a ="),
        ("words.json", "{}"),
        ("model.json", "no"),
        ("model.json", "{}"),
        ("model.json", '{"example": {"x": 3}}'),
        ("params.safetensors", "no"),
        ("clients.csv", "id,loss\n1,0.5,7\n"),
        ("clients.csv", "id,loss\n1,low\n"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, file, text):
    (written(tmp_path) / file).write_text(text)
    if (file, text) == ("model.json", "{}"):
        assert fl.load_run(tmp_path).model is None
        return
    with pytest.raises(ValueError, match=f"{tmp_path / file} is damaged"):
        fl.load_run(tmp_path)


def test_folders_without_a_run(tmp_path):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.json").write_text("{}")
    for folder, why in ((tmp_path / "none", "is no folder"), (tmp_path, "holds no run"), (tmp_path / "study", "holds a study")):
        with pytest.raises(ValueError, match=f"load_run: {folder} {why}.*: give the folder that fl.run"):
            fl.load_run(folder)


def test_a_table_of_clients_comes_back_with_its_types(tmp_path):
    table = {"id": np.arange(2), "name": np.array(["007", "b, c"], object), "test_loss": np.array([0.5, np.nan])}
    save_table(written(tmp_path), table)
    found = fl.load_run(tmp_path).clients
    assert found["name"].tolist() == ["007", "b, c"] and found["id"].dtype == np.int64 and found["id"].tolist() == [0, 1]
    np.testing.assert_array_equal(found["test_loss"], table["test_loss"])
    save_table(tmp_path, {"id": np.arange(0)})
    assert fl.load_run(tmp_path).clients["id"].shape == (0,)


def test_losses_that_tell_of_no_model_or_of_another(tmp_path):
    assert architecture_of(None, PARAMS, DATA.example) is None
    assert architecture_of(lambda params, batch, key: 0, PARAMS, DATA.example) is None
    assert architecture_of(fl.models.supervised(fl.models.mlp((6,), classes=3)), PARAMS, DATA.example) is None
    assert architecture_of(fl.models.supervised(fl.models.lenet5()), PARAMS, DATA.example) is None
    save_architecture(written(tmp_path), None)
    assert not (tmp_path / "model.json").exists()
