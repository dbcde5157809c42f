"""Per-example clipped gradients against a plain loop and jax-privacy, and their noise against its distribution."""

import math
import re
from functools import cache

import jax
import jax.numpy as jnp
import jax_privacy.clipping
import numpy as np
import optax
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import CLASSES, FEATURES, softmax_loss, softmax_params

import fedjax_lite as fl
from fedjax_lite import forms
from fedjax_lite.base import Batch, Mean
from fedjax_lite.models.loss_fn import mean_loss
from fedjax_lite.privacy.record_level import record_level
from fedjax_lite.streams import HIGH_STREAM

C, B, ROWS = 0.7, 8, 10
KEY = jax.random.key(0)


def a_batch(real=7, rows=ROWS, seed=0, fill=np.nan):
    """So many real examples, and masked rows of what `fill` is."""
    rng = np.random.default_rng(seed)
    x, y = 2 * rng.normal(size=(rows, FEATURES)), rng.integers(0, CLASSES, rows)
    x[real:] = fill
    return batch_of({"x": jnp.asarray(x), "y": jnp.asarray(y)}, np.arange(rows) < real)


def batch_of(examples, mask):
    return Batch(examples, jnp.asarray(mask), *[jnp.asarray(np.int32(0))] * 3)


def by_loop(params, batch, clip):
    """Each real example's gradient of softmax regression, cut, added up, over B."""
    W, total = np.asarray(params, np.float64), 0
    for x, y, real in zip(np.asarray(batch.examples["x"]), np.asarray(batch.examples["y"]), np.asarray(batch.mask), strict=True):
        if real:
            p = np.exp(x @ W) / np.exp(x @ W).sum()
            g = np.outer(x, p - np.eye(CLASSES)[y])
            total = total + g * min(1, clip / np.linalg.norm(g))
    return total / B


@cache
def program(loss, microbatch, at_once=False):
    """One program for all clip norms, multipliers, batches and keys; on a CPU row by row, or as elsewhere all rows at once."""

    def gradient(clip, z, params, batch, key):
        with pytest.MonkeyPatch.context() as patch:
            if at_once:
                patch.setattr(jax.lax, "platform_dependent", lambda *operands, cpu, default: default(*operands))
            return record_level(clip, z, B, microbatch)(loss, params, batch, key)

    return jax.jit(gradient)


def gradient_of(params, batch, loss=softmax_loss, key=KEY, clip=C, z=0.0, microbatch=None, at_once=False):
    return program(loss, microbatch, at_once)(clip, z, params, batch, key)


expected_loss = jax.jit(mean_loss, static_argnums=0)


@pytest.mark.parametrize("real", [0, 1, 7, ROWS])
@pytest.mark.parametrize("clip", [0.1, C, 100.0])
def test_it_is_the_loop_over_examples(x64, real, clip):
    params, batch = softmax_params(), a_batch(real)
    (loss, sums), gradient = gradient_of(params, batch, clip=clip)
    np.testing.assert_allclose(gradient, by_loop(params, batch, clip) * np.ones_like(params), rtol=1e-12, atol=1e-14)
    expected, expected_sums = expected_loss(softmax_loss, params, batch, KEY)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), (loss, sums), (expected, expected_sums))
    assert set(sums) == {"loss", "accuracy"} and float(sums["loss"].count) == real


@pytest.mark.filterwarnings("ignore:optax.global_norm is deprecated")
def test_it_is_what_jax_privacy_clips(x64):
    params, batch = softmax_params(), a_batch(ROWS)
    theirs = jax.jit(
        jax_privacy.clipping.clipped_grad(
            lambda params, batch: softmax_loss(params, batch, None)[0][0], l2_clip_norm=C, normalize_by=float(B), batch_argnums=1
        )
    )
    np.testing.assert_allclose(gradient_of(params, batch)[1], theirs(params, batch.examples), rtol=1e-12)


@pytest.mark.parametrize("microbatch", [1, 3, 5, 64])
@pytest.mark.parametrize("real", [7, ROWS])
def test_in_microbatches_and_row_by_row_it_is_the_same(x64, microbatch, real):
    params, batch = softmax_params(), a_batch(real)
    row_by_row, at_once = gradient_of(params, batch, z=1.0), gradient_of(params, batch, z=1.0, at_once=True)
    in_turn = gradient_of(params, batch, z=1.0, microbatch=microbatch, at_once=True)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), row_by_row, at_once)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), in_turn, at_once)


@pytest.mark.parametrize("lanes", [None, 5])
@pytest.mark.parametrize(
    ("platform", "microbatch", "held"), [("cpu", None, 1), ("cpu", 4, 1), ("tpu", None, 64), ("tpu", 4, 4)], ids=lambda x: str(x)
)
def test_a_program_holds_the_gradients_of_a_microbatch_and_on_a_cpu_of_one_example(lanes, platform, microbatch, held):
    def gradient(params, batch):
        loss = lambda params, batch, key: jnp.sum(jnp.tanh(batch["x"] @ params), axis=1)  # noqa: E731
        return record_level(C, 0.0, B, microbatch)(loss, params, batch, KEY)[1]

    operands = jnp.asarray(np.ones((3, 7), np.float32)), batch_of({"x": np.ones((64, 3), np.float32)}, np.ones(64, bool))
    if lanes:
        gradient, operands = jax.vmap(gradient), jax.tree.map(lambda x: np.stack([x] * lanes), operands)
    with forms.use("auto"):
        program = jax.jit(gradient).trace(*operands).lower(lowering_platforms=(platform,)).as_text()
    stacks = {tuple(map(int, shape.split("x"))) for shape in re.findall(r"tensor<([0-9x]+)x3x7xf32>", program)}
    assert max(shape[-1] for shape in stacks - {(lanes,)}) == held  # of gradients like the parameters


@pytest.mark.parametrize("microbatch", [None, 3])
def test_masked_rows_do_not_matter_whatever_they_hold(microbatch):
    params, found = softmax_params(), []
    for fill in (0.0, 1e30, np.inf, np.nan):
        found.append(gradient_of(params, a_batch(fill=fill), z=1.0, microbatch=microbatch))
    for other in found[1:]:
        jax.tree.map(np.testing.assert_array_equal, other, found[0])
    assert np.isfinite(found[0][1]).all()


def test_the_divisor_is_fixed():
    params, one = softmax_params(), a_batch(1)
    double = jax.tree.map(lambda x: np.asarray(x)[[0, 0, *range(2, ROWS)]], one.examples)
    twice = batch_of(double, np.arange(ROWS) < 2)
    np.testing.assert_allclose(gradient_of(params, twice)[1], 2 * gradient_of(params, one)[1], rtol=1e-6)


any_float = st.floats(width=32, allow_nan=True, allow_infinity=True, allow_subnormal=False)


@given(st.lists(any_float, min_size=FEATURES, max_size=FEATURES), st.integers(0, CLASSES - 1), st.integers(0, 6))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_example_moves_the_sum_by_at_most_the_clip_norm(x, y, row):
    params, batch = softmax_params(), a_batch()
    changed = {"x": np.array(batch.examples["x"]), "y": np.array(batch.examples["y"])}
    changed["x"][row], changed["y"][row] = x, y

    def gradient(examples, mask):
        return np.asarray(gradient_of(params, batch_of(jax.tree.map(jnp.asarray, examples), mask))[1], np.float64)

    other = gradient(changed, batch.mask)
    without = gradient(batch.examples, np.asarray(batch.mask) & (np.arange(ROWS) != row))
    assert np.linalg.norm(B * (other - without)) <= C * (1 + 1e-5)  # beside the sum's own rounding
    assert np.linalg.norm(B * (other - gradient(batch.examples, batch.mask))) <= 2 * C * (1 + 1e-5)


def test_coordinates_that_are_not_finite_count_as_zero():
    def loss(params, batch, key):  # the gradient of example i is its x, with what is not finite
        del key
        return jnp.sum(batch["x"] * params, axis=-1)

    x = np.array([[0.3, np.nan], [np.inf, 0.4], [3e38, 3e38]], np.float32)  # the norm of the last overflows
    batch = batch_of({"x": x}, np.ones(3, bool))
    with jax.numpy_rank_promotion("allow"):
        np.testing.assert_allclose(gradient_of(np.zeros(2, np.float32), batch, loss)[1], np.array([0.3, 0.4]) / B, rtol=1e-6)


def flat_loss(params, batch, key):
    """A loss without a slope."""
    del key
    return 0 * batch["x"][:, 0] * jnp.sum(params["w"]) * params["b"]


FLAT = {"b": np.zeros((), np.float32), "w": np.zeros((2, 2), np.float32)}
draws_of = jax.jit(jax.vmap(lambda key, batch: record_level(C, 1.5, B)(flat_loss, FLAT, batch, key)[1], (0, None)))


def noise_of(keys, real=7):
    drawn = draws_of(keys, a_batch(real, fill=0.0))
    return np.concatenate([np.asarray(x, np.float64).reshape(len(keys), -1) for x in jax.tree.leaves(drawn)], axis=1)


@pytest.mark.parametrize("real", [0, 7])
def test_noise_has_its_variance_in_each_coordinate_also_where_a_batch_is_short(real):
    draws, deviation = 20_000, 1.5 * C / B
    x = noise_of(jax.random.split(jax.random.key(2), draws), real=real)
    statistic = (x**2).sum(axis=0) / deviation**2
    p = 2 * np.minimum(scipy.stats.chi2.cdf(statistic, draws), scipy.stats.chi2.sf(statistic, draws))
    assert p.min() * x.shape[1] > 1e-3
    assert scipy.stats.kstest(x.reshape(-1), scipy.stats.norm(scale=deviation).cdf).pvalue > 1e-3
    correlation = np.abs(np.corrcoef(x.T) - np.eye(5))
    assert correlation.max() < scipy.stats.norm.isf(1e-3 / 50) / math.sqrt(draws)


def test_noise_is_independent_between_clients_rounds_and_steps():
    draws, root = 20_000, jax.random.key(3)

    @jax.jit
    def keys(round, step, first):
        clients = fl.streams.client_keys(jax.random.fold_in(root, round), first + jnp.arange(draws))
        return jax.vmap(jax.random.fold_in, (0, None))(clients, step)

    def at(round, step, first=0):
        return noise_of(keys(round, step, first))

    here = at(0, 0)
    for other in (at(1, 0), at(0, 1), at(0, 0, first=1)):
        correlation = (here * other).mean(axis=0) / (1.5 * C / B) ** 2
        assert np.abs(correlation).max() < scipy.stats.norm.isf(1e-3 / 30) / math.sqrt(draws)


@pytest.mark.deep
def test_noise_is_drawn_apart_from_the_loss_and_the_optimizer():
    mine = gradient_of({"b": np.zeros((), np.float32), "w": np.zeros(64, np.float32)}, a_batch(fill=0.0), flat_loss, z=B / C)[1]["w"]

    @jax.jit
    def others():
        keys = [KEY, *(jax.random.fold_in(KEY, i) for i in range(4)), jax.random.fold_in(KEY, HIGH_STREAM)]
        return [jax.random.normal(stream, 64) for key in keys for stream in (key, jax.random.fold_in(key, 0), jax.random.fold_in(key, 1))]

    assert all(abs(np.corrcoef(mine, other)[0, 1]) < 0.6 for other in others())


def test_each_example_has_its_own_loss_where_a_metric_counts_several_positions():
    def loss(params, batch, key):
        del key
        counts = batch["n"].astype(params.dtype)
        return Mean(counts * batch["x"] * params, counts), {"positions": counts, "part": Mean(batch["x"], counts)}

    x, n = np.array([0.5, -2.0, 0.25], np.float32), np.array([4, 2, 1], np.int32)
    batch = batch_of({"x": x, "n": n}, [True, True, False])
    (mean, sums), gradient = gradient_of(jnp.float32(2.0), batch, loss)
    assert float(gradient) == pytest.approx((0.5 - C) / B)  # the mean over its positions has the slope x
    expected = expected_loss(loss, jnp.float32(2.0), batch, KEY)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), (mean, sums), expected)


def test_half_precision_is_cut_in_float32_and_cast_back():
    params = softmax_params().astype(jnp.bfloat16)
    gradient = gradient_of(params, a_batch(), z=1.0)[1]
    assert gradient.dtype == jnp.bfloat16


@pytest.mark.deep
def test_the_multiplier_and_the_clip_norm_can_be_traced():
    params, batch, z = softmax_params(), a_batch(), np.array([0.5, 2.0], np.float32)
    swept = jax.jit(jax.vmap(lambda z: record_level(z, z, B)(softmax_loss, params, batch, KEY)[1]))(z)
    np.testing.assert_allclose(swept[0], gradient_of(params, batch, clip=0.5, z=0.5)[1], rtol=1e-5, atol=1e-6)
    known = jax.jit(record_level(2.0, 2.0, B), static_argnums=0)(softmax_loss, params, batch, KEY)[1]  # numbers that are checked
    np.testing.assert_allclose(swept[1], known, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((0.0, 1.0, 8), "clip must be positive"),
        ((1.0, -1.0, 8), "noise_multiplier must be finite and not negative"),
        ((1.0, 1.0, 0), "batch_size must be positive"),
        ((1.0, 1.0, 8, 0), "microbatch must be an int of at least 1, got 0"),
    ],
)
def test_refusals(arguments, error):
    with pytest.raises(ValueError, match=error):
        record_level(*arguments)


def test_a_step_is_the_noise_that_was_promised():
    """One step of one client, by hand: the message is the rate times minus the loop's gradient and the noise."""
    work = fl.sgd_work(softmax_loss, optax.sgd(1.0), gradients=record_level(C, 1.0, B))
    client = fl.Client(jnp.int32(0), jax.random.key(4), jnp.int32(7), jnp.int32(1), jnp.ones(()))
    shared, batch = fl.Shared(softmax_params()), a_batch()

    @jax.jit
    def message_and_noise():
        own = work.init(shared.params, None)
        carry, _ = work.step(shared, own, work.start(shared, own, client), batch._replace(client=client))
        key = jax.random.fold_in(jax.random.fold_in(client.key, 0), np.uint32(HIGH_STREAM + 1))
        return work.finish(shared, own, carry, client)[0], C * jax.random.normal(jax.random.fold_in(key, 0), (FEATURES, CLASSES))

    message, noise = message_and_noise()
    np.testing.assert_allclose(message, -by_loop(shared.params, batch, C) - noise / B, rtol=1e-4, atol=1e-6)
