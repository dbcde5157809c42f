"""Laws of availability: probabilities over many clients, memory over time, and the host's answers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_lite.availability import day_night, markov, trace, windows
from fedjax_lite.availability.words import BITS, words

CLIENTS, TIMES = 4000, 30
LAWS = {
    "ten rounds on": markov(0.75, 10),
    "twenty": markov(0.8, 20),
    "flipping": markov(0.5, 1.2, seed=5),  # a + b > 1
    "turning": markov(0.5, 1),  # a = b = 1
    "slow": markov(0.3, 50, step=2.5),
    "day": day_night(day=24, step=2, seed=1),
    "one zone": day_night(0.4, 0.3, day=24, step=1, spread=0, activity=np.linspace(0.1, 1, CLIENTS)),
    "windows": windows(0.3, 7),
    "phones": trace("phones", unit=3600),
}


@functools.cache
def asked():
    """Answers and probabilities [times, clients] of each law."""
    ids = jnp.arange(CLIENTS)
    found = jax.jit(jax.vmap(lambda t: {name: (law.there(ids, t), law.share(ids, t)) for name, law in LAWS.items()}))
    return jax.device_get(found(np.arange(TIMES) * 1.0))


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.deep] * (name == "twenty")) for name in LAWS])
def test_host_and_device_answer_the_same_in_every_order(name):
    for times in (range(TIMES), (29, 3, 3, 4, 17, 0)):
        there = LAWS[name].on_host(CLIENTS)
        found = [[there(id, float(t)) for id in range(0, CLIENTS, 37)] for t in times]
        np.testing.assert_array_equal(found, asked()[name][0][list(times), ::37])


@pytest.mark.parametrize("name", LAWS)
def test_as_many_are_there_as_the_law_says(name):
    there, share = asked()[name]
    error = np.sqrt((share * (1 - share)).sum(axis=1))
    assert (np.abs(there.sum(axis=1) - share.sum(axis=1)) <= 4.5 * error + 1e-3).all()


@pytest.mark.parametrize("name, probability", [("ten rounds on", 0.76944), ("twenty", 0.8474609375)])
def test_five_steps_later_it_is_on_as_often_as_the_chain_says(name, probability):
    there = asked()[name][0]
    on = np.concatenate([there[t + 5][there[t]] for t in (0, 12, 24)])
    assert abs(on.mean() - probability) < 4.5 * np.sqrt(probability * (1 - probability) / CLIENTS)


@pytest.mark.parametrize("name, off, on", [("ten rounds on", 0.1, 0.3), ("flipping", 1 / 1.2, 1 / 1.2), ("slow", 0.05, 0.05 * 3 / 7)])
def test_states_change_as_often_as_the_chain_says(name, off, on):
    there = asked()[name][0] if name != "slow" else asked()[name][0][::5]  # every other step
    for before, change in ((True, off), (False, on)):
        if name == "slow":
            change *= 2 - off - on  # of two steps
        at = there[:-1] == before
        found, trials = (there[1:] != there[:-1])[at].mean(), at.sum()
        assert abs(found - change) < 4.5 * np.sqrt(change * (1 - change) / trials)


def test_the_average_over_time_varies_as_the_chain_says():
    a, b, share, times = 0.1, 0.3, 0.75, TIMES
    lags = np.arange(1, times)
    exact = share * (1 - share) * (1 + 2 * ((1 - lags / times) * (1 - a - b) ** lags).sum()) / times
    assert abs(exact / (share * (1 - share) * (2 - a - b) / (a + b) / times) - 1) < 0.1  # the limit of many steps
    assert abs(asked()["ten rounds on"][0].mean(axis=0).var() / exact - 1) < 4.5 * np.sqrt(3 / CLIENTS)


def test_turning_clients_turn_and_a_coin_holds_for_its_step():
    there = asked()["turning"][0]
    assert (there[1:] != there[:-1]).all()
    day = asked()["day"][0]
    assert (day[0::2] == day[1::2]).all() and (day[1:-1:2] != day[2::2]).any()


def test_hours_lie_apart_or_not():
    zone, day = asked()["one zone"][1], asked()["day"][1]
    np.testing.assert_allclose(zone[6], np.linspace(0.1, 1, CLIENTS) * 0.7, rtol=1e-6)  # the peak of 0.4 + 0.3 sin
    assert np.ptp(day[0]) > 0.79 and abs(day[0].mean() - 0.5) < 0.02


def test_words_of_neighbours_are_uniform_and_unlike():
    drawn = words((np.uint32(1), np.uint32(2)), np.arange(300)[:, None], np.arange(-150, 150)[None]) / 2**BITS
    assert abs(drawn.mean() - 0.5) < 4.5 / np.sqrt(12 * drawn.size) and 0 <= drawn.min() and drawn.max() < 1
    centred = (drawn - 0.5) * np.sqrt(12)
    for one, other in ((centred[1:], centred[:-1]), (centred[:, 1:], centred[:, :-1]), (centred, centred.T)):
        assert abs((one * other)[~np.eye(*one.shape, dtype=bool)].mean()) < 7 / np.sqrt(one.size)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: markov(1, 10), r"markov: share must be in \(0, 1\), got 1"),
        (lambda: markov(0.9, 5), "markov: mean_on=5 is too short for share=0.9 and step=1.0: it must be at least 9"),
        (lambda: markov(0.1, 5, step=10), "markov: mean_on=5 is too short .* it must be at least 10"),
        (lambda: markov(0.5, 0), "markov: mean_on must be positive"),
        (lambda: markov(0.5, 5, -1), "markov: seed must be"),
        (lambda: day_night(0.3, 0.4), r"day_night: swing=0.4 takes the probability out of \[0, 1\] around mean=0.3: lower it"),
        (lambda: day_night(day=0), "day_night: day must be positive"),
        (lambda: day_night(activity=[0.5, 0]), r"day_night: activity must hold a factor in \(0, 1\] for each client, got 0"),
        (lambda: day_night(activity=[0.5, 1]).check(3), "day_night: activity has 2 factors for 3 clients"),
        (lambda: windows(0, 3), r"windows: share must be in \(0, 1\], got 0"),
        (lambda: windows(0.5, 0), "windows: period must be positive"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
