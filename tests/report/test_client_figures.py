"""The clients of a report: what the figures show is read back from their pixels by their own labels, and compared with NumPy."""

import math
import re
import xml.etree.ElementTree as ElementTree
from itertools import combinations

import numpy as np
import pytest

from fedjax_lite.metrics import of_model
from fedjax_lite.report.chart import MOST
from fedjax_lite.report.clients import clients_body

GLOBAL, OWN, TUNED = "global model", "own models", "global model after fine-tuning"
PLACE = re.compile(r"(-?[\d.]+)[ ,](-?[\d.]+)")


def table(clients, new=0, metric="accuracy", seed=0, spread=1.2):
    rng = np.random.default_rng(seed)
    values = rng.uniform(0.31, 0.97, (3, clients))
    columns = {"id": range(clients), "new": [int(k >= clients - new) for k in range(clients)]}
    columns |= {"examples": np.ceil(rng.lognormal(4, spread, clients)).astype(int).tolist(), "label_0": [1] * clients}
    columns |= {f"test_{whose}{metric}": x.tolist() for whose, x in zip(("", "own_", "finetuned_"), values, strict=True)}
    return {name: list(column) for name, column in columns.items()}


def figures_of(columns):
    return list(ElementTree.fromstring(f"<body>{clients_body(columns)}</body>").iter("figure"))


def reader(svg):
    """What turns a place in pixels into values, by the labels of the ticks and nothing else."""
    texts = [(float(text.get("x")), float(text.get("y")), text.get("text-anchor"), text.text) for text in svg.iter("text")]
    up = [(y - 4, float(label)) for _, y, anchor, label in texts if anchor == "end"]
    right = [(x, float(label)) for x, y, anchor, label in texts if anchor == "middle" and y < 240]

    def along(ticks, place):
        (first, low), (last, high) = ticks[0], ticks[-1]
        share = (place - first) / (last - first)
        even = len(ticks) < 3 or np.allclose(np.diff([value for _, value in ticks], 2), 0, atol=1e-9)
        return low + share * (high - low) if even else math.exp(math.log(low) + share * math.log(high / low))

    return lambda x, y: (along(right, x), along(up, y))


def curves_of(figure):
    """color -> values along a curve."""
    svg = figure.findall("svg")[-1]
    read = reader(svg)
    paths = [path for path in svg.findall("path") if path.get("fill") == "none"]
    return {path.get("stroke"): [read(float(x), float(y)) for x, y in PLACE.findall(path.get("d"))] for path in paths}


def colors_of(figure):
    """name in the legend -> color."""
    return {span.find("b").tail: span.find("b/svg/path").get("stroke") for span in figure.iter("span")}


def marks_of(group):
    """The places of the marks in an element, in pixels."""
    circles = [(float(mark.get("cx")), float(mark.get("cy"))) for mark in group.iter("circle")]
    moved = [PLACE.search(mark.get("transform")).groups() for mark in group.iter("path") if mark.get("class") == "mark"]
    return circles + [(float(x), float(y)) for x, y in moved]


def points_of(figure):
    """color -> values of the points."""
    svg = figure.findall("svg")[-1]
    read = reader(svg)
    return {group[0].get("stroke"): [read(*place) for place in marks_of(group)] for group in svg.findall("g")}


def test_a_sorted_curve_is_the_quantiles_of_each_models_values():
    columns = table(60, new=20)
    curves, colors = curves_of(figures_of(columns)[0]), colors_of(figures_of(columns)[0])
    groups = {"other": slice(40), "new": slice(40, None)}
    assert list(colors) == [f"{model}, {group} clients" for group in groups for model in (GLOBAL, OWN, TUNED)]
    for model, whose in ((GLOBAL, ""), (OWN, "own_"), (TUNED, "finetuned_")):
        for group, rows in groups.items():
            xs, ys = zip(*curves[colors[f"{model}, {group} clients"]], strict=True)
            values = columns[f"test_{whose}accuracy"][rows]
            assert len(xs) == len(values) and xs[0] == 0 and xs[-1] == 100
            np.testing.assert_allclose(ys, np.sort(values), atol=5e-4)
            np.testing.assert_allclose(ys[1:-1], np.quantile(values, np.array(xs[1:-1]) / 100), atol=2e-3)


def test_a_histogram_has_the_share_of_clients_in_each_bin():
    columns = table(90)
    figure = figures_of(columns)[1]
    curves, colors = curves_of(figure), colors_of(figure)
    assert "in %" in figure.find("figcaption").text
    for model, whose in ((GLOBAL, ""), (OWN, "own_"), (TUNED, "finetuned_")):
        outline = curves[colors[model]]
        edges = np.round([x for x, _ in outline[1:-1:2]] + [outline[-1][0]], 2)
        counts, _ = np.histogram(columns[f"test_{whose}accuracy"], edges)
        assert counts.sum() == 90 and len(counts) > 10 and outline[0][1] == outline[-1][1] == 0
        np.testing.assert_allclose([y for _, y in outline[1:-1:2]], 100 * counts / 90, atol=0.02)
        np.testing.assert_allclose([y for _, y in outline[2:-1:2]], 100 * counts / 90, atol=0.02)


@pytest.mark.parametrize("spread, log", [(1.2, True), (0.3, False)])
def test_points_lie_at_examples_and_value(spread, log):
    columns = table(50, spread=spread)
    columns["test_accuracy"][3] = columns["examples"][7] = None
    figure = figures_of(columns)[2]
    assert ("training examples (logarithmic)" in [text.text for text in figure.iter("text")]) is log
    points, colors = points_of(figure), colors_of(figure)
    for model, whose in ((GLOBAL, ""), (OWN, "own_"), (TUNED, "finetuned_")):
        pairs = zip(columns["examples"], columns[f"test_{whose}accuracy"], strict=True)
        there = np.array(sorted(pair for pair in pairs if None not in pair))
        assert len(there) == (48 if whose == "" else 49)
        found = np.array(points[colors[model]])
        np.testing.assert_allclose(found[:, 0], there[:, 0], rtol=5e-3)
        np.testing.assert_allclose(found[:, 1], there[:, 1], atol=5e-4)


def test_few_of_many_points_are_drawn_the_same_ones_each_time():
    columns = table(10_000)
    html = clients_body(columns)
    figure = figures_of(columns)[2]
    assert html == clients_body(columns) and len(html) < 250_000
    assert f"at most {MOST} of 10,000 clients" in "".join(figure.itertext()) and "at most" not in clients_body(table(MOST))
    whole = np.array(sorted(zip(columns["examples"], columns["test_accuracy"], strict=True)))
    found = np.array(points_of(figure)[colors_of(figure)[GLOBAL]])
    assert [len(each) for each in points_of(figure).values()] == [MOST] * 3
    np.testing.assert_allclose(found[[0, -1], 0], whole[[0, -1], 0], rtol=5e-3)
    np.testing.assert_allclose(np.quantile(found[:, 0], (0.25, 0.5, 0.75)), np.quantile(whole[:, 0], (0.25, 0.5, 0.75)), rtol=0.05)
    assert all(len(curve) <= MOST + 2 for curve in curves_of(figures_of(columns)[0]).values())


@pytest.mark.parametrize("metric, told", [("accuracy", (3, 5, 2)), ("loss", (5, 3, 2)), ("perplexity", (5, 3, 2))])
def test_who_gains_by_an_own_model_and_who_loses(metric, told):
    base = [0.5, None, *[0.5] * 10]
    own = [0.25, 0.5, 0.375, 0.125, 0.625, 0.75, 0.875, 1.0, 0.75, 0.5, 0.5, None]
    figure = figures_of({"new": [0] * 12, f"test_{metric}": base, f"test_own_{metric}": own})[-1]
    words = "".join(figure.itertext())
    assert f"{OWN}: {told[0]} of 10 clients lose, {told[1]} gain, {told[2]} stay." in words
    assert ("Above" if metric == "accuracy" else "Below") + " zero is better than the global model." in words
    (curve,) = curves_of(figure).values()
    differences = [y - x for x, y in zip(base, own, strict=True) if x is not None and y is not None]
    np.testing.assert_allclose([y for _, y in curve], sorted(differences), atol=1e-3)
    zero = next(line for line in figure.iter("line") if line.get("class") is None)
    assert reader(figure.find("svg"))(0, float(zero.get("y1")))[1] == pytest.approx(0, abs=1e-3)


def test_a_model_looks_the_same_in_all_figures_and_differs_in_more_than_its_color():
    figures = figures_of(table(30, new=10))
    colors = [colors_of(figure) for figure in figures]
    assert colors[0] == colors[1] == colors[2] and len(set(colors[0].values())) == 6
    assert colors[3] == {name: color for name, color in colors[0].items() if not name.startswith(GLOBAL + ",")}
    paths = [path for path in figures[0].findall("svg")[-1].iter("path") if path.get("fill") == "none"]
    assert len({path.get("stroke-dasharray") for path in paths}) == 6


def test_new_clients_and_clients_without_a_value_are_counted():
    columns = table(12, new=4)
    for whose in ("", "own_", "finetuned_"):
        columns[f"test_{whose}accuracy"][0] = None
    html = clients_body(columns)
    assert "<p>12 clients, 4 of them new: a new client never took part in training. 1 client without accuracy" in html
    gains = "".join(figures_of(columns)[3].itertext())
    assert re.search(f"{OWN}, new clients: . of 4 client", gains) and re.search(f"{OWN}, other clients: . of 7 client", gains)
    plain = clients_body(table(12))
    assert "<p>12 clients.</p>" in plain and "new" not in plain.replace("figures", "")


@pytest.mark.parametrize(
    "names, title",
    [
        (("train_loss", "train_accuracy", "test_loss"), "accuracy on all training examples"),
        (("test_loss", "test_f1", "test_own_f1"), "loss on held-out examples"),
        (("test_f1_score", "test_top5"), "f1 score on held-out examples"),
        (("test_own_a<b>&", "loss"), "a<b>& on held-out examples"),
    ],
)
def test_one_metric_is_drawn(names, title):
    columns = {"examples": [3, 4]} | {name: [0.25, 0.5] for name in names}
    assert [figure.find("figcaption").text.count(title) for figure in figures_of(columns)] == [1] * 3


def test_without_a_number_there_is_nothing_to_draw():
    assert clients_body({}) == "" == clients_body({"id": [], "new": [], "examples": [], "test_accuracy": []})
    assert clients_body({"id": [0], "new": [0], "examples": [5], "label_0": [5], "loss": [1.0]}) == ""
    assert clients_body({"id": [0], "examples": [5], "test_accuracy": [None], "test_own_loss": [math.nan]}) == ""
    held_out = {"examples": [5, 6], "test_accuracy": [None, None], "test_loss": [1.0, 2.0]}
    assert "loss on" in clients_body(held_out) and "accuracy" not in clients_body(held_out)


def test_whose_a_metric_is_stands_behind_an_evaluations_prefix():
    assert of_model("train_finetuned_top5") == ("train_", "finetuned_", "top5") and of_model("own_loss") == ("", "", "own_loss")


def test_outliers_of_differences_leave_room_for_the_others_and_are_told():
    columns = {"test_loss": [1.0] * 500, "test_own_loss": [1 + k / 500 for k in range(498)] + [1e6, 0.0]}
    figure = figures_of(columns)[-1]
    (curve,) = curves_of(figure).values()
    heights = [y for _, y in curve]
    assert max(heights) <= 2 and heights[len(heights) // 2] > 0.4 and "lie on its edge: 1." in "".join(figure.itertext())


LOSSES = [1e-5, 0.0, 40.0, 3.0, 0.5]
EDGES = {
    "one client": table(1),
    "all equal": {"examples": [50] * 5, "test_accuracy": [0.5] * 5, "test_own_accuracy": [0.5] * 5},
    "zeros": {"examples": [0] * 3, "test_loss": [0.0] * 3, "test_own_loss": [0.0] * 3},
    "gaps": {"examples": [None, 3, 4], "test_loss": [0.5, None, 0.25], "test_own_loss": [None, 0.5, None]},
    "not finite": {"examples": [1, 2, 3], "test_loss": [math.inf, math.nan, 1.0], "test_own_loss": [2.0, 1.0, -math.inf]},
    "few examples": {"examples": [0, 1, 2], "test_loss": LOSSES[:3], "test_own_loss": LOSSES[2:]},
    "some without examples": {"examples": [1, 40, 0, 100, 0], "test_loss": LOSSES, "test_finetuned_loss": LOSSES[::-1]},
    "a run that diverged": {"examples": [7, 70_000], "test_loss": [3e38, 1e-30], "test_own_loss": [3e38, -3e38]},
    "log of losses": table(40, metric="loss") | {"test_loss": np.geomspace(1e-7, 40, 40).tolist()},
    "all new": table(20, new=20),
    "no sizes known": {"examples": [None] * 2, "test_score": [-5.0, 3e6]},
}


@pytest.mark.parametrize("columns", EDGES.values(), ids=EDGES)
def test_all_is_inside_the_figures_and_no_label_on_another(columns):
    for figure in figures_of(columns):
        svg = figure.findall("svg")[-1]
        places = marks_of(svg) + [(float(x), float(y)) for path in svg.findall("path") for x, y in PLACE.findall(path.get("d"))]
        assert marks_of(svg) and all(45 <= x <= 445 and 0 <= y <= 220 for x, y in marks_of(svg)), figure.find("figcaption").text
        assert all(-4 <= x <= 445 and -4 <= y <= 220 for x, y in places)
        boxes = []
        for text in svg.iter("text"):
            x, y, wide = float(text.get("x")), float(text.get("y")), len(text.text) * 6.2
            left = x - wide * {"end": 1, "middle": 0.5}[text.get("text-anchor")]
            assert left >= 0 and left + wide <= 460 and 6 <= y <= 248, text.text
            boxes.append((left, left + wide, y - 8, y))
        for (a, b, c, d), (e, f, g, h) in combinations(boxes, 2):
            assert b <= e or f <= a or d <= g or h <= c


def test_what_has_no_place_on_a_logarithmic_axis_is_told():
    figures = figures_of(EDGES["some without examples"])
    assert "2 clients without training examples are not drawn." in "".join(figures[2].itertext())
    assert ["Zeros lie on the lower edge." in "".join(figure.itertext()) for figure in figures] == [True, False, True, False]
    assert "without training examples" not in "".join(figures_of(EDGES["few examples"])[2].itertext())
