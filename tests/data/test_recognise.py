"""What a path holds is told by names and first bytes: every layout is written here, tiny, by other code than the readers'."""

import gzip
import importlib
import json
import lzma
import sqlite3
import struct
import zipfile
import zlib

import numpy as np
import pytest

import fedjax_lite as fl
from fedjax_lite.data import recognise

module = importlib.import_module("fedjax_lite.data.recognise")  # as an attribute it is the function
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


def write(folder, at):
    """Write files at these paths."""
    for path, content in at.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def shard(**users):
    return json.dumps({"users": list(users), "num_samples": [1] * len(users), "user_data": {u: {"x": [[0.0]], "y": [0]} for u in users}})


def database(folder, name, *statements):
    with sqlite3.connect(folder / name) as connection:
        for each in statements:
            connection.execute(each)
    connection.close()
    return folder / name


def tff(folder, name="emnist.sqlite"):
    return database(
        folder, name, "CREATE TABLE examples (split_name TEXT, client_id TEXT, serialized_example_proto BLOB)",
        "CREATE TABLE client_metadata (client_id TEXT, split_name TEXT, num_examples INTEGER)",
    )  # fmt: skip


def fedjax(folder):
    return database(
        folder, "emnist_train.sqlite", "CREATE TABLE federated_data (client_id BLOB PRIMARY KEY, data BLOB, num_examples INTEGER)"
    )


def packed(folder):
    file = tff(folder, "plain.sqlite")
    (folder / "emnist.sqlite.lzma").write_bytes(lzma.compress(file.read_bytes(), format=lzma.FORMAT_ALONE))
    file.unlink()
    return folder / "emnist.sqlite.lzma"


def npz(folder, name, **arrays):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    np.savez(folder / name, **arrays)
    return folder / name


def pfllib(folder):
    for part in ("train", "test"):
        npz(folder, f"{part}/0.npz", data=np.array({"x": 1}, object))
    (folder / "config.json").write_text('{"num_clients": 1}')
    return folder


def store(folder):
    fl.data.save(folder / "s", [{"x": np.ones(2)}])
    return folder / "s"


def zipped(folder, name="images.zip", inside="train/cat/1.png", content=PNG):
    with zipfile.ZipFile(folder / name, "w") as file:
        file.writestr("train/", "")
        file.writestr(inside, content)
    return folder / name


IDX = struct.pack(">HBBI", 0, 8, 1, 1) + b"\0"
HDF, ARROW, STREAM, PICKLE = b"\x89HDF\r\n\x1a\n", b"ARROW1\0\0", b"\xff\xff\xff\xff", b"\x80\x04"
WITH_GROUPS = '{\n "hierarchies": ["a"], "users": []}'
FOLDERS = {
    "leaf": ("leaf", {"train/all_data_0_niid_0_keep_0_train_9.json": shard(a=0), "test/all.json": shard(a=0)}),
    "leaf, shards alone": ("leaf", {"one.json": shard(a=0), "README.md": "a"}),
    "leaf, groups and images": ("leaf", {"train/a.json": WITH_GROUPS, "raw/img/1.jpg": PNG, "notes.csv": "a,b\n"}),
    "mnist": ("mnist", {"train-images-idx3-ubyte.gz": gzip.compress(IDX), "train-labels.idx1-ubyte": IDX}),
    "mnist, of torchvision": ("mnist", {"MNIST/raw/t10k-images-idx3-ubyte": IDX, "MNIST/raw/a.txt": "a"}),
    "emnist": ("mnist", {"emnist-letters-train-images-idx3-ubyte": IDX}),
    "cifar, binary": ("cifar", {"data_batch_1.bin": bytes(3073 * 2), "batches.meta.txt": "a"}),
    "cifar, pickles": ("cifar", {"cifar-10-batches-py/data_batch_1": PICKLE, "cifar-10-batches-py/readme.html": "a"}),
    "cifar 100, binary": ("cifar", {"train.bin": bytes(3074 * 2), "test.bin": bytes(3074)}),
    "cifar 100, pickles": ("cifar", {"train": PICKLE, "test": PICKLE, "meta": PICKLE}),
    "tff_hdf5": ("tff_hdf5", {"shakespeare_train.h5": HDF, "shakespeare_test.h5": HDF}),
    "arrow": ("arrow", {"dataset_info.json": "{}", "state.json": "{}", "data-00000-of-00001.arrow": STREAM}),
    "arrow, splits": ("arrow", {"dataset_dict.json": "{}", "train/data-00000-of-00001.arrow": STREAM}),
    "parquet": ("parquet", {"data/train-00000-of-00002.parquet": b"PAR1", "README.md": "a"}),
    "images": ("images", {"cat/1.png": PNG, "dog/2.JPEG": PNG, "labels.txt": "cat"}),
    "images of clients": ("images", {"ann/train/cat/1.jpg": PNG}),
    "csv": ("csv", {"people.csv": "a,b\n1,2\n", "columns.txt": "a"}),
    "arff": ("arff", {"iris.arff": "% of Fisher\n%\n\n@RELATION iris\n"}),
    "text": ("text", {"input.txt": "ANN:\nHello", "LICENSE.txt": "free", "README.txt": "read"}),
}
FILES = {
    "leaf, one shard": ("leaf", "one.json", shard(a=0)),
    "tff_hdf5, of any name": ("tff_hdf5", "clients.data", HDF),
    "arrow, a file": ("arrow", "a.feather", ARROW),
    "parquet, a file": ("parquet", "a.parquet", b"PAR1"),
    "csv, tabs, packed": ("csv", "people.tsv.gz", gzip.compress(b"a\tb\n")),
}
MADE = {
    "pfllib": ("pfllib", pfllib),
    "tff_sqlite": ("tff_sqlite", tff),
    "tff_sqlite, packed": ("tff_sqlite", packed),
    "fedjax_sqlite": ("fedjax_sqlite", fedjax),
    "fedjax_sqlite, a folder": ("fedjax_sqlite", lambda folder: fedjax(folder).parent),
    "npz": ("npz", lambda folder: npz(folder, "mnist.npz", x_train=np.zeros(2), y_train=np.zeros(2))),
    "images, zipped": ("images", zipped),
    "store": ("store", store),
}
LAYOUTS = {name: (format, lambda folder, files=files: write(folder, files)) for name, (format, files) in FOLDERS.items()}
LAYOUTS |= {name: (format, lambda folder, k=k, x=x: write(folder, {k: x}) / k) for name, (format, k, x) in FILES.items()} | MADE


@pytest.mark.parametrize(("format", "made"), LAYOUTS.values(), ids=LAYOUTS)
def test_each_layout_is_told(tmp_path, format, made):
    path = made(tmp_path)
    found = recognise(path)
    assert found.format == format and (path.name if path.is_file() else "") in found.why
    assert recognise(str(path)) == found


def test_every_format_has_a_layout_here():
    assert {format for format, _ in LAYOUTS.values()} == {each.name for each in module.FORMATS}


@pytest.mark.parametrize(
    ("files", "both"),
    [
        ({"a.csv": "a\n", "b.parquet": b"PAR1"}, "parquet .b.parquet is a Parquet file. and csv .a.csv is a table"),
        ({"cat/1.png": PNG, "a.csv": "a\n"}, "csv .* and images .cat/1.png is an image"),
        ({"train/a.json": shard(a=0), "train-images-idx3-ubyte": IDX}, "leaf .train/a.json is a shard of LEAF. and mnist"),
    ],
)
def test_two_formats_are_both_named(tmp_path, files, both):
    with pytest.raises(fl.data.DataError, match=rf"holds {both}.*: take fl.data.\w+ or fl.data.\w+ .in a configuration name = ") as error:
        recognise(write(tmp_path, files))
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    ("files", "shown"),
    [
        ({}, "no files"),
        ({".hidden.csv": "a", ".git/a.csv": "a"}, "no files"),
        ({"a.h5": "no HDF5", "b.parquet": "PARQ", "c.json": '{"a": 1}', "d.npz": b"PK\3\4 cut"}, r"a.h5, b.parquet, c.json, \.\.\."),
        ({"a.zip": "of images, which is read as a file"}, "a.zip"),
        ({"README.txt": "a", "licence.txt": "a"}, "README.txt, licence.txt"),
        ({"data_batch_1.bin": bytes(100), "x.sqlite": b"SQLite format 3\0 of others"}, "data_batch_1.bin, x.sqlite"),
        ({"a.zip": b"PK\3\4 cut off", "b.sqlite.lzma": b"nothing packed"}, "a.zip, b.sqlite.lzma"),
    ],
)
def test_what_is_of_no_format_says_what_there_is(tmp_path, files, shown):
    with pytest.raises(fl.data.DataError, match=f"holds no known format .{shown}.: take the function of fl.data .*one of store, leaf, "):
        recognise(write(tmp_path, files))


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="path='.*none' does not exist: give the file or the folder that holds the data"):
        recognise(tmp_path / "none")


def test_of_many_files_some_are_looked_at(tmp_path, monkeypatch):
    """The nearest first: a million images below do not hide what stands above them, and only heads are read."""
    monkeypatch.setattr(module, "MOST_FILES", 8)
    monkeypatch.setattr(module, "MOST_ENTRIES", 5)
    write(tmp_path, {f"{k}/{i}.png": PNG for k in range(3) for i in range(9)} | {"z.csv": "a"})
    assert len(list(module._files(tmp_path))) == 8 and "z.csv" in {each.name for each in module._files(tmp_path)}
    monkeypatch.setattr(module, "MOST_FILES", 0)
    with pytest.raises(fl.data.DataError, match="no known format .no files"):
        recognise(tmp_path)
    big = write(tmp_path / "big", {"a.json": shard(a=0) + " " * 300_000}) / "a.json"
    assert recognise(big).format == "leaf" and len(module._head(big)) == module.HEAD


def test_a_zlib_stream_is_no_database(tmp_path):
    with pytest.raises(fl.data.DataError):
        recognise(write(tmp_path, {"a.db": zlib.compress(b"SQLite format 3")}) / "a.db")


def test_real_data(real_data):
    expected = {
        "femnist_leaf": "leaf", "mnist_idx": "mnist", "mnist_pfllib": "pfllib", "shakespeare_tff": "tff_hdf5", "tinyshakespeare": "text",
        "cifar10_jpg/cifar10_test.zip": "images",
    }  # fmt: skip
    assert {name: recognise(real_data / name).format for name in expected if (real_data / name).exists()} == {
        name: format for name, format in expected.items() if (real_data / name).exists()
    }
