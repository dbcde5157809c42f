"""What [model] says of its loss: of labels 0 and 1, and with the data's own class counts."""

import jax
import numpy as np
import pytest

import fedjax_lite as fl
from fedjax_lite.configuration.data import outputs_of
from fedjax_lite.configuration.model import architectures
from fedjax_lite.configuration.table import Config, ConfigError
from fedjax_lite.data.train_test import Source


def source_of(*labels):
    return Source(fl.FederatedData.from_clients([{"x": np.ones((len(y), 2), np.float32), "y": np.array(y)} for y in labels]), None)


def built(source, **model):
    config = Config({"model": {"name": "mlp", "hidden": [], **model}})
    [one], _ = architectures(config, outputs_of(config, source), source)
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


def test_the_datas_own_class_counts():
    source = source_of([0, 0, 2], [1])
    counts = {name: built(source, class_counts=name).loss_fn.check.args[0].class_counts.tolist() for name in ("own", "all")}
    assert counts == {"own": [[2, 0, 1], [0, 1, 0]], "all": [2, 1, 1]}
    padded = built(source_of([[0, 1, 2], [2, 0, 0]], [[1, 1, 0]]), loss="softmax", class_counts="own", ignore=0).loss_fn
    assert padded.check.args[0].class_counts.tolist() == [[0, 1, 2], [0, 2, 0]]
    with pytest.raises(ConfigError, match='class_counts.* must be "own", each client\'s, "all", of all clients together, or a list'):
        built(source, class_counts="each")
    with pytest.raises(ConfigError, match="must be a number, got 'a lot'"):
        built(source, focal="a lot")
