"""Robust rules tried: one program a rule, and cohorts with empty slots to try it on."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from robust_rules import ALIKE, RULES, SIZES, SLOTS, TRUSTED, TRUSTED_FIRST, WIDTH, WITH_F, Who

import fedjax_lite as fl
from fedjax_lite import aggregators


def each(names, argument="name", deep=()):
    """Parametrise over rules; one worker of a parallel run gets all tests of a rule, and its compiled programs."""
    marks = {name: [pytest.mark.deep] if RULES[name].deep or name in deep else [] for name in names}
    return pytest.mark.parametrize(
        argument, [pytest.param(name, id=name, marks=[pytest.mark.xdist_group(name), *marks[name]]) for name in names]
    )


def keeping(*wanted):
    """The rules that keep one of these."""
    return each([name for name, rule in RULES.items() if set(wanted) & set(rule.keeps.split())])


each_rule, each_rule_with_f = each(RULES), each(WITH_F)


def split(V):
    """Rows `[..., 9]` as leaves of two shapes."""
    return {"matrix": V[..., :8].reshape(*V.shape[:-1], 4, 2), "scalar": V[..., 8]}


def join(tree):
    """The inverse of `split`."""
    lead = tree["scalar"].shape
    return jnp.concatenate([tree["matrix"].reshape(*lead, 8), tree["scalar"][..., None]], axis=-1)


def cohort_of(ids, weight, sizes=SIZES):
    return fl.sampling.cohort(jax.random.key(0), jnp.asarray(sizes, jnp.int32), jnp.asarray(ids), jnp.asarray(weight))


def apply(aggregator, V, ids, weight, sizes=SIZES, key=1):
    """The aggregate as one vector, and the metrics; to be compiled."""
    stack, cohort = split(jnp.asarray(V)), cohort_of(ids, weight, sizes)
    state = aggregator.init(jax.tree.map(lambda x: x[0], stack))
    aggregate, _, metrics = aggregator.finish(aggregator.collect(stack, cohort, state), state, jax.random.key(key))
    return join(aggregate), metrics


@functools.cache
def compiled(name, policy="drop", f=None):
    """V `[slots, 9]`, ids, weight, sizes, f -> aggregate, metrics. Compiled once a rule: f and how many clients there are can change."""
    return jax.jit(lambda V, ids, weight, sizes, traced: apply(RULES[name].make(traced if f is None else f, policy), V, ids, weight, sizes))


@functools.cache
def seen_behind(make):
    """V, ids, weight, f -> the messages as the rule behind a pre-aggregator sees them."""
    seen = aggregators.from_stack(lambda messages, cohort: messages)
    return jax.jit(lambda V, ids, weight, f: apply(make(seen, f), V, ids, weight)[0])


def run(name, V, ids, weight, f, policy="drop", sizes=SIZES):
    """The aggregate and the metrics, in the precision of V."""
    program = compiled(name, policy, f if RULES[name].static else None)
    with jax.enable_x64(V.dtype == np.float64):
        aggregate, metrics = program(V, np.asarray(ids, np.int32), np.asarray(weight, V.dtype), sizes, np.int32(f))
    return np.asarray(aggregate), {key: float(value) for key, value in metrics.items()}


def padded(V):
    """Rows `[n, d]` in the first slots; coordinates that are all 0 do not matter."""
    stack = np.full((SLOTS, WIDTH), np.nan)
    stack[: len(V)] = np.pad(V, ((0, 0), (0, WIDTH - V.shape[1])))
    return stack


def of_rows(name, V, f):
    """R(V) of messages that all weigh the same, the first of them the trusted client's."""
    return run(name, padded(V), TRUSTED_FIRST, np.arange(SLOTS) < len(V), f, sizes=ALIKE)[0][: V.shape[1]]


def too_few(name, value):
    """That metric, where the rule has it."""
    return {} if RULES[name].sums else {"too_few": float(value)}


class Case(NamedTuple):
    """A cohort with empty slots, in which the clients `some` are."""

    V: np.ndarray
    ids: np.ndarray
    weight: np.ndarray
    some: np.ndarray

    def who(self, but=()):
        """Of the clients present but those in some slots."""
        left = np.setdiff1d(self.some, but)
        ids = self.ids[left]
        return left, Who(self.weight[left] * SIZES[ids], int(np.argmax(ids == TRUSTED)), np.argsort(ids))


def case(n, values, seed, weighted=False):
    """n clients with messages `values` `[n, 9]` in random slots; empty ones hold what must not matter."""
    rng = np.random.default_rng([seed, n])
    some = np.sort(rng.permutation(SLOTS)[:n])
    ids = rng.permutation(np.setdiff1d(np.arange(len(SIZES)), [TRUSTED]))[:SLOTS]
    ids[rng.choice(some)] = TRUSTED
    V = rng.choice([np.nan, np.inf, -1e30, 7.0], (SLOTS, WIDTH))
    V[some] = values
    weight = np.zeros(SLOTS)
    weight[some] = rng.choice([1.0, 2.5], n) if weighted else 1.0
    return Case(V, ids.astype(np.int32), weight, some)


def normal(rng, n, f):
    return rng.normal(size=(n, WIDTH))


def tied(rng, n, f):
    """Few whole numbers: equal messages, equal distances and equal scores, all without rounding."""
    return rng.integers(-1, 2, (n, WIDTH)).astype(float)


def attacked(rng, n, f):
    V = rng.normal(size=(n, WIDTH))
    V[rng.permutation(n)[:f]] *= 1e4
    return V


def repeated(rng, n, f):
    """Few different messages, with rounding."""
    return rng.normal(size=(3, WIDTH))[rng.integers(0, 3, n)]


KINDS = normal, tied, attacked, repeated


def pairs(rule, most=SLOTS):
    return [(n, f) for n in range(1, most + 1) for f in range(n) if rule.fits(n, f) and (rule.times or f == 0)]


def fitting(name, most=SLOTS - 1):
    """Every n and f that a rule withstands."""
    return [(n, f) for n in range(1, most + 1) for f in range(n) if RULES[name].withstands(n, f)]


def check(name, kind, tolerance, most=SLOTS, dtype=float):
    rule = RULES[name]
    for n, f in pairs(rule, most):
        values = kind(np.random.default_rng([n, f]), n, f).astype(dtype)
        given = case(n, values, seed=f, weighted=True)
        left, who = given.who()
        result, metrics = run(name, given.V.astype(dtype), given.ids, given.weight, f)
        expected = rule.oracle(values.astype(float), f, who)
        np.testing.assert_allclose(result, expected, tolerance, tolerance, err_msg=f"{name} {kind.__name__} n={n} f={f}")
        assert metrics == dict.fromkeys(metrics, 0)


def poisoned(name, lost, f, seed, n=9):
    """A cohort of n in which some messages are NaN, infinite, or too long for their squared norm."""
    values = normal(np.random.default_rng(seed), n, f)
    given = case(n, values, seed)
    where = [slot for slot in given.some if given.ids[slot] != TRUSTED][:lost]
    for slot, value in zip(where, (np.nan, -np.inf, 1e160), strict=False):
        given.V[slot, slot % WIDTH] = value
    return given, where
