"""What a contest prints and writes: text of some 25 lines, a page with its sections, values that are read back. Nothing is trained."""

import html
import re

import numpy as np
import pytest

from fedjax_lite.arena.attacks import ATTACKS
from fedjax_lite.arena.contender import Contender
from fedjax_lite.arena.contest import Scores
from fedjax_lite.arena.of_attacks import Intruder, of_attacks
from fedjax_lite.arena.of_rules import of_rules
from fedjax_lite.arena.of_uplinks import of_uplinks
from fedjax_lite.arena.result import MOST, difference, few
from fedjax_lite.arena.rules import LEFT_OUT, RULES
from fedjax_lite.arena.stored import Table, load
from fedjax_lite.arena.traffic import Traffic
from fedjax_lite.arena.uplinks import UPLINKS
from fedjax_lite.checks import Report, Row
from fedjax_lite.checks.cost import Cost

CONTRACT = Report(20, (Row("order of clients does not matter", "no", True, "largest difference 0.7"),), 3)
COSTS = {"mine": Cost(2e-4, 10_000), "mean": Cost(1e-4, 5_000)}


def drawn(seed, level, attacks=ATTACKS, seeds=5):
    rng = np.random.default_rng(seed)
    under = {name: level + 0.1 * rng.random((3, 2, seeds)) for name in attacks}
    return Scores(0.9 + 0.05 * rng.random((2, seeds)), under, (0, 2, 4, 6), {}, 9)


@pytest.fixture(scope="module")
def table():
    rules = {name: drawn(i, 0.9 * i / len(RULES)) for i, name in enumerate(RULES)}
    uplinks = {name: Traffic(np.full((2, 5), 0.5 + 0.02 * i), 1000.0 - 10 * i) for i, name in enumerate(UPLINKS)}
    return Table(40, 5, rules, uplinks, {"date": "2026-01-01", "seconds": 3, "device": {"kind": "cpu"}})


def headings(page):
    assert page.startswith("<!doctype html>") and "http" not in page.replace("http://www.w3.org", "")
    return [html.unescape(each) for each in re.findall(r"<h2>(.*?)</h2>", page)]


def test_a_rule_has_a_page_and_at_most_25_lines(table, tmp_path):
    scores = drawn(99, 0.5)
    scores.under["nan"][2] = 0.1
    found = of_rules(table, Contender("mine", scores._replace(broken={"mimic": "ValueError: <no>"}), CONTRACT, COSTS))
    sections = ["Ranking", "Scores of mine", "Where it breaks and wins", "Contract", "Cost", "All rules", "Notes", "The field", "Left out"]
    assert headings(found.page) == [*sections, "The table of what is built in was made with"]
    text = str(found)
    assert len(text.splitlines()) <= 25 and max(map(len, text.splitlines())) < 200
    place = found.ranking().index("mine") + 1
    assert text.startswith(f"mine: rank of {len(RULES) + 1}: {place} in the worst case (")
    assert "breaks under nan from 30 % (iid), nan from 30 % (dirichlet)\n" in text
    assert "breaks the contract: order of clients does not matter" in text and "200 µs a call, 2 times the mean; 0.01 MB" in text
    assert "broken under mimic: ValueError: <no>" in text and "&lt;no&gt;" in found.page and "<no>" not in found.page
    assert all(name in found.page for name in (*ATTACKS, *LEFT_OUT)) and found.page.count('class="own"') == 1
    found.save(tmp_path / "new")
    read = load(tmp_path / "new" / "arena.json")
    assert list(read.rules) == list(RULES) and (tmp_path / "new" / "arena.html").read_text() == found.page


def test_the_built_in_rules_are_ranked_without_a_contender(table):
    found = of_rules(table, None)
    assert found.name is None and found.ranking()[0] == list(RULES)[-1] and "verdict" not in found.table[0]
    assert headings(found.page)[:2] == ["Ranking", "All rules"]
    with pytest.raises(KeyError):
        found.row()
    assert found.row("mean")["rank"] == len(RULES)


def test_what_was_not_run_is_said_and_left_out_for_all(table):
    skipped = {"worst_case(budget=10)": "would take 70 minutes"}
    met = [name for name in ATTACKS if name not in skipped]
    found = of_rules(table, Contender("mine", drawn(1, 0.5, met), CONTRACT, {}, skipped))
    assert "not run under worst_case(budget=10): would take 70 minutes" in str(found) and "would take 70 minutes" in found.page
    nothing = of_rules(table, Contender("mine", Scores(np.full((2, 5), np.nan), {}), CONTRACT, COSTS, dict.fromkeys(ATTACKS, "slow")))
    assert not nothing.table and str(nothing).startswith("mine: not run") and headings(nothing.page)[:2] == ["Contract", "Cost"]


def test_a_rule_that_is_lost_altogether_is_last(table):
    scores = Scores(np.full((2, 5), np.nan), {name: np.full((3, 2, 5), np.nan) for name in ATTACKS}, broken={"": "TypeError: no"})
    found = of_rules(table, Contender("mine", scores))
    assert found.ranking()[-1] == "mine" and "broken under all attacks: TypeError: no" in str(found)


def test_one_seed_has_no_intervals(table):
    rules = {name: drawn(i, 0.1 * (i % 9), seeds=1) for i, name in enumerate(RULES)}
    found = of_rules(table._replace(seeds=1, rules=rules), Contender("mine", drawn(7, 0.5, seeds=1)))
    assert "±" not in str(found) and "not told apart by one seed from" in str(found)


def test_an_attack_has_a_page(table):
    met = {name: drawn(i, 0.02 * i, ["mine"]) for i, name in enumerate(RULES)}
    met["krum"] = met["krum"]._replace(broken={"mine": "RuntimeError: no"})
    found = of_attacks(table, Intruder("mine", met))
    assert headings(found.page)[:3] == ["Ranking", "Scores of the rules under mine", "Damage of all attacks"]
    assert len(found.table) == len(ATTACKS) + 1 and len(str(found).splitlines()) <= 25
    assert str(found).startswith(f"mine: rank {found.row()['rank']} of {len(ATTACKS) + 1} by mean damage")
    assert "broken with krum: RuntimeError: no" in str(found)
    alone = of_attacks(table._replace(rules={}), Intruder("mine", met), ["alone"])
    assert alone.ranking() == ["mine"] and str(alone).endswith("alone")


def test_an_uplink_has_a_page_with_a_figure(table):
    found = of_uplinks(table, "mine", Traffic(np.full((2, 5), 0.7), 100.0))
    assert headings(found.page)[:2] == ["Score against bits", "Ranking"] and "<svg" in found.page
    assert found.row()["front"] and "on the front" in str(found) and len(str(found).splitlines()) <= 25
    behind = of_uplinks(table, "mine", Traffic(np.full((2, 5), 0.3), 999.0))
    assert "behind the front: as good for as few bits are" in str(behind)
    lost = of_uplinks(table, "mine", Traffic(np.full((2, 5), np.nan), np.nan, "ValueError: no"))
    assert lost.ranking()[-1] == "mine" and "broken: ValueError: no" in str(lost)


def test_few_rows_keep_the_best_and_the_contenders_neighbours():
    rows = [{"rule": str(i)} for i in range(30)]
    assert [row and int(row["rule"]) for row in few(rows, str(29), "rule")] == [*range(MOST - 3), None, 28, 29]
    assert [row and int(row["rule"]) for row in few(rows, str(MOST - 3), "rule")] == [*range(MOST - 1)]
    assert [row and int(row["rule"]) for row in few(rows, str(0), "rule")] == [*range(MOST)]
    assert few(rows[:3], None, "rule") == rows[:3] and difference({"rule": "a"}) == ""
