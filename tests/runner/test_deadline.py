"""budget: a run ends after the last segment that another one would not follow in time, and goes on later."""

import pytest
from segments import run, same_bits, summary

from fedjax_lite.runner import deadline
from fedjax_lite.runner.deadline import Deadline


class Clock:
    """Time that passes when it is told to."""

    now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(deadline, "time", clock)
    return clock


def test_the_next_piece_is_as_long_as_the_longest_after_the_first(clock):
    left = Deadline(10)
    assert not left.passed()  # nothing is known yet
    for seconds, passed in ((4.0, False), (1.0, False), (2.0, False), (1.0, False), (0.5, True)):
        clock.now += seconds
        left.lap()
        assert left.passed() is passed, clock.now  # at 4 another 4 would end at 8; from then on the first, which compiled, is no measure
    assert left.seconds() == 8.5
    assert not Deadline(None).passed()
    clock.now = 0.0
    none = Deadline(5)
    clock.now = 5.1
    assert none.passed()  # building alone has taken longer


def test_a_run_ends_in_time_with_what_it_has_and_goes_on(tmp_path, clock):
    def evaluate(record):
        clock.now += 4

    result = run(9, budget=10, on_evaluation=evaluate, out=tmp_path / "run")
    assert (result.status, len(result.history)) == ("out_of_time", 6)
    told = summary(tmp_path / "run")
    assert (told["status"], told["rounds"]) == ("out_of_time", 6) and "out of time" in (tmp_path / "run" / "report.html").read_text()
    same_bits(run(9, out=tmp_path / "run", resume=True).state, run(9).state)
    assert run(3, budget=1e9).status == "finished"


@pytest.mark.parametrize("budget", [0, -1, float("nan"), "long", True])
def test_refusals(budget):
    with pytest.raises(ValueError, match="budget must be a number of seconds above 0, or None, got"):
        Deadline(budget)
