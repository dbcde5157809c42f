"""The private mean: each line of its guarantees but the noise's, plain NumPy, and what it refuses."""

import math

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from clipped_means import CLIENTS, OWN, SIZES, flat, released, rows, stack

import fedjax_lite as fl
from fedjax_lite.aggregators import dp_mean
from fedjax_lite.clip import clipped, clipped_by_leaf, norm_of


def oracle(V, clip, divisor):
    return (V * np.minimum(1, clip / np.maximum(np.linalg.norm(V, axis=1), 1e-300))[:, None]).sum(0) / divisor


@pytest.mark.parametrize("clip", [0.1, 1.0, 100.0])
def test_without_noise_it_is_the_sum_of_what_was_clipped_by_a_fixed_divisor(clip):
    mean, metrics = released(stack(), clip, 0.0, 5.0)
    np.testing.assert_allclose(mean, oracle(rows(stack()), clip, 5), rtol=1e-5)
    cut = (np.linalg.norm(rows(stack()), axis=1) > clip).mean()
    np.testing.assert_allclose([metrics["clipped"], metrics["clip_norm"], metrics["noise_to_signal"]], [cut, clip, 0], atol=1e-6)


def test_each_leaf_can_be_cut_on_its_own():
    mean, _ = released(stack(), 1.0, 0.0, 5.0, way="by leaf")
    expected = {name: oracle(x.reshape(CLIENTS, -1), 1 / math.sqrt(2), 5) for name, x in stack().items()}
    np.testing.assert_allclose(mean, flat(expected), rtol=1e-5)


def test_by_leaf_a_message_counts_as_clipped_where_any_leaf_was_cut():
    message = jax.tree.map(np.zeros_like, stack())  # the limit of a leaf is 1 / sqrt(2)
    message["w"][:2, 0, 0], message["b"][1] = (0.9, 0.6), 0.6
    mean, metrics = released(message, 1.0, 0.0, 2.0, np.arange(CLIENTS) < 2, way="by leaf")
    assert float(metrics["clipped"]) == 0.5 and mean[1] == pytest.approx((math.sqrt(0.5) + 0.6) / 2, rel=1e-6)


@pytest.mark.parametrize("way, weights", [("examples", np.minimum(SIZES, 40) / 40), ("own", np.nan_to_num(OWN).clip(0, 1))])
def test_weights_are_capped_and_divide_by_nothing_but_the_fixed_number(way, weights):
    """Weights are in [0, 1], whatever is computed."""
    small, large = stack(scale=0.01), stack(scale=100.0)
    np.testing.assert_allclose(released(small, 1.0, 0.0, 2.5, way=way)[0], (weights @ rows(small)) / 2.5, rtol=1e-5, atol=1e-8)
    expected = oracle(weights[:, None] * rows(large), 1.0, 2.5)  # w_k m_k is what is clipped
    np.testing.assert_allclose(released(large, 1.0, 0.0, 2.5, way=way)[0], expected, rtol=1e-5, atol=1e-6)


# Guarantee 1

NUMBERS = st.floats(width=32, allow_nan=True, allow_infinity=True)


@hypothesis.given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=5), st.sampled_from([1e-3, 1.0, 50.0]), st.booleans())
@hypothesis.settings(deadline=None, max_examples=60)
def test_one_client_moves_the_sum_by_at_most_the_clip_norm(messages, clip, per_leaf):
    V, there = np.array(messages, np.float32), np.arange(CLIENTS) < len(messages)
    some = jax.tree.map(np.zeros_like, stack())
    some["w"][there, 1], some["b"][there] = V[:, :2], V[:, 2]

    def total(present):
        return released(some, clip, 0.0, 1.0, present, way="by leaf" if per_leaf else "uniform")[0]

    for i in range(len(V)):
        assert np.linalg.norm(total(there) - total(there & (np.arange(CLIENTS) != i))) <= clip * (1 + 1e-5 * len(V))


@jax.jit
def cut(message):
    """To a norm of 1, as a whole and by leaf, with the norm it had."""
    return clipped(message, 1.0), clipped_by_leaf(message, 1.0), norm_of(message)


def message_of(first, second, third):
    return {"a": np.array([first, second], np.float32), "b": np.float32(third)}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38, 3e20])
def test_a_message_that_is_not_finite_or_overflows_counts_within_the_bound(value):
    (short, norm), *_ = cut(message_of(value, 0.3, 0.4))
    finite = np.isfinite(value)
    np.testing.assert_allclose(flat(short), [0, 0, 0] if finite else [0, 0.3, 0.4], atol=1e-6)  # a norm that overflows: nothing is left
    assert np.isinf(norm) == finite


def test_short_messages_and_none_at_all_are_left_alone():
    for message in (message_of(0.3, 0.4, 0.0), message_of(0, 0, 0)):
        (whole, _), (by_leaf, _), norm = cut(message)
        np.testing.assert_array_equal(flat(whole), flat(message))
        np.testing.assert_array_equal(flat(by_leaf), flat(message))
        assert float(norm) == pytest.approx(np.linalg.norm(flat(message)))


# Guarantee 2


@pytest.mark.parametrize("present", [[0, 1, 2, 3, 4, 5, 6], [0, 3], []])
def test_the_divisor_is_not_who_came(present):
    messages, here = stack(scale=0.01), np.isin(np.arange(CLIENTS), present)
    spoilt = jax.tree.map(lambda x: np.where(here.reshape(-1, *[1] * (x.ndim - 1)), x, np.float32(np.nan)), messages)
    np.testing.assert_allclose(released(spoilt, 1.0, 0.0, 3.0, here)[0], here @ rows(messages) / 3, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clip": 0.0}, "clip must be positive and finite, got 0.0"),
        ({"clip": -1.0}, "clip must be positive"),
        ({"noise_multiplier": -0.5}, "noise_multiplier must be finite and not negative, got -0.5"),
        ({"clients_per_round": 0}, "clients_per_round must be positive"),
        ({"weights": "examples"}, 'weights="examples" needs cap'),
        ({"weights": "sizes"}, "weights must be"),
        ({"quantile": 1.0}, "quantile must be between 0 and 1, or None"),
        ({"quantile": 0.5, "noise_multiplier": 2.0, "bit_noise": 1.0}, r"bit_noise=1.0 must be above max.* = 1, .* leave it out for 4 at"),
        ({"quantile": 0.1, "noise_multiplier": 2.0, "bit_noise": 1.8}, r"bit_noise=1.8 must be above max.* = 1.8"),
        ({"clip_rate": 0.0}, "clip_rate must be positive"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        dp_mean(**({"clip": 1.0, "noise_multiplier": 1.0, "clients_per_round": 10.0} | arguments))


@pytest.mark.parametrize("around", [lambda inner: fl.aggregators.nnm(inner, 1), lambda inner: fl.aggregators.bucketing(inner, 2)])
def test_nothing_stands_before_it(around):
    with pytest.raises(ValueError, match="inner guarantees privacy for messages of one client each"):
        around(dp_mean(1.0, 1.0, 4.0))
