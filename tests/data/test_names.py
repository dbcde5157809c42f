"""Clients' names go with their clients: through every function that makes one population of another, to disk and back."""

import json

import jax
import numpy as np
import pytest

import fedjax_lite as fl
from fedjax_lite.data.names import Names, in_order

NAMES = ("zoe", "ann", "b,ob", "\N{SNOWMAN}")


@pytest.fixture
def data():
    return fl.FederatedData.from_clients([{"x": np.full(4, k, np.float32), "y": np.arange(4)} for k in range(4)], names=NAMES)


def named(part):
    """name -> the value that this client's examples had at first."""
    return {part.names[k]: set(part.client(k)["x"].tolist()) for k in range(part.population)}


WHO = {name: {float(k)} for k, name in enumerate(NAMES)}


def test_a_population_has_them_row_by_row(data):
    assert isinstance(data.names, Names) and data.names == NAMES and named(data) == WHO
    assert fl.FederatedData.from_arrays({"x": np.zeros(3)}, [1, 0, 1], names=["b", "a"]).names == ("b", "a")
    assert fl.FederatedData.from_clients([{"x": np.zeros(3)}]).names is None
    assert fl.data.TrainTest(data, None).names == NAMES


def test_they_go_where_their_clients_go(data):
    assert named(data.take([2, 0])) == {NAMES[2]: {2.0}, NAMES[0]: {0.0}}
    assert data.take([0, 0]).names is None  # one name for two clients
    rest, public = fl.data.hold_out(data, 5)
    assert named(rest) == WHO and public.names is None
    parts = fl.data.split(data, 0.5)
    assert named(parts.train) == named(parts.test) == WHO
    old, new = fl.data.hold_out_clients(parts, 2, seed=1)
    for part in (*old, *new):
        assert named(part).items() <= WHO.items() and part.population == 2
    assert {*old.names, *new.names} == set(NAMES)


def test_a_store_keeps_them(data, tmp_path):
    written = fl.data.save(tmp_path / "store", data)
    read = fl.data.Store.open(tmp_path / "store")
    assert written.names == read.names == read.in_memory().names == NAMES and named(read.in_memory()) == WHO
    assert jax.tree.structure(read.shapes()) == jax.tree.structure(read.in_memory())
    clients = ({"x": np.full(2, k)} for k in range(2))
    assert fl.data.save(tmp_path / "typed", clients, names=["9", "8"]).names == ("9", "8")
    with pytest.raises(ValueError, match="names: 1 names for 2 clients"):
        fl.data.save(tmp_path / "few", [{"x": np.ones(1)}] * 2, names=["9"])
    assert not (tmp_path / "few").exists()


def test_a_store_without_them_opens_and_one_with_wrong_ones_does_not(data, tmp_path):
    fl.data.save(tmp_path / "store", data)
    facts = json.loads((tmp_path / "store" / "store.json").read_text())
    for names, message in (
        (None, None),
        (["a", "b"], "store.json is damaged .names: 2 names for 4 clients"),
        (["a"] * 4, "names: 4 clients are called 'a'"),
        ([1, 2, 3, 4], "store.json is damaged .names must be a list of text"),
        ("abcd", "names must be a list of text"),
    ):
        changed = {key: x for key, x in facts.items() if key != "names"} | ({} if names is None else {"names": names})
        (tmp_path / "store" / "store.json").write_text(json.dumps(changed))
        if message is None:
            assert fl.data.Store.open(tmp_path / "store").names is None
        else:
            with pytest.raises(ValueError, match=message):
                fl.data.Store.open(tmp_path / "store")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a"], "names: 1 names for 4 clients: give one a client"),
        (["a", "b", "a", "c"], "names: 2 clients are called 'a'"),
        (["a", "b", "c", 4], "names must be text, got 4"),
    ],
)
def test_refusals(names, message):
    with pytest.raises(ValueError, match=message):
        fl.FederatedData.from_clients([{"x": np.ones(1)}] * 4, names=names)


def test_their_order_is_that_of_numbers_where_all_are_numbers():
    assert in_order(["10", "9", "009", "0"]) == ["0", "009", "9", "10"]
    assert in_order(["10", "9", "a"]) == ["10", "9", "a"] and in_order(["\N{SUPERSCRIPT TWO}", "10"]) == ["10", "\N{SUPERSCRIPT TWO}"]


def test_a_program_is_found_again_by_them(data):
    """Names are static: equal ones take no second compilation, other ones do."""
    traced = []
    size = jax.jit(lambda data: traced.append(data.names) or data.size.sum())
    again = fl.FederatedData.from_clients([data.client(k) for k in range(4)], names=list(NAMES))
    assert size(data) == size(again) == 16 and len(traced) == 1
    size(fl.FederatedData.from_clients([data.client(k) for k in range(4)], names=list("abcd")))
    assert len(traced) == 2
