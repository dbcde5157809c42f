"""The private mean in rounds: whatever the lanes and devices, without clients, without slots; and what it does not go together with."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import SIZES, softmax_data, softmax_loss, softmax_params

import fedjax_lite as fl
from fedjax_lite.aggregators import dp_mean

SLOTS, ROUNDS = 3, 20


def federated(aggregator, engine=None, server=None, batches=None):
    return fl.federate(
        fl.sgd_work(softmax_loss, optax.sgd(0.1)), aggregator, server or fl.optimizer_server(optax.sgd(1.0)),
        batches=batches or fl.Batches(4), population=len(SIZES), engine=engine,
    )  # fmt: skip


@pytest.mark.deep
@pytest.mark.parametrize(("engine", "devices"), [(fl.packed(2), 1), (fl.sequential(), 1), (fl.padded(), 1), (fl.packed(), 4)])
def test_one_draw_for_the_aggregate_whatever_the_lanes_and_devices(engine, devices):
    state, history = trained()
    other, measured = trained(engine, devices)
    np.testing.assert_allclose(other, state, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(measured["noise_to_signal"], history["noise_to_signal"], rtol=1e-4)


@functools.cache
def trained(engine=None, devices=1):
    """The parameters after three rounds, and the history."""
    algorithm = federated(dp_mean(0.5, 1.0, 4.0, quantile=0.5, bit_noise=2.0), engine)

    def run(data, params):
        state, history = fl.simulate(algorithm, data, params, fl.sampling.poisson(0.6), rounds=3, key=jax.random.key(3))
        return algorithm.params(state), history

    with jax.set_mesh(fl.engine.placement.mesh_of(jax.devices()[:devices])):
        return jax.tree.map(np.asarray, jax.jit(run)(softmax_data(), softmax_params()))


@jax.jit
def rounds(cohorts, z, data, params):
    """Rounds of these cohorts `[rounds, slots]`."""
    algorithm = federated(dp_mean(0.5, z, 4.0), batches=fl.Batches(4, shuffle=False))
    state = algorithm.init(params, jax.random.key(3))
    state, history = jax.lax.scan(lambda state, cohort: algorithm.round(state, data, cohort), state, cohorts)
    return algorithm.params(state), history


@jax.jit
@jax.vmap
def crowded(key):
    """A cohort that wants more slots than it has, and who is drawn where there are enough."""
    few, enough = (fl.sampling.poisson(0.9, capacity=capacity) for capacity in (SLOTS, len(SIZES)))
    key, sizes = jax.random.key(key), jnp.asarray(SIZES, jnp.int32)
    return few(key, sizes, jnp.int32(0)), enough(key, sizes, jnp.int32(0)).weight


def test_a_round_without_clients_moves_the_model_by_noise_alone():
    cohorts, _ = crowded(np.arange(ROUNDS))
    nobody = cohorts._replace(weight=np.zeros((ROUNDS, SLOTS), np.float32))
    _, history = rounds(nobody, 1.0, softmax_data(), softmax_params())
    assert not np.any(history["clients"]) and (history["update_norm"] > 0).all()
    assert 0.7 < np.mean(np.square(history["update_norm"])) / (softmax_params().size * (0.5 / 4) ** 2) < 1.3  # four standard deviations
    still, _ = rounds(nobody, 0.0, softmax_data(), softmax_params())
    np.testing.assert_array_equal(still, softmax_params())


def test_slots_that_were_lacking_are_counted():
    cohorts, drawn = crowded(np.arange(ROUNDS))
    assert cohorts.sums["left_out"].tolist() == [[max(int(d.sum()) - SLOTS, 0), 0, 0] for d in np.asarray(drawn)]
    _, history = rounds(cohorts, 1.0, softmax_data(), softmax_params())
    np.testing.assert_array_equal(history["left_out"], np.asarray(cohorts.sums["left_out"])[:, 0])
    assert (history["left_out"] > 0).any() and (history["clients"] <= SLOTS).all()


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
    cohort = jax.eval_shape(fl.sampling.everyone(), jax.random.key(0), softmax_data().size, jnp.int32(0))

    def once(server):
        algorithm = federated(dp_mean(0.5, 1.0, 4.0), server=server)
        jax.eval_shape(algorithm.round, jax.eval_shape(algorithm.init, softmax_params(), jax.random.key(0)), softmax_data(), cohort)

    plateau = fl.optimizer_server(optax.chain(optax.sgd(1.0), optax.contrib.reduce_on_plateau(patience=1)))
    with pytest.raises(ValueError, match="optimizer_server: the optimizer reads the loss .*, which no noise hides"):
        once(plateau)
    with pytest.raises(ValueError, match="no metric 'loss' to give as value; the round has none"):
        once(fl.optimizer_server(optax.sgd(1.0), value="loss"))


@pytest.mark.deep
def test_under_attack_it_is_private_for_attackers_that_do_not_see_everything():
    work, byzantine = fl.sgd_work(softmax_loss, optax.sgd(0.1)), fl.attacks.byzantine(1, 7)
    for attack, provided in ((fl.attacks.ipm(), "attackers see no message but their own"), (fl.attacks.label_flip(3), "")):
        _, aggregator = fl.attacks.attacked(attack, byzantine, work, dp_mean(1.0, 1.0, 4.0))
        relation = fl.privacy.account(aggregator.privacy, fl.sampling.everyone(), 7, 3, 1e-3).relation
        assert relation.startswith("one client added or removed") and provided in relation and ("provided" in relation) == bool(provided)
