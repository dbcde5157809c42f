"""Figures for papers: what is drawn is what was recorded; files have the width that was asked for, and their fonts inside."""

import builtins
import json
import re
import sys

import numpy as np
import pytest
from problems import softmax_loss
from segments import DATA, run
from shells import TEXT, shell_in

import fedjax_lite as fl
from fedjax_lite.data.picture import counts_of

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of runs: two seeds of one setting, and another setting."""
    folder = tmp_path_factory.mktemp("runs")
    for name, seed, rate, rounds in (("a0", 0, 0.1, 7), ("a1", 1, 0.1, 7), ("b0", 0, 0.3, 3)):
        run(rounds, out=folder / name, config={"seed": seed, "rate": rate})
    return folder


def test_curves_are_the_records(runs):
    figure = fl.plots.curves(runs / "a0", runs / "a1", runs / "b0")
    (axes,) = figure.axes
    one, other = axes.lines
    records = [[json.loads(line) for line in (runs / name / "metrics.jsonl").read_text().splitlines()] for name in ("a0", "a1")]
    values = np.array([[record["test_accuracy"] for record in each if "test_accuracy" in record] for each in records])
    assert one.get_xdata().tolist() == [3, 6, 7] and other.get_xdata().tolist() == [3]
    np.testing.assert_allclose(one.get_ydata(), values.mean(0))
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["rate 0.1", "rate 0.3"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("round", "test accuracy") and figure.get_size_inches()[0] == 3.25
    assert one.get_color() != other.get_color() and one.get_marker() != other.get_marker()
    named = fl.plots.curves(runs / "a0", runs / "b0", labels=["ours", "theirs"], metric="test_loss", width=6.75)
    assert [text.get_text() for text in named.axes[0].get_legend().get_texts()] == ["ours", "theirs"]
    alone = fl.plots.curves(runs / "a0")
    assert alone.axes[0].get_legend() is None


def test_the_band_is_from_the_lowest_to_the_highest_seed(tmp_path):
    low, high = {1: 0.25, 2: 0.5}, {1: 0.75, 2: 0.5}
    for seed, values in enumerate((low, high)):
        folder = tmp_path / str(seed)
        (folder / "checkpoints").mkdir(parents=True)
        lines = [
            json.dumps({"round": r, "test_accuracy": x, "uplink_bits": 8e6 * (1 + seed), "virtual_hours": r / 2}) for r, x in values.items()
        ]
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        (folder / "config.toml").write_text(f"seed = {seed}\nrate = 1\n")
    folders = tmp_path / "0", tmp_path / "1"
    (axes,) = fl.plots.curves(*folders).axes
    (band,) = axes.collections
    assert {tuple(point) for point in band.get_paths()[0].vertices} >= {(1.0, 0.25), (1.0, 0.75), (2.0, 0.5)}
    assert axes.lines[0].get_ydata().tolist() == [0.5, 0.5]
    (axes,) = fl.plots.curves(*folders, against="hours").axes
    assert axes.lines[0].get_xdata().tolist() == [0.5, 1.0] and axes.get_xlabel() == "virtual hours"
    (axes,) = fl.plots.curves(*folders, against="bits").axes  # 1, 2 and 2, 4 megabytes: known together from 2 to 2
    assert set(axes.lines[0].get_xdata()) == {2.0} and axes.lines[0].get_ydata()[0] == pytest.approx((0.5 + 0.75) / 2)


def test_a_heat_map_has_each_cell_and_its_spread():
    study = fl.study(
        lambda key, rate, n, k: {"loss": rate * n + k}, {"rate": [0.5, 2.0], "n": [1, 2, 3], "k": [0.0, 1.0]}, seeds=2, progress=False
    )
    study.results["loss"][..., 1] += 0.25
    figure = fl.plots.heat_map(study)
    assert len(figure.axes) == 2  # a map for each k
    rows = {(row["rate"], row["n"], row["k"]): row for row in study.table("loss")}
    for k, axes in enumerate(figure.axes):
        image = axes.images[0].get_array()
        assert image.shape == (3, 2) and axes.get_title() == f"k {k}"
        for i, n in enumerate((1, 2, 3)):
            for j, rate in enumerate((0.5, 2.0)):
                row = rows[rate, n, float(k)]
                assert image[i, j] == pytest.approx(row["mean"])
                half = (row["high"] - row["low"]) / 2
                assert axes.texts[2 * i + j].get_text().split("± ")[1] == pytest.approx(f"{half:.3f}")
    light, dark = figure.axes[0].images[0].cmap(1.0), figure.axes[0].images[0].cmap(0.0)
    assert sum(dark[:3]) < sum(light[:3])  # the lowest loss is the darkest
    one = fl.study(lambda key: {"test_accuracy": 1.0}, {}, seeds=1, progress=False)
    assert [text.get_text() for text in fl.plots.heat_map(one).axes[0].texts] == ["1"]
    one.results["test_accuracy"][:] = np.nan
    assert [text.get_text() for text in fl.plots.heat_map(one).axes[0].texts] == ["-"]


def test_clients_and_a_partition(runs, tmp_path):
    (axes,) = fl.plots.clients(runs / "a0", "test_loss").axes
    values = fl.load_run(runs / "a0").clients["test_loss"]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), np.sort(values[np.isfinite(values)]))
    (axes,) = fl.plots.participation(runs / "a0").axes
    assert sum(int(bar.get_height()) for bar in axes.patches) == DATA.population
    above, below = fl.plots.partition(DATA).axes
    assert [int(bar.get_height()) for bar in above.patches] == np.asarray(DATA.size).tolist()
    np.testing.assert_allclose(below.images[0].get_array() ** 2, counts_of(DATA, np.arange(DATA.population)).T)
    (tmp_path / "clients.csv").write_text("id,rounds\n0,3\n" + "".join(f"{k},{k}\n" for k in range(1, 60)))
    assert sum(bar.get_height() for bar in fl.plots.participation(tmp_path).axes[0].patches) == 60
    with pytest.raises(ValueError, match="its clients have no metric: give the run a loss_fn"):
        fl.plots.clients(tmp_path)
    with pytest.raises(ValueError, match="no metric 'test_acuracy' of clients; there are test_accuracy, test_loss"):
        fl.plots.clients(runs / "a0", "test_acuracy")
    with pytest.raises(ValueError, match="has no clients.csv: a run writes it at its end, unless it is private"):
        fl.plots.participation(tmp_path / "none")
    with pytest.raises(ValueError, match="tells of no epsilon: it is not private"):
        fl.plots.epsilon(runs / "a0")


@pytest.mark.deep
def test_names_are_written_as_they_are(tmp_path):
    """A dollar begins no mathematics but in labels that are given, and a name that begins with _ is in the legend too."""
    measure = lambda params, batch, key: (lambda loss, more: (loss, more | {"$\\frac$": loss}))(*softmax_loss(params, batch, key))  # noqa: E731
    metric = "test_$\\frac$"
    for name in ("$\\q$", "_b", "c$"):
        run(3, out=tmp_path / name, loss_fn=measure, config={"rate": name, "$\\q$": f"${name}$"} | dict.fromkeys("abc", name))
    figure = fl.plots.curves(*(tmp_path / name for name in ("$\\q$", "_b", "c$")), metric=metric, width=6.75)
    (axes,) = figure.axes
    texts = [axes.yaxis.label, *(axes.get_legend() or figure.legends[0]).get_texts()]
    assert [text.get_text().replace("\\$", "$") for text in texts][0] == "test $\\frac$" and len(texts) == 4
    drawn = fl.plots.save(figure, tmp_path / "a.svg").read_text()
    assert "test $\\frac$" in drawn and f"{tmp_path}/c$" in drawn
    under = fl.plots.curves(tmp_path / "_b", tmp_path / "c$", metric=metric, labels=["_b", "$\\alpha$"])
    assert ">_b<" in fl.plots.save(under, tmp_path / "b.svg").read_text()
    study = fl.study(lambda key, x: {"$\\q$": 1.0}, {"x": ["$\\q$", "_"]}, seeds=1, progress=False)
    assert "$\\q$" in fl.plots.save(fl.plots.heat_map(study, "$\\q$"), tmp_path / "h.svg").read_text()
    fl.plots.save(fl.plots.clients(tmp_path / "_b", metric), tmp_path / "c.svg")


def test_a_legend_is_over_the_curves_or_below_them_whole(runs):
    """Where it is below, the figure grows and the axes do not shrink; names that are longer than it is wide go on."""
    short, one, long = (
        fl.plots.curves(runs / "a0", runs / "b0", labels=["a", name], metric="test_loss") for name in ("b", "b" * 40, "b b " * 60)
    )
    assert short.axes[0].get_legend() is not None and short.legends == [] and short.get_size_inches()[1] == pytest.approx(3.25 * 0.7)
    heights = []
    for figure in (short, one, long):
        figure.draw_without_rendering()
        heights.append(figure.axes[0].get_window_extent().height)
    for figure in (one, long):
        (legend,) = figure.legends
        box, axes = legend.get_window_extent(), figure.axes[0].get_tightbbox()
        assert figure.axes[0].get_legend() is None and box.y1 <= axes.y0 and box.y0 >= 0
        assert box.x0 >= 0 and box.x1 <= figure.get_size_inches()[0] * figure.dpi
    np.testing.assert_allclose(heights, heights[0], rtol=0.1)
    assert long.legends[0].get_texts()[1].get_text().replace("\n", " ") == ("b b " * 60).strip()


@pytest.mark.deep
def test_a_hundred_curves_leave_the_figure_its_room(runs, tmp_path):
    fl.plots.save(fl.plots.curves(*[runs / "a0"] * 100), tmp_path / "a.png")  # a layout that fails warns, and fails here


def test_files_have_their_width_and_fonts(runs, tmp_path):
    figure = fl.plots.curves(runs / "a0", runs / "b0")
    pdf = fl.plots.save(figure, tmp_path / "figures" / "a.pdf").read_bytes()
    (box,) = re.findall(rb"/MediaBox \[([^]]+)\]", pdf)
    assert float(box.split()[2]) == pytest.approx(3.25 * 72, abs=0.1)
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf
    assert fl.plots.save(figure, tmp_path / "b.pdf").read_bytes() == pdf
    assert b"<text" in fl.plots.save(figure, tmp_path / "a.svg").read_bytes()
    png = fl.plots.save(figure, tmp_path / "a.png").read_bytes()
    assert png[:4] == b"\x89PNG" and int.from_bytes(png[16:20]) == 975  # 300 dots an inch
    with pytest.raises(ValueError, match="a.gif: name a file that ends in .pdf, .png, .svg"):
        fl.plots.save(figure, tmp_path / "a.gif")
    assert not list(tmp_path.glob("*.partial"))


def test_refusals(runs, monkeypatch, tmp_path):
    for width in (0.0, -1.0, float("nan"), 0.1, 1e6):
        with pytest.raises(ValueError, match=f"width must be 1 to 100 inches, got {width!r}"):
            fl.plots.curves(runs / "a0", width=width)
    (tmp_path / "clients.csv").write_text("id\n0\n")
    with pytest.raises(ValueError, match="clients.csv has no column rounds"):
        fl.plots.participation(tmp_path)
    (tmp_path / "summary.json").write_text("[]")
    with pytest.raises(ValueError, match="summary.json is damaged"):
        fl.plots.epsilon(tmp_path)
    with pytest.raises(ValueError, match="against must be one of rounds, bits, hours, got 'epochs'"):
        fl.plots.curves(runs / "a0", against="epochs")
    with pytest.raises(ValueError, match="none of the runs knows its hours where it has test_accuracy: take rounds"):
        fl.plots.curves(runs / "a0", against="hours")
    with pytest.raises(ValueError, match="labels: 1 for 2 curves: give one each, in the order of rate 0.1, rate 0.3"):
        fl.plots.curves(runs / "a0", runs / "b0", labels=["a"])
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", lambda name, *a, **k: real("absent" if name == "matplotlib" else name, *a, **k))
    with pytest.raises(ValueError, match=r'plots need matplotlib: pip install "fedjax_lite\[plot\]"'):
        fl.plots.curves(runs / "a0")


def test_the_command_line(tmp_path, monkeypatch, capsys):
    shell = shell_in(tmp_path, monkeypatch, capsys)
    (tmp_path / "grid.toml").write_text(TEXT + "[grid]\nclient.optimizer.learning_rate = [0.1, 1]\nseeds = 2\n")
    assert shell("run tiny.toml --devices 1 --out a")[0] == shell("study grid.toml --devices 1 --out grid")[0] == 0
    for line in ("a grid --out c.pdf", "a --against bits --out b.png", "grid --kind heat --out h.pdf", "a --kind clients --out k.svg"):
        status, out, err = shell(f"plot {line}")
        assert (status, err) == (0, "") and out == f"written to {line.split()[-1]}\n" and (tmp_path / line.split()[-1]).exists()
    assert shell("plot a grid --kind heat --out x.pdf")[2] == "error: --kind heat is of one folder, got 2\n"
    status, _, error = shell("plot a --kind heat --out x.pdf")
    assert (status, error) == (2, "error: a holds a run, and no study: name the folder that fedjax-lite study has written\n")
    assert shell("plot a --out x.gif")[0] == 2 and not (tmp_path / "x.gif").exists()
