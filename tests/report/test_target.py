"""Curves over virtual hours, rounds and hours to a target, and the figure of staleness."""

import numpy as np
import pytest

from fedjax_lite.report.staleness import ages_counted, staleness_figure
from fedjax_lite.report.study import study_report
from fedjax_lite.report.target import over_hours
from fedjax_lite.study.grid import Axis
from fedjax_lite.study.printed import ranking
from fedjax_lite.study.results import Study

ACCURACY = np.array([[[0.1, 0.6, 0.9], [0.2, 0.7, 0.8]], [[0.3, 0.4, 0.5], [0.6, 0.7, 0.9]]])  # [cells, seeds, points]
HOURS = np.array([[[1.0, 2.0, 3.0], [2.0, 4.0, 6.0]], [[0.5, 1.0, 1.5], [0.25, 0.5, 0.75]]])
STUDY = Study(
    (Axis(("algorithm",), (("fedavg",), ("fedbuff",))),), (0, 1), {"test_accuracy": ACCURACY, "virtual_hours": HOURS},
    {"test_accuracy": (10, 20, 30), "virtual_hours": (10, 20, 30)}, 2,
)  # fmt: skip


def test_a_curve_over_hours_is_a_step_function():
    """Against a plain loop: the value of the last point whose hour has come."""
    rng = np.random.default_rng(0)
    hours = np.cumsum(rng.exponential(size=(3, 50)), axis=1)
    curves = rng.normal(size=(3, 50))
    grid, values = over_hours(curves, hours)
    assert grid[0] == hours[:, 0].max() and grid[-1] == hours[:, -1].min()
    for curve, hour, found in zip(curves, hours, values, strict=True):
        assert found.tolist() == [curve[hour <= t][-1] for t in grid]


def test_runs_that_do_not_overlap_have_one_point():
    grid, values = over_hours(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 2.0], [5.0, 6.0]]), points=2)
    assert grid.tolist() == [5, 5] and values.tolist() == [[2, 2], [3, 3]]


def test_hours_to_a_target():
    first, second = STUDY.table("test_accuracy", 0.65)
    assert (first["rounds_to_target"], first["hours_to_target"]) == (25, 3.5)  # 30 and 20, 3 and 4
    assert (second["rounds_to_target"], second["hours_to_target"]) == (None, None)
    text = ranking(STUDY, {"test_accuracy": 0.65}).splitlines()
    assert "hours to 0.65 (mean, 95 %)" in text[1] and "3.5 (-2.85 to 9.85)" in text[2]
    without = STUDY._replace(results={"test_accuracy": ACCURACY}, rounds={"test_accuracy": (10, 20, 30)})
    assert "hours_to_target" not in without.table("test_accuracy", 0.65)[0] and "hours" not in ranking(without, {"test_accuracy": 0.65})


def test_a_study_is_saved_with_its_hours(tmp_path):
    folder = STUDY.save(tmp_path, targets={"test_accuracy": 0.65})
    head, *rows = (folder / "table.csv").read_text().splitlines()
    assert head.endswith("rounds_to_target,rounds_low,rounds_high,hours_to_target,hours_low,hours_high")
    assert rows[0].split(",")[11] == "3.5"
    assert Study.load(folder).timed("test_accuracy")
    page = (folder / "report.html").read_text()
    assert page.count("Over virtual hours") == 1 and "virtual hours to the target" in page


def test_staleness_is_drawn_for_each_server():
    assert ages_counted(np.array([[4, 1], [-1, 2]]), np.array([[0, 3], [9, 0]])) == [2, 0, 0, 1]
    page = staleness_figure({"this run": [2, 0, 0, 1]})
    assert "uploads in %: this run" in page and "3 uploads, 1 old in the mean" in page
    assert staleness_figure({}) == staleness_figure({"this run": []}) == ""
    axes = {"algorithm": ("fedavg", "fedbuff")}
    tables = {name: STUDY.table(name) for name in STUDY.results}
    page = study_report("x", axes, STUDY.results, STUDY.rounds, tables, made={"staleness": {"a": [1, 3], "b": [4]}})
    assert "a: 4 uploads, 0.75 old in the mean" in page and "b: 4 uploads, 0 old in the mean" in page


@pytest.mark.parametrize("counts", [[5], [0, 0, 7]])
def test_a_single_age_has_a_place(counts):
    assert "NaN" not in staleness_figure({"this run": counts}).replace("nan", "NaN")
