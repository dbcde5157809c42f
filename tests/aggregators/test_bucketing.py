"""Bucketing: random buckets of clients, and what spoils them."""

import functools
from collections import Counter

import jax
import numpy as np
import pytest
import robust_oracles as oracles
from robust_rules import (
    SIZES,
    SLOTS,
)
from robust_trials import (
    apply,
    case,
    cohort_of,
    join,
    normal,
    split,
)
from scipy import stats

from fedjax_lite import aggregators

whole = aggregators.from_stack(lambda messages, cohort: (messages, cohort.size, cohort.weight, cohort.id))
DRAWS = 150


@functools.cache
def program(size):
    """V, ids, weight, f -> for each of many keys the buckets; and what a rule makes of them."""

    def one(V, ids, weight, key, f):
        stack, cohort = split(V), cohort_of(ids, weight)
        aggregator = aggregators.bucketing(whole, size)
        state = aggregator.init(jax.tree.map(lambda x: x[0], stack))
        means, sizes, weights, numbers = aggregator.finish(aggregator.collect(stack, cohort, state), state, jax.random.key(key))[0]
        rule = aggregators.bucketing(aggregators.multi_krum(f, num_selected=2, neighbors="byzfl"), size)
        return (join(means), sizes, weights, numbers), apply(rule, V, ids, weight, key=key)

    return jax.jit(jax.vmap(one, (None, None, None, 0, None)))


def bucketed(size, V, ids, weight, f):
    return jax.tree.map(np.asarray, program(size)(V, ids, weight, np.arange(DRAWS), np.int32(f)))


@pytest.mark.parametrize("n, size", [(5, 2), (6, 2), (1, 2), (5, 3), (3, 3)])
def test_buckets_are_those_of_a_random_order(n, size, x64):
    given = case(n, normal(np.random.default_rng(12), n, 0), seed=n)
    left, _ = given.who()
    possible = oracles.bucketings(n, size)
    expected = [oracles.buckets(given.V[left], order, size) for order in possible]
    (means, sizes, weights, numbers), (aggregate, metrics) = bucketed(size, given.V, given.ids, given.weight, 0)
    count = -(-n // size)
    seen = Counter()
    for i in range(len(means)):
        found = [j for j, (rows, _) in enumerate(expected) if np.allclose(means[i, :count], rows, 1e-10, 1e-12)]
        assert len(found) == 1
        rows, members = expected[found[0]]
        seen[found[0]] += 1
        np.testing.assert_allclose(aggregate[i], oracles.multi_krum(rows, 0, min(2, count), "byzfl"), 1e-10, 1e-12)
        assert sizes[i].tolist() == [SIZES[given.ids[left[m]]].sum() for m in members] + [0] * (len(sizes[i]) - count)
        assert weights[i].tolist() == [1.0] * count + [0.0] * (len(sizes[i]) - count)
        assert len(set(numbers[i].tolist())) == len(numbers[i])
    if len(possible) > 1:
        assert stats.chisquare([seen[j] for j in range(len(possible))]).pvalue > 1e-3


@pytest.mark.deep
def test_buckets_of_one_are_the_rule_itself(x64):
    given = case(8, normal(np.random.default_rng(13), 8, 0), seed=0)
    left, who = given.who()
    _, (aggregate, metrics) = bucketed(1, given.V, given.ids, given.weight, 1)
    np.testing.assert_allclose(aggregate, [oracles.multi_krum(given.V[left][who.by_id], 1, 2, "byzfl")] * DRAWS, 1e-10)


def test_buckets_go_by_client_and_key_not_by_slot(x64):
    given = case(7, normal(np.random.default_rng(14), 7, 0), seed=0)
    order = np.random.default_rng(0).permutation(SLOTS)
    (means, *_), _ = bucketed(2, given.V, given.ids, given.weight, 1)
    (again, *_), _ = bucketed(2, given.V[order], given.ids[order], given.weight[order], 1)
    np.testing.assert_allclose(means, again, 1e-10)
    assert not np.allclose(means[0], means[1])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_message_that_is_not_finite_spoils_its_bucket(value, x64):
    """The rule behind drops that bucket, counts it and has one Byzantine client fewer to withstand."""
    given = case(5, normal(np.random.default_rng(15), 5, 0), seed=0)
    left, _ = given.who()
    given.V[left[2], 0] = value
    possible = []
    for order in oracles.bucketings(5, 2):
        rows, members = oracles.buckets(given.V[left], order, 2)
        possible.append(oracles.mean(rows[[2 not in m for m in members]]))  # the two with the lowest scores
    _, (aggregate, metrics) = bucketed(2, given.V, given.ids, given.weight, 1)
    assert (metrics["non_finite"] == 1).all() and (metrics["too_few"] == 0).all()
    assert all(any(np.allclose(result, rows, 1e-10, 1e-12) for rows in possible) for result in aggregate)
