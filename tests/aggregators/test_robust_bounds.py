"""What robust rules promise, with hypothesis as the adversary: bounds that hold for every set of honest clients.

(f, kappa)-robust (Allouah et al. 2023, "Fixing by mixing"): for every set S of n-f of the n messages,
||R(V) - mean_S||^2 <= kappa * mean over S of ||V_i - mean_S||^2. The rule does not know S, so the bound holds for all of them.
"""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from robust_rules import (
    RULES,
    SLOTS,
    ratio,
)
from robust_trials import (
    each,
    fitting,
    keeping,
    of_rows,
)
from scipy.optimize import nnls

DIMENSION = 3


# The adversary


@st.composite
def attacked(draw, rule=None):
    """Messages of n-f honest clients and of f others who know them, and f."""
    times, plus = (rule and rule.times) or 2, rule.plus if rule else 1
    f = draw(st.integers(0, (SLOTS - plus) // times))
    n = draw(st.integers(max(times * f + plus, 2), SLOTS))
    numbers = st.integers(-640, 640).map(lambda x: x / 64)  # no subnormal numbers, and now and then two alike

    def messages(rows):
        return np.array(draw(st.lists(numbers, min_size=rows * DIMENSION, max_size=rows * DIMENSION))).reshape(rows, DIMENSION)

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
    spread = rng.normal(size=(n, DIMENSION))
    for scale in (1.0, 1e3, 1e6):
        yield np.vstack([np.zeros((n - f, DIMENSION)), np.tile(scale * far, (f, 1))])
        yield np.vstack([spread[f:], np.tile(scale * far, (f, 1))])
        yield np.vstack([spread[f:], scale * spread[:f]])
        yield np.vstack([spread[f:], scale * np.outer((-1.0) ** np.arange(f), far)])
    half = (n - f) // 2  # the honest ones are in two groups, and the others take one side or stand between
    for place in (0.0, 0.5, 1.0):
        yield np.vstack([np.zeros((half, DIMENSION)), np.ones((n - f - half, DIMENSION)), np.full((f, DIMENSION), place)])


def subsets(V, f):
    """The messages of every set of n-f clients: `[sets, n-f, d]`."""
    return V[np.array(list(combinations(range(len(V)), len(V) - f)))]


def rounding(V):
    """What double precision may be off by."""
    return 1e-9 * (1 + np.abs(V).max())


# (f, kappa)-robustness


each_with_a_bound = each([name for name, rule in RULES.items() if rule.kappa])
# A few examples of everything, many in the deeper tier.
at_length = pytest.mark.parametrize("examples", [15, pytest.param(60, marks=pytest.mark.deep)])


def excess(R, V, f, kappa):
    """By how much the bound is broken for the worst S; not positive where it holds."""
    sets = subsets(V, f)
    means = sets.mean(axis=1)
    variances = ((sets - means[:, None]) ** 2).sum(axis=2).mean(axis=1)
    return np.max(((R - means) ** 2).sum(axis=1) - kappa * variances) - rounding(V) ** 2


@at_length
@each_with_a_bound
def test_bound_on_the_error_over_every_honest_set(name, examples):
    @settings(max_examples=examples, deadline=None)
    @given(attacked(RULES[name]))
    def holds(case):
        V, f = case
        assert excess(of_rows(name, V, f), V, f, RULES[name].kappa(len(V), f)) <= 0

    holds()


@each_with_a_bound
def test_bound_in_the_bad_cases(name):
    for n, f in fitting(name):
        for number, V in enumerate(bad_cases(n, f)):
            assert excess(of_rows(name, V, f), V, f, RULES[name].kappa(n, f)) <= 0, (n, f, number)


def test_the_mean_breaks_every_bound():
    """So the bounds can be broken, and by these cases."""
    for n, f in fitting("mean"):
        if f:
            largest = max(rule.kappa(n, f) for rule in RULES.values() if rule.kappa and rule.withstands(n, f))
            assert max(excess(of_rows("mean", V, f), V, f, 1000 * largest) for V in bad_cases(n, f)) > 0


# A majority of n-f equal messages leaves no rule with a finite kappa a choice; then the error is f/(n-2f), which no rule can better.
@keeping("majority")
def test_a_majority_of_equal_messages_wins(name):
    for n, f in fitting(name):
        equal = np.array([0.3, -1.7, 2.0])
        for distance in (0.1, 1e3):
            V = np.vstack([np.tile(equal, (n - f, 1)), np.tile(equal + distance, (f, 1))])
            for order in (np.arange(n), np.arange(n)[::-1]):
                np.testing.assert_allclose(of_rows(name, V[order], f), equal, 1e-8, err_msg=f"n={n} f={f}")
        if f:
            assert excess(equal, V, f, 0.99 * ratio(n, f)) > 0


# Bounds by the spread of the honest set


@at_length
@each(["mda"])
def test_minimum_diameter_averaging_is_within_a_share_of_the_honest_diameter(name, examples):
    """||R(V) - mean_S|| <= 2f/(n-f) diam(S) (Farhadkhani et al. 2022, resilient averaging)."""

    @settings(max_examples=examples, deadline=None)
    @given(attacked())
    def holds(case):
        V, f = case
        R, sets = of_rows(name, V, f), subsets(V, f)
        diameters = np.sqrt(((sets[:, :, None] - sets[:, None]) ** 2).sum(-1)).max((1, 2))
        assert (np.linalg.norm(R - sets.mean(1), axis=1) <= 2 * f / (len(V) - f) * diameters + rounding(V)).all()

    holds()


@at_length
@each(["meamed", "bulyan"])
def test_means_around_the_median_are_near_every_honest_set(name, examples):
    """Coordinate by coordinate: the median lies in the honest range, and all values that are averaged within its length of the median.

    For the mean around the median, at most f of them replace honest ones: 2f/(n-f) of that length."""

    @settings(max_examples=examples, deadline=None)
    @given(attacked(RULES[name]))
    def holds(case):
        V, f = case
        sets = subsets(V, f)
        error = np.abs(of_rows(name, V, f) - sets.mean(1))
        share = 2 if name == "bulyan" else 2 * f / (len(V) - f)
        assert (error <= share * np.ptp(sets, axis=1) + rounding(V)).all()

    holds()


@at_length
@keeping("range")
def test_coordinates_stay_in_the_range_of_every_honest_set(name, examples):
    @settings(max_examples=examples, deadline=None)
    @given(attacked())
    def holds(case):
        V, f = case
        sets, R = subsets(V, f), of_rows(name, V, f)
        assert (sets.min(1) - rounding(V) <= R).all() and (R <= sets.max(1) + rounding(V)).all()

    holds()


@at_length
@each(["krum", "krum byzfl"])
def test_krum_gives_one_of_the_messages(name, examples):
    @settings(max_examples=examples, deadline=None)
    @given(attacked(RULES[name]))
    def holds(case):
        V, f = case
        assert (V == of_rows(name, V, f)).all(axis=1).any()

    holds()


@at_length
@keeping("hull")
def test_the_aggregate_is_a_mixture_of_the_messages(name, examples):
    """There are weights of sum 1, none negative, with which they give it."""

    @settings(max_examples=examples, deadline=None)
    @given(attacked(RULES[name]))
    def holds(case):
        V, f = case
        R, scale = of_rows(name, V, f), np.abs(V).max() + 1
        system = np.vstack([V.T / scale, np.ones(len(V))])
        assert nnls(system, np.append(R / scale, 1))[1] < 1e-8

    holds()


@at_length
def test_clipping_bounds_what_anybody_can_do(examples):
    """One client moves norm bounding by 2C/n at most, clipping three times to a radius C ends within 3C, FLTrust is as long as its root."""

    @settings(max_examples=examples, deadline=None)
    @given(attacked())
    def holds(case):
        V, f = case
        other = np.vstack([V[:-1], -1e6 * np.ones((1, DIMENSION))])
        moved = of_rows("norm_bounding", V, f) - of_rows("norm_bounding", other, f)
        assert np.linalg.norm(moved) <= 2 * 2.5 / len(V) + 1e-9
        assert np.linalg.norm(of_rows("centered_clipping 3", V, f)) <= 3 * 2.0 + 1e-9
        assert np.linalg.norm(of_rows("fltrust", V, f)) <= np.linalg.norm(V[0]) + 1e-9
        assert set(np.unique(of_rows("sign_majority", V, f))) <= {-0.5, 0.0, 0.5}

    holds()
