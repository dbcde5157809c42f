"""Distributed differential privacy: what clients send and what the server makes of it, against Python's integers."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import softmax_data, softmax_loss, softmax_params

import fedjax_lite as fl
from fedjax_lite.aggregators.distributed import SLACK, _granularity, _rounded, ddgauss, padded, skellam
from fedjax_lite.privacy.discrete import ddgauss_divergence, skellam_divergence, squared_norm_bound
from fedjax_lite.uplink.rotation import rotated_back

CLIENTS, DIMENSION = 5, 16  # of `stack`: 9 coordinates, in two blocks of 8
BOTH = pytest.mark.parametrize("kind", [ddgauss, skellam])


def stack(clients=CLIENTS, scale=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "b": jnp.asarray(rng.normal(size=(clients, 3)) * scale, jnp.float32),
        "w": jnp.asarray(rng.normal(size=(clients, 3, 2)), jnp.float32),
    }


def cohort(clients=CLIENTS, weight=None, key=0):
    return fl.sampling.cohort(jax.random.key(key), jnp.full(5000, 10), jnp.arange(clients), weight)


def aggregate(aggregator, messages, cohort, state=0):
    state = jnp.int32(state)
    mean, after, metrics = jax.jit(lambda *args: aggregator.finish(aggregator.collect(*args), args[2], jax.random.key(1)))(
        messages, cohort, state
    )
    assert after == state + 1
    return mean, metrics


def flat(tree):
    return np.concatenate([np.asarray(x, np.float64).reshape(-1) for x in jax.tree.leaves(tree)])


def sent(aggregator, messages, cohort, state=0):
    """What each client uploads, `[clients][coordinate]`, uint32."""
    collect = jax.jit(aggregator.collect)
    return [collect(*jax.tree.map(lambda x, k=k: x[k : k + 1], (messages, cohort)), jnp.int32(state))[0][0] for k in range(len(cohort.id))]


def signed(numbers, bits=32):
    return [(int(x) + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1) for x in np.asarray(numbers)]


@BOTH
def test_an_aggregators_divergence_is_the_functions_with_room_for_float32(kind):
    oracle = {ddgauss: ddgauss_divergence, skellam: skellam_divergence}[kind]
    found = kind(2.0, 0.7, 50, 4096, granularity=0.01).privacy
    assert found.noise_multiplier == 0.7
    assert found.divergence(8) == pytest.approx(oracle(8, 2.0, 0.7, 50, 0.01, 4096), rel=5e-5)
    assert found.divergence(8) > oracle(8, 2.0, 0.7, 50, 0.01, 4096)
    assert kind(2.0, 0.0, 50, 4096).privacy.divergence(2) == math.inf


@pytest.mark.parametrize("kind, bits", [(ddgauss, 5), (ddgauss, 16), (skellam, 5), (skellam, 32)])
def test_the_sum_is_that_of_pythons_integers_modulo_2_to_the_bits(kind, bits):
    messages, here = stack(scale=5.0), cohort()
    aggregator = kind(2.0, 0.5, CLIENTS, DIMENSION, bits, granularity=0.05, block=8)
    numbers = [signed(row) for row in sent(aggregator, messages, here, 3)]
    true = [sum(column) for column in zip(*numbers, strict=True)]
    modulo = [(sum(x % 2**bits for x in column) + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1) for column in zip(*numbers, strict=True)]
    mean, metrics = aggregate(aggregator, messages, here, 3)
    signs = jax.random.fold_in(jax.random.key(0xDD9), 3)
    blocks = jnp.asarray(np.reshape(modulo, (2, 8)), jnp.float32)
    expected = np.zeros(16)
    for i, block in enumerate(rotated_back(signs, blocks, blocks)):
        expected[i::2] = block * 0.05 / CLIENTS
    np.testing.assert_allclose(flat(mean), expected[:9], atol=1e-6 * (1 + np.abs(modulo).max() * 0.05))
    assert float(metrics["wrapped"]) == pytest.approx(np.mean([x != y for x, y in zip(true, modulo, strict=True)]))
    assert (metrics["wrapped"] > 0) == (bits == 5)


@BOTH
def test_the_mean_has_no_bias_and_the_error_of_its_noise(kind):
    messages, rounds, gamma, z = stack(), 1000, 0.5, 0.3
    aggregator = kind(10.0, z, CLIENTS, DIMENSION, granularity=gamma, block=8)

    def error(state):
        here = cohort()._replace(key=fl.base.client_keys(jax.random.fold_in(jax.random.key(0), state), jnp.arange(CLIENTS)))
        return aggregator.finish(aggregator.collect(messages, here, state), state, jax.random.key(1))[0]

    means = jax.jit(jax.vmap(error))(jnp.arange(rounds, dtype=jnp.int32))
    errors = jax.tree.map(lambda x, m: (x - jnp.mean(m, axis=0)[None]).reshape(rounds, -1), means, messages)
    errors = np.concatenate(jax.tree.leaves(errors), axis=1)
    noise = z * 10 / CLIENTS
    rounding = gamma / 2 / math.sqrt(CLIENTS)  # the most it may be
    assert np.abs(errors.mean(0)).max() < 4.5 * math.hypot(noise, rounding) / math.sqrt(rounds)
    assert 0.97 * noise < errors.std() < 1.03 * math.hypot(noise, rounding)


@pytest.mark.parametrize("kind, present", [(ddgauss, 100), (ddgauss, 25), (skellam, 25)])
def test_the_noise_is_each_present_clients_share(kind, present):
    aggregator = kind(2.0, 1.5, 100, 1024, granularity=0.01)
    mean, _ = aggregate(aggregator, jnp.zeros((100, 1024)), cohort(100, jnp.arange(100) < present))
    assert 100 * np.std(mean) == pytest.approx(1.5 * 2.0 * math.sqrt(present / 100), rel=0.08)
    again, _ = aggregate(aggregator, jnp.zeros((100, 1024)), cohort(100, key=1))
    assert not np.any(np.asarray(mean) == np.asarray(again))


NUMBERS = st.floats(width=32) | st.sampled_from([0.0, 1.0, -1.0, math.nan, math.inf, -math.inf, 3e38, 1e-40])


@pytest.mark.parametrize("granularity", [3.0, 0.5, 1e-4])
def test_no_message_moves_the_sum_by_more_than_the_bound(granularity):
    aggregator = ddgauss(1.0, 0.0, 1, 8, bits=32, granularity=granularity, block=4)
    collect = jax.jit(aggregator.collect)
    bound = squared_norm_bound((1 + SLACK) / granularity, 8)

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(st.lists(NUMBERS, min_size=7, max_size=7), st.integers(0, 1000))
    def holds(numbers, key):
        message = jnp.asarray(numbers, jnp.float32)[None]
        assert sum(x * x for x in signed(collect(message, cohort(1, key=key), jnp.int32(key))[0][0])) <= bound

    holds()


def test_rounding_is_repeated_until_the_norm_is_within_the_bound():
    """Of (0.35, 0.35) both go up once in eight; 2 is above the bound 1.96."""
    aggregator = skellam(1.0, 0.0, 1, 2, granularity=2.0)
    keys = jax.random.split(jax.random.key(0), 2000)

    def squared_norm(key):
        (total, _, _), _ = aggregator.collect(jnp.array([[1.0, 0.0]]), cohort(1)._replace(key=key[None]), jnp.int32(0))
        return jnp.sum(jnp.square(total.astype(jnp.int32)))

    found = np.asarray(jax.jit(jax.vmap(squared_norm))(keys))
    assert set(found.tolist()) == {0, 1}
    up = 1 / math.sqrt(8)
    assert found.mean() == pytest.approx(2 * up * (1 - up) / (1 - up**2), abs=0.04)


def test_rounding_that_cannot_meet_the_bound_goes_toward_zero():
    numbers = jnp.array([1.7, -2.3, 0.4, 7e9])
    assert _rounded(jax.random.key(0), numbers, 0.0).tolist() == [1, -2, 0, 2**30]


def test_the_order_and_the_grouping_of_clients_do_not_change_a_bit(kind=ddgauss):
    messages, here, state = stack(9), cohort(9), jnp.int32(2)
    aggregator = kind(1.0, 1.0, 9, DIMENSION, block=8)
    collect = jax.jit(aggregator.collect)
    whole = collect(messages, here, state)
    for groups in ([[8, 7, 6, 5, 4, 3, 2, 1, 0]], [[4, 0, 8], [3, 1, 2], [5, 6, 7]]):
        parts = [collect(*jax.tree.map(lambda x, g=g: x[jnp.array(g)], (messages, here)), state) for g in groups]
        total = jax.tree.map(lambda *x: sum(x[1:], x[0]), *parts)
        assert all((x == y).all() for x, y in zip(*map(jax.tree.leaves, (whole, total)), strict=True))


TRAINED: dict = {}  # by the first engine


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


def test_empty_slots_and_half_precision(kind=skellam):
    messages = jax.tree.map(lambda x: x.astype(jnp.float16), stack())
    weight = jnp.array([1.0, 0.0, 2.0, 0.0, 1.0])
    garbage = jax.tree.map(lambda x: x.at[jnp.array([1, 3])].set(jnp.nan), messages)
    aggregator = kind(1.0, 0.5, 3, DIMENSION, block=8)
    mean, metrics = aggregate(aggregator, garbage, cohort(weight=weight))
    kept = jax.tree.map(lambda x: x[jnp.array([0, 2, 4])], (messages, cohort()))
    expected, same = aggregate(aggregator, *kept)
    assert (flat(mean) == flat(expected)).all() and metrics == same
    assert {x.dtype for x in jax.tree.leaves(mean)} == {jnp.dtype("float32")}
    nobody, metrics = aggregate(aggregator, messages, cohort(weight=jnp.zeros(5)))
    assert not flat(nobody).any() and metrics["clipped"] == 0 and metrics["wrapped"] == 0


@BOTH
def test_one_client_of_one_number(kind):
    messages = jnp.array([-0.3])
    mean, metrics = aggregate(kind(1.0, 0.0, 1, 1), messages, cohort(1))
    assert mean.shape == () and float(mean) == pytest.approx(-0.3, abs=1e-3)
    assert metrics["clipped"] == 0 and metrics["clip_norm"] == 1
    assert aggregate(kind(0.1, 0.0, 1, 1), messages, cohort(1))[1]["clipped"] == 1


@pytest.mark.parametrize("kind, granularity", [(ddgauss, 0.01), (skellam, None)])
def test_a_study_over_noise_multipliers(kind, granularity):
    def study(z):
        aggregator, state = kind(1.0, z, CLIENTS, DIMENSION, granularity=granularity, block=8), jnp.int32(0)
        return aggregator.finish(aggregator.collect(stack(), cohort(), state), state, jax.random.key(1))[0]

    zs = [0.0, 0.5, 2.0]
    together = jax.jit(jax.vmap(study))(jnp.array(zs))
    for i, z in enumerate(zs):
        np.testing.assert_allclose(flat(jax.tree.map(lambda x, i=i: x[i], together)), flat(jax.jit(study)(z)), atol=2e-3)


def test_a_message_that_sits_in_one_leaf_is_spread_over_all_blocks():
    """It would leave the range in each of its coordinates, were leaves rotated alone: by n C / sqrt(64), of which n C / 4 is room."""
    message = {"a": np.random.default_rng(0).choice([-1.0, 1.0], (1, 64)), "b": np.zeros((1, 32, 30)), "c": np.zeros((1, 5))}
    messages = jax.tree.map(lambda x: jnp.repeat(jnp.asarray(x / 8, jnp.float32), 30, axis=0), message)
    dimension = padded(jax.tree.map(lambda x: x[0], messages), block=64)
    assert dimension == 17 * 64
    mean, metrics = aggregate(ddgauss(1.0, 0.0, 30, dimension, block=64), messages, cohort(30))
    assert metrics["wrapped"] == 0
    np.testing.assert_allclose(flat(mean), flat(message) / 8, atol=1e-3)


def test_padding_is_of_the_message_as_a_whole():
    for size, block, expected in ((1, 4096, 1), (9, 4096, 16), (4096, 4096, 4096), (4097, 4096, 8192), (23, 4, 24)):
        assert padded([jnp.zeros(()), jnp.zeros(size - 1)], block) == expected
    messages = [jnp.zeros((2, 22)), jnp.arange(2.0)]
    mean, _ = aggregate(ddgauss(5.0, 0.0, 2, 24, block=4), messages, cohort(2))
    assert mean[0].shape == (22,) and float(mean[1]) == pytest.approx(0.5, abs=0.01)


def test_the_granularity_solves_the_papers_equation():
    for bits, n, d, z in ((16, 100, 4096, 1.0), (10, 7, 16, 0.0)):
        gamma = float(_granularity("ddgauss", 3.0, z, n, d, bits))
        assert 2**bits == pytest.approx(2 * 4 * math.sqrt((3 * n) ** 2 / d + (gamma**2 / 4 + (z * 3) ** 2 / n) * n) / gamma)


@pytest.mark.parametrize("n, d, z", [(1, 4096, 1.0), (1, 10**7, 1e4), (3, 7, 0.3), (100, 64, 10.0)])
def test_the_default_granularity_leaves_noise_that_can_be_drawn(n, d, z):
    """Never more than 2^27 steps a client; where that is what limits it, no less than half of it."""
    ddgauss(2.0, z, n, d, bits=32)
    steps = z * 2.0 / (_granularity("ddgauss", 2.0, z, n, d, 32) * math.sqrt(n))
    assert steps <= 2**27
    assert n > 1 or steps > 2**26


def test_noise_and_messages_of_32_bits():
    """Of one client: the room for 4 standard deviations is then more than what a number may be before noise, and noise can be."""
    message = jnp.full((1, 4096), 1 / 64)
    for z, atol in ((0.0, 1e-8), (1.0, 6.0)):
        mean, metrics = aggregate(ddgauss(1.0, z, 1, 4096, bits=32), message, cohort(1))
        np.testing.assert_allclose(mean, message[0], atol=atol)
        assert np.std(mean) == pytest.approx(z, abs=0.05) and metrics["wrapped"] == 0


def test_what_is_refused():
    for wrong, said in (
        ({"clip": 0.0}, "clip must be positive"),
        ({"noise_multiplier": -1.0}, "noise_multiplier must be finite and not negative"),
        ({"clients_per_round": 0}, "clients_per_round must be a whole number"),
        ({"bits": 33}, "bits must be from 2 to 32, got 33"),
        ({"bits": True}, "bits must be a whole number of at least 0, got True"),
        ({"bits": 3, "clients_per_round": 10}, "does not fit in bits=3: take more bits"),
        ({"granularity": 0.0}, "granularity must be positive"),
        ({"granularity": 1e-9}, r"granularity=1e-09 is too fine for .* at least 3.33e-09, or leave it out, and bits=16 decide"),
        ({"block": 12}, "block must be a power of two"),
        ({"block": True}, "block must be a whole number of at least 1, got True"),
    ):
        with pytest.raises(ValueError, match=f"skellam: .*{said}"):
            skellam(**{"clip": 1.0, "noise_multiplier": 1.0, "clients_per_round": 5, "dimension": DIMENSION} | wrong)
    with pytest.raises(ValueError, match="ddgauss: dimension=9, but messages have 16 .*: take dimension=16"):
        ddgauss(1.0, 1.0, 5, 9, block=8).collect(stack(), cohort(), jnp.int32(0))
    with pytest.raises(ValueError, match="padded: block must be a whole number of at least 1, got True"):
        padded(jnp.zeros(3), True)
