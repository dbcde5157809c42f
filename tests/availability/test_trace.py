"""Traces: intervals by hand, tables, FedScale's pickles, phones, and what is refused by name."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_lite.availability import trace

ROWS = [(0, 0, 4), (1, 0, 4), (1, 9, 99), (3, 0, 16), (2, 0, 99), (3, 16, 17.5), (4, 3, 99)]


def inside(rows, id, time):
    return any(client == id and begin <= time < end for client, begin, end in rows)


def write(folder, text):
    (folder / "trace.csv").write_text(text)
    return folder / "trace.csv"


def answers(law, population, times):
    return np.asarray(jax.jit(jax.vmap(lambda t: law.there(jnp.arange(population), t)))(np.asarray(times, np.float32)))


@pytest.mark.parametrize("repeat", [None, 100])
def test_intervals_are_half_open_and_repeat_where_asked(repeat, tmp_path):
    times = [0, 3, 3.9, 4, 8.9, 9, 15.9, 16, 17.4, 17.5, 98.9, 99, 100, 103, 104, 109, 199]
    text = "from,to,client,model\n" + "".join(f"{begin},{end},{client},x\n" for client, begin, end in ROWS)
    for law in (trace(ROWS, repeat), trace(write(tmp_path, text), repeat)):
        law.check(5)
        goal = [[inside(ROWS, id, t if repeat is None else t % repeat) for id in range(5)] for t in times]
        np.testing.assert_array_equal(answers(law, 5, times), goal)
        there = law.on_host(5)
        np.testing.assert_array_equal([[there(id, t) for id in range(5)] for t in times], goal)
    assert not law.there(jnp.array([5, 9]), 1.0).any() and not law.on_host(5)(9, 1.0)


def test_many_intervals_are_searched_as_by_hand():
    rng = np.random.default_rng(0)
    rows = [(k, float(b), float(b + 0.5)) for k in range(40) for b in np.flatnonzero(rng.random(60) < rng.random())]
    rows += [(k, 70.0, 71.0) for k in range(40)]
    times = np.arange(0, 75, 0.25)
    goal = [[inside(rows, id, t) for id in range(40)] for t in times]
    np.testing.assert_array_equal(answers(trace(rows), 40, times), goal)
    np.testing.assert_array_equal(answers(trace(rows, unit=0.5), 40, 2 * times), goal)


def test_the_pickles_of_fedscale_repeat_each_client_on_its_own(tmp_path):
    held = {
        7: {"duration": 5, "active": [0, 6], "inactive": [2, 9], "finish_time": 10, "model": "a"},
        9: {"duration": 0, "active": [], "inactive": [], "finish_time": 10, "model": "b"},  # never there: left out
        "x": {"duration": 5, "active": [1], "inactive": [], "finish_time": 4, "model": "c"},  # there to the end
    }
    (tmp_path / "behave").write_bytes(pickle.dumps(held, protocol=3))
    law = trace(tmp_path / "behave")
    law.check(100)  # ids beyond the file's rows have those of id modulo two
    goal = [[t % 10 in (0, 1, 6, 7, 8), t % 4 != 0] * 2 for t in range(30)]
    np.testing.assert_array_equal(answers(law, 4, range(30)), goal)
    there = law.on_host(4)
    np.testing.assert_array_equal([[there(id, t) for id in range(4)] for t in range(30)], goal)


def test_phones_charge_by_night_and_some_of_them_at_any_time():
    law = trace("phones", unit=3600)
    law.check(10**6)
    assert answers(law, 1000, np.arange(0, 48, 0.25)).mean(axis=1).min() > 0.05
    found = answers(law, 1000, range(96)).mean(axis=1)
    np.testing.assert_array_equal(found[:48], found[48:])  # two days, again and again
    assert found[[1, 2, 3, 25, 26, 27]].min() > 0.85 and found[10:21].max() < 0.11 and 0.32 < found.mean() < 0.35


BAD = [
    ("", "is empty: its first line must be client,from,to"),
    ("client,from\n1,2\n", "has no column 'to': its first line must be client,from,to, got client,from"),
    ("1,2,3\n", "has no column 'client'"),
    ("client,from,to\n", "has no interval: give each client one at least"),
    ("client,from,to\n0,5,2\n", r"line 2: client 0 has the interval \[5, 2\), whose end is not after its begin"),
    ("client,from,to\n0,5,5\n", r"line 2: client 0 has the interval \[5, 5\)"),
    ("client,from,to\n1,0,9\n0,0,5\n0,3,8\n", r"line 4: client 0 has the intervals \[0, 5\) and \[3, 8\), which overlap: join them"),
    ("client,from,to\n0,-1,2\n", "line 2: client 0 has the times -1 and 2: they must be numbers from 0 on"),
    ("client,from,to\n0,0,nan\n", "line 2: client 0 has the times 0 and nan"),
    ("client,from,to\n0,x,2\n", "line 2: expected a client's number and two times, got '0', 'x', '2'"),
    ("client,from,to\n-3,0,2\n", "line 2: client -3 is no client"),
    ("client,from,to\n0,0\n", "line 2: 2 values for 3 columns"),
]


@pytest.mark.parametrize("text, message", BAD)
def test_what_a_table_is_refused_for(text, message, tmp_path):
    with pytest.raises(ValueError, match=f"trace: .*{message}"):
        trace(write(tmp_path, text))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: trace(3), r"trace: source must be a list of \(client, from, to\), or a path, got 3"),
        (lambda: trace([(0, 1)]), "trace: source must be a list"),
        (lambda: trace([(0.5, 1, 2)]), "trace: source, interval 0: expected a client's number"),
        (lambda: trace(ROWS, repeat=50), "trace: repeat=50 is before 99, where an interval of source ends: raise it"),
        (lambda: trace(ROWS, unit=0), "trace: unit must be positive"),
        (lambda: trace(ROWS).check(4), "trace: client 4 is outside the population, whose ids are 0 to 3"),
        (lambda: trace(ROWS).check(6), "trace: no interval lets client 5 take part: give it one, or leave it out of the population"),
        (lambda: trace([(0, 0, 1), (2, 0, 1)]).check(3), "trace: no interval lets client 1 take part"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("held", [[1, 2], {}, {1: {"active": [1]}}, {1: {"active": [1], "inactive": [2, 3], "finish_time": 9}}, {1: 2}])
def test_what_a_pickle_is_refused_for(held, tmp_path):
    (tmp_path / "behave").write_bytes(pickle.dumps(held, protocol=3))
    with pytest.raises(ValueError, match="trace: .*behave"):
        trace(tmp_path / "behave")


def test_a_pickle_runs_nothing(tmp_path):
    (tmp_path / "behave").write_bytes(pickle.dumps({1: np.random.default_rng}, protocol=3))
    with pytest.raises(ValueError, match="holds more than arrays, which is not run"):
        trace(tmp_path / "behave")
    (tmp_path / "picture").write_bytes(b"\xff\xfe\x00\xff")
    with pytest.raises(ValueError, match="is neither text nor a pickle"):
        trace(tmp_path / "picture")
