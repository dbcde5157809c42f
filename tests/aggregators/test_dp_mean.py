"""The private mean: each line of its guarantees, plain NumPy, the adaptive clip norm, and what it does not go together with."""

import math

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from problems import SIZES, softmax_data, softmax_loss, softmax_params

import fedjax_lite as fl
from fedjax_lite.aggregators import dp_mean
from fedjax_lite.privacy.norms import clipped, clipped_by_leaf, norm_of, normal_like

KEY = jax.random.key(1)


def cohort_of(count, weight=None, sizes=None):
    sizes = jnp.full(count, 10, jnp.int32) if sizes is None else jnp.asarray(sizes, jnp.int32)
    return fl.sampling.cohort(jax.random.key(0), sizes, jnp.arange(count), weight)


def released(aggregator, messages, cohort=None, state=None, key=KEY):
    cohort = cohort_of(len(jax.tree.leaves(messages)[0])) if cohort is None else cohort
    state = aggregator.init(jax.tree.map(lambda x: x[0], messages)) if state is None else state
    return aggregator.finish(aggregator.collect(messages, cohort, state), state, key)


def messages_of(count, seed=0, scale=2.0):
    rng = np.random.default_rng(seed)
    return {
        "w": jnp.asarray(scale * rng.normal(size=(count, 3, 2)), jnp.float32),
        "b": jnp.asarray(scale * rng.normal(size=count), jnp.float32),
    }


def rows(messages):
    return np.concatenate([np.asarray(x, np.float64).reshape(len(x), -1) for x in jax.tree.leaves(messages)], axis=1)


def flat(message):
    return np.concatenate([np.asarray(x, np.float64).reshape(-1) for x in jax.tree.leaves(message)])


def oracle(V, clip, divisor):
    return (V * np.minimum(1, clip / np.maximum(np.linalg.norm(V, axis=1), 1e-300))[:, None]).sum(0) / divisor


@pytest.mark.parametrize("clip", [0.1, 1.0, 100.0])
def test_without_noise_it_is_the_sum_of_what_was_clipped_by_a_fixed_divisor(clip):
    messages = messages_of(7)
    mean, _, metrics = released(dp_mean(clip, 0.0, 5.0), messages)
    np.testing.assert_allclose(flat(mean), oracle(rows(messages), clip, 5), rtol=1e-5)
    cut = (np.linalg.norm(rows(messages), axis=1) > clip).mean()
    np.testing.assert_allclose([metrics["clipped"], metrics["clip_norm"], metrics["noise_to_signal"]], [cut, clip, 0], atol=1e-6)


def test_each_leaf_can_be_cut_on_its_own():
    messages = messages_of(7)
    mean, _, _ = released(dp_mean(1.0, 0.0, 5.0, per_leaf=True), messages)
    expected = {name: oracle(np.asarray(x).reshape(7, -1), 1 / math.sqrt(2), 5) for name, x in messages.items()}
    np.testing.assert_allclose(flat(mean), flat(expected), rtol=1e-5)


def test_weights_are_capped_and_divide_by_nothing_but_the_fixed_number():
    messages, sizes = messages_of(4, scale=0.01), [5, 20, 40, 80]
    mean, _, _ = released(dp_mean(1.0, 0.0, 2.5, weights="examples", cap=40), messages, cohort_of(4, sizes=sizes))
    np.testing.assert_allclose(flat(mean), (np.array([5, 20, 40, 40]) / 40 @ rows(messages)) / 2.5, rtol=1e-5)
    own = dp_mean(1.0, 0.0, 2.5, weights=jnp.array([0.5, -1.0, 7.0, jnp.nan]))  # in [0, 1], whatever is given
    np.testing.assert_allclose(flat(released(own, messages)[0]), (np.array([0.5, 0, 1, 0]) @ rows(messages)) / 2.5, rtol=1e-5)
    large = messages_of(4, scale=100.0)  # w_k m_k is what is clipped
    mean, _, _ = released(dp_mean(1.0, 0.0, 2.5, weights="examples", cap=40), large, cohort_of(4, sizes=sizes))
    np.testing.assert_allclose(flat(mean), oracle(rows(large), 1.0, 2.5), rtol=1e-5)


# Guarantee 1

NUMBERS = st.floats(width=32, allow_nan=True, allow_infinity=True)


@hypothesis.given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=5), st.sampled_from([1e-3, 1.0, 50.0]), st.booleans())
@hypothesis.settings(deadline=None, max_examples=60)
def test_one_client_moves_the_sum_by_at_most_the_clip_norm(messages, clip, per_leaf):
    V = np.array(messages, np.float32)
    stack = {"a": jnp.asarray(V[:, :2]), "b": jnp.asarray(V[:, 2])}
    aggregator = dp_mean(clip, 0.0, 1.0, per_leaf=per_leaf)
    present = np.ones(len(V))
    with_all = flat(aggregator.collect(stack, cohort_of(len(V), jnp.asarray(present)), ())[0])
    for i in range(len(V)):
        without = flat(aggregator.collect(stack, cohort_of(len(V), jnp.asarray(np.where(np.arange(len(V)) == i, 0, present))), ())[0])
        assert np.linalg.norm(with_all - without) <= clip * (1 + 1e-5 * len(V))


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf, -jnp.inf, 1e38, 3e20])
def test_a_message_that_is_not_finite_or_overflows_counts_within_the_bound(value):
    short, norm = clipped({"a": jnp.array([value, 0.3]), "b": jnp.array(0.4)}, 1.0)
    finite = bool(jnp.isfinite(value))
    np.testing.assert_allclose(flat(short), [0, 0, 0] if finite else [0, 0.3, 0.4], atol=1e-6)  # a norm that overflows: nothing is left
    assert bool(jnp.isinf(norm)) == finite


def test_short_messages_and_none_at_all_are_left_alone():
    message = {"a": jnp.array([0.3, 0.4]), "b": jnp.zeros(())}
    for cut in (clipped, clipped_by_leaf):
        np.testing.assert_array_equal(flat(cut(message, 1.0)[0]), flat(message))
        np.testing.assert_array_equal(flat(cut(jax.tree.map(jnp.zeros_like, message), 1.0)[0]), 0)
    assert norm_of(message).item() == pytest.approx(0.5)


# Guarantee 2


def test_the_divisor_is_not_who_came():
    messages, aggregator = messages_of(6, scale=0.01), dp_mean(1.0, 0.0, 3.0)
    for weight in ([1, 1, 1, 1, 1, 1], [1, 0, 0, 1, 0, 0], [0] * 6):
        spoilt = jax.tree.map(lambda x, w=weight: jnp.where(jnp.array(w).reshape(-1, *[1] * (x.ndim - 1)) > 0, x, jnp.nan), messages)
        mean, _, _ = released(aggregator, spoilt, cohort_of(6, jnp.array(weight, float)))
        np.testing.assert_allclose(flat(mean), np.array(weight) @ rows(messages) / 3, rtol=1e-5, atol=1e-9)


# Guarantees 3 and 4


def noise(aggregator, keys, messages=None, cohort=None):
    messages = jax.tree.map(jnp.zeros_like, messages_of(3)) if messages is None else messages
    draw = jax.jit(jax.vmap(lambda key: released(aggregator, messages, cohort, key=key)[0]))
    return rows(draw(keys))


@pytest.mark.parametrize("present", [1.0, 0.0])
def test_noise_has_its_variance_on_every_coordinate_and_is_independent(present):
    z, clip, divisor, draws = 0.7, 3.0, 11.0, 4000
    aggregator = dp_mean(clip, z, divisor)
    found = noise(aggregator, jax.random.split(KEY, draws), cohort=cohort_of(3, jnp.full(3, present))) / (z * clip / divisor)
    low, high = scipy.stats.chi2.ppf([1e-5, 1 - 1e-5], draws)
    assert ((found**2).sum(0) > low).all() and ((found**2).sum(0) < high).all()
    assert abs(found.mean(0)).max() < 5 / math.sqrt(draws)
    between = np.corrcoef(np.concatenate([found, np.roll(found, 1, axis=0)], axis=1).T)  # leaves, coordinates, one round and the next
    assert abs(between - np.eye(len(between))).max() < 5 / math.sqrt(draws)


def test_noise_does_not_depend_on_the_data():
    keys = jax.random.split(KEY, 3)
    V = messages_of(3, scale=0.01)
    with_data = noise(dp_mean(1.0, 1.0, 5.0), keys, V) - rows(V).sum(0) / 5
    np.testing.assert_allclose(with_data, noise(dp_mean(1.0, 1.0, 5.0), keys), atol=1e-6)


def trained(engine=None, aggregator=None, devices=1, rounds=3, sampler=None, server=None):
    aggregator = aggregator or dp_mean(0.5, 1.0, 4.0, quantile=0.5, bit_noise=2.0)
    algorithm = fl.federate(
        fl.sgd_work(softmax_loss, optax.sgd(0.1)), aggregator, server or fl.optimizer_server(optax.sgd(1.0)),
        batches=fl.Batches(4), population=len(SIZES), engine=engine,
    )  # fmt: skip
    sampler = sampler or fl.sampling.poisson(0.6)
    with jax.set_mesh(fl.engine.placement.mesh_of(jax.devices()[:devices])):
        return fl.simulate(algorithm, softmax_data(), softmax_params(), sampler, rounds=rounds, key=jax.random.key(3))


@pytest.mark.parametrize(("engine", "devices"), [(fl.packed(2), 1), (fl.sequential(), 1), (fl.padded(), 1), (fl.packed(), 4)])
def test_one_draw_for_the_aggregate_whatever_the_lanes_and_devices(engine, devices):
    state, history = trained()
    other, measured = trained(engine, devices=devices)
    np.testing.assert_allclose(flat(other.server), flat(state.server), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(measured["noise_to_signal"], history["noise_to_signal"], rtol=1e-4)


def test_noise_of_a_run_is_new_in_each_round_and_follows_the_clip_norm():
    """Clients that do not move: what is released in three rounds is noise alone, of z_v C_t / M with C_t that shrinks."""
    aggregator = dp_mean(0.5, 1.0, 4.0, quantile=1e-6, bit_noise=2.0, clip_rate=1.0)  # every norm is below C: it shrinks
    still = fl.federate(
        fl.sgd_work(softmax_loss, optax.sgd(0.0)), aggregator, fl.optimizer_server(optax.sgd(1.0)),
        batches=fl.Batches(4), population=len(SIZES),
    )  # fmt: skip

    def released(key):
        state, moves = still.init(softmax_params(), key), []
        for _ in range(3):
            before = still.params(state)
            state, history = fl.advance(still, softmax_data(), state, fl.sampling.everyone(), rounds=1)
            moves.append((still.params(state) - before).reshape(-1) / history["clip_norm"][0])
        return jnp.stack(moves), state.aggregator

    moves, last = (np.asarray(x) for x in jax.jit(jax.vmap(released))(jax.random.split(jax.random.key(5), 300)))
    deviation = 1 / math.sqrt(1 - 1 / 16) / 4  # (z^-2 - (2 sigma_b)^-2)^(-1/2) / M
    statistic = (moves / deviation) ** 2
    limits = scipy.stats.chi2.ppf([1e-4, 1 - 1e-4], statistic.shape[0] * statistic.shape[2])
    assert all(limits[0] < statistic[:, t].sum() < limits[1] for t in range(3))
    flat_moves = moves.reshape(len(moves), -1)
    correlation = np.corrcoef(flat_moves.T)[np.triu_indices(flat_moves.shape[1], 1)]
    assert np.abs(correlation).max() < 5.5 / math.sqrt(len(moves))  # between rounds and coordinates
    bits = np.log(last / 0.5)  # the sum of three noisy shares, against the noise of the sums
    assert max(abs(np.corrcoef(bits, flat_moves[:, i])[0, 1]) for i in range(flat_moves.shape[1])) < 5 / math.sqrt(len(moves))


def test_by_leaf_a_message_counts_as_clipped_where_any_leaf_was_cut():
    message = {"a": jnp.array([[0.9], [0.6]]), "b": jnp.array([[0.0], [0.6]])}  # the limit of a leaf is 1 / sqrt(2)
    aggregator = dp_mean(1.0, 0.0, 2.0, per_leaf=True)
    mean, _, metrics = released(aggregator, message, cohort_of(2))
    assert float(metrics["clipped"]) == 0.5 and float(mean["a"][0]) == pytest.approx((math.sqrt(0.5) + 0.6) / 2, rel=1e-6)


def test_a_round_without_clients_moves_the_model_by_noise_alone():
    nobody = fl.sampling.dropout(fl.sampling.uniform(3), 0.999999)
    state, history = trained(sampler=nobody, aggregator=dp_mean(0.5, 1.0, 4.0))
    assert history["clients"].tolist() == [0, 0, 0] and (history["update_norm"] > 0).all()
    plain, _ = trained(sampler=nobody, aggregator=fl.aggregators.mean())
    np.testing.assert_array_equal(flat(plain.server)[: softmax_params().size], flat(softmax_params()))


# Guarantee 5, and the quantile


def test_the_clip_norm_finds_the_quantile_of_the_norms():
    """1001 lognormal norms, no noise, from 0.1: after 10, 50 and 100 rounds as in the reference."""
    norms = np.random.default_rng(0).lognormal(size=1001).astype(np.float32)
    aggregator = dp_mean(0.1, 0.0, 1001.0, quantile=0.5, bit_noise=0.0)
    state, found = aggregator.init(jnp.zeros(())), []
    for _ in range(100):
        _, state, metrics = released(aggregator, jnp.asarray(norms), state=state)
        found.append(float(state))
    np.testing.assert_allclose([found[9], found[49], found[99]], [0.2549, 0.8871, 0.9287], atol=1e-4)
    assert float(metrics["clip_norm"]) == pytest.approx(found[98])  # that of the round, not of the next one


def test_sum_and_quantile_cost_the_multiplier_together():
    """The sum has z_v C with z^-2 = z_v^-2 + (2 sigma_b)^-2, and the share of the unclipped the noise sigma_b."""
    z, sigma, divisor, rate = 1.5, 1.0, 20.0, 0.2
    aggregator = dp_mean(2.0, z, divisor, quantile=0.5, bit_noise=sigma, clip_rate=rate)
    keys = jax.random.split(KEY, 4000)
    zeros = jnp.zeros((4, 8))
    means, states, _ = jax.jit(jax.vmap(lambda key: released(aggregator, zeros, key=key)))(keys)
    spread = np.std(np.asarray(means) * divisor / 2.0)
    assert spread == pytest.approx((z**-2 - (2 * sigma) ** -2) ** -0.5, rel=0.02)
    bits = (0.5 + np.log(np.asarray(states) / 2.0) / -rate - 0.5) * divisor  # sum of b - 1/2, with noise
    assert bits.std() == pytest.approx(sigma, rel=0.05) and bits.mean() == pytest.approx(2.0, abs=0.1)  # all four are short
    assert aggregator.privacy.noise_multiplier == z


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
        ({"quantile": 0.5, "noise_multiplier": 2.0, "bit_noise": 1.0}, "bit_noise=1.0 must be above noise_multiplier / 2 = 1.0"),
        ({"quantile": 0.5, "noise_multiplier": 2.0}, "bit_noise=0.5 must be above"),
        ({"clip_rate": 0.0}, "clip_rate must be positive"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        dp_mean(**({"clip": 1.0, "noise_multiplier": 1.0, "clients_per_round": 10.0} | arguments))


# What does not go together


def built(**parts):
    parts = {"work": fl.sgd_work(softmax_loss, optax.sgd(0.1)), "server": fl.optimizer_server(optax.adam(0.1))} | parts
    work, server = parts.pop("work"), parts.pop("server")
    algorithm = fl.federate(work, dp_mean(1.0, 1.0, 4.0), server, batches=fl.Batches(4), population=7, **parts)
    return jax.eval_shape(algorithm.init, softmax_params(), jax.random.key(0))


def test_what_clients_keep_between_rounds_is_refused():
    for uplink in (fl.uplink.error_feedback(fl.uplink.top_k(0.5)), optax.trace(0.9)):
        with pytest.raises(ValueError, match="with a private aggregator the uplink can't keep .* between rounds"):
            built(uplink=uplink)
    built(uplink=optax.chain(fl.uplink.qsgd(4), fl.uplink.random_k(0.5)))  # what was sent is counted, not kept
    built(work=fl.sgd_work(softmax_loss, optax.sgd, learning_rate=fl.on_client_step(lambda t: 0.1 / (1 + t))))  # a count


def test_a_server_that_reads_what_clients_report_is_refused():
    work = fl.sgd_work(softmax_loss, optax.sgd(0.1), gradient_norm=True)
    with pytest.raises(ValueError, match="adaptive_rate reads their gradient norms"):
        built(work=work, server=fl.adaptive_rate(fl.optimizer_server(optax.sgd(1.0))))
    built()  # Adam sees the noisy mean alone


def test_an_optimizer_that_reads_the_loss_is_refused():
    """Nothing that clients report reaches the server; what they train with themselves is theirs."""
    plateau = fl.optimizer_server(optax.chain(optax.sgd(1.0), optax.contrib.reduce_on_plateau(patience=1)))
    with pytest.raises(ValueError, match="optimizer_server: the optimizer reads the loss .*, which no noise hides"):
        trained(server=plateau)
    with pytest.raises(ValueError, match="no metric 'loss' to give as value; the round has none"):
        trained(server=fl.optimizer_server(optax.sgd(1.0), value="loss"))


@pytest.mark.parametrize("around", [lambda inner: fl.aggregators.nnm(inner, 1), lambda inner: fl.aggregators.bucketing(inner, 2)])
def test_nothing_stands_before_it(around):
    with pytest.raises(ValueError, match="inner guarantees privacy for messages of one client each"):
        around(dp_mean(1.0, 1.0, 4.0))


def test_under_attack_it_is_private_for_attackers_that_do_not_see_everything():
    work, byzantine = fl.sgd_work(softmax_loss, optax.sgd(0.1)), fl.attacks.byzantine(1, 7)
    for attack, provided in ((fl.attacks.ipm(), "attackers see no message but their own"), (fl.attacks.label_flip(3), "")):
        _, aggregator = fl.attacks.attacked(attack, byzantine, work, dp_mean(1.0, 1.0, 4.0))
        relation = fl.privacy.account(aggregator.privacy, fl.sampling.everyone(), 7, 3, 1e-3).relation
        assert relation.startswith("one client added or removed") and provided in relation and ("provided" in relation) == bool(provided)


def test_noise_of_leaves_is_drawn_apart():
    tree = normal_like(KEY, {"a": jnp.zeros(5), "b": jnp.zeros(5)}, 1.0)
    assert abs(tree["a"] - tree["b"]).min() > 0


def test_slots_that_were_lacking_are_counted():
    sampler = fl.sampling.poisson(0.9, capacity=3)
    _, history = trained(sampler=sampler, rounds=5)
    assert (history["left_out"] > 0).any() and (history["clients"] <= 3).all()
    counts = [np.asarray(sampler(jax.random.key(i), jnp.ones(7, jnp.int32), jnp.int32(0)).left_out) for i in range(20)]
    drawn = [
        np.asarray(fl.sampling.poisson(0.9, capacity=7)(jax.random.key(i), jnp.ones(7, jnp.int32), jnp.int32(0)).weight) for i in range(20)
    ]
    assert [c.tolist() for c in counts] == [[max(int(d.sum()) - 3, 0), 0, 0] for d in drawn]
