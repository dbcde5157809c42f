"""DiLoCo against a NumPy loop of AdamW whose moments and schedule stay on the replica; its limits; that it resumes; what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import quadratics
from oracles import softmax_regression_gradient
from problems import SIZES, softmax_data, softmax_loss, softmax_params
from quadratics import A4
from rounds import filled, trained

import fedjax_lite as fl

BATCH, B1, B2, EPS, DECAY, OUTER, BETA, SPOILT = 4, 0.9, 0.95, 1e-8, 0.1, 0.7, 0.9, 4
COHORTS = [(4, 2, 1, 6), (2, 5, 0), (4, 1), (6, 2, 5, 0)]


def rate_at(t):
    return 0.05 / (1 + 0.1 * t)


class AdamW:
    """One replica's inner optimizer."""

    def __init__(self, like):
        self.m, self.v, self.t = np.zeros_like(like), np.zeros_like(like), 0

    def __call__(self, y, g):
        self.m, self.v = B1 * self.m + (1 - B1) * g, B2 * self.v + (1 - B2) * g * g
        self.t += 1
        m, v = self.m / (1 - B1**self.t), self.v / (1 - B2**self.t)
        return y - rate_at(self.t - 1) * (m / (np.sqrt(v) + EPS) + DECAY * y)


def by_hand(data):
    """The models after each round, and the replicas' optimizers at the end."""
    x = np.asarray(softmax_params(), float)
    start, (inputs, labels) = np.cumsum((0, *SIZES)), (np.asarray(data.examples[name]) for name in "xy")
    replicas, v, models = [AdamW(x) for _ in SIZES], np.zeros_like(x), []
    for cohort in COHORTS:
        changes = []
        for k in cohort:
            y = x
            for first in range(0, SIZES[k], BATCH):
                rows = slice(start[k] + first, start[k] + min(first + BATCH, SIZES[k]))
                if k != SPOILT:
                    y = replicas[k](y, softmax_regression_gradient(y, inputs[rows], labels[rows]))
            changes += [] if k == SPOILT else [y - x]
        change = np.mean(changes, axis=0)
        v = BETA * v + change
        x = x + OUTER * (change + BETA * v)
        models.append(x)
    return models, replicas


def spoilt():
    """The data, of which one client's inputs are NaN."""
    data = softmax_data()
    start = sum(SIZES[:SPOILT])
    x = data.examples["x"].at[start : start + SIZES[SPOILT]].set(jnp.nan)
    return data.__class__(data.examples | {"x": x}, data.start, data.size, data.largest)


def made(optimizer, **more):
    return fl.algorithms.diloco(softmax_loss, optimizer, batches=fl.Batches(BATCH, shuffle=False), population=len(SIZES), **more)


def test_it_is_the_loop_of_replicas_that_keep_their_optimizers(x64):
    adamw = lambda rate: optax.adamw(rate, b1=B1, b2=B2, eps=EPS, weight_decay=DECAY)  # noqa: E731
    built = made(adamw, learning_rate=fl.on_client_step(rate_at), engine=fl.packed(2))
    data = spoilt()
    expected, replicas = by_hand(data)
    state, metrics = trained(built, data, softmax_params(), [filled(ids, 4) for ids in COHORTS], 0)
    np.testing.assert_allclose(built.params(state), expected[-1], atol=1e-12)
    assert state.own.steps.tolist() == [replica.t for replica in replicas] and replicas[SPOILT].t == 0
    moments = state.own.optimizer[0]
    np.testing.assert_allclose(moments.mu, [replica.m for replica in replicas], atol=1e-12)
    np.testing.assert_allclose(moments.nu, [replica.v for replica in replicas], atol=1e-12)
    assert metrics["clients"].tolist() == [4, 3, 2, 4] and metrics["non_finite"].tolist() == [1, 0, 1, 0]


@pytest.mark.deep
def test_a_schedule_inside_a_kept_optimizer_is_one_over_all_of_the_clients_steps(x64):
    rest = {"b1": B1, "b2": B2, "eps": EPS, "weight_decay": DECAY}
    inside = made(optax.adamw(rate_at, **rest))
    state, _ = trained(inside, spoilt(), softmax_params(), [filled(ids, 4) for ids in COHORTS], 0)
    np.testing.assert_allclose(inside.params(state), by_hand(spoilt())[0][-1], atol=1e-12)


def test_one_replica_without_an_outer_optimizer_is_the_inner_one(x64):
    """Fifteen steps of AdamW, in three rounds of five."""
    one = A4._replace(a=A4.a[:1], c=A4.c[:1], sizes=(1,), cohorts=((0,),), start=(0.3, -0.2))
    built = fl.algorithms.diloco(
        quadratics.loss_fn, optax.adamw(rate_at, b1=B1, b2=B2, eps=EPS, weight_decay=DECAY),
        batches=quadratics.batches(one), population=1, momentum=0.0, server_learning_rate=1.0,
    )  # fmt: skip
    y, inner, expected = np.array(one.start), AdamW(one.start), []
    for step in range(15):
        y = inner(y, one.a[0] * (y - one.c[0]))
        expected += [y] if step % 5 == 4 else []
    np.testing.assert_allclose(quadratics.trajectory(built, one, 3)[1], expected, atol=1e-12)


@pytest.mark.deep
def test_a_run_that_is_resumed_goes_on_with_the_replicas_optimizers(tmp_path):
    built, sampler = made(optax.adamw(rate_at)), fl.sampling.uniform(3)

    def run(rounds, **more):
        given = dict(rounds=rounds, key=jax.random.key(0), evaluate_every=2, progress=False) | more
        return fl.run(built, softmax_data(), softmax_params(), sampler, **given)

    run(2, out=tmp_path / "run")
    resumed = run(4, out=tmp_path / "run", resume=True)
    jax.tree.map(
        np.testing.assert_array_equal, (resumed.params, resumed.state.own), (lambda whole: (whole.params, whole.state.own))(run(4))
    )


def test_refusals():
    with pytest.raises(ValueError, match=r"diloco: momentum must be in \[0, 1\), got 1.0"):
        made(optax.sgd(0.1), momentum=1.0)
    with pytest.raises(ValueError, match="diloco: server_learning_rate must be positive and finite, got 0"):
        made(optax.sgd(0.1), server_learning_rate=0)
    private = fl.aggregators.dp_mean(clip=1.0, noise_multiplier=1.0, clients_per_round=2)
    with pytest.raises(ValueError, match=r"diloco: clients keep the state of their optimizer \(but with keep_optimizer=False\)"):
        made(optax.adamw(0.1), aggregator=private)
    made(optax.adamw(0.1), aggregator=private, keep_optimizer=False)
    with pytest.raises(ValueError, match="its count would restart every round"):
        jax.eval_shape(lambda: made(optax.adamw(rate_at), keep_optimizer=False).init(softmax_params(), jax.random.key(0)))
