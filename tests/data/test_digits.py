"""The bundled digits, and the hold-out rule that every central data set goes through."""

from inspect import unwrap  # bad types must reach our own messages, as they do for users, not beartype's

import numpy as np
import pytest

import fedjax_lite as fl
from fedjax_lite.data import digits, partition
from fedjax_lite.data.deal import deal


def rows(data):
    """Every example as one sortable row of whole numbers."""
    pixels = np.asarray(data.examples["x"]) * 16
    return np.concatenate([pixels, np.asarray(data.examples["y"])[:, None]], axis=1)


def as_multiset(array):
    return array[np.lexsort(array.T)]


def test_the_file_is_what_scikit_learn_has():
    datasets = pytest.importorskip("sklearn.datasets")
    original = datasets.load_digits()
    data = digits(partition.iid(1), test=0)
    expected = np.concatenate([original.data, original.target[:, None]], axis=1)
    np.testing.assert_array_equal(as_multiset(rows(data.train)), as_multiset(expected))


def test_counts_and_types():
    train, test = digits(partition.iid(1), test=0)
    assert test is None
    assert train.examples["x"].shape == (1797, 64) and train.examples["x"].dtype == np.float32
    assert train.examples["y"].dtype == np.int32
    assert np.bincount(train.examples["y"]).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert rows(train)[:, :64].sum() == 561718
    assert (train.examples["x"].min(), train.examples["x"].max()) == (0, 1)


@pytest.mark.deep
def test_each_client_holds_out_its_own_share():
    function = partition.dirichlet(clients=50, alpha=0.3)
    whole = digits(function, seed=3, test=0).train
    data = digits(function, seed=3)
    assert data.population == data.train.population == data.test.population == 50
    sizes = np.asarray(whole.size)
    np.testing.assert_array_equal(data.test.size, sizes // 6)
    np.testing.assert_array_equal(data.train.size, sizes - sizes // 6)
    for k in range(50):
        both = np.concatenate([rows(data.train.take([k])), rows(data.test.take([k]))])
        np.testing.assert_array_equal(as_multiset(both), as_multiset(rows(whole.take([k]))))


def test_the_seed_decides_everything():
    first, again, other = (digits(partition.iid(5), seed=seed) for seed in (1, 1, 2))
    assert first.train.fingerprint() == again.train.fingerprint() and first.test.fingerprint() == again.test.fingerprint()
    assert first.train.fingerprint() != other.train.fingerprint()


def test_draw_order_is_the_documented_one():
    examples = {"x": np.arange(60.0)[:, None], "y": np.arange(60) % 3}
    data = deal(examples, partition.iid(4), seed=5, test=0.2)
    rng = np.random.default_rng(5)
    parts = [rng.permutation(part) for part in np.array_split(rng.permutation(60), 4)]
    assert data.test.examples["x"][:, 0].tolist() == [row for part in parts for row in part[:3]]
    assert data.train.examples["x"][:, 0].tolist() == [row for part in parts for row in part[3:]]


def test_held_out_share_is_not_lost_to_rounding():
    examples = {"y": np.zeros(100, int)}
    assert deal(examples, partition.iid(1), seed=0, test=0.29).test.size.tolist() == [29]  # 100 * 0.29 < 29 in floating point


def test_a_partition_may_leave_examples_out():
    data = digits(lambda rng, labels: [np.flatnonzero(labels == 3), np.flatnonzero(labels == 5)], test=0)
    assert data.train.size.tolist() == [183, 182]


@pytest.mark.parametrize("test", [-0.1, 1, 1.5, float("nan"), "0.1", None, True])
def test_bad_fraction(test):
    with pytest.raises(ValueError, match=r"test must be a fraction in \[0, 1\)"):
        unwrap(digits)(partition.iid(5), test=test)


def test_nothing_left_to_hold_out():
    with pytest.raises(ValueError, match="test=0.167 holds nothing out, the largest client has 2 examples: raise test"):
        digits(partition.iid(1000))


@pytest.mark.parametrize("argument", [10, "iid", None])
def test_partition_must_be_a_function(argument):
    with pytest.raises(TypeError, match=r"partition must be a function such as fl\.partition\.iid\(clients=10\), got"):
        unwrap(digits)(argument)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "partition made no clients"),
        ([[0, 1], []], r"partition gave client 1 float64\[0\]"),
        ([[0.5]], "partition gave client 0 float64"),
        ([[0, 1797]], r"partition gave client 0 the examples 0\.\.1797, the data has 0\.\.1796"),
        ([[-1]], r"partition gave client 0 the examples -1"),
        ([[0, 1], [2, 1]], "partition gave example 1 to 2 clients: parts must be disjoint"),
    ],
)
def test_a_strangers_partition_is_checked(parts, message):
    with pytest.raises(ValueError, match=message):
        digits(lambda rng, labels: parts)


@pytest.mark.parametrize("returned", [None, 5, "parts", {"a": [0]}, [[0, [1]]]], ids=repr)
def test_a_partition_that_returns_no_index_arrays_is_named(returned):
    with pytest.raises(ValueError, match="partition must return one array of example indices a client, got"):
        digits(lambda rng, labels: returned)


@pytest.mark.parametrize("seed", [-1, True])
def test_a_seed_is_a_whole_number_from_0(seed):
    for make in (
        lambda: digits(partition.iid(10), seed=seed),
        lambda: fl.data.synthetic(seed=seed),
        lambda: fl.data.noise({"x": np.zeros(2)}, 3, seed=seed),
        lambda: fl.data.hold_out(fl.FederatedData.from_clients([{"x": np.zeros(3)}]), 1, seed=seed),
    ):
        with pytest.raises(ValueError, match=f"data: seed must be a whole number of at least 0, got {seed}"):
            make()
