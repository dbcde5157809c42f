"""A study's table and files."""

import csv
import io
import json
import math

import numpy as np
import pytest
import scipy.stats
from studies import DIVERGED

import fedjax_lite as fl
from fedjax_lite.report.target import OF_ROUNDS
from fedjax_lite.study.grid import Axis
from fedjax_lite.study.statistics import interval, ranks, rounds_to


def test_intervals():
    values = np.random.default_rng(0).normal(size=7)
    for confidence in (0.9, 0.95):
        mean, half = interval(values, confidence)
        low, high = scipy.stats.t.interval(confidence, 6, values.mean(), scipy.stats.sem(values))
        assert (mean - half, mean + half) == (pytest.approx(low), pytest.approx(high))
    assert interval([*values, np.inf, np.nan]) == pytest.approx(interval(values))
    assert interval([2.0, np.nan]) == (2.0, None) and interval([np.nan]) == (None, None)


def test_ranks():
    assert ranks([0.5, 0.9, 0.5, 0.1], [0] * 4, lower_is_better=True) == [2, 4, 2, 1]
    assert ranks([0.5, 0.9, 0.5, 0.1], [0] * 4, lower_is_better=False) == [2, 1, 2, 4]
    assert ranks([0.5, 0.9, None, 0.1], [0, 1, 3, 0], lower_is_better=True) == [2, 3, 4, 1]
    assert ranks([0.5, 0.1], [0, 1], lower_is_better=True) == [1, 2]
    assert ranks([None, None], [1, 1], lower_is_better=True) == [1, 1]


def test_rounds_to_a_target():
    curves = np.array([[0.9, 0.1, 0.9], [0.2, 0.3, np.nan]])
    assert rounds_to(curves, [5, 10, 15], 0.2, lower_is_better=False).tolist() == [5, 5]  # at once
    assert rounds_to(curves, [5, 10, 15], 0.3, lower_is_better=False).tolist() == [5, 10]
    assert rounds_to(curves, [5, 10, 15], 0.5, lower_is_better=False) is None  # one never does
    assert rounds_to(curves, [5, 10, 15], 0.2, lower_is_better=True).tolist() == [10, 5]
    assert rounds_to(curves[1:], [5, 10, 15], 0.5, lower_is_better=False) is None


def test_a_table():
    table = DIVERGED.table("accuracy", target=0.53)
    assert [(row["rate"], row["a"], row["b"]) for row in table[:3]] == [(0.1, "x, <y>", 1), (0.1, '"', 2), (1, "x, <y>", 1)]
    assert [row["rank"] for row in table] == [4, 4, 6, 3, 2, 1] and [row["diverged"] for row in table] == [0, 0, 1, 0, 0, 0]
    final = DIVERGED.final("accuracy").astype(np.float64)
    low, high = scipy.stats.t.interval(0.95, 1, final[1, 1].mean(), scipy.stats.sem(final[1, 1]))
    assert (table[3]["mean"], table[3]["low"], table[3]["high"]) == (
        pytest.approx(final[1, 1].mean()),
        pytest.approx(low),
        pytest.approx(high),
    )
    assert table[2] | {"mean": final[1, 0, 0], "low": None, "high": None, "seeds": 1, "rounds_to_target": None} == table[2]
    assert [row["rounds_to_target"] for row in table] == [None, None, None, 7.5, 5.0, 5.0]
    low, high = scipy.stats.t.interval(0.95, 1, 7.5, scipy.stats.sem([5, 10]))
    assert (table[3]["rounds_low"], table[3]["rounds_high"]) == (pytest.approx(low), pytest.approx(high))
    assert [(row["rounds_low"], row["rounds_high"]) for row in (table[0], table[4])] == [(None, None), (5.0, 5.0)]
    assert [row["rank"] for row in DIVERGED.table("accuracy", best="min")] == [1, 1, 6, 3, 4, 5]
    loss = DIVERGED.table("loss")
    assert [row["rank"] for row in loss] == [3, 3, 5, 2, 1, 6] and loss[5]["mean"] is None and loss[5]["diverged"] == 2
    for wrong, message in (
        (("accuracyy",), "no metric 'accuracyy'; there are accuracy, loss"),
        (("loss", 0.5), "'loss' is one value a run, not a curve"),
        (("loss", None, "low"), 'best must be "max", "min" or None, got \'low\''),
    ):
        with pytest.raises(ValueError, match=message):
            DIVERGED.table(*wrong)


def test_what_a_cell_lacks_has_not_diverged():
    """Cells count from first to last, whatever the number of axes; what they lack is no divergence, what they have may be."""
    axes = (Axis(("a",), (("x",), ("y",))), Axis(("b",), (("p",), ("q",))))
    values = np.array([[[1.0, np.nan], [np.nan, np.nan]], [[np.nan, np.nan], [np.inf, np.nan]]])
    for lacking in [(), (1, 2), (2,), (3,)]:
        table = fl.Study(axes, (0, 1), {"m": values}, {}, 1, {"m": lacking}).table("m")
        finite = [1, 0, 0, 0]
        assert [row["diverged"] for row in table] == [0 if cell in lacking else 2 - finite[cell] for cell in range(4)]


def strict(text):
    """JSON as its standard has it."""

    def refuse(token):
        raise AssertionError(f"not JSON: {token}")

    return json.loads(text, parse_constant=refuse)


def test_files(tmp_path):
    folder = DIVERGED.save(tmp_path / "a" / "b", {"accuracy": 0.5}, name="n & m", config="x = '<y>'")
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "study.json", "table.csv"]

    again = fl.Study.load(folder)
    assert again._replace(results={}) == DIVERGED._replace(results={})
    for name, x in DIVERGED.results.items():
        np.testing.assert_array_equal(again.results[name], x)
        assert again.results[name].dtype == x.dtype

    said = strict((folder / "study.json").read_text())
    assert said["results"]["loss"][2][1] == ["inf", "-inf"] and said["results"]["accuracy"][1][0][1][2] == "nan"
    for metric, target in (("accuracy", 0.5), ("loss", None)):
        rows = [row | {"rate": {math.inf: "inf"}.get(row["rate"], row["rate"])} for row in DIVERGED.table(metric, target)]
        assert said["table"][metric] == rows

    rows = list(csv.DictReader(io.StringIO((folder / "table.csv").read_text())))
    assert list(rows[0]) == ["metric", "rate", "a", "b", "mean", "low", "high", "seeds", "diverged", "rank", *OF_ROUNDS]
    expected = [
        {"metric": metric} | row for metric in ("accuracy", "loss") for row in DIVERGED.table(metric, 0.5 if metric == "accuracy" else None)
    ]
    for row, wanted in zip(rows, expected, strict=True):
        for name, value in row.items():
            assert value == ("" if wanted.get(name) is None else str(wanted[name]))
