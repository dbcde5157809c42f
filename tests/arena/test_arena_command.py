"""`fl.arena` and `fedjax-lite arena`: contenders of every kind, a rule from a file, refusals by name."""

import importlib
import json

import numpy as np
import pytest
from shells import shell_in

import fedjax_lite as fl
from fedjax_lite.arena.rules import RULES
from fedjax_lite.arena.traffic import Traffic

module = importlib.import_module("fedjax_lite.arena.arena")  # whose name in fl is the function

MINE = """
import jax, jax.numpy as jnp
import fedjax_lite as fl

def my_rule(groups: int = 5) -> fl.Aggregator:
    def reduce(messages, cohort):
        return jax.tree.map(lambda x: jnp.median(x.reshape(groups, -1, *x.shape[1:]).mean(1), axis=0), messages)
    return fl.aggregators.from_stack(reduce)

def my_trimmed_mean(num_byzantine: int) -> fl.Aggregator:
    return fl.aggregators.trimmed_mean(num_byzantine)

def my_attack(scale: float = 3.0) -> fl.attacks.Attack:
    return fl.attacks.opposite_mean(scale)
"""


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.py").write_text(MINE)
    return shell_in(tmp_path, monkeypatch, capsys)


def test_the_built_in_rules_need_no_run(shell, tmp_path):
    status, out, _ = shell("arena")
    assert status == 0 and out.startswith(f"{len(RULES)} rules: first in the worst case ")
    assert out.endswith("written to runs/arena: arena.html, arena.json\n") and (tmp_path / "runs" / "arena" / "arena.html").exists()
    fewer = json.loads(shell("arena --seeds 2 --json")[1])
    assert fewer["kind"] == "aggregator" and fewer["contender"] is None and len(fewer["table"]) == len(RULES)


@pytest.mark.parametrize(
    "line, message",
    [
        ("arena medain", "unknown aggregator 'medain'; did you mean 'median'?"),
        ("arena mine.py:other", "'other' is not in mine.py; there are my_rule, my_trimmed_mean, my_attack"),
        ("arena mine.py:my_rule --set gropus=5", "--set gropus=5: aggregator.gropus: unknown key; did you mean 'groups'?"),
        ("arena mine.py:my_attack", "must make an Aggregator, and makes Attack"),
        ("arena --attack mine.py:my_rule", "must make an Attack, and makes Aggregator"),
        ("arena --uplink qsgd --set levels=0", "levels"),
        ("arena --set groups=5", "--set groups=5: there is no contender: name one"),
        ("arena median --seeds 0", "arena: seeds must be an int of at least 1, got 0"),
        ("arena median --rounds 0", "arena: rounds must be an int of at least 1, got 0"),
        ("arena median --minutes 0", "arena: minutes must be positive and finite, got 0.0"),
        ("arena --seeds 6", "no table is shipped for rounds=40, seeds=6: give again=True"),
    ],
)
def test_bad_input_is_refused_by_name(shell, line, message):
    status, _, error = shell(line)
    assert status == 2 and message in error


def test_what_is_no_contender_is_refused():
    with pytest.raises(TypeError, match="contender must be a fl.Aggregator, a function of num_byzantine .* got 3: call the function"):
        fl.arena(3)
    with pytest.raises(TypeError, match="got <function median at .*: call the function that makes it"):
        fl.arena(fl.aggregators.median)


@pytest.mark.deep
def test_a_rule_from_a_file_is_ranked_by_the_command_line(shell, tmp_path):
    status, out, _ = shell("arena mine.py:my_rule --set groups=10 --seeds 1 --quiet --devices 2")
    assert status == 0 and out.startswith(f"my_rule(groups=10): rank of {len(RULES) + 1}: ")
    assert "breaks the contract: order of clients does not matter" in out and "times the mean" in out
    page = (tmp_path / "runs" / "arena_my_rule" / "arena.html").read_text()
    assert "Where it breaks and wins" in page and "my_rule(groups=10)" in page


@pytest.mark.slow
def test_a_copy_of_a_built_in_rule_ties_with_it(shell):
    """Also: a rule that takes num_byzantine is told how many there are, as the built-in one was."""
    found = json.loads(shell("arena mine.py:my_trimmed_mean --seeds 1 --quiet --devices 1 --json")[1])
    rows = {row["rule"]: row for row in found["table"]}
    assert abs(rows["trimmed_mean"]["difference"]) < 0.01 and rows["my_trimmed_mean"]["breakdown"] == rows["trimmed_mean"]["breakdown"]


@pytest.mark.slow
def test_an_attack_is_ranked_by_its_damage(shell, tmp_path):
    found = json.loads(shell("arena --attack mine.py:my_attack --set scale=5.0 --seeds 1 --quiet --json")[1])
    rows = {row["attack"]: row for row in found["table"]}
    assert abs(rows["my_attack(scale=5.0)"]["mean"] - rows["opposite_mean(scale=5)"]["mean"]) < 0.02
    assert (tmp_path / "runs" / "arena_my_attack" / "arena.html").exists()


@pytest.mark.slow
def test_an_uplink_stands_by_score_and_bits(shell):
    found = json.loads(shell("arena --uplink qsgd --set levels=16 --seeds 2 --quiet --devices 1 --json")[1])
    rows = {row["uplink"]: row for row in found["table"]}
    assert rows["qsgd(levels=16)"]["bits"] == pytest.approx(rows["qsgd(16)"]["bits"], rel=1e-6)
    assert abs(rows["qsgd(16)"]["difference"]) < 0.01


@pytest.mark.parametrize("numbers", [{"rounds": 2}, {"seeds": 6}], ids=str)
def test_other_rounds_and_more_seeds_stand_alone(monkeypatch, numbers):
    bits = {None: 100.0}
    monkeypatch.setattr(module, "field", lambda rounds, seeds: None)
    monkeypatch.setattr(module, "traffic", lambda place, uplink: Traffic(np.full((2, 3), 0.5), bits.get(uplink, 10.0)))
    found = fl.arena(fl.uplink.sign(), name="mine", **numbers)
    assert sorted(found.ranking()) == ["mine", "none"] and found.row()["share"] == 0.1
    assert str(found).splitlines()[-1].startswith("alone: the scores of what is built in are of 40 rounds and 5 seeds")
