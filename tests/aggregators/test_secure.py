"""The secure mean against Python's integers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import fedjax_lite as fl
from fedjax_lite.aggregators.secure import fixed_point, leftover, masked, secure_mean

CLIENTS = 7
NEIGHBORS = pytest.mark.parametrize("neighbors", [None, 0, 2, 4, 6, 100])


def stack(clients=CLIENTS, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return {
        "b": jnp.asarray(rng.normal(size=clients) * scale, jnp.float32),
        "w": jnp.asarray(rng.normal(size=(clients, 3, 2)), jnp.float32),
    }


def cohort(clients=CLIENTS, weight=None, ids=None):
    ids = jnp.arange(clients) if ids is None else jnp.asarray(ids)
    return fl.sampling.cohort(jax.random.key(0), jnp.full(50, 10), ids, weight)


def aggregate(aggregator, messages, cohort, key=1):
    mean, _, metrics = aggregator.finish(aggregator.collect(messages, cohort, ()), (), jax.random.key(key))
    return mean, metrics


def as_integers(messages, fraction_bits=16):
    """What each client sends as Python integers, `[clients][coordinate]`."""
    rows = np.concatenate([np.asarray(x, np.float64).reshape(len(x), -1) for x in jax.tree.leaves(messages)], axis=1)
    return [[int(x) for x in row] for row in np.round(rows * 2**fraction_bits)]


def flat(numbers):
    return np.concatenate([np.asarray(x).reshape(len(x), -1) for x in jax.tree.leaves(numbers)], axis=1)


@NEIGHBORS
@pytest.mark.parametrize("clients", [1, 2, 3, 6, 7])
def test_masks_cancel_exactly_in_the_sum(neighbors, clients):
    messages = stack(clients)
    numbers, clipped = fixed_point(messages, 2**20, 16)
    sent = flat(masked(numbers, jnp.arange(clients), jax.random.key(0), neighbors))
    exact = as_integers(messages)
    for j in range(sent.shape[1]):
        assert sum(int(row[j]) for row in sent) % 2**32 == sum(row[j] for row in exact) % 2**32
    assert not clipped.any()
    alone = (sent == flat(numbers)).mean()
    assert alone == 1 if neighbors == 0 or clients == 1 else alone < 0.1


@NEIGHBORS
@pytest.mark.parametrize("bits, fraction_bits", [(32, 16), (32, 20), (20, 12), (31, 0)])
@pytest.mark.parametrize("absent", [(), (0,), (2, 3, 6), (0, 1, 2, 4, 5, 6)])
def test_the_mean_is_that_of_the_integers_of_those_present(neighbors, bits, fraction_bits, absent):
    messages = stack(scale=10)
    weight = jnp.ones(CLIENTS).at[jnp.asarray(absent, jnp.int32)].set(0)
    garbage = jax.tree.map(lambda x: jnp.where((weight > 0).reshape(-1, *[1] * (x.ndim - 1)), x, jnp.nan), messages)
    mean, metrics = aggregate(secure_mean(None, fraction_bits, bits, neighbors), garbage, cohort(weight=weight))
    rows = [row for k, row in enumerate(as_integers(messages, fraction_bits)) if k not in absent]
    expected = [sum(column) / (2**fraction_bits * len(rows)) for column in zip(*rows, strict=True)]
    np.testing.assert_allclose(np.concatenate([np.asarray(x).reshape(-1) for x in jax.tree.leaves(mean)]), expected, rtol=1e-6)
    assert metrics["secure_overflow"] == 0


def test_without_recovery_a_dropout_leaves_its_masks():
    numbers, _ = fixed_point(stack(), 2**20, 16)
    present, key = jnp.arange(CLIENTS) != 2, jax.random.key(0)
    for neighbors in (None, 2):
        sent = masked(numbers, jnp.arange(CLIENTS), key, neighbors)
        left = leftover(numbers, jnp.arange(CLIENTS), present, key, neighbors)
        kept, true = (np.delete(flat(x), 2, axis=0).sum(0, dtype=np.uint32) for x in (sent, numbers))
        assert not (kept == true).any()
        left = np.concatenate([np.asarray(x).reshape(-1) for x in jax.tree.leaves(left)])
        np.testing.assert_array_equal(kept - left, true)


@pytest.mark.parametrize("neighbors", [None, 2])
def test_one_masked_message_looks_uniform(neighbors):
    """All messages are the number 3; every byte of what one client sends is as likely as any other."""
    numbers = jnp.full((4, 30_000), 3, jnp.uint32)
    sent = masked(numbers, jnp.array([9, 4, 30, 2]), jax.random.key(0), neighbors)
    for row in np.asarray(sent):
        for byte in row.view(np.uint8).reshape(-1, 4).T:
            assert scipy.stats.chisquare(np.bincount(byte, minlength=256)).pvalue > 1e-4
    pairs = np.corrcoef(np.asarray(sent, np.float64))[np.triu_indices(4, 1)]
    assert (np.abs(pairs) < 0.03).sum() >= (2 if neighbors else 6) and len(np.unique(sent)) > 100_000


def test_two_clients_hide_all_bits():
    sent = np.asarray(masked(jnp.zeros((2, 20_000), jnp.uint32), jnp.array([5, 3]), jax.random.key(0)))
    for bit in range(32):
        assert abs(((sent[0] >> bit) & 1).mean() - 0.5) < 0.02


def test_masks_change_with_the_round_and_the_result_does_not():
    numbers, ids = fixed_point(stack(), 2**20, 16)[0], jnp.arange(CLIENTS)
    one, other = (flat(masked(numbers, ids, jax.random.key(i))) for i in range(2))
    assert (one != other).all()
    means = [aggregate(secure_mean(neighbors=n), stack(), cohort(), key)[0] for n in (None, 0, 4) for key in (1, 2)]
    for mean in means[1:]:
        jax.tree.map(np.testing.assert_array_equal, mean, means[0])


def test_what_is_out_of_range_is_clipped_and_counted():
    messages = {"x": jnp.array([[1.0, 5.0, -7.0], [jnp.nan, jnp.inf, 0.5], [0.0, 0.0, 0.0], [9.0, 9.0, 9.0]])}
    mean, metrics = aggregate(secure_mean(bound=4.0), messages, cohort(4, jnp.array([1.0, 1, 1, 0])))
    np.testing.assert_allclose(mean["x"], [1 / 3, 8 / 3, -3.5 / 3], rtol=1e-6)
    assert metrics["secure_overflow"] == 4


@pytest.mark.parametrize("clients", [1, 2, 3, 100])
def test_the_largest_messages_do_not_overflow(clients):
    """By default the range is all of the 32 bits, where rounding a bound up to a float would overflow."""
    for sign in (1, -1):
        messages = jnp.full((clients, 2), sign * 1e30, jnp.float32)
        mean, metrics = aggregate(secure_mean(), messages, cohort(clients, ids=np.arange(clients) % 50))
        np.testing.assert_allclose(mean, sign * (2**31 // clients) / 2**16, rtol=1e-6)
        assert metrics["secure_overflow"] == 2 * clients


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float64])
def test_dtypes(dtype, x64):
    messages = jax.tree.map(lambda x: x.astype(dtype), stack())
    mean = aggregate(secure_mean(), messages, cohort())[0]
    assert mean["w"].dtype == jnp.promote_types(dtype, jnp.float32)
    np.testing.assert_allclose(mean["w"], np.asarray(messages["w"], np.float64).mean(0), atol=2**-17)


def test_cohorts_that_do_not_fit_are_refused_when_traced():
    aggregator = secure_mean(bound=8.0, fraction_bits=20, bits=32)
    jax.eval_shape(lambda m, c: aggregate(aggregator, m, c), stack(255), cohort(255, ids=np.arange(255) % 50))
    with pytest.raises(ValueError, match=r"sum of 256 clients does not fit in bits=32 with bound=8.0 and fraction_bits=20.*lower bound"):
        jax.eval_shape(lambda m, c: aggregate(aggregator, m, c), stack(256), cohort(256, ids=np.arange(256) % 50))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"bound": 0.0}, "bound must be positive and finite.* got 0.0"),
        ({"bound": float("inf")}, "bound must be positive and finite"),
        ({"fraction_bits": 32}, "fraction_bits must be from 0 to 31, got 32"),
        ({"bits": 33}, "bits must be from 2 to 32, got 33"),
        ({"neighbors": 3}, "neighbors must be even .* got 3"),
        ({"neighbors": -2}, "neighbors must be even .* got -2"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        secure_mean(**arguments)
