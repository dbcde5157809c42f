"""Keras's and PFLlib's .npz files, written as zip files by hand, and the 70,000 real images of PFLlib's MNIST."""

import io
import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
from fuzz import taking_at_most

import fedjax_lite as fl
from fedjax_lite.data import DataError, npz, pfllib

EVERY = fl.partition.iid(clients=1)
TEN = np.arange(10)


def npy(values, descr, shape, fortran=False, version=1):
    """An .npy file byte by byte: magic, version, length of the header, header, values."""
    header = f"{{'descr': {descr!r}, 'fortran_order': {fortran}, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(header)) + header + values


def archive(file, packing=zipfile.ZIP_DEFLATED, **members):
    with zipfile.ZipFile(file, "w", packing) as each:
        for name, data in members.items():
            each.writestr(f"{name}.npy", data)
    return file


def keras(file, **changed):
    x = np.arange(24, dtype=np.uint8).tobytes()
    members = {
        "x_train": npy(x, "|u1", (3, 2, 4)),
        "y_train": npy(struct.pack(">3q", 2, 0, 1), ">i8", (3, 1)),
        "x_test": npy(x[:8], "|u1", (1, 4, 2), fortran=True).replace(b"(1, 4, 2)", b"(1, 2, 4)"),
        "y_test": npy(b"\x01", "|u1", (1,), version=2),
    }
    return archive(file, **{name: data for name, data in (members | changed).items() if data is not None})


def test_keras_byte_by_byte(tmp_path):
    data = npz(keras(tmp_path / "mnist.npz"), partition=EVERY)
    order = np.argsort(data.train.examples["y"])
    assert np.asarray(data.train.examples["y"])[order].tolist() == [0, 1, 2] and data.train.examples["y"].dtype == np.int32
    images = np.arange(24).reshape(3, 2, 4, 1)[[1, 2, 0]] / 255
    np.testing.assert_array_equal(np.asarray(data.train.examples["x"])[order], images.astype(np.float32))
    assert data.test.population == 1 and data.test.examples["y"].tolist() == [1]
    np.testing.assert_array_equal(data.test.examples["x"][0, ..., 0] * 255, [[0, 2, 4, 6], [1, 3, 5, 7]])


def test_x_and_y_are_dealt_and_held_out(tmp_path):
    np.savez(tmp_path / "a.npz", x=TEN.reshape(10, 1) / 2, y=TEN / 4, other=np.array([{}], object))
    data = npz(str(tmp_path / "a.npz"), partition=EVERY, test=0.3)
    assert data.train.size.tolist() == [7] and data.test.size.tolist() == [3]
    assert sorted([*data.train.examples["y"].tolist(), *data.test.examples["y"].tolist()]) == (TEN / 4).tolist()
    np.testing.assert_array_equal(data.train.examples["x"][:, 0], 2 * data.train.examples["y"])


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.npz' is not there: give an .npz file"):
        npz(tmp_path / "nowhere.npz", partition=EVERY)
    with pytest.raises(DataError, match="is no regular file"):
        npz(tmp_path, partition=EVERY)
    with pytest.raises(ValueError, match="partition: these files name no clients"):
        npz(keras(tmp_path / "a.npz"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"y_train": None}, "a.npz has no y_train"),
        ({"x_test": None}, "a.npz has no x_test"),
        ({"x_train": None, "y_train": None}, "a.npz holds x_test, y_test: expected x_train and y_train, or x and y"),
        ({"x": npy(b"", "|u1", (0,))}, "holds x_train, .* x: expected x_train and y_train, or x and y"),
        ({"x_train": npy(b"\x01" * 23, "|u1", (3, 2, 4))}, r"a.npz: x_train has 23 bytes of values, its header .* says 24"),
        ({"x_train": npy(b"", "<f8", (2**40, 2**20))}, "a.npz: x_train has 0 bytes of values, its header .* says 9223372036854775808"),
        ({"x_train": npy(b"", "|u1", (-1, 2))}, "a.npz: x_train starts with no header"),
        ({"x_train": npy(b"abcabcabc", "|S3", (3,))}, r"a.npz: x_train holds \|S3, not numbers"),
        ({"x_train": npy(bytes(24), "<c8", (3,))}, "a.npz: x_train holds <c8, not numbers"),
        ({"x_train": npy(pickle.dumps(np.array([{}], object)), "|O", (1,))}, "a.npz holds objects as x_train: write arrays of numbers"),
        ({"x_train": npy(struct.pack("<3f", 1, np.nan, 2), "<f4", (3,))}, "a.npz: x of example 1 holds NaN, Inf"),
        ({"x_train": npy(struct.pack("<3d", 1, 2, 1e300), "<f8", (3,))}, "a.npz: x of example 2 holds NaN, Inf or a number beyond float32"),
        ({"y_train": npy(struct.pack("<3q", 1, 2, 2**40), "<i8", (3,))}, "a.npz: y of example 2 holds a number beyond int32"),
        ({"y_train": npy(b"\1", "|u1", (1,))}, r"a.npz has leaves of unequal length \(x \[3, 2, 4, 1\], y \[1\]\)"),
        ({"y_train": npy(b"\1", "|u1", ())}, "a.npz has leaves of unequal length"),
        ({"x_train": npy(b"", "|u1", (0,)), "y_train": npy(b"", "|u1", (0,))}, "a.npz holds no examples"),
        ({"x_train": npy(b"", "(" * 3000, (0,))}, "a.npz: "),
        ({"x_train": b"\x93NUMPY\3\0\0\0\0\0"}, "a.npz: x_train starts with no header"),
        ({"x_train": b"hello"}, "a.npz: "),
    ],
)
def test_arrays_that_are_damaged_are_named(tmp_path, changed, message):
    with pytest.raises(DataError, match=message):
        npz(keras(tmp_path / "a.npz", **changed), partition=EVERY)


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_packings_are_refused(tmp_path, packing):
    archive(tmp_path / "a.npz", packing, x=npy(b"\1", "|u1", (1,)), y=npy(b"\1", "|u1", (1,)))
    with pytest.raises(DataError, match="a.npz: the array 'x' is packed in another way than NumPy's"):
        npz(tmp_path / "a.npz", partition=EVERY)


def test_a_bomb_is_unpacked_no_further_than_a_file_of_its_size_may(tmp_path):
    members = {name: npy(bytes(2**26), "|u1", (2**26,)) for name in "xy"}
    archive(tmp_path / "a.npz", **members)
    with taking_at_most(2**28):
        with pytest.raises(DataError, match="a.npz: the array 'x' has 67108865 bytes unpacked, too many for a file of this size"):
            npz(tmp_path / "a.npz", partition=EVERY)


def client(n, first=0.0):
    return {"x": np.arange(first, first + 12 * n, dtype=np.float32).reshape(n, 2, 3, 2), "y": np.arange(n) % 3}


def write_pfllib(folder, clients, part="train", protocol=4):
    (folder / part).mkdir(parents=True, exist_ok=True)
    for name, held in clients.items():
        table = np.array(held)
        archive(folder / part / f"{name}.npz", data=npy(pickle.dumps(table, protocol), "|O", ()))
    return folder


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_pfllib_clients_are_files(tmp_path, protocol):
    write_pfllib(tmp_path, {"10": client(2), "9": client(3, 100)}, protocol=protocol)
    write_pfllib(tmp_path, {"10": client(1, 50)}, "test")
    (tmp_path / "config.json").write_text(json.dumps({"num_clients": 2}))
    data = pfllib(tmp_path)
    assert data.names == ("9", "10") and data.train.size.tolist() == [3, 2] and data.test.size.tolist() == [0, 1]
    image = np.asarray(data.train.client(1)["x"][0])  # channels come last
    assert [image[row, column, channel] for channel in range(2) for row in range(3) for column in range(2)] == list(range(12))
    assert data.test.client(1)["y"].tolist() == [0] and data.train.examples["y"].dtype == np.int32


def test_pfllib_as_numpy_writes_it(tmp_path):
    (tmp_path / "train").mkdir()
    np.savez_compressed(tmp_path / "train" / "0.npz", data={"x": np.eye(10, dtype=np.float32), "y": TEN.tolist()})
    data = pfllib(tmp_path)
    assert data.train.size.tolist() == [8] and data.test.size.tolist() == [2] and data.example["x"].shape == (10,)
    dealt = pfllib(tmp_path, partition=fl.partition.iid(5), test=0)
    assert dealt.population == 5 and dealt.names is None


class Runs:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"x": np.ones(1)}, '1.npz holds no array "data" of one table with the arrays "x" and "y"'),
        ({"x": [1.0], "y": np.ones(1)}, '1.npz holds no array "data" of one table'),
        ({"x": np.ones(1), "y": [2**80]}, "1.npz: Python int too large"),
        ({"x": np.ones(2), "y": TEN}, "client '1' of .*train has leaves of unequal length"),
        ({"x": np.ones((10, 2)), "y": TEN}, "train: an example's x has the shape .2. at client '1' and .3, 2, 2. at client '0'"),
        ({"x": np.full((1, 2, 3, 2), np.inf), "y": TEN[:1]}, "train: x of client '1' holds NaN, Inf"),
        ({"x": np.array([{}]), "y": TEN[:1]}, '1.npz holds no array "data"'),
        ([1, 2], '1.npz holds no array "data"'),
    ],
)
def test_pfllib_clients_of_another_form(tmp_path, held, message):
    write_pfllib(tmp_path, {"0": client(2), "1": held})
    with pytest.raises(DataError, match=message):
        pfllib(tmp_path)


def test_pfllib_folders_of_another_form(tmp_path):
    with pytest.raises(FileNotFoundError, match="train' is not a folder: give the one that holds one .npz file a client"):
        pfllib(tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match=r"train holds no \*.npz files"):
        pfllib(tmp_path)
    write_pfllib(tmp_path, {"0": client(5)})
    for config, message in (
        ('{"num_clients": 2}', "tells of 2 clients, train/ has 1"),
        ("{", "config.json: "),
        ("[" * 10**5, "config.json: "),
    ):
        (tmp_path / "config.json").write_text(config)
        with pytest.raises(DataError, match=message):
            pfllib(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    assert pfllib(tmp_path).population == 1
    write_pfllib(tmp_path, {"0": client(1), "1": client(1)}, "test")
    with pytest.raises(DataError, match="test: 1 of 2 clients, such as '1', are not in the training part"):
        pfllib(tmp_path)


def test_an_object_that_would_run_something(tmp_path):
    write_pfllib(tmp_path, {"0": {"x": Runs(tmp_path / "run"), "y": TEN}})
    with pytest.raises(DataError, match="0.npz: data: no data at byte .* of its pickle .the name posix.system.: .*which is not run"):
        pfllib(tmp_path)
    assert not (tmp_path / "run").exists()
    file = tmp_path / "train" / "0.npz"
    np.savez(file, data=np.ones(3))
    with pytest.raises(DataError, match='0.npz holds no array "data"'):
        pfllib(tmp_path)
    file.write_bytes(io.BytesIO(b"no zip").getvalue())
    with pytest.raises(DataError, match="0.npz: File is not a zip file"):
        pfllib(tmp_path)


@pytest.mark.deep
def test_real_mnist_of_pfllib(real_data):
    data = pfllib(real_data / "mnist_pfllib")
    train, test = np.asarray(data.train.size), np.asarray(data.test.size)
    assert data.population == data.test.population == 20 and data.names == tuple(map(str, range(20)))
    assert (train.sum(), test.sum()) == (52_492, 17_508) and (train.min(), train.max()) == (374, 4641)
    x = np.asarray(data.train.examples["x"])
    assert x.shape[1:] == (28, 28, 1) and x.min() == -1 and x.max() == 1
    counts = np.bincount(np.concatenate([data.train.examples["y"], data.test.examples["y"]]))
    assert counts.tolist() == [6903, 7877, 6990, 7141, 6824, 6313, 6876, 7293, 6825, 6958]  # of all 70,000 images of MNIST
