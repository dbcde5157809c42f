"""Robust rules where messages are not finite, too few clients come, or the trusted one does not."""

import itertools

import numpy as np
from robust_rules import (
    RULES,
    SIZES,
    SLOTS,
    TRUSTED,
    WIDTH,
    WITH_F,
)
from robust_trials import (
    case,
    each,
    each_rule,
    each_rule_with_f,
    normal,
    poisoned,
    run,
    too_few,
)

# One for each piece of code that deals with the policy.
CODES = ["median", "norm_bounding", "centered_clipping 3", "fltrust", "monna", "nnm krum byzfl"]
MORE = ["krum", "geometric_median", "rlr", "centered_clipping", "arc mean"]
each_policy_code = each(CODES + MORE, deep=MORE)


@each_rule
def test_messages_that_are_not_finite_are_dropped(name):
    """And as many fewer Byzantine clients are left to withstand, but not fewer than none."""
    for lost, f in itertools.product((1, 3), (0, 1, 2) if name in WITH_F and name != "bulyan" else (0, 1) if name == "bulyan" else (0,)):
        given, where = poisoned(name, lost, f, seed=f)
        left, who = given.who(but=where)
        result, metrics = run(name, given.V, given.ids, given.weight, f)
        expected = RULES[name].oracle(given.V[left], max(f - lost, 0), who)
        np.testing.assert_allclose(result, expected, 1e-5, 1e-5, err_msg=f"{name} lost={lost} f={f}")
        assert metrics == {"non_finite": lost} | too_few(name, 0)


@each_policy_code
def test_messages_that_are_not_finite_count_as_zeros(name):
    f = 1 if name in WITH_F else 0
    given, where = poisoned(name, 3, f, seed=4)
    left, who = given.who()
    result, metrics = run(name, given.V, given.ids, given.weight, f, "zero")
    if RULES[name].inner is None:
        given.V[where] = 0
        expected = RULES[name].oracle(given.V[left], f, who)
    else:  # the pre-aggregator leaves them out, and to the rule behind it they are zeros
        others, rows = np.flatnonzero(~np.isin(left, where)), np.zeros((len(left), WIDTH))
        rows[others] = RULES[name].before(given.V[left[others]], max(f - 3, 0))
        expected = RULES[RULES[name].inner].oracle(rows, f, who)
    np.testing.assert_allclose(result, expected, 1e-5, 1e-5)
    assert metrics == {"non_finite": 3} | too_few(name, 0)


@each_policy_code
def test_messages_that_are_not_finite_show_where_they_are_propagated(name):
    f = 1 if name in WITH_F else 0
    given = case(9, normal(np.random.default_rng(9), 9, f), seed=0)
    left, who = given.who()
    result, _ = run(name, given.V, given.ids, given.weight, f, "propagate")
    np.testing.assert_allclose(result, RULES[name].oracle(given.V[left], f, who), 1e-5, 1e-5)
    given.V[left] = np.nan
    result, metrics = run(name, given.V, given.ids, given.weight, f, "propagate")
    # Without the root, or with nobody to compare with, a rule may give 0 and say so.
    assert not np.isfinite(result).any() or ((result == 0).all() and metrics["too_few"] == 1)
    assert metrics.get("non_finite", 9) == 9


@each_rule
def test_when_every_message_is_lost_the_aggregate_is_zero_and_the_metrics_say_why(name):
    given, _ = poisoned(name, 0, 0, seed=1)
    given.V[given.some] = np.nan
    result, metrics = run(name, given.V, given.ids, given.weight, 1 if name in WITH_F else 0)
    assert (result == 0).all()
    assert metrics == {"non_finite": 9} | too_few(name, 1)


@each_rule_with_f
def test_too_few_clients_give_zero_and_say_so(name):
    rule = RULES[name]
    for f in (1, 2):
        enough = rule.times * f + rule.plus
        for n in (1, enough - 1, enough):
            given = case(n, normal(np.random.default_rng(n), n, f), seed=n)
            if enough > SLOTS:
                continue
            result, metrics = run(name, given.V, given.ids, given.weight, f)
            assert metrics == {"non_finite": 0, "too_few": float(n < enough)}
            assert (result == 0).all() == (n < enough)


@each(["fltrust", "monna"])
def test_without_the_trusted_client_the_aggregate_is_zero(name):
    for harm in ("absent", "empty", np.nan, np.inf):
        given = case(7, normal(np.random.default_rng(10), 7, 1), seed=1)
        slot = np.flatnonzero((given.ids == TRUSTED) & (given.weight > 0))[0]
        if harm == "absent":
            given.ids[slot] = np.setdiff1d(np.arange(len(SIZES)), given.ids)[0]
        elif harm == "empty":
            given.weight[slot] = 0
        else:
            given.V[slot, 2] = harm
        for policy in ("drop", "zero", "propagate"):
            result, metrics = run(name, given.V, given.ids, given.weight, 1, policy)
            assert metrics["too_few"] == 1 and (result == 0).all(), (harm, policy)


@each(["fltrust"])
def test_it_trusts_nobody_where_nobody_points_its_way(name):
    V = np.vstack([np.ones(WIDTH), -np.ones((2, WIDTH)), np.zeros((2, WIDTH))])
    ids = np.array([TRUSTED, 0, 1, 2, 4], np.int32)
    apart = np.eye(5, WIDTH)
    for messages in (V, np.vstack([np.zeros(WIDTH), V[1:]]), apart, np.zeros((5, WIDTH))):
        stack, slots = np.full((SLOTS, WIDTH), np.nan), np.arange(SLOTS) < 5
        stack[:5] = messages
        result, metrics = run(name, stack, np.append(ids, np.arange(5, 11)).astype(np.int32), slots, 0)
        assert metrics["too_few"] == 0 and (result == 0).all()
