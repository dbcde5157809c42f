"""The events that TensorBoard reads, and writers of one's own: Weights & Biases and MLflow by stand-ins that record."""

import builtins
import struct
import sys

import pytest
from segments import run

import fedjax_lite as fl

tensorboardX = pytest.importorskip("tensorboardX")


def events(folder):
    """Every (name, round, value) in a folder's files: a record is its length, a checksum, the event, a checksum."""
    found = []
    for file in sorted(folder.iterdir()):
        data, place = file.read_bytes(), 0
        while place < len(data):
            (length,) = struct.unpack("<Q", data[place : place + 8])
            event = tensorboardX.proto.event_pb2.Event.FromString(data[place + 12 : place + 12 + length])
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            found += [("purge", event.step, 0.0)] if event.session_log.status == 1 else []
            place += 12 + length + 4
    return found


def test_every_number_of_every_round_is_a_scalar(tmp_path):
    writer = fl.writers.tensorboard()
    result = run(out=tmp_path / "run", writers=[writer])
    del writer
    found = {(name, round): value for name, round, value in events(tmp_path / "run" / "tensorboard")}
    for record in result.history:
        for name, value in record.items():
            if isinstance(value, float):
                assert found[name, record["round"]] == pytest.approx(value, rel=1e-6)
    assert found["test_clients/loss/mean", 7] == pytest.approx(result.history[-1]["test_clients"]["loss"]["mean"], rel=1e-6)
    assert ("round", 1) not in found


def test_rounds_that_are_run_again_are_purged(tmp_path):
    writer = fl.writers.tensorboard(tmp_path / "events")
    writer.write([{"round": 4, "loss": 1.0, "none": None}], None)
    del writer
    assert events(tmp_path / "events") == [("purge", 4, 0.0), ("loss", 4, 1.0)]


def test_refusals(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="the run has no folder: give out to fl.run, or path"):
        fl.writers.tensorboard().write([{"round": 1}], None)
    monkeypatch.delitem(sys.modules, "tensorboardX")
    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", lambda name, *a, **k: real("absent" if name == "tensorboardX" else name, *a, **k))
    with pytest.raises(ValueError, match=r'tensorboard needs tensorboardX: pip install "fedjax_lite\[tensorboard\]"'):
        fl.writers.tensorboard()
