"""What is loaded is what its reader reads, and what its reader does not take is refused with what it takes."""

import gzip
import inspect
import json
import struct
from importlib import import_module

import numpy as np
import pytest

import fedjax_lite as fl
from fedjax_lite.data import load

X = np.arange(12, dtype=np.uint8).reshape(12, 1, 1)


@pytest.fixture
def leaf(tmp_path):
    shard = {"users": ["ann", "bob"], "num_samples": [4, 6], "user_data": {
        name: {"x": [[float(k)] for k in range(n)], "y": [k % 2 for k in range(n)]} for name, n in (("ann", 4), ("bob", 6))}}  # fmt: skip
    (tmp_path / "leaf" / "train").mkdir(parents=True)
    (tmp_path / "leaf" / "train" / "a.json").write_text(json.dumps(shard))
    return tmp_path / "leaf"


@pytest.fixture
def mnist(tmp_path):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(struct.pack(">HBB3I", 0, 8, 3, *X.shape) + X.tobytes()))
    (tmp_path / "mnist" / "train-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, 12) + bytes(k % 3 for k in range(12)))
    return tmp_path / "mnist"


def same(found, expected):
    assert (found.test is None) == (expected.test is None)
    assert [part.fingerprint() for part in found if part] == [part.fingerprint() for part in expected if part]
    assert found.names == expected.names and found.words == expected.words


def test_it_is_what_the_reader_reads(leaf, mnist, tmp_path):
    same(load(leaf), fl.data.leaf(leaf))
    same(load(str(leaf), invert=True), fl.data.leaf(leaf, invert=True))
    dealt = {"partition": fl.partition.iid(3), "seed": 5, "test": 0.5, "flat": True}
    same(load(mnist, **dealt), fl.data.mnist(mnist, **dealt))
    same(load(mnist, partition=fl.partition.iid(2)), fl.data.mnist(mnist, partition=fl.partition.iid(2)))
    fl.data.save(tmp_path / "s", fl.data.leaf(leaf).train)
    same(load(tmp_path / "s", test=tmp_path / "s"), fl.data.store(tmp_path / "s", test=tmp_path / "s"))
    assert load(tmp_path / "s", in_memory=True).train.names == fl.data.leaf(leaf).train.names


def test_refusals(leaf, mnist, tmp_path):
    with pytest.raises(
        ValueError, match=r"flat: .*leaf is read by leaf .train/a.json is a shard of LEAF., which takes .*invert.*: leave flat"
    ):
        load(leaf, flat=True)
    with pytest.raises((TypeError, ValueError), match="partition"):
        load(mnist)
    (tmp_path / "input.txt").write_text("ANN:\nHello")
    with pytest.raises(ValueError, match=r"by: .*input.txt is read by text .input.txt is text.: give by"):
        load(tmp_path / "input.txt")
    with pytest.raises(FileNotFoundError, match="none' does not exist"):
        load(tmp_path / "none")
    fl.data.save(tmp_path / "kept", load(leaf).train)
    with pytest.raises(ValueError, match=r"test: .*kept is a store .*: give the store of the held-out examples, got 0.2"):
        load(tmp_path / "kept", test=0.2)
    (mnist / "train-labels-idx1-ubyte").write_bytes(b"cut")
    with pytest.raises(ValueError, match="train-labels-idx1-ubyte is not an idx file"):  # the reader's own words
        load(mnist, partition=fl.partition.iid(2))


def test_every_format_has_its_reader():
    formats = [each.name for each in import_module("fedjax_lite.data.recognise").FORMATS]
    assert len(set(formats)) == len(formats) and set(formats) < set(fl.data.__all__)
    assert all("path" in inspect.signature(getattr(fl.data, name)).parameters for name in formats)
