"""idx files written by hand, and the real MNIST test images."""

import gzip
import struct
from inspect import unwrap

import numpy as np
import pytest
from fuzz import taking_at_most

from fedjax_lite.data import DataError, mnist, partition
from fedjax_lite.data.formats.idx import read_idx

TYPES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}


def encode(array):
    header = bytes([0, 0, TYPES[array.dtype.name], array.ndim]) + b"".join(struct.pack(">I", n) for n in array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write(folder, split, n, names="{}-images-idx3-ubyte {}-labels-idx1-ubyte", seed=0):
    """n images of 4 x 3 pixels with 3 classes."""
    rng = np.random.default_rng(seed)
    images, labels = rng.integers(0, 256, (n, 4, 3), np.uint8), (np.arange(n) % 3).astype(np.uint8)
    for name, array in zip(names.format(split, split).split(), (images, labels), strict=True):
        data = encode(array)
        (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return images, labels


@pytest.fixture(scope="module")
def real(real_data):
    if not (real_data / "mnist_idx").is_dir():
        pytest.skip(f"no mnist_idx in {real_data}: set FEDJAX_LITE_DATA to a folder that has it")
    return real_data / "mnist_idx"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 4), (0, 3)])
def test_read_idx_is_the_inverse_of_the_format(tmp_path, dtype, shape, packed):
    array = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    data = encode(array)
    (tmp_path / "file").write_bytes(gzip.compress(data) if packed else data)
    result = read_idx(tmp_path / "file")
    np.testing.assert_array_equal(result, array)
    assert result.dtype == array.dtype and result.dtype.isnative


def test_read_idx_byte_by_byte(tmp_path):
    (tmp_path / "file").write_bytes(bytes([0, 0, 0x0B, 2, 0, 0, 0, 1, 0, 0, 0, 2, 1, 0, 255, 254]))
    assert read_idx(str(tmp_path / "file")).tolist() == [[256, -2]]


GOOD = encode(np.arange(6, dtype=np.int32).reshape(2, 3))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not an idx file: it starts with nothing"),
        (b"<html>", "is not an idx file: it starts with 3c 68 74 6d, expected 00 00"),
        (bytes([0, 0, 0x07, 1, 0, 0, 0, 0]), "is not an idx file: it starts with 00 00 07 01"),
        (bytes([0, 0, 0x08, 0]), "is not an idx file"),
        (bytes([0, 0, 0x08, 255]) + bytes(4 * 255), "is not an idx file: it starts with 00 00 08 ff"),
        (GOOD[:7], "ends within its header of 2 axes: it is cut off"),
        (GOOD[:4], "ends within its header of 2 axes"),
        (GOOD[:-1], r"has 35 bytes, its header \(int32, \[2, 3\]\) says 36: it is cut off or damaged, copy it again"),
        (GOOD + b"\0", "has more than 36 bytes, its header .* says 36"),
        (gzip.compress(GOOD, mtime=0)[:-9], "cannot be unpacked .*: it is cut off or damaged"),
        (gzip.compress(GOOD, mtime=0)[:10] + b"\xff" * 20, "cannot be unpacked"),
        (gzip.compress(GOOD, mtime=0)[:-8] + b"\0" * 8, "cannot be unpacked"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} bytes",
)
def test_damaged_files_are_named(tmp_path, data, message):
    (tmp_path / "some-file").write_bytes(data)
    with pytest.raises(DataError, match="some-file " + message):
        read_idx(tmp_path / "some-file")


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing-here"):
        read_idx(tmp_path / "nothing-here")


@pytest.mark.parametrize(
    "names",
    [
        "{}-images-idx3-ubyte {}-labels-idx1-ubyte",
        "{}-images-idx3-ubyte.gz {}-labels-idx1-ubyte.gz",
        "{}-images.idx3-ubyte {}-labels.idx1-ubyte",
        "emnist-letters-{}-images-idx3-ubyte.gz emnist-letters-{}-labels-idx1-ubyte.gz",
    ],
)
def test_train_is_dealt_and_t10k_is_central(tmp_path, names):
    images, labels = write(tmp_path, "train", 30, names)
    held_images, held_labels = write(tmp_path, "test" if "emnist" in names else "t10k", 6, names, seed=1)
    data = mnist(tmp_path, partition=partition.shards(5), seed=2)
    assert data.train.size.tolist() == [6] * 5
    assert data.test.population == 1
    if "emnist" in names:  # whose images lie on their side
        images, held_images = images.transpose(0, 2, 1), held_images.transpose(0, 2, 1)
    np.testing.assert_array_equal(data.test.examples["x"], held_images[..., None].astype(np.float32) / 255)
    np.testing.assert_array_equal(data.test.examples["y"], held_labels)
    parts = partition.shards(5)(np.random.default_rng(2), labels)
    np.testing.assert_array_equal(np.round(data.train.client(3)["x"][..., 0] * 255), images[parts[3]])
    np.testing.assert_array_equal(data.train.client(3)["y"], labels[parts[3]])
    assert (
        data.example["x"].shape == (*images.shape[1:], 1) and data.example["x"].dtype == np.float32 and data.example["y"].dtype == np.int32
    )


@pytest.mark.parametrize("split", ["train", "t10k"])
def test_a_single_pair_is_dealt_with_a_hold_out(tmp_path, split):
    write(tmp_path, split, 60)
    data = mnist(str(tmp_path), partition=partition.iid(5), test=0.25, flat=True)
    assert (data.train.size.tolist(), data.test.size.tolist()) == ([9] * 5, [3] * 5)
    assert data.example["x"].shape == (12,)
    assert mnist(tmp_path, partition=partition.iid(5), test=0).test is None


@pytest.mark.parametrize(
    ("name", "upright", "turned"), [("{}", None, 0), ("{}", True, 1), ("emnist-x-{}", None, 1), ("emnist-x-{}", False, 0)]
)
def test_emnist_lies_on_its_side(tmp_path, name, upright, turned):
    images, _ = write(tmp_path, "train", 1, f"{name}-images-idx3-ubyte {name}-labels-idx1-ubyte")
    x = mnist(tmp_path, partition=partition.iid(1), test=0, upright=upright).example["x"][..., 0]
    np.testing.assert_array_equal(x, (images[0].T if turned else images[0]).astype(np.float32) / 255)


def test_torchvisions_roots(tmp_path):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    write(raw, "train", 30)
    assert mnist(tmp_path, partition=partition.iid(3)).population == 3
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    with pytest.raises(DataError, match="holds more than one data set .*MNIST/raw, .*FashionMNIST/raw.: give one of these folders"):
        mnist(tmp_path, partition=partition.iid(3))


def test_labels_without_images_are_no_pair(tmp_path):
    write(tmp_path, "t10k", 60)
    write(tmp_path, "train", 90)
    (tmp_path / "train-images-idx3-ubyte").unlink()
    said = "train-labels-idx1-ubyte stands alone and is not read; t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte are dealt"
    with pytest.warns(UserWarning, match=said):
        data = mnist(tmp_path, partition=partition.iid(5))
    assert data.train.size.tolist() == [10] * 5
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    wrong = r"holds no images with their labels \(train-labels-idx1-ubyte, t10k-images-idx3-ubyte without the other of its pair\): expected"
    with pytest.raises(FileNotFoundError, match=wrong):
        mnist(tmp_path, partition=partition.iid(5))
    for name in ("train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"):
        (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match="holds no images with their labels: expected for instance train-images-idx3-ubyte"):
        mnist(tmp_path, partition=partition.iid(5))


def test_an_empty_pair_is_named(tmp_path):
    write(tmp_path, "train", 0)
    with pytest.raises(DataError, match="train-images-idx3-ubyte and .*train-labels-idx1-ubyte hold no examples"):
        mnist(tmp_path, partition=partition.iid(5))


@pytest.mark.parametrize("lengths", [[8, 8, 5], [2**20, 2**20, 2**10]], ids=["honest", "boasting"])
def test_a_packed_file_is_unpacked_no_further_than_its_header_says(tmp_path, lengths):
    """64 MB of zeros behind a header of 320 bytes, or of 2^50 which are not there."""
    file, zeros = tmp_path / "bomb.gz", bytes(2**26)
    file.write_bytes(gzip.compress(bytes([0, 0, 8, 3]) + struct.pack(">3I", *lengths) + zeros, 1))
    with taking_at_most(2**20):
        with pytest.raises(
            DataError, match="bomb.gz has (more than 336 bytes, its header .* says|1125899906842624 bytes unpacked, too many)"
        ):
            read_idx(file)


def test_plain_file_beside_its_gz(tmp_path):
    write(tmp_path, "train", 30)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"not looked at")
    (tmp_path / "t10k-images-idx3-ubyte").mkdir()
    assert mnist(tmp_path, partition=partition.iid(3)).train.population == 3


def test_what_does_not_fit_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="path='/no/such/folder' is not a folder: give the one that holds the idx files"):
        mnist("/no/such/folder", partition=partition.iid(3))
    write(tmp_path, "train", 30)
    with pytest.raises(TypeError, match="partition must be a function"):
        unwrap(mnist)(tmp_path, partition=3)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(encode(np.zeros(29, np.uint8)))
    with pytest.raises(DataError, match=r"images.*\[30, 4, 3\].*labels.*\[29\]: they are not images and their labels"):
        mnist(tmp_path, partition=partition.iid(3))
    write(tmp_path, "train", 30, "emnist-mnist-{}-images-idx3-ubyte emnist-mnist-{}-labels-idx1-ubyte")
    with pytest.raises(DataError, match="holds more than one data set .*emnist-mnist-train-images.*keep one a folder"):
        mnist(tmp_path, partition=partition.iid(3))


@pytest.mark.deep
@pytest.mark.filterwarnings("ignore:.*stands alone")
def test_real_mnist(real):
    labels = read_idx(real / "train-labels-idx1-ubyte.gz")
    assert np.bincount(labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    data = mnist(real, partition=partition.shards(clients=100))
    assert data.train.size.tolist() == [84] * 100 and data.test.size.tolist() == [16] * 100
    counts = np.bincount(data.train.examples["y"]) + np.bincount(data.test.examples["y"])
    assert counts.tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    x = np.concatenate([data.train.examples["x"], data.test.examples["x"]])
    assert x.shape == (10000, 28, 28, 1)
    assert abs(x.astype(np.float64).mean() - 0.13251) < 1e-4  # the t10k mean that is commonly quoted
