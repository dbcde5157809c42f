"""What [model] says of its loss: of labels 0 and 1, and with the data's own class counts."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_lite as fl
from fedjax_lite.configuration.build import build, parts, settings_kept
from fedjax_lite.configuration.config import load
from fedjax_lite.configuration.data import load_data, outputs_of
from fedjax_lite.configuration.model import architectures
from fedjax_lite.configuration.start import where_learning
from fedjax_lite.configuration.table import Config, ConfigError
from fedjax_lite.data.train_test import Source
from fedjax_lite.runner.model_file import save_params


def source_of(*labels):
    return Source(fl.FederatedData.from_clients([{"x": np.ones((len(y), 2), np.float32), "y": np.array(y)} for y in labels]), None)


def built(source, **model):
    config = Config({"model": {"name": "mlp", "hidden": [], **model}})
    [one] = architectures(config, outputs_of(config, source), source)
    return one


@pytest.mark.parametrize("loss, labels, outputs", [("binary", [[0, 1], [1]], 1), ("multilabel", [[[0, 1, 1]], [[1, 0, 0]]], 3)])
def test_labels_of_0_and_1_decide_the_number_of_outputs(loss, labels, outputs):
    source = source_of(*labels)
    one = built(source, loss=loss, label_smoothing=0.1)
    shapes = jax.eval_shape(one.model.init, jax.random.key(0), source.example)
    assert shapes["Dense_0"]["bias"].shape == (outputs,)
    one.loss_fn.check(shapes, source.train, "data")
    losses, _ = jax.eval_shape(one.loss_fn, shapes, source.train.examples, None)
    assert losses.shape == (sum(map(len, labels)),)
    with pytest.raises(ConfigError, match=f"are numbers, which is not what the loss '{loss}' is for"):
        outputs_of(Config({"data": {"labels": "numbers"}, "model": {"loss": loss}}), source)


@pytest.mark.deep
def test_words_decide_the_number_of_outputs_and_of_tokens():
    named = lambda labels, words: Source(replace(source_of(*labels).train, words=words), None)  # noqa: E731
    assert outputs_of(Config({}), named([[0, 1], [1]], ("cat", "dog", "eel"))) == (3, "softmax")  # no eel is there
    text = named([[[1, 2]], [[2, 0]]], ("<pad>", "a", "b", "<unknown>"))
    text = text._replace(train=replace(text.train, examples=text.train.examples | {"x": text.train.examples["y"]}))
    one = built(text, name="char_lstm", hidden=2, class_counts="own")  # words are classes, and the word that fills up is no target
    params = one.model.init(jax.random.key(0), text.example)
    losses, _ = one.loss_fn(params, text.train.examples, None)
    assert losses.value().shape == (2,) and one.loss_fn.check.args[0].class_counts.tolist() == [[0, 1, 1, 0], [0, 0, 1, 0]]
    assert one.loss_fn.check.args[0].ignore == 0 and outputs_of(Config({"model": {"name": "char_lstm"}}), text) == (4, "softmax")
    assert built(text, name="char_lstm", hidden=2, ignore=3).loss_fn.check.args[0].ignore == 3
    assert (
        built(text._replace(train=replace(text.train, words=("b", "a", "c", "d"))), name="char_lstm", hidden=2).loss_fn.check.args[0].ignore
        is None
    )


@pytest.mark.deep
def test_the_datas_own_class_counts():
    source = source_of([0, 0, 2], [1])
    counts = {name: built(source, class_counts=name).loss_fn.check.args[0].class_counts.tolist() for name in ("own", "all")}
    assert counts == {"own": [[2, 0, 1], [0, 1, 0]], "all": [2, 1, 1]}
    train = source.train
    more = jax.tree.map(lambda x: jnp.concatenate([x, x[-1:], x[-1:]]), train.examples)
    filled = Source(replace(train, examples=more), None)  # as in a study, whose seeds differ in the number of examples
    assert built(filled, class_counts="own").loss_fn.check.args[0].class_counts.tolist() == counts["own"]
    padded = built(source_of([[0, 1, 2], [2, 0, 0]], [[1, 1, 0]]), loss="softmax", class_counts="own", ignore=0).loss_fn
    assert padded.check.args[0].class_counts.tolist() == [[0, 1, 2], [0, 2, 0]]
    with pytest.raises(ConfigError, match='class_counts.* must be "own", each client\'s, "all", of all clients together, or a list'):
        built(source, class_counts="each")
    with pytest.raises(ConfigError, match="must be a number, got 'a lot'"):
        built(source, focal="a lot")


FIRST = """
name = "start"
[data]
name = "table"
clients = [{ x = [[1.0, 2.0], [0.0, 1.0]], y = [0, 1] }, { x = [[3.0, 1.0]], y = [2] }]
[model]
name = "mlp"
hidden = [4]
MORE
[client]
optimizer = { name = "sgd", learning_rate = 0.5 }
batch_size = 2
[sampling]
name = "everyone"
[aggregator]
name = "mean"
[server]
optimizer = { name = "sgd", learning_rate = 1.0 }
[baselines]
centralised = true
[run]
rounds = 1
finetune = { epochs = 1 }
"""


@pytest.mark.deep
def test_a_start_from_a_file_with_frozen_leaves(tmp_path):
    model = fl.models.mlp((4,), classes=3)
    params = jax.tree.map(lambda x: np.asarray(x) + 1, model.init(jax.random.key(5), {"x": np.zeros(2)}))
    save_params(tmp_path, params)
    (tmp_path / "a.toml").write_text(FIRST.replace("MORE", 'start = "params.safetensors"\nfrozen = "Dense_0/.*"'))
    run = build(load(tmp_path / "a.toml"))
    result = run(progress=False)
    assert jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), result.params["Dense_0"], params["Dense_0"]))
    assert not (result.params["Dense_1"]["kernel"] == params["Dense_1"]["kernel"]).all()
    assert result.history[-1]["uplink_bits"] == 2 * 32 * 15 and "train_finetuned_loss" in result.further
    assert result.baselines["centralised"]["train_loss"] < float("inf")


@pytest.mark.deep
def test_every_seed_starts_from_a_runs_folder(tmp_path):
    """Its path is relative to the configuration's file; the leaves that do not learn are from there too."""
    params = fl.models.mlp((4,), classes=3).init(jax.random.key(5), {"x": np.zeros(2)})
    for name in ("run", "here"):
        (tmp_path / name).mkdir()
    save_params(tmp_path / "run", params)
    (tmp_path / "here" / "a.toml").write_text(FIRST.replace("MORE", 'start = "../run"\nfrozen = "Dense_0/.*"'))
    config = load(tmp_path / "here" / "a.toml")
    source = load_data(config, 0)
    found = jax.vmap(lambda seed: parts(config, source, outputs_of(config, source), seed).params)(np.arange(2, dtype=np.uint32))
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, np.stack([y, y])), found, params)
    assert settings_kept(config)["model"]["start"] == str(tmp_path / "run")


@pytest.mark.parametrize("leaves, wanted", [("all", ["b", "c"]), ("a|b", ["b"])])
def test_clients_fine_tune_what_is_not_frozen(leaves, wanted):
    how = where_learning(fl.FineTune(None, fl.Batches(1), leaves), "a")
    assert [path for path in "abc" if how.leaves(path, None)] == wanted
    assert where_learning(how, None) is how and where_learning(None, "a") is None


@pytest.mark.parametrize(
    "more, message",
    [
        ('start = "no.safetensors"', r"model.start: .*no.safetensors is not there"),
        ('start = { path = "no.safetensors", name = 1 }', r"model.start.name: unknown key; did you mean 'names'"),
        ("start = 3", "model.start: must be the path of a safetensors file, or { path"),
        ('frozen = "Conv.*"', "model.frozen: the rule='Conv.*' chooses no leaf"),
        ("frozen = 3", "model.frozen: .*the rule must be a regular expression"),
    ],
)
def test_starts_that_are_refused(tmp_path, more, message):
    (tmp_path / "a.toml").write_text(FIRST.replace("MORE", more))
    with pytest.raises(ConfigError, match=message):
        build(load(tmp_path / "a.toml"))
