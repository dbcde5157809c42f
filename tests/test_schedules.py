"""The rate that every local step really used, read off the model: its loss has gradient 1, so it falls by the rates."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from oracles import Plateau
from problems import QUADRATIC_A, QUADRATIC_C, quadratic_data, quadratic_loss, slope_data, slope_loss, with_steps

import fedjax_lite as fl

pytestmark = pytest.mark.usefixtures("x64")

ROUNDS = 4
DECAY = optax.exponential_decay(0.1, transition_steps=1, decay_rate=0.5)


def simulated(data, start, work, server=None, sampler=None, rounds=ROUNDS, engine=fl.sequential(), **batches):  # noqa: B008
    """The model, the server's state and the history of a run whose clients take their examples as they come; pure."""
    built = fl.federate(
        work,
        fl.aggregators.mean(),
        server or fl.optimizer_server(optax.sgd(1.0)),
        batches=fl.Batches(**{"size": 1, **batches}, shuffle=False),
        population=data.population,
        engine=engine,
    )
    state, history = fl.simulate(built, data, start, sampler or fl.sampling.everyone(), rounds=rounds, key=jax.random.key(0))
    return built.params(state), state.server, history


def run(data, start, work, **more):
    """It compiled."""
    return jax.jit(lambda data, start: simulated(data, start, work, **more))(data, start)


def falls(work, data=None, **more):
    """By how much the model falls in each round, of three steps if not told otherwise."""
    steps = {} if "epochs" in more else {"steps": 3}
    return np.asarray(run(slope_data(1) if data is None else data, np.zeros(()), work, **steps | more)[-1]["update_norm"])


def scheduled(clock, schedule=DECAY, **options):
    return fl.sgd_work(slope_loss, optax.sgd, learning_rate=clock(schedule), **options)


RATES = {  # clock -> the rates of each round's local steps
    "on_round": lambda round, steps: np.full(steps, 0.1 * 0.5**round),
    "on_step": lambda round, steps: 0.1 * 0.5 ** np.arange(steps),
    "on_client_step": lambda round, steps: 0.1 * 0.5 ** (round * steps + np.arange(steps)),
}


@pytest.mark.parametrize("clock", RATES)
def test_rates_on_three_clocks(clock):
    """Of clients that take one, two or three steps."""
    one = lambda data, steps: simulated(data, jnp.zeros(()), scheduled(getattr(fl, clock)), steps=steps)[-1]["update_norm"]  # noqa: E731
    found = jax.jit(jax.vmap(one, (None, 0)))(slope_data(1), np.array([1, 2, 3]))
    expected = [[RATES[clock](round, steps).sum() for round in range(ROUNDS)] for steps in (1, 2, 3)]
    np.testing.assert_allclose(found, expected, rtol=1e-7)


def test_the_clients_own_clock_stands_still_while_it_does_not_take_part():
    """Clients 0, 1 and 2 in turn: each has taken no step before its first round, and two before its second."""
    fall = falls(scheduled(fl.on_client_step), slope_data(3), steps=2, sampler=fl.sampling.cyclic(1), rounds=6)
    np.testing.assert_allclose(fall, [0.15] * 3 + [0.0375] * 3, rtol=1e-7)


def test_a_clients_clock_counts_the_steps_it_took():
    """A straggler that takes one step of three is at its own count, not at the cohort's."""
    fall = falls(scheduled(fl.on_client_step), sampler=with_steps((1,)))
    np.testing.assert_allclose(fall, 0.1 * 0.5 ** np.arange(ROUNDS), rtol=1e-7)


def test_decay_after_each_local_epoch():
    data = fl.FederatedData.from_clients([{"x": np.ones(5)}])
    found = falls(fl.sgd_work(slope_loss, optax.sgd(0.1), epoch_decay=0.5), data, size=2, epochs=3, rounds=2)
    np.testing.assert_allclose(found, [3 * 0.1 * (1 + 0.5 + 0.25)] * 2, rtol=1e-7)


def test_epochs_on_the_rounds_clock():
    found = falls(fl.sgd_work(slope_loss, optax.sgd(0.1)), epochs=fl.on_round(lambda round: 1 + round))
    np.testing.assert_allclose(found, 0.1 * np.arange(1, 5), rtol=1e-7)


def test_server_rates():
    """An optax schedule inside the server's optimizer counts its updates; one beside it reads the round."""
    work = fl.sgd_work(slope_loss, optax.sgd(1.0))
    inside = fl.optimizer_server(optax.sgd(DECAY))
    beside = fl.optimizer_server(optax.sgd, learning_rate=fl.on_round(DECAY))
    expected = 0.1 * 0.5 ** np.arange(ROUNDS)
    np.testing.assert_allclose(falls(work, steps=1, server=inside), expected, rtol=1e-7)
    np.testing.assert_allclose(falls(work, steps=1, server=beside), expected, rtol=1e-7)


def test_schedules_do_not_recompile():
    server, engine = fl.optimizer_server(optax.sgd(1.0)), fl.sequential()
    built = fl.federate(scheduled(fl.on_round), fl.aggregators.mean(), server, batches=fl.Batches(1), population=1, engine=engine)
    step = jax.jit(lambda data, state: fl.advance(built, data, state, fl.sampling.everyone(), rounds=1)[0])
    state = jax.jit(built.init)(jnp.zeros(()), jax.random.key(0))
    for _ in range(3):
        state = step(slope_data(1), state)
    assert step._cache_size() == 1 and state.round == 3


def test_plateau_at_the_server_follows_the_loss_before_training():
    """The losses of a quadratic run stall; the scale the server applied is that of the rule run beside it."""
    plateau = dict(factor=0.5, patience=2, cooldown=1, accumulation_size=2, rtol=0.05)
    server = fl.optimizer_server(optax.chain(optax.sgd(1.0), optax.contrib.reduce_on_plateau(**plateau)))
    work = fl.sgd_work(quadratic_loss, optax.sgd(0.1))
    _, state, history = run(quadratic_data(), np.zeros(2), work, server=server, steps=5, rounds=40)
    rule = Plateau(**plateau)
    scales = [rule(value) for value in np.asarray(history["initial_loss"])]
    assert scales[-1] < 0.1 and scales[0] == 1
    np.testing.assert_allclose(state.optimizer[1].scale, scales[-1], rtol=1e-7)

    # The same run by hand: each round's movement is the scale at that round times the mean of the clients' changes.
    x = np.zeros(2)
    for scale, moved in zip(scales, np.asarray(history["update_norm"]), strict=True):
        change = np.mean(QUADRATIC_C + (1 - 0.1 * QUADRATIC_A) ** 5 * (x - QUADRATIC_C) - x, axis=0)
        np.testing.assert_allclose(moved, scale * np.linalg.norm(change), rtol=1e-9, atol=1e-15)
        x = x + scale * change


def adaptive(data, start, power=1.0, rounds=30, engine=fl.sequential(), **limits):  # noqa: B008
    """A run whose clients' rate follows their gradients' norms."""
    server = fl.adaptive_rate(fl.optimizer_server(optax.sgd(1.0)), power=power, **limits)
    work = fl.sgd_work(quadratic_loss, optax.sgd(0.1), gradient_norm=True)
    return simulated(data, start, work, server, rounds=rounds, engine=engine)


def test_client_rate_follows_the_change_of_gradient_norms():
    powers, start = np.array([1.0, 0.5, -1.0]), np.array([9.0, -9.0])
    one = lambda data, power: adaptive(data, jnp.asarray(start), power, smallest=0.2, largest=2.0)[-1]  # noqa: E731
    histories = jax.jit(jax.vmap(one, (None, 0)))(quadratic_data(), powers)
    for i, power in enumerate(powers):
        x, rate, before, rates = start, 1.0, None, []
        for t in range(30):
            gradients = QUADRATIC_A * (x - QUADRATIC_C)
            norm = np.linalg.norm(gradients, axis=1).mean()
            np.testing.assert_allclose(histories["gradient_norm"][i, t], norm, rtol=1e-10)
            change = -0.1 * rate * gradients.mean(0)
            np.testing.assert_allclose(histories["update_norm"][i, t], np.linalg.norm(change), rtol=1e-9)
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


@pytest.mark.deep
def test_a_run_with_an_adaptive_rate_can_be_differentiated():
    def moved(start):
        return jnp.sum(adaptive(quadratic_data(), start, rounds=3, engine=fl.padded())[0])

    start, step = np.array([2.0, -1.0]), 1e-6
    gradient = jax.jit(jax.grad(moved))(start)
    around = jax.jit(jax.vmap(moved))(start + step * np.concatenate([np.eye(2), -np.eye(2)]))
    np.testing.assert_allclose(gradient, (around[:2] - around[2:]) / (2 * step), rtol=1e-6)
