"""Ranks, intervals, places and fronts of the arena, against scipy and NumPy by hand."""

import numpy as np
import pytest
from scipy import stats

from fedjax_lite.arena.contest import Scores
from fedjax_lite.arena.ranking import cells, damage, pair, places, rank_attacks, rank_rules, rank_uplinks, withstanding
from fedjax_lite.arena.traffic import Traffic

ATTACKS = ["one", "two"]


def scores(value, seeds=4, spread=0.0, clean=1.0, under=None):
    """A rule whose score is `value` everywhere, and spreads over the seeds."""
    cell = np.full((3, 2, seeds), value) + spread * np.arange(seeds)
    return Scores(np.full((2, seeds), clean), {attack: (under or {}).get(attack, cell).copy() for attack in ATTACKS})


def random_scores(seed, seeds=5):
    rng = np.random.default_rng(seed)
    return Scores(rng.random((2, seeds)), {attack: rng.random((3, 2, seeds)) for attack in ATTACKS})


def test_a_pair_is_students_interval_of_the_differences():
    one, other = np.array([0.6, 0.4, 0.55, 0.48, 0.7]), np.array([0.5, 0.5, 0.5, 0.5, 0.6])
    found = pair(one, other)
    expected = stats.ttest_1samp(one - other, 0.0).confidence_interval(0.95)
    np.testing.assert_allclose([found.difference, found.low, found.high], [np.mean(one - other), expected.low, expected.high], rtol=1e-12)
    assert found.verdict == "ties" and pair(one + 9, other).verdict == "wins" and pair(one - 9, other).verdict == "loses"


def test_equal_values_tie_and_one_seed_leaves_it_open():
    assert pair(np.ones(3), np.ones(3)) == (0.0, 0.0, 0.0, "ties")
    assert pair(np.array([0.5]), np.array([0.5])).verdict == "ties"
    assert pair(np.array([0.6]), np.array([0.5]))[1:] == (None, None, "open")
    assert pair(np.array([0.75, 0.75]), np.array([0.5, 0.5])).verdict == "wins"  # the same in each seed: no width


def test_rules_are_ranked_by_the_worst_attack_of_each_place_and_by_the_mean():
    rules = {name: random_scores(seed) for seed, name in enumerate("abc")}
    rows = {row["rule"]: row for row in rank_rules(rules, ATTACKS, "b")}
    for name, each in rules.items():
        stack = np.stack([each.under[attack] for attack in ATTACKS])
        per_seed = stack.min(0).reshape(6, 5).mean(0)
        half = stats.t.ppf(0.975, 4) * stats.sem(per_seed)
        row = rows[name]
        np.testing.assert_allclose(
            [row["worst"], row["mean"], row["clean"]], [per_seed.mean(), stack.mean(), each.clean.mean()], rtol=1e-12
        )
        np.testing.assert_allclose([row["worst_low"], row["worst_high"]], per_seed.mean() + np.array([-half, half]), rtol=1e-12)
    by_worst, by_mean = (sorted(rows, key=lambda name: -rows[name][key]) for key in ("worst", "mean"))
    assert [row["rule"] for row in rank_rules(rules, ATTACKS)] == by_worst
    assert [rows[name]["rank"] for name in by_worst] == [rows[name]["mean_rank"] for name in by_mean] == [1, 2, 3]
    assert "verdict" not in rows["b"] and rows["a"]["difference"] == pytest.approx(rows["b"]["worst"] - rows["a"]["worst"])


def test_a_lost_cell_counts_as_zero_and_is_told():
    whole, lost = scores(0.5), scores(0.9)
    lost.under["two"][2, 1, 0] = np.nan
    rows = rank_rules({"whole": whole, "lost": lost}, ATTACKS)
    assert [(row["rule"], row["broken"]) for row in rows] == [("lost", 1), ("whole", 0)]
    assert rows[0]["worst"] == pytest.approx((0.9 * 23 + 0.0) / 24) and rows[0]["mean"] == pytest.approx(0.9 * 47 / 48)
    nothing = Scores(np.full((2, 4), np.nan), {attack: np.full((3, 2, 4), np.nan) for attack in ATTACKS})
    assert rank_rules({"nothing": nothing}, ATTACKS)[0]["worst"] == 0.0
    assert cells(whole._replace(under={}), ATTACKS).sum() == 0.0  # it met none


def test_ties_share_the_lower_rank():
    rows = rank_rules({"a": scores(0.5), "b": scores(0.5), "c": scores(0.4)}, ATTACKS, "a")
    assert [row["rank"] for row in rows] == [1, 1, 3] and [row.get("verdict") for row in rows] == [None, "ties", "wins"]


def test_places_tell_where_a_rule_breaks_and_the_best_other():
    broken = np.full((3, 2, 4), 0.9)
    broken[1:, 1] = 0.2
    rules = {"mine": scores(0.9, under={"two": broken}), "other": scores(0.8), "third": scores(0.1)}
    found = {(row["attack"], row["partition"]): row for row in places(rules, ATTACKS, "mine")}
    assert found["two", "dirichlet"]["breaks"] == 4 and found["two", "iid"]["breaks"] is None
    assert found["two", "dirichlet"]["scores"] == pytest.approx([0.9, 0.2, 0.2])
    assert found["two", "dirichlet"]["verdict"] == "loses" and found["one", "iid"]["verdict"] == "wins"
    assert {row["rival"] for row in found.values()} == {"other"}
    alone = places({"mine": rules["mine"]}, ATTACKS, "mine")
    assert all(row["rival"] is None and "verdict" not in row for row in alone)


def test_an_attack_is_worth_the_score_that_it_takes():
    rules = {"a": scores(0.2, under={"two": np.full((3, 2, 4), 0.95)}), "b": scores(0.6)}
    np.testing.assert_allclose(damage(rules, "one"), [[0.8] * 4, [0.4] * 4])
    rows = rank_attacks(rules, ATTACKS, "one")
    assert [row["attack"] for row in rows] == ["one", "two"] and rows[0]["mean"] == pytest.approx(0.6)
    assert rows[0]["least"] == pytest.approx(0.4) and rows[0]["rule"] == "b" and rows[0]["withstand"] == 0
    broken = scores(0.2, under={"two": np.full((3, 2, 4), np.nan)})._replace(broken={"two": "RuntimeError: no"})
    assert damage({"c": broken}, "two").sum() == 0.0 and damage({"c": broken._replace(broken={})}, "two").mean() == 1.0
    assert rows[1]["least"] == pytest.approx(0.05) and rows[1]["verdict"] == "wins" and withstanding(rules, "two") == ["a"]


def test_the_front_is_what_no_other_beats_in_score_and_bits():
    def each(score, bits):
        return Traffic(np.full((2, 3), score), bits)

    uplinks = {"none": each(0.9, 100.0), "good": each(0.9, 50.0), "small": each(0.5, 1.0), "bad": each(0.4, 60.0), "twin": each(0.5, 1.0)}
    uplinks["lost"] = Traffic(np.full((2, 3), np.nan), np.nan, "ValueError: no")
    rows = {row["uplink"]: row for row in rank_uplinks(uplinks, "small")}
    assert {name for name, row in rows.items() if row["front"]} == {"good", "small", "twin"}
    assert rows["good"]["share"] == 0.5 and rows["good"]["rank"] == rows["none"]["rank"] == 1 and rows["lost"]["rank"] == 6
    assert rows["bad"]["verdict"] == "wins" and rows["none"]["verdict"] == "loses" and rows["twin"]["verdict"] == "ties"
