"""`fedjax-lite export`: each kind of file of a run that has ended, and what says why there is none."""

import json
import sys

import flax.linen as nn
import jax
import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import load_file
from shells import shell_in

import fedjax_lite as fl
from fedjax_lite.runner.architecture import architecture_of, save_architecture
from fedjax_lite.runner.model_file import save_params

MODEL = fl.models.mlp((3,), classes=2)
EXAMPLE = {"x": np.ones(4, np.float32), "y": np.int32(0)}
PARAMS = MODEL.init(jax.random.key(0), EXAMPLE)


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys):
    """The command line beside `run`, the folder of a run."""
    written(tmp_path / "run", MODEL, PARAMS)
    return shell_in(tmp_path, monkeypatch, capsys)


def written(folder, model, params):
    folder.mkdir()
    (folder / "summary.json").write_text('{"status": "finished"}')
    save_params(folder, params)
    save_architecture(folder, architecture_of(fl.models.supervised(model), params, EXAMPLE))


def test_a_prediction(shell, tmp_path):
    status, out, _ = shell("export run --to jax")
    assert status == 0 and "takes x float32[batch, 4] on cpu, cuda, tpu\nwritten to run/model.jax: " in out
    x = np.ones((2, 4), np.float32)
    np.testing.assert_allclose(fl.export.load_prediction(tmp_path / "run" / "model.jax")(x), MODEL.apply(PARAMS, {"x": x}, None), rtol=1e-6)


def test_a_state_dict_of_the_best_model(shell, tmp_path):
    assert shell("export run --to torch --best")[0] == 2
    kept = jax.tree.map(lambda x: x + 1, PARAMS)
    save_params(tmp_path / "run", kept, "best.safetensors")
    status, out, _ = shell("export run --to torch --best --out new/state.safetensors --json")
    assert status == 0 and json.loads(out)["bytes"] == (tmp_path / "new" / "state.safetensors").stat().st_size
    wanted = fl.export.state_dict(MODEL, kept)
    found = load_file(tmp_path / "new" / "state.safetensors")
    assert found.keys() == wanted.keys() and all((found[name] == wanted[name]).all() for name in wanted)


def test_arrays_in_their_order(shell, tmp_path):
    status, out, _ = shell("export run --to arrays")
    assert status == 0 and out.startswith("4 arrays: Dense_0/bias, Dense_0/kernel, Dense_1/bias, Dense_1/kernel\n")
    found = list(np.load(tmp_path / "run" / "arrays.npz").values())
    assert all((a == b).all() for a, b in zip(found, fl.export.arrays(PARAMS), strict=True))


def test_what_cannot_be_written_says_why(shell, tmp_path):
    own = fl.models.from_linen(nn.Dense(3))
    written(tmp_path / "own", own, own.init(jax.random.key(0), EXAMPLE))
    half = jax.tree.map(lambda x: x.astype(jax.numpy.bfloat16), PARAMS)
    written(tmp_path / "half", MODEL, half)
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "summary.json").write_text('{"status": "running"}')
    for line, why in (
        ("export own --to jax", "the model of the run cannot be made again"),
        ("export bare --to torch", "there is no params.safetensors yet, the run's status is 'running'"),
        ("export none --to torch", "none is no folder: give the folder that fl.run"),
        ("export half --to arrays", "--to arrays: Dense_0/bias is bfloat16, which an npz does not hold: take --to torch"),
    ):
        status, _, error = shell(line)
        assert status == 2 and why in error, (line, error)
    assert shell("export own --to arrays")[0] == 0


def test_what_a_disk_or_an_absent_package_refuses_is_one_line(shell, monkeypatch):
    def full(*arguments):
        raise SafetensorError("No space left on device")

    with monkeypatch.context() as during:
        during.setattr("fedjax_lite.runner.model_file.save_file", full)
        status, out, error = shell("export run --to torch --json")
    assert status == 1 == json.loads(out)["exit_status"] and error.startswith("error: ") and "No space left" in error
    monkeypatch.setattr(sys.modules["fedjax_lite.export.prediction"], "find_spec", lambda name: None)
    status, out, error = shell("export run --to jax --json")
    assert status == 1 and json.loads(out)["error"] in error and error.startswith("error: prediction needs flatbuffers: pip install")
