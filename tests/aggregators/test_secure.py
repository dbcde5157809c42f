"""The secure mean against Python's integers."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import fedjax_lite as fl
from fedjax_lite.aggregators.secure import fixed_point, leftover, masked, secure_mean

CLIENTS = 7
ALL = None, 0, 2, 4, 6, 100
EVERYONE, IDS = np.ones(CLIENTS), np.arange(CLIENTS)


def stack(clients=CLIENTS, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return {
        "b": np.asarray(rng.normal(size=clients) * scale, np.float32),
        "w": np.asarray(rng.normal(size=(clients, 3, 2)), np.float32),
    }


def cohort(ids, weight=None):
    return fl.sampling.cohort(jax.random.key(0), jnp.full(50, 10), jnp.asarray(ids), weight)


def aggregate(aggregator, messages, cohort, key):
    mean, _, metrics = aggregator.finish(aggregator.collect(messages, cohort, ()), (), jax.random.key(key))
    return mean, metrics


@functools.cache
def program(neighbors=None, fraction_bits=16, bits=32, bound=None):
    """Messages, weight, key, ids -> the mean and the metrics. Compiled once for each number of clients."""
    aggregator = secure_mean(bound, fraction_bits, bits, neighbors)
    return jax.jit(lambda messages, weight, key, ids: aggregate(aggregator, messages, cohort(ids, weight), key))


@functools.cache
def hidden(neighbors):
    """Whole numbers, ids, key -> what each sends."""
    return jax.jit(lambda numbers, ids, key: masked(numbers, ids, jax.random.key(key), neighbors))


def as_integers(messages, fraction_bits=16):
    """What each client sends as Python integers, `[clients][coordinate]`."""
    rows = np.concatenate([np.asarray(x, np.float64).reshape(len(x), -1) for x in jax.tree.leaves(messages)], axis=1)
    return [[int(x) for x in row] for row in np.round(rows * 2**fraction_bits)]


def flat(numbers):
    return np.concatenate([np.asarray(x).reshape(len(x), -1) for x in jax.tree.leaves(numbers)], axis=1)


def in_words(messages):
    """The same numbers, negative ones wrapped, in the shapes of the messages."""
    return jax.tree.map(lambda x: np.round(x.astype(np.float64) * 2**16).astype(np.int64).astype(np.uint32), messages)


def test_numbers_in_fixed_point_are_pythons():
    numbers, clipped = jax.jit(lambda messages: fixed_point(messages, 2**20, 16))(stack())
    jax.tree.map(np.testing.assert_array_equal, numbers, in_words(stack()))
    assert not clipped.any()


def with_deeper(ordinary, others):
    return [*ordinary, *(pytest.param(*values, marks=pytest.mark.deep) for values in others if values not in ordinary)]


# Six clients: also those half the way around the ring, whom both would meet.
RINGS = [(1, None), (2, None), (3, None), (3, 0), (6, None), (6, 2), (6, 4), (6, 6)]


@pytest.mark.parametrize("clients, neighbors", with_deeper(RINGS, itertools.product((2, 7), ALL)))
def test_masks_cancel_exactly_in_the_sum(clients, neighbors):
    messages = stack(clients)
    sent = flat(hidden(neighbors)(in_words(messages), np.arange(clients), 0))
    exact = as_integers(messages)
    for j in range(sent.shape[1]):
        assert sum(int(row[j]) for row in sent) % 2**32 == sum(row[j] for row in exact) % 2**32
    alone = (sent == flat(in_words(messages))).mean()
    assert alone == 1 if neighbors == 0 or clients == 1 else alone < 0.1


# Only the sum modulo 2^bits has to do with both masks and precisions.
MEANS = [*((neighbors, 32, 16) for neighbors in ALL), (None, 20, 12), (0, 32, 20), (0, 31, 0)]
GRID = [(neighbors, *precision) for neighbors in (None, 2, 4) for precision in ((32, 20), (20, 12), (31, 0))]


@pytest.mark.parametrize("neighbors, bits, fraction_bits", with_deeper(MEANS, GRID))
def test_the_mean_is_that_of_the_integers_of_those_present(neighbors, bits, fraction_bits):
    messages = stack(scale=10)
    for absent in ((), (0,), (2, 3, 6), (0, 1, 2, 4, 5, 6)):
        present = ~np.isin(IDS, absent)
        garbage = jax.tree.map(lambda x, here=present: np.where(here.reshape(-1, *[1] * (x.ndim - 1)), x, np.float32(np.nan)), messages)
        mean, metrics = program(neighbors, fraction_bits, bits)(garbage, present.astype(float), 1, IDS)
        rows = [row for k, row in enumerate(as_integers(messages, fraction_bits)) if k not in absent]
        expected = [sum(column) / (2**fraction_bits * len(rows)) for column in zip(*rows, strict=True)]
        found = np.concatenate([np.asarray(x).reshape(-1) for x in jax.tree.leaves(mean)])
        np.testing.assert_allclose(found, expected, rtol=1e-6, err_msg=str(absent))
        assert metrics["secure_overflow"] == 0


@pytest.mark.parametrize("neighbors", [None, 2])
def test_without_recovery_a_dropout_leaves_its_masks(neighbors):
    numbers = in_words(stack())
    sent = hidden(neighbors)(numbers, IDS, 0)
    left = jax.jit(lambda numbers: leftover(numbers, jnp.asarray(IDS), jnp.asarray(IDS != 2), jax.random.key(0), neighbors))(numbers)
    kept, true = (np.delete(flat(x), 2, axis=0).sum(0, dtype=np.uint32) for x in (sent, numbers))
    assert not (kept == true).any()
    np.testing.assert_array_equal(kept - np.concatenate([np.asarray(x).reshape(-1) for x in jax.tree.leaves(left)]), true)


@pytest.mark.parametrize("neighbors", [None, 2])
def test_one_masked_message_looks_uniform(neighbors):
    """All messages are the number 3; every byte of what one client sends is as likely as any other."""
    numbers = np.full((4, 30_000), 3, np.uint32)
    sent = jax.jit(lambda numbers: masked(numbers, jnp.array([9, 4, 30, 2]), jax.random.key(0), neighbors))(numbers)
    for row in np.asarray(sent):
        for byte in row.view(np.uint8).reshape(-1, 4).T:
            assert scipy.stats.chisquare(np.bincount(byte, minlength=256)).pvalue > 1e-4
    pairs = np.corrcoef(np.asarray(sent, np.float64))[np.triu_indices(4, 1)]
    assert (np.abs(pairs) < 0.03).sum() >= (2 if neighbors else 6) and len(np.unique(sent)) > 100_000


def test_two_clients_hide_all_bits():
    sent = np.asarray(jax.jit(lambda numbers: masked(numbers, jnp.array([5, 3]), jax.random.key(0)))(np.zeros((2, 20_000), np.uint32)))
    for bit in range(32):
        assert abs(((sent[0] >> bit) & 1).mean() - 0.5) < 0.02


@pytest.mark.deep
def test_masks_change_with_the_round_and_the_result_does_not():
    one, other = (flat(hidden(None)(in_words(stack()), IDS, key)) for key in range(2))
    assert (one != other).all()
    means = [program(neighbors)(stack(), EVERYONE, key, IDS)[0] for neighbors in (None, 0, 4) for key in (1, 2)]
    for mean in means[1:]:
        jax.tree.map(np.testing.assert_array_equal, mean, means[0])


def test_what_is_out_of_range_is_clipped_and_counted():
    messages = {"x": np.array([[1.0, 5.0, -7.0], [np.nan, np.inf, 0.5], [0.0, 0.0, 0.0], [9.0, 9.0, 9.0]], np.float32)}
    mean, metrics = program(0, bound=4.0)(messages, np.array([1.0, 1, 1, 0]), 1, np.arange(4))
    np.testing.assert_allclose(mean["x"], [1 / 3, 8 / 3, -3.5 / 3], rtol=1e-6)
    assert metrics["secure_overflow"] == 4


@pytest.mark.parametrize("clients", [1, 2, 3, 100])
def test_the_largest_messages_do_not_overflow(clients):
    """By default the range is all of the 32 bits, where rounding a bound up to a float would overflow."""
    for sign in (1, -1):
        messages = np.full((clients, 2), sign * 1e30, np.float32)
        mean, metrics = program(0)(messages, np.ones(clients), 1, np.arange(clients) % 50)
        np.testing.assert_allclose(mean, sign * (2**31 // clients) / 2**16, rtol=1e-6)
        assert metrics["secure_overflow"] == 2 * clients


def test_dtypes(x64):
    """Half precision becomes single, double stays."""
    messages = {dtype: stack()["w"].astype(dtype) for dtype in (jnp.bfloat16, jnp.float16, jnp.float64)}
    means = program(0)({dtype.__name__: x for dtype, x in messages.items()}, EVERYONE, 1, IDS)[0]
    for dtype, x in messages.items():
        assert means[dtype.__name__].dtype == jnp.promote_types(dtype, jnp.float32)
        np.testing.assert_allclose(means[dtype.__name__], x.astype(np.float64).mean(0), atol=2**-17)


def test_cohorts_that_do_not_fit_are_refused_when_traced():
    def fits(clients):
        aggregator = secure_mean(bound=8.0, fraction_bits=20, bits=32)
        jax.eval_shape(lambda messages: aggregate(aggregator, messages, cohort(np.arange(clients) % 50), 1), stack(clients))

    fits(255)
    with pytest.raises(ValueError, match=r"sum of 256 clients does not fit in bits=32 with bound=8.0 and fraction_bits=20.*lower bound"):
        fits(256)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"bound": 0.0}, "bound must be positive and finite.* got 0.0"),
        ({"bound": float("inf")}, "bound must be positive and finite"),
        ({"fraction_bits": 32}, "fraction_bits must be from 0 to 31, got 32"),
        ({"bits": 33}, "bits must be from 2 to 32, got 33"),
        ({"neighbors": 3}, "neighbors must be even .* got 3"),
        ({"neighbors": -2}, "neighbors must be an int of at least 0, got -2"),
        ({"fraction_bits": True}, "fraction_bits must be an int of at least 0, got True"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        secure_mean(**arguments)
