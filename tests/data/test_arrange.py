"""What a reader found becomes a population: natural clients by name, dealt examples, and a test part that fits them."""

import numpy as np
import pytest

import fedjax_lite as fl
from fedjax_lite.data.arrange import Part, arrange
from fedjax_lite.data.deal import deal
from fedjax_lite.data.partition import iid


def part(owners, first=0.0):
    """Examples first, first + 1, ... with labels 0, 1, 0, ..., of the owners with these names; None: of nobody."""
    examples = {"x": first + np.arange(len(owners), dtype=np.float32), "y": np.arange(len(owners)) % 2}
    if None in owners:
        return Part(examples)
    names = list(dict.fromkeys(owners))
    return Part(examples, np.array([names.index(owner) for owner in owners]), names)


def held(population):
    return {population.names[k]: population.client(k)["x"].tolist() for k in range(population.population)}


def test_natural_clients_are_sorted_and_hold_out_as_split_does():
    found = arrange(part(["10", "9", "10", "9", "10"]), share=0.5, seed=3, words=["a", "b"])
    whole = fl.FederatedData.from_clients(
        [{"x": np.array(x, np.float32), "y": np.array(x, int) % 2} for x in ([1, 3], [0, 2, 4])],
        names=["9", "10"],
    )
    for ours, theirs in zip(found, fl.data.split(whole, 0.5, seed=3), strict=True):
        assert held(ours) == held(theirs) and ours.names == ("9", "10") and ours.words == ("a", "b")
    assert held(arrange(part(["10", "9", "10"]), share=0).train) == {"9": [1.0], "10": [0.0, 2.0]}


def test_a_test_part_is_aligned_by_name():
    train, test = part(["b", "a", "b"]), part(["c", "b", "c"][1:2], first=10)
    found = arrange(train, test)
    assert held(found.train) == {"a": [1.0], "b": [0.0, 2.0]} and held(found.test) == {"a": [], "b": [10.0]}
    central = arrange(train, part(["c", "d"], first=10)).test
    assert central.population == 1 and central.examples["x"].tolist() == [10.0, 11.0]
    assert arrange(train, part([None, None])).test.population == 1
    with pytest.raises(ValueError, match="1 of 2 clients.*, such as 'c', are not in the training part"):
        arrange(train, part(["c", "b"]))


def test_a_partition_deals_whoevers_they_are():
    for owners in ([None] * 6, list("aabbcc")):
        found = arrange(part(owners), partition=iid(3), share=0.5, seed=2)
        dealt = deal(part(owners).examples, iid(3), seed=2, test=0.5)
        for ours, theirs in zip(found, dealt, strict=True):
            assert ours.fingerprint() == theirs.fingerprint() and ours.names is None
    found = arrange(part(list("aabb")), part(["a"], first=10), partition=iid(2), seed=2)
    assert found.train.size.tolist() == [2, 2] and found.test.population == 1  # the clients there are others


def test_refusals():
    with pytest.raises(ValueError, match=r"partition: these files name no clients, so give a partition .* such as iid\(clients=10\)"):
        arrange(part([None] * 3))
    with pytest.raises(ValueError, match=r"test must be a fraction in \[0, 1\)"):
        arrange(part(["a"]), share=1)


def test_names_without_examples_are_no_clients():
    three = part(["a", "b"])._replace(names=["a", "b", "c"])
    assert arrange(three, share=0).names == ("a", "b")
