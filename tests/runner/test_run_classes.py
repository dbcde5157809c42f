"""A run that ends with a classification: its summary, its report, its result, and what is refused before the first round."""

import json
from dataclasses import replace

import jax
import numpy as np
import optax
import pytest
from sklearn.metrics import roc_auc_score

import fedjax_lite as fl
from fedjax_lite.runner import classes


def parts(loss="softmax"):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 2)).astype(np.float32), rng.integers(0, 3, 40)
    data = fl.FederatedData.from_arrays({"x": x, "y": y if loss == "softmax" else x[:, 0]}, np.arange(40) % 4)
    model = fl.models.linear(3 if loss == "softmax" else 1)
    loss_fn = fl.models.supervised(model, loss)
    algorithm = fl.algorithms.fedavg(loss_fn, optax.sgd(0.5), batches=fl.Batches(5), population=4)
    options = {"rounds": 2, "key": jax.random.key(0), "loss_fn": loss_fn, "progress": False, "classification": True}
    return (algorithm, data, model.init(jax.random.key(1), data.example), fl.sampling.everyone()), options


@pytest.mark.deep
def test_summary_report_and_result(tmp_path):
    given, options = parts()
    result = fl.run(*given, **options, test=given[1], out=tmp_path / "run")
    data, found = given[1], result.classification
    params = jax.tree.map(np.asarray, result.params)["Dense_0"]
    logits = np.asarray(data.examples["x"]) @ params["kernel"] + params["bias"]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert found.macro_auc == pytest.approx(roc_auc_score(data.examples["y"], p, multi_class="ovr"), rel=1e-6)
    assert np.diag(found.confusion).sum() / 40 == pytest.approx(result.history[-1]["test_accuracy"])
    assert result.further == {"test_balanced_accuracy": found.balanced_accuracy, "test_auc": found.macro_auc}
    summary = json.loads((tmp_path / "run/summary.json").read_text())["classification"]
    assert summary["confusion"] == found.confusion.tolist() and summary["classes"] == ["0", "1", "2"]
    assert summary["auc"] == found.auc.tolist() and summary["test_auc"] == found.macro_auc
    page = (tmp_path / "run/report.html").read_text()
    assert "Classes after round 2" in page and page.count("taken for 2</title>") == 3 and "test auc" in page


@pytest.mark.parametrize("private", [pytest.param(False, marks=pytest.mark.deep), True])
def test_a_private_run_names_no_class_and_says_that_the_matrix_is_outside(tmp_path, private):
    (algorithm, data, params, sampler), options = parts()
    if private:
        noisy = fl.aggregators.dp_mean(clip=1.0, noise_multiplier=1.0, clients_per_round=4)
        algorithm = fl.algorithms.fedavg(options["loss_fn"], optax.sgd(0.5), batches=fl.Batches(5), population=4, aggregator=noisy)
    data = replace(data, words=("anna", "berta", "clara"), names=fl.data.names.Names("wxyz"))
    fl.run(algorithm, data, params, sampler, **options, test=data, out=tmp_path / "run")
    written = [file.read_text() for file in (tmp_path / "run").iterdir() if file.suffix in (".json", ".html", ".csv", ".jsonl", ".toml")]
    assert any("berta" in text for text in written) != private
    outside = json.loads((tmp_path / "run/summary.json").read_text()).get("privacy", {}).get("outside", [])
    assert {"test_auc", "test_balanced_accuracy", "test_confusion"}.issubset(outside) == private


def test_refused_before_the_first_round(monkeypatch):
    given, options = parts("squared")
    with pytest.raises(ValueError, match='classification: the loss is "squared"'):
        fl.run(*given, **options)
    given, options = parts()
    with pytest.raises(ValueError, match="classification: the model is evaluated by loss_fn, and there is none"):
        fl.run(*given, **options | {"loss_fn": None})
    monkeypatch.setattr(classes, "MOST_SCORES", 100)
    with pytest.raises(ValueError, match="classification: 40 examples of 3 classes are 120 scores, and at most 100 are compared"):
        fl.run(*given, **options)


def test_a_configuration_says_true_or_false():
    from fedjax_lite.configuration.run import options_of
    from fedjax_lite.configuration.table import Config, ConfigError

    assert options_of(Config({"run": {"rounds": 1, "classification": True}}))["classification"] is True
    with pytest.raises(ConfigError, match="classification must be True or False, got 1"):
        options_of(Config({"run": {"rounds": 1, "classification": 1}}))
