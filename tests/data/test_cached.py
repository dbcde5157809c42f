"""The cache gives what the reader gives, to the bit, and never what another file, another argument or a damaged entry would give."""

import functools
import json
import os
import threading
import warnings
from importlib import import_module

import jax
import numpy as np
import pytest

import fedjax_lite as fl
from fedjax_lite.data import cached

module = import_module("fedjax_lite.data.cached")  # as an attribute it is the function


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Nothing of this machine is touched, and everything takes long."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FEDJAX_LITE_CACHE", raising=False)
    monkeypatch.setattr(module, "SECONDS", -1.0)


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "data" / "leaf"
    for part, sizes in (("train", (3, 5)), ("test", (2, 1))):
        (folder / part).mkdir(parents=True)
        users = {f"f{k}": {"x": [[0.5 * k, i] for i in range(n)], "y": [("cat", "dog")[k]] * n} for k, n in enumerate(sizes)}
        (folder / part / "a.json").write_text(json.dumps({"users": list(users), "num_samples": list(sizes), "user_data": users}))
    return folder


@pytest.fixture
def counting(monkeypatch):
    """`fl.data.leaf`, and the list of its calls."""
    calls, read = [], fl.data.leaf

    @functools.wraps(read)  # what is told from others is the function inside
    def leaf(path, **arguments):
        calls.append(arguments)
        return read(path, **arguments)

    return leaf, calls


def same(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert jax.tree.structure(ours) == jax.tree.structure(theirs)
        for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            assert x.dtype == y.dtype and type(x) is type(y)
            np.testing.assert_array_equal(x, y)


def entries(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_read_again_is_the_same_and_not_read(files, counting):
    reader, calls = counting
    first, again = (cached(reader, files, invert=False) for _ in range(2))
    assert len(calls) == 1 and first.words == ("cat", "dog")
    same(again, first)
    beside = files.parent / ".fedjax_lite"
    assert len(entries(beside)) == 1 and entries(beside)[0].startswith("leaf.") and not list(beside.glob("*.partial"))


@pytest.mark.parametrize("change", ["size", "time", "another file", "a file less", "renamed"])
def test_a_changed_file_is_read(files, counting, change):
    reader, calls = counting
    cached(reader, files)
    shard = files / "train" / "a.json"
    if change == "size":
        stat = shard.stat()
        shard.write_text(shard.read_text() + " ")
        os.utime(shard, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    elif change == "time":
        os.utime(shard, ns=(0, shard.stat().st_mtime_ns + 1))
    elif change == "another file":
        (files / "note").write_text("")
    elif change == "a file less":
        (files / "test" / "a.json").unlink()
        (files / "test").rmdir()
    else:
        shard.rename(files / "train" / "b.json")
    found = cached(reader, files)
    assert len(calls) == 2 and int(found.train.size.sum()) == (7 if change == "a file less" else 8)


def test_a_changed_file_behind_a_linked_folder_is_read(files, counting, tmp_path):
    leaf, calls = counting
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/train").symlink_to(files / "train")
    (files / "train/back").symlink_to(tmp_path / "linked")  # round and round
    (files / "train/.#lock").symlink_to("nowhere")
    before = cached(leaf, tmp_path / "linked", test=0)
    same(cached(leaf, tmp_path / "linked", test=0), before)
    shard = files / "train/a.json"
    shard.write_text(shard.read_text().replace("0.5", "0.25"))
    assert len(calls) == 1 and cached(leaf, tmp_path / "linked", test=0).train.fingerprint() != before.train.fingerprint()


def test_files_of_one_name_size_and_time_in_two_folders_are_two_entries(tmp_path):
    for k in (1, 2):
        (tmp_path / f"{k}").mkdir()
        (tmp_path / f"{k}/a.csv").write_text(f"x,y\n{k},0\n")
        os.utime(tmp_path / f"{k}/a.csv", (0, 0))
    given = {"label": "y", "partition": fl.partition.iid(1), "test": 0, "standardise": False, "cache": tmp_path / "kept"}
    assert [cached(fl.data.csv, tmp_path / f"{k}/a.csv", **given).train.examples["x"].tolist() for k in (1, 2)] == [[[1]], [[2]]]


def test_several_paths(tmp_path):
    for name in ("ann", "bob"):
        (tmp_path / f"{name}.csv").write_text("x,y\n1,0\n2,1\n")
    paths = [tmp_path / "ann.csv", tmp_path / "bob.csv"]
    first, again = (cached(fl.data.csv, paths, label="y", test=0, cache=tmp_path / "kept") for _ in range(2))
    same(first, again)
    assert first.names == ("ann", "bob") and len(entries(tmp_path / "kept")) == 1
    paths[1].write_text("x,y\n1,0\n2,1\n3,1\n")
    assert cached(fl.data.csv, paths, label="y", test=0, cache=tmp_path / "kept").train.size.tolist() == [2, 3]


def test_other_arguments_are_other_entries(tmp_path):
    """Seeds, partitions with their numbers, and files that an argument names."""
    calls = []

    @functools.wraps(fl.data.digits)
    def reader(path, **arguments):
        calls.append(arguments)
        return fl.data.digits(fl.partition.iid(3), seed=0)

    (tmp_path / "other").write_text("a")
    different = [
        {}, {"seed": 0}, {"seed": 1}, {"seed": True}, {"columns": ["a"]}, {"columns": ["a", "b"]}, {"columns": {"a": 1}}, {"test": 0.1},
        {"partition": fl.partition.iid(3)}, {"partition": fl.partition.iid(4)}, {"partition": fl.partition.dirichlet(3, 0.1)},
        {"partition": fl.partition.dirichlet(3, 0.2)}, {"partition": fl.partition.dirichlet_hsu(3, 0.2)}, {"test": str(tmp_path / "other")},
        {"partition": fl.partition.natural("client")}, {"partition": fl.partition.natural("client", 2)},
        {"partition": fl.partition.natural("y")},
        {"weights": np.array([1.0, 2.0])}, {"weights": np.array([1.0, 3.0])},
    ]  # fmt: skip
    for arguments in different * 2:
        cached(reader, tmp_path / "data", cache=tmp_path / "cache", **arguments)
    assert len(calls) == len(different) == len(entries(tmp_path / "cache"))
    (tmp_path / "other").write_text("longer")
    cached(reader, tmp_path / "data", cache=tmp_path / "cache", test=str(tmp_path / "other"))
    assert len(calls) == len(different) + 1


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "no training part"])
def test_a_damaged_entry_is_thrown_away_and_said(files, counting, damage):
    reader, calls = counting
    first = cached(reader, files)
    (entry,) = (files.parent / ".fedjax_lite").iterdir()
    file = entry / "train" / "examples.x.npy"
    content = bytearray(file.read_bytes())
    if damage == "flipped":
        content[-1] ^= 1
        file.write_bytes(content)
    elif damage == "cut":
        file.write_bytes(content[:-3])
    elif damage == "gone":
        file.unlink()
    else:
        (entry / "train").rename(entry / "elsewhere")
    with pytest.warns(UserWarning, match="what the cache held is damaged, and read anew"):
        again = cached(reader, files)
    same(again, first)
    assert len(calls) == 2
    same(cached(reader, files), first)
    assert len(calls) == 2  # whole again


def test_what_is_quick_is_not_kept_unless_a_folder_is_given(files, counting, monkeypatch, tmp_path):
    reader, calls = counting
    monkeypatch.setattr(module, "SECONDS", 1e9)
    for _ in range(2):
        cached(reader, files)
    assert len(calls) == 2 and not (files.parent / ".fedjax_lite").exists() and not (tmp_path / "home").exists()
    for _ in range(2):
        cached(reader, files, cache=tmp_path / "cache")
    assert len(calls) == 3 and len(entries(tmp_path / "cache")) == 1
    cached(reader, files, cache=None)
    assert len(calls) == 4


def test_where_the_files_are_cannot_be_written_it_is_the_users_cache(files, counting, monkeypatch, tmp_path):
    reader, calls = counting
    (files.parent / ".fedjax_lite").write_text("a file")  # root may write everywhere, so permissions would not tell
    for _ in range(2):
        cached(reader, files)
    assert len(calls) == 1 and len(entries(tmp_path / "home" / "fedjax_lite")) == 1
    monkeypatch.setenv("FEDJAX_LITE_CACHE", str(tmp_path / "mine"))
    cached(reader, files)
    assert len(calls) == 2 and len(entries(tmp_path / "mine")) == 1
    (tmp_path / "full").write_text("a file")
    monkeypatch.setenv("FEDJAX_LITE_CACHE", str(tmp_path / "full"))
    assert cached(reader, files).population == 2  # "auto" is content without
    with pytest.raises(OSError, match="full"):
        cached(reader, files, cache=tmp_path / "full")


def test_what_cannot_be_told_from_others_is_not_kept(files, counting, tmp_path):
    reader, calls = counting

    def mine(rng, labels):
        return [np.arange(len(labels))]

    with pytest.raises(ValueError, match="cache: partition is a function of your own.*: leave cache out"):
        cached(reader, files, cache=tmp_path / "cache", partition=mine)
    with pytest.raises(ValueError, match="cache: reader is a function of your own"):
        cached(mine, files, cache=tmp_path / "cache")
    made = cached(lambda path: fl.data.digits(fl.partition.iid(2)), files)
    assert made.population == 2 and not (tmp_path / "cache").exists()


def test_a_store_is_not_kept_again(files, tmp_path):
    fl.data.save(tmp_path / "s", fl.data.leaf(files).train)
    assert isinstance(cached(fl.data.store, tmp_path / "s").train, fl.data.Store) and not (tmp_path / ".fedjax_lite").exists()


def test_two_at_once_leave_one_whole_entry(files, counting):
    """Both find nothing, both read, both write; the second to finish keeps the first one's."""
    reader, calls = counting
    together = threading.Barrier(2)

    @functools.wraps(reader)
    def slow(path, **arguments):
        found = reader(path, **arguments)
        together.wait(30)
        return found

    found = []
    threads = [threading.Thread(target=lambda: found.append(cached(slow, files))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same(*found)
    assert len(calls) == 2 and len(entries(files.parent / ".fedjax_lite")) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same(cached(reader, files), found[0])
    assert len(calls) == 2
