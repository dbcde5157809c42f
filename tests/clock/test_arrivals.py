"""The worked table of asynchronous events, the seconds of an algorithm's own demand, and what the table refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import quadratics
from quadratics import A4

import fedjax_lite as fl
from fedjax_lite.clock.arrivals import durations_of, simulated
from fedjax_lite.engine.pace import Asynchrony

DURATIONS = np.array([1.0, 1.7, 2.9])
# Of FedBuff with two at once and a buffer of two, in a queue: time, client, when and from which model it started, age, the server's step.
EVENTS = [
    (1.0, 0, 0.0, 0, 0, 0), (1.7, 1, 0.0, 0, 0, 1), (2.7, 0, 1.7, 1, 0, 0), (3.9, 2, 1.0, 0, 1, 2),
    (4.4, 1, 2.7, 1, 1, 0), (4.9, 0, 3.9, 2, 0, 3), (6.6, 1, 4.9, 3, 0, 0), (7.3, 2, 4.4, 2, 1, 4),
]  # fmt: skip


def built(population=3, buffer=2, **more):
    options = {"batches": quadratics.batches(A4), "population": population, "buffer": buffer}
    return fl.algorithms.fedbuff(quadratics.loss_fn, optax.sgd(0.1), **options | more)


def test_events_are_those_of_the_table(x64):
    """Five steps of each of the devices take what the table says."""
    devices, log = fl.clock.given(5 / DURATIONS), []
    durations = durations_of(built(), np.ones(3, int), jnp.zeros(2), devices)
    np.testing.assert_allclose(durations, DURATIONS, rtol=1e-15)
    table = simulated(durations, built().asynchrony, concurrency=2, rounds=4, order="queue", log=log)
    np.testing.assert_allclose(log, EVENTS, atol=1e-12)
    assert table.ids.tolist() == [[0, 1], [0, 2], [1, 0], [1, 2]] and table.ages.tolist() == [[0, 0], [0, 1], [1, 0], [0, 1]]
    np.testing.assert_allclose(table.seconds, [1.7, 3.9, 4.9, 7.3], atol=1e-12)
    np.testing.assert_allclose(table.passed, [1.7, 2.2, 1.0, 2.4], atol=1e-12)
    assert table.events == len(EVENTS) and table.seconds.dtype == np.float64
    again = fl.clock.arrivals(built(), A4.data(), jnp.zeros(2), devices, concurrency=2, rounds=4, order="queue")
    for a, b in zip(again, table, strict=True):
        assert np.array_equal(a, b)


def test_seconds_are_those_of_steps_and_bits():
    """Two epochs of batches of 4; two numbers of 32 bits each way, up a fourth of them with their positions."""
    sizes = np.array([5, 1, 12])
    algorithm = built(batches=fl.Batches(4, epochs=2), uplink=fl.uplink.top_k(0.5))
    devices = fl.clock.given([1.0, 2.0, 4.0], download=[1.0, 2.0, np.inf], upload=[8.0, 4.0, 2.0])
    found = durations_of(algorithm, sizes, jnp.zeros(2), devices)
    sent = (32 + 1) / 8  # one of two numbers, and its position
    expected = [8 + 4 / 1 + sent / 8, 4 + 2 / 2 + sent / 4, 0 + 6 / 4 + sent / 2]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    shapes = jax.eval_shape(lambda: jnp.zeros(2))
    np.testing.assert_array_equal(durations_of(algorithm, sizes, shapes, devices), found)


def test_equal_durations_and_a_buffer_of_all_are_rounds():
    """Everyone who trains arrives at once, and nobody is started before all have."""
    table = simulated(np.full(20, 2.5), Asynchrony(4, 1), concurrency=4, rounds=9, seed=7)
    assert not table.ages.any() and table.seconds.tolist() == [2.5 * t for t in range(1, 10)]
    assert len({tuple(row) for row in table.ids.tolist()}) > 5


def never(population):
    return lambda k, t: False


def law(on_host, check=lambda population: None):
    return fl.availability.Availability(
        lambda ids, t: jnp.ones(jnp.shape(ids), bool), lambda ids, t: jnp.ones(jnp.shape(ids)), on_host, check
    )


def test_a_law_without_a_form_for_the_host_is_asked_itself():
    there = fl.availability.Availability(lambda ids, t: ids != 1, lambda ids, t: jnp.ones(jnp.shape(ids)))
    table = fl.clock.arrivals(built(), A4.data(), jnp.zeros(2), fl.clock.given(5 / DURATIONS), concurrency=2, rounds=3, availability=there)
    assert set(table.ids.ravel()) == {0, 2}


DEVICES = fl.clock.given(5 / DURATIONS)
REFUSED = {
    "buffer": (dict(concurrency=1), "arrivals: buffer=2 is larger than concurrency=1, .*: lower buffer, or raise concurrency"),
    "concurrency": (dict(concurrency=4), "arrivals: concurrency=4 is more than the 3 clients with examples: lower it"),
    "no concurrency": (dict(concurrency=None), "arrivals: give concurrency"),
    "nobody": (dict(concurrency=0), "arrivals: concurrency must be a whole number of at least 1, got 0"),
    "rounds": (dict(rounds=0), "arrivals: rounds must be a whole number of at least 1, got 0"),
    "order": (dict(order="fifo"), 'arrivals: order must be "uniform", "queue" or "examples", got \'fifo\''),
    "pause": (dict(pause=0.0), "arrivals: pause must be positive and finite, got 0.0"),
    "no time": (dict(durations=np.array([1.0, 0, 1])), "arrivals: client 1 takes 0.0 s for a round: give it a finite speed, and a link"),
    "endless": (dict(durations=np.array([1.0, 2, np.inf])), "arrivals: client 2 takes inf s for a round: give it a finite speed"),
    "too old": (
        dict(how=Asynchrony(2, 1)),
        "arrivals: client 2 arrives at 3.9 s with a model that is 1 versions old, and window=1, .*: raise window, drop such",
    ),
    "never there": (dict(there=lambda k, t: False), "arrivals: after step 0 of the server no buffer fills up to .* with 0 clients lost"),
    "all are lost": (dict(there=lambda k, t: not t), "arrivals: after step 0 of the server .* clients lost before they had finished"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    changes, message = REFUSED[name]
    given = dict(durations=DURATIONS, how=Asynchrony(2, 9), concurrency=2, rounds=4, order="queue") | changes
    with pytest.raises(ValueError, match=message):
        simulated(given.pop("durations"), given.pop("how"), **given)


OF_PARTS = {
    "waits": (dict(algorithm=built()._replace(asynchrony=None)), "arrivals: this algorithm waits for its whole cohort"),
    "speed": (dict(devices=DEVICES._replace(steps=np.array([1.0, 0, 1]))), "arrivals: client 1 has steps=0 a second: it must be positive"),
    "devices": (dict(devices=fl.clock.given(np.ones(4))), "arrivals: devices are those of 4 clients, and there are 3"),
    "checked": (dict(availability=law(never, lambda population: 1 // 0)), "division"),
    "data": (dict(data=np.ones((3, 2))), r"arrivals: data must be a population, or numbers of examples \[population\], got float64"),
}  # fmt: skip


@pytest.mark.parametrize("name", OF_PARTS)
def test_refusals_of_parts(name):
    changes, message = OF_PARTS[name]
    given = dict(algorithm=built(), data=np.ones(3, int), devices=DEVICES, concurrency=2, rounds=4) | changes
    with pytest.raises((ValueError, ZeroDivisionError), match=message):
        fl.clock.arrivals(given.pop("algorithm"), given.pop("data"), jnp.zeros(2), given.pop("devices"), **given)


def test_refusals_of_tiers():
    with pytest.raises(ValueError, match="arrivals: a tier has 1 of 3 clients with examples, and buffer=2 of a tier take part"):
        simulated(DURATIONS, Asynchrony(2, 9, tiers=2), rounds=3)
    with pytest.raises(ValueError, match="arrivals: concurrency=3, and 2 tiers of 1 clients each train 2 at once: leave concurrency out"):
        simulated(DURATIONS, Asynchrony(1, 9, tiers=2), concurrency=3, rounds=3)
    with pytest.raises(ValueError, match="no buffer fills"):
        simulated(DURATIONS, Asynchrony(1, 9, tiers=2), rounds=3, there=lambda k, t: False)
