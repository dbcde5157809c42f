"""Every shipped configuration gives the number that its header promises, from the command line, on a fresh folder."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from safetensors.numpy import load_file


def run(config, out, *options):
    """Run a configuration as a user would; returns what was printed and the summary."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, "-m", "fedjax_lite", "run", str(ROOT / "configs" / config), "--out", str(out), *options]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=out.parent, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout, json.loads((out / "summary.json").read_text())


def test_quickstart(tmp_path):
    printed, summary = run("quickstart.toml", tmp_path / "run")
    assert summary["status"] == "finished" and summary["rounds"] == 100
    assert summary["final"]["test_accuracy"] >= 0.93
    assert f"{summary['final']['test_accuracy']:.3f}"[:4] in printed
    assert {"config.toml", "metrics.jsonl", "summary.json", "report.html", "params.safetensors", "checkpoints"} == set(
        os.listdir(tmp_path / "run")
    )


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


def test_femnist_mlp(tmp_path, real_data):
    _, summary = run("femnist_mlp.toml", tmp_path / "run", "--set", f"data.path={real_data / 'femnist_leaf'}")
    assert summary["final"]["test_accuracy"] >= 0.70
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    accuracy = {record["round"]: record["test_accuracy"] for record in records if "test_accuracy" in record}
    # An independent plain implementation, with other draws: .481 at round 10, .570 at round 30.
    assert accuracy[10] == pytest.approx(0.481, abs=0.06) and accuracy[30] == pytest.approx(0.570, abs=0.04)


def test_dp_fedavg(tmp_path, real_data):
    options = [f"data.path={real_data / 'mnist_idx'}", "grid={}", "aggregator.noise_multiplier=1.0", "run.rounds=50"]
    _, summary = run("dp_fedavg.toml", tmp_path / "run", *(word for option in options for word in ("--set", option)))
    assert summary["final"]["test_accuracy"] >= 0.83
    assert summary["privacy"]["epsilon_pld"][-1] < 5.966 < 27.155  # those of 100 rounds, and of half the noise
    outside = summary["privacy"]["outside"]
    assert "loss" in outside and "test_accuracy" not in outside  # the test examples are no client's


def test_distill_small_student(tmp_path, real_data):
    options = "--set", "grid={}", "--set", f"data.path={real_data / 'mnist_idx'}"
    _, summary = run("distill_small_student.toml", tmp_path / "run", *options)
    final, traffic = summary["final"], summary["traffic"]
    assert final["test_accuracy"] == pytest.approx(0.889, abs=0.02)
    assert final["ensemble_accuracy"] - 0.025 < final["student_accuracy"] and final["teacher_accuracy"] < final["student_accuracy"]
    assert traffic["client_parameters"] / traffic["global_parameters"] > 6
    assert traffic["uplink_bytes"] == 10 * 4 * traffic["client_parameters"] and traffic["uplink_of_model"] == 1


def test_distill_families(tmp_path):
    _, summary = run("distill_families.toml", tmp_path / "run")
    final, traffic = summary["final"], summary["traffic"]
    assert final["test_accuracy"] >= 0.74 and final["student_accuracy"] > final["teacher_accuracy"] + 0.1
    assert traffic["client_parameters"] == [17_610, 3_760, 650] and traffic["global_parameters"] == 1210
    report = (tmp_path / "run" / "report.html").read_text()
    assert all(words in report for words in ("accuracy on public examples", "17,610, 3,760, 650", "bytes sent by clients"))


def test_every_configuration_is_tested_and_says_how_to_run_it():
    for path in (ROOT / "configs").glob("*.toml"):
        header = path.read_text().split("\nname =")[0]
        assert re.search(f"fedjax-lite (run|study) configs/{path.name}", header) and "2 CPU cores" in header
        tests = [Path(__file__).with_name(name).read_text() for name in ("test_configs.py", "test_reproductions.py")]
        assert any(f'"{path.name}"' in text for text in tests)
