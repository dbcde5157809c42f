"""The numbers behind figures: read back from the links of a page by Python's own readers, and compared with what was drawn."""

import json
import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from csv_links import tables_of

from fedjax_lite.report.chart import line_chart
from fedjax_lite.report.clients import clients_body
from fedjax_lite.report.curves import run_curves
from fedjax_lite.report.heat import heat_map
from fedjax_lite.report.numbers import csv_link, joined


@pytest.mark.parametrize("text", ["plain", "a,b", 'say "so"', "<b>&amp;", "50 %", "#1?", "ä 三", "a\nb", "", "+1", "'"])
def test_any_text_comes_back(text):
    ((name, rows),) = tables_of(csv_link(f"n {text}", {text: [text, None], "k": [1, 2.5]})).items()
    told = text.replace("\n", " ")
    assert rows == [[told, "k"], [told, "1"], ["", "2.5"]] and re.fullmatch(r"n[\w-]*\.csv", name)


def test_float32_comes_back_to_the_bit_and_what_is_no_number_is_empty():
    values = np.random.default_rng(0).lognormal(0, 20, 1000).astype(np.float32)
    ((head, *rows),) = tables_of(csv_link("x", {"x": [*values.astype(float).tolist(), math.nan, math.inf, None]})).values()
    assert np.array_equal(np.array([float(row[0]) for row in rows[:1000]], np.float32), values)
    assert rows[1000:] == [[]] * 3 or rows[1000:] == [[""]] * 3
    assert head == ["x"]


def test_series_stand_side_by_side():
    series = {"a": [(1, 0.5), (3, None)], "b": [(2, 1.0)], "shaded": [(1, 0.25, 0.75)]}
    expected = {"round": [1, 2, 3], "a": [0.5, None, None], "b": [None, 1.0, None]}
    assert joined("round", series) == expected | {"shaded, low": [0.25, None, None], "shaded, high": [0.75, None, None]}
    assert joined("x", {"a": []}) == {"x": [], "a": []}


def test_a_figure_gives_the_numbers_of_the_records():
    records = [{"round": t, "loss": None if t == 2 else 2.0 / t, "uplink_bits": 8.0 * t} for t in range(1, 1201)]
    for record in records[99::100]:
        each = {"mean": 0.5, "std": 0.1, "worst_decile": 0.0, "deciles": [k / 10 for k in range(1, 10)]}
        record |= {"test_loss": 3.0 / record["round"], "test_clients": {"loss": each}}
    first, more = run_curves(records, [])
    found = tables_of("".join([*first, *more]))
    assert found["loss.csv"][0] == [
        "round",
        "held-out examples",
        "local training",
        *(f"10 % to 90 % of clients, {e}" for e in ("low", "high")),
    ]
    for row, record in zip(found["loss.csv"][1:], records, strict=True):
        low, high = ("0.1", "0.9") if "test_loss" in record else ("", "")
        assert row[0] == str(record["round"]) and row[3:] == [low, high]
        assert [float(cell) if cell else None for cell in row[1:3]] == pytest.approx([record.get("test_loss"), record["loss"]], rel=1e-8)
    assert found["uplink-bits.csv"][:2] == [["round", "uplink_bytes"], ["1", "1"]] and len(found["uplink-bits.csv"]) == 1201


def test_a_heat_map_gives_its_cells():
    figure = heat_map("m", ["a", "b,c"], ["x"], [[0.5], [None]], spread=[[0.25], [None]])
    assert tables_of(figure)["m.csv"] == [["row", "column", "value", "spread"], ["a", "x", "0.5", "0.25"], ["b,c", "x", "", ""]]
    alone = heat_map("m", ["a"], ["x"], [[0.5]], spread=[[None]])
    assert tables_of(alone)["m.csv"][0] == ["row", "column", "value"] and "\N{PLUS-MINUS SIGN}" not in alone
    assert ">\N{PLUS-MINUS SIGN}0.250</text>" in figure


def test_figures_of_clients_give_what_they_draw():
    values, sizes = [0.25, None, 0.75, 0.5], [3, 4, 9, 9]
    found = tables_of(clients_body({"examples": sizes, "test_accuracy": values}))
    curve, bars, points = found.values()
    assert [[float(cell) for cell in row] for row in curve[1:]] == [[0, 0.25], [50, 0.5], [100, 0.75]]
    shares = np.histogram([0.25, 0.75, 0.5], [float(row[0]) for row in bars[1:]] + [float(bars[-1][1])])[0] / 3
    np.testing.assert_allclose([float(row[2]) for row in bars[1:]], 100 * shares, rtol=1e-8)
    assert points[1:] == [["3", "0.25"], ["9", "0.5"], ["9", "0.75"]]


def test_curves_tell_the_script_where_values_lie():
    """Its formula, written here, finds the places of the marks."""
    points = [(t, 10.0 ** (t - 6)) for t in range(1, 11)]
    figure = ElementTree.fromstring(line_chart("x", {"x": points}, may_be_log=True))
    said = json.loads(figure.find("svg").get("data-hover"))

    def place(axis, value):
        start, end, low, high, log = axis
        of = math.log if log else float
        return start + (of(value) - of(low)) / (of(high) - of(low)) * (end - start)

    marks = [(float(mark.get("cx")), float(mark.get("cy"))) for mark in figure.iter("circle")]
    np.testing.assert_allclose(marks, [(place(said["x"], x), place(said["y"], y)) for x, y in points], atol=0.06)
    assert said["curves"] == 1 and said["y"][4] == 1 and figure.find("svg").get("tabindex") == "0"
