"""The store: what is written is what is read, nothing half written is taken for whole, and damage is named."""

import json
import shutil

import jax
import numpy as np
import pytest

import fedjax_lite as fl
from fedjax_lite.data import Store, save, store

SIZES = (3, 1, 4)


def clients():
    for i, size in enumerate(SIZES):
        yield {"x": np.full((size, 2), i, np.float32), "deep": {"y": np.arange(size) + 10 * i}}


def test_a_generator_of_clients_is_the_population_in_memory(tmp_path):
    written = save(tmp_path / "s", clients())
    read, whole = Store.open(tmp_path / "s"), fl.FederatedData.from_clients(list(clients()))
    for found in (written, read):
        assert found.fingerprint() == whole.fingerprint()
        assert found.population == 3 and found.largest == 4 and found.size.tolist() == list(SIZES) and found.start.tolist() == [0, 3, 4]
        jax.tree.map(np.testing.assert_array_equal, found.in_memory(), whole)
        jax.tree.map(np.testing.assert_array_equal, found.example, whole.example)
    assert isinstance(read.examples["x"], np.memmap)
    shapes = [[(x.shape, x.dtype) for x in jax.tree.leaves(data)] for data in (read.shapes(), whole)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("data", [np.arange(6.0).reshape(3, 2), {"y": np.arange(3)}], ids=["one array", "labels"])
def test_a_population_written_at_once(tmp_path, data):
    whole = fl.FederatedData.from_arrays(data, [1, 0, 1])
    again = save(tmp_path / "deep" / "s", whole)
    assert again.fingerprint() == whole.fingerprint()
    jax.tree.map(np.testing.assert_array_equal, again.in_memory().examples, whole.examples)


def test_any_npy_reader_reads_the_files(tmp_path):
    save(tmp_path / "s", clients())
    assert np.load(tmp_path / "s" / "examples.deep.y.npy").tolist() == [0, 1, 2, 10, 20, 21, 22, 23]
    assert np.load(tmp_path / "s" / "size.npy").tolist() == list(SIZES)


def test_some_clients_are_read_one_after_the_other(tmp_path):
    found = save(tmp_path / "s", clients())
    examples = found.read(np.array([2, 3, 0, -1]), rows=9)  # 3 and -1 are outside: nobody
    assert examples["deep"]["y"].tolist() == [20, 21, 22, 23, 0, 1, 2, 0, 0]
    with pytest.raises(ValueError, match="rows=3: these clients hold 4 examples"):
        found.read(np.array([2]), rows=3)
    assert len(found.read(np.array([7]))["x"]) == 1  # nobody: one row to fill it up


def test_train_and_test_stores(tmp_path):
    save(tmp_path / "train", clients())
    save(tmp_path / "test", clients())
    streamed, held = store(str(tmp_path / "train")), store(str(tmp_path / "train"), test=str(tmp_path / "test"), in_memory=True)
    assert isinstance(streamed.train, Store) and streamed.test is None and streamed.population == 3
    assert isinstance(held.train, fl.FederatedData) and isinstance(held.test, fl.FederatedData)


@pytest.mark.parametrize(
    "bad, message",
    [
        ([], "clients is empty"),
        ([{"x": np.ones(2)}, {"x": np.array([1, np.nan])}], "leaf .*x.* of client 1 holds NaN or Inf"),
        ([{"x": np.ones(2)}, {"y": np.ones(2)}], "client 1 has the leaves y, those before it x"),
        (
            [{"x": np.ones(2)}, {"x": np.ones(2, int)}],
            r"leaf examples.x of client 1 holds int32\[\] an example, those before it float32\[\]",
        ),
        ([{"x": np.ones((2, 3))}, {"x": np.ones((2, 4))}], r"client 1 holds float32\[4\] an example, those before it float32\[3\]"),
        ([{"x": np.ones(2), "y": np.ones(3)}], "client 0: leaves must be arrays of one length"),
        ([{"x": np.ones(2)}, {"x": np.ones(0)}], "client 1 has no examples"),
        ([{"a/b": np.ones(2)}], "leaf named 'a/b'"),
        ([[np.ones(2)]], "hold a list"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_stays(tmp_path, bad, message):
    with pytest.raises(ValueError, match=message):
        save(tmp_path / "s", bad)
    assert list(tmp_path.iterdir()) == []


def test_clients_that_share_examples_are_refused(tmp_path):
    overlapping = fl.FederatedData({"x": np.ones((4, 2), np.float32)}, np.array([0, 1]), np.array([3, 3]), largest=3)
    with pytest.raises(ValueError, match="clients share examples, or leave some out"):
        save(tmp_path / "s", overlapping)


def test_an_existing_folder_is_left_alone(tmp_path):
    save(tmp_path / "s", clients())
    with pytest.raises(ValueError, match="exists: remove it"):
        save(tmp_path / "s", clients())
    assert Store.open(tmp_path / "s").population == 3


def test_a_disk_that_fills_leaves_nothing(tmp_path):
    def filling():
        yield {"x": np.ones(5)}
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="could not be written, and nothing is left of it .*No space left.*free some space"):
        save(tmp_path / "s", filling())
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_was_killed_is_cleared_away(tmp_path):
    (tmp_path / "s.partial").mkdir()
    (tmp_path / "s.partial" / "size.npy").write_bytes(b"half")
    with pytest.raises(FileNotFoundError, match="no store"):
        Store.open(tmp_path / "s")
    save(tmp_path / "s", clients())
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_damage_is_named(tmp_path):
    save(tmp_path / "s", clients())

    def damaged(name):
        shutil.rmtree(tmp_path / name, ignore_errors=True)
        shutil.copytree(tmp_path / "s", tmp_path / name)
        return tmp_path / name

    folder = damaged("cut")
    file = folder / "examples.x.npy"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(ValueError, match="examples.x.npy is missing, cut off or no .npy file"):
        Store.open(folder)

    folder = damaged("gone")
    (folder / "examples.deep.y.npy").unlink()
    with pytest.raises(ValueError, match="examples.deep.y.npy is missing"):
        Store.open(folder)

    folder = damaged("flipped")
    file = folder / "examples.x.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="has changed since it was written .checksum"):
        Store.open(folder)
    assert Store.open(folder, verify=False).population == 3

    folder = damaged("start")
    start = np.load(folder / "start.npy")
    start[1] ^= 1
    np.save(folder / "start.npy", start)
    with pytest.raises(ValueError, match="start.npy does not fit the sizes"):
        Store.open(folder, verify=False)

    folder = damaged("other shape")
    np.save(folder / "examples.x.npy", np.zeros((8, 3), np.float32))
    with pytest.raises(ValueError, match=r"holds float32\[8, 3\], store.json says <f4\[8, 2\]"):
        Store.open(folder)

    folder = damaged("version")
    facts = json.loads((folder / "store.json").read_text())
    (folder / "store.json").write_text(json.dumps(facts | {"version": 2}))
    with pytest.raises(ValueError, match="'fedjax_lite store' 2, this is 'fedjax_lite store' 1"):
        Store.open(folder)

    for text in ("{", "[]", json.dumps({name: facts[name] for name in ("format", "version")})):
        (folder / "store.json").write_text(text)
        with pytest.raises(ValueError, match="store.json is damaged"):
            Store.open(folder)
