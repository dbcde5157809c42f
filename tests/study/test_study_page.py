"""A study's page."""

import csv
import io
import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from csv_links import tables_of
from studies import DIVERGED

import fedjax_lite as fl
from fedjax_lite.report import heat_map, study_report
from fedjax_lite.report.cells import over_axes
from fedjax_lite.report.chart import line_chart
from fedjax_lite.report.strokes import STROKES
from fedjax_lite.study.grid import Axis
from fedjax_lite.study.printed import ranking


def figures(html):
    """By caption; as XML, so whatever is not well formed fails here."""
    body = ElementTree.fromstring(html[html.index("<body>") : html.index("</html>")])
    return [("".join(figure.find("figcaption").itertext()), figure) for figure in body.iter("figure")]


def test_the_page_needs_nothing_else(tmp_path):
    html = (DIVERGED.save(tmp_path, {"accuracy": 0.53}, name="n & <m>", config="x = '<y>'") / "report.html").read_text()
    assert html.startswith("<!doctype html>") and "<y>" not in html and "<m>" not in html
    assert not any(word in html for word in ("http", "<link", "src=", "@import", "nan"))
    assert "6 cells (3 rate x 2 a, b), 2 seeds each" in html
    assert "rounds to the target (mean, 95 % interval)" in html and ">7.5 (-24.3 to 39.3)</td>" in html
    found = figures(html)
    assert [caption for caption, _ in found] == ["rate by a, b", "a, b x, <y>, 1", 'a, b ", 2', "rate by a, b"]
    accuracy = found[0][1]
    assert len(list(accuracy.iter("rect"))) == 6 and "0.866" in "".join(accuracy.itertext())  # the mean of the best cell
    assert "1 diverged" in "".join(accuracy.itertext())
    assert len(list(found[1][1].iter("polygon"))) == 3  # a band a curve, as far as it goes
    loss = ["".join(text.itertext()) for text in found[3][1].iter("text")]
    assert loss.count("-") == 1


@pytest.mark.parametrize("axes, maps", [({}, 1), ({"a": 1}, 1), ({"a": 12}, 1), ({"a": 2, "b": 3, "c": 4, "d": 1}, 2)])
def test_a_page_for_any_number_of_axes(axes, maps):
    labels = {name: tuple(f"{name}{i}" for i in range(n)) for name, n in axes.items()}
    shape = tuple(axes.values())
    for results, rounds in (
        ({"x": np.arange(math.prod(shape), dtype=float).reshape(*shape, 1)}, {}),
        ({"x": np.random.default_rng(0).random((*shape, 1, 2))}, {"x": (1, 2)}),
    ):
        rows = [dict(zip(labels, index, strict=True)) for index in np.ndindex(shape)]
        tables = {"x": [row | {"mean": 0.5, "low": None, "high": None, "seeds": 1, "diverged": 0, "rank": 1} for row in rows]}
        html = study_report("x", labels, results, rounds, tables)
        kinds = [figure.get("class") for _, figure in figures(html)]
        assert kinds.count("heat") == maps and (kinds.count(None) > 0) == bool(rounds)


@pytest.mark.parametrize(("values", "places"), [((4, 1, 2), [436, 52, 180]), ((0.01, 1, 0.1), [52, 436, 244])])
def test_what_runs_ended_at_is_drawn_over_numbers(values, places):
    axes = {"budget": tuple(map(str, values)), "rule": ("a", "b")}
    ends = np.array([[[0.1, 0.3], [1.0, 1.0]], [[0.0, 0.0], [1.0, 1.0]], [[0.2, 0.2], [np.nan, 1.0]]])  # [budget, rule, seeds]
    figure = ElementTree.fromstring("".join(over_axes(axes, "accuracy", ends)))
    assert figure.find("figcaption").text == "accuracy" and [b.tail for b in figure.iter("b")] == ["a", "b"]
    labels = {text.text: float(text.get("x")) for text in figure.iter("text")}
    assert [labels[str(value)] for value in values] == places and "budget" in labels  # a decade and a half and more: logarithmic
    drawing, colors = figure.find("svg"), [stroke.color for stroke in STROKES[:2]]
    marks = {color: [] for color in colors}
    for mark in drawing.iter("circle"):
        marks[mark.get("fill")].append((float(mark.get("cx")), round(float(mark.get("cy")), 1)))
    for mark in drawing.iter("path"):
        if mark.get("class") == "mark":
            marks[mark.get("fill")].append(tuple(round(float(x), 1) for x in re.findall(r"[\d.]+", mark.get("transform"))))
    curves = [path.get("d") for path in drawing.iter("path") if path.get("class") is None]
    lines = [[float(point.split(",")[0]) for point in re.split("[ML]", d)[1:]] for d in curves]
    assert all(line == sorted(line) for line in lines)
    height = lambda y: round(214 - 204 * y, 1)  # noqa: E731
    assert sorted(marks[colors[0]]) == sorted(zip(map(float, places), map(height, (0.2, 0.0, 0.2)), strict=True))
    assert sorted(marks[colors[1]]) == sorted((float(x), height(1)) for x in places[:2])  # a seed that diverged is a gap
    assert over_axes({"rule": ("a", "b", "c")}, "x", ends[..., 0]) == [] == over_axes({"n": ("1", "inf", "2")}, "x", ends[..., 0])


RANGES = np.geomspace(1e-3, 1, 16), np.geomspace(0.02, 90, 30), np.geomspace(1e-9, 1e9, 40), np.linspace(0, 1, 33) ** 2


@pytest.mark.parametrize("values", RANGES)
def test_labels_of_an_axis_leave_each_other_room(values):
    ends = np.random.default_rng(0).random((len(values), 2))
    figure = ElementTree.fromstring("".join(over_axes({"client_lr": tuple(map(str, values))}, "accuracy", ends)))
    labels = [(float(text.get("x")), text.text) for text in figure.find("svg").iter("text") if text.get("text-anchor") == "middle"][:-1]
    assert len(labels) >= 3 and all(len(text) <= 8 for _, text in labels)
    half = [3.1 * len(text) for _, text in labels]
    assert all(b - a > half[i] + half[i + 1] for i, ((a, _), (b, _)) in enumerate(zip(labels, labels[1:], strict=False)))
    assert all(float(text) == 0 or values.min() * 0.99 <= float(text) <= values.max() * 1.01 for _, text in labels)


def test_curves_are_told_apart_without_color():
    """By dashes and marks, in the figure and beside the name of each."""
    points = [(t, 0.1 * t) for t in range(1, 4)]
    for length in (3, 300):
        names = [f"curve {k}" for k in range(len(STROKES))]
        points = [(t, float(t)) for t in range(length)]
        figure = ElementTree.fromstring(line_chart("x", dict.fromkeys(names, points)))
        looks = []
        for drawing in (figure.find("svg"), *(b.find("svg") for b in figure.iter("b"))):
            paths = [path for path in drawing.iter("path") if path.get("fill") == "none"]
            marks = [mark for mark in drawing if mark.tag == "circle" or mark.get("class") == "mark"]
            looks.append([(p.get("stroke"), p.get("stroke-dasharray")) for p in paths])
            shapes = {(m.get("stroke"), m.get("d"), m.get("fill") == "#fff") for m in marks}
            assert len({shape[1:] for shape in shapes}) == len(paths) and len(marks) >= len(paths)
        assert len({dashes for _, dashes in looks[0]}) == len(names) and sorted(looks[0], key=str) == sorted(sum(looks[1:], []), key=str)


def test_what_was_evaluated_comes_first_and_what_it_cost_last():
    table = [{"mean": 0.5, "low": None, "high": None, "seeds": 1, "diverged": 0, "rank": 1}]
    names = ["uplink_bits", "loss", "clients", "test_loss", "personal_loss", "epsilon_pld", "accuracy", "test_personal_accuracy"]
    html = study_report("x", {}, {name: np.zeros(1) for name in names}, {}, dict.fromkeys(names, table))
    assert re.findall("<h2>(.*?)</h2>", html) == [
        *("test loss", "test personal accuracy"),
        *("loss", "personal loss", "accuracy"),
        *("uplink bits", "clients", "epsilon pld"),
    ]


def test_every_axis_is_a_column_of_the_ranked_cells(tmp_path):
    curve = np.array([[[1.0, 2.0]], [[3.0, 4.0]]])
    study = fl.Study((Axis(("rounds_apart",), ((5,), (7,))),), (0,), {"m": curve}, {"m": (1, 2)}, 1)
    page = (study.save(tmp_path, {"m": 3.5}) / "report.html").read_text()
    head = ["rank", "rounds_apart", "mean", "95 % interval", "diverged", "rounds to the target (mean, 95 % interval)"]
    assert re.findall("<th>(.*?)</th>", page) == head


def test_whatever_was_measured_is_kept_and_shown(tmp_path):
    """Under any name, as a number or a curve, whether it changes or not; by the first that is shown the cells are printed."""
    curves = {"clients": np.full((2, 1, 3), 4.0), "personal_loss": np.arange(6.0).reshape(2, 1, 3)}
    numbers = {"unheard_of": np.array([[7.25], [7.25]]), "test_perplexity": np.array([[9.5], [8.5]])}
    study = fl.Study((Axis(("a",), (("x",), ("y",))),), (0,), curves | numbers, dict.fromkeys(curves, (1, 2, 3)), 1)
    folder = study.save(tmp_path)
    again = fl.Study.load(folder)
    for metric, values in (curves | numbers).items():
        np.testing.assert_array_equal(again.results[metric], values)
    rows = list(csv.DictReader(io.StringIO((folder / "table.csv").read_text())))
    assert [(row["metric"], row["mean"]) for row in rows if row["a"] == "x"] == [
        *(("clients", "4.0"), ("personal_loss", "2.0")),
        *(("unheard_of", "7.25"), ("test_perplexity", "9.5")),
    ]
    page = (folder / "report.html").read_text()
    assert re.findall("<h2>(.*?)</h2>", page)[:3] == ["test perplexity", "personal loss", "The same in all cells, seeds and rounds"]
    assert "<tr><td>unheard of</td><td>7.25</td></tr><tr><td>clients</td><td>4</td></tr>" in page
    assert [line.split()[:3] for line in ranking(study, {}).splitlines()[1:]] == [
        ["rank", "a", "test_perplexity"],
        ["1", "y", "8.5000"],
        ["2", "x", "9.5000"],
    ]


def test_bits_read_as_bytes(tmp_path):
    axes = (Axis(("rule",), (("a",), ("b",))),)
    curve = np.array([[[1e6, 1.767e7]], [[2e6, 8e6]]])
    study = fl.Study(axes, (0,), {"uplink_bits": curve, "clients": np.full((2, 1), 5.0)}, {"uplink_bits": (1, 2)}, 1)
    html = (study.save(tmp_path) / "report.html").read_text()
    assert "e+0" not in html and html.count("2.21 MB") == 3 and "1 MB, rank 1" in html  # a cell and its note, the ranked cells
    assert "<td>clients</td><td>5</td>" in html and "<h2>clients</h2>" not in html  # what is always the same is no figure
    axis = [text.text for text in figures(html)[1][1].iter("text") if text.get("text-anchor") == "end"]
    assert axis == ["0 B", "500 kB", "1 MB", "1.5 MB", "2 MB", "2.5 MB"]
    assert "2.21 MB" in ranking(study, {"uplink_bits": 1e6})


def test_heat_maps_shade_by_value():
    def shades(*args, **kwargs):
        return re.findall(r'fill="(#\w{6})">', heat_map("t", ["r"], ["a", "b", "c"], *args, **kwargs))

    dark, light = "#08306b", "#f7fbff"
    assert shades([[0.1, None, 0.9]])[::2] == [light, dark] and shades([[0.1, None, 0.9]], lower_is_better=True)[::2] == [dark, light]
    assert shades([[0.1, None, 0.9]])[1] not in (dark, light)
    assert shades([[0.5, 0.5, 0.5]], span=(0.0, 0.5)) == [dark] * 3
    middle = shades([[1.0, 100.0, 10000.0]])[1]
    assert middle == shades([[1.0, 2.0, 3.0]])[1]  # past two decades the scale is logarithmic


def test_cells_tell_the_spread_over_the_seeds_and_give_their_numbers(tmp_path):
    values = np.array([[0.5, 0.75, 0.625], [0.25, np.nan, 0.375], [np.nan, np.nan, 1.0]])
    study = fl.Study((Axis(("a",), (("x",), ("y",), ("z",))),), (0, 1, 2), {"accuracy": values}, {}, 1)
    page = (study.save(tmp_path) / "report.html").read_text()
    body = page[page.index("<body>") + 6 : page.index("</body>")]
    (figure,) = [figure for _, figure in figures(page)]
    told = [text.text for text in figure.iter("text") if "\N{PLUS-MINUS SIGN}" in (text.text or "")]
    assert told == [f"\N{PLUS-MINUS SIGN}{np.nanstd(row, ddof=1):.3f}" for row in values[:2]]  # of the third one seed is left
    assert "\N{PLUS-MINUS SIGN} their standard deviation" in page
    head, *rows = tables_of(body)["accuracy.csv"]
    assert head == ["a", "mean", "low", "high", "seeds", "diverged", "rank"]
    for row, wanted in zip(rows, study.table("accuracy"), strict=True):
        assert [row[0], *map(int, row[4:])] == [wanted["a"], wanted["seeds"], wanted["diverged"], wanted["rank"]]
        assert [float(x) if x else None for x in row[1:4]] == pytest.approx([wanted["mean"], wanted["low"], wanted["high"]], rel=1e-8)
    alone = study._replace(seeds=(0,), results={"accuracy": values[:, :1]})
    assert "\N{PLUS-MINUS SIGN}" not in re.sub("<script>.*?</script>", "", (alone.save(tmp_path) / "report.html").read_text(), flags=re.S)


def test_a_notebook_shows_the_report():
    found = fl.study(lambda key, rate: {"test_loss": rate}, {"rate": [0.5, 0.25]}, seeds=2, progress=False)
    assert found._repr_html_().startswith("<iframe srcdoc=") and "test loss" in found._repr_html_()
