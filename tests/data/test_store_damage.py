"""A store whose files say what cannot be: each is one error that names the file, and nothing outside the folder is opened."""

import json

import numpy as np
import pytest

from fedjax_lite.data import Store, save


@pytest.fixture
def folder(tmp_path):
    save(tmp_path / "s", ({"x": np.full((n, 2), n, np.float32), "y": np.arange(n)} for n in (3, 1, 4)))
    return tmp_path / "s"


def rewrite(folder, change):
    facts = json.loads((folder / "store.json").read_text())
    (folder / "store.json").write_text(json.dumps(change(facts) or facts))


def first(facts, **new):
    facts["leaves"][0].update(new)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("file", ["../outside.npy", "/etc/hostname", "sub/../x.npy", "..", ""])
def test_a_file_outside_the_folder_is_not_opened(folder, file, verify):
    np.save(folder.parent / "outside.npy", np.load(folder / "examples.x.npy"))
    rewrite(folder, lambda facts: first(facts, file=file))
    with pytest.raises(ValueError, match=r"s/store.json names '.*', which is no file of its folder: write the store again"):
        Store.open(folder, verify=verify)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda facts: [1], r"damaged .it holds a list.: write the store again"),
        (lambda facts: facts.pop("leaves") and None, "leaves must be a list of tables with path, file, dtype and shape"),
        (lambda facts: facts.update(leaves=[5]), "leaves must be a list of tables"),
        (lambda facts: first(facts, path=[]), "leaves must be a list of tables"),
        (lambda facts: first(facts, path=[["examples"]]), "leaves must be a list of tables"),
        (lambda facts: first(facts, shape=[-8, 2]), "leaves must be a list of tables"),
        (lambda facts: first(facts, path=["size"]), "leaves must be size, start and those of the examples, each once"),
        (lambda facts: first(facts, path=["examples"]), "leaves must be size, start and those of the examples"),
        (lambda facts: facts.update(fingerprint=5), "fingerprint must have clients, examples and sha256"),
        (lambda facts: facts["fingerprint"].pop("sha256") and None, "fingerprint must have clients, examples and sha256"),
        (lambda facts: facts.update(words=[1]), "words must be a list of text"),
        (lambda facts: facts.update(version={}), "this is 'fedjax_lite store' 1: write it again"),
    ],
)
def test_facts_that_are_none_are_said(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(ValueError, match=message):
        Store.open(folder)


def test_facts_that_are_nested_deeply_or_no_text(folder):
    for content, why in ((b"[" * 99_999, "it is nested too deeply"), (b"\xff\xfe\x00", "damaged")):
        (folder / "store.json").write_bytes(content)
        with pytest.raises(ValueError, match=f"store.json is damaged.*{why}" if why != "damaged" else "store.json is damaged"):
            Store.open(folder)


@pytest.mark.parametrize("kind", ["cut header", "npz", "pickle", "empty"])
def test_files_that_are_no_arrays_are_named(folder, kind):
    file = folder / "examples.x.npy"
    whole = file.read_bytes()
    if kind == "npz":
        with open(file, "wb") as out:
            np.savez(out, x=np.ones((8, 2), np.float32))
    elif kind == "pickle":
        np.save(file, np.array([{}], object), allow_pickle=True)
    else:
        file.write_bytes(whole[:10] + b"{'descr': '<f4', (" + whole[28:] if kind == "cut header" else b"")
    with pytest.raises(ValueError, match="examples.x.npy is missing, cut off or no .npy file"):
        Store.open(folder)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ([5, 2, 9000], "size.npy adds up to 9007 examples, examples.x has 8: write the store again"),
        ([-1, 5, 4], "size.npy holds no sizes of clients, int32 from 0 and not all 0"),
        ([0, 0, 0], "size.npy holds no sizes of clients"),
    ],
)
def test_sizes_that_are_not_those_of_the_rows_are_not_believed(folder, size, message):
    size = np.array(size, np.int32)
    np.save(folder / "size.npy", size)
    np.save(folder / "start.npy", np.cumsum(size, dtype=np.int64) - size)
    with pytest.raises(ValueError, match=message):
        Store.open(folder, verify=False)


def test_a_store_without_clients_is_none(folder):
    for name, dtype in (("size", np.int32), ("start", np.int64)):
        np.save(folder / f"{name}.npy", np.zeros(0, dtype))
    rewrite(folder, lambda facts: [leaf.update(shape=[0]) for leaf in facts["leaves"] if leaf["path"][0] in ("size", "start")] and None)
    with pytest.raises(ValueError, match="size.npy holds no sizes of clients"):
        Store.open(folder, verify=False)
