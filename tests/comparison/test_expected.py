"""The table [expected]: bands that a finished run or study is inside of, or not, with an exit status."""

import json

import pytest
from segments import run
from shells import TEXT, shell_in
from tiny import edited

import fedjax_lite as fl
from fedjax_lite.comparison.bands import Band, bands_of
from fedjax_lite.configuration.build import build
from fedjax_lite.configuration.study import study_of


def test_bands_are_read():
    expected = {
        "test_accuracy": [0.9, 1],
        "round_10": {"test_loss": [0.0, 2.5]},
        "cells": [{"of": {"rate": 0.1, "name": "a"}, "test_loss": [1, 2], "round_3": {"test_loss": [2, 3]}}],
    }
    of = (("rate", 0.1), ("name", "a"))
    assert bands_of(expected) == [
        Band("test_accuracy", 0.9, 1.0),
        Band("test_loss", 0.0, 2.5, 10),
        Band("test_loss", 1.0, 2.0, None, of),
        Band("test_loss", 2.0, 3.0, 3, of),
    ]


@pytest.mark.parametrize(
    "expected, message",
    [
        ({}, "expected must be a table of bands, such as test_accuracy"),
        ({"test_accuracy": 0.9}, r"expected.test_accuracy must be a band \[low, high\].*got 0.9"),
        ({"test_accuracy": [0.9, 0.8]}, "expected.test_accuracy must be a band"),
        ({"test_accuracy": [0.1, 0.2, 0.3]}, "expected.test_accuracy must be a band"),
        ({"test_accuracy": [0.1, float("nan")]}, "expected.test_accuracy must be a band"),
        ({"round_0": {"loss": [0, 1]}}, "expected.round_0 must be a band"),
        ({"cells": [{"test_loss": [0, 1]}]}, "expected.cells must be a list of tables, such as"),
    ],
)
def test_what_is_no_band_is_refused(expected, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        bands_of(expected)


def test_a_run_is_inside_or_outside(tmp_path):
    history = run(out=tmp_path / "plain").history
    last, third = history[-1]["test_accuracy"], history[2]["test_loss"]
    bands = {"test_accuracy": [last, last], "loss": [0, 9], "round_3": {"test_loss": [third, 9.0]}}
    run(out=tmp_path / "in", config={"expected": bands})
    found = fl.check(tmp_path / "in")
    assert found.ok and [row["found"] for row in found.rows] == [last, history[-1]["loss"], third]
    bands = {"test_accuracy": [last, last], "test_acuracy": [0, 1], "test_loss": [0.0, 1e-3], "round_4": {"test_loss": [0, 9]}}
    run(out=tmp_path / "out", config={"expected": bands})
    found = fl.check(tmp_path / "out")
    assert not found.ok and [row["holds"] for row in found.rows] == [True, False, False, False]
    text = str(found).splitlines()
    assert text[0].startswith("inside   test_accuracy is 0.") and text[1] == "OUTSIDE  test_acuracy was not measured; expected in [0, 1]"
    assert text[3] == "OUTSIDE  test_loss at round 4 was not measured; expected in [0, 9]" and "expected in [0, 0.001]" in text[2]
    # What is expected changes no number, so a run goes on with other bands.
    assert len(run(9, out=tmp_path / "out", config={"expected": {"test_loss": [0, 9]}}, resume=True).history) == 9
    assert fl.check(tmp_path / "out").ok


def test_what_cannot_be_checked_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no run or study"):
        fl.check(tmp_path)
    run(3, out=tmp_path / "run")
    with pytest.raises(ValueError, match=r"its configuration has no table \[expected\]: add one with bands"):
        fl.check(tmp_path / "run")

    def stop(record):
        raise KeyboardInterrupt

    run(on_round=stop, out=tmp_path / "stopped", config={"expected": {"test_loss": [0, 9]}})
    with pytest.raises(ValueError, match="has not ended .its status is interrupted.: resume it, then check it"):
        fl.check(tmp_path / "stopped")


@pytest.mark.deep
def test_runs_and_studies_from_the_command_line(tmp_path, monkeypatch, capsys):
    shell = shell_in(tmp_path, monkeypatch, capsys)
    expected = "[expected]\ntrain_accuracy = [0, 1]\n"
    (tmp_path / "tiny.toml").write_text(TEXT + expected)
    (tmp_path / "grid.toml").write_text(
        TEXT + "[grid]\nclient.optimizer.learning_rate = [0.1, 1]\nseeds = 2\n" + expected + "train_loss = [100, 101]\n"
    )
    cells = '[{ of = { "client.optimizer.learning_rate" = 1 }, train_loss = [0, 99], round_2.train_accuracy = [0, 1] }]'
    assert shell("run tiny.toml --devices 1")[0] == 0
    status, out, err = shell("check runs/tiny")
    assert (status, err) == (0, "") and out.startswith("inside   train_accuracy ")
    assert shell("study grid.toml --devices 1 --out grid")[0] == 0
    status, out, err = shell("check grid --json")
    rows = json.loads(out)["rows"]
    assert (status, err) == (1, "") and [row["holds"] for row in rows] == [True, True, False, False]
    assert [row["cell"]["client.optimizer.learning_rate"] for row in rows] == [0.1, 1, 0.1, 1]
    study = fl.Study.load(tmp_path / "grid")
    assert [row["found"] for row in rows[2:4]] == pytest.approx(study.final("train_loss").mean(-1).tolist())
    (tmp_path / "grid.toml").write_text((tmp_path / "grid.toml").read_text() + f"cells = {cells}\n")
    assert shell("study grid.toml --devices 1 --out cells")[0] == 0
    rows = json.loads(shell("check cells --json")[1])["rows"]
    assert [(row["metric"], row["cell"]["client.optimizer.learning_rate"], row["holds"]) for row in rows] == [
        ("train_loss", 1, True),
        ("train_accuracy", 1, True),
    ]
    at_2 = study.of("train_accuracy")[1, :, study.rounds["train_accuracy"].index(2)].mean()
    assert rows[1]["found"] == pytest.approx(at_2)
    assert shell("run grid.toml --devices 1 --out one")[0] == 0 and len(fl.check(tmp_path / "one").rows) == 2
    assert shell("study grid.toml --devices 1 --out grid --resume --set expected.train_loss=[0,99]")[0] == 0
    assert shell("check tiny.toml")[0] == 2


def test_wrong_bands_are_refused_with_their_line(tmp_path):
    for make in (build, study_of):
        with pytest.raises(ValueError, match=r"tiny.toml:\d+: expected.train_loss: expected.train_loss must be a band"):
            make(edited(tmp_path, TEXT, ("[run]", "[grid]\nseeds = 2\n[expected]\ntrain_loss = [2, 1]\n[run]")))


def test_a_band_of_no_cell_or_axis_is_refused():
    found = fl.study(lambda key, rate: {"x": rate}, {"rate": [1.0, 2.0]}, seeds=2, progress=False)
    from fedjax_lite.comparison.expected import _in_study

    assert _in_study(found, Band("y", 0.0, 1.0))[0]["holds"] is _in_study(found, Band("x", 0.0, 9.0, 3))[0]["holds"] is False
    with pytest.raises(ValueError, match="the study has no axis 'rat'; there are rate"):
        _in_study(found, Band("x", 0.0, 1.0, None, (("rat", 1.0),)))
    with pytest.raises(ValueError, match="the study has no cell of {'rate': 3.0}"):
        _in_study(found, Band("x", 0.0, 1.0, None, (("rate", 3.0),)))


@pytest.mark.parametrize(("file", "text"), [("summary.json", "{"), ("summary.json", "[]"), ("config.toml", "a =")])
def test_a_damaged_file_is_named(tmp_path, file, text):
    (tmp_path / "config.toml").write_text("expected.x = [0, 1]\n")
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(ValueError, match="has not ended .its status is unknown.: resume it"):
        fl.check(tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(ValueError, match=f"{tmp_path / file} is damaged"):
        fl.check(tmp_path)


def test_a_round_is_told_by_decimal_digits():
    with pytest.raises(ValueError, match="expected.round_² must be a band"):
        bands_of({"round_²": {"x": [0, 1]}})
