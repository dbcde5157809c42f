"""A study that was stopped goes on: what is finished is kept, is not run again, and must be of the same study."""

import json
import os
import signal
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_lite as fl
from fedjax_lite.runner.deadline import Deadline
from fedjax_lite.study import conduct as conducting
from fedjax_lite.study.conduct import conduct
from fedjax_lite.study.grid import axes_of
from fedjax_lite.study.unfinished import Unfinished

NAMES = ["a", "bc", "def"]


def experiment(seed, rate, name):
    """A program a name; results of every kind of type."""
    curve = rate * len(name) * jnp.arange(1.0, 4.0) + seed
    return {"curve": curve, "half": curve[0].astype(jnp.bfloat16), "count": jnp.int32(len(name)), "done": curve[0] > 2}


def study(out, resume=False, made=(("data", {"sha256": "1"}), ("config", {"rounds": 3})), budget=None):
    axes, choices = axes_of({"rate": [0.25, 0.75], "name": NAMES})
    with Unfinished(Path(out), resume) as kept:
        found = conduct(
            experiment,
            axes,
            choices,
            (7, 8),
            (7, 8),
            rounds_of=lambda name, n: range(1, n + 1),
            progress=False,
            made=dict(made),
            kept=kept,
            budget=budget,
        )
        kept.save(found)
    return found


@pytest.fixture(autouse=True)
def ran(monkeypatch):
    """The names whose programs were run, in order; operation by operation, since all that is asked is what becomes of the results."""
    names = []

    def computed(programs, together):
        for program in programs:
            names.append(NAMES[(program.runs[0] // 2) % 3])
            each = ({name: x[i] for name, x in program.numbers.items()} for i in range(len(program.runs)))
            runs = [program.call(program.closed_over, numbers) for numbers in each]
            yield {name: np.stack([run[name] for run in runs]) for name in program.shapes}

    monkeypatch.setattr(conducting, "compute", computed)
    return names


@pytest.fixture
def stop(monkeypatch):
    """Make a study stop in its second program: by a signal, or as one that is killed."""

    def after(how):
        add = Unfinished.add

        def stopping(self, place, found):
            if place == 1 and how is None:
                raise SystemExit
            if place == 1:
                os.kill(os.getpid(), how)
            add(self, place, found)

        monkeypatch.setattr(Unfinished, "add", stopping)
        return lambda: monkeypatch.setattr(Unfinished, "add", add)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield after
    signal.signal(signal.SIGINT, before)


def same(a, b):
    assert a._replace(results={}, made={}) == b._replace(results={}, made={})
    for name, x in a.results.items():
        assert x.dtype == b.results[name].dtype and x.tobytes() == b.results[name].tobytes()


@pytest.mark.parametrize("how, left", [(signal.SIGINT, 1), (signal.SIGTERM, 1), (None, 2)])
def test_what_is_finished_is_kept_and_not_run_again(tmp_path, ran, stop, how, left):
    whole = study(tmp_path / "whole")
    ran.clear()
    again = stop(how)
    with pytest.raises(SystemExit if how is None else KeyboardInterrupt) as stopped:
        study(tmp_path / "x")
    assert how is None or str(stopped.value) == f"2 of 3 programs are kept in {tmp_path / 'x'}: go on with the same command and --resume"
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["unfinished"]
    again()
    resumed = study(tmp_path / "x", resume=True)
    assert ran == [*NAMES[:2], *NAMES[3 - left :]]
    same(whole, resumed)
    same(whole, fl.Study.load(tmp_path / "x"))
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == ["report.html", "study.json", "table.csv"]
    same(whole, study(tmp_path / "x", resume=True))  # it is finished: nothing is run
    assert len(ran) == 2 + left
    assert sorted(path.name for path in tmp_path.iterdir()) == ["whole", "x"]  # and no lock


def test_out_of_its_budget_a_study_has_the_cells_it_ran_and_goes_on(tmp_path, ran, monkeypatch):
    whole = study(tmp_path / "whole")
    ran.clear()
    with monkeypatch.context() as patched:
        patched.setattr(Deadline, "passed", lambda self: len(self._laps) == 2)
        partial = study(tmp_path / "x", budget=60)
    assert ran == NAMES[:2] and partial.made["unfinished"].startswith("2 of 3 programs were run in ")
    for name, values in partial.results.items():
        np.testing.assert_array_equal(values[:, :2].astype(float), whole.results[name][:, :2].astype(float))
        assert np.isnan(values[:, 2]).all() and partial.lacking[name] == (2, 5)
    table = partial.table("half")
    assert [row["mean"] for row in table][2::3] == [None, None] and all(row["diverged"] == 0 for row in table)
    assert max(row["rank"] for row in table) == 5  # the two without a number are last
    assert "2 of 3 programs" in (tmp_path / "x" / "report.html").read_text()
    stored = fl.Study.load(tmp_path / "x")
    assert stored.lacking == partial.lacking and stored.made == partial.made
    ran.clear()
    same(whole, study(tmp_path / "x", resume=True, budget=60))
    assert ran == NAMES[2:] and not (tmp_path / "x" / "unfinished").exists()


def test_a_damaged_program_runs_again_and_another_study_is_refused(tmp_path, ran, stop):
    again = stop(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        study(tmp_path / "x")
    again()
    before = {path: path.read_bytes() for path in (tmp_path / "x").rglob("*") if path.is_file()}
    for made, message in (
        ({"data": {"sha256": "2"}, "config": {"rounds": 3}}, "data.sha256 was '1', is now '2'"),
        ({"data": {"sha256": "1"}, "config": {"rounds": 4}}, "config.rounds was 3, is now 4"),
        ({"data": {"sha256": "1"}, "config": {"rounds": 3}, "code": "x"}, "code was None, is now 'x'"),
    ):
        with pytest.raises(ValueError, match=f"--resume: the study in .* is another: {message}; resume with what it was made with"):
            study(tmp_path / "x", resume=True, made=made.items())
    assert {path: path.read_bytes() for path in (tmp_path / "x").rglob("*") if path.is_file()} == before
    (tmp_path / "x" / "unfinished" / "0.npz").write_bytes(before[tmp_path / "x" / "unfinished" / "0.npz"][:100])
    ran.clear()
    study(tmp_path / "x", resume=True)
    assert ran == ["a", "def"]
    with pytest.raises(ValueError, match="data.sha256 was '1', is now '2'"):  # of a finished one too
        study(tmp_path / "x", resume=True, made={"data": {"sha256": "2"}}.items())


def test_without_resume_what_is_there_is_moved_aside(tmp_path, stop, capsys, monkeypatch):
    again = stop(signal.SIGTERM)
    (tmp_path / "x").mkdir()
    monkeypatch.chdir(tmp_path / "x")
    with pytest.raises(KeyboardInterrupt):
        study(".")
    again()
    unfinished = json.loads((tmp_path / "x" / "unfinished" / "identity.json").read_text())
    with pytest.raises(ValueError, match="is the directory you are in, or above it, and holds a study"):
        study(".")
    monkeypatch.chdir(tmp_path)
    study("x")
    study("x")
    assert "held a study: moved to" in capsys.readouterr().err
    assert json.loads((tmp_path / "x.1" / "unfinished" / "identity.json").read_text()) == unfinished
    assert fl.Study.load(tmp_path / "x.2").seeds == (7, 8)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x", "x.1", "x.2"]
    assert all((tmp_path / name / "study.json").exists() for name in ("x", "x.2"))


def test_a_place_that_cannot_be_written_is_found_before_anything_runs(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "thing").write_text("")
    for out, message in (
        (tmp_path / "file", "is a file: name a folder"),
        (tmp_path / "file" / "below", "cannot be made or written: Not a directory; name another folder"),
        (tmp_path / "new" / ("long" * 100), "cannot be made or written: File name too long; name another folder"),
        (Path("/proc/nowhere"), "cannot be made or written: .*; name another folder"),
        (tmp_path / "else", "is not empty and holds no run or study: name another folder"),
    ):
        with pytest.raises(ValueError, match=f"^out={out} {message}$"):
            Unfinished(out)
    with pytest.raises(ValueError, match="^--resume: there is no study in .*new; name its folder with --out, or start without --resume"):
        Unfinished(tmp_path / "new", resume=True)
    Unfinished(tmp_path / "a" / "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["else", "file"]


def test_where_there_is_no_room_what_is_kept_is_said(tmp_path, ran, monkeypatch):
    def full(self, folder, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as here:
        here.setattr(fl.Study, "save", full)
        with pytest.raises(
            OSError, match=r"x could not be written \(No space left on device\): make room; 3 of 3 programs are kept in .*x"
        ):
            study(tmp_path / "x")
    assert len(ran) == 3 and study(tmp_path / "x", resume=True).programs == 3 == len(ran)


def test_two_do_not_write_one_folder(tmp_path):
    with Unfinished(tmp_path / "x") as one, Unfinished(tmp_path / "x") as other:
        one.begin({}, 1)
        with pytest.raises(ValueError, match=f"out={tmp_path / 'x'} is being written by another study"):
            other.begin({}, 1)
    np.testing.assert_equal(one.read([]), {})
