"""Private runs of a configuration: their summary and report, a study over epsilons, and gradients that are private for each example."""

import json

import jax
import numpy as np
import optax
import pytest
from problems import softmax_data, softmax_loss, softmax_params
from tiny import PRIVATE, after_a_round, written

import fedjax_lite as fl
from fedjax_lite import cli
from fedjax_lite.configuration.build import build
from fedjax_lite.configuration.config import load
from fedjax_lite.configuration.study import study_of
from fedjax_lite.report.page import report

pytestmark = pytest.mark.usefixtures("coarse_accounting")


@pytest.fixture
def config(tmp_path):
    return written(tmp_path / "private.toml", PRIVATE)


@pytest.fixture(scope="module")
def ran(coarse_accounting, tmp_path_factory):
    """The folder of the private run."""
    folder = tmp_path_factory.mktemp("private")
    (folder / "private.toml").write_text(PRIVATE)
    assert cli.main(["run", str(folder / "private.toml"), "--out", str(folder / "run"), "--quiet", "--devices", "1"]) == 0
    return folder / "run"


def test_a_private_run_says_what_it_gave_away(ran):
    told = json.loads((ran / "summary.json").read_text())["privacy"]
    assert told["rounds"] == [1, 2, 4, 5, 6] and told["delta"] == 1e-3 and told["relation"] == "one client added or removed"
    assert told["epsilon_pld"][-1] == pytest.approx(2.0, rel=1e-3) and told["epsilon_rdp"][-1] > told["epsilon_pld"][-1]
    assert sorted(told["epsilon_pld"]) == told["epsilon_pld"]
    shown = {name for line in (ran / "metrics.jsonl").read_text().splitlines() for name in json.loads(line)}
    assert set(told["outside"]) == shown - {"round", "update_norm", "clip_norm"}  # its test examples are the clients' too
    assert {"loss", "clipped", "noise_to_signal", "clients", "left_out", "test_accuracy", "test_clients"} <= set(told["outside"])
    page = (ran / "report.html").read_text()
    assert not any(f"<h2>{name}</h2>" in page for name in ("Clients", "Partition", "Participation")) and "Useful share" not in page
    for text in (
        "<h2>Privacy</h2>",
        "epsilon by RDP",
        "epsilon by PLD",
        "Outside the guarantee",
        "noise to signal",
        "clip norm",
        "clipped",
    ):
        assert text in page
    for name in ("loss", "clipped", "noise to signal"):
        assert f"<th>{name} \N{DAGGER}</th>" in page or f"<td>{name} \N{DAGGER}</td>" in page
    assert "<td>test accuracy \N{DAGGER}</td>" in page and "held-out examples \N{DAGGER}" in page
    assert "update norm \N{DAGGER}" not in page and "<figcaption>clients \N{DAGGER}" in page and "local training \N{DAGGER}" in page


def test_what_it_wrote_is_itself_with_the_noise_as_a_number(ran, config):
    written, z = load(ran / "config.toml").values, json.loads((ran / "summary.json").read_text())["privacy"]["noise_multiplier"]
    assert written == config(f"aggregator.noise_multiplier={z}").values and z > 0


@pytest.mark.deep
def test_from_what_it_wrote_it_can_be_repeated(ran, tmp_path):
    assert cli.main(["run", str(ran / "config.toml"), "--out", str(tmp_path / "again"), "--quiet", "--devices", "1"]) == 0
    assert (ran / "metrics.jsonl").read_text() == (tmp_path / "again" / "metrics.jsonl").read_text()


@pytest.mark.deep
def test_a_study_over_epsilons_is_one_program(config, ran):
    """The cell of the run's epsilon is the run; the other has noise of its own."""
    found = study_of(config("grid.privacy.target_epsilon=[5.0, 2.0]", "grid.seeds=1"))(progress=False)
    assert found.programs == 1 and found.axes[0].names == ("privacy.target_epsilon",)
    single = json.loads((ran / "metrics.jsonl").read_text().splitlines()[-1])["test_loss"]
    assert found.results["test_loss"][1, 0, -1] == pytest.approx(single, rel=1e-5) != found.results["test_loss"][0, 0, -1]
    for name in ("epsilon_rdp", "epsilon_pld"):
        assert found.results[name][1, 0] == pytest.approx(json.loads((ran / "summary.json").read_text())["privacy"][name][-1], rel=1e-6)
    assert found.results["epsilon_pld"][1, 0] <= 2 < found.results["epsilon_pld"][0, 0] <= 5
    assert found.results["clipped"].shape == (2, 1, 2) and "clipped" in found.made["privacy"]["outside the guarantee"]


def test_a_run_without_accountant_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr("fedjax_lite.privacy.budget.find_spec", lambda name: None)
    algorithm = fl.federate(
        fl.sgd_work(softmax_loss, optax.sgd(0.1)), fl.aggregators.dp_mean(1.0, 1.0, 4.0), fl.optimizer_server(optax.sgd(1.0)),
        batches=fl.Batches(4, shuffle=False), population=7, engine=fl.padded(),
    )  # fmt: skip
    options = {"rounds": 2, "key": jax.random.key(0), "progress": False}
    fl.run(algorithm, softmax_data(), softmax_params(), fl.sampling.everyone(), out=tmp_path / "run", **options)
    told = json.loads((tmp_path / "run" / "summary.json").read_text())["privacy"]
    assert "pip install" in told["note"] and "loss" in told["outside"] and "pip install" in (tmp_path / "run" / "report.html").read_text()
    with pytest.raises(ValueError, match="no accountant covers this sampler"):
        fl.run(algorithm, softmax_data(), softmax_params(), fl.sampling.weighted(3), **options)


def test_without_privacy_nothing_is_said(tmp_path):
    page = report("plain", {"status": "finished", "rounds": 1, "seconds": 1.0, "final": {"round": 1, "loss": 1.0}}, [])
    assert "Privacy" not in page


@pytest.mark.deep
def test_examples_can_be_private_in_a_configuration(config):
    """With a clip norm that cuts nothing and no noise it is plain training, for a batch that is always full."""
    changes = ['aggregator={ name = "mean" }', "privacy={}", "client.batch_size=5", 'sampling={ name = "everyone" }']
    plain, _ = after_a_round(config(*changes))
    private, _ = after_a_round(config(*changes, "client.record={ clip = 1e6, noise_multiplier = 0.0, microbatch = 2 }"))
    noisy, _ = after_a_round(config(*changes, "client.record={ clip = 1.0, noise_multiplier = 1.0 }"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), private, plain)
    assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(jax.tree.leaves(noisy), jax.tree.leaves(plain), strict=True))
    for table, message in [
        ("3", "client.record: must be a table"),
        ("{ clip = 0.0, noise_multiplier = 1.0 }", "client.record.clip.* must be positive"),
        ("{ clip = 1.0 }", "give noise_multiplier"),
    ]:
        with pytest.raises(ValueError, match=message):
            build(config(*changes, f"client.record={table}"))
    with pytest.raises(ValueError, match="client.record: divides by the size of a batch.*got 'all'"):
        build(config("client.record={ clip = 1.0, noise_multiplier = 1.0 }", 'client.batch_size="all"'))
