"""The same clients in every federated format are the same population."""

import json

import numpy as np
import pytest
import test_fedjax_sqlite
import test_npz
import test_tff_hdf5
import test_tff_sqlite

import fedjax_lite as fl
from fedjax_lite.configuration.data import load_data
from fedjax_lite.configuration.table import Config

CLIENTS = {
    name: {"x": np.random.default_rng(seed).random((n, 3)).astype(np.float32), "y": np.arange(n, dtype=np.int64) % 4}
    for seed, (name, n) in enumerate({"10": 4, "9": 1, "101": 7}.items())
}


def leaf(folder):
    users = {name: {"x": client["x"].tolist(), "y": client["y"].tolist()} for name, client in CLIENTS.items()}
    facts = {"users": list(users), "num_samples": [len(client["y"]) for client in CLIENTS.values()], "user_data": users}
    (folder / "shard.json").write_text(json.dumps(facts))
    return fl.data.leaf(folder, test=0)


def tff_hdf5(folder):
    return fl.data.tff_hdf5(test_tff_hdf5.write(folder / "a.h5", CLIENTS), test=0)


def tff_sqlite(folder):
    rows = [
        ("train", name, test_tff_sqlite.example(x=x.tolist(), y=[int(y)]))
        for name, client in CLIENTS.items()
        for x, y in zip(client["x"], client["y"], strict=True)
    ]
    return fl.data.tff_sqlite(test_tff_sqlite.write(folder / "a.sqlite", rows), test=0)


def fedjax_sqlite(folder):
    rows = [
        test_fedjax_sqlite.client(name.encode(), len(client["y"]), **{leaf: test_fedjax_sqlite.array(x) for leaf, x in client.items()})
        for name, client in CLIENTS.items()
    ]
    return fl.data.fedjax_sqlite(test_fedjax_sqlite.write(folder / "a.sqlite", rows), test=0)


def pfllib(folder):
    return fl.data.pfllib(test_npz.write_pfllib(folder, CLIENTS), test=0)


def store(folder):
    ordered = [CLIENTS[name] for name in ("9", "10", "101")]
    fl.data.save(folder / "store", ({"x": client["x"], "y": client["y"].astype(np.int32)} for client in ordered))
    return fl.data.store(folder / "store")


@pytest.mark.parametrize("form", [leaf, tff_hdf5, tff_sqlite, fedjax_sqlite, pfllib, store], ids=lambda form: form.__name__)
def test_the_same_clients_are_the_same_population(tmp_path, form):
    data = form(tmp_path)
    ordered = [CLIENTS[name] for name in ("9", "10", "101")]
    assert data.train.fingerprint() == fl.FederatedData.from_clients(ordered).fingerprint()
    assert form is store or data.names == ("9", "10", "101")


def test_a_configuration_names_them(tmp_path):
    file = test_tff_hdf5.write(tmp_path / "a.h5", {name: {"one": client["x"], "two": client["y"]} for name, client in CLIENTS.items()})
    facts = {"name": "tff_hdf5", "path": str(file), "features": {"x": "one", "y": "two"}, "test": 0}
    assert load_data(Config({"data": facts}), 0).names == ("9", "10", "101")
    facts |= {"test": 0.5, "partition": {"name": "iid", "clients": 2}}
    source = load_data(Config({"data": facts}), 0)
    assert source.train.size.tolist() == source.test.size.tolist() == [3, 3] and source.names is None
