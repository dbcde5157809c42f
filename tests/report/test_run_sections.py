"""A run's report: the partition, who took part, bytes, time, the index, what is folded; of no clients, of one, of thousands."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from csv_links import tables_of

from fedjax_lite.report import report
from fedjax_lite.report.counts import counted_bars
from fedjax_lite.report.document import Section, page
from fedjax_lite.report.partition import MOST_CELLS, MOST_CLIENTS, participation_body, partition_body
from fedjax_lite.report.timing import time_body
from fedjax_lite.report.traffic import traffic_body


def clients(count, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.poisson(2, (count, classes))
    table = {"id": np.arange(count), "new": np.zeros(count, int), "examples": labels.sum(axis=1), "rounds": rng.binomial(40, 0.2, count)}
    return table | {f"label_{c}": labels[:, c] for c in range(classes)} | {"test_accuracy": rng.random(count)}


def cells_of(html):
    """told -> width and fill of the picture's rectangles."""
    found = ElementTree.fromstring(f"<body>{html}</body>").iter("{http://www.w3.org/2000/svg}rect")
    return {rect[0].text: (float(rect.get("width")), rect.get("fill")) for rect in found}


def test_the_partition_is_the_table_of_clients():
    table = clients(12) | {"name": np.array([f"<{k}>" for k in range(12)], object)}
    html = partition_body(table, ["cat", "dog", "&"])
    cells = cells_of(html)
    for k in range(12):
        for label, word in enumerate(["cat", "dog", "&"]):
            told = f"<{k}>: {table[f'label_{label}'][k]} of {word}"
            assert (told in cells) == (table[f"label_{label}"][k] > 0)
        assert f"<{k}>: {table['examples'][k]} examples" in cells
    held = [(table[f"label_{label}"] > 0).sum() for label in range(3)]
    assert f"{table['examples'].sum()} in all" in html and f"{sum(held) / 12:.3g} of 3 classes" in html
    assert "taken evenly" not in html
    head, *rows = tables_of(html)["clients.csv"]
    assert head == list(table) and [row[2] for row in rows] == [str(x) for x in table["examples"]] and len(rows) == 12


def test_of_thousands_of_clients_a_sample_is_drawn_and_all_are_counted():
    html = partition_body(clients(5000, 10))
    assert f"Of 5,000 clients {MOST_CLIENTS} are drawn, taken evenly." in html and html.startswith("<p>5,000 clients with ")
    assert sum(told.endswith(" examples") for told in cells_of(html)) == MOST_CLIENTS
    assert len(partition_body(clients(5000, 60))) < 500_000  # 65 columns of 5000 clients are not in the page
    assert "clients.csv, beside this page" in partition_body(clients(MOST_CELLS // 7)) and "beside" not in html
    assert "Of 60 classes the 40 most frequent are drawn." in partition_body(clients(4, 60))


@pytest.mark.parametrize("table", [{}, {"id": []}, {"id": [], "examples": []}, {"examples": [], "rounds": []}])
def test_without_clients_there_is_no_partition(table):
    assert partition_body(table) == "" == participation_body(table)


def test_one_client_and_no_labels():
    html = partition_body({"id": [0], "examples": [7]})
    assert "1 client with 7 examples each" in html and list(cells_of(html)) == ["0: 7 examples"] and "classes" not in html
    assert "1 client, each drawn for 3 rounds; none was never drawn." in participation_body({"rounds": [3]})
    assert "2 of 2 clients were never drawn." in participation_body({"rounds": [0, 0]})


def test_participation_counts_those_who_could_take_part():
    table = {"rounds": [0, 2, 2, 5, 0], "new": [0, 0, 0, 0, 1]}
    html = participation_body(table)
    assert "1 of 4 clients was never drawn; the others for 2 to 5 (median 2) rounds." in html
    ((head, *rows),) = tables_of(html).values()
    assert [row[1] for row in rows] == ["1", "0", "2", "0", "0", "1"] and head[0] == "rounds"
    many = participation_body({"rounds": np.arange(1000)})
    assert "1 of 1,000 clients was" in many and sum(float(row[2]) for row in tables_of(many).popitem()[1][1:]) == pytest.approx(100)


def test_whole_numbers_have_bars_of_their_share():
    figure = ElementTree.fromstring(counted_bars("t", "k", {"a": [1, 0, 3], "b": [2]}))
    outlines = {path.get("stroke"): path.get("d") for path in figure.findall("svg/path") if path.get("fill") == "none"}
    heights = [{float(y) for y in re.findall(r",([\d.]+)", d)} for d in outlines.values()]
    assert [len(each) for each in heights] == [2, 3] and {214.0} < heights[1]  # the first on top, so last; 0, 25 and 75 %
    assert tables_of(counted_bars("t", "k", {"a": [1, 0, 3], "b": [2]}))["t.csv"][1:] == [["0", "1", "2"], ["1", "0", "0"], ["2", "3", "0"]]


def test_bytes_add_up_and_buy_accuracy():
    records = [{"round": t, "uplink_bits": 8e6 * t, "downlink_bits": None if t == 2 else 4e6, "loss": 1.0} for t in (1, 2, 3)]
    records[2]["test_accuracy"] = 0.5
    found = tables_of(traffic_body({"client_parameters": [3, 4], "global_parameters": 5}, records, ["uplink_bits"]))
    sent, bought = found.values()
    assert sent[0] == ["round", "by clients \N{DAGGER}", "to clients"]
    assert [[float(cell) for cell in row] for row in sent[1:]] == [[1, 1e6, 5e5], [2, 3e6, 5e5], [3, 6e6, 1e6]]
    assert bought == [["MB sent, both ways", "test accuracy"], ["7", "0.5"]]
    silent = traffic_body({"client_parameters": 3, "global_parameters": 5}, [{"round": 1, "test_loss": 1.0}])
    assert "<figure" not in silent and "parameters" in silent
    none = [{"round": t, "uplink_bits": 0.0, "test_loss": 1.0} for t in (1, 2)]
    assert traffic_body({"client_parameters": 3, "global_parameters": 5}, none).count("<figure>") == 2


def test_time_is_told_by_parts():
    lanes = {"share": 0.75, "needed": 1500, "made": 2000, "rounds": 10, "lanes": 4, "devices": 2}
    html = time_body({"seconds": {"compile": 70.0, "rounds": 4.0}, "rounds": 10, "lanes": lanes}, 10)
    assert "<td>1 min 10 s</td>" in html and "<td>2.5</td>" in html and "<td>75.0 %</td>" in html
    assert "4 lanes on each of 2 devices made" in html and "(1,500 of 2,000 in 10 rounds)" in html
    assert "lane" not in time_body({"seconds": {"compile": 0.0, "rounds": 0.0}, "rounds": 0, "lanes": {}}, 0)
    assert "resumed" not in html and "the last 10 rounds of 1,010" in time_body({"seconds": {"rounds": 4.0}, "rounds": 10}, 1010)


def test_an_index_leads_to_each_section():
    html = page("t", "<p>head</p>", [Section("A & b", "<p>1</p>"), Section("none", ""), Section("C, d", "<p>2</p>", folded=True)])
    body = ElementTree.fromstring(html[html.index("<body>") : html.index("</html>")])
    links = {link.text: link.get("href") for link in body.find("nav")}
    assert links == {"A & b": "#a-b", "C, d": "#c-d"}
    assert [(each.tag, each.get("id"), each.get("open")) for each in body if each.get("id")] == [
        ("section", "a-b", None),
        ("details", "c-d", None),
    ]
    assert "<nav" not in page("t", "", [Section("alone", "x")])


def test_a_whole_page_of_a_thousand_rounds_and_clients_is_bounded():
    rows = [{"round": t, "loss": 1.0 / t, "update_norm": 2.0 / t, "uplink_bits": 8e6, "downlink_bits": 8e6} for t in range(1, 1001)]
    for record in rows[9::10]:
        record |= {"test_accuracy": 1 - 1 / record["round"], "test_loss": 1.0 / record["round"]}
    summary = {"status": "finished", "rounds": 1000, "seconds": 61.0, "final": rows[-1], "traffic": {"client_parameters": 3}}
    summary["traffic"] |= {"global_parameters": 3, "uplink_bytes": 1e9}
    html = report("big", summary, rows, "x = 1", clients(1000, 10))
    assert len(html) < 600_000
    titles = re.findall("<h2>(.*?)</h2>", html)
    first = ["Evaluation after round 1000", "Curves", "What rounds report", "Clients", "Partition", "Participation", "Models and traffic"]
    assert titles == [*first, "Training in round 1000", "Configuration"]
    assert '<dl class="tiles"><div><dt>test accuracy</dt><dd>0.999</dd></div><div><dt>sent by clients</dt><dd>1 GB</dd></div></dl>' in html
    assert not re.search("Partition|Participation|<h2>Clients", report("private", summary, rows, "", {}))
