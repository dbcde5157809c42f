"""Distributed differential privacy against exact distributions, Python's integers and the section's reference numbers."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import softmax_data, softmax_loss, softmax_params

import fedjax_lite as fl
from fedjax_lite.aggregators.distributed import SLACK, _granularity, _rounded, ddgauss, padded, skellam
from fedjax_lite.privacy import discrete
from fedjax_lite.privacy.discrete import ddgauss_divergence, epsilon_of, skellam_divergence, squared_norm_bound
from fedjax_lite.uplink.rotation import rotated_back

CLIENTS, DIMENSION = 5, 12  # of `stack`: rows of 8 and 4
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


# --- what a round gives away


@pytest.mark.parametrize(
    "granularity, gaussian, bessel", [(1e-3, 4.757868, 4.757871), (1e-2, 5.041728, 5.042081), (5e-2, 10.336691, 10.362060)]
)
def test_reference_epsilons(granularity, gaussian, bessel):
    for divergence, expected in ((ddgauss_divergence, gaussian), (skellam_divergence, bessel)):
        found = epsilon_of(lambda a, f=divergence: f(a, 1.0, 1.0, 100, granularity, 4096), rounds=1, delta=1e-5)
        assert round(found, 6) == expected


@pytest.mark.parametrize("rounds, delta", [(1, 1e-5), (10, 1e-6), (300, 1e-3), (1, 0.7)])
def test_epsilon_of_gaussian_noise_is_dp_accountings(rounds, delta):
    from dp_accounting import rdp

    orders = list(range(2, 257))
    for z in (0.5, 1.0, 50.0):
        oracle = rdp.compute_epsilon(orders, [rounds * a / (2 * z * z) for a in orders], delta)[0]
        assert epsilon_of(lambda a, z=z: a / (2 * z * z), rounds, delta) == pytest.approx(oracle, rel=1e-12, abs=1e-15)
    assert round(epsilon_of(lambda a: a / 2, 1, 1e-5), 6) == 4.752728
    assert epsilon_of(lambda a: a / 2, 0, 1e-5) == 0


@BOTH
def test_an_aggregators_divergence_is_the_functions_with_room_for_float32(kind):
    oracle = {ddgauss: ddgauss_divergence, skellam: skellam_divergence}[kind]
    found = kind(2.0, 0.7, 50, 4096, granularity=0.01).privacy
    assert found.noise_multiplier == 0.7
    assert found.divergence(8) == pytest.approx(oracle(8, 2.0, 0.7, 50, 0.01, 4096), rel=5e-5)
    assert found.divergence(8) > oracle(8, 2.0, 0.7, 50, 0.01, 4096)
    assert kind(2.0, 0.0, 50, 4096).privacy.divergence(2) == math.inf


# --- the samplers


def exact_gaussian(k, sigma):
    mass = np.exp(-np.square(k / sigma) / 2)
    return mass / mass.sum()


def exact_skellam(k, sigma):
    return scipy.special.ive(np.abs(k).astype(float), sigma**2)


SAMPLERS = {
    "gaussian": (discrete.discrete_gaussian, exact_gaussian),
    "skellam": (lambda key, shape, sigma: discrete.skellam(key, shape, sigma**2), exact_skellam),
}


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("sigma", [0.4, 1.0, 5.0, 8.0, 9.0, 60.0])
def test_samplers_against_the_exact_distribution(name, sigma):
    draw, mass = SAMPLERS[name]
    n = 200_000
    numbers = np.asarray(draw(jax.random.key(3), (n,), sigma))
    assert numbers.dtype == np.int32
    k = np.arange(-int(9 * sigma) - 9, int(9 * sigma) + 10)
    expected = n * mass(k, sigma)
    seen = np.bincount(numbers - k[0], minlength=len(k))
    often = expected >= 5
    pairs = [np.append(x[often], x[~often].sum()) for x in (seen, expected)]
    assert scipy.stats.chisquare(*pairs, sum_check=False).pvalue > 1e-3
    assert (numbers**2.0).mean() == pytest.approx((k**2 * expected).sum() / n, rel=0.02)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("sigma", [3000.0, 1e7])
def test_wide_noise(name, sigma):
    numbers = np.asarray(SAMPLERS[name][0](jax.random.key(3), (100_000,), sigma)) / sigma
    assert scipy.stats.kstest(numbers, "norm").pvalue > 1e-3
    assert numbers.std() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("sigma", [0.3, 1.0, 8.0, 8.1, 20.0, 150.0])
def test_the_error_of_the_distribution(name, sigma):
    """From its thresholds, exactly: the chance of a step, times that to keep a number of it, in words of 32 and 24 bits."""
    width, mu = discrete._width(jnp.float32(sigma)), jnp.float32(sigma**2)
    left = width * jnp.arange(discrete.CELLS)
    log_mass = partial(discrete._log_bessel, jnp.maximum(mu, 1)) if name == "skellam" else lambda k: -0.5 * jnp.square(k / sigma)
    steps = discrete._log_bessel_small(mu) if name == "skellam" and width == 1 else log_mass(left)
    limits = np.asarray(discrete._limits(width, steps), np.float64)[::-1] / 2**32
    step = -np.diff(limits, prepend=1, append=0)
    k = np.arange(discrete.CELLS * int(width))
    cell = k // int(width)
    kept = (
        np.ceil(np.asarray(jnp.exp(log_mass(jnp.asarray(k)) - log_mass(left[cell])), np.float64) * np.where(k == 0, 0.5, 1) * 2**24) / 2**24
    )
    mass = step[cell] * (kept if width > 1 else 1)
    assert mass.sum() / width > 0.9  # few numbers are drawn twice
    exact = SAMPLERS[name][1](np.arange(-k[-1], k[-1] + 1), sigma)[k[-1] :] * np.where(k == 0, 1, 2)
    assert np.abs(mass / mass.sum() - exact).sum() / 2 < 1e-6


# --- clients and server


@pytest.mark.parametrize("kind, bits", [(ddgauss, 5), (ddgauss, 16), (skellam, 5), (skellam, 32)])
def test_the_sum_is_that_of_pythons_integers_modulo_2_to_the_bits(kind, bits):
    messages, here = stack(scale=5.0), cohort()
    aggregator = kind(2.0, 0.5, CLIENTS, DIMENSION, bits, granularity=0.05, block=8)
    numbers = [signed(row) for row in sent(aggregator, messages, here, 3)]
    true = [sum(column) for column in zip(*numbers, strict=True)]
    modulo = [(sum(x % 2**bits for x in column) + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1) for column in zip(*numbers, strict=True)]
    mean, metrics = aggregate(aggregator, messages, here, 3)
    signs = jax.random.fold_in(jax.random.key(0xDD9), 3)
    rows = [np.reshape(modulo[:4], (1, 4)), np.reshape(modulo[4:], (1, 8))]
    for i, (x, like) in enumerate(zip(rows, jax.tree.leaves(messages), strict=True)):
        back = rotated_back(jax.random.fold_in(signs, i), jnp.asarray(x, jnp.float32), like[0]) * 0.05 / CLIENTS
        np.testing.assert_allclose(jax.tree.leaves(mean)[i], back, atol=1e-6 * (1 + np.abs(modulo).max() * 0.05))
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


def test_the_granularity_solves_the_papers_equation():
    for bits, n, d, z in ((16, 100, 4096, 1.0), (10, 7, 16, 0.0)):
        gamma = float(_granularity("ddgauss", 3.0, z, n, d, bits))
        assert 2**bits == pytest.approx(2 * 4 * math.sqrt((3 * n) ** 2 / d + (gamma**2 / 4 + (z * 3) ** 2 / n) * n) / gamma)


def test_what_is_refused():
    for wrong, said in (
        ({"clip": 0.0}, "clip must be positive"),
        ({"noise_multiplier": -1.0}, "noise_multiplier must be finite and not negative"),
        ({"clients_per_round": 0}, "clients_per_round must be a whole number"),
        ({"bits": 33}, "bits must be from 2 to 32, got 33"),
        ({"bits": 3, "clients_per_round": 10}, "does not fit in bits=3: take more bits"),
        ({"granularity": 0.0}, "granularity must be positive"),
        ({"block": 12}, "block must be a power of two"),
    ):
        with pytest.raises(ValueError, match=f"skellam: .*{said}"):
            skellam(**{"clip": 1.0, "noise_multiplier": 1.0, "clients_per_round": 5, "dimension": DIMENSION} | wrong)
    with pytest.raises(ValueError, match="ddgauss: dimension=9, but messages have 12 .*: take dimension=12"):
        ddgauss(1.0, 1.0, 5, 9, block=8).collect(stack(), cohort(), jnp.int32(0))
    assert padded(jax.tree.map(lambda x: x[0], stack()), 8) == 12
    with pytest.raises(ValueError, match="delta must be between 0 and 1"):
        epsilon_of(lambda a: a, 1, 1.0)
    with pytest.raises(ValueError, match="rounds must be at least 0"):
        epsilon_of(lambda a: a, -1, 0.1)
