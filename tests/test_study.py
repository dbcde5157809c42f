"""Studies: each cell is its single run, in as few programs as its values allow; the table, the files, what is refused."""

import csv
import functools
import io
import json
import logging
import math
import re
import sys
import xml.etree.ElementTree as ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from problems import softmax_data, softmax_loss, softmax_params
from test_config import TINY

import fedjax_lite as fl
from fedjax_lite.build import build
from fedjax_lite.config import changed, load
from fedjax_lite.data.federated import Source
from fedjax_lite.engine.placement import everywhere
from fedjax_lite.report import heat_map, study_report
from fedjax_lite.report.chart import COLORS
from fedjax_lite.report.study import _over_axes
from fedjax_lite.runs import AXIS
from fedjax_lite.study.alike import alike
from fedjax_lite.study.compute import _lowered
from fedjax_lite.study.configured import configured
from fedjax_lite.study.grid import Axis, axes_of
from fedjax_lite.study.programs import programs_of
from fedjax_lite.study.statistics import interval, ranks, rounds_to
from fedjax_lite.study.table import grid_of

study = functools.partial(fl.study, progress=False)


def federated(key, rate, f, aggregator, size):
    """Six rounds of a small federated problem, by two numbers, a name and a number that sets a shape."""
    data, makers = softmax_data(), {"mean": fl.aggregators.mean, "trimmed_mean": functools.partial(fl.aggregators.trimmed_mean, f)}
    work = fl.sgd_work(softmax_loss, optax.sgd(rate))
    server, batches = fl.optimizer_server(optax.sgd(1.0)), fl.Batches(size)
    algorithm = fl.federate(work, makers[aggregator](), server, batches=batches, population=data.population)
    params = softmax_params() + 0.01 * jax.random.normal(key, softmax_params().shape)
    state, history = fl.simulate(algorithm, data, params, fl.sampling.uniform(5), rounds=6, key=key)
    return {"loss": history["loss"], "norm": optax.tree.norm(algorithm.params(state))}


def compiled(records):
    """How many programs of a study XLA has compiled."""
    return sum("XLA compilation of jit(on_device)" in record.getMessage() for record in records)


@pytest.fixture(scope="module")
def small():
    """A study of every kind of value, and the messages of the compiler."""
    grid = {"rate": [0.05, 0.2], "f": [0, 1, 2], "aggregator": ["mean", "trimmed_mean"], "size": [2, 4]}
    records, logger, handler = [], logging.getLogger("jax"), logging.Handler()
    handler.emit, propagate = records.append, logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    jax.config.update("jax_log_compiles", True)  # not jax.log_compiles: that is for this thread only
    try:
        return study(federated, grid, seeds=[3, 1]), records
    finally:
        jax.config.update("jax_log_compiles", False)
        logger.removeHandler(handler)
        logger.propagate = propagate


def test_each_cell_is_its_single_run(small):
    found, _ = small
    assert found.results["loss"].shape == (2, 3, 2, 2, 2, 6) and found.results["norm"].shape == (2, 3, 2, 2, 2)
    single = jax.jit(federated, static_argnames=("rate", "f", "aggregator", "size"))
    for place in ((0, 0, 0, 0), (1, 2, 1, 1), (0, 1, 1, 0), (1, 0, 0, 1)):
        values = {name: x for axis, i in zip(found.axes, place, strict=True) for name, x in zip(axis.names, axis.rows[i], strict=True)}
        for i, seed in enumerate(found.seeds):
            alone = single(jax.random.key(seed), **values)
            for name in ("loss", "norm"):
                np.testing.assert_allclose(found.results[name][(*place, i)], alone[name], rtol=1e-6, atol=1e-7)
    different = np.unique(found.results["norm"].round(4))
    assert len(different) == 2 * 2 * 2 * 3  # seeds, rates, sizes, f; the trimmed mean of f = 0 is the mean


def test_numbers_share_a_program_and_names_and_shapes_do_not(small):
    found, records = small
    assert found.programs == 4 == compiled(records)  # aggregators x sizes
    assert found.rounds == {"loss": (1, 2, 3, 4, 5, 6)}


@pytest.mark.parametrize(
    "together, axis, devices", [(1, AXIS, 1), (3, AXIS, 1), (None, AXIS, 4), (2, AXIS, 2), (50, AXIS, 2), (None, "clients", 2)]
)
def test_runs_side_by_side_and_on_several_devices_are_the_same(small, together, axis, devices):
    found, _ = small
    mesh = jax.make_mesh((devices,), (axis,), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:devices])
    grid = {"rate": [0.05, 0.2], "f": [0], "aggregator": ["mean"], "size": [4]}
    with jax.set_mesh(mesh):
        again = study(federated, grid, seeds=[3, 1, 2], together=together)
    np.testing.assert_allclose(again.results["loss"][:, 0, 0, 0, :2], found.results["loss"][:, 0, 0, 1], rtol=1e-5)
    assert again.programs == 1 and len(np.unique(again.results["norm"])) == 6


def test_arrays_that_lie_on_several_devices_already():
    mesh = jax.make_mesh((2,), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])
    with jax.set_mesh(mesh):
        x = everywhere(jnp.arange(3.0))
        found = study(lambda key, rate, name: {"x": rate * x[1] + x.sum()}, {"rate": [1.0, 2.0], "name": ["a"]}, seeds=1)
    assert found.results["x"].ravel().tolist() == [4, 5]


def test_arrays_are_operands_and_not_constants():
    big = jnp.arange(100_000, dtype=jnp.float32)
    (program,) = programs_of(
        lambda seed, rate: {"x": rate * (big[seed] + big.sum())}, [{"rate": 0.1, "seed": 1}, {"rate": 0.2, "seed": 2}], ["", ""]
    )
    assert [x.shape for x in program.closed_over] == [big.shape]
    lowered, _ = _lowered(program, None)
    assert len(lowered.as_text()) < 10_000


def test_numbers_that_python_must_know_are_programs_of_their_own():
    """Whatever the reason: a shape, a branch, a Python number wanted; the other names stay operands."""

    def experiment(key, size, sign, count, rate):
        x = jnp.ones(size).sum() * (1 if sign > 0 else -1) * sum(range(count))
        return {"x": rate * x}

    grid = {"size": [1, 2], "sign": [-1, 1], "count": [3, 4], "rate": [1.0, 0.5, 0.25]}
    found = study(experiment, grid, seeds=2)
    assert found.programs == 8
    size, sign, count, rate = np.meshgrid([1, 2], [-1, 1], [3, 6], [1.0, 0.5, 0.25], indexing="ij")
    np.testing.assert_array_equal(found.results["x"], np.repeat((size * sign * count * rate)[..., None], 2, axis=-1))


def test_every_value_is_checked_as_the_number_it_is():
    def experiment(key, rate, f):
        return {
            "x": rate * fl.aggregators.trimmed_mean(f).finish(({"w": jnp.ones((5, 1))}, fl.Client(*[jnp.ones(5)] * 5)), (), None)[0]["w"][0]
        }

    assert study(experiment, {"rate": [0.1, 0.2], "f": [0, 1, 2]}).programs == 1
    with pytest.raises(ValueError, match=r"trimmed_mean: num_byzantine must be .* got -1; in the cell rate=0.[12], f=-1"):
        study(experiment, {"rate": [0.1, 0.2], "f": [0, -1, 2]})


def test_values_may_be_objects_and_rows():
    found = study(
        lambda key, fn, a, b: {"x": fn(a) * len(b)},
        {"fn": {"sin": jnp.sin, "square": lambda x: x**2}, ("a", "b"): [(1.0, "x"), (2.0, "xy"), (3.0, "xy")]},
        seeds=1,
    )
    assert found.axes[0].labels == ("sin", "square") and found.axes[1].labels == ("1, x", "2, xy", "3, xy") and found.programs == 4
    np.testing.assert_allclose(found.results["x"][..., 0], [[np.sin(1.0), 2 * np.sin(2.0), 2 * np.sin(3.0)], [1, 8, 18]], rtol=1e-6)
    assert found.table("x")[1] | {"rank": 0} == {
        "fn": "sin",
        "a": 2.0,
        "b": "xy",
        "mean": pytest.approx(2 * np.sin(2.0)),
        "low": None,
        "high": None,
        "seeds": 1,
        "diverged": 0,
        "rank": 0,
    }


def test_an_empty_grid_is_the_seeds_alone():
    found = study(lambda key: {"x": jax.random.normal(key)}, {}, seeds=4)
    assert found.results["x"].shape == (4,) and found.programs == 1
    assert found.results["x"][2] == jax.random.normal(jax.random.key(2))
    (row,) = found.table("x")
    assert row["rank"] == 1 and row["seeds"] == 4


def test_numbers_keep_the_types_that_python_numbers_have():
    def experiment(key, rate, count):
        return {"x": jnp.bfloat16(2) * rate, "y": jnp.arange(3) * count}

    found = study(experiment, {"rate": [0.5, 1], "count": [1, 2]})
    assert (found.results["x"].dtype, found.results["y"].dtype) == (jnp.bfloat16, np.int32)


REFUSED = {
    "name": ({"ratee": [1.0]}, {}, r"grid does not fit the experiment\(key, rate=.*\): got an unexpected keyword argument 'ratee'"),
    "key": ({"key": [1.0]}, {}, r"must be that of an argument beside the key.*'key'"),
    "column": ({"mean": [1.0]}, {}, r"not of a table's column, got 'mean'"),
    "empty": ({"rate": []}, {}, r"grid\['rate'\] is empty: give at least one value"),
    "number": ({"rate": 0.1}, {}, r"grid\['rate'\] must be a sequence of values, got 0.1"),
    "text": ({"rate": "0.1"}, {}, r"grid\['rate'\] must be a sequence of values, got '0.1'"),
    "scalar": ({"rate": np.float32(1)}, {}, r"grid\['rate'\] must be a sequence"),
    "nan": ({"rate": [1.0, math.nan]}, {}, r"grid\['rate'\] has the value nan"),
    "twice": ({"rate": [1.0, 1.0]}, {}, r"grid\['rate'\] has 1 twice"),
    "same text": ({"rate": [jnp.ones(2), jnp.ones(2)]}, {}, r"twice; values that read alike need a dict label -> value"),
    "two axes": ({"rate": [1.0], ("rate", "name"): [(1.0, "a")]}, {}, r"grid has 'rate' twice"),
    "rows": ({("rate", "name"): [(1.0,)]}, {}, r"needs rows of 2 values, got \(1.0,\)"),
    "labelled rows": ({("rate", "name"): {"a": (1.0, "a")}}, {}, r"must be a sequence of values"),
    "no seeds": ({}, {"seeds": 0}, r"seeds must be a number of at least 1, .* got 0"),
    "seeds": ({}, {"seeds": [1, 1]}, r"different whole numbers from 0 to 2\^31 - 1, got \[1, 1\]"),
    "seed": ({}, {"seeds": [-1]}, r"seeds must be .* got \[-1\]"),
    "truth": ({}, {"seeds": True}, r"seeds must be .* got True"),
    "together": ({}, {"together": 0}, r"together must be a whole number of at least 1, got 0"),
    "every": ({}, {"every": 0}, r"every must be a whole number of at least 1, got 0"),
    "keys": (
        {"name": ["a", "other"]},
        {},
        r"results in the cell name=other are y float32\[\], in the cell name=a x float32\[\]: make them the same",
    ),
    "shapes": ({"name": ["a", "curve"]}, {}, r"in the cell name=curve are x float32\[3\], in the cell name=a x float32\[\]"),
    "no dict": ({"name": ["array"]}, {}, r"must return a dict of results by name, got .*; in the cell name=array"),
    "nothing": ({"name": ["nothing"]}, {}, r"must return a dict of results by name, got dict"),
    "matrix": (
        {"name": ["matrix"]},
        {},
        r"result 'x' must be a number or a curve \[rounds\], got float32\[2, 2\]; in the cell name=matrix",
    ),
    "nested": ({"name": ["nested"]}, {}, r"result 'x' must be a number or a curve \[rounds\], got dict"),
    "complex": ({"name": ["complex"]}, {}, r"result 'x' must be a number or a curve \[rounds\], got complex64"),
}


@pytest.mark.parametrize("grid, options, message", REFUSED.values(), ids=REFUSED)
def test_what_is_refused(grid, options, message):
    returns = {"other": {"y": 1.0}, "curve": {"x": jnp.ones(3)}, "array": jnp.ones(3), "nothing": {}, "matrix": {"x": jnp.ones((2, 2))}}
    returns |= {"nested": {"x": {"y": 1.0}}, "complex": {"x": jnp.complex64(1)}}
    with pytest.raises(ValueError, match=message):
        study(lambda key, rate=1.0, name="a": returns.get(name, {"x": rate}), grid, **options)


def test_an_error_of_another_type_says_in_which_cell():
    with pytest.raises(TypeError) as raised:
        study(lambda key, name: {"x": jnp.sin(name)}, {"name": ["a"]})
    assert "in the study's cell name=a" in raised.value.__notes__


# The table.


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
    assert rounds_to(curves, [5, 10, 15], 0.2, lower_is_better=False) == 5.0  # at once
    assert rounds_to(curves, [5, 10, 15], 0.3, lower_is_better=False) == 7.5
    assert rounds_to(curves, [5, 10, 15], 0.5, lower_is_better=False) is None  # one never does
    assert rounds_to(curves, [5, 10, 15], 0.2, lower_is_better=True) == 7.5
    assert rounds_to(curves[1:], [5, 10, 15], 0.5, lower_is_better=False) is None


def by_hand(**results):
    results = {name: np.asarray(x, np.float32) for name, x in results.items()}
    axes = (Axis(("rate",), ((0.1,), (1,), (np.inf,))), Axis(("a", "b"), (("x, <y>", 1), ('"', 2))))
    return fl.Study(axes, (0, 1), results, {name: (5, 10, 13) for name, x in results.items() if x.ndim == 4}, 3)


@pytest.fixture
def diverged():
    """A study by hand with ties, a curve, and cells some or all of whose seeds diverged."""
    accuracy = np.linspace(0.1, 0.9, 36).reshape(3, 2, 2, 3)
    accuracy[0, 0] = accuracy[0, 1]
    accuracy[1, 0, 1, 1:] = np.nan
    loss = 1 - accuracy[..., -1]
    loss[2, 1] = np.inf, -np.inf
    return by_hand(accuracy=accuracy, loss=loss)


def test_a_table(diverged):
    table = diverged.table("accuracy", target=0.53)
    assert [(row["rate"], row["a"], row["b"]) for row in table[:3]] == [(0.1, "x, <y>", 1), (0.1, '"', 2), (1, "x, <y>", 1)]
    assert [row["rank"] for row in table] == [4, 4, 6, 3, 2, 1] and [row["diverged"] for row in table] == [0, 0, 1, 0, 0, 0]
    final = diverged.final("accuracy").astype(np.float64)
    low, high = scipy.stats.t.interval(0.95, 1, final[1, 1].mean(), scipy.stats.sem(final[1, 1]))
    assert (table[3]["mean"], table[3]["low"], table[3]["high"]) == (
        pytest.approx(final[1, 1].mean()),
        pytest.approx(low),
        pytest.approx(high),
    )
    assert table[2] | {"mean": final[1, 0, 0], "low": None, "high": None, "seeds": 1, "rounds_to_target": None} == table[2]
    assert [row["rounds_to_target"] for row in table] == [None, None, None, 7.5, 5.0, 5.0]
    assert [row["rank"] for row in diverged.table("accuracy", best="min")] == [1, 1, 6, 3, 4, 5]
    loss = diverged.table("loss")
    assert [row["rank"] for row in loss] == [3, 3, 5, 2, 1, 6] and loss[5]["mean"] is None and loss[5]["diverged"] == 2
    for wrong, message in (
        (("accuracyy",), "no metric 'accuracyy'; there are accuracy, loss"),
        (("loss", 0.5), "'loss' is one value a run, not a curve"),
        (("loss", None, "low"), 'best must be "max", "min" or None, got \'low\''),
    ):
        with pytest.raises(ValueError, match=message):
            diverged.table(*wrong)


def strict(text):
    """JSON as its standard has it."""

    def refuse(token):
        raise AssertionError(f"not JSON: {token}")

    return json.loads(text, parse_constant=refuse)


def test_files(diverged, tmp_path):
    folder = diverged.save(tmp_path / "a" / "b", {"accuracy": 0.5}, name="n & m", config="x = '<y>'")
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "study.json", "table.csv"]

    again = fl.Study.load(folder)
    assert again._replace(results={}) == diverged._replace(results={})
    for name, x in diverged.results.items():
        np.testing.assert_array_equal(again.results[name], x)
        assert again.results[name].dtype == x.dtype

    said = strict((folder / "study.json").read_text())
    assert said["results"]["loss"][2][1] == ["inf", "-inf"] and said["results"]["accuracy"][1][0][1][2] == "nan"
    for metric, target in (("accuracy", 0.5), ("loss", None)):
        rows = [row | {"rate": {math.inf: "inf"}.get(row["rate"], row["rate"])} for row in diverged.table(metric, target)]
        assert said["table"][metric] == rows

    rows = list(csv.DictReader(io.StringIO((folder / "table.csv").read_text())))
    assert list(rows[0]) == ["metric", "rate", "a", "b", "mean", "low", "high", "seeds", "diverged", "rank", "rounds_to_target"]
    expected = [
        {"metric": metric} | row for metric in ("accuracy", "loss") for row in diverged.table(metric, 0.5 if metric == "accuracy" else None)
    ]
    for row, wanted in zip(rows, expected, strict=True):
        for name, value in row.items():
            assert value == ("" if wanted.get(name) is None else str(wanted[name]))


def figures(html):
    """By caption; as XML, so whatever is not well formed fails here."""
    body = ElementTree.fromstring(html[html.index("<body>") : html.index("</html>")])
    return [("".join(figure.find("figcaption").itertext()), figure) for figure in body.iter("figure")]


def test_the_page_needs_nothing_else(diverged, tmp_path):
    html = (diverged.save(tmp_path, {"accuracy": 0.5}, name="n & <m>", config="x = '<y>'") / "report.html").read_text()
    assert html.startswith("<!doctype html>") and "<y>" not in html and "<m>" not in html
    assert not any(word in html for word in ("http", "<script", "<link", "src=", "@import", "nan"))
    assert "6 cells (3 rate x 2 a, b), 2 seeds each" in html and "rounds_to_target" in html
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
    for results, rounds in (({"x": np.ones((*shape, 1))}, {}), ({"x": np.random.default_rng(0).random((*shape, 1, 2))}, {"x": (1, 2)})):
        rows = [dict(zip(labels, index, strict=True)) for index in np.ndindex(shape)]
        tables = {"x": [row | {"mean": 0.5, "low": None, "high": None, "seeds": 1, "diverged": 0, "rank": 1} for row in rows]}
        html = study_report("x", labels, results, rounds, tables)
        kinds = [figure.get("class") for _, figure in figures(html)]
        assert kinds.count("heat") == maps and (kinds.count(None) > 0) == bool(rounds)


@pytest.mark.parametrize(("values", "places"), [((4, 1, 2), [436, 52, 180]), ((0.01, 1, 0.1), [52, 436, 244])])
def test_what_runs_ended_at_is_drawn_over_numbers(values, places):
    axes = {"budget": tuple(map(str, values)), "rule": ("a", "b")}
    ends = np.array([[[0.1, 0.3], [1.0, 1.0]], [[0.0, 0.0], [1.0, 1.0]], [[0.2, 0.2], [np.nan, 1.0]]])  # [budget, rule, seeds]
    figure = ElementTree.fromstring("".join(_over_axes(axes, "accuracy", ends)))
    assert figure.find("figcaption").text == "accuracy" and [b.tail for b in figure.iter("b")] == ["a", "b"]
    labels = {text.text: float(text.get("x")) for text in figure.iter("text")}
    assert [labels[str(value)] for value in values] == places and "budget" in labels  # a decade and a half and more: logarithmic
    marks = {color: [] for color in COLORS[:2]}
    for mark in figure.iter("circle"):
        marks[mark.get("fill")].append((float(mark.get("cx")), round(float(mark.get("cy")), 1)))
    lines = [[float(point.split(",")[0]) for point in re.split("[ML]", path.get("d"))[1:]] for path in figure.iter("path")]
    assert all(line == sorted(line) for line in lines)
    height = lambda y: round(214 - 204 * y, 1)  # noqa: E731
    assert sorted(marks[COLORS[0]]) == sorted(zip(map(float, places), map(height, (0.2, 0.0, 0.2)), strict=True))
    assert sorted(marks[COLORS[1]]) == sorted((float(x), height(1)) for x in places[:2])  # a seed that diverged is a gap
    assert _over_axes({"rule": ("a", "b", "c")}, "x", ends[..., 0]) == [] == _over_axes({"n": ("1", "inf", "2")}, "x", ends[..., 0])


def test_heat_maps_shade_by_value():
    def shades(*args, **kwargs):
        return re.findall(r'fill="(#\w{6})">', heat_map("t", ["r"], ["a", "b", "c"], *args, **kwargs))

    dark, light = "#08306b", "#f7fbff"
    assert shades([[0.1, None, 0.9]])[::2] == [light, dark] and shades([[0.1, None, 0.9]], lower_is_better=True)[::2] == [dark, light]
    assert shades([[0.1, None, 0.9]])[1] not in (dark, light)
    assert shades([[0.5, 0.5, 0.5]], span=(0.0, 0.5)) == [dark] * 3
    middle = shades([[1.0, 100.0, 10000.0]])[1]
    assert middle == shades([[1.0, 2.0, 3.0]])[1]  # past two decades the scale is logarithmic


# From a configuration.

GRID = """
[grid]
aggregator = [{ name = "mean" }, { name = "trimmed_mean", num_byzantine = 0 }]
client.optimizer.learning_rate = [0.1, 1]
seeds = 2
"""


@pytest.fixture
def loaded(tmp_path):
    def make(grid, *replace, overrides=()):
        text = TINY + grid
        for old, new in replace:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "tiny.toml").write_text(text)
        return load(tmp_path / "tiny.toml", overrides)

    return make


def single(config, metric, **values):
    """What a run of the same values records of a metric."""
    values = {path.replace("__", "."): value for path, value in values.items()}
    one = changed(
        config._replace(values={name: x for name, x in config.values.items() if name != "grid"}), values, dict.fromkeys(values, "")
    )
    return [record[metric] for record in build(one)(progress=False).history if metric in record]


def test_a_cell_of_a_configuration_is_the_run_of_its_values(loaded):
    config = loaded(GRID, ("rounds = 4", "rounds = 5"))
    found = configured(config)(progress=False)
    assert found.programs == 2 and found.seeds == (3, 4) and found.rounds["train_loss"] == (2, 4, 5)
    assert found.results["train_loss"].shape == (2, 2, 2, 3)
    assert [axis.labels for axis in found.axes] == [("mean", "trimmed_mean"), ("0.1", "1")]
    for place, aggregator, rate, seed in (((0, 0, 0), "mean", 0.1, 3), ((1, 1, 1), {"name": "trimmed_mean", "num_byzantine": 0}, 1, 4)):
        alone = single(config, "train_loss", aggregator=aggregator, client__optimizer__learning_rate=rate, seed=seed)
        np.testing.assert_allclose(found.results["train_loss"][place], alone, rtol=1e-6)


def test_a_metric_that_only_some_cells_have(loaded, tmp_path):
    grid = '[attack]\nnum_byzantine = 1\nseed = 5\n[grid]\nattack = [{ name = "label_flip" }, { name = "ipm", scale = 5 }]\nseeds = 2\n'
    found = configured(loaded(grid))(progress=False)
    found.save(tmp_path / "study")
    for study_ in (found, fl.Study.load(tmp_path / "study")):
        assert study_.lacking == {"train_attack_success": (1,)}
        first, second = study_.table("train_attack_success")
        assert first["seeds"] == 2 and (second["mean"], second["seeds"], second["diverged"], second["rank"]) == (None, 0, 0, 2)
        assert [row["seeds"] for row in study_.table("train_accuracy")] == [2, 2]


def test_attacks_of_a_grid_keep_who_mounts_them(loaded):
    config = loaded('[attack]\nbyzantine = [1]\n[grid]\nattack = [{ name = "ipm" }, { name = "nan", num_byzantine = 2 }]\n')
    values = [choice["attack"] for choice in grid_of(config).choices[0]]
    assert values == [{"byzantine": [1], "name": "ipm"}, {"name": "nan", "num_byzantine": 2}]


def test_a_seed_decides_its_data_too(loaded):
    clients = re.search(r"\[\[data.clients\]\].*?(?=\[model\])", TINY, re.DOTALL)[0]
    digits = ('name = "table"', 'name = "digits"\npartition = { name = "dirichlet", clients = 4, alpha = 1.0 }')
    grid = '[grid]\n"data.partition.alpha" = [0.5, 5]\nseed = [1, 4]\n'
    config = loaded(grid, (clients, ""), digits, ("batch_size = 2", "batch_size = 8\nsteps = 2"))
    found = configured(config)(progress=False)
    assert found.programs == 2  # the seeds' data are of one shape once filled up
    for place, values in (((0, 0), {"data__partition__alpha": 0.5, "seed": 1}), ((1, 1), {"data__partition__alpha": 5, "seed": 4})):
        np.testing.assert_allclose(found.results["test_loss"][place], single(config, "test_loss", **values), rtol=1e-6)


def test_seeds_whose_data_differ_in_shape_are_programs_of_their_own(loaded, monkeypatch):
    config = loaded("[grid]\nclient.optimizer.learning_rate = [0.1, 1]\nseed = [2, 4]\n", ('"uniform"\nclients = 2', '"everyone"'))
    for module in ("fedjax_lite.build", "fedjax_lite.study.configured"):
        monkeypatch.setattr(sys.modules[module], "load_data", lambda config, seed: Source(softmax_data((5, 3, 4, 1)[:seed]), None))
    found = configured(config)(progress=False)
    assert found.programs == 2
    alone = single(config, "train_loss", client__optimizer__learning_rate=1, seed=4)
    np.testing.assert_allclose(found.results["train_loss"][1, 1], alone, rtol=1e-6)


def test_data_of_several_seeds():
    sizes = ((4, 2), (3, 3), (1, 7))
    sources = [(Source(softmax_data(n, seed), softmax_data((2, 1), seed)), 3) for seed, n in enumerate(sizes)]
    stacked = alike(sources)
    assert stacked.each == () and stacked.of(0)[0].train.largest == 7
    for place, n in enumerate(sizes):
        data = stacked.of(jnp.int32(place))[0]
        assert data.train.size.tolist() == list(n)
        np.testing.assert_array_equal(data.train.examples["x"][: sum(n)], sources[place][0].train.examples["x"])
        np.testing.assert_array_equal(data.test.examples["x"], sources[place][0].test.examples["x"])
    assert len(alike([sources[0], sources[0]]).each) == 1
    for other in ((Source(softmax_data((1, 2, 3)), None), 3), (sources[1][0], 4)):  # more clients; more classes
        apart = alike([sources[0], other])
        assert apart.of(1) == other
        with pytest.raises(TypeError, match="each seed needs a program of its own"):
            apart.of(jnp.int32(1))


def test_labels_numbers_and_dots(loaded):
    grid = grid_of(loaded('[grid.client]\noptimizer.learning_rate = [0.1, 1]\n[grid]\n"client.epochs" = [1, { name = "x" }]\nseed = [7]\n'))
    assert [axis.names for axis in grid.axes] == [("client.optimizer.learning_rate",), ("client.epochs",)] and grid.seeds == (7,)
    assert grid.places["client.optimizer.learning_rate"].endswith("tiny.toml:28") and grid.places["client.epochs"].endswith(":30")
    assert grid_of(loaded("[grid]\nclient.epochs = [1]\n")).seeds == (3, 4, 5, 6, 7)
    assert grid_of(loaded("[grid]\nseeds = 2")).axes == ()
    assert (
        grid_of(loaded("", overrides=["grid.client.epochs=[1]", "grid.seeds=1"])).places["client.epochs"] == "--set grid.client.epochs=[1]"
    )


MISTAKES = {
    "section": ("[grid]\nagregator = [1]", 28, r"grid.agregator: unknown section 'agregator'; did you mean 'aggregator'"),
    "no list": ("[grid]\nclient.epochs = 3", 28, r"grid.client.epochs: must be a list of values, got 3"),
    "empty": ("[grid]\nclient.epochs = []", 28, r"grid.client.epochs: is an empty list"),
    "twice": ("[grid]\nclient.epochs = [1, 1]", 28, r"grid.client.epochs: has 1 twice"),
    "run": ("[grid]\nrun.rounds = [1]", 28, r"grid.run.rounds: run.rounds cannot vary in a study"),
    "nan": ("[grid]\nclient.optimizer.learning_rate = [nan]", 28, r"grid.client.optimizer.learning_rate\[0\]: must be text, a number"),
    "inf": ("[grid]\nclient.optimizer.learning_rate = [0.1, inf]", 28, r"client.optimizer.learning_rate: must be finite"),
    "truth": (
        "[grid]\nclient.optimizer.learning_rate = [true]",
        28,
        r"client.optimizer.learning_rate: must be a number.*, got True; in the",
    ),
    "negative": ("[grid]\nclient.epochs = [1, 0]", 28, r"client.epochs: must be .* at least 1, .*got 0; in the cell client.epochs=0"),
    "key": ("[grid]\nclient.epoch = [1]", 28, r"client.epoch: unknown key; did you mean 'epochs'"),
    "name": ('[grid]\naggregator = ["mean", "medan"]', 28, r"aggregator.name: unknown aggregator 'medan'; did you mean 'median'"),
    "name in a table": ('[grid]\naggregator = [{ name = "medan" }]', 28, r"aggregator.name: unknown .* in the cell aggregator=medan"),
    "not a table": ("[grid]\naggregator.name.x = [1]", 28, r"aggregator.name.x: aggregator.name is 'weighted_mean', not a table"),
    "argument": (
        '[grid]\naggregator = [{ name = "trimmed_mean" }]',
        28,
        r"aggregator: give num_byzantine; in the cell aggregator=trimmed_mean",
    ),
    "data": ("[grid]\ndata.clients = [[]]", 28, r"data.clients: .*; in the cell data.clients=\[\]"),
    "seeds": ("[grid]\nclient.epochs = [1]\nseeds = 0", 29, r"grid.seeds: must be a whole number of at least 1, got 0"),
    "seed": ("[grid]\nclient.epochs = [1]\nseed = [1, -1]", 29, r"grid.seed: seeds must be"),
    "both": ("[grid]\nclient.epochs = [1]\nseed = [1]\nseeds = 2", 30, r"grid.seeds: give seeds \(how many\) or seed \(a list\), not both"),
    "option": ("checkpoint_every = 2\n[grid]\nclient.epochs = [1]", 27, r"run.checkpoint_every: is not for studies"),
}


@pytest.mark.parametrize("grid, line, message", MISTAKES.values(), ids=MISTAKES)
def test_mistakes_in_a_grid_name_the_line(loaded, grid, line, message):
    with pytest.raises(ValueError, match=f"tiny.toml:{line}: {message}") as refused:
        configured(loaded(grid))(progress=False)
    assert "\n" not in str(refused.value)


def test_a_study_needs_a_grid(loaded):
    with pytest.raises(ValueError, match=r"tiny.toml: grid: a study needs a table \[grid\], such as"):
        configured(loaded(""))
    with pytest.raises(ValueError, match="--set grid=3: grid: must be a table, got 3"):
        loaded("", overrides=["grid=3"])


def test_axes_of_plain_values():
    axes, choices = axes_of({"x": np.linspace(0, 1, 3), "y": range(2), "z": jnp.ones(1), "w": [None, (200, 200)]})
    assert [axis.rows for axis in axes] == [((0.0,), (0.5,), (1.0,)), ((0,), (1,)), ((1.0,),), (("None",), ("(200, 200)",))]
    assert all(type(choice["x"]) is float for choice in choices[0]) and choices[3][0] == {"w": None}
