"""Distributed differential privacy: what clients send and the server makes of it, against Python's integers; its noise."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from distributed_sums import CLIENTS, DIMENSION, EVERYONE, ROUNDS, assert_same_bits, collected, flat, means, server, signed, stack
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import softmax_data, softmax_loss, softmax_params

import fedjax_lite as fl
from fedjax_lite.aggregators.distributed import _rounded, ddgauss, skellam
from fedjax_lite.aggregators.granularity import SLACK
from fedjax_lite.privacy.discrete import squared_norm_bound
from fedjax_lite.uplink.rotation import rotated_back

NOTHING = jax.tree.map(np.zeros_like, stack())


@functools.cache
def rotation_back(state):
    signs = jax.random.fold_in(jax.random.key(0xDD9), state)
    return jax.jit(lambda blocks: rotated_back(signs, blocks, blocks))


@pytest.mark.parametrize("kind, bits", [(ddgauss, 5), (ddgauss, 16), (skellam, 5), (skellam, 32)])
def test_the_sum_is_that_of_pythons_integers_modulo_2_to_the_bits(kind, bits):
    messages, arguments = stack(scale=5.0), dict(state=3, clip=2.0, z=0.5, gamma=0.05)
    numbers = [signed(collected(kind, messages, np.arange(CLIENTS) == k, **arguments)[0][0]) for k in range(CLIENTS)]
    true = [sum(column) for column in zip(*numbers, strict=True)]
    modulo = [(sum(x % 2**bits for x in column) + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1) for column in zip(*numbers, strict=True)]
    mean, after, metrics = server(bits)(collected(kind, messages, **arguments), np.int32(3), 0.05)
    expected = np.zeros(16)
    for i, block in enumerate(rotation_back(3)(np.asarray(np.reshape(modulo, (2, 8)), np.float32))):
        expected[i::2] = np.asarray(block) * 0.05 / CLIENTS
    np.testing.assert_allclose(flat(mean), expected[:9], atol=1e-6 * (1 + np.abs(modulo).max() * 0.05))
    assert float(metrics["wrapped"]) == pytest.approx(np.mean([x != y for x, y in zip(true, modulo, strict=True)]))
    assert (metrics["wrapped"] > 0) == (bits == 5) and after == 4


in_batches = pytest.mark.parametrize("kind", [ddgauss, pytest.param(skellam, marks=pytest.mark.deep)])


@pytest.mark.deep
@in_batches
def test_the_mean_has_no_bias_and_the_error_of_its_noise(kind):
    gamma, z = 0.5, 0.3
    errors = means(kind, stack(), EVERYONE, 10.0, z, gamma) - flat(jax.tree.map(lambda x: x.mean(0), stack()))
    noise = z * 10 / CLIENTS
    rounding = gamma / 2 / math.sqrt(CLIENTS)  # the most it may be
    assert np.abs(errors.mean(0)).max() < 4.5 * math.hypot(noise, rounding) / math.sqrt(ROUNDS)
    assert 0.97 * noise < errors.std() < 1.03 * math.hypot(noise, rounding)


@pytest.mark.deep
@in_batches
@pytest.mark.parametrize("present", [5, 2, 0])
def test_the_noise_is_each_present_clients_share_and_new_in_each_round(kind, present):
    noise = means(kind, NOTHING, np.arange(CLIENTS) < present, 2.0, 1.5, 0.001)
    assert CLIENTS * np.std(noise) == pytest.approx(1.5 * 2.0 * math.sqrt(present / CLIENTS), rel=0.03)
    if present:
        pairs = np.corrcoef(np.concatenate([noise[:-1], noise[1:]], axis=1).T)  # coordinates, one round and the next
        assert np.abs(pairs - np.eye(len(pairs))).max() < 5 / math.sqrt(ROUNDS)


@pytest.mark.parametrize("kind", [ddgauss, skellam])
def test_each_upload_has_its_share_of_the_noise(kind):
    """Of one client, and of two, whose noise is apart: each round's 16 numbers are of the variance (z C / gamma)^2 / n a client."""
    for present in ([3], [1, 4]):
        slots = np.isin(np.arange(CLIENTS), present)
        drawn = [signed(collected(kind, NOTHING, slots, clip=2.0, z=1.5, gamma=0.001, key=key)[0][0]) for key in range(60)]
        assert np.square(drawn).mean() == pytest.approx(len(present) * (1.5 * 2.0 / 0.001) ** 2 / CLIENTS, rel=0.2)  # 4.4 deviations


@in_batches
def test_a_study_over_noise_multipliers(kind):
    zs = [0.0, 0.5, 2.0]
    together = means(kind, stack(), EVERYONE, 1.0, zs, 0.01, state=7)
    for i, z in enumerate(zs):
        alone = server(16)(collected(kind, stack(), state=7, z=z, key=7), np.int32(7), 0.01)[0]
        np.testing.assert_allclose(together[i], flat(alone), atol=2e-3)


NUMBERS = st.floats(width=32) | st.sampled_from([0.0, 1.0, -1.0, math.nan, math.inf, -math.inf, 3e38, 1e-40])


@pytest.mark.parametrize("granularity", [3.0, 0.5, 1e-4])
def test_no_message_moves_the_sum_by_more_than_the_bound(granularity):
    bound = squared_norm_bound((1 + SLACK) / granularity, DIMENSION)

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(st.lists(NUMBERS, min_size=9, max_size=9), st.integers(0, 1000))
    def holds(numbers, key):
        messages, V = stack(), np.array(numbers, np.float32)
        messages["b"][0], messages["w"][0] = V[:3], V[3:].reshape(3, 2)
        total = collected(ddgauss, messages, np.arange(CLIENTS) == 0, key, z=0.0, gamma=granularity, key=key)[0][0]
        assert sum(x * x for x in signed(total)) <= bound

    holds()


def test_rounding_is_repeated_until_the_norm_is_within_the_bound_or_goes_toward_zero():
    """Of (0.35, 0.35) both go up once in eight; 2 is above the bound 1.96, which is that of C / gamma = 1/2 in two dimensions."""
    program = jax.jit(jax.vmap(lambda key, numbers, bound: _rounded(jax.random.key(key), numbers, bound), (0, None, None)))
    bound, up = squared_norm_bound((1 + SLACK) / 2, 2), 1 / math.sqrt(8)
    assert 1.9 < bound < 2
    found = np.square(program(np.arange(2000), np.array([up, up, 0, 0], np.float32), bound)).sum(axis=1)
    assert set(found.tolist()) == {0, 1}
    assert found.mean() == pytest.approx(2 * up * (1 - up) / (1 - up**2), abs=0.04)
    never = program(np.arange(2000), np.array([1.7, -2.3, 0.4, 7e9], np.float32), 0.0)
    assert (np.asarray(never) == [1, -2, 0, 2**30]).all()


def test_the_order_and_the_grouping_of_clients_do_not_change_a_bit():
    whole = collected(ddgauss, stack(), state=2, z=1.0)
    assert_same_bits(whole, collected(ddgauss, stack(), state=2, z=1.0, order=[4, 0, 3, 1, 2]))
    parts = [collected(ddgauss, stack(), np.isin(np.arange(CLIENTS), group), 2, z=1.0) for group in ([4, 0], [3, 1], [2])]
    assert_same_bits(whole, jax.tree.map(lambda *x: functools.reduce(np.add, map(np.asarray, x)), *parts))


def test_empty_slots_do_not_matter():
    some, kept = np.array([1.0, 0.0, 2.0, 0.0, 1.0]), [0, 2, 4]
    garbage = jax.tree.map(np.array, stack())
    for leaf in garbage.values():
        leaf[[1, 3]] = np.nan
    found = collected(skellam, garbage, some)
    one_by_one = [collected(skellam, stack(), np.arange(CLIENTS) == k) for k in kept]
    assert_same_bits(found, jax.tree.map(lambda *x: functools.reduce(np.add, map(np.asarray, x)), *one_by_one))
    nobody, _, metrics = server(16)(collected(skellam, garbage, 0 * some), np.int32(0), 0.01)
    assert not flat(nobody).any() and metrics["clipped"] == 0 and metrics["wrapped"] == 0


TRAINED: dict = {}  # by the first engine


@pytest.mark.deep
@pytest.mark.parametrize("engine", [fl.packed(2), fl.padded()])
def test_engines_and_jit_give_the_same_noise(engine):
    """The models differ by the rounding of local training, which moves few numbers to their neighbour."""
    data, params = softmax_data(), jnp.asarray(softmax_params(), jnp.float32)
    built = fl.federate(
        fl.sgd_work(softmax_loss, optax.sgd(0.1)),
        ddgauss(1.0, 1.0, 7, 32, granularity=1e-4),
        fl.optimizer_server(optax.sgd(1.0)),
        batches=fl.Batches(4),
        population=7,
        engine=engine,
    )
    state, _ = jax.jit(built.round)(built.init(params, jax.random.key(0)), data, fl.sampling.everyone()(jax.random.key(0), data.size, 0))
    np.testing.assert_allclose(built.params(state), TRAINED.setdefault("params", built.params(state)), atol=1e-3)
    assert state.aggregator == 1 and np.abs(built.params(state) - params).max() > 0.1
