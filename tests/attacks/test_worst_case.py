"""The worst case within a budget, against known directions, a closed form, and the edges."""

import jax
import numpy as np
import pytest
import robust_oracles as oracles
from attackers import BAD, CLIENTS, EMPTY, HONEST, F, deviation, flat, mean, program, stack

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
    "name", ["geometric_median", *(pytest.param(name, marks=pytest.mark.deep) for name in ("median", "trimmed_mean", "nnm"))]
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
