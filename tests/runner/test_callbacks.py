"""on_round, on_evaluation and writers: what they are told, and when; what they raise ends a run with everything saved."""

import functools
import sys

import numpy as np
import pytest
from segments import run, same_bits, summary

from fedjax_lite.runner.arguments import check_options
from fedjax_lite.runner.callbacks import callbacks_of
from fedjax_lite.runner.records import read_records


class Kept:
    """A writer that keeps what it is given."""

    def __init__(self):
        self.calls = []

    def write(self, records, folder):
        self.calls.append((records, folder))


def test_all_are_told_after_each_segment(tmp_path):
    told, evaluated, writer = [], [], Kept()
    seen = lambda record, params: evaluated.append((record, params, len(told), len(read_records(tmp_path / "run"))))  # noqa: E731
    result = run(on_round=told.append, on_evaluation=seen, writers=[writer], out=tmp_path / "run")
    assert told == result.history and [record for record, *_ in evaluated] == [result.history[k] for k in (2, 5, 6)]
    assert [after for _, _, *after in evaluated] == [[3, 3], [6, 6], [7, 7]]  # the segment's lines are on disk by then
    for (_, params, *_), rounds in zip(evaluated, (3, 6, 7), strict=True):
        assert type(params) is np.ndarray  # a copy: the device's is given to the next segment
        same_bits(params, np.asarray(run(rounds).params))
    assert [len(records) for records, _ in writer.calls] == [3, 3, 1] and sum((r for r, _ in writer.calls), []) == result.history
    assert {folder for _, folder in writer.calls} == {tmp_path / "run"}


def test_changing_a_record_changes_no_history():
    def emptied(record):
        for each in list(record.values()):
            if isinstance(each, dict):  # the spread over clients
                emptied(each)
        record.clear()

    class Emptying:
        def write(self, records, folder):
            for record in records:
                emptied(record)

    plain = run()
    assert plain.history[2]["test_clients"]["loss"]
    same = run(on_round=emptied, on_evaluation=emptied, writers=[Emptying()])
    assert same.history == plain.history


def test_only_what_is_evaluated_is_an_evaluation():
    evaluated = []
    run(on_evaluation=evaluated.append, loss_fn=None)
    assert evaluated == []


class _Mine(Exception):
    pass


@pytest.mark.parametrize("where", ["on_round", "on_evaluation", "writers"])
def test_what_one_raises_ends_the_run_with_everything_saved(tmp_path, where):
    def fail(record, *_):
        if record["round"] == 6:
            raise _Mine("enough")

    writer = Kept()
    writer.write = lambda records, folder: [fail(record) for record in records]
    with pytest.raises(_Mine, match="enough"):
        run(out=tmp_path / "run", **{where: [writer] if where == "writers" else fail})
    told = summary(tmp_path / "run")
    assert (told["status"], told["rounds"], told["error"]) == ("interrupted", 6, "_Mine: enough")
    assert "_Mine: enough" in (tmp_path / "run" / "report.html").read_text() and (tmp_path / "run" / "params.safetensors").exists()
    same_bits(run(out=tmp_path / "run", resume=True).state, run().state)


def test_in_the_last_segment_the_run_is_finished_and_still_the_error_is_raised(tmp_path):
    with pytest.raises(ZeroDivisionError):
        run(3, out=tmp_path / "run", on_evaluation=lambda record: 1 / 0)
    assert summary(tmp_path / "run")["status"] == "finished"


def test_who_leaves_by_sys_exit_leaves_everything_saved(tmp_path):
    def leave(record):
        if record["round"] == 2:
            sys.exit(7)

    with pytest.raises(SystemExit, match="7"):
        run(out=tmp_path / "run", on_round=leave)
    told = summary(tmp_path / "run")
    assert (told["status"], told["rounds"], told["error"]) == ("interrupted", 3, "SystemExit: 7")
    assert (tmp_path / "run" / "params.safetensors").exists()


@pytest.mark.parametrize("options", [{}, {"on_round": print}])
def test_a_process_without_functions_is_asked_whether_one_has_raised(monkeypatch, options):
    """One with functions asks all of them: another number of questions, and they would wait for each other for ever."""
    asked = []
    monkeypatch.setattr("fedjax_lite.runner.callbacks.agreed", lambda flag: asked.append(flag) or flag)
    run(3, **options)
    assert asked == [False]


def test_a_keyboard_interrupt_returns_the_result():
    def stop(record):
        if record["round"] == 2:
            raise KeyboardInterrupt

    result = run(on_round=stop)
    assert (result.status, len(result.history)) == ("interrupted", 3)


def test_whether_the_model_is_asked_for():
    class Both:
        def __call__(self, record, params=None):
            pass

    for function, takes in (
        (print, True),
        (lambda record: None, False),
        (lambda record, params: None, True),
        (lambda record, *, params: None, False),
        (Both(), True),
        (functools.partial(lambda x, record: None, 1), False),
        (dict.clear, False),
    ):
        assert callbacks_of(None, function, ()).takes_params is takes


def test_refusals():
    for call, message in (
        (lambda: callbacks_of(1, None, ()), "on_round must be a function of a record, or None, got 1"),
        (lambda: callbacks_of(None, "print", ()), "on_evaluation must be a function"),
        (lambda: check_options(1, writers=Kept()), "writers must be a list of objects with a method write"),
        (lambda: check_options(1, writers=[print]), "writers must be a list of objects with a method write"),
    ):
        with pytest.raises(TypeError, match=message):
            call()
