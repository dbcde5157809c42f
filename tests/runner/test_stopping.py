"""How a run ends before its time: it has converged, is told to stop, or is no longer finite."""

import os
import signal

import jax.numpy as jnp
import optax
import pytest
from segments import by_hand, loss, run, same_bits, summary

import fedjax_lite as fl
from fedjax_lite.runner.progress import Progress
from fedjax_lite.runner.records import read_records


@pytest.mark.parametrize(
    ("metric", "values", "reached"),
    [
        ("test_loss", [3, 2, 1, 0], False),
        ("test_loss", [3, 2, 1.95, 1.91], True),
        ("test_loss", [3, 2, 1.95, 1.89], False),  # slow, but together it is more than the tolerance
        ("test_loss", [3, 2, 9], False),
        ("test_loss", [3, 2, 9, 9], True),
        ("test_loss", [3, 2, None, None, 2], False),  # nothing was measured
        ("test_accuracy", [0.1, 0.3, 0.5, 0.7], False),
        ("test_accuracy", [0.1, 0.7, 0.7, 0.75], True),
    ],
)
def test_convergence(metric, values, reached):
    assert fl.Convergence(metric, tolerance=0.1, patience=2).reached([{metric: value} for value in values]) is reached


def test_a_round_without_clients_is_no_convergence():
    history = [{"update_norm": 1.0, "clients": 2.0}, *[{"update_norm": 0.0, "clients": 0.0}] * 9]
    assert not fl.Convergence("update_norm", patience=2).reached(history)


def test_a_run_stops_when_it_has_converged_and_resumes_as_such(tmp_path):
    options = {"rounds": 60, "converge": fl.Convergence("test_loss", tolerance=10, patience=2), "out": tmp_path / "run"}
    result = run(**options)
    assert (result.status, len(result.history)) == ("converged", 9)  # the first evaluation, then two that are not better by 10
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert run(**options, resume=True).status == "converged"
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
    more = options | {"converge": fl.Convergence("test_loss", tolerance=10, patience=3)}
    assert len(run(**more, resume=True).history) == 12
    assert summary(tmp_path / "run")["status"] == "converged"


@pytest.fixture
def ctrl_c():
    """Ctrl-C acts as in a program of one's own, wherever the tests run."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_signal_ends_the_run_after_its_segment(tmp_path, monkeypatch, ctrl_c):
    def update(self, record):
        if record["round"] == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Progress, "update", update)
    result = run(out=tmp_path / "run")
    assert (result.status, len(result.history)) == ("interrupted", 3)
    assert summary(tmp_path / "run")["status"] == "interrupted"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    monkeypatch.undo()
    same_bits(run(out=tmp_path / "run", resume=True).state, run().state)


@pytest.mark.deep
def test_a_second_signal_ends_it_at_once_and_it_can_be_resumed(tmp_path, monkeypatch, ctrl_c):
    def update(self, record):
        if record["round"] == 6:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Progress, "update", update)
    with pytest.raises(KeyboardInterrupt):
        run(out=tmp_path / "run")
    assert summary(tmp_path / "run")["status"] == "interrupted"
    monkeypatch.undo()
    same_bits(run(out=tmp_path / "run", resume=True).state, run().state)


def test_a_run_that_diverges_names_the_round_and_keeps_its_last_good_checkpoint(tmp_path):
    """Its model is a number, which falls by 1 a round; from round 6 on the loss is NaN."""

    def fall(state, data, cohort):
        metrics = {"loss": jnp.where(state.server < -4.5, jnp.nan, 1.0), "clients": jnp.float32(2)}
        return state._replace(round=state.round + 1, server=state.server - 1), metrics

    algorithm = by_hand(fall)

    def start(rounds, **options):
        return run(rounds, algorithm, params=0.0, loss_fn=None, evaluate_every=2, out=tmp_path / "run", **options)

    for resume in (False, True):  # to resume it is to diverge again
        with pytest.raises(FloatingPointError, match=r"round 6 is no longer finite \(loss=nan\).*checkpoint after round 4"):
            start(8, resume=resume)
        written = summary(tmp_path / "run")
        assert (written["status"], written["rounds"]) == ("diverged", 5) and "round 6" in written["error"]
        assert len(read_records(tmp_path / "run")) == 5
        assert sorted(os.listdir(tmp_path / "run" / "checkpoints")) == ["round_2", "round_4"]
    result = start(4, resume=True)
    assert result.status == "finished" and result.params == -4


def test_an_evaluation_that_is_not_finite_stops_too():
    overflow = lambda params, batch, key: jnp.full(batch["y"].shape, jnp.inf)  # noqa: E731
    with pytest.raises(FloatingPointError, match=r"round 3 .*test_loss=inf"):
        run(loss_fn=overflow)


def test_rounds_that_lose_all_messages_stop_too():
    fedavg = fl.algorithms.fedavg(loss, optax.sgd(3e38), batches=fl.Batches(4, shuffle=False), population=7, engine=fl.sequential())
    with pytest.raises(FloatingPointError, match=r"round 1 .*non_finite=\d.0, all messages"):
        run(algorithm=fedavg, loss_fn=None)
