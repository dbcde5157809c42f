"""Finished runs beside each other: who is whose seed, what a row says, pairs, and notes on what is not alike."""

import json

import numpy as np
import pytest
from segments import run
from shells import TEXT, shell_in

import fedjax_lite as fl
from fedjax_lite.comparison.entries import Curve, Entry, entries_of, flat
from fedjax_lite.comparison.groups import contenders_of, differing
from fedjax_lite.study.grid import Axis
from fedjax_lite.study.statistics import bootstrapped


def entry(name, seed, values, settings=(("rate", 0.1),), metric="test_accuracy", rounds=None, **facts):
    """A run whose metric has some values at rounds 10, 20, ..."""
    at = np.arange(10, 10 * len(values) + 1, 10) if rounds is None else np.array(rounds)
    curves = {metric: Curve(at, np.array(values, float))} | facts.pop("curves", {})
    return Entry(name, dict(settings), seed, "finished", int(at[-1]), int(at[-1]), curves, "d0")._replace(**facts)


@pytest.fixture
def compared(monkeypatch):
    """Compare entries, a folder each."""

    def of(*entries, **options):
        known = {each.name: [] for each in entries}
        for each in entries:
            known[each.name].append(each)
        monkeypatch.setattr("fedjax_lite.comparison.comparing.entries_of", known.get)
        return fl.compare(*known, **options)

    return of


A = [entry("a0", 0, [0.5, 0.9, 0.8]), entry("a1", 1, [0.6, 0.7, 0.7])]
B = [entry("b1", 1, [0.1, 0.5, 0.6], {"rate": 0.3}), entry("b0", 0, [0.2, 0.4, 0.4], {"rate": 0.3})]


def test_a_row_is_the_seeds_of_one_setting(compared):
    found = compared(*A, *B)
    a, b = found.rows
    assert found.metric == "test_accuracy" and found.target == pytest.approx(0.5)  # where b ends
    assert (a["contender"], a["seeds"], a["rounds"], a["final"]) == ("a0 and 1 more", 2, 30, pytest.approx(0.75))
    half = 12.706204736432095 * np.std([0.8, 0.7], ddof=1) / np.sqrt(2)  # Student's t of one degree of freedom
    assert (a["low"], a["high"]) == (pytest.approx(0.75 - half), pytest.approx(0.75 + half))
    assert (a["best"], a["best_round"]) == (pytest.approx(0.8), 20.0)  # .9 at 20, and .7 at 20, the first of equal ones
    assert (a["rounds_to_target"], a["reached"]) == (10.0, 2) and (b["rounds_to_target"], b["reached"]) == (None, 1)
    assert (b["difference"], b["pairs"]) == (pytest.approx(((0.4 - 0.8) + (0.6 - 0.7)) / 2), 2)
    assert (b["difference_low"], b["difference_high"]) == (pytest.approx(-0.4), pytest.approx(-0.1))
    assert found.settings == {"rate": [0.1, 0.3]} and found.notes == []
    lower = compared(*(each._replace(curves={"test_loss": each.curves["test_accuracy"]}) for each in (*A, *B)))
    assert lower.metric == "test_loss" and lower.target == pytest.approx(0.75) and lower.rows[0]["best"] == pytest.approx(0.55)
    text = str(found)
    assert "1 of 2 seeds" in text and "-0.25 (-0.4 to -0.1)" in text and "rate" in text


def test_the_bootstrap_is_that_of_its_definition():
    values = np.array([0.1, -0.2, 0.4, 0.05])
    means = np.stack(np.meshgrid(*[values] * 4)).reshape(4, -1).mean(0)  # every resample there is
    mean, low, high = bootstrapped(values)
    assert mean == pytest.approx(values.mean())
    assert (low, high) == (pytest.approx(np.quantile(means, 0.025), abs=0.02), pytest.approx(np.quantile(means, 0.975), abs=0.02))
    assert bootstrapped(values) == bootstrapped(values) and bootstrapped(np.array([np.nan, 1.0])) == (None, None, None)


def test_what_is_not_alike_is_told(compared):
    found = compared(
        entry("long", 0, [0.1, 0.2, 0.3, 0.4]),
        entry("short", 0, [0.2, 0.3], {"rate": 0.2}, wanted=40, status="interrupted"),
        entry("other", 0, [1.0], {"rate": 0.3}, metric="train_loss"),
        entry("away", 7, [0.1, 0.2, 0.3, 0.4], {"rate": 0.4}, data="d1"),
        entry("skewed", 0, [0.1, 0.2, 0.3, np.nan], {"rate": 0.5}, data="d1"),
    )
    assert found.notes == [
        "short is interrupted after 20 of 40 rounds",
        "other has no test_accuracy: it has train_loss",
        "short has 20 rounds, long 40: their difference is after 20",
        "other has 10 rounds, long 40: their difference is after 10",
        "away and long have no seed in common: there is nothing to pair",
        "skewed was trained on other data than long",
        "one seed each: no interval can be told; run more with --set seed=1, seed=2, ...",
    ]
    long, short, other, away, skewed = found.rows
    assert short["difference"] == pytest.approx(0.3 - 0.2) and short["difference_low"] is None
    assert other["final"] is other["best"] is other["difference"] is other["rounds_to_target"] is None
    assert away["difference"] is None and skewed["final"] is None and skewed["best"] == pytest.approx(0.3)
    assert found.target == pytest.approx(0.3) and long["rounds_to_target"] == 30  # of those that end with a number
    assert "other" in str(found) and all(note in str(found) for note in found.notes)


def test_who_is_whose_seed():
    runs = [entry("a", 0, [0.1]), entry("b", 0, [0.1]), entry("c", 1, [0.1]), entry("d", 2, [0.1], {}), entry("e", 3, [0.1], {})]
    assert [[run.name for run in one.runs] for one in contenders_of(runs)] == [["a", "c"], ["b"], ["d"], ["e"]]
    assert differing(contenders_of(runs)[:2]) == {}
    assert flat({"a": {}, "b": {"c": None}}) == {"a": {}, "b.c": None}


@pytest.mark.deep
def test_folders_of_runs_and_studies_from_the_command_line(tmp_path, monkeypatch, capsys):
    shell = shell_in(tmp_path, monkeypatch, capsys)
    (tmp_path / "grid.toml").write_text(TEXT + "[grid]\nclient.optimizer.learning_rate = [0.1, 1]\nseeds = 2\n")
    for line in (
        "run tiny.toml --devices 1 --out a",
        "run tiny.toml --devices 1 --out b --set seed=4",
        "run tiny.toml --devices 1 --out c --set client.optimizer.learning_rate=0.5",
        "study grid.toml --devices 1 --out grid",
    ):
        assert shell(line)[0] == 0
    status, out, err = shell("compare a b c grid --out page.html --metric train_loss")
    assert (status, err) == (0, "") and out.endswith("written to page.html\n")
    found = json.loads(shell("compare a b c grid --json")[1])
    assert found["settings"] == {"client.optimizer.learning_rate": [0.1, 0.5, 0.1, 1]}
    pair, half, cell, one = found["rows"]  # the cell of 0.1 has the seeds of a and b again, so it is another contender
    assert [row["seeds"] for row in found["rows"]] == [2, 1, 2, 2] and cell["contender"] == "grid: client.optimizer.learning_rate 0.1"
    assert cell["final"] == pytest.approx(pair["final"], rel=1e-5) and cell["difference"] == pytest.approx(0, abs=1e-6)
    summary = json.loads((tmp_path / "c" / "summary.json").read_text())
    assert half["final"] == pytest.approx(summary["final"]["train_accuracy"], rel=1e-6)
    sent = (summary["traffic"]["uplink_bytes"] + summary["traffic"]["downlink_bytes"]) / 1e6
    assert half["megabytes"] == pytest.approx(sent) and half["pairs"] == 1
    page = (tmp_path / "page.html").read_text()
    assert page.count("<figure>") >= 2 and "over megabytes sent" in page and "learning_rate" in page
    status, out, err = shell("compare a tiny.toml")
    assert (status, out, err) == (
        2,
        "",
        "error: tiny.toml holds no run or study: name the folder that fedjax-lite run or study has written\n",
    )
    assert "no run has the metric 'acuracy'; there are accuracy," in shell("compare a --metric acuracy")[2]
    assert "give one of them" in shell("compare a --metric loss --target train_accuracy=0.5")[2]


def test_a_cell_has_its_tables_under_the_name_that_a_run_has_them(tmp_path):
    """Whatever else the base had in that table."""
    base = {"aggregator": {"name": "trimmed_mean", "num_byzantine": 2}, "rate": 0.5}
    axes = Axis(("aggregator",), (("mean",), ("krum num_byzantine=1",))), Axis(("rate", "a.b"), ((0.5, 1),))
    fl.Study(axes, (0,), {"loss": np.zeros((2, 1, 1))}, {}, 1, made={"config": base}).save(tmp_path)
    assert [each.settings for each in entries_of(tmp_path)] == [
        {"aggregator.name": name, "rate": 0.5, "a.b": 1} for name in ("mean", "krum num_byzantine=1")
    ]


def test_runs_without_settings_and_unfinished_ones(tmp_path):
    run(out=tmp_path / "a")
    run(3, out=tmp_path / "b")
    found = fl.compare(tmp_path / "a", str(tmp_path / "b"))
    assert [row["rounds"] for row in found.rows] == [7, 3] and found.settings == {}
    assert found.rows[1]["difference"] == pytest.approx(0.0) and "<iframe" in found._repr_html_()
    assert found.save(tmp_path / "pages" / "c.html").read_text().startswith("<!doctype html>")
    (tmp_path / "b" / "metrics.jsonl").write_text("")
    with pytest.raises(ValueError, match="b has no finished round .its status is finished.: run it first"):
        entries_of(tmp_path / "b")
    (tmp_path / "a" / "summary.json").write_text("{")
    assert entries_of(tmp_path / "a")[0].status == "unknown"
    with pytest.raises(ValueError, match="name at least one folder"):
        fl.compare()


def test_settings_of_any_kind_are_compared(tmp_path):
    """A Python run's settings are what its user has: nothing in them is what a configuration has under that name."""
    for name, config in (("a", {"run": 5, "seed": [1, 2]}), ("b", {"run": {"rounds": "many"}, "seed": [1, 2]}), ("c", {"seed": [1, 3]})):
        run(3, out=tmp_path / name, config=config)
    found = fl.compare(tmp_path / "a", tmp_path / "b", tmp_path / "c")
    assert [row["pairs"] for row in found.rows] == [0, 1, 0] and found.settings["run"] == [5, None, None]
    with pytest.raises(ValueError, match=f"compare: {tmp_path} is a folder: name the page's file in it"):
        found.save(tmp_path)


def test_a_study_of_single_values_is_compared(tmp_path):
    study = fl.study(lambda key, rate: {"loss": rate}, {"rate": [0.1, 0.3]}, seeds=2, progress=False)
    found = fl.compare(study.save(tmp_path / "study"))
    assert found.metric == "loss" and [row["final"] for row in found.rows] == pytest.approx([0.1, 0.3])
    assert found.rows[1]["difference"] == pytest.approx(0.2) and "<iframe" in found._repr_html_()


def test_a_metric_outside_a_guarantee_is_noted(tmp_path):
    run(3, out=tmp_path / "a")
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    (tmp_path / "a" / "summary.json").write_text(json.dumps(summary | {"privacy": {"outside": ["test_loss"]}}))
    note = f"{tmp_path / 'a'} is private, and test_loss is outside its guarantee: it is computed from clients' data without noise"
    assert fl.compare(tmp_path / "a", metric="test_loss").notes == [note] and fl.compare(tmp_path / "a").notes == []


def test_a_study_that_was_stopped_is_named_as_one(tmp_path):
    (tmp_path / "unfinished").mkdir()
    for read in (fl.compare, fl.check, fl.plots.curves):
        with pytest.raises(ValueError, match=f"{tmp_path} holds a study that was stopped: go on with fedjax-lite study and --resume"):
            read(tmp_path)
