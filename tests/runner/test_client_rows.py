"""A row a client: what each client is, how often it was drawn, and every model's numbers, each computed again here by itself."""

import csv
import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
from problems import SIZES, softmax_data, softmax_loss, softmax_params

import fedjax_lite as fl
from fedjax_lite.runner import clients

DATA = softmax_data()
TEST = softmax_data((3, 0, 4, 1, 6, 2, 5), seed=1, empty=True)
NEW = fl.TrainTest(softmax_data((4, 2), seed=2), softmax_data((3, 3), seed=3))
SAMPLER, KEY = fl.sampling.poisson(0.4), jax.random.key(0)
HOW = fl.FineTune(optax.sgd(0.5), fl.Batches(2, epochs=2))
GIVEN = {"batches": fl.Batches(2), "population": len(SIZES), "engine": fl.padded()}  # an engine that is soon compiled
DITTO = fl.algorithms.ditto(softmax_loss, optax.sgd(0.1), lam=0.5, **GIVEN)


def run(data=DATA, algorithm=DITTO, rounds=4, **options):
    given = {"loss_fn": softmax_loss, "test": TEST, "evaluate_every": 2, "finetune": HOW, "new_clients": NEW, "progress": False}
    return fl.run(algorithm, data, softmax_params(), SAMPLER, rounds=rounds, key=KEY, **given | options)


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    return run(out=out), out


def drawn(rounds):
    """By hand: the cohorts of these rounds."""
    counts = np.zeros(len(SIZES) + 2, int)
    for t in range(rounds):
        cohort = SAMPLER(jax.random.fold_in(KEY, t), DATA.size, t)
        counts[np.asarray(cohort.id)[np.asarray(cohort.weight) > 0]] += 1
    return counts


def test_who_they_are_and_how_often_they_were_drawn(ended):
    table = ended[0].clients
    assert table["id"].tolist() == list(range(len(SIZES) + 2)) and table["new"].tolist() == [0] * len(SIZES) + [1, 1]
    assert table["examples"].tolist() == [*SIZES, 4, 2] and table["held_out"].tolist() == [3, 0, 4, 1, 6, 2, 5, 3, 3]
    assert table["rounds"].tolist() == drawn(4).tolist()
    labels = [np.asarray(part.client(k)["y"]) for part in (DATA, NEW.train) for k in range(part.population)]
    for label in range(3):
        assert table[f"label_{label}"].tolist() == [(y == label).sum() for y in labels]


def mean_loss(params, examples):
    """By hand."""
    logits = np.asarray(examples["x"]) @ np.asarray(params)
    return np.mean(scipy.special.logsumexp(logits, axis=-1) - logits[np.arange(len(logits)), np.asarray(examples["y"])])


def tuned(params, data, ids=None):
    """All clients' models after fine-tuning, in one program."""
    each = fl.fine_tuned(softmax_loss, params, data, HOW, jax.random.fold_in(KEY, 2**31), *([] if ids is None else [ids]))
    return np.asarray(jax.jit(lambda: jax.lax.map(each, np.arange(data.population)))())


def test_every_models_numbers(ended):
    """Of the global model, of the clients' own, and after fine-tuning, client by client; who holds nothing out has none."""
    result, _ = ended
    table, params = result.clients, result.params
    own, after = np.asarray(DITTO.models(result.state)), tuned(params, DATA)
    for k in range(len(SIZES)):
        examples = TEST.client(k)
        if not len(examples["y"]):
            assert all(np.isnan(table[name][k]) for name in table if name.startswith("test_"))
            continue
        for whose, model in {"": params, "own_": own[k], "finetuned_": after[k]}.items():
            np.testing.assert_allclose(table[f"test_{whose}loss"][k], mean_loss(model, examples), rtol=1e-5)
    after = tuned(params, NEW.train, jnp.arange(2) + len(SIZES))
    for k in range(2):
        for whose, model in {"": params, "finetuned_": after[k]}.items():
            expected = mean_loss(model, NEW.test.client(k))
            np.testing.assert_allclose(table[f"test_{whose}loss"][len(SIZES) + k], expected, rtol=1e-5)
        assert np.isnan(table["test_own_loss"][len(SIZES) + k])


def test_the_folder_has_them_and_the_summary_what_they_say(ended):
    result, out = ended
    with open(out / "clients.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for name, column in result.clients.items():
        read = [float(row[name]) if row[name] else np.nan for row in rows]
        np.testing.assert_array_equal(read, column)
    summary = json.loads((out / "summary.json").read_text())
    assert {"test_own_accuracy", "test_clients"} < summary["final"].keys()
    others, new = summary["other_models"], summary["new_clients"]
    held, tuned = result.clients["held_out"][: len(SIZES)], result.clients["test_finetuned_accuracy"][: len(SIZES)]
    assert others["test_finetuned_accuracy"] == pytest.approx(np.nansum(held * tuned) / held.sum(), rel=1e-6)
    assert others["test_clients"].keys() == {"finetuned_loss", "finetuned_accuracy"} and "hurt" in others["test_clients"]["finetuned_loss"]
    assert {"test_new_loss", "test_new_finetuned_loss", "test_clients"} < new.keys()
    page = (out / "report.html").read_text()
    for told in ("<h2>Clients</h2>", "Clients that never took part", "finetuned accuracy", "Gini"):
        assert told in page


@pytest.mark.deep
@pytest.mark.parametrize("of", ["host", "disk", "both"])
def test_rows_in_host_memory_and_examples_on_disk_say_the_same(of, ended, tmp_path, monkeypatch):
    """In chunks of three clients, the last of one."""
    monkeypatch.setattr(clients, "CHUNK", 3)
    data = DATA if of == "host" else fl.data.save(tmp_path / "store", DATA)
    found = run(data, own_on_host=of != "disk").clients
    assert found.keys() == ended[0].clients.keys()
    for name, column in ended[0].clients.items():
        np.testing.assert_allclose(found[name], column, rtol=1e-5, atol=1e-6)


@pytest.mark.deep
def test_a_resumed_run_has_counted_from_the_start(ended, tmp_path):
    run(rounds=2, out=tmp_path, finetune=None, new_clients=None)
    longer = run(out=tmp_path, resume=True)
    np.testing.assert_array_equal(longer.clients["rounds"], ended[0].clients["rounds"])
    said = json.loads((tmp_path / "summary.json").read_text())["other_models"]
    again = run(out=tmp_path, resume=True)  # no round is left
    assert again.further == longer.further and json.loads((tmp_path / "summary.json").read_text())["other_models"] == said
    for name, column in ended[0].clients.items():
        np.testing.assert_allclose(again.clients[name], column, rtol=1e-5, atol=1e-6)


@pytest.mark.deep
def test_of_a_private_run_no_rows_are_kept_and_its_fine_tuning_is_outside_the_guarantee(tmp_path):
    rule = fl.aggregators.dp_mean(clip=1.0, noise_multiplier=1.0, clients_per_round=0.4 * len(SIZES))
    algorithm = fl.algorithms.fedavg(softmax_loss, optax.sgd(0.1), batches=fl.Batches(2), population=len(SIZES), aggregator=rule)
    result = run(algorithm=algorithm, rounds=2, out=tmp_path / "private")
    assert result.clients == {} and not (tmp_path / "private" / "clients.csv").exists()
    summary = json.loads((tmp_path / "private" / "summary.json").read_text())
    assert "test_finetuned_accuracy" in summary["other_models"]
    outside, page = ("test_accuracy", "test_finetuned_accuracy", "test_new_accuracy"), (tmp_path / "private" / "report.html").read_text()
    assert set(outside) < set(summary["privacy"]["outside"])
    assert all(f"{name.replace('_', ' ')} \N{DAGGER}" in page for name in outside)


def test_what_cannot_be_evaluated_is_refused_before_the_first_round():
    central = softmax_data((5,), seed=1)
    with pytest.raises(ValueError, match="finetune: each client is evaluated on examples of its own, and the test part is of no client"):
        run(test=central, new_clients=None)
    with pytest.raises(ValueError, match="finetune: clients are evaluated by loss_fn, and there is none"):
        run(loss_fn=None)
    with pytest.raises(TypeError, match="finetune must be a fl.FineTune or None"):
        run(finetune={"epochs": 1})
    with pytest.raises(TypeError, match="new_clients must be a fl.TrainTest or None"):
        run(finetune=None, new_clients=DATA)
    with pytest.raises(ValueError, match="new_clients: hold out examples of them as of the others"):
        run(new_clients=NEW._replace(test=None))
    wide = {"x": np.zeros((2, 9), np.float32), "y": np.zeros(2, int)}
    with pytest.raises(ValueError, match=r"leaf \['x'\] has the shape \[9\]"):
        run(new_clients=fl.TrainTest(fl.FederatedData.from_clients([wide]), NEW.test))


@pytest.mark.parametrize(
    "wrong, error, message",
    [
        ({"finetune": HOW._replace(leaves="neck")}, ValueError, "finetune: leaves='neck' chooses no leaf"),
        ({"finetune": HOW._replace(optimizer=0.1)}, TypeError, "optimizer must be an optax transformation"),
        ({"new_clients": NEW._replace(test=softmax_data((3,)))}, ValueError, "new_clients: train has 2 clients, test 1"),
        ({"new_clients": fl.data.TrainTest("disk", NEW.test)}, TypeError, "new_clients: take data in memory, got a str"),
    ],
)
def test_what_would_go_wrong_in_the_end_is_refused_before_the_first_round(tmp_path, wrong, error, message):
    with pytest.raises(error, match=message):
        run(out=tmp_path / "none", **wrong)
    assert not (tmp_path / "none").exists()


@pytest.mark.deep
def test_clients_without_examples_have_no_own_model_and_take_no_part_wherever_rows_are():
    data = softmax_data((0, *SIZES[1:]), empty=True)
    tables = [fl.run(
        DITTO, data, softmax_params(), fl.sampling.everyone(), rounds=2, key=KEY, loss_fn=softmax_loss, test=TEST, own_on_host=on_host,
        progress=False,
    ).clients for on_host in (False, True)]  # fmt: skip
    for table in tables:
        assert table["rounds"].tolist() == [0] + [2] * (len(SIZES) - 1)
        assert table["held_out"][0] == 3 and np.isnan(table["test_own_loss"][0]) and np.isfinite(table["test_loss"][0])
    np.testing.assert_allclose(*(table["test_own_loss"] for table in tables), rtol=1e-5)


@pytest.mark.deep
def test_with_a_central_test_set_there_are_rows_without_numbers():
    found = run(test=softmax_data((5,), seed=1), finetune=None, new_clients=None, algorithm=FEDAVG, rounds=2).clients
    assert found["rounds"].tolist() == drawn(2)[: len(SIZES)].tolist() and not any(name.startswith("test_") for name in found)


FEDAVG = fl.algorithms.fedavg(softmax_loss, optax.sgd(0.1), **GIVEN)


def test_parquet_holds_the_same_where_pyarrow_is_installed(ended):
    parquet = pytest.importorskip("pyarrow.parquet")
    read = parquet.read_table(ended[1] / "clients.parquet").to_pydict()
    for name, column in ended[0].clients.items():
        np.testing.assert_array_equal(np.array(read[name], float), column)


def test_names_of_clients_and_classes_are_in_the_folder(tmp_path):
    """Names are in the table of clients alone; the summary has the classes' words, and the report both."""
    each = [{"x": np.eye(3, 6, dtype=np.float32), "y": np.arange(3)}] * len(SIZES)
    data = replace(fl.FederatedData.from_clients(each, names=[f"n{k}" for k in range(len(SIZES))]), words=("cat", "dog", "eel"))
    result = run(data, FEDAVG, 1, out=tmp_path / "out", test=None, finetune=None, new_clients=None)
    assert result.clients["name"].tolist() == list(data.names)
    with open(tmp_path / "out" / "clients.csv", newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == list(data.names)
    summary = (tmp_path / "out" / "summary.json").read_text()
    assert json.loads(summary)["words"] == ["cat", "dog", "eel"] and '"n1"' not in summary
    assert json.loads((tmp_path / "out" / "words.json").read_text()) == ["cat", "dog", "eel"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<td>n1</td>" in page and "cat 33 %, dog 33 %, eel 33 %" in page


@pytest.mark.deep
def test_a_large_vocabulary_has_a_file_of_its_own(tmp_path):
    each = [{"x": np.eye(3, 6, dtype=np.float32), "y": np.arange(3)}] * len(SIZES)
    words = tuple(f"w\u00fc{i}" for i in range(101))
    data = replace(fl.FederatedData.from_clients(each), words=words)
    run(data, FEDAVG, 1, out=tmp_path / "out", test=None, finetune=None, new_clients=None)
    assert json.loads((tmp_path / "out" / "words.json").read_text()) == list(words)
    assert "words" not in json.loads((tmp_path / "out" / "summary.json").read_text())
