"""Labels of another type: words, whole floats, truth values; and which of them are classes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fedjax_lite as fl
from fedjax_lite.configuration.data import load_data, outputs_of
from fedjax_lite.configuration.table import Config, ConfigError
from fedjax_lite.data import leaf, table
from fedjax_lite.data.train_test import Source


def shard(folder, name, **labels):
    """One LEAF file: users with these labels, and as many examples of one number."""
    (folder / name).mkdir(parents=True)
    data = {user: {"x": [[float(i)] for i in range(len(y))], "y": y} for user, y in labels.items()}
    facts = {"users": list(data), "num_samples": [len(y) for y in labels.values()], "user_data": data}
    (folder / name / "shard.json").write_text(json.dumps(facts))


def config(folder=None, labels=None, **model):
    said = {} if labels is None else {"labels": labels}
    return Config({"data": {"name": "leaf", "path": str(folder), "test": 0} | said, "model": {"name": "linear"} | model})


def test_words_are_classes_by_a_vocabulary_of_both_parts(tmp_path):
    shard(tmp_path, "train", a=["dog", "cat"], b=["emu"])
    shard(tmp_path, "test", a=["bee", "dog"])
    data = leaf(tmp_path)
    assert data.words == ("bee", "cat", "dog", "emu")
    assert data.train.examples["y"].tolist() == [2, 1, 3] and data.test.examples["y"].tolist() == [0, 2]
    source = load_data(config(tmp_path), 0)
    assert source.words == data.words and outputs_of(config(tmp_path), source) == (4, "softmax")
    rest, taken = fl.data.hold_out(data.train.take([1, 0]), 1)
    assert data.test.words == rest.words == taken.words == jax.tree.map(lambda x: x, rest).words == data.words
    fl.data.save(tmp_path / "store", data.train)
    stored = fl.data.store(str(tmp_path / "store"))
    assert stored.words == stored.train.in_memory().words == stored.train.shapes().words == data.words


def test_words_in_a_table_are_classes_too():
    data = table([{"x": [[1], [2]], "y": ["b", "a"]}, {"x": [[3]], "y": ["b"]}])
    assert data.words == ("a", "b") and data.train.examples["y"].tolist() == [1, 0, 1]
    assert data.train.examples["y"].dtype == np.int32 and table([{"x": [[1]], "y": [1]}]).words is None


@pytest.mark.parametrize("train, test", [([1.0, 2.0], [0.0]), ([1, 2], [0.0]), ([1.0, 2.0], [0]), ([True, False], [False])])
def test_whole_floats_and_truth_values_are_classes_in_either_part(tmp_path, train, test):
    shard(tmp_path, "train", a=train)
    shard(tmp_path, "test", a=test)
    source = load_data(config(tmp_path), 0)
    assert outputs_of(config(tmp_path), source) == (int(max(train)) + 1, "softmax")
    for part, labels in ((source.train, train), (source.test, test)):
        assert part.examples["y"].dtype == jnp.int32 and part.examples["y"].tolist() == [int(y) for y in labels]


@pytest.mark.parametrize("said", [{"loss": "squared"}, {"labels": "numbers"}])
@pytest.mark.parametrize("y", [[-3, 5], [1.0, 2.0], [0.5, 2.0], [[1, 2], [3, 4]]])
def test_targets_of_a_regression_are_numbers_of_every_type(tmp_path, said, y):
    shard(tmp_path, "train", a=y)
    source = load_data(config(tmp_path, **said), 0)
    assert outputs_of(config(tmp_path, **said), source) == (np.size(y[0]), "squared")
    assert source.train.examples["y"].tolist() == y


def test_what_is_said_counts_and_what_cannot_be_is_refused(tmp_path):
    shard(tmp_path, "train", a=[0, 1], b=[2, 0.5])
    assert outputs_of(config(), load_data(config(tmp_path), 0)) == (1, "squared")
    for said in ({"labels": "classes"}, {"loss": "softmax"}):
        wrong = r"label 0.5 of client 1 of the data is no class, a whole number from 0 .1 such examples.: map the labels, or say"
        with pytest.raises(ConfigError, match=wrong):
            outputs_of(config(**said), load_data(config(tmp_path), 0))
    with pytest.raises(ConfigError, match='data.labels: must be "classes" or "numbers", got \'words\''):
        load_data(config(tmp_path, labels="words"), 0)
    for kind, loss in (("classes", "squared"), ("numbers", "softmax")):
        with pytest.raises(ConfigError, match=f"data.labels: are {kind}, which is not what the loss '{loss}' is for"):
            load_data(config(tmp_path, labels=kind, loss=loss), 0)


def test_labels_that_count_from_one_are_named_with_client_and_outputs(tmp_path):
    shard(tmp_path, "train", a=[1, 2], b=[3, 1])
    source = load_data(config(tmp_path), 0)
    with pytest.raises(ConfigError, match="model.outputs: labels out of range: label 3 of client 1 of the data is none of outputs=3"):
        outputs_of(config(outputs=3), source)


def test_padding_that_is_ignored_is_no_label_out_of_range(tmp_path):
    data = fl.FederatedData.from_clients([{"x": np.zeros((2, 3)), "y": np.array([[4, 1, -1], [2, -1, -1]])}])
    assert outputs_of(config(loss="softmax", ignore=-1), Source(data, None)) == (5, "softmax")
    with pytest.raises(ConfigError, match=r"label .4, 1, -1. of client 0"):
        outputs_of(config(loss="softmax"), Source(data, None))


def test_a_store_of_whole_floats_holds_classes(tmp_path):
    fl.data.save(tmp_path / "store", ({"x": np.ones((2, 1), np.float32), "y": np.array([k, 2.0])} for k in (0.0, 1.0)))
    stored = Config({"data": {"name": "store", "path": str(tmp_path / "store")}, "model": {"name": "linear"}})
    assert outputs_of(stored, load_data(stored, 0)) == (3, "softmax")


@pytest.mark.parametrize("y", [np.array([1.0, 3.0]), np.array([1, 3])])
def test_a_run_refuses_labels_that_the_model_has_no_output_for(y):
    data = fl.FederatedData.from_clients([{"x": np.ones((2, 1)), "y": np.zeros(2, y.dtype)}, {"x": np.ones((2, 1)), "y": y}])
    model = fl.models.linear(3)
    loss_fn = fl.models.supervised(model)
    algorithm = fl.algorithms.fedavg(loss_fn, optax.sgd(0.1), batches=fl.Batches(2), population=2)
    params = model.init(jax.random.key(0), data.example)
    options = {"rounds": 1, "key": jax.random.key(0), "loss_fn": loss_fn, "progress": False}
    wrong = r"label 3(.0)? of client 1 is out of range: the model has 3 outputs, for labels from 0 to 2 \(1 such examples\)"
    with pytest.raises(ValueError, match=f"data: {wrong}"):
        fl.run(algorithm, data, params, fl.sampling.everyone(), **options)
    with pytest.raises(ValueError, match=f"test: {wrong}"):
        fl.run(algorithm, data.take([0, 0]), params, fl.sampling.everyone(), test=data, **options)
    other = fl.FederatedData.from_clients([{"x": np.ones((2, 4)), "y": np.zeros(2, int)}])
    with pytest.raises(ValueError, match=r"test: leaf \['x'\] has the shape .4. an example, the training data's .1."):
        fl.run(algorithm, data, params, fl.sampling.everyone(), test=other, **options)


@pytest.mark.parametrize("y", [np.array([0.0, 1, 2, 4]), np.array([0, 1, 2, 4]), np.array([0, 0.5, 1, 1])], ids=str)
def test_float_labels_out_of_range_are_refused_as_integers_are(y):
    with pytest.raises(ValueError, match=r"label (2|2.0|0.5) of client 0 is out of range: classes=2 admits 0..1 \([12] such examples\)"):
        fl.FederatedData.from_clients([{"x": np.ones((4, 1)), "y": y}], classes=2)


@pytest.mark.parametrize("dtype", [np.float64, bool, np.uint8])
def test_classes_become_integers(dtype):
    data = fl.FederatedData.from_clients([{"x": np.ones((2, 1)), "y": np.array([0, 1], dtype)}], classes=2)
    assert jnp.issubdtype(data.examples["y"].dtype, jnp.integer) and data.examples["y"].tolist() == [0, 1]
