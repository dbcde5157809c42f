"""Examples taken out of a population: what is left to its clients, and what is everybody's."""

import numpy as np
import pytest

import fedjax_lite as fl

SIZES = np.array([1, 4, 0, 2, 9])


@pytest.mark.parametrize("share, count", [(12, 12), (3, 3), (0.5, 8)])
def test_every_example_is_in_one_part_and_every_client_keeps_one(share, count):
    owner = np.repeat(np.arange(5), SIZES)
    data = fl.FederatedData.from_arrays({"x": np.arange(16.0), "owner": owner}, owner, population=5, allow_empty=True)
    for seed in range(5):
        rest, taken = fl.data.hold_out(data, share, seed=seed)
        assert rest.population == 5 and taken.population == 1 and taken.size.tolist() == [count]
        assert sorted([*rest.examples["x"].tolist(), *taken.examples["x"].tolist()]) == list(range(16))
        assert ((np.asarray(rest.size) > 0) == (SIZES > 0)).all()
        assert rest.examples["owner"].tolist() == np.repeat(np.arange(5), rest.size).tolist()


def test_it_follows_the_seed_and_refuses_a_clients_last_example():
    data = fl.FederatedData.from_clients([{"x": np.arange(8.0)}, {"x": np.arange(8.0, 12)}])
    draws = [tuple(fl.data.hold_out(data, 5, seed=seed)[1].examples["x"].tolist()) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    with pytest.raises(ValueError, match="share=11 is 11 of 12 examples, of which 10 can be spared: change it"):
        fl.data.hold_out(data, 11)


def test_a_small_clients_example_is_as_likely_as_a_large_ones():
    """Of 2000 clients of two examples and one of 4000: with t as the share drawn of the large one's, each pair loses one with
    1 - (1 - t)^2, and a tenth of all is 2000 (2 t - t^2) + 4000 t."""
    owner = np.concatenate([np.repeat(np.arange(2000), 2), np.full(4000, 2000)])
    data = fl.FederatedData.from_arrays({"owner": owner}, owner)
    t = 2 - np.sqrt(4 - 800 / 2000)
    for seed in range(3):
        taken = np.asarray(fl.data.hold_out(data, 0.1, seed=seed)[1].examples["owner"])
        assert abs((taken == 2000).sum() - 4000 * t) < 4 * np.sqrt(800 / 4), seed
        assert np.bincount(taken)[:2000].max() == 1  # and no client loses both


def test_numbers_of_numpy_are_numbers_and_classes_of_any_dtype_are_counted():
    data = fl.FederatedData.from_clients([{"y": np.array([0.0, 2.0, 2.0])}, {"y": np.array([1.0])}])
    for share, count in ((np.int64(1), 1), (np.float32(0.5), 2)):
        assert fl.data.hold_out(data, share)[1].size.tolist() == [count]
    assert fl.data.class_counts(data).tolist() == [[1, 0, 2], [0, 1, 0]]
    with pytest.raises(ValueError, match='no whole numbers "y" as labels'):
        fl.data.class_counts(fl.FederatedData.from_clients([{"y": np.array([0.5])}]))
