"""The worst case within a budget, against known directions, a closed form, and the edges."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import robust_oracles as oracles
from attackers import BAD, CLIENTS, EMPTY, HONEST, F, deviation, flat, mean, program, stack

import fedjax_lite as fl
from fedjax_lite import aggregators, attacks

pytestmark = pytest.mark.usefixtures("x64")

WORST = attacks.worst_case(budget=1.0, steps=15)
WIDER = attacks.worst_case(budget=2.0, steps=5)
# name -> the rule, and what it makes of the messages present.
RULES = {
    "median": (aggregators.median(), oracles.median),
    "trimmed_mean": (aggregators.trimmed_mean(F), lambda V: oracles.trimmed_mean(V, F)),
    "geometric_median": (aggregators.geometric_median(weights="uniform"), lambda V: oracles.geometric_median(V, np.ones(len(V)))),
    "nnm": (aggregators.nnm(aggregators.trimmed_mean(F), F), lambda V: oracles.trimmed_mean(oracles.nnm(V, F), F)),
}


def aggregate(rule, attack, V, bad=BAD):
    """What the rule makes of it when all attackers are in the cohort."""
    state = (), jax.eval_shape(rule.init, {})
    result, _ = program(attack, rule)(V, bad, np.arange(CLIENTS), state, 0)
    return np.asarray(flat(jax.tree.map(lambda x: np.asarray(x)[None], result)))[0]


def spread(V):
    return np.sqrt(np.mean(np.sum((V[HONEST] - mean(V)) ** 2, axis=1)))


def forged(V, sent, budget=1.0):
    """The cohort with another message from all attackers, cut to the budget."""
    offset = sent - mean(V)
    out = np.array(V)
    out[BAD] = mean(V) + offset * min(1, budget * spread(V) / np.linalg.norm(offset))
    return out[~EMPTY]


@pytest.mark.parametrize(
    "name",
    [
        "geometric_median",
        pytest.param("nnm", marks=pytest.mark.deep),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("median", "trimmed_mean")),
    ],
)
def test_the_worst_case_is_worse_than_known_directions(name):
    (rule, oracle), V = RULES[name], stack(4)
    moved = np.linalg.norm(aggregate(rule, WORST, V) - mean(V))
    assert moved > 0
    for other in (-mean(V), -5 * mean(V), mean(V) - 1.5 * deviation(V)):  # the opposite mean, inner products, a little is enough
        assert moved >= np.linalg.norm(oracle(forged(V, other)) - mean(V)) - 1e-9


def test_the_worst_case_of_the_mean_is_its_closed_form():
    """And no more than that: what is sent lies within the budget."""
    V = stack(2)
    moved, most = np.linalg.norm(aggregate(aggregators.mean(), WIDER, V) - mean(V)), F / (CLIENTS - 1) * 2 * spread(V)
    assert moved == pytest.approx(most, rel=1e-3) and moved <= most * (1 + 1e-9)


@pytest.mark.parametrize("bad", [np.zeros(CLIENTS, bool), np.ones(CLIENTS, bool), np.arange(CLIENTS) == 0], ids=["nobody", "all", "one"])
def test_nobody_byzantine_nobody_honest_and_one_client(bad):
    rule, oracle = RULES["geometric_median"]
    result = aggregate(rule, WORST, stack(), bad)
    assert np.isfinite(result).all()
    if not bad.any():
        np.testing.assert_allclose(result, oracle(stack()[~EMPTY]))


ON_A_LINE = np.append(np.arange(5.0), 9.0)[:, None]  # the last is Byzantine


@functools.cache
def harms(name):
    """What attackers with budgets of 0.5, 1, 2, 3 and 10 find against a rule that leaves far messages out; one program."""
    rule = {"multi_krum": aggregators.multi_krum(1), "meamed": aggregators.meamed(1), "mda": aggregators.mda(1)}[name]
    work = fl.ClientWork(None, None, None, None)

    def moved(budget):
        _, aggregator = attacks.attacked(attacks.worst_case(budget), jnp.arange(6) == 5, work, rule)
        cohort, state = fl.sampling.cohort(jax.random.key(0), jnp.ones(6, jnp.int32), jnp.arange(6)), aggregator.init(jnp.zeros(1))
        part = aggregator.collect(jnp.asarray(ON_A_LINE), cohort, state)
        return abs(aggregator.finish(part, state, jax.random.key(0))[0][0] - 2)

    return np.asarray(jax.jit(lambda budgets: jax.lax.map(moved, budgets))(np.array([0.5, 1, 2, 3, 10])))


@pytest.mark.deep
@pytest.mark.parametrize("name", ["meamed", *(pytest.param(name, marks=pytest.mark.deep) for name in ("multi_krum", "mda"))])
def test_a_larger_budget_is_no_weaker_where_far_messages_are_left_out(name):
    """Against the most harmful of many points of each budget's ball."""
    oracle = {
        "multi_krum": lambda V: oracles.multi_krum(V, 1),
        "meamed": lambda V: oracles.meamed(V, 1),
        "mda": lambda V: oracles.mda(V, 1),
    }[name]
    offsets = np.linspace(-10, 10, 801) * np.sqrt(2)  # the honest spread
    by_place = np.array([abs(oracle(np.append(np.arange(5.0), 2 + offset)[:, None])[0] - 2) for offset in offsets])
    most = [by_place[abs(offsets) <= budget * np.sqrt(2) * (1 + 1e-9)].max() for budget in (0.5, 1, 2, 3, 10)]
    found = harms(name)
    assert (np.diff(found) >= -1e-4).all() and found[-1] > 0.9
    assert (found >= 0.9 * np.array(most)).all()


def test_without_steps_only_lengths_are_tried_and_no_gradient_is_taken():
    """The best of 24 points, counted out in NumPy; a rule that has no gradient can be searched so, and only so."""
    V = stack(5)

    def reduce(messages, cohort):  # a loop of unknown length: it cannot be differentiated backwards
        present = cohort.weight > 0
        rows = jax.tree.map(lambda x: jnp.where(present.reshape(-1, *[1] * (x.ndim - 1)), x, 0).sum(0) / present.sum(), messages)
        return jax.tree.map(lambda x: jax.lax.while_loop(lambda y: jnp.any(jnp.abs(y) > 1e9), lambda y: y / 2, x), rows)

    rule, directions = aggregators.from_stack(reduce), (-mean(V), -deviation(V), -np.sign(mean(V)))
    tried = [mean(V) + spread(V) * 0.5**k * d / np.linalg.norm(d) for d in directions for k in range(8)]
    expected = max(np.linalg.norm(forged(V, sent).mean(0) - mean(V)) for sent in tried)
    found = aggregate(rule, attacks.worst_case(budget=1.0, steps=0), V)
    assert np.linalg.norm(found - mean(V)) == pytest.approx(expected, rel=1e-9)
    with pytest.raises(ValueError, match="[Rr]everse-mode"):
        aggregate(rule, attacks.worst_case(budget=1.0, steps=1), V)
