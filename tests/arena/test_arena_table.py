"""The shipped table is that of what is built in now, and of the present field; files of other fields are refused."""

import importlib.resources
import json
import re
from pathlib import Path

import numpy as np
import pytest

import fedjax_lite as fl
from fedjax_lite.arena import rules, uplinks
from fedjax_lite.arena.attacks import ATTACKS
from fedjax_lite.arena.contest import Scores
from fedjax_lite.arena.field import FACED, ROUNDS, SEEDS, fingerprint
from fedjax_lite.arena.stored import SHIPPED, Table, cut, load, text_of
from fedjax_lite.arena.traffic import Traffic

AGAIN = "make the table again: fedjax-lite arena --all --out DIR, then move DIR/arena.json to fedjax_lite/arena/"


def test_every_rule_and_uplink_is_in_the_arena_or_left_out_with_a_reason():
    for exported, built_in in ((fl.aggregators.__all__, rules), (fl.uplink.__all__, uplinks)):
        rows = built_in.RULES if built_in is rules else built_in.UPLINKS
        known = {word for name in rows for word in re.findall(r"[a-z_]{3,}", name)} | set(built_in.LEFT_OUT) | {"Sent"}
        assert set(exported) <= known, f"give {set(exported) - known} a row, or a reason to leave it out"


def test_the_shipped_table_has_everything_that_is_built_in():
    table = load()
    assert (table.rounds, table.seeds) == (ROUNDS, SEEDS)
    assert list(table.rules) == list(rules.RULES) and list(table.uplinks) == list(uplinks.UPLINKS), AGAIN
    for name, scores in table.rules.items():
        assert list(scores.under) == list(ATTACKS), AGAIN
        assert scores.clean.shape == (2, SEEDS) and all(x.shape == (len(FACED), 2, SEEDS) for x in scores.under.values()), name
        assert not scores.broken and np.isfinite(scores.clean).all() and scores.breakdown is not None, name
    assert all(np.isfinite(each.scores).all() and each.bits > 0 and not each.broken for each in table.uplinks.values())
    assert {"date", "seconds", "code", "device"} <= set(table.made)
    assert SHIPPED.stat().st_size < 150_000


def test_the_table_is_a_file_of_the_package_and_beside_the_benchmarks():
    root = Path(fl.__file__).parents[1]
    assert (importlib.resources.files("fedjax_lite") / "arena" / "arena.json").is_file()
    assert (root / "benchmarks" / "arena.json").read_bytes() == SHIPPED.read_bytes()


def small():
    scores = Scores(np.full((2, 3), 0.5), {"one": np.array([[[0.123456, np.nan, 0.0]] * 2] * 3)}, (0, 2, 4, 4), {"one": "why"}, 9)
    return Table(3, 3, {"mean": scores}, {"none": Traffic(np.full((2, 3), np.nan), np.nan, "why")}, {"seconds": 1})


def test_what_is_written_is_read(tmp_path):
    file = tmp_path / "table.json"
    file.write_text(text_of(small()))
    read = load(file)
    scores = read.rules["mean"]
    np.testing.assert_array_equal(scores.under["one"][0], [[0.1235, np.nan, 0.0]] * 2)
    assert (scores.told, scores.broken, scores.breakdown) == ((0, 2, 4, 4), {"one": "why"}, 9)
    assert read.uplinks["none"].broken == "why" and np.isnan(read.uplinks["none"].bits) and read.made == {"seconds": 1}
    shorter = cut(read, 2)
    assert shorter.seeds == 2 and shorter.rules["mean"].under["one"].shape == (3, 2, 2) and shorter.uplinks["none"].scores.shape == (2, 2)


def test_a_table_of_another_field_and_a_file_that_is_none_are_refused(tmp_path):
    file = tmp_path / "table.json"
    with pytest.raises(ValueError, match="is no table of the arena .*make it again with"):
        load(file)
    for text in ("{", "[]", "{}", json.dumps({"rules": {"mean": 3}})):
        file.write_text(text)
        with pytest.raises(ValueError, match="is no table of the arena"):
            load(file)
    file.write_text(text_of(small()).replace(fingerprint(3), "0123456789abcdef"))
    with pytest.raises(ValueError, match=r"of another field \(0123456789abcdef, not .*make it again"):
        load(file)
