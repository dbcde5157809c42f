"""Clients that are kept apart: each whole, in one part, with what it holds out."""

import numpy as np
import pytest

import fedjax_lite as fl


def population(clients=10):
    train = fl.FederatedData.from_clients([{"x": np.full(k + 1, k)} for k in range(clients)])
    return fl.TrainTest(train, fl.FederatedData.from_clients([{"x": np.full(1, -k)} for k in range(clients)]))


@pytest.mark.parametrize(("share", "count"), [(3, 3), (0.25, 2), (np.int64(1), 1), (0.3, 3)])
def test_every_client_is_whole_in_one_part_with_its_own_test_examples(share, count):
    rest, new = fl.data.hold_out_clients(population(), share, seed=1)
    assert (rest.population, new.population) == (10 - count, count)
    seen = []
    for part in (rest, new):
        for k in range(part.population):
            (who,) = set(part.train.client(k)["x"].tolist())
            assert len(part.train.client(k)["x"]) == who + 1 and part.test.client(k)["x"].tolist() == [-who]
            seen.append(who)
    assert sorted(seen) == list(range(10)) and seen[: 10 - count] == sorted(seen[: 10 - count])


def test_they_follow_the_seed():
    draws = [fl.data.hold_out_clients(population(), 4, seed=seed)[1].train.examples["x"].tolist() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_refusals(tmp_path):
    data = population()
    for share in (0, 1.0, -1, 10, 0.05, "all", True):
        with pytest.raises(ValueError, match="hold_out_clients: clients"):
            fl.data.hold_out_clients(data, share)
    central = fl.TrainTest(data.train, fl.FederatedData.from_clients([{"x": np.zeros(3, int)}]))
    with pytest.raises(ValueError, match="the test part has 1 clients, the population 10: hold out examples of each client"):
        fl.data.hold_out_clients(central, 2)
    for wrong in (data.train, fl.TrainTest(fl.data.save(tmp_path / "store", data.train), None)):
        kind = type(wrong).__name__ if wrong is data.train else "Store"
        with pytest.raises(TypeError, match=f"data must be a TrainTest in memory, and not a {kind}: read it into memory"):
            fl.data.hold_out_clients(wrong, 2)
