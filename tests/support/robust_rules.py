"""Every robust rule beside the NumPy statement of its paper, and cohorts to try them on."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import robust_oracles as oracles
from grouping import grouped

import fedjax_lite as fl
from fedjax_lite import aggregators

SLOTS, WIDTH, TRUSTED = 11, 9, 3
SIZES = np.array([3, 9, 1, 4, 6, 2, 7, 5, 8, 4, 10, 1, 6])  # by client id


class Who(NamedTuple):
    """What is known of the clients whose messages an oracle is given."""

    weight: np.ndarray  # examples times the sampler's weight
    trusted: int  # the trusted client's row
    by_id: np.ndarray  # the rows in the order of their clients' ids


class Rule(NamedTuple):
    make: Callable  # f, policy -> aggregator
    oracle: Callable  # V, f, Who -> aggregate
    times: int  # n >= times f + plus
    plus: int
    static: bool = False  # f is no tracer
    before: Callable | None = None  # the oracle of a pre-aggregator: V, f -> V
    inner: str | None = None  # the rule behind it

    def fits(self, n, f):
        return n >= self.times * f + self.plus


def pre(make, before, inner):
    """A rule behind a pre-aggregator."""
    rule = RULES[inner]
    return Rule(
        lambda f, policy: make(rule.make(f, policy), f),
        lambda V, f, who: rule.oracle(before(V, f), f, who),
        *(rule.times, rule.plus),
        before=before,
        inner=inner,
    )


# With times 0 a rule has no f.
RULES = {
    "median": Rule(lambda f, p: aggregators.median(non_finite=p), lambda V, f, who: oracles.median(V), 0, 1),
    "weighted_median": Rule(
        lambda f, p: aggregators.weighted_median(non_finite=p), lambda V, f, who: oracles.weighted_median(V, who.weight), 0, 1
    ),
    "trimmed_mean": Rule(lambda f, p: aggregators.trimmed_mean(f, non_finite=p), lambda V, f, who: oracles.trimmed_mean(V, f), 2, 1),
    "meamed": Rule(lambda f, p: aggregators.meamed(f, non_finite=p), lambda V, f, who: oracles.meamed(V, f), 2, 1),
    "krum": Rule(lambda f, p: aggregators.krum(f, non_finite=p), lambda V, f, who: oracles.krum(V[who.by_id], f), 2, 3),
    "krum byzfl": Rule(
        lambda f, p: aggregators.krum(f, neighbors="byzfl", non_finite=p), lambda V, f, who: oracles.krum(V[who.by_id], f, "byzfl"), 2, 1
    ),
    "multi_krum": Rule(lambda f, p: aggregators.multi_krum(f, non_finite=p), lambda V, f, who: oracles.multi_krum(V[who.by_id], f), 2, 3),
    "multi_krum 2": Rule(
        lambda f, p: aggregators.multi_krum(f, num_selected=2, neighbors="byzfl", non_finite=p),
        lambda V, f, who: oracles.multi_krum(V[who.by_id], f, min(2, len(V) - f), "byzfl"),
        2,
        1,
    ),
    "bulyan": Rule(lambda f, p: aggregators.bulyan(f, non_finite=p), lambda V, f, who: oracles.bulyan(V, f, who.by_id), 4, 3),
    "geometric_median": Rule(
        lambda f, p: aggregators.geometric_median(non_finite=p), lambda V, f, who: oracles.geometric_median(V, who.weight), 0, 1
    ),
    "geometric_median uniform": Rule(
        lambda f, p: aggregators.geometric_median(20, 1e-2, "uniform", p),
        # "uniform" is the sampler's weight alone; the tests that use other weights name them.
        lambda V, f, who: oracles.geometric_median(V, np.ones(len(V)), 20, 1e-2),
        0,
        1,
    ),
    "centered_clipping": Rule(
        lambda f, p: aggregators.centered_clipping(2.0, non_finite=p),
        lambda V, f, who: oracles.centered_clipping(V, np.zeros(WIDTH), 2.0),
        0,
        1,
    ),
    "centered_clipping 3": Rule(
        lambda f, p: aggregators.centered_clipping(2.0, 3, p),
        lambda V, f, who: oracles.centered_clipping(V, np.zeros(WIDTH), 2.0, 3),
        0,
        1,
    ),
    "norm_bounding": Rule(lambda f, p: aggregators.norm_bounding(2.5, p), lambda V, f, who: oracles.norm_bounding(V, 2.5), 0, 1),
    "sign_majority": Rule(lambda f, p: aggregators.sign_majority(0.5, p), lambda V, f, who: oracles.sign_majority(V, 0.5), 0, 1),
    "rlr": Rule(lambda f, p: aggregators.rlr(3, 0.5, non_finite=p), lambda V, f, who: oracles.rlr(V, who.weight, 3, 0.5), 0, 1),
    "fltrust": Rule(lambda f, p: aggregators.fltrust(TRUSTED, p), lambda V, f, who: oracles.fltrust(V, who.trusted), 0, 1),
    "monna": Rule(lambda f, p: aggregators.monna(f, TRUSTED, p), lambda V, f, who: oracles.monna(V, f, who.trusted), 2, 1),
    "mda": Rule(lambda f, p: aggregators.mda(f, p), lambda V, f, who: oracles.mda(V, f), 2, 1, static=True),
    "caf": Rule(lambda f, p: aggregators.caf(f, p), lambda V, f, who: oracles.caf(V, f), 2, 1),
}
RULES |= {
    "nnm": pre(aggregators.nnm, oracles.nnm, "multi_krum 2"),
    "arc": pre(aggregators.arc, oracles.arc, "multi_krum 2"),
}
WITH_F = [name for name, rule in RULES.items() if rule.times]
SUMS = "centered_clipping", "centered_clipping 3", "norm_bounding", "sign_majority", "rlr"  # no metric "too_few"
VARIANTS = "krum byzfl", "multi_krum 2", "geometric_median uniform"  # what does not depend on their arguments is tested once

each_rule, each_rule_with_f = grouped("name", list(RULES)), grouped("name", WITH_F)
once_a_rule = grouped("name", [name for name in RULES if name not in VARIANTS])
# One for each piece of code that deals with the policy.
each_policy_code = grouped(
    "name", "median krum geometric_median centered_clipping norm_bounding rlr fltrust monna nnm arc".split() + ["centered_clipping 3"]
)


def split(V):
    """Rows `[..., 9]` as leaves of several shapes."""
    lead = V.shape[:-1]
    return {"matrix": V[..., :6].reshape(*lead, 3, 2), "scalar": V[..., 6], "vector": V[..., 7:]}


def join(tree):
    """The inverse of `split`."""
    lead = tree["scalar"].shape
    return jnp.concatenate([tree["matrix"].reshape(*lead, 6), tree["scalar"][..., None], tree["vector"]], axis=-1)


def cohort_of(ids, weight):
    return fl.sampling.cohort(jax.random.key(0), jnp.asarray(SIZES, jnp.int32), jnp.asarray(ids), jnp.asarray(weight))


def apply(aggregator, V, ids, weight, key=None):
    """The aggregate as one vector, and the metrics."""
    stack, cohort = split(jnp.asarray(V)), cohort_of(ids, weight)
    state = aggregator.init(jax.tree.map(lambda x: x[0], stack))
    aggregate, _, metrics = aggregator.finish(aggregator.collect(stack, cohort, state), state, jax.random.key(1) if key is None else key)
    return join(aggregate), metrics


@functools.cache
def compiled(name, policy="drop", f=None):
    """V `[slots, 9]`, ids, weight, f -> aggregate, metrics. Compiled once a rule: f and how many clients there are can change."""
    return jax.jit(lambda V, ids, weight, traced: apply(RULES[name].make(traced if f is None else f, policy), V, ids, weight))


def run(name, V, ids, weight, f, policy="drop"):
    aggregate, metrics = compiled(name, policy, f if RULES[name].static else None)(V, ids, weight, jnp.int32(f))
    return np.asarray(aggregate), {key: float(value) for key, value in metrics.items()}


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


def check(name, kind, tolerance, most=SLOTS, dtype=float):
    rule = RULES[name]
    for n, f in pairs(rule, most):
        values = kind(np.random.default_rng([n, f]), n, f).astype(dtype)
        given = case(n, values, seed=f, weighted="uniform" not in name)
        left, who = given.who()
        result, metrics = run(name, given.V.astype(dtype), given.ids, given.weight, f)
        expected = rule.oracle(values.astype(float), f, who)
        np.testing.assert_allclose(result, expected, tolerance, tolerance, err_msg=f"{name} {kind.__name__} n={n} f={f}")
        assert metrics == dict.fromkeys(metrics, 0)


def poisoned(name, lost, f, seed, n=9):
    """A cohort of n in which some messages are NaN, infinite, or too long for their squared norm in float32."""
    values = normal(np.random.default_rng(seed), n, f).astype(np.float32)
    given = case(n, values, seed)
    where = [slot for slot in given.some if given.ids[slot] != TRUSTED][:lost]
    for slot, value in zip(where, (np.nan, -np.inf, 1e30), strict=False):
        given.V[slot, slot % WIDTH] = value
    return given, where
