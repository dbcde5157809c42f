"""Every format, its files damaged anywhere: read, or refused with the file's name, and nothing run or taken beyond its size."""

import gzip
import json
import lzma
import pickle
import shutil
import zipfile
import zlib

import numpy as np
import pytest
import test_fedjax_sqlite
import test_tff_hdf5
import test_tff_sqlite
from fuzz import fuzz
from test_cifar import write_hundred
from test_idx import write as write_idx
from test_npz import client, keras, npy, write_pfllib

import fedjax_lite as fl

EVERY = fl.partition.iid(clients=1)


def write_leaf(folder):
    for part, values in (("train", [[0.5, 1.0]] * 2), ("test", [[0.25, 2.0]])):
        (folder / part).mkdir()
        users = {user: {"x": values, "y": [1] * len(values)} for user in ("ann", "bob")}
        shard = {"users": list(users), "num_samples": [len(values)] * 2, "user_data": users}
        (folder / part / "shard.json").write_text(json.dumps(shard))


def write_leaf_text(folder):
    (folder / "train").mkdir()
    tweets = {"x": [["1", "2", "3", "4", "so good", "6"]] * 2, "y": [1, 0]}
    (folder / "train" / "shard.json").write_text(json.dumps({"users": ["u"], "num_samples": [2], "user_data": {"u": tweets}}))


def read_gzip(folder):
    """The idx files packed, so that the damage is inside."""
    packed = folder / "packed"
    packed.mkdir(exist_ok=True)
    for file in folder.glob("*ubyte"):
        (packed / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes(), 1))
    return fl.data.mnist(packed, partition=EVERY, test=0)


def write_npy(folder):
    (folder / "x.npy").write_bytes(npy(np.arange(6, dtype=">f4").tobytes(), ">f4", (3, 2)))
    (folder / "y.npy").write_bytes(npy(bytes([0, 1, 2]), "|u1", (3, 1)))


def read_npy(folder):
    with zipfile.ZipFile(folder / "packed.npz", "w") as archive:
        for file in folder.glob("*.npy"):
            archive.write(file, file.name)
    return fl.data.npz(folder / "packed.npz", partition=EVERY, test=0)


def write_object(folder):
    (folder / "data.npy").write_bytes(npy(pickle.dumps(np.array(client(3)), 4), "|O", ()))


def read_object(folder):
    shutil.rmtree(folder / "set", ignore_errors=True)
    (folder / "set" / "train").mkdir(parents=True)
    with zipfile.ZipFile(folder / "set" / "train" / "0.npz", "w") as archive:
        archive.write(folder / "data.npy", "data.npy")
    return fl.data.pfllib(folder / "set", test=0)


def write_tff_hdf5(folder):
    held = {"x": np.ones((3, 2), np.float32), "y": np.arange(3)}
    test_tff_hdf5.write(folder / "a_train.h5", {"ann": held, "bob": held})


TFF_ROWS = [
    (split, name, test_tff_sqlite.example(x=[0.5, 1.0], y=[300]))
    for split in ("train", "test")
    for name in ("ann", "bob")
    for _ in range(3)
]


def read_tff_packed(folder):
    (folder / "packed.sqlite.lzma").write_bytes(lzma.compress((folder / "a.sqlite").read_bytes(), preset=0))
    return fl.data.tff_sqlite(folder / "packed.sqlite.lzma")


def read_example(folder):
    example = (folder / "example").read_bytes()
    return fl.data.tff_sqlite(test_tff_sqlite.write(folder / "a.sqlite", [("train", "ann", example)] * 2), test=0)


FEDJAX_ROWS = [test_fedjax_sqlite.client(name, 4, **test_fedjax_sqlite.xy(4)) for name in (b"ann", b"bob")]


def write_msgpack(folder):
    table = test_fedjax_sqlite.table(**test_fedjax_sqlite.xy(2), snippets=test_fedjax_sqlite.texts([b"a", b"b"]))
    (folder / "msgpack").write_bytes(table)


def read_msgpack(folder):
    row = (b"ann", zlib.compress((folder / "msgpack").read_bytes(), 1), 2)
    return fl.data.fedjax_sqlite(test_fedjax_sqlite.write(folder / "a_train.sqlite", [row]), test=0)


FORMATS = {
    "leaf": (lambda folder: fl.data.leaf(folder), write_leaf),
    "leaf tweets": (lambda folder: fl.data.leaf(folder, length=4, test=0), write_leaf_text),
    "idx": (lambda folder: fl.data.mnist(folder, partition=EVERY, test=0), lambda folder: write_idx(folder, "train", 3)),
    "idx in gzip": (read_gzip, lambda folder: write_idx(folder, "train", 3)),
    "cifar pickles": (lambda folder: fl.data.cifar(folder, partition=EVERY), lambda folder: write_hundred(folder, binary=False)),
    "cifar binary": (lambda folder: fl.data.cifar(folder, partition=EVERY), lambda folder: write_hundred(folder, binary=True)),
    "npz": (lambda folder: fl.data.npz(folder / "a.npz", partition=EVERY, test=0), lambda folder: keras(folder / "a.npz")),
    "npy in npz": (read_npy, write_npy),
    "pfllib": (
        lambda folder: fl.data.pfllib(folder, test=0),
        lambda folder: write_pfllib(folder, {"0": client(2), "1": client(1)}, protocol=4),
    ),
    "pickle in pfllib": (read_object, write_object),
    "tff hdf5": (lambda folder: fl.data.tff_hdf5(folder, test=0), write_tff_hdf5),
    "tff sqlite": (lambda folder: fl.data.tff_sqlite(folder), lambda folder: test_tff_sqlite.write(folder / "a.sqlite", TFF_ROWS)),
    "tff sqlite in lzma": (read_tff_packed, lambda folder: test_tff_sqlite.write(folder / "a.sqlite", TFF_ROWS)),
    "example in tff sqlite": (
        read_example,
        lambda folder: (folder / "example").write_bytes(test_tff_sqlite.example(x=[0.5, 1.0], y=[300, -1])),
    ),
    "fedjax sqlite": (
        lambda folder: fl.data.fedjax_sqlite(folder, test=0),
        lambda folder: test_fedjax_sqlite.write(folder / "a_train.sqlite", FEDJAX_ROWS),
    ),
    "msgpack in fedjax sqlite": (read_msgpack, write_msgpack),
}


@pytest.mark.filterwarnings("ignore:.*stands alone")
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("examples", [20, pytest.param(10_000, marks=pytest.mark.slow)])
def test_damage_is_named(name, examples):
    fuzz(*FORMATS[name], examples)
