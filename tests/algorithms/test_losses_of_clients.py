"""What a loss function may return, what of it counts, and which parameters can be trained."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fedjax_lite as fl
from fedjax_lite.metrics import INSIDE, OF_ROUND
from fedjax_lite.privacy import record_level
from fedjax_lite.uplink.client_metrics import ClientMetrics

CLIENT = {"x": np.array([1.0, 2, 3]), "y": np.array([2.0, 1, 0]), "w": np.array([1.0, 2, 1])}


def losses(params, batch):
    return (params * batch["x"] - batch["y"]) ** 2


def one_round(loss_fn, params=1.0, clients=(CLIENT,), aggregator=None, rate=0.1, run=fl.run, **of_work):
    data = fl.data.FederatedData.from_clients(list(clients))
    algorithm = fl.federate(
        fl.sgd_work(loss_fn, optax.sgd(rate), **of_work),
        aggregator or fl.aggregators.mean(),
        fl.optimizer_server(optax.sgd(1.0)),
        batches=fl.Batches(None),
        population=len(clients),
        engine=fl.padded(),
    )
    return run(algorithm, data, params, fl.sampling.everyone(), rounds=1, key=jax.random.key(0))


shown = functools.partial(fl.run, progress=False)


@pytest.mark.parametrize(
    ("scale", "record"),
    [
        (1.0, False),
        (1e-20, True),
        *(pytest.param(*case, marks=pytest.mark.deep) for case in [(1.0, True), (0.1, False), (0.1, True), (1e-20, False)]),
    ],
)
def test_a_weighted_mean_is_one_whatever_its_weights_sum_to(scale, record):
    """By hand: sum w l / sum w = (1 + 2 + 9) / 4 = 3 at p = 1, and its slope sum w 2 (p x - y) x / sum w = 24 / 4 = 6."""

    def weighted(params, batch, key):
        return fl.Mean(scale * batch["w"] * losses(params, batch), scale * batch["w"])

    private = {"gradients": record_level(1e6, 0.0, 3)} if record else {}
    result = one_round(weighted, run=functools.partial(shown, loss_fn=weighted), **private)
    assert result.history[0]["loss"] == pytest.approx(3.0, rel=1e-6)
    # each record of a batch of three is a mean of its own: (-2 + 4 + 18) / 3
    assert result.params == pytest.approx(1 - 0.1 * (20 / 3 if record else 6), rel=1e-5)
    p = float(result.params)
    after = sum(w * (p * x - y) ** 2 for x, y, w in zip(*CLIENT.values(), strict=True)) / 4
    assert result.history[0]["train_loss"] == pytest.approx(after, rel=1e-5)


def test_an_example_of_no_weight_counts_nowhere():
    weighted = lambda params, batch, key: fl.Mean(0 * losses(params, batch), jnp.zeros(3))  # noqa: E731
    result = one_round(weighted, run=functools.partial(shown, loss_fn=weighted))
    assert result.params == 1.0 and result.history[0]["loss"] is result.history[0]["train_loss"] is None


@pytest.mark.parametrize(
    "output, message",
    [
        (lambda x: [x], r"must return losses \[batch\], or \(losses, .*\), got \[\(3,\)\]: give each metric a name"),
        (lambda x: (x, x), "got .*: give each metric a name"),
        (lambda x: (x, {}, {}), "returns as running statistics, third, {}, and the model is no fl.models.WithStatistics"),
        (lambda x: x.sum(), "must return one loss an example"),
        *((lambda x, name=name: (x, {name: x}), f"names that are taken, {name}: rename") for name in sorted(OF_ROUND | {"loss"})),
        (lambda x: (x, {"test_loss": x, "train_x": x}), "names that are taken, test_loss, train_x: rename"),
    ],
)
def test_what_is_no_loss_is_refused_where_it_is_first_seen(output, message):
    with pytest.raises((TypeError, ValueError), match=message):
        one_round(lambda params, batch, key: output(losses(params, batch)), run=fl.simulate)


def test_names_of_other_parts_are_refused_too():
    mean = fl.aggregators.mean()
    named = mean._replace(finish=lambda *args: (*mean.finish(*args)[:2], {"clients": jnp.zeros(())}))
    with pytest.raises(ValueError, match="the aggregator or the server reports metrics under names that are taken, clients"):
        one_round(lambda params, batch, key: losses(params, batch), aggregator=named, run=fl.simulate)
    by_hand = fl.Algorithm(
        lambda params, key: fl.State(jnp.int32(0), key, params, (), (), ()),
        lambda state, data, cohort: (state, {"round": jnp.zeros(()), "clients": jnp.ones(())}),
        lambda state: state.server,
    )
    with pytest.raises(ValueError, match="the algorithm reports metrics under names that are taken, round: rename them"):
        shown(by_hand, fl.data.FederatedData.from_clients([CLIENT]), 1.0, fl.sampling.everyone(), rounds=1, key=jax.random.key(0))


def round_that_reports(name, part, aggregator):
    """What a round says, traced, where a part of it reports a metric of that name beside what it does."""
    work = fl.sgd_work(lambda params, batch, key: losses(params, batch), optax.sgd(0.1))
    more = {name: fl.Mean(jnp.ones(()), jnp.ones(()))}

    def step(*args):
        carry, metrics = work.step(*args)
        return carry, metrics | more

    def finish(*args):
        return (*work.finish(*args)[:2], more)

    uplink = optax.GradientTransformationExtraArgs(
        lambda params: ClientMetrics({name: (jnp.int32(1), jnp.int32(2))}), lambda updates, state, params=None, **beside: (updates, state)
    )
    parts = {"step": {"step": step}, "finish": {"finish": finish}, "uplink": {}}[part]
    algorithm = fl.federate(
        work._replace(**parts), aggregator, fl.optimizer_server(optax.sgd(1.0)), batches=fl.Batches(None), population=1,
        uplink=uplink if part == "uplink" else None, engine=fl.padded(),
    )  # fmt: skip
    data, key = fl.data.FederatedData.from_clients([CLIENT]), jax.random.key(0)
    cohort = fl.sampling.everyone()(key, data.size, 0)
    return jax.eval_shape(lambda key: algorithm.round(algorithm.init(1.0, key), data, cohort)[1], key)


@pytest.mark.parametrize(
    "name, part, whose",
    [
        ("uplink_bits", "step", "the client work's step"),
        *(("loss", "finish", "the client work's finish"), ("uplink_bits", "finish", "the client work's finish")),
        *(("loss", "uplink", "the uplink"), ("uplink_bits", "uplink", "the uplink")),
    ],
)
def test_no_metric_takes_the_place_of_another(name, part, whose):
    with pytest.raises(ValueError, match=f"{whose} reports metrics under names that are taken, {name}: rename them"):
        round_that_reports(name, part, fl.aggregators.mean())
    assert "personal_loss" in round_that_reports("personal_loss", part, fl.aggregators.mean())


def test_what_clients_report_has_no_name_that_stands_for_what_is_private():
    """A report would take it for what the server makes of the noisy aggregate."""
    private = fl.aggregators.dp_mean(1.0, 1.0, 1.0)
    for name in sorted(INSIDE - OF_ROUND):
        assert name in round_that_reports(name, "step", fl.aggregators.mean())
        with pytest.raises(ValueError, match=f"private client work reports metrics under names that are taken, {name}: rename them"):
            round_that_reports(name, "step", private)
    assert "personal_loss" in round_that_reports("personal_loss", "step", private)


@pytest.mark.parametrize(
    "params, message",
    [
        (jnp.ones((), jnp.complex64), "params: the array holds complex64: give its real and imaginary parts as two leaves"),
        ({"a": jnp.ones(2), "c": jnp.ones(2, jnp.complex64)}, r"params: leaf \['c'\] holds complex64"),
        ({"a": jnp.ones(2), "n": jnp.ones((), int)}, r"params: leaf \['n'\] holds int32: only floating-point leaves can be trained"),
        ({"b": True}, r"params: leaf \['b'\] holds bool"),
    ],
)
def test_what_has_no_gradient_is_refused(params, message):
    with pytest.raises(ValueError, match=message):
        one_round(lambda params, batch, key: batch["x"], params, run=fl.simulate)


def test_a_complex_message_is_refused():
    work = fl.sgd_work(lambda params, batch, key: losses(params, batch), optax.sgd(0.1))
    turned = work._replace(finish=lambda *args: (1j * work.finish(*args)[0], *work.finish(*args)[1:]))
    algorithm = fl.federate(turned, fl.aggregators.mean(), fl.optimizer_server(optax.sgd(1.0)), batches=fl.Batches(None), population=1)
    with pytest.raises(ValueError, match="the clients' message: the array holds complex64"):
        algorithm.init(jnp.ones(()), jax.random.key(0))


BROKEN = [CLIENT | {"w": np.full(3, float(k != 1))} for k in range(3)]  # the loss of client 1 is NaN


def broken(params, batch, key):
    return jnp.where(batch["w"] > 0, 1.0, jnp.nan) * losses(params["p"], batch)


def test_a_client_whose_message_is_dropped_counts_in_non_finite_alone():
    """Three equal clients of which one is lost: the round's loss is the others', (1 + 1 + 9) / 3."""
    other = [CLIENT | {"w": np.full(3, float(k != 1)), "y": np.full(3, k)} for k in range(3)]
    result = one_round(broken, {"p": 1.0}, other, fl.aggregators.median(), run=shown)
    (record,) = result.history
    expected = np.mean([(x - y) ** 2 for y in (0, 2) for x in (1, 2, 3)])
    assert record["loss"] == record["initial_loss"] == pytest.approx(expected) and record["non_finite"] == 1 and record["clients"] == 3


@pytest.mark.deep
def test_a_run_that_ends_names_client_and_leaf():
    propagates = fl.aggregators.from_stack(lambda messages, cohort: jax.tree.map(lambda x: x.mean(0), messages))
    with pytest.raises(FloatingPointError) as error:
        one_round(broken, {"p": 1.0}, BROKEN, propagates, run=functools.partial(shown, loss_fn=broken))
    assert "round 1 is no longer finite (update_norm=nan)" in str(error.value)
    assert "look at leaf ['p'] of the model and client 1, whose loss is not finite at the start" in str(error.value)
