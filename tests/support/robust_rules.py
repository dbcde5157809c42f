"""The one list of robust rules: how each is made, the NumPy statement of its paper, what it needs, promises and keeps; and cohorts to try
them on. A new rule is tested by adding its row."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import robust_oracles as oracles

import fedjax_lite as fl
from fedjax_lite import aggregators

SLOTS, WIDTH, TRUSTED = 11, 9, 3
SIZES = np.array([3, 9, 1, 4, 6, 2, 7, 5, 8, 4, 10, 1, 6])  # by client id
ALIKE = np.ones_like(SIZES)  # sizes with which all weigh the same
TRUSTED_FIRST = np.array([TRUSTED, *(i for i in range(SLOTS) if i != TRUSTED)], np.int32)  # ids with which slot 0 is the trusted client's


class Who(NamedTuple):
    """What is known of the clients whose messages an oracle is given."""

    weight: np.ndarray  # examples times the sampler's weight
    trusted: int  # the trusted client's row
    by_id: np.ndarray  # the rows in the order of their clients' ids


class Rule(NamedTuple):
    make: Callable  # f, policy -> aggregator
    oracle: Callable  # V, f, Who -> aggregate
    times: int = 0  # n >= times f + plus; with times 0 the rule has no f
    plus: int = 1
    # What it keeps: a shift of all messages ("shift"), a scale ("scale"), a rotation ("turn"), a message that all send ("same"), a message
    # that a majority of n-f sends ("majority"), the mean where f = 0 ("mean"), the range of every honest set ("range"), the messages'
    # convex hull ("hull").
    keeps: str = ""
    kappa: Callable | None = None  # n, f -> the bound of (f, kappa)-robustness
    static: bool = False  # f is no tracer
    sums: bool = False  # it reports no "too_few"
    variant: bool = False  # of another row: what does not depend on its arguments is tested once
    deep: bool = False  # the row is asked in the deeper tier alone
    before: Callable | None = None  # the oracle of a pre-aggregator: V, f -> V
    inner: str | None = None  # the rule behind it

    def fits(self, n, f):
        return n >= self.times * f + self.plus

    def withstands(self, n, f):
        """Also where the rule does not know f."""
        return n >= (self.times or 2) * f + self.plus


def pre(make, before, inner, keeps="", kappa=None, deep=False):
    """A rule behind a pre-aggregator."""
    rule = RULES[inner]
    return Rule(
        lambda f, policy: make(rule.make(f, policy), f),
        lambda V, f, who: rule.oracle(before(V, f), f, who),
        *(2, max(rule.plus, 1)),
        keeps=keeps,
        kappa=kappa,
        deep=deep,
        before=before,
        inner=inner,
    )


def ratio(n, f):
    return f / (n - 2 * f)


def after_nnm(kappa):
    """Allouah et al. 2023, "Fixing by mixing", lemma 1."""
    return lambda n, f: 8 * f / (n - f) * (kappa(n, f) + 1)


def middle(n, f):
    return 4 * (1 + ratio(n, f)) ** 2


ALL = "shift scale turn same"
RULES = {
    "mean": Rule(
        lambda f, p: aggregators.mean(p),
        lambda V, f, who: oracles.mean(V),
        keeps=f"{ALL} mean hull",
        sums=True,
    ),
    "median": Rule(
        lambda f, p: aggregators.median(non_finite=p),
        lambda V, f, who: oracles.median(V),
        keeps="shift scale same majority range",
        kappa=middle,
    ),
    "weighted_median": Rule(
        lambda f, p: aggregators.weighted_median(non_finite=p),
        lambda V, f, who: oracles.weighted_median(V, who.weight),
        keeps="shift scale same range",
    ),
    "trimmed_mean": Rule(
        lambda f, p: aggregators.trimmed_mean(f, non_finite=p),
        lambda V, f, who: oracles.trimmed_mean(V, f),
        *(2, 1),
        keeps="shift scale same majority mean range",
        kappa=lambda n, f: 6 * ratio(n, f) * (1 + ratio(n, f)),
    ),
    "meamed": Rule(
        lambda f, p: aggregators.meamed(f, non_finite=p),
        lambda V, f, who: oracles.meamed(V, f),
        *(2, 1),
        keeps="shift scale same majority mean",
    ),
    "krum": Rule(
        lambda f, p: aggregators.krum(f, non_finite=p),
        lambda V, f, who: oracles.krum(V[who.by_id], f),
        *(2, 3),
        keeps=f"{ALL} majority hull",
        # With n-f-2 neighbours the proof below has one honest neighbour fewer to average over.
        kappa=lambda n, f: 6 * (n - f) / (n - 2 * f - 1),
    ),
    "krum byzfl": Rule(
        lambda f, p: aggregators.krum(f, neighbors="byzfl", non_finite=p),
        lambda V, f, who: oracles.krum(V[who.by_id], f, "byzfl"),
        *(2, 1),
        keeps=f"{ALL} majority hull",
        # The paper's Krum sums over n-f neighbours and itself, which is byzfl's.
        kappa=lambda n, f: 6 * (1 + ratio(n, f)),
        variant=True,
    ),
    "multi_krum": Rule(
        lambda f, p: aggregators.multi_krum(f, non_finite=p),
        lambda V, f, who: oracles.multi_krum(V[who.by_id], f),
        *(2, 3),
        keeps=f"{ALL} majority mean hull",
    ),
    "multi_krum byzfl": Rule(
        lambda f, p: aggregators.multi_krum(f, neighbors="byzfl", non_finite=p),
        lambda V, f, who: oracles.multi_krum(V[who.by_id], f, None, "byzfl"),
        *(2, 1),
        keeps=f"{ALL} majority mean hull",
        variant=True,
    ),
    "bulyan": Rule(
        lambda f, p: aggregators.bulyan(f, non_finite=p),
        lambda V, f, who: oracles.bulyan(V, f, who.by_id),
        *(4, 3),
        keeps="shift scale same majority mean",
    ),
    "geometric_median": Rule(
        lambda f, p: aggregators.geometric_median(non_finite=p),
        lambda V, f, who: oracles.geometric_median(V, who.weight),
        keeps=f"{ALL} hull",
    ),
    "geometric_median exact": Rule(  # so many steps that what is left of the way does not show
        lambda f, p: aggregators.geometric_median(300, 1e-9, non_finite=p),
        lambda V, f, who: oracles.geometric_median(V, who.weight, 300, 1e-9),
        keeps=f"{ALL} majority hull",
        kappa=middle,
        variant=True,
    ),
    "centered_clipping": Rule(
        lambda f, p: aggregators.centered_clipping(2.0, non_finite=p),
        lambda V, f, who: oracles.centered_clipping(V, np.zeros(WIDTH), 2.0),
        keeps="turn",
        sums=True,
    ),
    "centered_clipping 3": Rule(
        lambda f, p: aggregators.centered_clipping(2.0, 3, p),
        lambda V, f, who: oracles.centered_clipping(V, np.zeros(WIDTH), 2.0, 3),
        keeps="turn",
        sums=True,
    ),
    "norm_bounding": Rule(
        lambda f, p: aggregators.norm_bounding(2.5, p),
        lambda V, f, who: oracles.norm_bounding(V, 2.5),
        keeps="turn",
        sums=True,
    ),
    "sign_majority": Rule(
        lambda f, p: aggregators.sign_majority(0.5, p),
        lambda V, f, who: oracles.sign_majority(V, 0.5),
        sums=True,
    ),
    "rlr": Rule(
        lambda f, p: aggregators.rlr(3, 0.5, non_finite=p),
        lambda V, f, who: oracles.rlr(V, who.weight, 3, 0.5),
        keeps="scale",
        sums=True,
    ),
    "fltrust": Rule(
        lambda f, p: aggregators.fltrust(TRUSTED, p),
        lambda V, f, who: oracles.fltrust(V, who.trusted),
        keeps="scale turn",
    ),
    "monna": Rule(
        lambda f, p: aggregators.monna(f, TRUSTED, p),
        lambda V, f, who: oracles.monna(V, f, who.trusted),
        *(2, 1),
        keeps=f"{ALL} hull",
    ),
    "mda": Rule(
        lambda f, p: aggregators.mda(f, p),
        lambda V, f, who: oracles.mda(V, f),
        *(2, 1),
        keeps=f"{ALL} majority mean hull",
        static=True,
    ),
    "caf": Rule(
        lambda f, p: aggregators.caf(f, p),
        lambda V, f, who: oracles.caf(V, f),
        *(2, 1),
        keeps=f"{ALL} majority mean hull",
    ),
    "bucketing mean": Rule(
        lambda f, p: aggregators.bucketing(aggregators.mean(p), 1),
        lambda V, f, who: oracles.mean(V),
        keeps=f"{ALL} mean hull",
        sums=True,
    ),
}
RULES |= {
    f"nnm {name}": pre(
        aggregators.nnm,
        oracles.nnm,
        name,
        keeps=keeps,
        kappa=after_nnm(RULES[name].kappa),
        deep=name != "krum byzfl",
    )
    for name, keeps in {
        "median": "shift scale same majority mean",
        "trimmed_mean": "shift scale same majority mean",
        "krum byzfl": f"{ALL} majority mean hull",
        "geometric_median exact": f"{ALL} majority mean",
    }.items()
}
RULES |= {
    "arc mean": pre(aggregators.arc, oracles.arc, "mean", keeps="scale turn same mean"),
    "arc multi_krum byzfl": pre(aggregators.arc, oracles.arc, "multi_krum byzfl", keeps="scale turn same mean", deep=True),
}
WITH_F = [name for name, rule in RULES.items() if rule.times]
ONCE = [name for name, rule in RULES.items() if not rule.variant and not rule.deep]  # one for each piece of code


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
