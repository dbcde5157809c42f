"""keep_best: the model of the best evaluation stays beside the last one, also where a run is killed and goes on."""

import shutil
from contextlib import suppress

import numpy as np
import pytest
from problems import softmax_params
from safetensors import SafetensorError
from segments import FEDSGD, by_hand, loss, run, same_bits, summary

import fedjax_lite as fl
from fedjax_lite.runner.arguments import check_options
from fedjax_lite.runner.best import Best

ROUNDS = 15  # of which round 6 has the best accuracy, with a tie at 12, and round 3 the lowest loss


def params_after(rounds):
    return np.asarray(run(rounds).params)


@pytest.mark.parametrize(("metric", "round"), [("test_accuracy", 6), ("test_loss", 3)])
def test_it_is_the_model_of_the_best_evaluation_the_first_of_equal_ones(tmp_path, metric, round):
    result = run(ROUNDS, keep_best=metric, out=tmp_path / "run")
    values = [record.get(metric, np.nan) for record in result.history]
    best = np.nanmax(values) if metric == "test_accuracy" else np.nanmin(values)
    assert result.best[:3] == (metric, round, best) and values.index(best) == round - 1
    same_bits(result.best.params, params_after(round))
    same_bits(fl.load_params(tmp_path / "run" / "best.safetensors", softmax_params()), params_after(round))
    same_bits(fl.load_params(tmp_path / "run", softmax_params()), params_after(ROUNDS))
    assert summary(tmp_path / "run")["best"] == {"metric": metric, "round": round, "value": best} == result.best.facts()
    in_memory = run(ROUNDS, keep_best=metric).best
    assert in_memory[:3] == result.best[:3]
    same_bits(in_memory.params, result.best.params)


@pytest.mark.deep
def test_from_wherever_a_run_goes_on_its_best_model_is_there(tmp_path):
    """Copies at each evaluation are what a kill leaves there, the checkpoint in flight included."""
    out = tmp_path / "run"

    def copied(record):
        with suppress(shutil.Error):  # a checkpoint in flight has other names by then
            shutil.copytree(out, tmp_path / str(record["round"]))

    run(ROUNDS, keep_best="test_accuracy", out=out, on_evaluation=copied)
    assert sorted(path.name for path in (out / "best").iterdir()) == ["round_6.safetensors"]
    for copy in ("3", "6", "9", "15"):
        result = run(ROUNDS, keep_best="test_accuracy", out=tmp_path / copy, resume=True)
        assert result.best.round == 6
        same_bits(result.best.params, params_after(6))
        assert (tmp_path / copy / "best.safetensors").read_bytes() == (out / "best.safetensors").read_bytes()
    longer = run(ROUNDS + 3, keep_best="test_accuracy", out=out, resume=True)
    assert longer.best.round == 6
    same_bits(longer.best.params, params_after(6))
    # Asked for late, it is the best of the evaluations from then on; the other ones' models are gone.
    run(6, out=tmp_path / "late")
    assert run(ROUNDS, out=tmp_path / "late", resume=True, keep_best="test_accuracy").best.round == 12


def test_files_behind_every_checkpoint_are_removed_and_those_of_another_future_too(tmp_path):
    best = Best("test_loss", np.zeros(2, np.float32), tmp_path, [])
    for round, value in ((1, 5.0), (2, None), (3, 4.0), (4, 4.5), (5, 3.0)):
        best.look({"round": round, "test_loss": value}, lambda round=round: np.full(2, round, np.float32))
    files = lambda: sorted(path.name for path in (tmp_path / "best").iterdir())  # noqa: E731
    assert best.model.round == 5 and files() == [f"round_{k}.safetensors" for k in (1, 3, 5)]
    best.tidy(0)
    best.tidy(2)  # a run could go on from round 2, with the model of round 1
    assert len(files()) == 3
    best.tidy(4)
    assert files() == ["round_3.safetensors", "round_5.safetensors"]
    history = [{"round": 1}, {"round": 2}, {"round": 3, "test_loss": 4.0}, {"round": 4}]
    again = Best("test_loss", np.zeros(2, np.float32), tmp_path, history)
    assert again.model.round == 3 and again.model.params.tolist() == [3, 3]
    again.look({"round": 5, "test_loss": 4.5}, lambda: np.full(2, 7, np.float32))
    again.look({"round": 6, "test_loss": 2.0}, lambda: np.full(2, 8, np.float32))
    again.tidy(6)
    assert files() == ["round_6.safetensors"] and again.model.params.tolist() == [8, 8]


def test_a_global_model_of_another_structure_than_the_first_parameters_goes_on(tmp_path):
    """As of ifca, whose global model is all of its clusters'."""
    pair = FEDSGD._replace(params=lambda state: {"one": state.server, "two": 2 * state.server})
    second = lambda params, batch, key: loss(params["two"] / 2, batch, key)  # noqa: E731
    options = {"algorithm": pair, "loss_fn": second, "keep_best": "test_loss"}
    run(3, out=tmp_path / "run", **options)
    resumed, whole = run(6, out=tmp_path / "run", resume=True, **options), run(6, **options)
    assert resumed.best[:3] == whole.best[:3]
    same_bits(resumed.best.params, whole.best.params)


def test_a_file_that_is_damaged_says_so_and_lets_go_of_the_folder(tmp_path):
    run(3, keep_best="test_loss", out=tmp_path / "run")
    file = tmp_path / "run" / "best" / "round_3.safetensors"
    file.write_bytes(b"no")
    with pytest.raises(ValueError, match="round_3.safetensors cannot be read") as damaged:
        run(6, keep_best="test_loss", out=tmp_path / "run", resume=True)
    assert damaged.value.__notes__ == [f"keep_best: remove {file} to go on without the best model so far"]
    file.unlink()
    assert run(6, keep_best="test_loss", out=tmp_path / "run", resume=True).best.round == 6  # though `damaged` is still at hand


def test_a_full_disk_says_how_to_go_on(tmp_path, monkeypatch):
    def full(*arguments):
        raise SafetensorError("Error while serializing: No space left on device")

    with monkeypatch.context() as during, pytest.raises(OSError, match=r"run could not be written \(.*No space left.*\): make room, then"):
        during.setattr("fedjax_lite.runner.model_file.save_file", full)
        run(6, keep_best="test_loss", out=tmp_path / "run")
    assert summary(tmp_path / "run")["status"] == "failed" and not list(tmp_path.rglob("*.partial"))
    assert run(6, keep_best="test_loss", out=tmp_path / "run", resume=True).best.round == 3


@pytest.mark.parametrize("leads", [True, False])
def test_where_the_leader_cannot_write_a_model_no_process_goes_on(tmp_path, monkeypatch, leads):
    monkeypatch.setattr("fedjax_lite.runner.hosts.leads", lambda: leads)
    monkeypatch.setattr("fedjax_lite.runner.hosts.agreed", lambda failed: failed or not leads)
    monkeypatch.setattr("fedjax_lite.runner.best.save_params", lambda *arguments: (_ for _ in ()).throw(OSError("full")))
    best = Best("test_loss", np.zeros(2, np.float32), tmp_path, [])
    with pytest.raises(OSError, match="full" if leads else "the process that writes has failed"):
        best.look({"round": 1, "test_loss": 1.0}, lambda: np.zeros(2, np.float32))


def test_an_algorithm_that_evaluates_nothing_finite_has_no_best_model(tmp_path):
    nothing = by_hand(lambda state, data, cohort: (state._replace(round=state.round + 1), {"clients": 0.0 * state.server.sum()}))
    loss = lambda params, batch, key: (batch["x"].sum(-1) * np.inf, {})  # noqa: E731
    with pytest.raises(FloatingPointError):
        run(3, algorithm=nothing, loss_fn=loss, keep_best="test_loss", out=tmp_path / "run")
    assert not (tmp_path / "run" / "best").exists() and "best" not in summary(tmp_path / "run")


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match="keep_best must be the name of a metric, such as"):
        check_options(1, keep_best=1)
    with pytest.raises(ValueError, match=r"keep_best: no metric 'test_acuracy'; there are test_accuracy, test_loss"):
        run(keep_best="test_acuracy", out=tmp_path / "run")
    with pytest.raises(
        ValueError, match="keep_best: no metric 'loss'; there are test_accuracy"
    ):  # of training: no evaluated model is behind it
        run(keep_best="loss")
    with pytest.raises(ValueError, match="there are none: give loss_fn"):
        run(keep_best="test_loss", loss_fn=None)
    assert not (tmp_path / "run").exists()
