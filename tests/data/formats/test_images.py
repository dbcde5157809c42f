"""Folders and zips of images, drawn here and read back; and real ones."""

import io
import os
import stat
import zipfile

import numpy as np
import pytest

import fedjax_lite as fl
from fedjax_lite.data import DataError
from fedjax_lite.data.formats import pictures, text_pieces

Image = pytest.importorskip("PIL.Image")
RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (4, 2, 3, 3), np.uint8)
ONE = {"partition": lambda rng, y: [np.arange(len(y))], "test": 0}


def png(array, kind="PNG", **options):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind, **options)
    return stream.getvalue()


def lay(folder, files):
    for name, data in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return folder


def pack(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


CLASSES = {
    "dog/b.png": png(PICTURES[1]),
    "dog/a.png": png(PICTURES[0]),
    "cat/c.png": png(PICTURES[2]),
    "cat/.hidden.png": b"",
    "read.me": b"",
}


def test_classes_in_a_folder_and_in_a_zip(tmp_path):
    folder = lay(tmp_path / "folder", CLASSES)
    data = fl.data.images(folder, **ONE)
    assert data.words == ("cat", "dog") and data.train.examples["y"].tolist() == [0, 1, 1]
    np.testing.assert_array_equal(data.train.examples["x"], PICTURES[[2, 0, 1]] / np.float32(255))
    packed = fl.data.images(pack(tmp_path / "a.zip", {f"all/{name}": data for name, data in CLASSES.items()}), **ONE)
    assert packed.train.fingerprint() == data.train.fingerprint() and packed.words == data.words


def test_clients_and_parts(tmp_path):
    files = {f"{part}/{client}/{word}/1.png": png(PICTURES[0]) for part in ("train", "test") for client in "ab" for word in "xy"}
    data = fl.data.images(lay(tmp_path / "part", files))
    assert data.names == data.test.names == ("a", "b") and data.train.size.tolist() == data.test.size.tolist() == [2, 2]
    inside = {f"{client}/{part}/{word}/1.png": png(PICTURES[0]) for part in ("Training", "val") for client in "abc" for word in "xy"}
    data = fl.data.images(lay(tmp_path / "client", inside))
    assert data.train.population == 3 and data.test.size.tolist() == [2, 2, 2] and data.words == ("x", "y")
    classes = {f"{part}/{word}/1.png": png(PICTURES[0]) for part in ("train", "val", "test") for word in "xy"}
    data = fl.data.images(lay(tmp_path / "classes", classes), partition=fl.partition.iid(clients=2))
    assert data.train.size.tolist() == [1, 1] and data.test.population == 1 and data.test.size.tolist() == [2]
    held = fl.data.images(lay(tmp_path / "held", {f"a/x/{i}.png": png(PICTURES[0]) for i in range(5)}), layout="client/class", test=0.4)
    assert held.train.size.tolist() == [3] and held.test.size.tolist() == [2]


def test_layout_is_forced(tmp_path):
    folder = lay(tmp_path, {f"{c}/{w}/{i}.png": png(PICTURES[0]) for c in "ab" for w in "xyz" for i in "12"})
    assert fl.data.images(folder, layout="class", **ONE).words == ("a", "b")
    assert fl.data.images(folder, test=0).words == ("x", "y", "z")


def test_size_and_channels(tmp_path):
    grey = RNG.integers(0, 256, (5, 4), np.uint8)
    alpha = np.concatenate([PICTURES[0], np.zeros((2, 3, 1), np.uint8)], axis=-1)
    folder = lay(tmp_path, {"x/1.png": png(grey), "x/2.png": png(alpha), "x/3.gif": png(grey, "GIF"), "x/4.jpg": png(PICTURES[0], "JPEG")})
    data = fl.data.images(folder, size=[2, 3], **ONE).train.examples["x"]
    assert data.shape == (4, 2, 3, 3)
    np.testing.assert_array_equal(data[1], PICTURES[0] / np.float32(255))
    np.testing.assert_array_equal(data[0, ..., 0], data[0, ..., 2])
    luma = fl.data.images(folder, size=(2, 3), grey=True, **ONE).train.examples["x"][1, ..., 0] * 255
    np.testing.assert_allclose(luma, PICTURES[0] @ np.array([0.299, 0.587, 0.114]), atol=1)  # ITU-R 601-2
    with pytest.raises(DataError, match="2.png and .*1.png are 2 x 3 and 5 x 4 pixels: give size="):
        fl.data.images(folder, **ONE)


@pytest.mark.parametrize(
    ("files", "arguments", "message"),
    [
        ({"x/1.png": CLASSES["dog/a.png"][:40]}, {}, "1.png cannot be read as an image"),
        ({"x/1.png": b"%!PS-Adobe-3.0 EPSF-3.0"}, {}, "1.png cannot be read as an image"),
        ({"1.png": CLASSES["dog/a.png"]}, {}, "1.png lies 0 folders deep"),
        ({"x/1.png": png(PICTURES[0]), "x/y/1.png": png(PICTURES[0])}, {}, "y/1.png lies 2 folders deep and .*1.png 1: move it"),
        ({"x/y/z/1.png": b"", "u/v/w/1.png": b""}, {}, "1.png lies 3 folders deep"),
        ({"x/1.txt": b""}, {}, "holds no images"),
        ({"x/1.png": png(RNG.integers(0, 2**16, (2, 2), np.uint16))}, {}, "1.png has more than 8 bits a channel"),
        ({"x/1.png": png(PICTURES[0])}, {"size": 0}, "size must be a whole number, or height and width, got 0"),
        ({"x/1.png": png(PICTURES[0])}, {"size": [1, 2, 3]}, r"size must be .*, got \[1, 2, 3\]"),
        ({"x/1.png": png(PICTURES[0])}, {"layout": "flat"}, "layout must be one of 'class', 'client/class', got 'flat'"),
        ({"x/1.png": png(PICTURES[0])}, {"partition": None}, "partition: these files name no clients"),
    ],
    ids=range(11),
)
def test_refusals(tmp_path, files, arguments, message):
    with pytest.raises(ValueError, match=message):
        fl.data.images(lay(tmp_path, files), **ONE | arguments)


def test_too_many_pixels_and_no_such_path(tmp_path, monkeypatch):
    folder = lay(tmp_path, CLASSES)
    monkeypatch.setattr(pictures, "_MOST_PIXELS", 5)
    with pytest.raises(DataError, match="c.png is 2 x 3 pixels: scale it down"):
        fl.data.images(folder, **ONE)
    with pytest.raises(FileNotFoundError, match="nowhere' is not there: give a folder of images, or a zip"):
        fl.data.images(tmp_path / "nowhere", **ONE)


def test_links_out_of_a_folder_are_refused(tmp_path):
    lay(tmp_path / "secret", {"1.png": png(PICTURES[0])})
    lay(tmp_path / "data", CLASSES)
    os.symlink(tmp_path / "data" / "dog" / "a.png", tmp_path / "data" / "cat" / "z.png")
    assert fl.data.images(tmp_path / "data", **ONE).train.size.tolist() == [4]
    os.symlink(tmp_path / "secret" / "1.png", tmp_path / "data" / "cat" / "link.png")
    with pytest.raises(DataError, match="link.png is a link out of"):
        fl.data.images(tmp_path / "data", **ONE)


@pytest.mark.parametrize("name", ["../x/1.png", "/x/1.png", "x/../../1.png", "C:/x/1.png", "x\\..\\1.png"])
def test_names_that_lead_out_of_a_zip_are_refused(tmp_path, name):
    with pytest.raises(DataError, match="a.zip: .* leads out of the zip"):
        fl.data.images(pack(tmp_path / "a.zip", {name: png(PICTURES[0])}), **ONE)


def test_links_bombs_and_damage_in_a_zip_are_refused(tmp_path, monkeypatch):
    link = zipfile.ZipInfo("x/link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(DataError, match="a.zip: x/link.png is a link"):
        fl.data.images(pack(tmp_path / "a.zip", {link: b"/etc/passwd"}), **ONE)
    whole = pack(tmp_path / "b.zip", CLASSES).read_bytes()
    for damaged, message in ((whole[:-30], "neither a folder nor a whole zip"), (whole.replace(b"IDAT", b"IDAS"), "cannot be unpacked")):
        (tmp_path / "b.zip").write_bytes(damaged)
        with pytest.raises(DataError, match=f"b.zip.* {message}"):
            fl.data.images(tmp_path / "b.zip", **ONE)
    monkeypatch.setattr(text_pieces, "_FREE", 10_000)
    with zipfile.ZipFile(tmp_path / "c.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/1.png", bytes(10**6))
    with pytest.raises(DataError, match="c.zip unpacks to more than 200 times"):
        fl.data.images(tmp_path / "c.zip", **ONE)


@pytest.mark.deep
def test_cifar10_as_jpeg(real_data):
    file = real_data / "cifar10_jpg" / "cifar10_test.zip"
    if not file.exists():
        pytest.skip(f"no {file}")
    data = fl.data.images(file, partition=fl.partition.iid(clients=10), test=0)
    assert data.words == ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    assert data.train.examples["x"].shape == (10_000, 32, 32, 3) and np.bincount(data.train.examples["y"]).tolist() == [1000] * 10
