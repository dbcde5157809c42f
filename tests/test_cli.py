"""`fedjax-lite plan`, `study` and `list`, in this process: what is printed and written, and what is refused."""

import functools
import os
import re
import signal
import warnings

import pytest
from shells import TEXT, shell_in

from fedjax_lite.runner.progress import plain_warnings
from fedjax_lite.study.conduct import conduct
from fedjax_lite.study.grid import axes_of
from fedjax_lite.study.unfinished import Unfinished


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys):
    return shell_in(tmp_path, monkeypatch, capsys)


def test_a_plan_is_a_table_and_writes_nothing(shell, tmp_path):
    (tmp_path / "tiny.toml").write_text(TEXT + "[grid]\nseeds = 2\n")
    status, out, err = shell("plan tiny.toml --set run.own_on_host=true")
    assert err == "tiny.toml:30: one run, of the values outside [grid]; fedjax-lite study runs all of it\n"
    assert status == 0 and re.match(r"parameters +\d+\non ", out) and "expected peak" in out
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.toml"]
    status, _, err = shell("plan tiny.toml --set run.own_on_host=maybe")
    assert status == 2 and "run.own_on_host" in err and "'maybe'" in err


def test_a_study_from_start_to_files(shell, tmp_path, monkeypatch):
    (tmp_path / "grid.toml").write_text(TEXT + "[grid]\nclient.optimizer.learning_rate = [0.1, 1]\nseeds = 2\n")
    status, out, err = shell("study grid.toml --devices 2 --target train_accuracy=0")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "2 cells, 2 seeds each, 1 program"
    assert re.match(r"rank  client.optimizer.learning_rate  train_accuracy  95 % interval +diverged  rounds to 0 \(mean, 95 %\)$", lines[1])
    assert lines[2].startswith("1 ") and lines[2].endswith(" 2.0 (2.0 to 2.0)") and len(lines) == 5
    assert lines[4] == "written to runs/tiny: report.html, table.csv, study.json"
    folder = tmp_path / "runs" / "tiny"
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "study.json", "table.csv"]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert b"[grid" in before["report.html"]

    # What is refused is refused before anything runs, and leaves what is there as it is.
    for line, message in (
        ("study tiny.toml", "error: tiny.toml: grid: a study needs a table [grid]"),
        ("study grid.toml --target train_accuracy", "error: --target train_accuracy: write it as metric=value"),
        ("study grid.toml --target train_accuracy=nan", "error: --target train_accuracy=nan: write it as metric=value"),
        (
            "study grid.toml --target acuracy=1",
            "error: study: no curve 'acuracy' that could have a target; there are accuracy, clients, downlink_bits, initial_loss, loss,",
        ),
        ("study grid.toml --together 0", "error: study: together must be a whole number of at least 1, got 0"),
        ("study grid.toml --out .", "error: out=. is not empty and holds no run or study: name another folder"),
        ("study grid.toml --out grid.toml", "error: out=grid.toml is a file: name a folder"),
    ):
        status, out, err = shell(line)
        assert (status, out) == (2, "") and err.startswith(message), err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before and not (tmp_path / "runs" / "tiny.1").exists()

    # One that is stopped says what is kept, and goes on there; the next one moves what is there aside.
    def stopped(config):
        raise KeyboardInterrupt

    monkeypatch.setattr("fedjax_lite.cli.study.study_of", stopped)
    assert shell("study grid.toml")[::2] == (130, "interrupted; nothing was saved yet\n")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    axes, choices = axes_of({"rate": [1.0, 2.0], "name": ["a", "b"]})
    small = functools.partial(conduct, lambda seed, rate, name: {"x": rate}, axes, choices, (0,), (0,), rounds_of=range, made={"data": 1})
    monkeypatch.setattr("fedjax_lite.cli.study.study_of", lambda config: small)
    add = Unfinished.add
    monkeypatch.setattr(Unfinished, "add", lambda *args: (add(*args), os.kill(os.getpid(), signal.SIGTERM)))
    status, out, err = shell("study grid.toml --devices 1")
    assert (status, out) == (130, "") and "runs/tiny held a study: moved to" in err
    assert err.endswith("interrupted; 1 of 2 programs are kept in runs/tiny: go on with the same command and --resume\n")
    status, out, err = shell("study grid.toml --devices 1 --resume")
    assert (status, err) == (0, "") and "4 cells, 1 seed each, 2 programs" in out
    assert shell("study grid.toml --devices 1 --resume") == (status, out, err)
    assert (tmp_path / "runs" / "tiny.1" / "study.json").read_bytes() == before["study.json"]
    monkeypatch.setattr("fedjax_lite.cli.study.study_of", lambda config: functools.partial(small, made={"data": 2}))
    status, _, err = shell("study grid.toml --devices 1 --resume")
    assert status == 2 and "error: --resume: the study in runs/tiny is another: data was 1, is now 2" in err
    assert shell("study grid.toml --out other --resume")[2].startswith("error: --resume: there is no study in other")


def test_the_version(shell, capsys):
    with pytest.raises(SystemExit) as end:
        shell("--version")
    assert end.value.code == 0 and re.fullmatch(r"fedjax-lite [\d.]+, jax [\d.]+\n", capsys.readouterr().out)


def test_the_list_of_names(shell):
    status, out, _ = shell("list")
    assert status == 0
    assert {"data", "partition", "model", "optimizer", "schedule", "aggregator"} <= {
        line.split()[0] for line in out.splitlines() if line[:1].strip()
    }
    names = [line for line in out.splitlines() if line.startswith("  ")]
    assert len(names) > 60 and all(len(line.split()) > 1 for line in names)  # each with its line
    status, out, _ = shell("list aggregator")
    assert "trimmed_mean" in out and "keys: num_byzantine" in out and "optimizer" not in out


def test_a_warning_to_users_is_one_line():
    before = warnings.formatwarning
    with plain_warnings():
        assert warnings.formatwarning("two files, one is read", UserWarning, "call.py", 48) == "warning: two files, one is read\n"
        assert "call.py:48: DeprecationWarning" in warnings.formatwarning("old", DeprecationWarning, "call.py", 48)
    assert warnings.formatwarning is before
