"""A rule on the field: what it is told, what attacks it meets, and what becomes of a rule that fails."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_lite as fl
from fedjax_lite.arena.attacks import ATTACKS, BY_GRADIENTS, LEFT_OUT, one_of
from fedjax_lite.arena.contender import contender_of
from fedjax_lite.arena.contest import contest
from fedjax_lite.arena.field import CLIENTS, FACED, field, fingerprint, train
from fedjax_lite.arena.ranking import rank_rules
from fedjax_lite.arena.rules import RULES

GAUSSIAN = {"gaussian": fl.attacks.gaussian(std=10.0)}


def seen(messages=6):
    stack = {"x": jax.random.normal(jax.random.key(0), (messages, 3))}
    bad = jnp.arange(messages) >= messages - 2
    keys = jax.random.split(jax.random.key(1), messages)
    mean = lambda stack: jax.tree.map(lambda x: jnp.mean(x, axis=0), stack)  # noqa: E731
    return fl.attacks.Seen(stack, bad, ~bad, jnp.ones(messages), keys, jax.random.key(2), mean)


@pytest.mark.deep
def test_one_program_is_any_attack():
    before, both = seen(), [ATTACKS[name] for name in ("sign_flip", "mimic", "label_flip", "gaussian(std=10)", "backdoor(boost=5)")]

    @jax.jit
    def switched(which):
        attack = one_of(both, which)
        state = attack.init({"x": jnp.zeros(3)})
        batch = {"x": jnp.zeros((2, 64)), "y": jnp.array([1, 2])}
        return attack.messages(before, state)[0], attack.examples(batch, jax.random.key(3)), attack.trigger(batch)

    for i, attack in enumerate(both):
        sent, examples, (_, _, tells) = switched(i)
        expected = attack.messages(before, attack.init({"x": jnp.zeros(3)}))[0] if attack.messages else before.messages
        np.testing.assert_allclose(sent["x"], expected["x"], rtol=1e-6)
        batch = {"x": jnp.zeros((2, 64)), "y": jnp.array([1, 2])}
        wanted = attack.examples(batch, jax.random.key(3)) if attack.examples else batch
        np.testing.assert_array_equal(examples["y"], wanted["y"])
        assert bool(tells.any()) == (attack.trigger is not None)


def test_the_field_is_the_same_for_all_and_named_by_its_fingerprint():
    one, other = field(3, 2), field(3, 2)
    assert one is other and one.train.start.shape == (4, CLIENTS)  # two partitions, two seeds
    assert int(one.train.size.sum(-1).min()) == int(one.train.size.sum(-1).max()) == one.train.examples["y"].shape[1]
    np.testing.assert_array_equal(one.byzantine.sum(-1), [[0, *FACED]] * 2)
    assert not (one.byzantine[0] == one.byzantine[1]).all()
    assert fingerprint() == fingerprint() != fingerprint(39)


@pytest.fixture(scope="module")
def small():
    return field(4, 1)


@pytest.mark.deep
def test_the_mean_ranks_below_the_median_under_noise(small):
    rules = {name: contest(small, RULES[name], GAUSSIAN, clean=False) for name in ("mean", "median")}
    assert [row["rule"] for row in rank_rules(rules, ["gaussian"])] == ["median", "mean"]
    assert all(each.told == (0, *FACED) and not each.broken and np.isnan(each.clean).all() for each in rules.values())


@pytest.mark.deep
def test_a_score_is_that_of_a_run_by_hand(small):
    """The same bits from the program of all bouts as from one run."""
    found = contest(small, lambda f: fl.aggregators.trimmed_mean(f), GAUSSIAN, clean=False)
    alone = jax.jit(lambda: train(small, fl.aggregators.trimmed_mean(4), 1, 0, GAUSSIAN["gaussian"], 2)["score"])()
    assert found.under["gaussian"][1, 1, 0] == pytest.approx(float(alone), abs=0.01)


def broken(error, at=0):
    """A mean that raises `error` where it is told at least `at` attackers."""

    def make(num_byzantine):
        if not isinstance(num_byzantine, jax.Array) and num_byzantine >= at:
            raise error
        return fl.aggregators.mean()

    return make


def test_a_rule_that_raises_is_told(small):
    found = contest(small, broken(TypeError("no such thing\nmore")), GAUSSIAN)
    assert found.broken == {"": "TypeError: no such thing"} and np.isnan(found.under["gaussian"]).all() and np.isnan(found.clean).all()
    rule = contender_of(small, broken(TypeError("no such thing")), "mine", 10.0, lambda text: None)
    assert set(rule.scores.under) == set(ATTACKS) and rule.contract is None
    assert rank_rules({"mine": rule.scores}, list(ATTACKS))[0]["worst"] == 0.0


def test_a_number_that_a_rule_refuses_is_lowered(small):
    found = contest(small, broken(ValueError("too many"), at=5), {}, clean=False)
    assert found.told == (0, 2, 4, 4) and not found.broken
    assert contest(small, broken(ValueError("none at all")), {}, clean=False).broken == {"": "ValueError: none at all"}
    assert "must be a fl.Aggregator" in contest(small, lambda f: max, {}, clean=False).broken[""]


@pytest.mark.deep
def test_nan_loses_cells_and_a_rule_without_gradients_is_searched_without(small):
    def no_gradient(messages, cohort):
        def step(x):  # a loop of unknown length has no reverse mode
            return jax.lax.while_loop(lambda i: jnp.any(i > 1e9), lambda i: i / 2, x.mean(0))

        return jax.tree.map(step, messages)

    attacks = {"nan": fl.attacks.nan(), BY_GRADIENTS: ATTACKS[BY_GRADIENTS]}
    found = contest(small, lambda f: fl.aggregators.from_stack(no_gradient), attacks, clean=False)
    assert np.isnan(found.under["nan"]).all() and np.isfinite(found.under[BY_GRADIENTS]).all()
    assert found.broken[BY_GRADIENTS].startswith("searched without gradients, which the rule does not have: ValueError")


@pytest.mark.deep
def test_an_attack_that_raises_loses_its_own_cells_alone(small):
    def send(seen, state):
        raise RuntimeError("not today")

    attacks = GAUSSIAN | {"bad": fl.attacks.Attack(send), "free_rider": fl.attacks.free_rider()}
    found = contest(small, RULES["median"], attacks, clean=False)
    assert found.broken == {"bad": "RuntimeError: not today"} and np.isnan(found.under["bad"]).all()
    assert np.isfinite(found.under["gaussian"]).all() and np.isfinite(found.under["free_rider"]).all()


def test_every_attack_is_met_or_left_out_with_a_reason():
    made = {name for name in fl.attacks.__all__ if name not in ("Attack", "Seen")}
    assert {name.split("(")[0] for name in ATTACKS} | set(LEFT_OUT) == made
