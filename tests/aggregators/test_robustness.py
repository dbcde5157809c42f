"""What robust rules promise, with hypothesis as the adversary: bounds that hold for every set of honest clients, and symmetries.

(f, kappa)-robust (Allouah et al. 2023, "Fixing by mixing"): for every set S of n-f of the n messages,
||R(V) - mean_S||^2 <= kappa * mean over S of ||V_i - mean_S||^2. The rule does not know S, so the bound holds for all of them.
"""

import functools
from collections.abc import Callable
from itertools import combinations
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

import fedjax_lite as fl
from fedjax_lite import aggregators

SLOTS, WIDTH = 10, 3


class Rule(NamedTuple):
    make: Callable  # f -> aggregator
    times: int = 2  # n >= times f + plus
    plus: int = 1


def exact_median(f):
    """So many steps that what is left of the way to the geometric median does not show."""
    return aggregators.geometric_median(iterations=300, smoothing=1e-9, weights="uniform")


RULES = {
    "mean": Rule(lambda f: aggregators.mean()),
    "median": Rule(lambda f: aggregators.median()),
    "weighted_median": Rule(lambda f: aggregators.weighted_median("uniform")),
    "trimmed_mean": Rule(aggregators.trimmed_mean),
    "meamed": Rule(aggregators.meamed),
    "krum": Rule(aggregators.krum, 2, 3),
    "krum byzfl": Rule(lambda f: aggregators.krum(f, neighbors="byzfl")),
    "multi_krum": Rule(aggregators.multi_krum, 2, 3),
    "bulyan": Rule(aggregators.bulyan, 4, 3),
    "geometric_median": Rule(exact_median),
    "centered_clipping": Rule(lambda f: aggregators.centered_clipping(2.0, iterations=2)),
    "norm_bounding": Rule(lambda f: aggregators.norm_bounding(2.0)),
    "sign_majority": Rule(lambda f: aggregators.sign_majority()),
    "rlr": Rule(lambda f: aggregators.rlr(2)),
    "fltrust": Rule(lambda f: aggregators.fltrust(0)),
    "monna": Rule(lambda f: aggregators.monna(f, 0)),
    "mda": Rule(aggregators.mda),
    "caf": Rule(aggregators.caf),
    "arc mean": Rule(lambda f: aggregators.arc(aggregators.mean(), f)),
    "bucketing mean": Rule(lambda f: aggregators.bucketing(aggregators.mean(), 1)),
}
NNM = "median", "trimmed_mean", "krum byzfl", "geometric_median"
RULES |= {f"nnm {name}": Rule(lambda f, name=name: aggregators.nnm(RULES[name].make(f), f)) for name in NNM}


@functools.cache
def compiled(name, f=None):
    """stack, how many of its slots are filled, f -> aggregate. Compiled once a rule, so that no example compiles."""

    def aggregate(stack, n, traced):
        aggregator = RULES[name].make(traced if f is None else f)
        cohort = fl.sampling.cohort(jax.random.key(0), jnp.ones(SLOTS, jnp.int32), jnp.arange(SLOTS), jnp.arange(SLOTS) < n)
        state = aggregator.init(stack[0])
        return aggregator.finish(aggregator.collect(stack, cohort, state), state, jax.random.key(1))[0]

    return jax.jit(aggregate)


def run(name, V, f):
    """R(V), in double precision."""
    stack = np.full((SLOTS, WIDTH), np.nan)
    stack[: len(V)] = V
    with jax.enable_x64(True):
        return np.asarray(compiled(name, f if name == "mda" else None)(stack, len(V), jnp.int32(f)))


def fitting(names, most=SLOTS):
    """Every rule of them with every n and f that it admits."""
    return [(name, n, f) for name in names for n in range(1, most + 1) for f in range(n) if n >= RULES[name].times * f + RULES[name].plus]


# The adversary


@st.composite
def attacked(draw, times=2, plus=1):
    """Messages of n-f honest clients and of f others who know them, and f."""
    f = draw(st.integers(0, (SLOTS - plus) // times))
    n = draw(st.integers(max(times * f + plus, 2), SLOTS))
    numbers = st.integers(-640, 640).map(lambda x: x / 64)  # no subnormal numbers, and now and then two alike

    def messages(rows):
        return np.array(draw(st.lists(numbers, min_size=rows * WIDTH, max_size=rows * WIDTH))).reshape(rows, WIDTH)

    honest = messages(n - f)
    if draw(st.booleans()):  # in two groups
        honest[: draw(st.integers(0, n - f))] = honest[-1]
    kind = draw(st.sampled_from(["free", "far", "together", "beside", "copies", "shifted"]))
    others = messages(f)
    if kind == "far":
        others *= 10.0 ** draw(st.integers(3, 6))
    elif kind == "together":
        others[:] = messages(1) * 10.0 ** draw(st.integers(0, 6))
    elif kind == "beside":
        others = honest[draw(st.integers(0, n - f - 1))] + others / 1000
    elif kind == "copies":
        others[:] = honest[draw(st.integers(0, n - f - 1))]
    elif kind == "shifted":
        others[:] = honest.mean(0) + draw(st.sampled_from([-1.5, 0.5, 3.0])) * honest.std(0)
    return np.vstack([honest, others])[draw(st.permutations(range(n)))], f


def bad_cases(n, f):
    """The cases that separate rules in the papers."""
    far = np.array([1.0, -2.0, 0.5])
    rng = np.random.default_rng([n, f])
    spread = rng.normal(size=(n, WIDTH))
    for scale in (1.0, 1e3, 1e6):
        yield np.vstack([np.zeros((n - f, WIDTH)), np.tile(scale * far, (f, 1))])
        yield np.vstack([spread[f:], np.tile(scale * far, (f, 1))])
        yield np.vstack([spread[f:], scale * spread[:f]])
        yield np.vstack([spread[f:], scale * np.outer((-1.0) ** np.arange(f), far)])
    half = (n - f) // 2  # the honest ones are in two groups, and the others take one side or stand between
    for place in (0.0, 0.5, 1.0):
        yield np.vstack([np.zeros((half, WIDTH)), np.ones((n - f - half, WIDTH)), np.full((f, WIDTH), place)])


def subsets(V, f):
    """The messages of every set of n-f clients: `[sets, n-f, d]`."""
    return V[np.array(list(combinations(range(len(V)), len(V) - f)))]


def rounding(V):
    """What double precision may be off by."""
    return 1e-9 * (1 + np.abs(V).max())


# (f, kappa)-robustness


def ratio(n, f):
    return f / (n - 2 * f)


KAPPA = {
    "median": lambda n, f: 4 * (1 + ratio(n, f)) ** 2,
    "trimmed_mean": lambda n, f: 6 * ratio(n, f) * (1 + ratio(n, f)),
    "geometric_median": lambda n, f: 4 * (1 + ratio(n, f)) ** 2,
    # The paper's Krum sums over n-f neighbours and itself, which is byzfl's.
    "krum byzfl": lambda n, f: 6 * (1 + ratio(n, f)),
    # With n-f-2 neighbours the same proof has one honest neighbour fewer to average over: 6 (n-f) / (n-2f-1).
    "krum": lambda n, f: 6 * (n - f) / (n - 2 * f - 1),
}
KAPPA |= {f"nnm {name}": lambda n, f, kappa=KAPPA[name]: 8 * f / (n - f) * (kappa(n, f) + 1) for name in NNM}


def excess(R, V, f, kappa):
    """By how much the bound is broken for the worst S; not positive where it holds."""
    sets = subsets(V, f)
    means = sets.mean(axis=1)
    variances = ((sets - means[:, None]) ** 2).sum(axis=2).mean(axis=1)
    return np.max(((R - means) ** 2).sum(axis=1) - kappa * variances) - rounding(V) ** 2


@pytest.mark.parametrize("name", KAPPA)
def test_bound_on_the_error_over_every_honest_set(name):
    @settings(max_examples=80, deadline=None)
    @given(attacked(RULES[name].times, RULES[name].plus))
    def holds(case):
        V, f = case
        assert excess(run(name, V, f), V, f, KAPPA[name](len(V), f)) <= 0

    holds()


@pytest.mark.parametrize("name", KAPPA)
def test_bound_in_the_bad_cases(name):
    for _, n, f in fitting([name]):
        for number, V in enumerate(bad_cases(n, f)):
            assert excess(run(name, V, f), V, f, KAPPA[name](n, f)) <= 0, (n, f, number)


def test_the_mean_breaks_every_bound():
    """So the bounds can be broken, and by these cases."""
    for _, n, f in fitting(["mean"]):
        if f:
            largest = max(kappa(n, f) for name, kappa in KAPPA.items() if n >= RULES[name].times * f + RULES[name].plus)
            assert max(excess(run("mean", V, f), V, f, 1000 * largest) for V in bad_cases(n, f)) > 0


# A majority of n-f equal messages leaves no rule with a finite kappa a choice; then the error is f/(n-2f), which no rule can better.
CONVINCED = [*KAPPA, "multi_krum", "meamed", "bulyan", "mda", "caf"]


@pytest.mark.parametrize("name", CONVINCED)
def test_a_majority_of_equal_messages_wins(name):
    for _, n, f in fitting([name]):
        equal = np.array([0.3, -1.7, 2.0])
        for distance in (0.1, 1e3):
            V = np.vstack([np.tile(equal, (n - f, 1)), np.tile(equal + distance, (f, 1))])
            for order in (np.arange(n), np.arange(n)[::-1]):
                np.testing.assert_allclose(run(name, V[order], f), equal, 1e-8, err_msg=f"n={n} f={f}")
        if f:
            assert excess(equal, V, f, 0.99 * ratio(n, f)) > 0


# Bounds by the spread of the honest set


@settings(max_examples=80, deadline=None)
@given(attacked())
def test_minimum_diameter_averaging_is_within_a_share_of_the_honest_diameter(case):
    """||R(V) - mean_S|| <= 2f/(n-f) diam(S) (Farhadkhani et al. 2022, resilient averaging)."""
    V, f = case
    R, sets = run("mda", V, f), subsets(V, f)
    diameters = np.sqrt(((sets[:, :, None] - sets[:, None]) ** 2).sum(-1)).max((1, 2))
    assert (np.linalg.norm(R - sets.mean(1), axis=1) <= 2 * f / (len(V) - f) * diameters + rounding(V)).all()


@pytest.mark.parametrize("name, share", [("meamed", lambda n, f: 2 * f / (n - f)), ("bulyan", lambda n, f: 2)])
def test_means_around_the_median_are_near_every_honest_set(name, share):
    """Coordinate by coordinate: the median lies in the honest range, and all values that are averaged within its length of the median.

    For the mean around the median, at most f of them replace honest ones: 2f/(n-f) of that length."""

    @settings(max_examples=80, deadline=None)
    @given(attacked(RULES[name].times, RULES[name].plus))
    def holds(case):
        V, f = case
        sets = subsets(V, f)
        error = np.abs(run(name, V, f) - sets.mean(1))
        assert (error <= share(len(V), f) * np.ptp(sets, axis=1) + rounding(V)).all()

    holds()


@pytest.mark.parametrize("name", ["median", "weighted_median", "trimmed_mean"])
def test_coordinates_stay_in_the_range_of_every_honest_set(name):
    @settings(max_examples=60, deadline=None)
    @given(attacked())
    def holds(case):
        V, f = case
        sets, R = subsets(V, f), run(name, V, f)
        assert (sets.min(1) - rounding(V) <= R).all() and (R <= sets.max(1) + rounding(V)).all()

    holds()


@pytest.mark.parametrize("name", ["krum", "krum byzfl"])
def test_krum_gives_one_of_the_messages(name):
    @settings(max_examples=40, deadline=None)
    @given(attacked(RULES[name].times, RULES[name].plus))
    def holds(case):
        V, f = case
        assert (V == run(name, V, f)).all(axis=1).any()

    holds()


HULL = ["multi_krum", "mda", "geometric_median", "caf", "monna", "bucketing mean", *(f"nnm {name}" for name in NNM if "krum" in name)]


@pytest.mark.parametrize("name", HULL)
def test_the_aggregate_is_a_mixture_of_the_messages(name):
    """There are weights of sum 1, none negative, with which they give it."""

    @settings(max_examples=40, deadline=None)
    @given(attacked(RULES[name].times, RULES[name].plus))
    def holds(case):
        V, f = case
        R, scale = run(name, V, f), np.abs(V).max() + 1
        system = np.vstack([V.T / scale, np.ones(len(V))])
        assert nnls(system, np.append(R / scale, 1))[1] < 1e-8

    holds()


@settings(max_examples=60, deadline=None)
@given(attacked())
def test_clipping_bounds_what_anybody_can_do(case):
    """One client moves norm bounding by at most 2C/n, clipping twice to a radius C ends within 2C, FLTrust is no longer than its root."""
    V, f = case
    other = np.vstack([V[:-1], -1e6 * np.ones((1, WIDTH))])
    moved = run("norm_bounding", V, f) - run("norm_bounding", other, f)
    assert np.linalg.norm(moved) <= 2 * 2.0 / len(V) + 1e-9
    assert np.linalg.norm(run("centered_clipping", V, f)) <= 2 * 2.0 + 1e-9
    assert np.linalg.norm(run("fltrust", V, f)) <= np.linalg.norm(V[0]) + 1e-9
    assert set(np.unique(run("sign_majority", V, f))) <= {-1.0, 0.0, 1.0}


# Symmetries; for messages without ties, where the order of the slots decides


def generic(n, f, scale=30.0):
    """Honest messages and, last, f far ones."""
    V = np.random.default_rng([n, f, 5]).normal(size=(n, WIDTH))
    V[n - f :] *= scale
    return V


def assert_same(actual, expected, *case):
    np.testing.assert_allclose(actual, expected, 1e-7, 1e-7, err_msg=str(case))


WITH_ROOT = "fltrust", "monna"  # the trusted client is in slot 0
MEAN_AT_ZERO = "trimmed_mean", "meamed", "multi_krum", "bulyan", "mda", "caf", "arc mean", "bucketing mean", *map("nnm {}".format, NNM)
NOT_TRANSLATED = "centered_clipping", "norm_bounding", "sign_majority", "rlr", "fltrust", "arc mean"
NOT_SCALED = "centered_clipping", "norm_bounding", "sign_majority"
COORDINATES = "median", "weighted_median", "trimmed_mean", "meamed", "bulyan", "sign_majority", "rlr", "nnm median", "nnm trimmed_mean"
NOT_IDENTICAL = "centered_clipping", "norm_bounding", "sign_majority", "fltrust", "rlr"

each_rule = pytest.mark.parametrize("name", RULES)


@pytest.mark.parametrize("name", MEAN_AT_ZERO)
def test_without_byzantine_clients_it_is_the_mean(name):
    for n in range(RULES[name].plus, SLOTS + 1):
        V = generic(n, n // 3)
        assert_same(run(name, V, 0), V.mean(0), n)


def tied(name, n, f):
    """Where one neighbour counts, two messages that are each other's nearest have the same score, and the lower slot wins."""
    fewest = {"krum": n - f - 2, "krum byzfl": n - f - 1, "bulyan": f - 1 if f else n}
    return fewest.get(name, n) <= 1 and n > 1


@each_rule
def test_the_order_of_clients_does_not_matter(name):
    for _, n, f in fitting([name]):
        if tied(name, n, f):
            continue
        V, order = generic(n, f), np.random.default_rng(n).permutation(n)
        if name in WITH_ROOT:
            order = np.append(0, order[order != 0])
        assert_same(run(name, V[order], f), run(name, V, f), n, f)


@pytest.mark.parametrize("name", [name for name in RULES if name not in NOT_TRANSLATED])
def test_a_shift_of_all_shifts_the_aggregate(name):
    for _, n, f in fitting([name]):
        V, shift = generic(n, f), np.array([3.0, -20.0, 100.0])
        assert_same(run(name, V + shift, f), run(name, V, f) + shift, n, f)


@pytest.mark.parametrize("name", [name for name in RULES if name not in NOT_SCALED])
def test_a_scale_of_all_scales_the_aggregate(name):
    for _, n, f in fitting([name]):
        V = generic(n, f)
        for scale in (0.25, 37.0):  # the geometric median's smoothing stays, and shows at less than a thousandth
            assert_same(run(name, scale * V, f) / scale, run(name, V, f), n, f)


@pytest.mark.parametrize("name", [name for name in RULES if name not in COORDINATES])
def test_a_rotation_of_all_rotates_the_aggregate(name):
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(WIDTH, WIDTH)))[0]
    for _, n, f in fitting([name]):
        V = generic(n, f)
        assert_same(run(name, V @ turn, f), run(name, V, f) @ turn, n, f)


@pytest.mark.parametrize("name", [name for name in RULES if name not in NOT_IDENTICAL])
def test_equal_messages_give_that_message(name):
    one = np.array([0.1, -2.7, 1e5])
    for _, n, f in fitting([name]):
        np.testing.assert_allclose(run(name, np.tile(one, (n, 1)), f), one, 1e-12, err_msg=f"n={n} f={f}")
