"""What a run leaves in its folder, and what it does with what is there. Killed runs are in test_resume.py."""

import os
from importlib.util import find_spec

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from segments import DATA, run, summary

import fedjax_lite as fl
from fedjax_lite.runner.progress import Progress
from fedjax_lite.runner.records import read_records


def test_a_run_on_disk(tmp_path):
    out = tmp_path / "deep" / "run"
    result = run(out=out, config={"client": {"rate": 0.1}, "model": {"hidden": [2, 3]}})
    assert read_records(out) == result.history
    assert set(os.listdir(out)) == {
        "metrics.jsonl",
        "summary.json",
        "params.safetensors",
        "report.html",
        "checkpoints",
        "config.toml",
        "clients.csv",
        *(["clients.parquet"] if find_spec("pyarrow") else []),
    }
    assert sorted(os.listdir(out / "checkpoints")) == ["round_6", "round_7"]
    np.testing.assert_array_equal(load_file(out / "params.safetensors")["params"], result.params)
    written = summary(out)
    assert (written["status"], written["rounds"], written["final"]) == ("finished", 7, result.history[-1])
    assert written["data"] == DATA.fingerprint() and written["test"]["examples"] == 21
    assert written["device"]["platform"] == "cpu" and len(written["code"]["sha256"]) == 16 and written["code"]["jax"]
    assert "hidden = [2, 3]" in (out / "config.toml").read_text()


def test_a_run_that_goes_on_says_so(tmp_path, monkeypatch):
    run(rounds=3, out=tmp_path / "run")
    seen = []
    monkeypatch.setattr(Progress, "update", lambda self, record: seen.append((record["round"], summary(tmp_path / "run")["status"])))
    run(rounds=9, out=tmp_path / "run", resume=True, checkpoint_every=9)
    assert seen == [(6, "running"), (9, "running")]


def test_rounds_without_clients_are_null(tmp_path):
    def nobody_first(key, sizes, round):
        return fl.sampling.cohort(key, sizes, jnp.arange(3), jnp.full(3, 1.0) * (round >= 2))

    result = run(rounds=3, sampler=nobody_first, out=tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert '"loss": null' in lines[0] and '"loss": null' not in lines[2]
    assert [record["loss"] is None for record in result.history] == [True, True, False]
    assert [record["clients"] for record in result.history] == [0, 0, 3]
    again = run(rounds=6, sampler=nobody_first, out=tmp_path / "run", resume=True)
    assert again.history[:3] == result.history


def test_a_run_in_the_way_is_moved_aside(tmp_path, capsys):
    for rounds in (3, 4, 6):
        run(rounds=rounds, out=tmp_path / "run")
    assert [summary(tmp_path / name)["rounds"] for name in ("run", "run.1", "run.2")] == [6, 3, 4]
    assert "held a run (status finished): moved to" in capsys.readouterr().err


def test_what_is_no_run_is_left_alone(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("mine")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="is a file"):
        run(out=tmp_path / "file")
    with pytest.raises(ValueError, match="not empty and holds no run or study"):
        run(out=tmp_path / "thesis")
    with pytest.raises(ValueError, match="cannot be made"):
        run(out=tmp_path / "file" / "below", resume=True)
    assert run(rounds=3, out=tmp_path / "empty").status == "finished"
    assert (tmp_path / "file").read_text() == (tmp_path / "thesis" / "chapter").read_text() == "mine"
