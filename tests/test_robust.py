"""Each robust rule against the NumPy statement of its paper, and the edges: ties, empty slots, messages that are not finite, refusals."""

import functools
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import robust_oracles as oracles
from scipy import stats

import fedjax_lite as fl
from fedjax_lite import aggregators
from fedjax_lite.aggregators.gram import squared_distances

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

each_rule = pytest.mark.parametrize("name", RULES)
once_a_rule = pytest.mark.parametrize("name", [name for name in RULES if name not in VARIANTS])
# One for each piece of code that deals with the policy.
each_policy_code = pytest.mark.parametrize(
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


@each_rule
@pytest.mark.parametrize("kind", KINDS)
def test_rules_equal_their_papers(name, kind, x64):
    if name == "caf" and kind in (tied, repeated):
        pytest.skip("equal eigenvalues: the direction, and with it the result, is not defined")
    if name in ("meamed", "bulyan") and kind is repeated:
        pytest.skip("two values as far from their middle: rounding decides; whole numbers are compared above")
    if name == "nnm" and kind in (tied, repeated):
        pytest.skip("equal scores of means: rounding decides; the means themselves are compared below")
    check(name, kind, 1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make, oracle", [(aggregators.nnm, oracles.nnm), (aggregators.arc, oracles.arc)], ids=["nnm", "arc"])
def test_what_pre_aggregators_make_of_each_message(make, oracle, kind, x64):
    for n, f in pairs(RULES["krum byzfl"]):
        given = case(n, kind(np.random.default_rng([n, f]), n, f), seed=f)
        left, _ = given.who()
        rows = before(make)(given.V, given.ids, given.weight, jnp.int32(f))
        np.testing.assert_allclose(rows[left], oracle(given.V[left], f), 1e-10, 1e-10, err_msg=f"n={n} f={f}")


@functools.cache
def before(make):
    """V, ids, weight, f -> the messages as the rule behind sees them."""
    seen = aggregators.from_stack(lambda messages, cohort: messages)
    return jax.jit(lambda V, ids, weight, f: apply(make(seen, f), V, ids, weight)[0])


@each_rule
@pytest.mark.parametrize("kind", [normal, attacked])
def test_single_precision(name, kind):
    check(name, kind, 1e-5, dtype=np.float32)


@pytest.mark.parametrize("name", ["median", "krum", "geometric_median", "centered_clipping", "rlr", "fltrust", "arc"])
def test_half_precision_is_computed_in_single(name):
    n, f = 8, 1
    values = np.asarray(jnp.asarray(normal(np.random.default_rng(5), n, f), jnp.bfloat16))
    given = case(n, values.astype(float), seed=0)
    left, who = given.who()
    result, _ = compiled(name, f=f if RULES[name].static else None)(jnp.asarray(given.V, jnp.bfloat16), given.ids, given.weight, f)
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, RULES[name].oracle(values.astype(float), f, who), 1e-5, 1e-5)


@pytest.mark.parametrize("name", [name for name in WITH_F if not RULES[name].static])
def test_f_may_differ_over_a_batch(name, x64):
    """One program for several f: a study over f is a vmap."""
    given = case(SLOTS, normal(np.random.default_rng(6), SLOTS, 0), seed=0)
    left, who = given.who()
    numbers = jnp.arange(3)
    program = jax.jit(jax.vmap(lambda f: apply(RULES[name].make(f, "drop"), given.V, given.ids, given.weight)[0]))
    expected = [RULES[name].oracle(given.V[left], f, who) for f in range(3)]
    np.testing.assert_allclose(program(numbers), expected, 1e-10)


@pytest.mark.parametrize(
    "make, oracle",
    [
        (aggregators.centered_clipping, lambda V, a, x: oracles.centered_clipping(V, np.zeros(WIDTH), x)),
        (aggregators.norm_bounding, lambda V, a, x: oracles.norm_bounding(V, x)),
        (aggregators.sign_majority, lambda V, a, x: oracles.sign_majority(V, x)),
        (aggregators.rlr, lambda V, a, x: oracles.rlr(V, a, x)),
        (lambda x: aggregators.rlr(3, learning_rate=x), lambda V, a, x: oracles.rlr(V, a, 3, x)),
        (lambda x: aggregators.geometric_median(smoothing=x), lambda V, a, x: oracles.geometric_median(V, a, smoothing=x)),
        (
            lambda x: aggregators.multi_krum(1, num_selected=x.astype(int)),
            lambda V, a, x: oracles.multi_krum(V, 1, int(x)),
        ),
    ],
)
def test_other_arguments_may_differ_over_a_batch(make, oracle, x64):
    given = case(8, normal(np.random.default_rng(7), 8, 0), seed=0, weighted=True)
    left, who = given.who()
    values = jnp.array([1.0, 2.5, 6.0])
    program = jax.jit(jax.vmap(lambda x: apply(make(x), given.V, given.ids, given.weight)[0]))
    np.testing.assert_allclose(program(values), [oracle(given.V[left], who.weight, float(x)) for x in values], 1e-10, 1e-12)


def test_weights_of_the_sampler_count_where_weights_do(x64):
    """The geometric median's "uniform" is the sampler's weight alone; a table follows the client, not the slot."""
    given = case(6, normal(np.random.default_rng(8), 6, 0), seed=3, weighted=True)
    left, who = given.who()
    table = np.linspace(1, 3, len(SIZES))
    for weights, expected in (("uniform", given.weight[left]), (jnp.asarray(table), given.weight[left] * table[given.ids[left]])):
        result, _ = jax.jit(lambda weights=weights: apply(aggregators.geometric_median(weights=weights), *given[:3]))()
        np.testing.assert_allclose(result, oracles.geometric_median(given.V[left], expected), 1e-10)


# State


@pytest.mark.parametrize("iterations", [1, 3])
def test_centered_clipping_goes_on_from_the_last_aggregate(iterations, x64):
    aggregator, v = aggregators.centered_clipping(1.5, iterations), np.zeros(WIDTH)

    @jax.jit
    def step(V, ids, weight, state):
        part = aggregator.collect(split(V), cohort_of(ids, weight), state)
        aggregate, state, metrics = aggregator.finish(part, state, None)
        return join(aggregate), state, metrics["non_finite"]

    state = aggregator.init(split(jnp.zeros(WIDTH)))
    for round in range(4):
        given = case(3 + round, normal(np.random.default_rng(round), 3 + round, 0) * 3, seed=round)
        V, lost = np.array(given.V), given.some[:round]
        V[lost, 4] = np.nan
        result, state, dropped = step(V, given.ids, given.weight, state)
        v = oracles.centered_clipping(given.V[np.setdiff1d(given.some, lost)], v, 1.5, iterations)
        np.testing.assert_allclose(result, v, 1e-10)
        np.testing.assert_allclose(join(state), v, 1e-10)
        assert dropped == round
    result, state, _ = step(V, given.ids, np.zeros(SLOTS), state)  # nobody: it stays where it is
    np.testing.assert_allclose(result, v, 1e-10)


# Messages that are not finite


def poisoned(name, lost, f, seed, n=9):
    """A cohort of n in which some messages are NaN, infinite, or too long for their squared norm in float32."""
    values = normal(np.random.default_rng(seed), n, f).astype(np.float32)
    given = case(n, values, seed)
    where = [slot for slot in given.some if given.ids[slot] != TRUSTED][:lost]
    for slot, value in zip(where, (np.nan, -np.inf, 1e30), strict=False):
        given.V[slot, slot % WIDTH] = value
    return given, where


@each_rule
@pytest.mark.parametrize("lost", [1, 3])
def test_messages_that_are_not_finite_are_dropped(name, lost):
    """And as many fewer Byzantine clients are left to withstand, but not fewer than none."""
    for f in (0, 1, 2) if name in WITH_F and name != "bulyan" else (0, 1) if name == "bulyan" else (0,):
        given, where = poisoned(name, lost, f, seed=f)
        left, who = given.who(but=where)
        result, metrics = run(name, given.V.astype(np.float32), given.ids, given.weight, f)
        expected = RULES[name].oracle(given.V[left], max(f - lost, 0), who)
        np.testing.assert_allclose(result, expected, 1e-5, 1e-5, err_msg=f"{name} f={f}")
        assert metrics == {"non_finite": lost} | ({} if name in SUMS else {"too_few": 0})


@each_policy_code
def test_messages_that_are_not_finite_count_as_zeros(name):
    f = 1 if name in WITH_F else 0
    given, where = poisoned(name, 3, f, seed=4)
    left, who = given.who()
    result, metrics = run(name, given.V.astype(np.float32), given.ids, given.weight, f, "zero")
    if RULES[name].inner is None:
        given.V[where] = 0
        expected = RULES[name].oracle(given.V[left], f, who)
    else:  # the pre-aggregator leaves them out, and to the rule behind it they are zeros
        others, rows = np.flatnonzero(~np.isin(left, where)), np.zeros((len(left), WIDTH))
        rows[others] = RULES[name].before(given.V[left[others]], max(f - 3, 0))
        expected = RULES[RULES[name].inner].oracle(rows, f, who)
    np.testing.assert_allclose(result, expected, 1e-5, 1e-5)
    assert metrics == {"non_finite": 3} | ({} if name in SUMS else {"too_few": 0})


@each_policy_code
def test_messages_that_are_not_finite_show_where_they_are_propagated(name):
    f = 1 if name in WITH_F else 0
    given = case(9, normal(np.random.default_rng(9), 9, f).astype(np.float32), seed=0)
    left, who = given.who()
    result, _ = run(name, given.V.astype(np.float32), given.ids, given.weight, f, "propagate")
    np.testing.assert_allclose(result, RULES[name].oracle(given.V[left], f, who), 1e-5, 1e-5)
    given.V[left] = np.nan
    result, metrics = run(name, given.V.astype(np.float32), given.ids, given.weight, f, "propagate")
    # Without the root, or with nobody to compare with, a rule may give 0 and say so.
    assert not np.isfinite(result).any() or ((result == 0).all() and metrics["too_few"] == 1)
    assert metrics.get("non_finite", 9) == 9


@each_rule
def test_when_every_message_is_lost_the_aggregate_is_zero_and_the_metrics_say_why(name):
    given, _ = poisoned(name, 0, 0, seed=1)
    given.V[given.some] = np.nan
    result, metrics = run(name, given.V.astype(np.float32), given.ids, given.weight, 1 if name in WITH_F else 0)
    assert (result == 0).all()
    assert metrics == {"non_finite": 9} | ({} if name in SUMS else {"too_few": 1})


@pytest.mark.parametrize("name", WITH_F)
def test_too_few_clients_give_zero_and_say_so(name):
    rule = RULES[name]
    for f in (1, 2):
        enough = rule.times * f + rule.plus
        for n in (1, enough - 1, enough):
            given = case(n, normal(np.random.default_rng(n), n, f).astype(np.float32), seed=n)
            if enough > SLOTS:
                continue
            result, metrics = run(name, given.V.astype(np.float32), given.ids, given.weight, f)
            assert metrics == {"non_finite": 0, "too_few": float(n < enough)}
            assert (result == 0).all() == (n < enough)


@pytest.mark.parametrize("name", ["fltrust", "monna"])
def test_without_the_trusted_client_the_aggregate_is_zero(name):
    for harm in ("absent", "empty", np.nan, np.inf):
        given = case(7, normal(np.random.default_rng(10), 7, 1).astype(np.float32), seed=1)
        slot = np.flatnonzero((given.ids == TRUSTED) & (given.weight > 0))[0]
        if harm == "absent":
            given.ids[slot] = np.setdiff1d(np.arange(len(SIZES)), given.ids)[0]
        elif harm == "empty":
            given.weight[slot] = 0
        else:
            given.V[slot, 2] = harm
        for policy in ("drop", "zero", "propagate"):
            result, metrics = run(name, given.V.astype(np.float32), given.ids, given.weight, 1, policy)
            assert metrics["too_few"] == 1 and (result == 0).all(), (harm, policy)


def test_fltrust_where_nobody_points_its_way(x64):
    V = np.vstack([np.ones(WIDTH), -np.ones((2, WIDTH)), np.zeros((2, WIDTH))])
    ids = np.array([TRUSTED, 0, 1, 2, 4], np.int32)
    apart = np.eye(5, WIDTH)
    program = jax.jit(functools.partial(apply, aggregators.fltrust(TRUSTED)))
    for messages in (V, np.vstack([np.zeros(WIDTH), V[1:]]), apart, np.zeros((5, WIDTH))):
        result, metrics = program(messages, ids, np.ones(5))
        assert metrics["too_few"] == 0 and (result == 0).all()


# Far away but finite


@each_rule
def test_very_long_messages(name):
    """Of a length whose square just fits: nothing may overflow on the way."""
    f = 2 if name in WITH_F and name != "bulyan" else 1
    n = SLOTS
    values = normal(np.random.default_rng(11), n, f).astype(np.float32)
    given = case(n, values, seed=2)
    bad = [slot for slot in given.some if given.ids[slot] != TRUSTED][:f]
    given.V[bad] = np.array([1.0, -1.0])[:f, None] * 2e18  # norm 6e18, squared 3.6e37
    left, who = given.who()
    result, metrics = run(name, given.V.astype(np.float32), given.ids, given.weight, f)
    expected = RULES[name].oracle(given.V[left], f, who)
    assert metrics["non_finite"] == 0
    np.testing.assert_allclose(result, expected, 1e-4, 1e-4 + 1e-6 * np.abs(expected).max())


def test_caf_withstands_very_long_messages_that_agree():
    values = normal(np.random.default_rng(12), SLOTS, 2).astype(np.float32)
    values[:2] = 1e12 + values[:2]
    result, _ = run("caf", values, np.arange(SLOTS), np.ones(SLOTS), 2)
    np.testing.assert_allclose(result, oracles.caf(values.astype(float), 2), 1e-3, 1e-3)


def test_bulyan_does_not_depend_on_the_order_of_clients():
    """The last message it selects has one neighbour, whose score is the same: the lowest id wins, wherever it stands."""
    rng = np.random.default_rng(19)
    for _ in range(20):
        V, order = rng.normal(size=(SLOTS, WIDTH)), rng.permutation(SLOTS)
        expected, _ = run("bulyan", V, np.arange(SLOTS), np.ones(SLOTS), 2)
        result, _ = run("bulyan", V[order], np.arange(SLOTS)[order], np.ones(SLOTS), 2)
        np.testing.assert_allclose(result, expected, 1e-5, 1e-6)


@pytest.mark.parametrize(
    "make, kind, message",
    [
        (lambda: aggregators.nnm(aggregators.secure_mean(), 1), ValueError, "inner hides single messages from the server"),
        (lambda: aggregators.arc(aggregators.secure_mean(), 1), ValueError, "inner hides single messages from the server"),
        (lambda: aggregators.bucketing(aggregators.secure_mean(), 2), ValueError, "inner hides single messages from the server"),
        (lambda: aggregators.nnm(3, 1), TypeError, "inner"),
        (lambda: aggregators.bucketing(aggregators.mean, 2), TypeError, "inner"),
    ],
)
def test_what_can_not_stand_behind_a_pre_aggregator(make, kind, message):
    with pytest.raises(kind, match=message):
        make()


def test_distances_of_equal_messages_are_zero_however_long():
    """Not what the products of their coordinates leave of the last digits, which can be negative."""
    rng = np.random.default_rng(18)
    V = (rng.normal(size=(4, WIDTH)) * [[1], [1e3], [1e6], [1e9]]).astype(np.float32)[[0, 1, 2, 3, 0, 1, 2, 3, 0]]
    distances = np.asarray(squared_distances(split(jnp.asarray(V)), jnp.arange(9) < 8))
    for i in range(8):
        for j in range(8):
            assert (distances[i, j] == 0) == ((i - j) % 4 == 0)
            np.testing.assert_allclose(distances[i, j], oracles.squared_distance(V[i].astype(float), V[j].astype(float)), 1e-5)
    assert (distances[8] == np.inf).all() and (distances[:, 8] == np.inf).all()


# Bucketing

whole = aggregators.from_stack(lambda messages, cohort: (messages, cohort.size, cohort.weight, cohort.id))


@functools.cache
def bucketed(size):
    """V, ids, weight, keys, f -> for each key the buckets; and what a rule makes of them."""

    def one(V, ids, weight, key, f):
        stack, cohort = split(V), cohort_of(ids, weight)
        aggregator = aggregators.bucketing(whole, size)
        state = aggregator.init(jax.tree.map(lambda x: x[0], stack))
        means, sizes, weights, numbers = aggregator.finish(aggregator.collect(stack, cohort, state), state, key)[0]
        rule = aggregators.bucketing(RULES["multi_krum 2"].make(f, "drop"), size)
        return (join(means), sizes, weights, numbers), apply(rule, V, ids, weight, key)

    return jax.jit(jax.vmap(one, (None, None, None, 0, None)))


def keys(count):
    return jax.vmap(jax.random.key)(jnp.arange(count))


@pytest.mark.parametrize("n, size", [(5, 2), (6, 2), (1, 2), (5, 3), (3, 3)])
def test_buckets_are_those_of_a_random_order(n, size, x64):
    given = case(n, normal(np.random.default_rng(12), n, 0), seed=n)
    left, _ = given.who()
    possible = oracles.bucketings(n, size)
    expected = [oracles.buckets(given.V[left], order, size) for order in possible]
    (means, sizes, weights, numbers), (aggregate, metrics) = bucketed(size)(given.V, given.ids, given.weight, keys(150), 0)
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


def test_buckets_of_one_are_the_rule_itself(x64):
    given = case(8, normal(np.random.default_rng(13), 8, 0), seed=0)
    left, who = given.who()
    _, (aggregate, metrics) = bucketed(1)(given.V, given.ids, given.weight, keys(3), 1)
    np.testing.assert_allclose(aggregate, [RULES["multi_krum 2"].oracle(given.V[left], 1, who)] * 3, 1e-10)


def test_buckets_go_by_client_and_key_not_by_slot(x64):
    given = case(7, normal(np.random.default_rng(14), 7, 0), seed=0)
    order = np.random.default_rng(0).permutation(SLOTS)
    (means, *_), _ = bucketed(2)(given.V, given.ids, given.weight, keys(5), 1)
    (again, *_), _ = bucketed(2)(given.V[order], given.ids[order], given.weight[order], keys(5), 1)
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
    _, (aggregate, metrics) = bucketed(2)(given.V, given.ids, given.weight, keys(40), 1)
    assert (metrics["non_finite"] == 1).all() and (metrics["too_few"] == 0).all()
    assert all(any(np.allclose(result, rows, 1e-10, 1e-12) for rows in possible) for result in aggregate)


# Derivatives


def slope(name, f, direction):
    """V, ids, weight -> <aggregate, direction> and its gradient."""
    aggregator = RULES[name].make(f, "drop")
    return jax.jit(jax.value_and_grad(lambda V, ids, weight: apply(aggregator, V, ids, weight)[0] @ direction))


@once_a_rule
def test_derivatives_are_those_of_finite_differences_and_finite_at_the_edges(name, x64):
    rng, n, f = np.random.default_rng(16), 8, 1
    direction = rng.normal(size=WIDTH)
    program = slope(name, f, direction)
    given = case(n, normal(rng, n, f), seed=0)
    V = np.array(given.V)
    value, gradient = program(V, given.ids, given.weight)
    empty = np.setdiff1d(np.arange(SLOTS), given.some)
    assert (gradient[empty] == 0).all()
    if name != "caf":  # whose weights count as constants
        step = np.zeros_like(V)
        step[given.some] = rng.normal(size=(n, WIDTH))
        ahead, behind = (program(V + sign * 1e-6 * step, given.ids, given.weight)[0] for sign in (1, -1))
        np.testing.assert_allclose(jnp.sum(gradient * step), (ahead - behind) / 2e-6, 1e-6, 1e-6)
    for kind, values in edges(n).items():
        V[given.some] = values
        value, gradient = program(V, given.ids, given.weight)
        assert np.isfinite(value) and np.isfinite(gradient).all(), kind
        if kind == "NaN":
            assert (gradient[given.some[:2]] == 0).all()


def edges(n):
    rng = np.random.default_rng(17)
    one = rng.normal(size=(1, WIDTH))
    spoiled = rng.normal(size=(n, WIDTH))
    spoiled[0], spoiled[1, 3] = np.nan, np.inf
    return {
        "equal": np.repeat(one, n, axis=0),
        "zero": np.zeros((n, WIDTH)),
        "some zero": np.vstack([np.zeros((n - 2, WIDTH)), one, -one]),
        "two": np.vstack([np.repeat(one, n - 3, axis=0), np.repeat(2 * one, 3, axis=0)]),
        "NaN": spoiled,
    }


# Refusals

FACTORIES = {
    "trimmed_mean": aggregators.trimmed_mean,
    "meamed": aggregators.meamed,
    "krum": aggregators.krum,
    "multi_krum": aggregators.multi_krum,
    "bulyan": aggregators.bulyan,
    "monna": lambda f: aggregators.monna(f, trusted=0),
    "mda": aggregators.mda,
    "caf": aggregators.caf,
    "nnm": lambda f: aggregators.nnm(aggregators.mean(), f),
    "arc": lambda f: aggregators.arc(aggregators.mean(), f),
}


# What is of a wrong type already by its annotation is refused by beartype here, and is no case of these tests.


@pytest.mark.parametrize("name", FACTORIES)
@pytest.mark.parametrize("f", [-1, 1.5, float("nan"), True])
def test_a_number_of_byzantine_clients_that_is_none_is_refused(name, f):
    if name == "mda" and isinstance(f, float):
        return
    with pytest.raises(ValueError, match=f"{name}: num_byzantine .*whole number.*got {f}"):
        FACTORIES[name](f)


@pytest.mark.parametrize("name", FACTORIES)
def test_a_cohort_too_small_for_f_is_refused_with_the_reason(name):
    times, plus = next((r.times, r.plus) for key, r in RULES.items() if key == name and r.times)
    aggregator, n = FACTORIES[name](2), 2 * times + plus - 1
    arguments = np.ones((n, WIDTH), np.float32), np.arange(n, dtype=np.int32), np.ones(n)
    words = rf"{name}: num_byzantine=2 needs n >= {times}f\+{plus} = {n + 1} clients a round, and the cohort has {n}: lower num_byz"
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(functools.partial(apply, aggregator), *arguments)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: aggregators.multi_krum(1, num_selected=0), "multi_krum: num_selected .*at least 1, got 0"),
        (lambda: aggregators.multi_krum(1, num_selected=1.5), "multi_krum: num_selected .*got 1.5"),
        (lambda: aggregators.geometric_median(iterations=0), "geometric_median: iterations .*got 0"),
        (lambda: aggregators.geometric_median(smoothing=0), "geometric_median: smoothing .*got 0"),
        (lambda: aggregators.geometric_median(weights="example"), "geometric_median: weights .*'example'"),
        (lambda: aggregators.centered_clipping(0.0), "centered_clipping: radius .*got 0.0"),
        (lambda: aggregators.centered_clipping(1.0, iterations=0), "centered_clipping: iterations .*got 0"),
        (lambda: aggregators.norm_bounding(-1.0), "norm_bounding: max_norm .*got -1.0"),
        (lambda: aggregators.norm_bounding(float("nan")), "norm_bounding: max_norm .*got nan"),
        (lambda: aggregators.sign_majority(0.0), "sign_majority: learning_rate .*got 0.0"),
        (lambda: aggregators.rlr(-1), "rlr: threshold .*got -1"),
        (lambda: aggregators.rlr(1, learning_rate=-1.0), "rlr: learning_rate .*got -1.0"),
        (lambda: aggregators.fltrust(-1), "fltrust: trusted .*got -1"),
        (lambda: aggregators.monna(1, trusted=-2), "monna: trusted .*got -2"),
        (lambda: aggregators.bucketing(aggregators.mean(), 0), "bucketing: size .*at least 1, got 0"),
    ],
)
def test_other_bad_arguments_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@each_rule
def test_unknown_policies_are_refused(name):
    with pytest.raises(ValueError, match='non_finite must be "drop", "zero" or "propagate", got \'ignore\''):
        RULES[name].make(1, "ignore")


def test_more_selected_than_honest_is_refused():
    with pytest.raises(ValueError, match="multi_krum: num_selected=6 is more than n-f = 5"):
        jax.eval_shape(functools.partial(apply, aggregators.multi_krum(2, 6)), np.ones((7, WIDTH)), np.arange(7), np.ones(7))


def test_minimum_diameter_refuses_what_it_cannot_search():
    with pytest.raises(TypeError, match="num_byzantine"):
        aggregators.mda(jnp.int32(1))
    with pytest.raises(ValueError, match="mda: num_byzantine=10 of 30 slots make 30045015 sets"):
        jax.eval_shape(functools.partial(apply, aggregators.mda(10)), np.ones((30, WIDTH)), np.arange(30), np.ones(30))
