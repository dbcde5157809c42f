"""The virtual clock of a synchronous run: the worked trace of five clients, and what a server does at the edges."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from quadratics import A5, batches, loss_fn

import fedjax_lite as fl
from fedjax_lite.sampling.participation import ordered

# Compute .5, 2, .75, 5, 4 seconds in 5 steps; down .5, 1, .5, 2, 2 and up 2, 4, 1, 4, 8 seconds for 16 bytes: 3, 7, 2.25, 11, 14 in all.
COMPUTE, DOWN, UP = np.array([[0.5, 2, 0.75, 5, 4], [0.5, 1, 0.5, 2, 2], [2, 4, 1, 4, 8]])
DEVICES = fl.clock.Devices(5 / COMPUTE, 16 / DOWN, 16 / UP)
PREFERENCES = jnp.array([[3, 0, 4, 1, 2], [1, 2, 4, 0, 3], [4, 3, 2, 1, 0]])
SINCE, UNTIL, AGAIN = np.array([[0, 0, 0, 0, 3], [np.inf, 4, np.inf, 16, np.inf], [np.inf, 9, np.inf, np.inf, np.inf]])
KEY = jax.random.key(0)


def there(ids, time):
    since, until, again = (jnp.asarray(np.asarray(x, jnp.result_type(float)))[ids] for x in (SINCE, UNTIL, AGAIN))
    return ((since <= time) & (time < until)) | (again <= time)


INTERVALS = fl.availability.Availability(there, lambda ids, time: there(ids, time) * 1.0)


def preferring(clients):
    """The first `clients` of a list that is given for each round."""
    order = lambda key, sizes, round: PREFERENCES[round].__getitem__  # noqa: E731
    sample = lambda key, sizes, round: fl.sampling.cohort(key, sizes, PREFERENCES[round, :clients])  # noqa: E731
    return ordered(sample, lambda population: clients, order)


def after_three_rounds(sampler, aggregator=None):
    algorithm = fl.algorithms.fedavg(loss_fn, optax.sgd(0.1), batches=batches(A5), population=5, aggregator=aggregator)
    simulate = functools.partial(fl.simulate, algorithm, sampler=sampler, rounds=3, key=KEY)
    state, history = simulate(A5.data(), jnp.zeros(2))
    return algorithm.params(state), history


# Clients, over-selection, deadline; seconds, lost, late, waited for in each round; the model after three, of the mean and by examples.
POLICIES = {
    "all": ((3, 1.0, None), [11, 14, 14], [1, 0, 0], [0, 0, 0], [2, 3, 3], (-0.3538364179, 0.0954607879), (-0.1775646311, 0.1807071988)),
    "deadline": ((3, 1.0, 8.0), [8, 8, 8], [1, 0, 0], [1, 1, 1], [1, 2, 2], (-0.187991725, -0.20568172), (-0.1199163094, -0.4213790714)),
    "over": ((2, 1.5, None), [11, 7, 7], [1, 0, 0], [0, 1, 1], [2, 2, 2], (-0.4173438907, -0.0562266980), (-0.1826264206, -0.2751069082)),
    "both": ((2, 1.5, 8.0), [8, 3, 8], [1, 0, 1], [1, 1, 1], [1, 2, 1], (0.3745844856, -0.9580966912), (0.3098866248, -0.9760250368)),
}


@functools.cache
def under_a_policy(clients, over):
    """One program for all deadlines and weights."""

    @jax.jit
    def run(deadline, weights):
        sampler = fl.clock.timed(preferring(clients), DEVICES, availability=INTERVALS, deadline=deadline, over_selection=over)
        return after_three_rounds(sampler, fl.aggregators.weighted_mean(weights))

    return run


@pytest.mark.parametrize("name", POLICIES)
def test_the_worked_trace(name, x64):
    (clients, over, deadline), seconds, lost, late, waited, mean, by_examples = POLICIES[name]
    deadline = np.inf if deadline is None else deadline
    for weights, expected in ((np.ones(5), mean), (np.array(A5.sizes, float), by_examples)):
        params, history = under_a_policy(clients, over)(deadline, weights)
        np.testing.assert_allclose(params, expected, atol=1e-9)
    found = [history[key].tolist() for key in ("seconds", "lost", "too_late", "waited_for", "clients")]
    assert found == [seconds, lost, late, waited, waited]
    assert history["virtual_hours"].tolist() == pytest.approx(np.cumsum(seconds) / 3600, rel=1e-6)
    if name == "deadline":  # client 1 is lost and client 3 late: both were sent 128 bits, and one sends as many; later one is late
        assert history["wasted_bits"].tolist() == [384, 256, 256]


def test_partial_work_is_what_there_is_time_for(x64):
    """Of 14 - 8 seconds client 4 has none to compute in beside 10 to receive and send; client 3 has 2 of 5, that is 2 of 5 steps."""
    sampler = fl.clock.timed(preferring(3), DEVICES, deadline=8.0, partial_work=True)
    draw = jax.jit(lambda round, memory, demand: sampler.sample(KEY, jnp.array(A5.sizes), round, memory, lambda cohort: demand))
    bits = jnp.full(3, 128.0)
    cohort, _ = draw(0, sampler.init(jnp.zeros(5)), fl.engine.pace.Demand(jnp.full(3, 5), bits, bits))
    assert (cohort.id.tolist(), cohort.weight.tolist(), cohort.steps.tolist()) == ([3, 0, 4], [1, 1, 0], [2, 5, 1])
    assert [float(cohort.sums[key].sum()) for key in ("seconds", "waited_for", "too_late")] == [8, 2, 1]
    passes = fl.engine.pace.Demand(jnp.full(3, 7), bits, bits, jnp.full(3, 2))  # 2 of the 7 steps are passes, made in any case
    cohort, _ = draw(0, sampler.init(jnp.zeros(5)), passes)
    assert (cohort.weight.tolist(), cohort.steps.tolist()) == ([0, 1, 0], [1, 5, 1])  # 2 passes and a step take client 3 3 seconds


def test_a_round_with_too_few_is_given_up_and_time_passes(x64):
    sampler = fl.clock.timed(preferring(3), DEVICES, deadline=2.5, least=2)
    params, history = after_three_rounds(sampler)
    assert params.tolist() == [0, 0] and history["seconds"].tolist() == [2.5] * 3 and history["waited_for"].tolist() == [0] * 3


def test_more_uploads_than_clients_are_never_there():
    with pytest.raises(ValueError, match="timed: least=3 uploads never come from 2 clients of a round"):
        after_three_rounds(fl.clock.timed(preferring(2), DEVICES, least=3))


def test_whoever_was_cut_off_to_be_in_time_is_not_late():
    """Of many round numbers, whose sums and quotients are off by a bit in float32."""
    speed, link = np.repeat(np.arange(1.0, 41), 40), np.tile(80 / np.arange(1, 41), 40)
    demand = fl.engine.pace.Demand(jnp.full(1600, 50), jnp.full(1600, 32.0), jnp.full(1600, 32.0))

    def counts(deadline):
        sampler = fl.clock.timed(fl.sampling.everyone(), fl.clock.Devices(speed, link, link), deadline=deadline, partial_work=True)
        cohort, _ = sampler.sample(KEY, jnp.ones(1600, int), 0, sampler.init(None), lambda cohort: demand)
        return cohort.weight > 0, cohort.steps

    for deadline in (0.7, 1.3, 2.3):
        here, steps = jax.jit(counts)(deadline)
        there_is_time = np.floor((deadline - 8 / link) * speed + 1e-9)
        assert here.tolist() == (there_is_time >= 1).tolist() and (steps[here] == np.minimum(there_is_time[here], 50)).all()


def test_where_nobody_can_be_reached_the_server_asks_again_later(x64):
    nobody = fl.availability.Availability(lambda ids, time: (time >= 100) & (ids >= 0), lambda ids, time: 1.0 * (ids >= 0))
    params, history = after_three_rounds(fl.clock.timed(preferring(2), DEVICES, availability=nobody, pause=50.0), fl.aggregators.mean())
    assert history["seconds"].tolist() == [50, 50, 14] and history["clients"].tolist() == [0, 0, 2]
    assert jnp.isfinite(params).all() and (params != 0).all()


def test_ties_are_taken_in_the_order_of_the_slots():
    alike = fl.clock.Devices(np.ones(5), np.full(5, np.inf), np.full(5, np.inf))
    sampler = fl.clock.timed(preferring(2), alike, over_selection=2.5)
    demand = lambda cohort: fl.engine.pace.Demand(jnp.full(5, 3), jnp.zeros(5), jnp.zeros(5))  # noqa: E731
    cohort, _ = sampler.sample(KEY, jnp.array(A5.sizes), 0, sampler.init(jnp.zeros(5)), demand)
    assert cohort.id[cohort.weight > 0].tolist() == [3, 0]


def test_devices_without_spread_wait_for_nothing_and_change_nothing():
    """The clock only measures: the rounds are those of the sampler alone, bit for bit."""
    alike = fl.clock.Devices(np.full(5, 10.0), np.full(5, np.inf), np.full(5, np.inf))
    params, history = after_three_rounds(fl.clock.timed(fl.sampling.uniform(2), alike))
    assert (params == after_three_rounds(fl.sampling.uniform(2))[0]).all()
    assert history["seconds"].tolist() == [0.5] * 3 and history["waited_for"].tolist() == [2] * 3


def test_of_another_sampler_the_slots_of_those_away_are_empty():
    sampler = fl.clock.timed(fl.sampling.poisson(1.0), DEVICES, availability=INTERVALS)
    demand = lambda cohort: fl.engine.pace.Demand(jnp.full(5, 5), jnp.zeros(5), jnp.zeros(5))  # noqa: E731
    cohort, _ = sampler.sample(KEY, jnp.array(A5.sizes), 0, sampler.init(jnp.zeros(5)), demand)
    assert sorted(cohort.id[cohort.weight > 0].tolist()) == [0, 1, 2, 3] and cohort.sums["left_out"].sum() == 0


REFUSED = {
    "steps": ({"devices": DEVICES._replace(steps=np.array([1, 1, 0, 1, 1]))}, r"client 2 has steps=0 a second: it must be positive"),
    "upload": ({"devices": DEVICES._replace(upload=-np.ones(5))}, r"client 0 has upload=-1 a second"),
    "nan": ({"devices": DEVICES._replace(download=np.full(5, np.nan))}, r"client 0 has download=nan a second"),
    "shape": ({"devices": DEVICES._replace(download=np.ones(4))}, r"download must be one number a client, \[5\] as steps, got \[4\]"),
    "deadline": ({"deadline": 0.0}, "deadline must be positive and finite"),
    "over": ({"over_selection": 0.9}, "over_selection must be a number of at least 1"),
    "over of poisson": ({"sampler": fl.sampling.poisson(0.5), "over_selection": 1.3}, "over_selection needs a sampler with an order"),
    "partial": ({"partial_work": True}, "partial_work is what a deadline cuts off, and there is none"),
    "least": ({"least": 0}, "least must be a whole number of at least 1"),
    "pause": ({"pause": -1}, "pause must be positive"),
    "sampler": ({"sampler": fl.clock.timed(preferring(2), DEVICES)}, "sampler must be one without a clock"),
    "arrivals": ({"sampler": fl.clock.arriving(fl.clock.Arrivals(*[np.zeros((1, 1), int)] * 7))}, "sampler is a table of arrivals"),
    "array": ({"deadline": jnp.float32(-3)}, "deadline must be positive and finite, got -3.0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_clock_is_refused(name):
    changed, message = REFUSED[name]
    given = {"sampler": preferring(2), "devices": DEVICES} | changed
    with pytest.raises((ValueError, TypeError), match=f"timed: {message}"):
        fl.clock.timed(given.pop("sampler"), given.pop("devices"), **given)


def run(sampler, **more):
    algorithm = fl.algorithms.fedavg(loss_fn, optax.sgd(0.1), batches=batches(A5), population=5)
    return fl.run(algorithm, A5.data(), jnp.zeros(2), sampler, rounds=2, key=KEY, progress=False, **more)


@pytest.mark.deep
def test_a_run_refuses_what_only_its_data_show():
    with pytest.raises(ValueError, match=r"timed: deadline=1 is over before any client .* the fastest takes 1.5 seconds"):
        run(fl.clock.timed(preferring(2), DEVICES, deadline=1.0))
    run(fl.clock.timed(preferring(2), DEVICES, deadline=1.5))  # in float32 a model is half as long
    with pytest.raises(ValueError, match="timed: devices are of 4 clients, and there are 5"):
        run(fl.clock.timed(preferring(2), jax.tree.map(lambda x: x[:4], DEVICES)))
    with pytest.raises(TypeError, match="a sampler with a memory cannot stand inside another"):
        run(fl.sampling.dropout(fl.clock.timed(preferring(2), DEVICES), 0.5))


def test_a_year_of_seconds_adds_up():
    """In float32, whose steps are 2 seconds at the end of a year."""
    later = lambda time, _: (fl.clock.time.later(time, 0.7), None)  # noqa: E731
    start = fl.clock.time.Time(jnp.float32(3e7), jnp.float32(0))
    after, _ = jax.lax.scan(later, start, length=100_000)
    assert float(after.seconds) == pytest.approx(3e7 + 70_000, abs=2.0)


@pytest.mark.deep
def test_of_candidates_only_those_who_were_chosen_are_waited_for(x64):
    """The largest losses at 0 are those of clients 2 and 3 in turn: the round takes their seconds, not those of the five who were asked."""
    sampler = fl.clock.timed(fl.sampling.power_of_choice(loss_fn, clients=2, candidates=5), DEVICES, deadline=10.0)
    _, history = after_three_rounds(sampler, fl.aggregators.mean())
    losses = 0.5 * (A5.a * A5.c**2).sum(axis=1)
    chosen = np.argsort(-losses)[:2]
    taking = (COMPUTE + DOWN + UP)[chosen]
    assert history["seconds"][0] == min(taking.max(), 10) and history["waited_for"][0] == (taking <= 10).sum()
    assert "taking" not in history


@pytest.mark.deep
def test_a_sampler_with_a_memory_keeps_it_under_a_clock():
    oort = fl.sampling.oort(loss_fn, clients=2, durations=COMPUTE + DOWN + UP)
    _, alone = after_three_rounds(oort)
    _, timed = after_three_rounds(fl.clock.timed(oort, DEVICES))
    assert all((timed[name] == alone[name]).all() for name in alone) and (timed["seconds"] > 0).all()
