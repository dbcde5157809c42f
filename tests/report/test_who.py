"""The clients that a report lists: the worst by NumPy's order, by name, with their most frequent classes."""

import math
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

import fedjax_lite as fl
from fedjax_lite.report.clients import clients_body
from fedjax_lite.report.who import who
from fedjax_lite.runner.client_table import csv_of, facts_of, stacked

GLOBAL, OWN = "global model", "own models"


def tables_of(html):
    """title -> rows of cells, the head first."""
    body = ElementTree.fromstring(f"<body>{html}</body>")
    return {each.find("small").text: [[cell.text or "" for cell in row] for row in each.find("table")] for each in body.iter("div")}


@pytest.mark.parametrize("lower", [True, False])
def test_the_worst_of_each_model_are_listed(lower):
    rng = np.random.default_rng(0)
    best, own = rng.permutation(20) / 20, rng.permutation(20) / 20
    best[3] = own[5] = math.nan
    found = tables_of(who({"id": list(range(20))}, {GLOBAL: best, OWN: own}, lower))
    sign = 1 if lower else -1
    by_global = sorted((k for k in range(20) if k != 3), key=lambda k: -sign * best[k])[:5]
    lost = sorted((k for k in range(20) if k not in (3, 5) and sign * (own[k] - best[k]) > 0), key=lambda k: -sign * (own[k] - best[k]))[:5]
    assert list(found) == ["Served worst by the global model", "Lose most by own models"]
    for rows, expected in zip(found.values(), (by_global, lost), strict=True):
        assert rows[0] == ["client", GLOBAL, OWN] and [int(row[0]) for row in rows[1:]] == expected
        assert [row[1] for row in rows[1:]] == [f"{best[k]:.4g}" for k in expected]


def test_who_loses_nothing_is_not_listed_and_ties_are_in_order():
    same = np.full(7, 0.5)
    (rows,) = tables_of(who({"id": list(range(7))}, {GLOBAL: same, OWN: same}, True)).values()
    assert [row[0] for row in rows[1:]] == list("01234")
    assert who({"id": [0]}, {GLOBAL: np.array([math.nan])}, True) == ""


def test_names_and_class_names_stand_where_there_are_some():
    columns = {"id": [0, 1], "name": ["<ann>", ""], "examples": [10, 0], "label_0": [1, 0], "label_1": [3, 0], "label_2": [6, 0]}
    columns["test_accuracy"] = [0.25, 0.5]
    html = clients_body(columns, ["cat", "<dog>"])
    (rows,) = tables_of(html[html.index('<div class="wide">') :]).values()
    assert rows == [
        ["client", "name", "examples", "classes", GLOBAL],
        ["0", "<ann>", "10", "2 60 %, <dog> 30 %, cat 10 %", "0.25"],
        ["1", "", "0", "", "0.5"],
    ]


def test_a_table_of_clients_has_their_names():
    each = [{"y": np.array([0, 1])}, {"y": np.array([1, 1])}]
    data, other = (fl.FederatedData.from_clients(each, names=names) for names in (["a,b", "c"], None))
    named, plain = (facts_of(part, None, np.zeros(2), 0) for part in (data, other))
    assert list(named) == ["id", "name", "new", "examples", "rounds", "label_0", "label_1"] and "name" not in plain
    assert csv_of(stacked(named, plain)).splitlines()[1:] == [
        '0,"a,b",0,2,0,1,1',
        "1,c,0,2,0,0,2",
        "0,,0,2,0,1,1",
        "1,,0,2,0,0,2",
    ]
