"""CIFAR's four forms, written by hand."""

import pickle

import numpy as np
import pytest

import fedjax_lite as fl
from fedjax_lite.data import DataError, cifar

NAMES = [f"class {i}" for i in range(10)]
EVERY = fl.partition.iid(clients=1)
BATCHES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


def images(n, seed=0):
    """n images as planes of red, green and blue, uint8 [n, 3072]."""
    return np.random.default_rng(seed).integers(0, 256, (n, 3072), np.uint8)


def channels_last(planes):
    """The oracle: pixel by pixel."""
    return np.array(
        [
            [[[image[plane * 1024 + row * 32 + column] for plane in range(3)] for column in range(32)] for row in range(32)]
            for image in planes
        ]
    )


def write_ten(folder, binary, n=2):
    """Five batches and a test batch of n images; the labels of batch i are i and on."""
    for i, name in enumerate(BATCHES):
        labels = [(i + k) % 10 for k in range(n)]
        if binary:
            rows = b"".join(bytes([label]) + image.tobytes() for label, image in zip(labels, images(n, i), strict=True))
            (folder / f"{name}.bin").write_bytes(rows)
        else:
            batch = {b"data": images(n, i), b"labels": labels, b"batch_label": b"testing", b"filenames": [b"a.png"] * n}
            (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    if binary:
        (folder / "batches.meta.txt").write_text("\n".join(NAMES).replace(" ", "_") + "\n\n")
    else:
        (folder / "batches.meta").write_bytes(
            pickle.dumps({b"label_names": [name.encode() for name in NAMES], b"num_vis": 3072}, protocol=2)
        )


def write_hundred(folder, binary):
    """Two images a part, fine labels 99 and 3, coarse labels 19 and 0."""
    fine, coarse = [f"fine{i}" for i in range(100)], [f"coarse{i}" for i in range(20)]
    for i, name in enumerate(("train", "test")):
        if binary:
            rows = [bytes(labels) + image.tobytes() for labels, image in zip(((19, 99), (0, 3)), images(2, i), strict=True)]
            (folder / f"{name}.bin").write_bytes(b"".join(rows))
        else:
            (folder / name).write_bytes(pickle.dumps({"data": images(2, i), "fine_labels": [99, 3], "coarse_labels": [19, 0]}, protocol=4))
    if binary:
        (folder / "fine_label_names.txt").write_text("\n".join(fine))
        (folder / "coarse_label_names.txt").write_text("\n".join(coarse))
    else:
        (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": fine, "coarse_label_names": coarse}, protocol=4))


def in_order(part):
    """Examples by label, since they are dealt in any order."""
    order = np.argsort(part.examples["y"], kind="stable")
    return np.asarray(part.examples["x"])[order], np.asarray(part.examples["y"])[order]


@pytest.mark.parametrize("binary", [False, True], ids=["python", "binary"])
def test_cifar_10(tmp_path, binary):
    inside = tmp_path / ("cifar-10-batches-bin" if binary else "cifar-10-batches-py")
    inside.mkdir()
    write_ten(inside, binary, n=1)
    data = cifar(tmp_path, partition=EVERY)
    x, y = in_order(data.train)
    assert y.tolist() == [0, 1, 2, 3, 4] and data.test.examples["y"].tolist() == [5] and data.test.population == 1
    np.testing.assert_array_equal(x, (channels_last(np.concatenate([images(1, i) for i in range(5)])) / 255).astype(np.float32))
    np.testing.assert_array_equal(data.test.examples["x"], (channels_last(images(1, 5)) / 255).astype(np.float32))
    assert x.dtype == np.float32 and data.words == tuple(name.replace(" ", "_") if binary else name for name in NAMES)
    assert cifar(inside, partition=EVERY).train.fingerprint() == data.train.fingerprint()


@pytest.mark.parametrize("binary", [False, True], ids=["python", "binary"])
@pytest.mark.parametrize(("labels", "expected"), [("fine", [3, 99]), ("coarse", [0, 19])])
def test_cifar_100(tmp_path, binary, labels, expected):
    write_hundred(tmp_path, binary)
    data = cifar(tmp_path, labels=labels, partition=EVERY)
    x, y = in_order(data.train)
    assert y.tolist() == expected and data.words[expected[1]] == f"{labels}{expected[1]}" and len(data.words) == expected[1] + 1
    np.testing.assert_array_equal(x[::-1], (channels_last(images(2)) / 255).astype(np.float32))


def test_without_names_or_a_test_part(tmp_path):
    write_ten(tmp_path, binary=True)
    (tmp_path / "batches.meta.txt").unlink()
    (tmp_path / "test_batch.bin").unlink()
    data = cifar(tmp_path, partition=fl.partition.iid(clients=2))
    assert data.words is None and data.train.size.tolist() == [4, 4] and data.test.size.tolist() == [1, 1]


def test_what_is_asked_for_wrongly(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere' is not a folder: give the one that holds CIFAR's batches"):
        cifar(tmp_path / "nowhere", partition=EVERY)
    with pytest.raises(FileNotFoundError, match="holds no CIFAR: expected data_batch_1 or data_batch_1.bin, or CIFAR-100's train"):
        cifar(tmp_path, partition=EVERY)
    write_hundred(tmp_path, binary=False)
    with pytest.raises(ValueError, match='cifar: labels must be "fine" or "coarse", got \'both\''):
        cifar(tmp_path, labels="both", partition=EVERY)
    with pytest.raises(ValueError, match="partition: these files name no clients, so give a partition"):
        cifar(tmp_path)
    write_ten(tmp_path, binary=True)
    with pytest.raises(DataError, match="holds more than one data set .*data_batch_1.bin, .*train.: keep one a folder"):
        cifar(tmp_path, partition=EVERY)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("data_batch_3.bin", None, "lacks data_batch_3.bin: copy the whole data set"),
        ("data_batch_2.bin", bytes(3072), "data_batch_2.bin has 3072 bytes, which are no whole rows of 3073"),
        ("test_batch.bin", bytes([10]) + bytes(3072), "test_batch.bin: the label 10 of image 0 is no class from 0 to 9"),
        ("test_batch.bin", b"", "test_batch.bin holds no examples"),
        ("batches.meta.txt", b"cat dog", "batches.meta.txt does not list 10 class names"),
        ("batches.meta.txt", b"\xff\xfe", "batches.meta.txt: .*decode"),
    ],
)
def test_binary_files_that_are_damaged(tmp_path, name, data, message):
    write_ten(tmp_path, binary=True)
    (tmp_path / name).unlink() if data is None else (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message):
        cifar(tmp_path, partition=EVERY)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([1], "train holds a list, not a table"),
        ({"data": images(1)}, '"fine_labels" is no list of 1 whole numbers: it is no batch of CIFAR-100'),
        ({"data": images(1), "fine_labels": [1, 2]}, "is no list of 1 whole numbers"),
        ({"data": images(1), "fine_labels": [True]}, "is no list of 1 whole numbers"),
        ({"data": images(1), "fine_labels": [2**70]}, "train: Python int too large"),
        ({"data": images(1), "fine_labels": [100]}, "the label 100 of image 0 is no class from 0 to 99"),
        ({"data": images(1)[:, 1:], "fine_labels": [1]}, '"data" is no array of bytes'),
        ({"data": images(1).astype(np.int64), "fine_labels": [1]}, '"data" is no array of bytes'),
        ({"data": [1], "fine_labels": [1]}, '"data" is no array of bytes'),
        ({3: 1}, "train holds 3 in the place of a name"),
    ],
    ids=lambda value: value if isinstance(value, str) else "batch",
)
def test_pickles_of_another_form(tmp_path, batch, message):
    write_hundred(tmp_path, binary=False)
    (tmp_path / "train").write_bytes(pickle.dumps(batch, protocol=4))
    with pytest.raises(DataError, match=message):
        cifar(tmp_path, partition=EVERY)


def test_a_pickle_that_would_run_something(tmp_path):
    write_ten(tmp_path, binary=False)
    (tmp_path / "test_batch").write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "run").encode() + b"'\ntR.")
    with pytest.raises(DataError, match="test_batch: no data at byte 0 of its pickle .the name os.system.: .*which is not run"):
        cifar(tmp_path, partition=EVERY)
    assert not (tmp_path / "run").exists()
