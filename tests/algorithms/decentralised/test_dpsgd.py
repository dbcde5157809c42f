"""D-PSGD against the tables, by client; against a NumPy loop; its limits FedSGD and FedAvg; what it keeps and refuses."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import quadratics
from keeps import check_on_eight_devices, not_so
from oracles import local_sgd
from problems import FEATURES, softmax_data, softmax_loss, softmax_params
from quadratics import A4

import fedjax_lite as fl
from fedjax_lite.streams import aggregate_key

pytestmark = pytest.mark.usefixtures("x64")
ENGINES = {"packed": fl.packed(2), "padded": fl.padded(), "sequential": fl.sequential()}
W = np.full((3, 3), 0.25) + 0.25 * np.eye(3)
CTA, ATC = "combine-then-adapt", "adapt-then-combine"
TABLE = {  # form, K -> the clients' rows after each round
    (ATC, 1): [
        [(-0.025, -0.05), (-0.125, 0), (-0.05, -0.15)],
        [(-0.07, -0.0925), (-0.18625, -0.0325), (-0.10125, -0.205)],
        [(-0.113140625, -0.1250625), (-0.229984375, -0.063875), (-0.1464375, -0.2373125)],
    ],
    (CTA, 1): [
        [(0.1, 0), (-0.3, 0.2), (0, -0.4)],
        [(0.065, -0.05), (-0.335, 0.18), (-0.05, -0.39)],
        [(0.02975, -0.0675), (-0.36325, 0.162), (-0.09, -0.4065)],
    ],
    (ATC, 5): [
        [(-0.0032275, -0.025805), (-0.3135875, 0.17895), (-0.105605, -0.256365)],
        [(-0.03778535, -0.0085995804), (-0.3608450612, 0.2246864116), (-0.1601151824, -0.2420293704)],
    ],
}
LIMITS = {
    ATC: [(-0.37444023, -0.23450586), (-0.47295901, -0.17755444), (-0.41336548, -0.33835846)],
    CTA: [(-0.20067644, -0.13142174), (-0.54340474, 0.08841099), (-0.33821871, -0.45639188)],
}


@functools.cache
def compiled(form, engine="packed", rounds=3):
    """The rows after each round, their metrics and means, as a function of the matrix and the number of local steps."""

    @jax.jit
    def run(data, mixing, steps):
        built = made(form, mixing, engine=ENGINES[engine])

        def sampler(key, sizes, round):
            return fl.sampling.cohort(key, sizes, jnp.arange(3))._replace(steps=jnp.full(3, steps, jnp.int32))

        def one(state, _):
            state, metrics = fl.advance(built, data, state, sampler, rounds=1)
            return state, (built.models(state), metrics["consensus_distance"][0], built.params(state))

        return jax.lax.scan(one, built.init(jnp.zeros(2), jax.random.key(0)), length=rounds)[1]

    return lambda mixing=W, steps=1: run(A4.data(), jnp.asarray(mixing), steps)


def made(form, mixing=W, engine=None):
    return fl.algorithms.dpsgd(
        quadratics.loss_fn, optax.sgd(0.1), batches=quadratics.batches(A4), population=3, mixing=mixing, form=form, engine=engine
    )


def check(form, steps, engine):
    expected = np.array(TABLE[form, steps])
    rows, distance, mean = (x[: len(expected)] for x in compiled(form, engine)(steps=steps))
    np.testing.assert_allclose(rows, expected, atol=1.1e-9, rtol=0)
    np.testing.assert_allclose(mean, expected.mean(axis=1), atol=1.1e-9, rtol=0)
    np.testing.assert_allclose(distance, ((expected - expected.mean(axis=1, keepdims=True)) ** 2).sum(-1).mean(-1), atol=1e-9)


@pytest.mark.parametrize("form, steps", TABLE)
def test_it_is_its_table(form, steps):
    check(form, steps, "packed")


@pytest.mark.deep
@pytest.mark.parametrize("engine", ["padded", "sequential"])
@pytest.mark.parametrize("form, steps", TABLE)
def test_it_is_its_table_on_every_engine(form, steps, engine):
    check(form, steps, engine)


@pytest.mark.deep
@pytest.mark.parametrize("form", LIMITS)
def test_limits(form):
    np.testing.assert_allclose(compiled(form, rounds=400)()[0][-1], LIMITS[form], atol=1e-8)


def test_with_all_neighbours_it_is_fedsgd_and_with_local_steps_fedavg():
    x, expected = np.zeros(2), []
    for _ in range(3):
        x = x - 0.1 * (A4.a * (x - A4.c)).mean(axis=0)
        expected.append(x)
    rows, distance, _ = compiled(ATC)(fl.mixing.complete(3))
    np.testing.assert_allclose(rows, np.repeat(np.array(expected)[:, None], 3, axis=1), atol=1e-15)
    np.testing.assert_allclose(distance, 0, atol=1e-30)
    fedavg = [(-0.1408066667, -0.0344066667), (-0.2127279399, -0.0458288772)]  # its table
    np.testing.assert_allclose(compiled(ATC)(fl.mixing.complete(3), 5)[2][:2], fedavg, atol=1.1e-9)


def test_the_mean_of_the_rows_moves_by_the_mean_gradient_at_the_clients_own_points():
    rows, _, mean = (np.asarray(x) for x in compiled(CTA)(fl.mixing.ring(3)))
    for before, x, y in zip(rows[:-1], mean[:-1], mean[1:], strict=True):
        np.testing.assert_allclose(y, x - 0.1 * (A4.a * (before - A4.c)).mean(axis=0), atol=1e-15)


SIZES, SPOILT, NOBODY = (5, 1, 12, 3, 8, 0, 7), 4, 5


def test_it_is_the_loop_over_ragged_clients_that_gossip():
    """One client has no examples, another's are NaN: both mix their models as they are."""
    data = softmax_data(sizes=SIZES, empty=True)
    start = np.cumsum((0, *SIZES))
    x = np.asarray(data.examples["x"]).copy()
    x[start[SPOILT] : start[SPOILT + 1]] = np.nan
    data, y = replace(data, examples=data.examples | {"x": jnp.asarray(x)}), np.asarray(data.examples["y"])
    built = fl.algorithms.dpsgd(
        softmax_loss, optax.sgd(0.3), batches=fl.Batches(4, shuffle=False), population=7, mixing=fl.mixing.gossip(7), form=ATC,
        engine=fl.packed(2),
    )  # fmt: skip

    @jax.jit
    def run(data, params):
        state, history = fl.simulate(built, data, params, fl.sampling.everyone(), rounds=3, key=jax.random.key(1))
        keys = jax.vmap(lambda t: jax.random.fold_in(aggregate_key(jax.random.fold_in(jax.random.key(1), t)), 1))(jnp.arange(3))
        return built.models(state), history, jax.vmap(fl.mixing.gossip(7).draw)(keys)

    models, history, drawn = run(data, softmax_params())
    expected = np.repeat(np.asarray(softmax_params())[None], 7, axis=0)
    for weights in np.asarray(drawn):
        rows = [slice(start[k], start[k + 1]) for k in range(7)]
        after = [
            model if k in (SPOILT, NOBODY) else local_sgd(model, x[rows[k]], y[rows[k]], [range(SIZES[k])], 4, 0.3)
            for k, model in enumerate(expected)
        ]
        expected = np.tensordot(weights, np.array(after), 1)
    np.testing.assert_allclose(models, expected, atol=1e-12)
    assert history["clients"].tolist() == [6, 6, 6]
    assert history["uplink_bits"].tolist() == history["downlink_bits"].tolist() == [6 * 64 * expected[0].size] * 3


def small(engine=None, rate=0.1, **more):
    given = dict(mixing=[[0.5, 0.5, 0], [0.5, 0.25, 0.25], [0, 0.25, 0.75]], batches=fl.Batches(4, shuffle=False)) | more
    return fl.algorithms.dpsgd(softmax_loss, optax.sgd(rate, momentum=0.9), population=3, keep_optimizer=True, engine=engine, **given)


@pytest.mark.deep
def test_it_keeps_the_contract_where_all_take_part():
    report = fl.checks.algorithm(small, softmax_data(sizes=(5, 1, 12)), softmax_params(), clients=3, values=(0.1, 0.2))
    assert not_so(report) == {}


@pytest.mark.deep
def test_on_eight_devices():
    built = fl.algorithms.dpsgd(
        softmax_loss, optax.sgd(0.1), batches=fl.Batches(4, shuffle=False), population=7, mixing=fl.mixing.ring(7), form=ATC
    )  # fmt: skip
    cohort = jax.jit(fl.sampling.everyone())(jax.random.key(2), softmax_data(sizes=SIZES, empty=True).size, np.int32(0))
    check_on_eight_devices(built, softmax_params(), cohort)


@pytest.mark.deep
def test_the_runner_evaluates_the_mean_and_resumes_each_model(tmp_path):
    data, built = softmax_data(sizes=(5, 1, 12)), small()

    def run(rounds, **more):
        given = dict(rounds=rounds, key=jax.random.key(0), evaluate_every=1, progress=False, loss_fn=softmax_loss) | more
        return fl.run(built, data, softmax_params(), fl.sampling.everyone(), **given)

    run(1, out=tmp_path / "run")
    resumed, whole = run(3, out=tmp_path / "run", resume=True), run(3)
    np.testing.assert_array_equal(built.models(resumed.state), built.models(whole.state))
    mean = fl.evaluate(softmax_loss, jnp.mean(built.models(whole.state), axis=0), data)["loss"]
    np.testing.assert_allclose(whole.history[-1]["train_loss"], mean.total.sum() / mean.count.sum())
    each = fl.evaluate_each(softmax_loss, built.models(whole.state), data)["loss"].value()
    assert len(set(np.asarray(each).tolist())) == 3


def test_refusals():
    with pytest.raises(ValueError, match='dpsgd: form must be "combine-then-adapt" or "adapt-then-combine", got \'both\''):
        small(form="both")
    with pytest.raises(ValueError, match=r"dpsgd: mixing must be \[population, population\]"):
        small(mixing=fl.mixing.ring(4))
    small(mixing=[[0, 1, 0], [0, 0, 1], [1, 0, 0]], symmetric=False)
    with pytest.raises(ValueError, match="dpsgd: 2 of 3 clients take part, and mixing is of all of them: sample with fl.sampling.everyone"):
        data = softmax_data(sizes=(5, 1, 12))
        jax.eval_shape(
            lambda key: fl.simulate(small(), data, jnp.zeros((FEATURES, 3)), fl.sampling.uniform(2), rounds=1, key=key), jax.random.key(0)
        )
