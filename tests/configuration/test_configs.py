"""Every shipped configuration becomes a round, says how it is run, and gives the number that its header promises."""

import json
import os
import re
import subprocess
import sys
import tomllib

import jax
import numpy as np
import pytest
from conftest import ROOT
from grouping import grouped
from safetensors.numpy import load_file
from stand_ins import activities, idx_files, leaf_shards, photographs, roles
from tiny import first_round

import fedjax_lite as fl
from fedjax_lite import cli
from fedjax_lite.configuration.config import changed, load
from fedjax_lite.configuration.grid import grid_of

CONFIGS = {path.stem: path for path in sorted((ROOT / "configs").glob("*.toml"))}
PATH = "data.path={}"
CHANGES = {
    "cifar_resnet": [PATH],
    "dp_fedavg": [PATH, "aggregator.noise_multiplier=1.0", "grid={{}}"],
    "distill_small_student": [PATH],
    "femnist_mlp": [PATH],
    "har": [PATH],
    "mcmahan_mnist": [PATH],
    "optimisers_mnist": [PATH],
    "personal_mnist": [PATH],
    "robustness": [PATH],
    "shakespeare_lstm": [PATH],
    "slow_phones": [PATH],
}


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory):
    """The folder of a configuration's data that is not shipped, filled with noise."""
    folder = tmp_path_factory.mktemp("data")
    idx_files(folder)
    leaf_shards(folder)
    activities(folder)
    photographs(folder)
    roles(folder)
    return folder


@pytest.mark.parametrize("name", CONFIGS)
def test_each_says_how_to_run_it(name):
    header = CONFIGS[name].read_text().split("\nname =")[0]
    assert re.search(f"fedjax-lite (run|study) configs/{name}.toml", header) and "2 CPU cores" in header
    tests = [
        (ROOT / "tests" / file).read_text()
        for file in ("configuration/test_configs.py", "test_reproductions.py", "test_reproductions_of_methods.py")
    ]
    assert any(f'"{name}.toml"' in text for text in tests)


@grouped("name", list(CONFIGS), deep=[name for name in CONFIGS if name not in ("quickstart", "two_clients", "dp_fedavg", "har")])
def test_its_parts_fit_together(name, stand_ins):
    """A round is traced, of a study its first cell; nothing is compiled."""
    traced(next(cells(name, stand_ins)))


@pytest.mark.deep
@grouped("name", [name for name in CONFIGS if "[grid]" in CONFIGS[name].read_text()])
def test_every_table_of_its_grid_fits(name, stand_ins):
    for cell in cells(name, stand_ins):
        traced(cell)


def traced(config):
    params, _ = jax.eval_shape(*first_round(config))
    assert all(0 < leaf.size < 3_000_000 for leaf in jax.tree.leaves(params))


def cells(name, folder):
    """The configuration itself, or of a study's as many cells as it takes for each table of its grid to have its turn."""
    config = load(CONFIGS[name], [change.format(folder) for change in CHANGES.get(name, [])])
    return turns(config) if config.values.get("grid") else iter([config])


def turns(config):
    """Configurations of a study, in which each of its grid's tables stands once."""
    grid = grid_of(config)
    for i in range(max(len(axis) if any(isinstance(value, dict) for value in axis[0].values()) else 1 for axis in grid.choices)):
        cell = {name: value for axis in grid.choices for name, value in axis[i % len(axis)].items()}
        yield changed(config, cell, grid.origins)


@pytest.mark.parametrize("name", [pytest.param("quickstart", marks=pytest.mark.deep), "two_clients"])
def test_it_runs_from_the_command_line(name, tmp_path):
    options = ("--set", "run.rounds=2", "--set", "run.evaluate_every=1", "--devices", "1")
    assert cli.main(["run", str(CONFIGS[name]), "--out", str(tmp_path / "run"), *options]) == 0
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [record["round"] for record in records] == [1, 2] and records[1]["loss"] < records[0]["loss"]


def run(config, out, *options):
    """Run a configuration as a user would, compiled as his program is; returns what was printed and the summary."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, "-m", "fedjax_lite", "run", str(ROOT / "configs" / config), "--out", str(out), *options]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=out.parent, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout, json.loads((out / "summary.json").read_text())


@pytest.mark.deep
def test_quickstart(tmp_path):
    printed, summary = run("quickstart.toml", tmp_path / "run")
    assert summary["status"] == "finished" and summary["rounds"] == 100
    assert summary["final"]["test_accuracy"] >= 0.93
    assert f"{summary['final']['test_accuracy']:.3f}"[:4] in printed
    files = "config.toml metrics.jsonl summary.json report.html clients.csv params.safetensors model.json checkpoints".split()
    assert set(files) == set(os.listdir(tmp_path / "run")) - {"clients.parquet"}  # which needs pyarrow
    assert fl.check(tmp_path / "run").ok


@pytest.mark.deep
def test_two_clients_end_at_the_least_squares_solution(tmp_path):
    printed, summary = run("two_clients.toml", tmp_path / "run")
    clients = tomllib.loads((ROOT / "configs" / "two_clients.toml").read_text())["data"]["clients"]
    x, y = (np.concatenate([np.array(client[name], float) for client in clients]) for name in "xy")
    solution, *_ = np.linalg.lstsq(np.hstack([x, np.ones((len(x), 1))]), y, rcond=None)
    params = load_file(tmp_path / "run" / "params.safetensors")
    assert sum(p.size for p in params.values()) == 10
    np.testing.assert_allclose(params["Dense_0/kernel"], solution[:-1], atol=1e-5)
    np.testing.assert_allclose(params["Dense_0/bias"], solution[-1], atol=1e-5)
    assert summary["status"] == "converged"
    for value in solution.ravel():
        assert f"{value:.4f}"[:-1] in printed


@pytest.mark.deep
def test_har(tmp_path, stand_ins):
    _, summary = run("har.toml", tmp_path / "run", "--set", f"data.path={stand_ins / 'har.csv'}")
    assert summary["final"]["test_accuracy"] >= 0.9 and summary["data"]["clients"] == 30


@pytest.mark.slow
def test_femnist_mlp(tmp_path, real_data):
    _, summary = run("femnist_mlp.toml", tmp_path / "run", "--set", f"data.path={real_data / 'femnist_leaf'}")
    assert summary["final"]["test_accuracy"] >= 0.70
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    accuracy = {record["round"]: record["test_accuracy"] for record in records if "test_accuracy" in record}
    # An independent plain implementation, with other draws: .481 at round 10, .570 at round 30.
    assert accuracy[10] == pytest.approx(0.481, abs=0.06) and accuracy[30] == pytest.approx(0.570, abs=0.04)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*stands alone")
def test_dp_fedavg(tmp_path, real_data):
    options = [f"data.path={real_data / 'mnist_idx'}", "grid={}", "aggregator.noise_multiplier=1.0", "run.rounds=50"]
    _, summary = run("dp_fedavg.toml", tmp_path / "run", *(word for option in options for word in ("--set", option)))
    assert summary["final"]["test_accuracy"] >= 0.81
    assert summary["privacy"]["epsilon_pld"][-1] < 5.966 < 27.155  # those of 100 rounds, and of half the noise
    outside = summary["privacy"]["outside"]
    assert "loss" in outside and "test_accuracy" not in outside  # the test examples are no client's


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*stands alone")
def test_distill_small_student(tmp_path, real_data):
    options = "--set", "grid={}", "--set", f"data.path={real_data / 'mnist_idx'}"
    _, summary = run("distill_small_student.toml", tmp_path / "run", *options)
    final, traffic = summary["final"], summary["traffic"]
    assert final["test_accuracy"] == pytest.approx(0.889, abs=0.02)
    assert final["ensemble_accuracy"] - 0.025 < final["student_accuracy"] and final["teacher_accuracy"] < final["student_accuracy"]
    assert traffic["client_parameters"] / traffic["global_parameters"] > 6
    assert traffic["uplink_bytes"] == 10 * 4 * traffic["client_parameters"] and traffic["uplink_of_model"] == 1


@pytest.mark.slow
def test_distill_families(tmp_path):
    _, summary = run("distill_families.toml", tmp_path / "run")
    final, traffic = summary["final"], summary["traffic"]
    assert final["test_accuracy"] >= 0.7 and final["student_accuracy"] > final["teacher_accuracy"] + 0.1
    assert traffic["client_parameters"] == [17_610, 3_760, 650] and traffic["global_parameters"] == 1210
    report = (tmp_path / "run" / "report.html").read_text()
    assert all(words in report for words in ("accuracy on public examples", "17,610, 3,760, 650", "bytes sent by clients"))
