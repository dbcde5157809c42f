"""TFF's HDF5, written here by h5py, and the real Shakespeare: 715 roles."""

import numpy as np
import pytest

from fedjax_lite.data import DataError, tff_hdf5
from fedjax_lite.data.formats.snippets import CHARACTERS, WORDS, windows

h5py = pytest.importorskip("h5py")


def write(file, clients, packed="gzip"):
    """Clients of {feature: array}, as TFF writes them."""
    with h5py.File(file, "w") as opened:
        for name, features in clients.items():
            for feature, array in features.items():
                opened.create_dataset(f"examples/{name}/{feature}", data=array, compression=packed if np.ndim(array) else None)
    return file


def emnist(n, seed=0):
    rng = np.random.default_rng(seed)
    return {"pixels": rng.random((n, 28, 28), np.float32), "label": np.arange(n, dtype=np.int32)}


def test_emnist(tmp_path):
    clients = {"f0000_14": emnist(3), "f0001_41": emnist(2, 1)}
    write(tmp_path / "fed_emnist_train.h5", clients)
    write(tmp_path / "fed_emnist_test.h5", {"f0001_41": emnist(1, 2)})
    data = tff_hdf5(tmp_path)
    assert data.names == ("f0000_14", "f0001_41") and data.train.size.tolist() == [3, 2] and data.test.size.tolist() == [0, 1]
    np.testing.assert_array_equal(data.train.client(1)["x"], clients["f0001_41"]["pixels"][..., None])
    assert data.train.client(0)["y"].tolist() == [0, 1, 2] and data.words is None
    np.testing.assert_array_equal(tff_hdf5(tmp_path, invert=True).train.client(1)["x"], 1 - clients["f0001_41"]["pixels"][..., None])
    alone = tff_hdf5(tmp_path / "fed_emnist_train.h5", test=0.5)
    assert alone.train.size.tolist() == [2, 1] and alone.test.size.tolist() == [1, 1]


def test_cifar_100_with_other_clients_for_testing(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    held = {"image": image, "label": np.array([99, 3]), "coarse_label": np.array([19, 0])}
    write(tmp_path / "fed_cifar100_train.h5", {"0": held, "10": held, "9": held})
    write(tmp_path / "fed_cifar100_test.h5", {"a": held})
    data = tff_hdf5(tmp_path)
    assert data.names == ("0", "9", "10") and data.test.population == 1
    np.testing.assert_array_equal(data.train.client(0)["x"], (image / 255).astype(np.float32))
    assert data.train.client(0)["y"].tolist() == [99, 3]
    assert tff_hdf5(tmp_path, features={"x": "image", "y": "coarse_label"}).train.client(0)["y"].tolist() == [19, 0]
    assert sorted(tff_hdf5(tmp_path, features={"x": "image", "y": "label", "coarse": "coarse_label"}).example) == ["coarse", "x", "y"]


def slowly(snippets, length):
    """Windows character by character."""
    number = {character: i + 3 for i, character in enumerate(CHARACTERS)}
    tokens = []
    for snippet in snippets:
        tokens += [1, *[number.get(chr(byte), 89) for byte in snippet], 2]
    x, y = tokens[:-1], tokens[1:]
    short = -len(x) % length
    return [[*side, *[0] * short][i : i + length] for side in (x, y) for i in range(0, len(side) + short, length)]


@pytest.mark.parametrize("snippets", [[b"ABCD", b"E"], [b""], [b"", b"a\xc3\xa9~", b""], [b"to be or not"], [b"a"] * 7, []])
@pytest.mark.parametrize("length", [1, 3, 80])
def test_windows(snippets, length):
    found = windows(snippets, length)
    assert [*found["x"].tolist(), *found["y"].tolist()] == slowly(snippets, length)
    assert found["x"].dtype == found["y"].dtype == np.int32


def test_the_vocabulary_is_that_of_the_tutorial():
    assert len(CHARACTERS) == len(set(CHARACTERS)) == 86 and len(WORDS) == 90
    assert (WORDS[0], WORDS[3], WORDS[88], WORDS[89]) == ("<PAD>", "d", "\r", "<OOV>")


@pytest.mark.parametrize("dtype", ["S20", "vlen"])
def test_shakespeare(tmp_path, dtype):
    lines = [b"To be, or not to be", b"", b"that is"]
    array = np.array(lines, h5py.string_dtype("utf-8") if dtype == "vlen" else dtype)
    write(tmp_path / "shakespeare_train.h5", {"HAMLET": {"snippets": array}}, packed=None)
    data = tff_hdf5(tmp_path, length=10, test=0)
    assert [*data.train.examples["x"].tolist(), *data.train.examples["y"].tolist()] == slowly(lines, 10)
    assert data.words == WORDS and data.train.size.tolist() == [4]


def test_what_a_path_does_not_hold(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere' is not a folder: give the one that holds files such as shakespeare_train.h5"):
        tff_hdf5(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="holds no file for training"):
        tff_hdf5(tmp_path)
    write(tmp_path / "a_train.h5", {"0": emnist(2)})
    (tmp_path / "b_train.h5").mkdir()
    with pytest.raises(DataError, match="holds more than one data set .a_train.h5, b_train.h5.: keep one a folder"):
        tff_hdf5(tmp_path)
    (tmp_path / "a_train.h5").unlink()
    with pytest.raises(DataError, match="b_train.h5 is no regular file"):
        tff_hdf5(tmp_path)


@pytest.mark.parametrize(
    ("clients", "asked", "message"),
    [
        ({"0": {"a": np.ones(2), "b": np.ones(2)}}, None, 'has the features a, b: say which are which, as features={"x": "pixels"'),
        ({"0": emnist(2)}, {"x": "pixels", "y": "tag"}, "has no feature 'tag', it has label, pixels: name others"),
        ({"0": emnist(2), "1": {"pixels": np.ones((1, 28, 28))}}, None, "client '1' has no feature 'label', which others have"),
        ({"0": emnist(2) | {"label": np.arange(3)}}, None, "client '0' of .* has leaves of unequal length"),
        ({"0": {"x": np.ones(2), "y": np.array([b"a", b"b"])}}, None, "client '0': the feature 'y' is text, which becomes x and y both"),
        ({"0": {"pixels": np.ones((2, 5)), "label": np.ones(2)}}, None, r"client '0': pixels has the shape \[5\] an example, expected"),
        ({"0": {"image": np.full((1, 32, 32, 3), 256), "label": [1]}}, None, "client '0': image goes from 256 to 256"),
        ({"0": {"x": np.full((2, 1), np.nan), "y": [1, 2]}}, None, "x of client '0' holds NaN"),
        ({"0": {"x": 1.0, "y": [1]}}, None, "has leaves of unequal length"),
        ({"0": {"x": np.ones(1, "c8"), "y": [1]}}, None, "client '0', x holds complex64.*, neither numbers nor text"),
        ({"0": {"x": np.ones((2, 1)), "y": [1, 2]}, "1": {"x": np.ones((1, 2)), "y": [1]}}, None, "an example's x has the shape"),
        ({"0": {"x": np.ones((0, 1)), "y": np.ones(0)}}, None, "a_train.h5 holds no examples"),
    ],
)
def test_features_that_do_not_fit(tmp_path, clients, asked, message):
    write(tmp_path / "a_train.h5", clients)
    with pytest.raises(DataError, match=f"a_train.h5.*{message}|{message}"):
        tff_hdf5(tmp_path, features=asked, test=0)


def test_links_and_values_elsewhere_are_refused(tmp_path):
    secret = write(tmp_path / "secret.h5", {"0": emnist(2)}, packed=None)
    file = tmp_path / "a_train.h5"

    def refused(message, change):
        write(file, {"1": emnist(1)})
        with h5py.File(file, "a") as opened:
            change(opened)
        with pytest.raises(DataError, match=f"a_train.h5: .*{message}"):
            tff_hdf5(tmp_path)

    def put(thing, name="examples/0", label=False):
        def change(opened):
            opened[name] = thing
            if label:
                opened["examples/0/label"] = [1, 2]

        return change

    refused("/examples/0 is no group of this file", put(h5py.ExternalLink(str(secret), "/examples/0")))
    refused("/examples/0 is no group of this file", put(h5py.SoftLink("/examples/1")))
    link = h5py.ExternalLink(str(secret), "/examples/0/pixels")
    refused("/examples/0/pixels is no dataset", put(link, "examples/0/pixels", label=True))
    refused("/examples/0/pixels is no dataset", put(1, "examples/0/pixels/inside", label=True))
    layout = h5py.VirtualLayout((2, 28, 28), "f4")
    layout[:] = h5py.VirtualSource(str(secret), "examples/0/pixels", (2, 28, 28))

    def virtual(opened):
        opened["examples/0/label"] = [1, 2]
        opened.create_virtual_dataset("examples/0/pixels", layout)

    def external(opened):
        opened["examples/0/label"] = [1, 2]
        opened.create_dataset("examples/0/pixels", (2, 28, 28), "f4", external=[(str(secret), 0, 6272)])

    for change in (virtual, external):
        refused("client '0', pixels has its values in another file", change)
    with h5py.File(file, "w") as opened:
        opened["other"] = 1
    with pytest.raises(DataError, match="a_train.h5: //examples is no group of this file"):
        tff_hdf5(tmp_path)


def test_more_than_a_file_of_its_size_holds(tmp_path, monkeypatch):
    monkeypatch.setattr("fedjax_lite.data.formats.reading._AT_LEAST", 2**20)
    file = tmp_path / "a_train.h5"
    with h5py.File(file, "w") as opened:  # 2^40 values, none of them written
        opened.create_dataset("examples/0/x", (2**40, 1), "u1", chunks=(2**20, 1))
        opened["examples/0/y"] = [1]
    with pytest.raises(DataError, match="client '0', x has 1099511627776 bytes unpacked, too many for a file of this size"):
        tff_hdf5(file)
    with h5py.File(file, "w") as opened:  # one array that many clients have
        opened.create_dataset("examples/0/x", data=np.zeros((2**18, 1), np.int8), compression="gzip")
        opened["examples/0/y"] = np.zeros(2**18, np.int8)
        for i in range(1, 500):
            opened[f"examples/{i}"] = opened["examples/0"]
    with pytest.raises(DataError, match="client .*, [xy] has 262144 bytes unpacked, too many"):
        tff_hdf5(file)
    with h5py.File(file, "w") as opened:  # a text a byte
        opened.create_dataset("examples/0/snippets", (2**24,), "S1", chunks=(2**20,))
    with pytest.raises(DataError, match="snippets has 1090519040 bytes unpacked, too many"):
        tff_hdf5(file)


def test_without_h5py_it_says_how_to_get_it(tmp_path, monkeypatch):
    write(tmp_path / "a_train.h5", {"1": emnist(1)})
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(ImportError, match=r"this format needs h5py: pip install h5py, or pip install 'fedjax_lite\[hdf5\]'"):
        tff_hdf5(tmp_path)


@pytest.mark.deep
def test_real_shakespeare(real_data):
    folder = real_data / "shakespeare_tff"
    counts = {}
    for part, expected in (("train", (16_068, 1, 8, 292)), ("test", (2_356, 1, 2, 33))):
        with h5py.File(folder / f"shakespeare_{part}.h5") as opened:
            lines = {name: group["snippets"][()].tolist() for name, group in opened["examples"].items()}
        sizes = [len(each) for each in lines.values()]
        assert len(lines) == 715 and (sum(sizes), min(sizes), np.median(sizes), max(sizes)) == expected
        counts[part] = {name: -(-(sum(len(line) + 2 for line in each) - 1) // 80) for name, each in lines.items()}
    data = tff_hdf5(folder)
    assert data.population == data.test.population == 715 and list(data.names) == sorted(counts["train"])
    assert data.train.size.tolist() == [counts["train"][name] for name in data.names]
    assert data.test.size.tolist() == [counts["test"][name] for name in data.names]
    unknown = sum(int((np.asarray(part.examples["y"]) == 89).sum()) for part in data)
    assert unknown == 2  # two curly brackets are all that the vocabulary lacks
    role = data.train.client(data.names.index("ALL_S_WELL_THAT_ENDS_WELL_ADAM"))
    assert "".join(data.words[i] for i in role["y"][0][:36]) == "Yonder comes my master, your brother"
    np.testing.assert_array_equal(role["x"][0][1:], role["y"][0][:-1])
