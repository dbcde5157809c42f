"""Rules by coordinate order that are passed NaN and infinity: NaN counts as more than infinity, whatever its sign, and is not lost."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_lite as fl
from fedjax_lite import aggregators

SLOTS = 6
RULES = {
    "median": aggregators.median("propagate"),
    "trimmed_mean": aggregators.trimmed_mean(1, "propagate"),
    "weighted_median": aggregators.weighted_median("uniform", "propagate"),
    "meamed 0": aggregators.meamed(0, "propagate"),
    "meamed 1": aggregators.meamed(1, "propagate"),
}
SIGNED = -np.float32(np.nan)  # as 0 / 0 and Inf - Inf give on x86


def ranked(values):
    """In order, NaN last."""
    return np.sort(np.abs(values) if np.isnan(values).all() else np.where(np.isnan(values), np.nan, values))


def meamed(values, f):
    middle = np.mean(ranked(values)[[(len(values) - 1) // 2, len(values) // 2]])
    far = np.abs(values - middle)
    nearest = np.argsort(far, kind="stable")[: len(values) - f]
    return np.nan if np.isnan(far[nearest]).any() else np.mean(values[nearest])  # which are nearest is not known


ORACLES = {
    "median": lambda V: np.mean(ranked(V)[[(len(V) - 1) // 2, len(V) // 2]]),
    "trimmed_mean": lambda V: np.mean(ranked(V)[1:-1]),
    "weighted_median": lambda V: ranked(V)[(len(V) - 1) // 2],
    "meamed 0": lambda V: meamed(V, 0),
    "meamed 1": lambda V: meamed(V, 1),
}


@functools.cache
def program(name):
    def run(values, present):
        cohort = fl.sampling.cohort(jax.random.key(0), jnp.ones(SLOTS, jnp.int32), jnp.arange(SLOTS), present)
        return RULES[name].finish(RULES[name].collect(values, cohort, ()), (), None)[0]

    return jax.jit(run)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_nan_is_the_largest_and_is_not_lost(name):
    nan, inf = np.float32(np.nan), np.float32(np.inf)
    assert np.signbit(SIGNED)
    for V in (
        [1, 2, nan, nan],
        [1, 2, nan],
        [1, 2, 3, SIGNED, SIGNED],
        [1, 2, 3, 4, SIGNED],
        [inf] * 5,
        [1, 2, inf, inf],
        [-inf, 1, 2, SIGNED],
        [nan, SIGNED, nan],
        [3, 1, nan, 2, 5, 4],
    ):
        values = np.full(SLOTS, 7, np.float32)
        values[: len(V)] = V
        found = float(program(name)(values, (np.arange(SLOTS) < len(V)).astype(np.float32)))
        np.testing.assert_allclose(found, ORACLES[name](np.array(V, np.float32)), rtol=1e-6, err_msg=f"{name} of {V}")
