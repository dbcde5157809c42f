"""`fedjax-lite run`, in this process: exit codes, folders, what is printed, resuming, devices, stores."""

import json
import re

import numpy as np
import pytest
from shells import TEXT, shell_in

from fedjax_lite.data import save
from fedjax_lite.runner.result import Result


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys):
    return shell_in(tmp_path, monkeypatch, capsys)


def test_a_run_from_start_to_resume(shell, tmp_path):
    status, out, err = shell("run tiny.toml --devices 1")
    assert status == 0 and err == ""
    assert re.match(r"finished after 4 rounds\n  train_accuracy 0\.\d+\n  train_loss \d\.\d+\n  global parameters\n    Dense_0/bias ", out)
    assert out.endswith("written to runs/tiny: report.html, metrics.jsonl, summary.json, params.safetensors, clients.csv\n")
    folder = tmp_path / "runs" / "tiny"
    first = (folder / "metrics.jsonl").read_bytes()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "finished" and summary["rounds"] == 4 and 0 <= summary["final"]["train_accuracy"] <= 1
    assert (folder / "report.html").read_text().startswith("<!doctype html>")

    # Another one is put beside it, with the resolved configuration of its own.
    status, _, err = shell("run tiny.toml --devices 1 --set run.rounds=2")
    assert status == 0 and "runs/tiny held a run (status finished): moved to" in err
    assert (tmp_path / "runs" / "tiny.1" / "metrics.jsonl").read_bytes() == first
    assert "rounds = 2" in (folder / "config.toml").read_text()

    # To go on is to end where the longer one did.
    status, _, err = shell("run tiny.toml --devices 1 --resume")
    assert (status, err) == (0, "") and (folder / "metrics.jsonl").read_bytes() == first
    assert shell("run tiny.toml --devices 1 --resume")[0] == 0
    assert (folder / "metrics.jsonl").read_bytes() == first
    for name in ("params.safetensors", "config.toml"):
        assert (folder / name).read_bytes() == (tmp_path / "runs" / "tiny.1" / name).read_bytes()

    # What would be another run is refused, and nothing is touched.
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    status, _, err = shell("run tiny.toml --resume --set client.batch_size=3")
    assert status == 2 and "another configuration: config.client.batch_size was 2, is now 3; resume with the configuration" in err
    status, _, err = shell("run tiny.toml --resume --set run.rounds=0")
    assert status == 2 and "--set run.rounds=0: run.rounds: rounds must be" in err
    assert shell("run tiny.toml --set client.epochs=zero")[0] == 2
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["tiny", "tiny.1"]


def test_bad_input_is_2_and_leaves_nothing(shell, tmp_path):
    assert shell("run absent.toml") == (2, "", "error: cannot read absent.toml: No such file or directory\n")
    assert shell("run tiny.toml --resume")[2] == (
        "error: --resume: there is no run in runs/tiny; name its folder with --out, or start without --resume\n"
    )
    status, _, err = shell("run tiny.toml --out tiny.toml")
    assert status == 2 and err == "error: out=tiny.toml is a file: name a folder\n"
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.toml"]
    with pytest.raises(SystemExit) as usage:
        shell("run")
    assert usage.value.code == 2


def test_a_dry_run_traces_and_writes_nothing(shell, tmp_path):
    status, out, err = shell("run tiny.toml --dry --devices 1 --out there")
    assert (status, err) == (0, "")
    assert out == "it fits together: 21 parameters, 2 clients, 4 examples, 4 rounds; nothing was run or written\n"
    for refused, why in (
        ("--set model.hidden=no", "hidden"),
        ("--out tiny.toml", "is a file: name a folder"),
        ("--resume", "there is no run"),
    ):
        status, out, err = shell(f"run tiny.toml --dry {refused}")
        assert (status, out) == (2, "") and why in err
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.toml"]


def test_a_run_that_diverges_is_1(shell, tmp_path):
    status, _, err = shell("run tiny.toml --out there --set client.optimizer.learning_rate=1e38")
    assert status == 1 and re.match(r"error: round \d is no longer finite \(.*\): lower the learning rate", err)
    assert json.loads((tmp_path / "there" / "summary.json").read_text())["status"] == "diverged"


def test_an_interrupted_run_is_130(shell, tmp_path, monkeypatch):
    def interrupted(config):
        raise KeyboardInterrupt

    monkeypatch.setattr("fedjax_lite.cli.run.build", interrupted)
    assert shell("run tiny.toml")[::2] == (130, "interrupted; nothing was saved yet\n")
    (tmp_path / "runs" / "tiny" / "checkpoints" / "round_3").mkdir(parents=True)
    assert shell("run tiny.toml")[::2] == (130, "interrupted; what was saved can be resumed with --resume\n")
    for history, hint in (([{}], "go on with the same command and --resume"), ([], "no round is finished: start again")):
        monkeypatch.setattr(
            "fedjax_lite.cli.run.build",
            lambda config, history=history: lambda **options: Result((), {}, history, "interrupted", {}, {}, {}),
        )
        status, out, _ = shell("run tiny.toml")
        assert status == 130 and out.splitlines()[-1] == hint


def test_devices_that_are_not_there_are_refused(shell, tmp_path):
    for devices, message in (("0", "--devices must be at least 1, got 0"), ("99", "--devices 99: there are only 8")):
        status, _, err = shell(f"run tiny.toml --devices {devices}")
        assert status == 2 and message in err and not (tmp_path / "runs").exists()


@pytest.mark.deep
def test_devices_share_the_clients(shell, tmp_path):
    """On three devices the same run to rounding."""
    losses = []
    for devices in ("1", "3"):
        assert shell(f"run tiny.toml --out runs/{devices} --devices {devices}")[0] == 0
        lines = (tmp_path / "runs" / devices / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.fixture
def stored(tmp_path):
    """A store on disk, and stored.toml, which names it."""
    save(tmp_path / "clients", ({"x": np.full((n, 2), n, np.float32), "y": np.arange(n) % 2} for n in (4, 2, 3)))
    config = TEXT[: TEXT.index("[data]")] + '[data]\nname = "store"\npath = "clients"\n' + TEXT[TEXT.index("[model]") :]
    (tmp_path / "stored.toml").write_text(config)


@pytest.mark.deep
def test_a_store_is_streamed_to_the_results_of_memory(shell, stored, tmp_path):
    assert shell("run stored.toml --devices 1 --out streamed")[0] == 0
    assert shell("run stored.toml --devices 1 --out whole --set data.in_memory=true")[0] == 0
    for name in ("metrics.jsonl", "params.safetensors"):
        assert (tmp_path / "streamed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.deep
def test_a_store_is_streamed(shell, stored, tmp_path):
    status, out, err = shell("run stored.toml --devices 1 --out streamed")
    assert (status, err) == (0, "") and out.startswith("finished after 4 rounds")
    (tmp_path / "clients" / "size.npy").write_bytes(b"")
    status, _, err = shell("run stored.toml")
    assert status == 2 and "size.npy is missing, cut off or no .npy file" in err and "write the store again" in err
