"""The report: one page that needs nothing else, for every kind of run."""

import math
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from fedjax_lite.report import report
from fedjax_lite.report.axis import decades, ticks
from fedjax_lite.report.chart import MOST, line_chart, thinned

SPREAD = {"accuracy": {"mean": 0.5, "std": 0.1, "worst_decile": 0.125, "deciles": [k / 10 for k in range(1, 10)]}}


FEW = {"accuracy": {"mean": 0.25, "std": 0.1, "worst_decile": 0.125, "values": [0.125, 0.25, 0.375]}}


def records(rounds, prefix="test_", every=2):
    made = []
    for t in range(1, rounds + 1):
        record = {"round": t, "loss": None if t == 3 else 2.0 / t, "accuracy": 0.5, "update_norm": 10.0**-t, "clients": 4.0}
        if prefix and t % every == 0:
            record |= {f"{prefix}loss": 3.0 / t, f"{prefix}accuracy": 0.75, f"{prefix}clients": SPREAD}
        made.append(record)
    return made


def page(rows, **more):
    summary = {
        "status": "finished",
        "rounds": len(rows),
        "seconds": 61.0,
        "final": rows[-1] if rows else {},
        "data": {"clients": 3},
        "test": None,
    }
    return report("a <b> & c", summary | {"code": {"jax": "1"}, "device": {"kind": "cpu"}} | more, rows, 'name = "<x>"')


def parsed(html):
    """Figures by caption; as XML, so whatever is not well formed fails here."""
    body = html[html.index("<body>") : html.index("</html>")]
    figures = ElementTree.fromstring(body).iter("figure")
    return {"".join(figure.find("figcaption").itertext()): figure for figure in figures}


def test_a_page_needs_nothing_else_and_escapes_what_it_shows():
    html = page(records(8))
    assert html.startswith("<!doctype html>") and "<x>" not in html and "<b> &" not in html and "a &lt;b&gt; &amp; c" in html
    assert not any(word in html for word in ("http", "<link", "src=", "@import", "fetch("))
    assert "after 8 rounds, 1 min 1 s" in html and "Evaluation after round 8" in html and "worst 10 %" in html and "0.125" in html


@pytest.mark.parametrize(("prefix", "named"), [("test_", "held-out examples"), ("train_", "all training examples")])
def test_a_figure_a_metric_with_training_and_evaluation_together(prefix, named):
    figures = parsed(page(records(8, prefix)))
    assert list(figures) == ["loss", "accuracy", "update norm (logarithmic)"]  # clients were always 4: no curve
    legend = [span.find("b").tail for span in figures["accuracy"].iter("span")]
    assert legend == [named, "local training", "10 % to 90 % of clients"]
    assert len(list(figures["accuracy"].iter("polygon"))) == 1 and len(list(figures["loss"].iter("polygon"))) == 0


def test_what_was_evaluated_comes_first_and_what_it_cost_last():
    """In the figures and in the table, whatever the order of the records."""
    rows = [
        {"clients": 5.0 - t, "uplink_bits": 8.0 * t, "a_loss": 1.0 / t, "loss": 2.0 / t, "round": t, "test_loss": 3.0 / t} for t in (1, 2)
    ]
    html = page(rows)
    assert list(parsed(html)) == ["loss", "a loss", "clients", "uplink bits"]
    cells = [cell.text for cell in ElementTree.fromstring(html[html.index("<body>") : html.index("</html>")]).iter("td")]
    assert cells[:10:2] == ["test loss", "a loss", "loss", "clients", "uplink bits"]


def test_few_clients_are_shown_one_by_one():
    rows = records(8)
    for record in rows[1::2]:
        record["test_clients"] = FEW | {"of_one_class": FEW["accuracy"] | {"values": [0.5, 0.75]}}
    html = page(rows)
    assert [b.tail for b in parsed(html)["accuracy"].iter("b")][-1] == "lowest to highest client"
    tables = [table for table in ElementTree.fromstring(html[html.index("<body>") : html.index("</html>")]).iter("table")]
    (told,) = [[[cell.text for cell in row] for row in table] for table in tables if table[0][0].text == "client by client"]
    assert told[0][6:] == ["1", "2", "3"] and told[1][6:] == ["0.125", "0.25", "0.375"] and told[2][6:] == ["0.5", "0.75"]
    assert "each client, from the lowest on" in html and "at or below" not in html and "from the lowest" not in page(records(8))


def test_what_clients_hold_for_themselves_has_its_own_figure_and_spread():
    """Neither an accuracy that is no public example's, nor a second spread over clients, takes another's place."""
    rows = records(8)
    for record in rows:
        record |= {f"{whose}_accuracy": record["round"] / 10 for whose in ("student", "personal", "ensemble")}
        record |= {"personal_loss": 1.0 / record["round"]}
    for record in rows[1::2]:
        record |= {"test_personal_accuracy": 0.25, "test_personal_clients": FEW}
    html = page(rows)
    figures = parsed(html)
    assert {"personal accuracy", "personal loss", "accuracy on public examples"} < figures.keys()
    legends = {caption: [b.tail for b in figure.iter("b")] for caption, figure in figures.items()}
    assert legends["accuracy on public examples"] == ["student", "ensemble"]
    assert legends["personal accuracy"] == ["held-out examples", "local training", "lowest to highest client"]
    assert len(list(figures["personal accuracy"].iter("polygon"))) == 1
    rows = [[cell.text for cell in row] for row in ElementTree.fromstring(html[html.index("<body>") : html.index("</html>")]).iter("tr")]
    assert ["accuracy", "0.5", "0.1", "0.125"] in [row[:4] for row in rows]
    assert ["personal accuracy", "0.25", "0.1", "0.125", "-", "-", "0.125", "0.25", "0.375"] in rows


def test_pages_of_little():
    assert "Curves" not in page([]) and "after 0 rounds" in page([])
    figures = parsed(page(records(1)))
    assert len(list(figures["loss"].iter("circle"))) == 1  # a single point is seen
    assert "Evaluation" not in page(records(3, prefix=""))
    assert "lower the rate" in page(records(3), status="diverged", error="round 4: lower the rate")


def test_gaps_break_a_curve_and_lone_points_are_marked():
    chart = line_chart("x", {"x": [(i, None if i in (2, 4) else float(i)) for i in range(100)]})
    path = ElementTree.fromstring(chart).find(".//path").get("d")
    assert path.count("M") == 3 and path.count("L") == 98 - 3
    assert chart.count("<circle") == 1  # round 3, between two gaps
    assert line_chart("x", {"x": [(1, None)]}) == "" == line_chart("x", {})


def test_points_are_inside_the_figure():
    for values in ([1.0, 1.0], [0.0, 0.0], [-5.0, 3e6], [1e-9, 1.0, 0.0], [1e30, 1.0], [0.1 + 1e-17, 0.1]):
        for log in (False, True):
            chart = line_chart("x", {"x": list(enumerate(values, 1))}, [(1, -1e3, 1e3)] if log else (), "band", may_be_log=log)
            for number in ElementTree.fromstring(chart).iter("circle"):
                assert 0 <= float(number.get("cx")) <= 460 and 0 <= float(number.get("cy")) <= 250


def test_long_curves_are_thinned_but_keep_their_peaks():
    values = np.sin(np.arange(100_000) / 5000)
    values[54_321], values[12_345], values[70_000:80_000] = 9, -9, np.nan
    series = [(i, None if math.isnan(v) else float(v)) for i, v in enumerate(values)]
    thin = thinned(series)
    assert len(thin) <= MOST + 2 and {(54_321, 9.0), (12_345, -9.0)} <= set(thin) and (None in [y for _, y in thin])
    assert [x for x, _ in thin] == sorted(x for x, _ in thin)
    assert thinned(series[:50]) == series[:50]
    drawing, numbers = line_chart("x", {"x": series}).split('<a class="csv"')
    assert len(drawing) < 20_000 and numbers.count("%0A") == 1 + len(series)  # all of them are in the link


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (1, 100_000), (-3, -2.9999), (5, 5), (0, 0), (1e-9, 2e-9), (1e8, 1e8 + 1), (0.1 + 1e-17, 0.1)]
)
def test_ticks_span_the_values(low, high):
    found = ticks(low, high)
    assert found[0] <= low and high <= found[-1] and 2 <= len(found) <= 8
    assert found == sorted(set(found))


def test_decades_span_the_values():
    for low, high in ((0.5, 2), (1e-12, 1e3), (1, 1000)):
        found = decades(low, high)
        assert found[0] <= low and high <= found[-1] and len(found) <= 8
