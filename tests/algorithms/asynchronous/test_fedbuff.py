"""FedBuff by its worked table, as synchronous FedAvg, with other rules, uplinks and attacks; what it refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import quadratics
from quadratics import A4

import fedjax_lite as fl

DURATIONS = np.array([1.0, 1.7, 2.9])
FIRST = (-0.2112100000, 0.4095100000)
# x^1 to x^4 with two of three at once, a buffer of two and a queue.
TABLE = {
    "by the buffer": (
        {}, [FIRST, (0.0367913035, -0.0542119605), (0.0020049784, 0.1942888780), (-0.4177366099, 0.2556325902)],
    ),
    "by the weights": (
        {"divide_by": "weights"},
        [FIRST, (0.0793416003, -0.1337740706), (0.0283796902, 0.1886971895), (-0.4802185355, 0.2923002526)],
    ),
    "unweighted": (
        {"staleness_power": 0.0},
        [FIRST, (0.0367913035, -0.1892708816), (-0.0940959322, 0.2000151979), (-0.4750817648, 0.1947276750)],
    ),
}  # fmt: skip


def build(**more):
    options = {"batches": quadratics.batches(A4), "population": 3, "buffer": 2, "window": 4}
    return fl.algorithms.fedbuff(quadratics.loss_fn, optax.sgd(0.1), **options | more)


@functools.cache
def arrivals(rounds=4):
    return fl.clock.arrivals(
        build(), np.ones(3, int), jnp.zeros(2), fl.clock.given(5 / DURATIONS), concurrency=2, rounds=rounds, order="queue"
    )


def trajectory(algorithm, sampler, rounds=4, data=None):
    """The global model after each round, the metrics, and the last state."""
    data = A4.data() if data is None else data

    @jax.jit
    def run(data):
        def one(state, _):
            cohort = sampler(fl.round_key(state), data.size, state.round)
            state, metrics = algorithm.round(state, data, cohort)
            return state, (algorithm.params(state), metrics)

        return jax.lax.scan(one, algorithm.init(jnp.zeros(2), jax.random.key(0)), length=rounds)

    state, (params, metrics) = run(data)
    return np.asarray(params), metrics, state


@pytest.mark.parametrize("name", [*list(TABLE)[:2], pytest.param("unweighted", marks=pytest.mark.deep)])
def test_models_are_those_of_the_table(name, x64):
    more, expected = TABLE[name]
    params, metrics, _ = trajectory(build(**more), fl.clock.arriving(arrivals()))
    np.testing.assert_allclose(params, expected, atol=1e-9)
    np.testing.assert_allclose(metrics["seconds"], [1.7, 2.2, 1.0, 2.4], rtol=1e-6)
    assert metrics["staleness"].tolist() == [0, 0.5, 0.5, 0.5] and metrics["oldest"].tolist() == [0, 1, 1, 1]
    assert metrics["downlink_bits"].tolist() == [2 * 128] * 4  # one model each, however many the server keeps


def test_equal_devices_and_a_buffer_of_all_are_fedavg_to_the_bit():
    """With the same cohorts: no model is old."""
    rng = np.random.default_rng(0)
    data = fl.FederatedData.from_clients([{"a": rng.random((n, 2)), "c": rng.normal(size=(n, 2))} for n in (3, 1, 4, 2, 5, 6)])
    options = {"batches": fl.Batches(2, epochs=2), "population": 6}
    buffered = build(**options, buffer=3, window=1)
    devices, alike = fl.clock.lognormal(6, sigma=0.0), np.ones(6, int)  # of equal sizes all take the same time
    table = fl.clock.arrivals(buffered, alike, jnp.zeros(2), devices, concurrency=3, rounds=5)
    assert len({tuple(row) for row in table.ids.tolist()}) == 5
    plain = fl.algorithms.fedavg(quadratics.loss_fn, optax.sgd(0.1), aggregator=fl.aggregators.mean(), **options)
    found, metrics, _ = trajectory(buffered, fl.clock.arriving(table), 5, data)
    expected, of_plain, _ = trajectory(plain, fl.sampling.scheduled(table.ids), 5, data)
    assert np.array_equal(found, expected) and np.abs(found).min() > 0
    for name, values in of_plain.items():
        assert np.array_equal(metrics[name], values), name


def by_hand(table, reduce, power=0.5, rate=1.0, sent=lambda k, change: change):
    """The models of quadratic clients: y_k = c_k + (1 - eta A_k)^5 (x - c_k)."""
    models = [np.zeros(2)]
    for ids, ages in zip(table.ids, table.ages, strict=True):
        begun = [models[-1 - age] for age in ages]
        changes = [(1 - (1 - 0.1 * A4.a[k]) ** 5) * (A4.c[k] - x) for k, x in zip(ids, begun, strict=True)]
        weighed = [(1 + age) ** -power * sent(k, change) for k, change, age in zip(ids, changes, ages, strict=True)]
        models.append(models[-1] + rate * reduce(np.array(weighed), ids))
    return np.array(models[1:])


def test_a_robust_rule_sees_the_weighed_messages(x64):
    """Of three the median, which no sum can give; from one upload at a time to all three."""
    table = fl.clock.arrivals(build(buffer=3), np.ones(3, int), jnp.zeros(2), fl.clock.given(5 / DURATIONS), concurrency=3, rounds=6)
    stale = table._replace(ages=np.minimum(np.arange(18).reshape(6, 3) % 3, np.arange(6)[:, None]).astype(np.int32))
    rule = build(buffer=3, aggregator=fl.aggregators.median(), staleness_power=2.0, server_learning_rate=0.7)
    params, *_ = trajectory(rule, fl.clock.arriving(stale), 6)
    np.testing.assert_allclose(params, by_hand(stale, lambda m, ids: np.median(m, axis=0), 2.0, 0.7), atol=1e-12)


def test_what_an_uplink_holds_back_is_the_clients_change_before_it_is_weighed(x64):
    """Top-1 of two coordinates with error feedback."""
    held = {}

    def sent(k, change):
        whole = change + held.get(k, 0)
        kept = np.where(np.arange(2) == np.abs(whole).argmax(), whole, 0)
        held[k] = whole - kept
        return kept

    algorithm = build(uplink=fl.uplink.error_feedback(fl.uplink.top_k(0.5)))
    params, metrics, _ = trajectory(algorithm, fl.clock.arriving(arrivals()))
    np.testing.assert_allclose(params, by_hand(arrivals(), lambda m, ids: m.mean(0), sent=sent), atol=1e-12)
    assert metrics["uplink_bits"].tolist() == [2 * 65] * 4


@pytest.mark.deep
def test_attackers_forge_the_messages_as_they_count(x64):
    """Client 1 sends the opposite of its own, under the mean."""
    bad = fl.attacks.byzantine(1, 3, ids=[1])
    loss_fn, rule = fl.attacks.attacked(fl.attacks.sign_flip(), bad, quadratics.loss_fn, fl.aggregators.mean())
    algorithm = fl.algorithms.fedbuff(
        loss_fn, optax.sgd(0.1), batches=quadratics.batches(A4), population=3, buffer=2, window=4, aggregator=rule
    )
    params, *_ = trajectory(algorithm, fl.clock.arriving(arrivals()))
    flipped = by_hand(arrivals(), lambda m, ids: np.mean(np.where(ids[:, None] == 1, -m, m), axis=0))
    np.testing.assert_allclose(params, flipped, atol=1e-12)


def lost_on_the_way(updates, state, params=None, *, client, **beside):
    """An uplink that spoils what client 2 sends."""
    return jnp.where(client.id == 2, jnp.nan, updates), state


@pytest.mark.parametrize("divide_by", ["weights", pytest.param("buffer", marks=pytest.mark.deep)])
def test_a_message_that_is_not_finite_counts_nowhere(divide_by, x64):
    """Neither in the mean nor in the sum of the weights: client 0, of age 0, is alone where client 2 is lost."""
    uplink = optax.GradientTransformationExtraArgs(lambda params: (), lost_on_the_way)
    params, metrics, _ = trajectory(build(divide_by=divide_by, uplink=uplink), fl.clock.arriving(arrivals()), 2)
    expected = (1 - (1 - 0.1 * A4.a[0]) ** 5) * (A4.c[0] - params[0])
    np.testing.assert_allclose(params[1] - params[0], expected, atol=1e-12)
    assert metrics["non_finite"].tolist() == [0, 1]


@pytest.mark.deep
def test_a_model_older_than_the_window_is_none(x64):
    """Of a table that was made for a larger window: the upload is dropped as one that is not finite, and counted."""
    table = arrivals()
    _, metrics, _ = trajectory(build(window=1), fl.clock.arriving(table))
    assert metrics["non_finite"].tolist() == [0, 1, 1, 1]


def dp():
    return fl.aggregators.dp_mean(clip=1.0, noise_multiplier=1.0, clients_per_round=2)


REFUSED = {
    "private": (dict(aggregator=dp()), "fedbuff: clients arrive by their speed, and not by a draw that an accountant knows.*take a method"),
    "buffer": (dict(buffer=0), "fedbuff: buffer must be a whole number of at least 1, got 0"),
    "window": (dict(window=0), "fedbuff: window must be a whole number of at least 1, got 0"),
    "power": (dict(staleness_power=-1), "fedbuff: staleness_power must be finite and not negative, got -1"),
    "divide": (dict(divide_by="sum"), 'fedbuff: divide_by must be "buffer" or "weights", got \'sum\''),
    "too old": (dict(too_old="keep"), 'fedbuff: too_old must be "refuse" or "drop", got \'keep\''),
    "server rate": (dict(server_learning_rate=0), "fedbuff: server_learning_rate must be positive and finite, got 0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    more, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        build(**more)


def test_a_cohort_without_ages_is_refused():
    algorithm, data = build(), A4.data()
    with pytest.raises(ValueError, match=r"fedbuff: the cohort has no ages, since its sampler knows no time: take\s+fl.clock.arriving"):
        jax.eval_shape(lambda: fl.simulate(algorithm, data, jnp.zeros(2), fl.sampling.uniform(2), rounds=1, key=jax.random.key(0)))
