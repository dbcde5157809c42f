"""The rate that every local step really used, read off the model: its loss has gradient 1, so it falls by the rates."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from oracles import Plateau
from problems import QUADRATIC_A, QUADRATIC_C, quadratic_data, quadratic_loss, simulate, slope_data, slope_loss, with_steps

import fedjax_lite as fl

pytestmark = pytest.mark.usefixtures("x64")

ROUNDS = 4
DECAY = optax.exponential_decay(0.1, transition_steps=1, decay_rate=0.5)


def falls(work, steps=3, sampler=None, clients=1, batches=None, rounds=ROUNDS, server=None):
    """By how much the model falls in each round."""
    built = fl.federate(
        work,
        fl.aggregators.mean(),
        server or fl.optimizer_server(optax.sgd(1.0)),
        batches=batches or fl.Batches(1, steps=steps),
        population=clients,
    )
    _, history = simulate(built, slope_data(clients), jnp.zeros(()), sampler or fl.sampling.everyone(), rounds, jax.random.key(0))
    return np.asarray(history["update_norm"])


def scheduled(clock, schedule=DECAY, **options):
    return fl.sgd_work(slope_loss, optax.sgd, learning_rate=clock(schedule), **options)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_rates_on_three_clocks(steps):
    rate = lambda count: 0.1 * 0.5**count  # noqa: E731
    local = np.arange(steps)
    rounds = np.arange(ROUNDS)
    np.testing.assert_allclose(falls(scheduled(fl.on_round), steps), steps * rate(rounds), rtol=1e-7)
    np.testing.assert_allclose(falls(scheduled(fl.on_step), steps), np.full(ROUNDS, rate(local).sum()), rtol=1e-7)
    per_round = [rate(t * steps + local).sum() for t in rounds]
    np.testing.assert_allclose(falls(scheduled(fl.on_client_step), steps), per_round, rtol=1e-7)


def test_the_clients_own_clock_stands_still_while_it_does_not_take_part():
    """Clients 0, 1 and 2 in turn: each has taken no step before its first round, and two before its second."""
    fall = falls(scheduled(fl.on_client_step), steps=2, sampler=fl.sampling.cyclic(1), clients=3, rounds=6)
    np.testing.assert_allclose(fall, [0.15] * 3 + [0.0375] * 3, rtol=1e-7)


def test_a_clients_clock_counts_the_steps_it_took():
    """A straggler that takes one step of three is at its own count, not at the cohort's."""
    fall = falls(scheduled(fl.on_client_step), sampler=with_steps((1,)), steps=3)
    np.testing.assert_allclose(fall, 0.1 * 0.5 ** np.arange(ROUNDS), rtol=1e-7)


def test_decay_after_each_local_epoch():
    data = fl.FederatedData.from_clients([{"x": np.ones(5)}])
    work = fl.sgd_work(slope_loss, optax.sgd(0.1), epoch_decay=0.5)
    built = fl.federate(work, fl.aggregators.mean(), fl.optimizer_server(optax.sgd(1.0)), batches=fl.Batches(2, epochs=3), population=1)
    _, history = simulate(built, data, jnp.zeros(()), fl.sampling.everyone(), 2, jax.random.key(0))
    np.testing.assert_allclose(history["update_norm"], [3 * 0.1 * (1 + 0.5 + 0.25)] * 2, rtol=1e-7)


def test_epochs_on_the_rounds_clock():
    batches = fl.Batches(1, epochs=fl.on_round(lambda round: 1 + round))
    np.testing.assert_allclose(falls(fl.sgd_work(slope_loss, optax.sgd(0.1)), batches=batches), 0.1 * np.arange(1, 5), rtol=1e-7)


def test_server_rates():
    """An optax schedule inside the server's optimizer counts its updates; one beside it reads the round."""
    work = fl.sgd_work(slope_loss, optax.sgd(1.0))
    inside = fl.optimizer_server(optax.sgd(DECAY))
    beside = fl.optimizer_server(optax.sgd, learning_rate=fl.on_round(DECAY))
    expected = 0.1 * 0.5 ** np.arange(ROUNDS)
    np.testing.assert_allclose(falls(work, 1, server=inside), expected, rtol=1e-7)
    np.testing.assert_allclose(falls(work, 1, server=beside), expected, rtol=1e-7)


def test_schedules_do_not_recompile():
    data, work = slope_data(1), scheduled(fl.on_round)
    built = fl.federate(work, fl.aggregators.mean(), fl.optimizer_server(optax.sgd(1.0)), batches=fl.Batches(1), population=1)
    step, state = jax.jit(built.round), built.init(jnp.zeros(()), jax.random.key(0))
    for _ in range(3):
        state, _ = step(state, data, fl.sampling.everyone()(fl.round_key(state), data.size, state.round))
    assert step._cache_size() == 1


def test_plateau_at_the_server_follows_the_loss_before_training():
    """The losses of a quadratic run stall; the scale the server applied is that of the rule run beside it."""
    plateau = dict(factor=0.5, patience=2, cooldown=1, accumulation_size=2, rtol=0.05)
    built = fl.federate(
        fl.sgd_work(quadratic_loss, optax.sgd(0.1)),
        fl.aggregators.mean(),
        fl.optimizer_server(optax.chain(optax.sgd(1.0), optax.contrib.reduce_on_plateau(**plateau))),
        batches=fl.Batches(1, steps=5),
        population=3,
    )
    state, history = simulate(built, quadratic_data(), jnp.zeros(2), fl.sampling.everyone(), 40, jax.random.key(0))
    rule = Plateau(**plateau)
    scales = [rule(value) for value in np.asarray(history["initial_loss"])]
    assert scales[-1] < 0.1 and scales[0] == 1
    np.testing.assert_allclose(state.server.optimizer[1].scale, scales[-1], rtol=1e-7)

    # The same run by hand: each round's movement is the scale at that round times the mean of the clients' changes.
    x = np.zeros(2)
    for scale, moved in zip(scales, np.asarray(history["update_norm"]), strict=True):
        change = np.mean(QUADRATIC_C + (1 - 0.1 * QUADRATIC_A) ** 5 * (x - QUADRATIC_C) - x, axis=0)
        np.testing.assert_allclose(moved, scale * np.linalg.norm(change), rtol=1e-9, atol=1e-15)
        x = x + scale * change


@pytest.mark.parametrize("power", [1.0, 0.5, -1.0])
def test_client_rate_follows_the_change_of_gradient_norms(power):
    server = fl.adaptive_rate(fl.optimizer_server(optax.sgd(1.0)), power=power, smallest=0.2, largest=2.0)
    work = fl.sgd_work(quadratic_loss, optax.sgd(0.1), gradient_norm=True)
    built = fl.federate(work, fl.aggregators.mean(), server, batches=fl.Batches(1, steps=1), population=3)
    _, history = simulate(built, quadratic_data(), jnp.array([9.0, -9.0]), fl.sampling.everyone(), 30, jax.random.key(0))

    x, rate, before, rates = np.array([9.0, -9.0]), 1.0, None, []
    for t in range(30):
        gradients = QUADRATIC_A * (x - QUADRATIC_C)
        norm = np.linalg.norm(gradients, axis=1).mean()
        np.testing.assert_allclose(history["gradient_norm"][t], norm, rtol=1e-10)
        change = -0.1 * rate * gradients.mean(0)
        np.testing.assert_allclose(history["update_norm"][t], np.linalg.norm(change), rtol=1e-9)
        rates.append(rate)
        x, rate, before = x + change, np.clip(rate * (norm / (before or norm)) ** power, 0.2, 2.0), norm
    assert rates[0] == 1 and (min(rates) < 0.5 if power > 0 else max(rates) > 1.5)


def test_adaptive_rate_needs_the_gradient_norm():
    server = fl.adaptive_rate(fl.optimizer_server(optax.sgd(1.0)))
    with pytest.raises(ValueError, match="gradient_norm=True"):
        falls(fl.sgd_work(slope_loss, optax.sgd(0.1)), server=server)
    with pytest.raises(ValueError, match="smallest <= largest"):
        fl.adaptive_rate(server, smallest=2.0, largest=1.0)


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.sgd(DECAY),
        optax.chain(optax.clip(1.0), optax.adam(DECAY)),
        optax.inject_hyperparams(optax.sgd)(learning_rate=DECAY),
    ],
    ids=["sgd", "chain", "inject_hyperparams"],
)
def test_a_schedule_hidden_in_the_client_optimizer_is_refused(optimizer):
    with pytest.raises(ValueError, match="count would restart every round"):
        falls(fl.sgd_work(slope_loss, optimizer))


def test_injected_constants_are_no_schedule():
    assert np.allclose(falls(fl.sgd_work(slope_loss, optax.inject_hyperparams(optax.sgd)(learning_rate=0.1)), steps=1), 0.1)


def test_rates_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="a schedule without a clock"):
        fl.sgd_work(slope_loss, optax.sgd, learning_rate=DECAY)
    with pytest.raises(ValueError, match="needs learning_rate"):
        fl.sgd_work(slope_loss, optax.sgd)
    with pytest.raises(ValueError, match="nowhere to go"):
        fl.sgd_work(slope_loss, optax.sgd(0.1), learning_rate=0.1)
    with pytest.raises(TypeError, match="optimizer must be"):
        fl.sgd_work(slope_loss, 0.1)
    with pytest.raises(ValueError, match="only fl.on_round can schedule it"):
        fl.Batches(1, epochs=fl.on_step(DECAY))
    with pytest.raises(ValueError, match="wrap it in fl.on_round"):
        fl.Batches(1, epochs=DECAY)
    with pytest.raises(ValueError, match="epoch_decay must be in"):
        fl.sgd_work(slope_loss, optax.sgd(0.1), epoch_decay=1.5)


@pytest.mark.parametrize(
    "optimizer, message",
    [
        (optax.chain(optax.add_decayed_weights(lambda t: 0.1), optax.sgd(0.1)), "count would restart"),
        (optax.adamw(0.1, weight_decay=lambda t: 0.1), "count would restart"),
        (optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau()), "start over in every round"),
    ],
    ids=["weight decay", "adamw", "plateau"],
)
def test_other_counts_that_would_restart_are_refused(optimizer, message):
    with pytest.raises(ValueError, match=message):
        falls(fl.sgd_work(slope_loss, optimizer))


def test_a_factory_must_not_keep_its_first_rate():
    with pytest.raises(ValueError, match="keep the first rate for ever"):
        falls(fl.sgd_work(slope_loss, optax.inject_hyperparams(optax.sgd), learning_rate=fl.on_round(DECAY)))


def test_the_servers_rate_is_on_the_rounds_clock_and_its_value_exists():
    with pytest.raises(ValueError, match="give fl.on_round, not 'step'"):
        fl.optimizer_server(optax.sgd, learning_rate=fl.on_step(DECAY))
    with pytest.raises(ValueError, match="no metric 'los'"):
        falls(fl.sgd_work(slope_loss, optax.sgd(0.1)), server=fl.optimizer_server(optax.sgd(1.0), value="los"))


def test_a_run_with_an_adaptive_rate_can_be_differentiated():
    def moved(start):
        server = fl.adaptive_rate(fl.optimizer_server(optax.sgd(1.0)))
        work = fl.sgd_work(quadratic_loss, optax.sgd(0.1), gradient_norm=True)
        built = fl.federate(work, fl.aggregators.mean(), server, batches=fl.Batches(1), population=3, engine=fl.padded())
        state, _ = fl.simulate(built, quadratic_data(), start, fl.sampling.everyone(), rounds=3, key=jax.random.key(0))
        return jnp.sum(built.params(state))

    start, step = jnp.array([2.0, -1.0]), 1e-6
    gradient = jax.grad(moved)(start)
    differences = [(moved(start + step * e) - moved(start - step * e)) / (2 * step) for e in jnp.eye(2)]
    np.testing.assert_allclose(gradient, differences, rtol=1e-6)
