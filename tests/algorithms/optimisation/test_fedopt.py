"""The adaptive servers: the paper's equations and the two other conventions in use, against NumPy."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_lite as fl

B1, B2, TAU, RATE = 0.9, 0.99, 1e-3, 0.1
GRADIENTS = np.random.default_rng(0).normal(size=(5, 4)) * np.array([1.0, 1e-3, 0.0, 30.0])
OPTAX = {"fedadagrad": 0.0, "fedadam": B1, "fedyogi": B1}


def by_hand(name, convention):
    """What the rule makes of the gradients, step by step."""
    b1 = OPTAX[name]
    m, v, found = np.zeros(4), np.full(4, TAU**2 if convention == "paper" else 0.0), []
    for t, g in enumerate(GRADIENTS, start=1):
        m, square = b1 * m + (1 - b1) * g, g**2
        v = {"fedadagrad": v + square, "fedadam": B2 * v + (1 - B2) * square, "fedyogi": v - (1 - B2) * square * np.sign(v - square)}[name]
        scale = np.sqrt(1 - B2**t) / (1 - b1**t) if convention == "keras" and name != "fedadagrad" else 1.0
        found.append(scale * m / (np.sqrt(v) + TAU))
    return found


@pytest.mark.parametrize("convention", ["paper", "keras", "flower"])
@pytest.mark.parametrize("name", OPTAX)
def test_a_rule_is_its_equations(name, convention, x64):
    rule = getattr(fl.algorithms, f"scale_by_{name}")(tau=TAU, convention=convention)
    state = rule.init(jnp.zeros(4))
    for g, expected in zip(GRADIENTS, by_hand(name, convention), strict=True):
        update, state = rule.update(jnp.asarray(g), state)
        np.testing.assert_allclose(update, expected, rtol=1e-12, atol=1e-300)
        assert update[2] == 0  # a coordinate without a gradient stays where it is


@pytest.mark.parametrize(("name", "expected"), [("fedadam", 0.3891), ("fedyogi", 0.3880)])
def test_three_steps_along_a_constant_gradient(name, expected, x64):
    """Where optax's adam goes 0.2997 and its yogi 0.2989."""
    rule = getattr(fl.algorithms, f"scale_by_{name}")(tau=TAU)
    state, moved = rule.init(jnp.zeros(())), 0.0
    for _ in range(3):
        update, state = rule.update(jnp.ones(()), state)
        moved += RATE * float(update)
    assert round(moved, 4) == expected


def test_half_precision_stays():
    rule = fl.algorithms.scale_by_fedadam()
    params = jnp.ones(3, jnp.bfloat16)
    update, state = rule.update(params, rule.init(params))
    assert update.dtype == state.m.dtype == state.v.dtype == jnp.bfloat16


def test_a_moment_without_its_number_is_refused():
    """None is not "without": FedAdagrad alone has no b2, and no such argument."""
    with pytest.raises(ValueError, match=r"fedadam: b2 must be in \[0, 1\), got None"):
        inspect.unwrap(fl.algorithms.scale_by_fedadam)(b2=None)
